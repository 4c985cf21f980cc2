"""What every importer hands over: per split a checked COCO dict with its files, and what was changed on the way."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

EXAMPLES = 5


@dataclass
class Note:
    """One thing that was done."""

    count: int = 0
    examples: list[str] = field(default_factory=list)  # "image" or "image, region key"; the first few


class Notes(dict[str, Note]):
    """What was clipped, dropped or skipped in one split, by category: a few words on what, and what was done."""

    def add(self, remarks: Iterable[tuple[str, str]]) -> None:
        """Count remarks, each a category and where it was."""
        for category, where in remarks:
            note = self.setdefault(category, Note())
            note.count += 1
            if len(note.examples) < EXAMPLES:
                note.examples.append(where)

    def lines(self) -> list[str]:
        """A line per category, most frequent first."""
        return [
            f"{category}: {note.count} ({'; '.join(note.examples)}{'; ...' if note.count > EXAMPLES else ''})"
            for category, note in sorted(self.items(), key=lambda item: -item[1].count)
        ]


class Split(NamedTuple):
    """What is imported for training, or for validation."""

    coco: dict
    origins: list[Path]  # the file of each of `coco["images"]`
    notes: Notes
    thumbnails: np.ndarray  # (images, 16, 18) uint8, as `thumbnails.look_at` makes them
