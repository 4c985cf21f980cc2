"""What an import cannot know, asked all at once, with the flags that answer it. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

from utils import UserError


class Question(NamedTuple):
    """One thing that is in doubt or wrong.

    Args: what it is and what can be done about it, in a sentence; the flags of an answer with which the import was
    tried on, none where only the files can be put right.
    """

    text: str
    flags: tuple[str, ...] = ()


class Undecided(UserError):
    """Everything that the user has to decide or put right.

    `flags` are those with which the import would go through, empty where none would.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        """Args: at least one question."""
        texts = [question.text for question in questions]
        super().__init__(texts[0] if len(texts) == 1 else "\n- ".join((f"{len(texts)} things to put right:", *texts)))
        self.flags = [flag for question in questions for flag in question.flags]
        if not all(question.flags for question in questions):
            self.flags = []
