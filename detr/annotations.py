"""Read a COCO annotation file and hold it against its images, before any time is spent on training. No torch."""

import json
import math
from pathlib import Path

from detr.errors import UserError
from detr.images import read_size_hw


def read_coco(path: Path) -> dict:
    """Read a COCO annotation file and check the parts we rely on. Raises UserError naming what is missing or wrong."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; python prep.py writes it, or set --coco_path") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    parts = ("images", "annotations", "categories")
    if not isinstance(coco, dict) or not all(isinstance(coco.get(part), list) for part in parts):
        raise UserError(f"{path}: not COCO; expected an object with the lists {', '.join(parts)}")
    for part, fields in (
        ("images", ("id", "file_name", "width", "height")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
        ("categories", ("id", "name")),
    ):
        _check_entries(path, part, coco[part], fields)
    if not coco["categories"]:
        raise UserError(f"{path}: no categories; at least one class is needed")
    _check_references(path, coco)
    return coco


def _check_entries(path: Path, part: str, entries: list, fields: tuple[str, ...]) -> None:
    seen = set()
    for number, entry in enumerate(entries):
        missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
        if missing:
            raise UserError(f"{path}: {part}[{number}] has no {' and no '.join(missing)}")
        if not isinstance(entry["id"], int):
            raise UserError(f"{path}: {part}[{number}] has id {entry['id']!r}; a whole number is needed")
        if entry["id"] in seen:
            raise UserError(f"{path}: {part}[{number}] repeats id {entry['id']}")
        seen.add(entry["id"])


def _check_references(path: Path, coco: dict) -> None:
    image_ids = {image["id"] for image in coco["images"]}
    category_ids = {category["id"] for category in coco["categories"]}
    for annotation in coco["annotations"]:
        where = f"{path}: annotation {annotation['id']}"
        if annotation["image_id"] not in image_ids:
            raise UserError(f"{where} belongs to image {annotation['image_id']}, which is not listed")
        if annotation["category_id"] not in category_ids:
            raise UserError(f"{where} has category {annotation['category_id']}; listed are {sorted(category_ids)}")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(_is_finite(value) for value in box)):
            raise UserError(f"{where} has bbox {box!r}; four finite numbers x, y, width, height are needed")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def check_images(coco: dict, folder: Path) -> None:
    """Compare every image file's header with the annotation file, before any time is spent on training.

    Raises UserError that lists the missing, unreadable and resized images (the first ten).
    """
    problems = []
    for image in coco["images"]:
        path = folder / image["file_name"]
        try:
            height, width = read_size_hw(path)
        except UserError as error:
            problems.append(str(error))
            continue
        listed = (image.get("width", width), image.get("height", height))
        if listed != (width, height):
            problems.append(
                f"{path}: the file has {width}x{height} pixels, the annotations say {listed[0]}x{listed[1]}"
            )
    if problems:
        shown = problems[:10] + ([f"... and {len(problems) - 10} more"] if len(problems) > 10 else [])
        raise UserError(f"{len(problems)} of {len(coco['images'])} images do not fit:\n  " + "\n  ".join(shown))
