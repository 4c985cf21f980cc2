"""What every importer hands over: per split a checked COCO dict with its files, and what was changed on the way."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """One split as it will be written."""

    coco: dict
    paths: list[Path]  # where each of the COCO dict's images lies now, in their order
    thumbnails: np.ndarray  # (images, 16, 18) uint8, as `thumbnails.read_thumbnails` makes them


class Note(NamedTuple):
    """Something that was clipped, dropped or skipped."""

    what: str  # and why, such as "boxes without area, dropped"
    count: int
    examples: list[str]  # a few, each naming file and object
