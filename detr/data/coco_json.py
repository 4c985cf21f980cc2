"""Read a COCO annotation file and hold it against its images, before any time is spent on training. No torch."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from detr.data.images import White, read_size_hw
from utils import UserError, is_number, join_names, quote

# dataset_file -> (training file, validation file, training images, validation images), below --coco_path
LAYOUTS = {
    "custom": ("annotations/custom_train.json", "annotations/custom_val.json", "train2017", "val2017"),
    "coco": ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017"),
}
_FIELDS = {  # that every entry of these lists needs
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_MOST_LISTED = 50  # images in a message
LARGEST = 10**12  # pixels, or squares of them: more is nonsense that would overflow
_LARGEST_ID = 2**53


def read_coco(path: Path) -> dict:
    """Read a COCO annotation file and check the parts we rely on. Raises UserError naming what is missing or wrong."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; python prep.py writes it, or set --coco_path") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, lists in lists in lists
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(coco, dict) or not all(isinstance(coco.get(part), list) for part in _FIELDS):
        raise UserError(f"{path}: not COCO; expected an object with the lists {', '.join(_FIELDS)}")
    for part, fields in _FIELDS.items():
        _check_entries(path, part, coco[part], fields)
    if not coco["categories"]:
        raise UserError(f"{path}: no categories; at least one class is needed")
    for number, image in enumerate(coco["images"]):
        if not (isinstance(image["file_name"], str) and image["file_name"].strip()):
            raise UserError(f"{path}: images[{number}] has file_name {image['file_name']!r}; a name is needed")
        if not all(isinstance(side, int) and 0 < side < LARGEST for side in (image["width"], image["height"])):
            raise UserError(
                f"{path}: {image['file_name']} has width {image['width']!r} and height {image['height']!r}; whole "
                "numbers of pixels are needed"
            )
    _check_references(path, coco)
    return coco


def find_val(coco_path: Path, dataset_file: str) -> tuple[Path, Path]:
    """Return the annotations to evaluate on and the folder of their images, in the layout `dataset_file` if possible.

    Where a folder has no validation annotations but training annotations, as that of a test set may have, it is those.
    Raises UserError where there are none.
    """
    layouts = [LAYOUTS[name] for name in sorted(LAYOUTS, key=lambda name: name != dataset_file)]
    for annotations, images in ((1, 3), (0, 2)):
        for layout in layouts:
            if (coco_path / layout[annotations]).exists():
                return coco_path / layout[annotations], coco_path / layout[images]
    names = " or ".join(Path(layout[1]).name for layout in layouts)
    raise UserError(f"{coco_path / 'annotations'}: no {names}; --coco_path says where the COCO folder is now")


def match_categories(own: list[dict], listed: list[dict], source: Path) -> dict[int, int]:
    """Return category ids of `own` -> those of the same names in `listed`: ids are counted anew when classes change.

    Raises UserError where a name of `own` is not listed; `source` is what it comes from, for the message.
    """
    ids = {category["name"]: category["id"] for category in listed}
    unknown = [category["name"] for category in own if category["name"] not in ids]
    if unknown:
        raise UserError(
            f"{source}: has the class {unknown[0]!r}, which the annotations do not; they have {', '.join(ids)}. "
            "--coco_path names the folder of the annotations it was made for"
        )
    known = {category["name"]: category["id"] for category in own}
    if new := [name for name in ids if name not in known]:
        print(f"{source}: was not trained on {join_names(new)}, of which every object counts as missed")
    return {known[name]: ids[name] for name in known}


def white_in(coco: dict) -> White:
    """Return what prep.py made white in images of more than 8 bits; empty where there were none."""
    info = coco.get("info")
    white = info.get("white") if isinstance(info, dict) else None
    is_valid = isinstance(white, dict) and all(is_number(value, LARGEST) and value > 0 for value in white.values())
    return white if is_valid else {}


