"""What an import cannot know, asked all at once, with the flags that answer it. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

from utils import UserError


class Question(NamedTuple):
    """One thing that is in doubt or wrong."""

    text: str  # what it is and what can be done about it, in a sentence
    flags: tuple[str, ...] = ()  # the answer that the import was tried with; none where only the files can be put right


class Undecided(UserError):
    """Everything that the user has to decide or put right.

    `flags` are those with which the import would go through, empty where none would.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        """Args: at least one question."""
        texts = [question.text for question in questions]
        super().__init__(texts[0] if len(texts) == 1 else "\n- ".join((f"{len(texts)} things to put right:", *texts)))
        has_answer = all(question.flags for question in questions)
        self.flags = [flag for question in questions for flag in question.flags] if has_answer else []
