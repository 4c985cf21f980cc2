"""Read a folder that is COCO already, in the layouts that tools write, checked and ready to be copied. No torch.

Our own and the official one (annotations/instances_train2017.json, train2017/), CVAT (annotations/instances_train.json,
images/train/), Roboflow (train/_annotations.coco.json beside its images), Label Studio (result.json, images/).
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from detr.data.coco_json import LARGEST, read_coco, refuse_images, size_problem
from detr.importers.notes import BAD, Notes
from detr.importers.splits import Split, split_images, validates_on_training
from detr.importers.thumbnails import DecodedImage, decode_all, stacked
from utils import UserError, is_line, is_number, printable, quote

ACCEPTED = (
    "accepted: annotations/instances_train*.json with instances_val*.json (or custom_*.json), "
    "train/_annotations.coco.json with valid/_annotations.coco.json, or one file for all images"
)
_FILE_NAME = re.compile(r"(?:instances|custom)_((train|val|valid|validation)(?:20\d\d)?)\.json", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"
_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val"}
_SLACK = 0.5  # pixels: exporters that round go beyond an image's edge by as much

UNUSED_FILE = "annotation files of neither train nor val, not used"
CATEGORY_0 = "category 0 without objects, dropped"
CLIPPED = "boxes clipped to the image"
NO_BOX = "boxes without area or outside the image dropped"
NO_POLYGON = "segmentations that are neither polygons nor masks, left out"


class Source(NamedTuple):
    """One annotation file, and where its images may lie, most likely place first."""

    file: Path
    folders: list[Path]


def read_coco_folder(
    folder: Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Split]:
    """Read a COCO folder as `train` and `val`, with ids from 1 and boxes inside their images.

    Args:
        folder: in one of the layouts.
        val_fraction, seed: how to divide the images where one file lists them all.
        skip_bad_images: leave out images that cannot be used instead of stopping.
        on_image: called once per image looked at.

    Raises UserError for what is in no known layout, and one that lists all images that do not fit.
    """
    sources, unused = find_sources(folder)
    cocos = {name: read_coco(source.file) for name, source in sources.items()}
    dropped = drop_unused_category_0(list(cocos.values()))
    check_categories(sources, cocos)
    decoded_images, problems = {}, {}
    for name, source in sources.items():
        decoded_images[name], problems[name] = check_images(cocos[name], source, folder, on_image)
    if not skip_bad_images:
        total = sum(len(coco["images"]) for coco in cocos.values())
        refuse_images([p for listed in problems.values() for p in listed], total, "--skip_bad_images leaves them out")
    splits = {}
    for name, coco in cocos.items():
        if not decoded_images[name]:
            raise UserError(f"{sources[name].file}: lists no images that can be used")
        notes = Notes()
        if not splits:
            notes.add([*((UNUSED_FILE, file) for file in unused), *((CATEGORY_0, category) for category in dropped)])
        notes.add((BAD, problem) for problem in problems[name])
        origins, decoded = zip(*decoded_images[name].values(), strict=True)
        splits[name] = Split(clean(coco, set(decoded_images[name]), notes), list(origins), notes, stacked(decoded))
    return splits if len(splits) == 2 else divide(splits["all"], val_fraction, seed)


def divide(whole: Split, val_fraction: float, seed: int) -> dict[str, Split]:
    """Return one split as two, by a hash of the file names; as the same two where it is not to be divided."""
    if validates_on_training(len(whole.origins), val_fraction):
        return {"train": whole, "val": whole._replace(notes=Notes())}
    images, classes = whole.coco["images"], {image["id"]: set() for image in whole.coco["images"]}
    for annotation in whole.coco["annotations"]:
        classes[annotation["image_id"]].add(annotation["category_id"])
    in_val = split_images([image["file_name"] for image in images], list(classes.values()), val_fraction, seed)
    splits = {}
    for name, side in (("train", False), ("val", True)):
        indices = [index for index, is_val in enumerate(in_val) if is_val is side]
        ids = {images[index]["id"] for index in indices}
        coco = whole.coco | {
            "images": [images[index] for index in indices],
            "annotations": [a for a in whole.coco["annotations"] if a["image_id"] in ids],
        }
        notes = Notes() if side else whole.notes
        splits[name] = Split(coco, [whole.origins[index] for index in indices], notes, whole.thumbnails[indices])
    return splits


# ------------------------------------------------------------------------------------------------------ files, images


def find_sources(folder: Path) -> tuple[dict[str, Source], list[str]]:
    """Return the annotation files of "train" and "val", or the one of "all", and the names of those that are of no use.

    Raises UserError where that is not clear.
    """
    if not folder.is_dir():
        raise UserError(f"--coco {folder}: no such folder")
    sources: dict[str, list[Source]] = {"train": [], "val": []}
    others = []
    for path in sorted({*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob(f"*/{_ROBOFLOW}")}):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: a link that leads out of {folder}; put the file itself there")
        named = _FILE_NAME.fullmatch(path.name) if path.parent.name == "annotations" else None
        split = named[2].lower() if named else path.parent.name.lower() if path.name == _ROBOFLOW else ""
        if split not in _SPLIT_OF:
            others.append(path)
            continue
        year = [f"{_SPLIT_OF[split]}2017"] if named else []
        names = [*year, named[1], f"images/{named[1]}", "images", "."] if named else [path.parent.name]
        sources[_SPLIT_OF[split]].append(Source(path, [folder / name for name in names]))
    if not any(sources.values()) and len(others) == 1:
        file = others[0]
        subset = file.stem.removeprefix("instances_")
        places = [folder / f"images/{subset}", folder / "images", file.parent, folder]
        return {"all": Source(file, list(dict.fromkeys(places)))}, []
    for split, candidates in sources.items():
        if len(candidates) > 1:
            names = ", ".join(str(source.file.relative_to(folder)) for source in candidates)
            raise UserError(f"{folder}: several annotation files for {split}: {names}; leave one of them there")
        if not candidates:
            seen = f"; found {', '.join(str(path.relative_to(folder)) for path in others)}" if others else ""
            raise UserError(f"{folder}: no annotation file for {split}{seen}; {ACCEPTED}")
    unused = [str(path.relative_to(folder)) for path in others if path.parent != folder]
    return {split: candidates for split, (candidates,) in sources.items()}, unused


def check_images(
    coco: dict, source: Source, folder: Path, on_image: Callable[[], None]
) -> tuple[dict[int, tuple[Path, DecodedImage]], list[str]]:
    """Return the images that can be used, file and look by image id, and sentences about the others.

    The names in `coco` become those to copy to: relative, with / between folders. Nothing outside `folder` is accepted.
    """
    paths, problems = find_images(coco, source, folder)
    usable = {}
    images = [image for image in coco["images"] if image["id"] in paths]
    for image, decoded in zip(images, decode_all([paths[image["id"]] for image in images], on_image), strict=True):
        path = paths[image["id"]]
        if isinstance(decoded, UserError):
            problems.append(str(decoded))
        elif problem := size_problem(path, decoded.header.size_hw, (image["height"], image["width"])):
            problems.append(problem)
        else:
            usable[image["id"]] = path, decoded
    return usable, problems


def find_images(coco: dict, source: Source, folder: Path) -> tuple[dict[int, Path], list[str]]:
    """Where each image lies, by its id, and sentences about those that are not to be found; sets their safe names."""
    inside, paths, names, problems = folder.resolve(), {}, set(), []
    for image in coco["images"]:
        listed = image["file_name"]
        name = image["file_name"] = safe_name(listed)
        path = next((place / name for place in source.folders if name and _is_file(place / name)), None)
        if not name:
            problems.append(f"{source.file}: the file name {quote(listed)} is not a plain relative one")
        elif name in names:
            problems.append(f"{source.file}: {printable(name)} is listed twice")
        elif path is None:
            places = ", ".join(str(place.relative_to(folder)) for place in source.folders)
            problems.append(f"{printable(name)}: no such image in {folder} (looked into {places})")
        elif not path.resolve().is_relative_to(inside):
            problems.append(f"{path}: a link that leads out of {folder}; put the image itself there")
        else:
            paths[image["id"]] = path
        names.add(name)
    return paths, problems


def safe_name(file_name: str) -> str:
    """A file name as a relative path with /, empty where it could lead out of its folder or cannot be printed."""
    path = PureWindowsPath(file_name)  # takes / and \\, and knows drive letters
    return "" if path.anchor or ".." in path.parts or not path.name or not is_line(file_name) else path.as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, say
        return False


# -------------------------------------------------------------------------------------------------- categories, boxes


def check_categories(sources: dict[str, Source], cocos: dict[str, dict]) -> None:
    """Raise UserError where splits differ in their categories, and for names that are odd or there twice."""
    listed = {name: sorted((c["id"], str(c["name"])) for c in coco["categories"]) for name, coco in cocos.items()}
    if len(listed) == 2 and listed["train"] != listed["val"]:
        raise UserError(
            f"{sources['val'].file}: its categories differ from those of {sources['train'].file}; they need the same "
            "ids and names"
        )
    for name, categories in listed.items():
        if odd := [word for _, word in categories if not is_line(word)]:
            raise UserError(f"{sources[name].file}: a category is named {quote(odd[0])}; a name on one line is needed")
        if repeated := [word for word, count in Counter(word for _, word in categories).items() if count > 1]:
            raise UserError(f"{sources[name].file}: several categories are named {quote(repeated[0])}")


def drop_unused_category_0(cocos: list[dict]) -> list[str]:
    """Take out the category that Roboflow puts before all others, where nothing has it in any split; its name."""
    used = {annotation["category_id"] for coco in cocos for annotation in coco["annotations"]}
    if 0 in used or any(len(coco["categories"]) < 2 for coco in cocos):
        return []
    names = {str(category["name"]) for coco in cocos for category in coco["categories"] if category["id"] == 0}
    for coco in cocos:
        coco["categories"] = [category for category in coco["categories"] if category["id"] != 0]
    return sorted(names)


def clean(coco: dict, usable: set[int], notes: Notes) -> dict:
    """The COCO dict of the images `usable` with the fields that we need; boxes are clipped, empty ones dropped."""
    image_id, category_id, annotation_id = (_from_1(coco[part]) for part in ("images", "categories", "annotations"))
    images = {image["id"]: image for image in coco["images"] if image["id"] in usable}
    annotations = []
    for annotation in (a for a in coco["annotations"] if a["image_id"] in usable):
        image = images[annotation["image_id"]]
        where = f"{image['file_name']}, annotation {annotation['id']}"
        if bbox := _clipped(annotation["bbox"], image, where, notes):
            annotations.append(
                {
                    "id": annotation_id[annotation["id"]],
                    "image_id": image_id[image["id"]],
                    "category_id": category_id[annotation["category_id"]],
                    "bbox": bbox,
                    "area": _area(annotation, bbox),
                    "segmentation": _segmentation(annotation.get("segmentation"), where, notes),
                    "iscrowd": int(bool(annotation.get("iscrowd", 0))),
                }
            )
    return {
        "images": [
            {"id": image_id[i["id"]], **{key: i[key] for key in ("file_name", "width", "height")}}
            for i in images.values()
        ],
        "annotations": annotations,
        "categories": [{"id": category_id[c["id"]], "name": str(c["name"])} for c in coco["categories"]],
    }


def _from_1(entries: list[dict]) -> dict[int, int]:
    """Id in the file -> id to write: the same where all are positive, otherwise 1, 2, ... in their order."""
    ids = sorted(entry["id"] for entry in entries)
    return {old: old if ids[0] > 0 else new for new, old in enumerate(ids, start=1)}


def _clipped(bbox_xywh: list[float], image: dict, where: str, notes: Notes) -> list[float] | None:
    """Return the part of a box inside its image, None where there is none."""
    left, top, width, height = bbox_xywh
    kept_left, kept_top = max(left, 0), max(top, 0)
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    if not (right > kept_left and bottom > kept_top):
        notes.add([(NO_BOX, where)])
        return None
    beyond = max(kept_left - left, kept_top - top, left + width - right, top + height - bottom)
    if beyond > _SLACK:
        notes.add([(CLIPPED, where)])
    return [kept_left, kept_top, right - kept_left, bottom - kept_top] if beyond > 0 else bbox_xywh


def _area(annotation: dict, bbox_xywh: list[float]) -> float:
    """Return the area given, the box's where none is, and no more than a clipped box has."""
    given, largest = annotation.get("area", 0), bbox_xywh[2] * bbox_xywh[3]
    if given <= 0:
        return largest
    return given if bbox_xywh == annotation["bbox"] else min(given, largest)


def _segmentation(segmentation: object, where: str, notes: Notes) -> list | dict:
    """Return polygons as lists of x, y, ..., or a mask (RLE) as it is; nothing, and a note, for anything else."""
    if segmentation is None:
        return []
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        return segmentation
    if isinstance(segmentation, list):
        polygons = [segmentation] if segmentation and is_number(segmentation[0], LARGEST) else segmentation
        if all(
            isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(is_number(x, LARGEST) for x in p)
            for p in polygons
        ):
            return polygons
    notes.add([(NO_POLYGON, where)])
    return []
