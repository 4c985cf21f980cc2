"""Which flag of prep.py the annotations in a folder are for. No torch."""

import re
from pathlib import Path

from detr.importers.label_folder import visible_files
from detr.importers.labelme import recognise as is_labelme
from detr.importers.via import coco_export
from detr.importers.via.reader import format_of, parse
from detr.importers.yolo import looks_like_labels
from utils import UserError

_SAMPLES = 5  # files of each kind that are looked into to tell a folder's format


def format_hint(given: str, path: Path) -> str:
    """Return what to add to a message about annotations that are of another format than the flag `given` says."""
    formats = {_format_of(file) for file in _samples(path)} - {""}
    if not formats or given in formats:
        return ""
    folder = path.parent if path.is_file() else path
    return f". It looks like {' and '.join(sorted(formats))}: try --{' or --'.join(sorted(formats))} {folder}"


def _samples(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [path / file for file in visible_files(path)]
    of_kind = ([file for file in files if file.suffix.lower() == kind] for kind in (".json", ".csv", ".xml", ".txt"))
    return [file for some in of_kind for file in some[:_SAMPLES]]


def _format_of(file: Path) -> str:
    """Return the flag for an annotation file, empty for another file."""
    try:
        if file.suffix.lower() == ".xml":
            return "voc" if re.search(rb"<annotation[\s>]", file.read_bytes()[:4096]) else ""
        if file.suffix.lower() == ".txt":
            return "yolo" if looks_like_labels(file) else ""
        content = parse(file)
    except (UserError, OSError):
        return ""
    known = format_of(content)
    return "labelme" if is_labelme(content) else "coco" if known is coco_export else "via" if known else ""
