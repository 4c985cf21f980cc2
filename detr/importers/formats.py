"""Annotations of other tools with a label file per image, and which tool a folder is of. No torch."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from detr.importers.label_folder import CLASS, files_below
from detr.importers.labelme import read_labelme
from detr.importers.labelme import recognise as is_labelme
from detr.importers.splits import Split
from detr.importers.via import coco_export
from detr.importers.via.classes import ClassFlags
from detr.importers.via.importer import import_sources
from detr.importers.via.reader import format_of, parse
from detr.importers.voc import read_voc
from detr.importers.yolo import looks_like_labels, read_yolo
from utils import UserError

READERS = {"yolo": read_yolo, "voc": read_voc, "labelme": read_labelme}
UNUSED_NAME = "classes without objects, dropped"
_SAMPLES = 5  # files of each kind that are looked into to tell a folder's format


def import_labels(
    name: str,
    path: Path,
    images: Path | None = None,
    *,
    class_flags: ClassFlags | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
    keep_partial: bool = False,
    background: Sequence[Path] = (),
    left_out: Path | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Split]:
    """Read a folder in the format `name` of `READERS` as `train` and `val`; all else is as of `import_via`.

    Classes are in the order that the format gives them, in alphabetical order where it gives none. Raises UserError.
    """
    labels = READERS[name](path, images, left_out)
    flags = class_flags or ClassFlags()
    used = set()
    if labels.names:
        used = {
            region.attributes[CLASS] for source in labels.sources for image in source.images for region in image.regions
        }
        in_order = tuple(name for name in labels.names if name in used)
        flags = replace(flags, categories=flags.categories or in_order)
    splits = import_sources(
        labels.sources,
        path.resolve().name,
        class_flags=flags,
        val_fraction=val_fraction,
        seed=seed,
        skip_bad_images=skip_bad_images,
        keep_partial=keep_partial,
        background=background,
        on_image=on_image,
    )
    unused = [name for name in labels.names if name not in used]
    splits["train"].notes.add([*labels.remarks, *((UNUSED_NAME, name) for name in unused)])
    return splits


def format_hint(given: str, path: Path) -> str:
    """Return what to add to a message about annotations that are of another format than the flag `given` says."""
    formats = {_format_of(file) for file in _samples(path)} - {""}
    if not formats or given in formats:
        return ""
    folder = path.parent if path.is_file() else path
    return f". It looks like {' and '.join(sorted(formats))}: try --{' or --'.join(sorted(formats))} {folder}"


def _samples(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [path / file for file in files_below(path, None)]
    return [
        file
        for suffix in (".json", ".csv", ".xml", ".txt")
        for file in [file for file in files if file.suffix.lower() == suffix][:_SAMPLES]
    ]


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