def check_white(own: White, coco: dict, source: Path) -> None:
    """Raise UserError where the images of a dataset were scaled otherwise than those that `source` was trained on."""
    for kind, value in white_in(coco).items():
        if own.get(kind, value) != value:
            raise UserError(
                f"{source}: was trained on images of more than 8 bits with {own[kind]:,} as white; in those of these "
                f"annotations it is {value:,}, and prep.py --white {own[kind]} prepares them alike"
            )


def check_categories(train_file: Path, train: dict, val_file: Path, val: dict) -> None:
    """Raise UserError where the categories of both splits are not the same."""
    listed = [sorted((c["id"], str(c["name"])) for c in coco["categories"]) for coco in (train, val)]
    if listed[0] != listed[1]:
        raise UserError(
            f"{val_file}: its categories differ from those of {train_file}; they need the same ids and names"
        )


def keep_images(coco: dict, ids: Collection[int]) -> dict:
    """Return a COCO dict with only these images and their annotations."""
    images = [image for image in coco["images"] if image["id"] in ids]
    return coco | {"images": images, "annotations": [one for one in coco["annotations"] if one["image_id"] in ids]}


def fingerprint(coco: dict) -> str:
    """Return what tells a set of images from others: a hash of their ids, names and sizes."""
    images = sorted((image["id"], image["file_name"], image["width"], image["height"]) for image in coco["images"])
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]


def _check_entries(path: Path, part: str, entries: list, fields: tuple[str, ...]) -> None:
    seen = set()
    for number, entry in enumerate(entries):
        missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
        if missing:
            raise UserError(f"{path}: {part}[{number}] has no {' and no '.join(missing)}")
        if not _is_id(entry["id"]):
            raise UserError(f"{path}: {part}[{number}] has id {entry['id']!r}; a whole number is needed")
        if entry["id"] in seen:
            raise UserError(f"{path}: {part}[{number}] repeats id {entry['id']}")
        seen.add(entry["id"])


def _check_references(path: Path, coco: dict) -> None:
    image_ids = {image["id"] for image in coco["images"]}
    category_ids = {category["id"] for category in coco["categories"]}
    for annotation in coco["annotations"]:
        where = f"{path}: annotation {annotation['id']}"
        if not _is_id(annotation["image_id"]) or annotation["image_id"] not in image_ids:
            raise UserError(f"{where} belongs to image {annotation['image_id']!r}, which is not listed")
        if not _is_id(annotation["category_id"]) or annotation["category_id"] not in category_ids:
            raise UserError(f"{where} has category {annotation['category_id']!r}; listed are {sorted(category_ids)}")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(is_number(value, LARGEST) for value in box)):
            raise UserError(f"{where} has bbox {box!r}; four finite numbers x, y, width, height are needed")
        if annotation.get("iscrowd") not in (None, 0, 1):
            raise UserError(f"{where} has iscrowd {annotation['iscrowd']!r}; accepted: 0 or 1")
        if annotation.get("area", 0) is None:
            del annotation["area"]
        if not is_number(annotation.get("area", 0), LARGEST):
            raise UserError(f"{where} has area {annotation['area']!r}; a finite number is needed")


def _is_id(value: object) -> bool:
    return isinstance(value, int) and abs(value) < _LARGEST_ID


def check_images(coco: dict, folder: Path) -> None:
    """Compare every image file's header with the annotation file, before any time is spent on training.

    Raises UserError that lists the missing, unreadable and resized images.
    """
    problems = []
    for image in coco["images"]:
        path = folder / image["file_name"]
        try:
            problem = size_problem(path, read_size_hw(path), (image["height"], image["width"]))
        except UserError as error:
            problem = str(error)
        if problem:
            problems.append(problem)
    refuse_images(problems, len(coco["images"]))


