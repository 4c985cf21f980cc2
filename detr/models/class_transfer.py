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
    row_of_label: dict[int, int]  # labels without a row start fresh

    def __str__(self) -> str:
        taken = []
        for label, row in sorted(self.row_of_label.items()):
            old, new = self.file_names[row], self.names[label]
            taken.append(new if old == new else f"{old} -> {new}")
        fresh = [name for label, name in sorted(self.names.items()) if label not in self.row_of_label]
        text = f"class rows taken over: {', '.join([*taken, 'no object'])}"
        return text + (f"; fresh: {', '.join(fresh)}" if fresh else "")


def match_classes(
    file_names: dict[int, str], names: dict[int, str], class_map: list[tuple[str, str]], path: Path
) -> ClassRows:
    """Find the row of every class of the dataset that the file knows.

    Args:
        file_names: row of the file's class head -> class; empty where the file does not say.
        names: label -> class of the dataset.
        class_map: (name in the file, name in the dataset) that the user asked for. A row can be asked for more than
            once; one that is asked for is not given to another class by its name.
        path: the file, for messages.

    Raises UserError where `class_map` names a class that is not there, or one of the dataset twice.
    """
    row_of_label = {}
    for old, new in class_map:
        flag = f"--class_map {old}={new}"
        if not file_names:
            raise UserError(f"{flag}: {path} does not say what its classes are called")
        row = _find(old, file_names, f"{flag}: {path}")
        label = _find(new, names, f"{flag}: the dataset")
        if label in row_of_label:
            raise UserError(f"{flag}: {names[label]!r} is given a row already; name each class of the dataset once")
        row_of_label[label] = row
    left_names = {label: name for label, name in names.items() if label not in row_of_label}
    left_rows = {row: name for row, name in file_names.items() if row not in row_of_label.values()}
    return ClassRows(file_names, names, row_of_label | _match(left_names, left_rows))


def _find(name: str, names: dict[int, str], where: str) -> int:
    """The key of a name that the user gave. Raises UserError that lists what there is, the closest first."""
    found = _match({0: name}, names)
    if not found:
        closest_first = difflib.get_close_matches(name, list(names.values()), len(names), cutoff=0)
        raise UserError(f"{where} has no class {name!r}, or more than one; it has: {', '.join(closest_first)}")
    return found[0]


def _match(wanted: dict[int, str], offered: dict[int, str]) -> dict[int, int]:
    """Key of `wanted` -> key of `offered`, one to one; the closest spelling wins, and a tie is not guessed."""
    found: dict[int, int] = {}
    # Each test includes the one before it, so that names tied in a close spelling stay tied in a looser one.
    for is_same in (str.__eq__, _is_spelled_alike, _is_alike_or_plural):
        pairs = [
            (key, other)
            for key in wanted.keys() - found.keys()
            for other in offered.keys() - set(found.values())
            if is_same(wanted[key], offered[other])
        ]
        uses = Counter(key for key, _ in pairs)
        other_uses = Counter(other for _, other in pairs)
        found |= {key: other for key, other in pairs if uses[key] == other_uses[other] == 1}
    return found


def _is_spelled_alike(one: str, other: str) -> bool:
    return _plain(one) == _plain(other) != ""


def _is_alike_or_plural(one: str, other: str) -> bool:
    one, other = _plain(one), _plain(other)
    return one == other != "" or one in _plurals(other) or other in _plurals(one)


@cache
def _plain(name: str) -> str:
    """Lower case, with one space for what separates words."""
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


# Ending of the singular -> of the plural: "saleswoman" and "bookshelf" end like these.
_IRREGULAR = {
    "person": "people", "man": "men", "child": "children", "foot": "feet", "tooth": "teeth", "goose": "geese",
    "mouse": "mice", "calf": "calves", "knife": "knives", "leaf": "leaves", "loaf": "loaves", "scarf": "scarves",
    "shelf": "shelves", "wolf": "wolves",
}  # fmt: skip


@cache
def _plurals(name: str) -> frozenset[str]:
    """Plurals of an English singular in `_plain` spelling; of words too short to be one, nothing."""
    *_, word = name.split(" ")
    if not re.search(r"[^\W\d_]{3}$", word):  # "bus" is not several "bu", nor "iphone 5s" several "iphone 5"
        return frozenset()
    if re.search(r"(s|x|z|ch|sh)$", word):
        plurals = {f"{name}es"}
    elif re.search(r"[^aeiou]y$", word):
        plurals = {f"{name[:-1]}ies"}
    elif re.search(r"[^aeiou]o$", word):
        plurals = {f"{name}s", f"{name}es"}
    else:
        plurals = {f"{name}s"}
    for singular, plural in _IRREGULAR.items():
        if word.endswith(singular):
            plurals.add(name.removesuffix(singular) + plural)
    return frozenset(plurals)
