"""Draw the sample: illustrated scenes with party balloons, outlined as a person would in VIA. No torch.

What an annotator would do decides: the visible part of a balloon is outlined (see `clicks`), with its knot, without
its string; a balloon of which less than 45 % or less than 6 pixels are seen is left out, and a scene that has such a
balloon is composed anew, so that this is rare.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.sample import clutter, things
from detr.sample.backgrounds import Setting, paint_background
from detr.sample.balloons import Balloon, hung, on_ground, paint_balloon
from detr.sample.camera import photograph, to_jpeg
from detr.sample.canvas import Canvas, Pose, silhouette_area
from detr.sample.clicks import click, without_crumbs
from detr.sample.occluders import paint_occluders, stand

_MIN_VISIBLE_SHARE = 0.45  # of the whole balloon
_MIN_VISIBLE_SIDE = 6  # pixels
_SIDES = (224, 289)  # pixels, from and below
_SCALE = 3
_COUNT_CHANCES = (0.05, 0.2, 0.19, 0.18, 0.14, 0.11, 0.07, 0.06)  # of 0, 1, ... 7 balloons
_ATTEMPTS = 12
_CLASS = "balloon"
_JPEG_QUALITY = 90
_STREAM = 1  # random numbers of its own: no scene of `shapes` shares its background


class BalloonScene(NamedTuple):
    """A drawn photograph and what a person outlined in it."""

    image: Image.Image
    outlines: list[list[tuple[int, int]]]  # one polygon in pixels for each balloon
    masks: list[np.ndarray]  # (3 H, 3 W) bool each: where that balloon is really seen


def draw_set(seed: int, first: int, count: int) -> Iterator[tuple[str, bytes, dict]]:
    """Draw scenes `first` to `first + count - 1` of a seed; yields file name, JPEG file and VIA 1.x entry."""
    for index in range(first, first + count):
        scene = draw_balloon_scene(seed, index)
        jpeg, name = to_jpeg(scene.image, _JPEG_QUALITY), f"scene{index:04}.jpg"
        yield name, jpeg, via_entry(name, len(jpeg), scene.outlines)


def via_entry(name: str, size: int, outlines: list[list[tuple[int, int]]]) -> dict:
    """Return one image of a VIA 1.x file of `size` bytes."""
    regions = {
        str(number): {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [x for x, _ in outline],
                "all_points_y": [y for _, y in outline],
            },
            "region_attributes": {"name": _CLASS},
        }
        for number, outline in enumerate(outlines)
    }
    return {"filename": name, "size": size, "regions": regions, "file_attributes": {}}


def draw_balloon_scene(seed: int, index: int) -> BalloonScene:
    """Scene `index` of a seed: the same on every call, whatever was drawn before."""
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng((_STREAM, seed, index, attempt))
        canvas, balloons = compose(rng)
        masks = [without_crumbs(canvas.visible(owner)) for owner in range(1, len(balloons) + 1)]
        seen = [
            mask
            for mask, balloon in zip(masks, balloons, strict=True)
            if is_seen(mask, canvas.scale, silhouette_area(balloon.pieces, balloon.pose), _MIN_VISIBLE_SHARE)
        ]
        if len(seen) == len(balloons):
            break
    return BalloonScene(photograph(canvas, rng), [click(mask, canvas.scale, rng) for mask in seen], seen)


def is_seen(mask: np.ndarray, scale: int, whole_area: int, least_share: float) -> bool:
    """Return whether so much of a thing is visible that a person would outline it.

    Args:
        mask: (scale * H, scale * W) bool, where it is visible.
        scale: mask pixels per image pixel along a side.
        whole_area: square image pixels of the thing if nothing hid it.
        least_share: of that area, which has to be visible.
    """
    if mask.sum() < least_share * whole_area * scale**2:
        return False
    sides = [np.flatnonzero(mask.any(axis)) for axis in (0, 1)]
    return all(side[-1] + 1 - side[0] >= _MIN_VISIBLE_SIDE * scale for side in sides)


# --------------------------------------------------------------------------------------------------------- composition


def compose(rng: np.random.Generator) -> tuple[Canvas, list[Balloon]]:
    """Paint a whole scene; balloon number i owns i + 1 on the canvas."""
    canvas = Canvas(tuple(rng.integers(*_SIDES, 2).tolist()), _SCALE)
    setting = paint_background(canvas, rng)
    for _ in range(int(rng.integers(0, 4))):
        _paint_decoy(canvas, rng, setting)
    balloons: list[Balloon] = []
    count = int(rng.choice(8, p=_COUNT_CHANCES))
    first = count if count < 4 or rng.random() < 0.7 else int(rng.integers(1, count))
    for group in (first, count - first):
        if group:
            grounded = setting.ground is not None and rng.random() < 0.18
            anchor = None if grounded or rng.random() < 0.4 else _paint_holder(canvas, rng, setting)
            found = on_ground(canvas, rng, setting, group) if grounded else hung(canvas, rng, setting, group, anchor)
            for balloon in found:
                balloons.append(balloon)
                paint_balloon(canvas, rng, balloon, setting.light, len(balloons), grounded)
    if rng.random() < 0.5:
        paint_occluders(canvas, rng, setting)
    return canvas, balloons


def _paint_holder(canvas: Canvas, rng: np.random.Generator, setting: Setting) -> np.ndarray:
    """Who or what holds a bunch: somebody's hand, a parcel on the ground, or something below the picture.

    Returns the (2,) pixels where the strings end.
    """
    x = rng.uniform(0.2, 0.8) * canvas.width
    if setting.ground is None:
        return np.array((x, canvas.height * rng.uniform(0.85, 1.15)))
    foot = setting.ground + rng.uniform(0.25, 0.9) * (canvas.height - setting.ground)
    if rng.random() < 0.6:
        size = canvas.height * rng.uniform(0.17, 0.27)
        pose = stand(canvas, clutter.person(rng, raises_hand=True), (x, foot), size, setting)
        return pose.place(clutter.HAND[None])[0]
    size = canvas.height * rng.uniform(0.05, 0.08)
    pose = stand(canvas, things.box(rng), (x, foot), size, setting)
    return np.array((x, pose.y - 0.3 * size))


def _paint_decoy(canvas: Canvas, rng: np.random.Generator, setting: Setting) -> None:
    """Something round or bright that is not a balloon, where it could be."""
    short = min(canvas.height, canvas.width)
    if setting.ground is None or (setting.place != "street" and rng.random() < 0.25):
        _paint_in_the_air(canvas, rng, setting, short)
        return
    outdoors = (things.ball, things.ball, things.cone, things.ring, clutter.person, things.box, clutter.lamp_post)
    indoors = (things.ball, clutter.cushion, clutter.cushion, clutter.plant, things.box, things.cone, clutter.person)
    kinds = indoors if setting.place == "room" else (*outdoors, things.car) if setting.place == "street" else outdoors
    kind = kinds[rng.integers(len(kinds))]
    depth = rng.uniform(0.1, 0.9)
    tall = 0.2 if kind in (clutter.person, clutter.lamp_post) else 0.12 if kind is things.car else 0.06
    size = short * tall * rng.uniform(0.8, 1.2) * (0.7 + 0.6 * depth)
    foot = setting.ground + depth * (canvas.height - setting.ground)
    stand(canvas, kind(rng), (rng.uniform(0.03, 0.97) * canvas.width, foot), size, setting)


def _paint_in_the_air(canvas: Canvas, rng: np.random.Generator, setting: Setting, short: float) -> None:
    """A kite under the sky; a lamp or a paper star on its cord indoors and at night; studio props on their shadow."""
    x, y = rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.08, 0.6) * canvas.height
    size = short * rng.uniform(0.05, 0.1)
    if setting.place in ("sky", "park", "beach"):
        canvas.paint(things.kite(rng), Pose(x, y, size, rng.normal(0, 0.5)), setting.light)
    elif setting.place == "studio":
        props = (things.ball, things.cup, things.ring, clutter.fruit, clutter.cushion, things.box, clutter.cake)
        stand(canvas, props[rng.integers(len(props))](rng), (x, canvas.height * rng.uniform(0.75, 0.97)), size, setting)
    elif rng.random() < 0.6:
        canvas.paint(clutter.pendant_lamp(rng), Pose(x, y, size), setting.light)
    else:
        canvas.line(np.array(((x, -1), (x, y))), (0.3, 0.3, 0.3), 0.7)
        canvas.paint(things.five_point_star(rng), Pose(x, y + size, size), setting.light)