def size_problem(path: Path, found_hw: tuple[int, int], listed_hw: tuple[int, int]) -> str | None:
    """Return a sentence where an image file has another size than its annotations say; None where it has not."""
    if found_hw == listed_hw:
        return None
    turned = "; images are taken upright, as their EXIF data say" if found_hw == listed_hw[::-1] else ""
    (height, width), (listed_height, listed_width) = found_hw, listed_hw
    return f"{path}: the file has {width}x{height} pixels, the annotations say {listed_width}x{listed_height}{turned}"


def refuse_images(problems: list[str], total: int, advice: str = "") -> None:
    """Raise UserError with all that is wrong with the images of a dataset of `total`, if anything is."""
    if problems:
        left_out = len(problems) - _MOST_LISTED
        shown = problems[:_MOST_LISTED] + ([f"... and {left_out} more"] if left_out > 0 else [])
        raise UserError(
            f"{len(problems)} of {total} images do not fit:\n  " + "\n  ".join([*shown, *filter(None, [advice])])
        )


def iou_xywh(boxes_xywh: np.ndarray, other_xywh: np.ndarray) -> np.ndarray:
    """Return (P,) the IoU of boxes (P, 4) row by row, in COCO's order of operations."""
    ends, other_ends = boxes_xywh[:, :2] + boxes_xywh[:, 2:], other_xywh[:, :2] + other_xywh[:, 2:]
    sides = np.minimum(ends, other_ends) - np.maximum(boxes_xywh[:, :2], other_xywh[:, :2])
    intersection = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    union = boxes_xywh[:, 2:].prod(axis=1) + other_xywh[:, 2:].prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)


def to_rle(segmentation: list | dict, size_hw: tuple[int, int]) -> dict:
    """Return a COCO segmentation, polygons or RLE, as compressed RLE over an image of `size_hw`."""
    height, width = size_hw
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation | {"counts": segmentation["counts"].encode()}


def all_have_outlines(coco: dict) -> bool:
    """Return whether masks can be learned from, or measured against, every object: each has a segmentation."""
    return all(annotation.get("segmentation") for annotation in coco["annotations"])


def segmentation_problem(segmentation: object, size_hw: tuple[int, int]) -> str:
    """Return what keeps a value from being a COCO segmentation of an image; empty where nothing does.

    It comes before every other function of masks here: pycocotools reads and writes beyond its memory where runs do not
    fill their image.
    """
    if not segmentation:
        return "has no outline"
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [*size_hw]:
            return f"has a mask (RLE) of another size, {quote(size)}, than its image, {[*size_hw]}"
        runs = _run_lengths(counts)
        is_whole = runs is not None and runs.min(initial=0) >= 0 and runs.sum() == size_hw[0] * size_hw[1]
        return "" if is_whole else "has a mask (RLE) whose counts are no runs that fill its image"
    polygons = segmentation if isinstance(segmentation, list) else [None]
    for polygon in polygons:
        is_polygon = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
        if not (is_polygon and all(is_number(value, 10 * max(size_hw)) for value in polygon)):
            return f"has a polygon that is none ({str(polygon)[:40]}; at least three points x, y are needed)"
    return ""


def _run_lengths(counts: object) -> np.ndarray | None:
    """Return (N,) the runs of a mask as whole numbers, given so or compressed; None where they are none.

    Compressed they are a text: digits of 5 bits, the lowest first, of differences to the run before the last.
    """
    if isinstance(counts, list) and all(isinstance(run, int) and is_number(run, LARGEST) for run in counts):
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str):
        return None
    digits = np.frombuffer(counts.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 32 == 0)  # digits of each number
    length = np.diff(last, prepend=-1)
    if not len(last) or digits.min() < 0 or digits.max() > 63 or last[-1] + 1 < len(digits) or length.max() > 8:
        return None
    first = last + 1 - length
    place = np.arange(len(digits)) - np.repeat(first, length)
    runs = np.add.reduceat((digits & 31) << 5 * place, first) - ((digits[last] & 16) << 1 << 5 * place[last])
    for own in (runs[1::2], runs[2::2]):
        own[:] = np.cumsum(own)
    return runs
