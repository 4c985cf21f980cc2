"""Read a folder that is COCO already, in the layouts that tools write, checked and ready to be copied. No torch.

Our own and the official one (annotations/instances_train2017.json, train2017/), CVAT (annotations/instances_train.json,
images/train/), Roboflow (train/_annotations.coco.json beside its images).
"""

import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from detr.annotations import is_number, read_coco, refuse_images, size_problem
from detr.errors import UserError
from detr.imported import Note, Notes, Split
from detr.thumbnails import Progress, look_at

ACCEPTED = (
    "accepted: annotations/instances_train*.json with instances_val*.json (or custom_*.json), or "
    "train/_annotations.coco.json with valid/_annotations.coco.json"
)
_FILE_NAME = re.compile(r"(?:instances|custom)_((train|val|valid|validation)(?:20\d\d)?)\.json", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"
_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val"}
_SLACK = 0.5  # pixels: exporters that round go beyond an image's edge by as much


class Source(NamedTuple):
    """One split's annotation file, and where its images may lie, most likely place first."""

    file: Path
    folders: list[Path]


def read_coco_folder(folder: Path, progress: Progress) -> tuple[dict[str, Split], list[Note]]:
    """Both splits of a COCO folder, and what was changed: ids start at 1, boxes lie inside their images.

    Raises UserError for what is in no known layout, and one that lists all images that do not fit.
    """
    notes = Notes()
    sources = find_sources(folder, notes)
    cocos = {split: read_coco(source.file) for split, source in sources.items()}
    for split, coco in cocos.items():
        if not coco["images"]:
            raise UserError(f"{sources[split].file}: lists no images")
    drop_unused_category_0(list(cocos.values()), notes)
    train, val = (sorted((c["id"], str(c["name"])) for c in cocos[split]["categories"]) for split in ("train", "val"))
    if train != val:
        raise UserError(
            f"{sources['val'].file}: its categories differ from those of {sources['train'].file}; they need the same "
            "ids and names"
        )
    if repeated := [name for name, count in Counter(name for _, name in train).items() if count > 1]:
        raise UserError(f"{sources['train'].file}: several categories are named {repeated[0]!r}")
    images, problems = {}, []
    for split, source in sources.items():
        images[split], found = find_images(cocos[split], source, folder)
        problems += found
    splits = {}
    for split, paths in images.items():
        looks = look_at(list(paths.values()), progress)
        sizes_hw = {i["file_name"]: (i["height"], i["width"]) for i in cocos[split]["images"]}
        for index, (name, path) in enumerate(paths.items()):
            problem = looks.problems.get(index) or size_problem(path, looks.sizes_hw[index], sizes_hw[name])
            problems += [problem] if problem else []
        splits[split] = Split(cocos[split], list(paths.values()), looks.thumbnails)
    refuse_images(problems, sum(len(coco["images"]) for coco in cocos.values()))
    cleaned = {split: clean(coco, sources[split].file, notes) for split, coco in cocos.items()}
    return {name: split._replace(coco=cleaned[name]) for name, split in splits.items()}, notes.listed()


# ------------------------------------------------------------------------------------------------------ files, images


def find_sources(folder: Path, notes: Notes) -> dict[str, Source]:
    """The annotation files of "train" and "val". Raises UserError unless there is exactly one for each."""
    if not folder.is_dir():
        raise UserError(f"--coco {folder}: no such folder")
    sources: dict[str, list[Source]] = {"train": [], "val": []}
    others = []
    for path in sorted({*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob(f"*/{_ROBOFLOW}")}):
        named = _FILE_NAME.fullmatch(path.name) if path.parent.name == "annotations" else None
        split = named[2].lower() if named else path.parent.name.lower() if path.name == _ROBOFLOW else ""
        if split not in _SPLIT_OF:
            others.append(path)
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: a link that leads out of {folder}; put the file itself there")
        year = [f"{_SPLIT_OF[split]}2017"] if named else []
        names = [*year, named[1], f"images/{named[1]}", "images", "."] if named else [path.parent.name]
        sources[_SPLIT_OF[split]].append(Source(path, [folder / name for name in names]))
    for split, found in sources.items():
        if len(found) > 1:
            names = ", ".join(str(source.file.relative_to(folder)) for source in found)
            raise UserError(f"{folder}: several annotation files for {split}: {names}; leave one of them there")
        if not found:
            seen = f"; found {', '.join(str(path.relative_to(folder)) for path in others)}" if others else ""
            raise UserError(
                f"{folder}: no annotation file for {split}{seen}; {ACCEPTED}. An export in one file has to be divided "
                "into two first"
            )
    for path in others:
        if path.parent != folder:
            notes.add("annotation files of neither train nor val, not used", str(path.relative_to(folder)))
    return {split: found for split, (found,) in sources.items()}


def find_images(coco: dict, source: Source, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Where each of the COCO dict's images lies, by name, and sentences about those that cannot be used.

    The names in `coco` become those to copy to: relative, with / between folders. Nothing outside `folder` is accepted.
    """
    inside = folder.resolve()
    paths: dict[str, Path] = {}
    problems = []
    for image in coco["images"]:
        listed = image["file_name"]
        name = image["file_name"] = safe_name(listed)
        path = next((place / name for place in source.folders if name and _is_file(place / name)), None)
        if not name:
            problems.append(
                f"{source.file}: the file name {listed!r} leads out of the folder; a relative one is needed"
            )
        elif name in paths:
            problems.append(f"{source.file}: {name} is listed twice")
        elif path is None:
            places = ", ".join(str(place.relative_to(folder)) for place in source.folders)
            problems.append(f"{name}: no such image in {folder} (looked into {places})")
        elif not path.resolve().is_relative_to(inside):
            problems.append(f"{path}: a link that leads out of {folder}; put the image itself there")
        else:
            paths[name] = path
    return paths, problems


def safe_name(file_name: str) -> str:
    """A file name as a relative path with /, empty where it could lead out of the folder it is meant for."""
    path = PureWindowsPath(file_name)  # takes / and \\, and knows drive letters
    return "" if path.anchor or ".." in path.parts or "\0" in file_name or not path.name else path.as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, say
        return False


# -------------------------------------------------------------------------------------------------- categories, boxes


def drop_unused_category_0(cocos: list[dict], notes: Notes) -> None:
    """Take out the category that Roboflow puts before all others, where nothing belongs to it in any split."""
    used = {annotation["category_id"] for coco in cocos for annotation in coco["annotations"]}
    if 0 in used or any(len(coco["categories"]) < 2 for coco in cocos):
        return
    for name in sorted({str(c["name"]) for coco in cocos for c in coco["categories"] if c["id"] == 0}):
        notes.add("category 0 without objects, dropped", name)
    for coco in cocos:
        coco["categories"] = [category for category in coco["categories"] if category["id"] != 0]


def clean(coco: dict, file: Path, notes: Notes) -> dict:
    """The COCO dict with the fields that we use; boxes are clipped to their images, empty ones dropped."""
    image_id, category_id, annotation_id = (_from_1(coco[part]) for part in ("images", "categories", "annotations"))
    images = {image["id"]: image for image in coco["images"]}
    annotations = []
    for annotation in coco["annotations"]:
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
                    "segmentation": _outlines(annotation.get("segmentation"), where, notes),
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
    """The part of a box inside its image, None where there is none."""
    left, top, width, height = bbox_xywh
    kept_left, kept_top = max(left, 0), max(top, 0)
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    if not (right > kept_left and bottom > kept_top):
        notes.add("boxes without area or outside their image, dropped", where)
        return None
    beyond = max(kept_left - left, kept_top - top, left + width - right, top + height - bottom)
    if beyond > _SLACK:
        notes.add("boxes that leave their image, clipped", where)
    return [kept_left, kept_top, right - kept_left, bottom - kept_top] if beyond > 0 else bbox_xywh


def _area(annotation: dict, bbox_xywh: list[float]) -> float:
    """The area given, the box's where none is, and no more than a clipped box has."""
    given, largest = annotation.get("area", 0), bbox_xywh[2] * bbox_xywh[3]
    if given <= 0:
        return largest
    return given if bbox_xywh == annotation["bbox"] else min(given, largest)


def _outlines(segmentation: object, where: str, notes: Notes) -> list | dict:
    """Polygons as lists of x, y, ..., or a mask (RLE) as it is; nothing, and a note, for anything else."""
    if segmentation is None:
        return []
    if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
        return segmentation
    if isinstance(segmentation, list):
        polygons = [segmentation] if segmentation and is_number(segmentation[0]) else segmentation
        if all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(is_number, p)) for p in polygons):
            return polygons
    notes.add("outlines that are neither polygons nor masks, left out", where)
    return []
