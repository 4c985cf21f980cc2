"""Polygons and the image's edge: boxes, areas, and the parts of a polygon that are inside. No torch."""

from detr.importers.via.record import Point


def box_of(points_xy: list[Point]) -> tuple[float, float, float, float]:
    """Return the box around points, as left, top, right, bottom."""
    xs, ys = [x for x, _ in points_xy], [y for _, y in points_xy]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(points_xy: list[Point]) -> float:
    """Return the area of a simple polygon in square pixels, by the shoelace formula, whatever its orientation."""
    after = points_xy[1:] + points_xy[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points_xy, after, strict=True))) / 2


def clip(points_xy: list[Point], width: float, height: float) -> list[list[Point]]:
    """Return the parts of a polygon inside an image; the polygon itself where all of it is.

    A polygon is cut along one edge of the image after the other. The ends that a cut leaves lie on the edge's line and
    are joined two and two in their order along it, so that parts stay apart: joined in the order of drawing instead
    (Sutherland and Hodgman 1974), strips without area along the edge would make the box too large.
    """
    parts = [points_xy]
    for axis, bound, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        parts = [piece for part in parts for piece in _cut(part, axis, bound, sign)]
    return parts


def _cut(points: list[Point], axis: int, bound: float, sign: int) -> list[list[Point]]:
    depths = [sign * (point[axis] - bound) for point in points]
    if min(depths) >= 0:
        return [points]
    if max(depths) <= 0:
        return []
    chains: list[list[Point]] = []
    start = depths.index(min(depths))  # outside: no chain runs over the end of the list
    last, last_depth = points[start], depths[start]
    for index in range(start + 1 - len(points), start + 1):
        point, depth = points[index], depths[index]
        if (depth >= 0) != (last_depth >= 0):
            share = last_depth / (last_depth - depth)
            along = last[1 - axis] + share * (point[1 - axis] - last[1 - axis])
            crossing = (bound, along) if axis == 0 else (along, bound)
            if depth >= 0:
                chains.append([crossing])
            else:
                chains[-1].append(crossing)
        if depth >= 0:
            chains[-1].append(point)
        last, last_depth = point, depth
    return chains if len(chains) == 1 else _joined(chains, 1 - axis)


def _joined(chains: list[list[Point]], along: int) -> list[list[Point]]:
    """Closed loops out of chains whose ends (number of the chain, 0 first or -1 last) all lie on one line."""
    ends = sorted((chain[side][along], number, side) for number, chain in enumerate(chains) for side in (0, -1))
    partner = {}
    for (_, *one), (_, *other) in zip(ends[::2], ends[1::2], strict=True):
        partner[tuple(one)], partner[tuple(other)] = tuple(other), tuple(one)
    loops, done = [], set()
    for first in range(len(chains)):
        loop: list[Point] = []
        number, side = first, 0
        while number not in done:
            done.add(number)
            loop += chains[number] if side == 0 else chains[number][::-1]
            number, side = partner[number, -1 - side]
        if loop:
            loops.append(loop)
    return loops
