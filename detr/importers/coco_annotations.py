"""The categories and annotations of a COCO file, put right: ids, boxes, polygons, EXIF's turns. No torch."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detr.data.coco_json import LARGEST, check_categories, segmentation_problem, to_rle, white_in
from detr.data.images import SIDEWAYS, TURNS, Header
from detr.importers.notes import TURNED, Notes
from detr.importers.via.clip import box_of
from detr.importers.via.frames import evidence, remarks_on_turns, turned_point
from detr.importers.via.record import AnnotatedImage, Region
from utils import UserError, is_line, is_number, join_names, quote

_SLACK = 0.5  # pixels: exporters that round go beyond an image's edge by as much

OTHER_CLASS = "objects of other classes than --categories left out"
CLIPPED = "boxes clipped to the image"
NO_BOX = "boxes without area or outside the image dropped"
NO_POLYGON = "segmentations that are neither polygons nor masks, left out"


# ----------------------------------------------------------------------------------------------------------- categories


def check_all_categories(files: Mapping[str, Path], cocos: dict[str, dict]) -> None:
    """Raise UserError where splits differ in their categories, and for names that are odd or there twice."""
    if len(cocos) == 2:
        check_categories(files["train"], cocos["train"], files["val"], cocos["val"])
    for name, coco in cocos.items():
        words = [str(category["name"]) for category in coco["categories"]]
        if odd := [word for word in words if not is_line(word)]:
            raise UserError(f"{files[name]}: a category is named {quote(odd[0])}; a name on one line is needed")
        if repeated := [word for word, count in Counter(words).items() if count > 1]:
            raise UserError(f"{files[name]}: several categories are named {quote(repeated[0])}")


def drop_roots(cocos: list[dict]) -> list[str]:
    """Take out the supercategories that Roboflow lists among the categories, where nothing has them; their names."""
    used = {annotation["category_id"] for coco in cocos for annotation in coco["annotations"]}
    categories = [category for coco in cocos for category in coco["categories"]]
    above = {(c["supercategory"], c["id"]) for c in categories if isinstance(c.get("supercategory"), str)}
    unused = [category for category in categories if category["id"] not in used]
    # A project may be named as its class is; a class may be its own supercategory.
    roots = {c["id"]: c["name"] for c in unused if any(name == c["name"] and below != c["id"] for name, below in above)}
    if any(all(category["id"] in roots for category in coco["categories"]) for coco in cocos):
        return []
    for coco in cocos:
        coco["categories"] = [category for category in coco["categories"] if category["id"] not in roots]
    return sorted(set(roots.values()))


def choose_categories(coco: dict, chosen: Sequence[str], one_class: str | None, notes: Notes) -> None:
    """Keep the chosen classes, in their order, or make all objects one class. Raises UserError for unknown names."""
    if one_class:
        coco["categories"] = [{"id": 1, "name": one_class}]
        coco["annotations"] = [annotation | {"category_id": 1} for annotation in coco["annotations"]]
    if not chosen:
        return
    id_of = {str(category["name"]): category["id"] for category in coco["categories"]}
    if unknown := [name for name in chosen if name not in id_of]:
        raise UserError(f"--categories names {join_names(unknown)}; there are {join_names(id_of, 20)}")
    new_ids = {id_of[name]: number for number, name in enumerate(chosen, start=1)}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(chosen, start=1)]
    kept = [annotation for annotation in coco["annotations"] if annotation["category_id"] in new_ids]
    left_out = [a for a in coco["annotations"] if a["category_id"] not in new_ids]
    notes.add((OTHER_CLASS, f"annotation {annotation['id']}") for annotation in left_out)
    coco["annotations"] = [annotation | {"category_id": new_ids[annotation["category_id"]]} for annotation in kept]


# ---------------------------------------------------------------------------------------------------- boxes, polygons


def clean(coco: dict, usable: set[int], notes: Notes) -> dict:
    """The COCO dict of the images `usable` with the fields that we need; boxes are clipped, empty ones dropped."""
    image_id, category_id, annotation_id = (_from_1(coco[part]) for part in ("images", "categories", "annotations"))
    images = {image["id"]: image for image in coco["images"] if image["id"] in usable}
    annotations = []
    for annotation in (a for a in coco["annotations"] if a["image_id"] in usable):
        image = images[annotation["image_id"]]
        where = f"{image['file_name']}, annotation {annotation['id']}"
        if bbox := _clipped(annotation["bbox"], image, where, notes):
            segmentation = _nested(annotation.get("segmentation"))
            if segmentation and segmentation_problem(segmentation, (image["height"], image["width"])):
                notes.add([(NO_POLYGON, where)])
                segmentation = []
            annotations.append(
                {
                    "id": annotation_id[annotation["id"]],
                    "image_id": image_id[image["id"]],
                    "category_id": category_id[annotation["category_id"]],
                    "bbox": bbox,
                    "area": _area(annotation, bbox),
                    "segmentation": segmentation,
                    "iscrowd": int(bool(annotation.get("iscrowd", 0))),
                }
            )
    fields = ("file_name", "width", "height")
    return {
        "images": [{"id": image_id[i["id"]], **{key: i[key] for key in fields}} for i in images.values()],
        "annotations": annotations,
        "categories": [{"id": category_id[c["id"]], "name": str(c["name"])} for c in coco["categories"]],
        **({"info": {"white": white}} if (white := white_in(coco)) else {}),
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


def _nested(segmentation: object) -> object:
    """Return a polygon that a tool wrote flat as a list of one, nothing as an empty list, anything else as it is."""
    is_flat = isinstance(segmentation, list) and segmentation and is_number(segmentation[0], LARGEST)
    return [segmentation] if is_flat else segmentation or []


# --------------------------------------------------------------------------------------------------------- EXIF's turns


def turn_upright(coco: dict, headers: dict[int, Header], notes: Notes) -> dict[int, str]:
    """Give images that EXIF turns their upright size, and their annotations the upright frame.

    Exporters list such an image at its stored size or at its upright one, and either may hold for the annotations:
    where they lie says which, if it can, else what it says of the file's other images, else the size.
    """
    turned_images = [i for i in coco["images"] if i["id"] in headers and headers[i["id"]].orientation > 1]
    annotations: dict[int, list[dict]] = defaultdict(list)
    for annotation in coco["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    own_headers = [headers[image["id"]] for image in turned_images]
    drawn = [AnnotatedImage("", [Region(_corners(a["bbox"]), {}) for a in annotations[i["id"]]]) for i in turned_images]
    if not any(map(evidence, drawn, own_headers)):
        drawn = [AnnotatedImage("", [], (image["width"], image["height"])) for image in turned_images]
    problems = {}
    for image, header, remark in zip(turned_images, own_headers, remarks_on_turns(drawn, own_headers), strict=True):
        size_wh, listed_wh = header.size_hw[::-1], (image["width"], image["height"])
        if listed_wh not in (size_wh, size_wh[::-1] if header.orientation in SIDEWAYS else size_wh):
            continue  # resized: it will be refused
        image["width"], image["height"] = size_wh
        notes.add([(remark, image["file_name"])] if remark else [])
        try:
            for annotation in annotations[image["id"]] if remark == TURNED else ():
                _turn_annotation(annotation, header)
        except UserError as error:
            problems[image["id"]] = f"{image['file_name']}{error}"
    return problems


def _turn_annotation(annotation: dict, header: Header) -> None:
    """Turn the box and the polygons of an annotation, which lie on the stored pixels, upright."""
    left, top, right, bottom = box_of([turned_point(point, header) for point in _corners(annotation["bbox"])])
    annotation["bbox"] = [left, top, right - left, bottom - top]
    segmentation = _nested(annotation.get("segmentation"))
    if isinstance(segmentation, dict):
        annotation["segmentation"] = _turn_mask(segmentation, header)
    elif not segmentation_problem(segmentation, header.size_hw):
        annotation["segmentation"] = [
            [value for point in zip(p[::2], p[1::2], strict=True) for value in turned_point(point, header)]
            for p in segmentation
        ]


def _turn_mask(rle: dict, header: Header) -> dict:
    """Turn a mask, which comes back as compressed RLE. Raises UserError that goes on behind an image's name."""
    size_hw, orientation = header
    stored_hw = size_hw[::-1] if orientation in SIDEWAYS else size_hw
    if problem := segmentation_problem(rle, stored_hw):
        raise UserError(f": an object {problem}")
    pixels = Image.fromarray(coco_mask.decode(to_rle(rle, stored_hw))).transpose(TURNS[orientation])
    turned = coco_mask.encode(np.asfortranarray(pixels))
    return turned | {"counts": turned["counts"].decode()}


def _corners(bbox_xywh: list[float]) -> list[tuple[float, float]]:
    left, top, width, height = bbox_xywh
    return [(left, top), (left + width, top + height)]
