"""VIA 1.x annotations (JSON): a dict of images, each with `filename` and a dict of `regions`."""

import math

from detr.errors import UserError
from detr.via.record import AnnotatedImage, Region


def recognise(content: object) -> bool:
    """Whether parsed JSON is a VIA 1.x annotation file: its values carry `filename` and `regions` as a dict."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(e, dict) and "filename" in e and isinstance(e.get("regions"), dict) for e in content.values()
        )
    )


def read(content: dict, where: str) -> list[AnnotatedImage]:
    """Read every image and region. Raises UserError that begins with `where` and names image and region."""
    images = []
    for entry in content.values():
        name = entry["filename"]
        if not isinstance(name, str) or not name:
            raise UserError(f"{where}: an image has the file name {name!r}; a non-empty text is needed")
        regions = [_read_region(r, f"{where}: {name}, region {key}") for key, r in entry["regions"].items()]
        images.append(AnnotatedImage(name, regions))
    return images


def _read_region(region: object, where: str) -> Region:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        raise UserError(f"{where} has no shape_attributes")
    if shape.get("name") != "polygon":
        raise UserError(f"{where} is a {shape.get('name')!r}; accepted: 'polygon'")
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
        raise UserError(f"{where} needs as many all_points_x as all_points_y")
    points = list(zip(xs, ys, strict=True))
    if not all(_is_number(value) for point in points for value in point):
        raise UserError(f"{where} has a coordinate that is not a finite number")
    if len(set(points)) < 3:
        raise UserError(f"{where} has {len(set(points))} different points; a polygon needs at least 3")
    return Region(points, region.get("region_attributes") or {})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
