"""Shapes and clipping against masks that are filled point by point, by arithmetic that shares nothing with ours."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detr.importers import notes
from detr.importers.via.classes import Classes
from detr.importers.via.clip import box_of, clip, polygon_area
from detr.importers.via.fields import LIMIT, to_polygon
from detr.importers.via.record import AnnotatedImage, Point, Region
from detr.importers.via.to_coco import convert
from tests.importers.via.via_files import rect
from utils import UserError

SIZE = 240
FINE = 5  # points per pixel and direction at which a true shape is sampled
INSIDE = [Region([(0, 0), (9, 0), (9, 9)], {})] * 2  # so that an image's regions are not mostly outside


def converted(shape: dict) -> tuple[list[dict], list[tuple[str, str]]]:
    """Annotations and remarks of a square image with one shape, and then `INSIDE`."""
    image = AnnotatedImage("a.png", [Region(to_polygon(shape, "here"), {}, "0"), *INSIDE])
    return convert(image, (SIZE, SIZE), Classes({"it": 1}))


def true_area_and_box(is_in: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> tuple[float, list[float]]:
    grid = (np.arange(SIZE * FINE) + 0.5) / FINE
    found = is_in(grid[None, :], grid[:, None])
    ys, xs = np.nonzero(found)
    left, top = xs.min() / FINE, ys.min() / FINE
    return found.sum() / FINE**2, [left, top, (xs.max() + 1) / FINE - left, (ys.max() + 1) / FINE - top]


def in_ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> Callable:
    cos, sin = math.cos(theta), math.sin(theta)
    return lambda x, y: (
        (((x - cx) * cos + (y - cy) * sin) / rx) ** 2 + (((y - cy) * cos - (x - cx) * sin) / ry) ** 2 <= 1
    )


def in_polygon(points: list[Point]) -> Callable:
    def is_in(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        found = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if y0 != y1:
                found ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        return found

    return is_in


def check(shape: dict, is_in: Callable) -> None:
    area, box = true_area_and_box(is_in)
    found = converted(shape)[0][0]
    across = min(box[2:])
    if across > 20:
        tolerance = 0.01 if across > 40 else 0.03
        mask = coco_mask.merge(coco_mask.frPyObjects(found["segmentation"], SIZE, SIZE))
        assert coco_mask.area(mask) == pytest.approx(area, rel=tolerance)
        assert found["area"] == pytest.approx(area, rel=tolerance)
    assert np.allclose(found["bbox"], box, atol=2.5 / FINE)


@pytest.mark.parametrize("seed", range(40))
def test_ellipses_and_circles_inside_and_over_the_edge(seed: int) -> None:
    rng = random.Random(seed)
    rx, ry, theta = rng.uniform(11, 70), rng.uniform(11, 70), rng.uniform(-7, 7)
    reach = 90 if seed % 2 else 0  # every other one is whole
    cx, cy = (rng.uniform(72, SIZE - 72) + rng.uniform(-reach, reach) for _ in range(2))
    check(
        {"name": "ellipse", "cx": cx, "cy": cy, "rx": rx, "ry": ry, "theta": theta}, in_ellipse(cx, cy, rx, ry, theta)
    )
    check({"name": "circle", "cx": cx, "cy": cy, "r": rx}, in_ellipse(cx, cy, rx, rx, 0))


def star(rng: random.Random, cx: float, cy: float, corners: int) -> list[Point]:
    """A simple polygon with deep notches."""
    radii = [rng.uniform(60, 110) if i % 2 else rng.uniform(8, 50) for i in range(2 * corners)]
    angles = [math.pi * i / corners for i in range(2 * corners)]
    return [(cx + r * math.cos(a), cy + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_polygons_over_the_edge(seed: int) -> None:
    rng = random.Random(seed)
    points = star(rng, rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.randint(3, 9))
    shape = {"name": "polygon", "all_points_x": [x for x, _ in points], "all_points_y": [y for _, y in points]}
    area, box = true_area_and_box(in_polygon(points))
    parts = clip(points, SIZE, SIZE)
    assert sum(map(polygon_area, parts)) == pytest.approx(area, rel=0.02)
    left, top, right, bottom = box_of([point for part in parts for point in part])
    assert np.allclose((left, top, right - left, bottom - top), box, atol=2)  # a tip is thinner than a sample
    assert converted(shape)[0][0]["area"] == sum(map(polygon_area, parts))


def test_a_comb_over_the_edge_falls_into_its_teeth() -> None:
    comb = [(-20, 10), (60, 10), (60, 20), (-10, 20), (-10, 30), (40, 30), (40, 40), (-20, 40)]
    parts = clip(comb, 100, 100)
    assert sorted(box_of(part) for part in parts) == [(0, 10, 60, 20), (0, 30, 40, 40)]
    assert [polygon_area(part) for part in parts] == [600, 400]
    # Cut in the order of drawing, a strip along the left edge would join a tooth to where the comb's back leaves above.
    hook = [(-20, -20), (50, -20), (50, -10), (-10, -10), (-10, 50), (30, 50), (30, 60), (-20, 60)]
    assert [box_of(part) for part in clip(hook, 100, 100)] == [(0, 50, 30, 60)]


def test_what_is_inside_stays_as_drawn_and_what_is_outside_goes() -> None:
    square = [(0, 0), (100, 0), (100, 100), (0, 100)]
    assert clip(square, 100, 100) == [square]
    assert clip([(x + 100, y) for x, y in square], 100, 100) == []
    assert clip([(x - 300, y) for x, y in square], 100, 100) == []
    huge = clip([(-LIMIT, -LIMIT), (LIMIT, -LIMIT), (LIMIT, LIMIT), (-LIMIT, LIMIT)], 100, 50)
    assert [box_of(part) for part in huge] == [(0, 0, 100, 50)] and polygon_area(huge[0]) == 5000


def test_ten_thousand_random_polygons_stay_inside() -> None:
    rng = random.Random(0)
    for _ in range(10_000):
        points = [(rng.randint(-4, 14), rng.randint(-4, 14)) for _ in range(rng.randint(3, 8))]  # crossing and touching
        for part in clip(points, 10, 10):
            left, top, right, bottom = box_of(part)
            assert left >= 0 and top >= 0 and right <= 10 and bottom <= 10


def test_exact_boxes() -> None:
    assert converted({"name": "circle", "cx": 148, "cy": 68, "r": 43})[0][0]["bbox"] == [105, 25, 86, 86]
    ellipse = {"name": "ellipse", "cx": 100, "cy": 90, "rx": 27, "ry": 26}
    assert converted(ellipse)[0][0]["bbox"] == [73, 64, 54, 52]
    turned = converted(ellipse | {"rx": 40, "ry": 10, "theta": math.pi / 6})[0][0]
    half = math.hypot(40 * math.cos(math.pi / 6), 10 * math.sin(math.pi / 6))
    assert turned["bbox"][0] == pytest.approx(100 - half, abs=1e-9)
    assert turned["bbox"][2] == pytest.approx(2 * half, abs=1e-9)
    assert converted(rect(5, 6, -3, -4))[0][0]["bbox"] == [2, 2, 3, 4]  # drawn from the lower right
    (line, *_), remarks = converted({"name": "polyline", "all_points_x": [5, 25, 9], "all_points_y": [5, 30, 40]})
    assert line["segmentation"] == [[5, 5, 25, 30, 9, 40]] and not remarks


@pytest.mark.parametrize(
    ("shape", "category", "is_kept"),
    [
        ({"name": "point", "cx": 5, "cy": 5}, notes.POINT, False),
        (rect(5, 5, 0, 9), notes.ZERO, False),
        ({"name": "circle", "cx": 5, "cy": 5, "r": 0}, notes.ZERO, False),
        ({"name": "polyline", "all_points_x": [5, 5], "all_points_y": [5, 5]}, notes.ZERO, False),
        ({"name": "polygon", "all_points_x": [5, 9], "all_points_y": [5, 5]}, notes.ZERO, False),
        ({"name": "polyline", "all_points_x": [5, 35, 65], "all_points_y": [5, 25, 45]}, notes.LINE, True),
        (rect(SIZE, 5, 9, 9), notes.OUTSIDE, False),
        (rect(-50, -50, 20, 20), notes.OUTSIDE, False),
        (rect(-5, 5, 20, 20), notes.CLIPPED, True),
    ],
)
def test_what_is_changed_or_dropped_is_noted(shape: dict, category: str, is_kept: bool) -> None:
    annotations, remarks = converted(shape)
    assert remarks == [(category, "a.png, region 0")]
    assert len(annotations) == len(INSIDE) + is_kept


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "here has no shape_attributes"),
        ({}, "here is a None; accepted: polygon, polyline, rect, circle, ellipse, point"),
        (rect(1, 2, math.nan, 4), "here has width = nan; a finite number up to 10,000,000 is needed"),
        (rect(1, 2, 3, 10**400), "here has height = 1000"),
        ({"name": "circle", "cx": 1, "cy": 1, "r": -2}, "here has the radius -2; it cannot be negative"),
        ({"name": "ellipse", "cx": 1, "cy": 1, "rx": 2, "ry": 2, "theta": "x"}, "here has theta = 'x'"),
        ({"name": "polyline", "all_points_x": [], "all_points_y": []}, "here is a polyline without points"),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_polygon(shape, "here")
