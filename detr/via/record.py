"""The neutral record that every VIA format is read into, and that COCO is written from. No torch."""

from typing import NamedTuple


class Region(NamedTuple):
    """One outlined object as its annotator drew it, in pixels of the image."""

    points_xy: list[tuple[float, float]]  # the outline, closed; exactly as drawn
    attributes: dict[str, object]  # what the annotator filled in, such as {"name": "balloon"}


class AnnotatedImage(NamedTuple):
    """One image of an annotation file with its regions."""

    file_name: str
    regions: list[Region]
