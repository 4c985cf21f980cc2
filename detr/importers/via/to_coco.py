"""Regions -> COCO annotations inside their image. No torch.

Ids start at 1: COCO's evaluation takes annotation id 0 for "no match".
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detr.importers.notes import CLIPPED, LINE, MAKES_NO_OBJECT, OUTSIDE, POINT, UNLABELLED, ZERO
from detr.importers.thumbnails import DecodedImage
from detr.importers.via.classes import Classes
from detr.importers.via.clip import box_of, clip, polygon_area
from detr.importers.via.fields import corners
from detr.importers.via.record import AnnotatedImage, Point, Region
from utils import UserError, pluralize

_SMALLEST = 0.01  # pixels: a narrower box has no width that means anything


class ConvertedImage(NamedTuple):
    """One image with its annotations, which have no ids yet."""

    file_name: str  # in the COCO folder
    path: Path  # where the image lies now
    decoded: DecodedImage
    annotations: list[dict]
    remarks: list[tuple[str, str]]  # category of detr.importers.notes, where

    @property
    def is_partial(self) -> bool:
        """Return whether some of its regions make no object: what they show is not to be learnt as background."""
        return any(category in MAKES_NO_OBJECT for category, _ in self.remarks)


def convert(
    image: AnnotatedImage, size_hw: tuple[int, int], classes: Classes
) -> tuple[list[dict], list[tuple[str, str]]]:
    """Return the annotations of one image, clipped to it, and remarks. Shapes inside it are exactly as drawn.

    Raises UserError that goes on where a message has named the image: it was resized after it was annotated.
    """
    height, width = size_hw
    _check_size(image, width, height)
    objects: dict[tuple[str | int, str], list[list[Point]]] = defaultdict(list)  # group and class -> polygons
    remarks: list[tuple[str, str]] = []
    for number, region in enumerate(image.regions):
        where = f"{image.file_name}, region {region.key}"
        names, said = classes.of(region)
        if names or UNLABELLED in said or not said:  # else it is of a class that is background on purpose
            polygons, about_shape = _polygons(region, width, height)
            said = [*about_shape, *said] if polygons else about_shape
            for name in names if polygons else ():
                objects[region.group or number, name].extend(polygons)
        remarks += [(category, where) for category in said]
    return [_annotation(classes.ids[name], polygons) for (_, name), polygons in objects.items()], remarks


def to_coco(images: Iterable[ConvertedImage], classes: Classes) -> dict:
    """Number converted images and their annotations, and make them a COCO dict."""
    coco: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in classes.ids.items()],
    }
    for image_id, image in enumerate(images, start=1):
        height, width = image.decoded.header.size_hw
        coco["images"].append({"id": image_id, "file_name": image.file_name, "width": width, "height": height})
        for annotation in image.annotations:
            annotation["id"], annotation["image_id"] = len(coco["annotations"]) + 1, image_id
            coco["annotations"].append(annotation)
    return coco


def _polygons(region: Region, width: int, height: int) -> tuple[list[list[Point]], list[str]]:
    """The parts of a region inside the image, and what there is to remark about it; no parts where it is dropped."""
    points = region.points_xy
    if len(points) == 1:
        return [], [POINT]
    left, top, right, bottom = box_of(points)
    if right - left < _SMALLEST or bottom - top < _SMALLEST:
        return [], [ZERO]
    remarks = []
    if polygon_area(points) <= 1e-9 * (right - left) * (bottom - top):
        points, remarks = corners(left, top, right, bottom), [LINE]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return [points], remarks
    parts = [part for part in clip(points, width, height) if polygon_area(part) > 0]
    if not parts:
        return [], [OUTSIDE]
    left, top, right, bottom = box_of([point for part in parts for point in part])
    if right - left < _SMALLEST or bottom - top < _SMALLEST:
        return [], [OUTSIDE]
    return parts, [*remarks, CLIPPED]


def _annotation(category_id: int, polygons: list[list[Point]]) -> dict:
    left, top, right, bottom = box_of([point for polygon in polygons for point in polygon])
    return {
        "id": 0,
        "image_id": 0,
        "category_id": category_id,
        "bbox": [left, top, right - left, bottom - top],  # xywh
        "area": sum(map(polygon_area, polygons)),
        "segmentation": [[value for point in polygon for value in point] for polygon in polygons],
        "iscrowd": 0,
    }


def _check_size(image: AnnotatedImage, width: int, height: int) -> None:
    """Raise UserError where the regions belong to the image at another size."""
    if image.listed_wh and image.listed_wh != (width, height):
        factor = width / image.listed_wh[0]
        raise UserError(
            f": has {width}x{height} pixels and was annotated at {image.listed_wh[0]}x{image.listed_wh[1]}; "
            f"regions times {factor:.3g} would fit"
        )
    boxes = [box_of(region.points_xy) for region in image.regions if len(region.points_xy) > 1]
    starts, ends = np.split(np.array(boxes, dtype=np.float64).reshape(-1, 4), 2, axis=1)
    inside = (np.minimum(ends, (width, height)) - np.maximum(starts, 0)).clip(0)
    outside = (inside.prod(1) < (ends - starts).prod(1) / 2).sum()
    if outside > len(boxes) / 2:
        right, bottom = ends.max(0)
        factor = min(width / right if right > 0 else 1, height / bottom if bottom > 0 else 1)
        fit = f"; resized after it was annotated? regions times {factor:.3g} would fit" if factor < 1 else ""
        raise UserError(
            f": {outside} of {pluralize(len(boxes), 'region')} mostly outside its {width}x{height} pixels, "
            f"up to {right:.0f}x{bottom:.0f}{fit}"
        )
