"""The neutral record that every VIA format is read into, and that COCO is written from. No torch."""

from typing import NamedTuple

Point = tuple[float, float]
# The attributes of regions that results.py wrote. They hold a class whatever other files call theirs, and notes.
DETECTED_CLASS, DETECTED_SCORE, DETECTED_NOTE = "detected_class", "detected_score", "detected_note"
DETECTED = (DETECTED_CLASS, DETECTED_SCORE, DETECTED_NOTE)


class Region(NamedTuple):
    """One annotated object, or a part of one, as its annotator drew it, in pixels of the image."""

    points_xy: list[Point]  # the polygon; a single point where only a point was set
    attributes: dict[str, object]  # what the annotator filled in, such as {"name": "balloon"}
    key: str = ""  # how the file tells it from the other regions of its image
    group: str = ""  # regions of one class with the same one are one object; empty: an object of its own


class AnnotatedImage(NamedTuple):
    """One image of an annotation file with its regions."""

    file_name: str  # as the file has it: perhaps with folders, or an address
    regions: list[Region]
    listed_wh: tuple[int, int] | None = None  # the image's size where the file gives one (only COCO does)
    listed_bytes: int | None = None  # the size of the image's file where VIA has noted it
    remarks: tuple[tuple[str, str], ...] = ()  # of the file's reader: category of detr.importers.notes, where
