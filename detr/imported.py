"""What every importer hands over: per split a checked COCO dict with its files, and what was changed on the way."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """One split as it will be written."""

    coco: dict
    paths: list[Path]  # where each of the COCO dict's images lies now, in their order
    thumbnails: np.ndarray  # (images, 16, 18) uint8, as `thumbnails.look_at` makes them


class Note(NamedTuple):
    """Something that was clipped, dropped or skipped."""

    what: str  # and what was done, such as "boxes without area, dropped"
    count: int
    examples: list[str]  # a few, each naming file and object


class Notes:
    """Collects notes: counts all, keeps a few examples."""

    EXAMPLES = 5

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._examples: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, what: str, example: str) -> None:
        """Count one more of `what`."""
        self._counts[what] += 1
        if len(self._examples[what]) < self.EXAMPLES:
            self._examples[what].append(example)

    def listed(self) -> list[Note]:
        """All notes, in the order of their first occurrence."""
        return [Note(what, count, self._examples[what]) for what, count in self._counts.items()]
