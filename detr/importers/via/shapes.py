"""The shapes of VIA -> polygons. No torch.

A circle or ellipse becomes a polygon through the points where it touches its box: the box of the polygon is then the
exact box of the shape.
"""

import math

from detr.importers.via.record import Point
from utils import UserError, is_number, quote

LIMIT = 10_000_000  # pixels: no image is larger, and arithmetic is safe up to there
_SAGITTA = 0.1  # pixels by which a curve may be cut short by its polygon
_NUMBERS = {  # the shapes that are given by single numbers
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "point": ("cx", "cy"),
}
ACCEPTED = ("polygon", "polyline", *_NUMBERS)


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
    if not isinstance(name, str) or name not in _NUMBERS:
        raise UserError(f"{where} is a {quote(name)}; accepted: {', '.join(ACCEPTED)}")
    for key in (*_NUMBERS[name], *(("theta",) if shape.get("theta") is not None else ())):
        if not is_number(shape.get(key), LIMIT):
            raise UserError(f"{where} has {key} = {quote(shape.get(key))}; a finite number up to {LIMIT:,} is needed")
    numbers = [shape[key] for key in _NUMBERS[name]]
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
