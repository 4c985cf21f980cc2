"""What an import changed or left out: how often, and where for example. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

POINT = "points, which have no box: skipped"
CLIPPED = "regions that leave the image: clipped to it"
OUTSIDE = "regions wholly outside the image: dropped"
ZERO = "regions without width or height: dropped"
LINE = "straight lines, which enclose nothing: their box is taken"
UNLABELLED = "regions without a class: left out, as --skip_unlabelled says"
OTHER = "regions of the class {}, which --categories does not name: left out"
SEVERAL = "regions with several boxes checked: taken as --checked says"
BAD = "images that cannot be used: left out, as --skip_bad_images says"
TURNED = "photographs with EXIF rotation whose regions fit the unrotated frame only: regions turned upright"
UNSURE = "photographs with EXIF rotation whose regions fit both ways round: taken as drawn upright, look at them"
EXAMPLES = 5


@dataclass
class Note:
    """One thing that was done."""

    count: int = 0
    examples: list[str] = field(default_factory=list)  # "image" or "image, region key"; the first few


class Notes(dict[str, Note]):
    """What was done to one split, by category (the constants of this module)."""

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
            f"{note.count} {category} ({'; '.join(note.examples)}{'; ...' if note.count > EXAMPLES else ''})"
            for category, note in sorted(self.items(), key=lambda item: -item[1].count)
        ]
