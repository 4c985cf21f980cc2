"""Find a folder's annotation file, tell its format by content, and read it into neutral records. No torch."""

import json
from pathlib import Path

from detr.errors import UserError
from detr.via import v1
from detr.via.record import AnnotatedImage

FORMATS = (v1,)  # each has `recognise(content)` and `read(content, where)`


def find_annotation_file(folder: Path) -> Path:
    """The one JSON file of a folder. Raises UserError when there is none, or several."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected train/ and val/, each with images and a VIA JSON file")
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{folder}: expected one annotation file (*.json), found {names}")
    return found[0]


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """Read an annotation file. Raises UserError naming the file when it is in no format that we know."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    for format_ in FORMATS:
        if format_.recognise(content):
            return format_.read(content, str(path))
    raise UserError(f"{path}: not a VIA annotation file that is supported; accepted: VIA 1.x JSON (polygons)")
