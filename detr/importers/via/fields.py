"""The fields of annotation files that describe an image or a region, checked; the shapes of VIA as polygons. No torch.

A circle or ellipse becomes a polygon through the points where it touches its box: the box of the polygon is then the
exact box of the shape.
"""

import math

from detr.importers.via.record import Point, Region
from utils import UserError, is_line, is_number, printable, quote

LIMIT = 10_000_000  # pixels: no image is larger, and arithmetic is safe up to there
_SAGITTA = 0.1  # pixels by which a curve may be cut short by its polygon
NUMBERS = {  # the shapes that are given by single numbers
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "point": ("cx", "cy"),
}


def file_name(name: object, where: str) -> str:
    """Return the name of an image, if it is one. Raises UserError."""
    if not isinstance(name, str) or not is_line(name):
        raise UserError(f"{where}: an image has the file name {quote(name)}; a non-empty line of text is needed")
    return name


def file_size(size: object) -> int | None:
    """Return the size of an image's file in bytes, None where VIA has not noted any."""
    digits = str(size).strip()
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None


def listed_size(width: object, height: object) -> tuple[int, int] | None:
    """Return the size of an image as a file lists it, None where it is none."""
    return (width, height) if all(is_number(side, LIMIT) and side > 0 for side in (width, height)) else None


def as_dict(value: object) -> dict:
    """Return a value of a file where it is a dict, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def name_options(value: object, options: dict[str, str]) -> object:
    """Return the value of an attribute with the ids of its options replaced by their names, where they are known."""
    if isinstance(value, dict):  # {"0": true, "1": false}
        return {options.get(key, key): is_checked for key, is_checked in value.items()}
    if isinstance(value, str) and value in options:
        return options[value]
    checked = value.split(",") if isinstance(value, str) else ()  # as 3.x writes several boxes
    return [options[key] for key in checked] if checked and all(key in options for key in checked) else value


def make_region(key: object, shape: object, attributes: object, where: str) -> Region:
    """Return a region from VIA's two dicts. Raises UserError that begins with `where`."""
    if attributes is not None and attributes != [] and not isinstance(attributes, dict):
        raise UserError(f"{where} has the region_attributes {quote(attributes)}; an object is needed")
    return Region(to_polygon(shape, where), attributes or {}, printable(str(key)))


def to_polygon(shape: object, where: str) -> list[Point]:
    """Return the polygon of a region's `shape_attributes`, a single point for a point.

    A polygon or polyline is exactly as drawn. `theta`, the turn of an ellipse, is in radians, clockwise as seen.
    Raises UserError that begins with `where`.
    """
    if not isinstance(shape, dict):
        raise UserError(f"{where} has no shape_attributes")
    name = shape.get("name")
    if name in ("polygon", "polyline"):
        return _points(shape, name, where)
    if not isinstance(name, str) or name not in NUMBERS:
        raise UserError(f"{where} is a {quote(name)}; accepted: polygon, polyline, {', '.join(NUMBERS)}")
    for key in (*NUMBERS[name], *(("theta",) if shape.get("theta") is not None else ())):
        if not is_number(shape.get(key), LIMIT):
            raise UserError(f"{where} has {key} = {quote(shape.get(key))}; a finite number up to {LIMIT:,} is needed")
    numbers = [shape[key] for key in NUMBERS[name]]
    if name == "point":
        return [(numbers[0], numbers[1])]
    if name == "rect":
        return corners(numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3])
    if min(numbers[2:]) < 0:
        raise UserError(f"{where} has the radius {quote(min(numbers[2:]))}; it cannot be negative")
    if name == "circle":
        numbers.append(numbers[2])
    return _ellipse(*numbers, theta=shape.get("theta") or 0)


def corners(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return the polygon of a box."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _points(shape: dict, name: str, where: str) -> list[Point]:
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
        raise UserError(f"{where} needs as many all_points_x as all_points_y")
    for value in (*xs, *ys):
        if not is_number(value, LIMIT):
            raise UserError(f"{where} has a coordinate that is not a finite number up to {LIMIT:,}: {quote(value)}")
    if not xs:
        raise UserError(f"{where} is a {name} without points")
    return list(zip(xs, ys, strict=True))


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> list[Point]:
    """Return a polygon that follows an ellipse turned by `theta` radians, and touches the same box."""
    cos, sin = math.cos(theta), math.sin(theta)
    side, foot = math.atan2(-ry * sin, rx * cos), math.atan2(ry * cos, rx * sin)  # where it touches its box
    touching = sorted(angle % math.tau for angle in (side, foot, side + math.pi, foot + math.pi))
    steps = min(256, max(16, math.ceil(math.pi * math.sqrt(max(rx, ry) / (2 * _SAGITTA)) / 4)))
    points = []
    for first, last in zip(touching, [*touching[1:], touching[0] + math.tau], strict=True):
        for step in range(steps):
            angle = first + (last - first) * step / steps
            along, across = rx * math.cos(angle), ry * math.sin(angle)
            points.append((cx + along * cos - across * sin, cy + along * sin + across * cos))
    return points
