"""Which rows of a weights file's class head the classes of a dataset start from, by their names. No torch.

A wrong match is worse than a missed one: a miss is shown in the load report and put right by --class_map.
"""

import difflib
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from utils import UserError


class ClassRows(NamedTuple):
    """Which row of a file's class head each class starts from; the last row, "no object", always comes along."""

    file_names: dict[int, str]  # row of the file's head -> class; holes and unnamed rows are left out
    names: dict[int, str]  # label -> class of the dataset
    row_of_label: dict[int, int]  # labels without a row start as the mean of all rows

    def __str__(self) -> str:
        taken = []
        for label, row in sorted(self.row_of_label.items()):
            old, new = self.file_names.get(row, f"row {row}"), self.names[label]
            taken.append(new if old == new else f"{old} -> {new}")
        fresh = ", ".join(self.names[label] for label in self.fresh)
        text = f"class rows taken over: {', '.join([*taken, 'no object'])}"
        return text + (f"; mean of all rows: {fresh}" if fresh else "")

    @property
    def fresh(self) -> list[int]:
        """The labels without a row."""
        return [label for label in sorted(self.names) if label not in self.row_of_label]


def match_classes(
    file_names: dict[int, str], names: dict[int, str], class_map: list[tuple[str, str]], path: Path, num_rows: int = 0
) -> ClassRows:
    """Find the row of every class of the dataset that the file knows.

    Args:
        file_names: row of the file's class head -> class; empty where the file does not say.
        names: label -> class of the dataset.
        class_map: (name in the file, name in the dataset) that the user asked for. A row can be asked for more than
            once; one that is asked for is not given to another class by its name.
        path: the file, for messages.
        num_rows: classes of the file; its rows can be asked for by number, which is the label.

    Raises UserError where `class_map` names a class that is not there, or one of the dataset twice.
    """
    row_of_label = {}
    for old, new in class_map:
        flag = f"--class_map {old}={new}"
        if old.isdecimal() and int(old) < num_rows and old not in file_names.values():
            row = int(old)
        elif not file_names:
            raise UserError(f"{flag}: {path} does not say what its classes are called; rows have numbers, from 0")
        else:
            row = _find(old, file_names, f"{flag}: {path}")
        label = _find(new, names, f"{flag}: the dataset")
        if label in row_of_label:
            raise UserError(f"{flag}: {names[label]!r} is given a row already; name each class of the dataset once")
        row_of_label[label] = row
    left_names = {label: name for label, name in names.items() if label not in row_of_label}
    left_rows = {row: name for row, name in file_names.items() if row not in row_of_label.values()}
    return ClassRows(file_names, names, row_of_label | _match(left_names, left_rows))


def _find(name: str, names: dict[int, str], where: str) -> int:
    """Return the key of a name that the user gave. Raises UserError that lists what there is, the closest first."""
    match = _match({0: name}, names)
    if not match:
        closest_first = difflib.get_close_matches(name, list(names.values()), len(names), cutoff=0)
        raise UserError(f"{where} has no class {name!r}, or more than one; it has: {', '.join(closest_first)}")
    return match[0]


def _match(names: dict[int, str], file_names: dict[int, str]) -> dict[int, int]:
    """Match keys of `names` with keys of `file_names`, one to one; the closest spelling wins, a tie is not guessed."""
    matches: dict[int, int] = {}
    # Each test includes the one before it, so that names tied in a close spelling stay tied in a looser one.
    for normalize in (str, _normalize, _singular):
        pairs = [
            (key, other)
            for key in names.keys() - matches.keys()
            for other in file_names.keys() - set(matches.values())
            if normalize(names[key]) == normalize(file_names[other]) and _normalize(names[key])
        ]
        uses = Counter(key for key, _ in pairs)
        other_uses = Counter(other for _, other in pairs)
        matches |= {key: other for key, other in pairs if uses[key] == other_uses[other] == 1}
    return matches


@cache
def _normalize(name: str) -> str:
    """Lower case, with one space for what separates words."""
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


@cache
def _singular(name: str) -> str:
    """Without a plural's s: not that of a short word, and no digit's: there is an iphone 5 and an iphone 5s."""
    return re.sub(r"(?<=[^\W\d_]{3})(?<!s)s$", "", _normalize(name))
