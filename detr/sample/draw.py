"""Draw the sample: illustrated scenes with party balloons, outlined as a person would in VIA. No torch.

What an annotator would do decides: the visible part of a balloon is outlined (see `clicks`), with its knot, without
its string; a scene with a balloon of which less than 45 % or less than 6 pixels are seen is composed anew, so that
none is left without an outline.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.sample import things
from detr.sample.backgrounds import paint_background
from detr.sample.balloons import add_balloon, hung, lying
from detr.sample.canvas import Canvas, to_jpeg
from detr.sample.clicks import click, is_seen
from detr.sample.clutter import HAND, paint_decoys, paint_occluders, person
from detr.sample.paints import DARK, WHITE, Rng, pick_color

_MIN_VISIBLE_SHARE = 0.45  # of the whole balloon
_MOST_ATTEMPTS = 100  # of 120 scenes none takes more than two
_SIDES = (224, 289)  # pixels, from and below
_SCALE = 3
_COUNT_CHANCES = (0.05, 0.2, 0.19, 0.18, 0.14, 0.11, 0.07, 0.06)  # of 0, 1, ... 7 balloons
_STREAM = 1  # random numbers of its own: no scene of `shape_scene` shares its background
_STANDING = (things.ball, things.ball, things.ball, things.ring, things.cone, things.box)


class BalloonScene(NamedTuple):
    """A drawn photograph and what a person outlined in it."""

    image: Image.Image
    outlines: list[list[tuple[int, int]]]  # one polygon in pixels for each balloon
    masks: list[np.ndarray]  # (3 H, 3 W) bool each: where that balloon is really seen


def draw_set(seed: int, first: int, count: int) -> Iterator[tuple[str, bytes, dict]]:
    """Draw scenes `first` to `first + count - 1` of a seed; yields file name, JPEG file and VIA 1.x entry."""
    for index in range(first, first + count):
        scene = draw_balloon_scene(seed, index)
        jpeg, name = to_jpeg(scene.image), f"scene{index:04}.jpg"
        regions = {}
        for number, outline in enumerate(scene.outlines):
            xs, ys = zip(*outline, strict=True)
            shape = {"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)}
            regions[str(number)] = {"shape_attributes": shape, "region_attributes": {"name": "balloon"}}
        yield name, jpeg, {"filename": name, "size": len(jpeg), "regions": regions, "file_attributes": {}}


def draw_balloon_scene(seed: int, index: int) -> BalloonScene:
    """Scene `index` of a seed: the same on every call, whatever was drawn before."""
    count = int(np.random.default_rng((_STREAM, seed, index, 0)).choice(8, p=_COUNT_CHANCES))
    for attempt in range(1, _MOST_ATTEMPTS):
        rng = np.random.default_rng((_STREAM, seed, index, attempt))
        canvas = compose(rng, count)
        masks = [canvas.visible(owner) for owner in range(1, len(canvas.areas) + 1)]
        if all(is_seen(mask, _SCALE, area, _MIN_VISIBLE_SHARE) for mask, area in zip(masks, canvas.areas, strict=True)):
            return BalloonScene(canvas.photograph(rng), [click(mask, _SCALE, rng) for mask in masks], masks)
    raise RuntimeError(f"scene {index} of seed {seed}: no composition shows every balloon")


def compose(rng: Rng, count: int) -> Canvas:
    """Paint a whole scene, with up to `count` balloons as its objects."""
    canvas = Canvas(tuple(rng.integers(*_SIDES, 2).tolist()), _SCALE)
    paint_background(canvas, rng)
    paint_decoys(canvas, rng, standing=_STANDING, flying=(things.kite,))
    first = count if count < 4 or rng.random() < 0.7 else int(rng.integers(1, count))
    for group in (first, count - first):
        if group:
            _add_bunch(canvas, rng, group)
    if rng.random() < 0.5:
        paint_occluders(canvas, rng)
    return canvas


def _add_bunch(canvas: Canvas, rng: Rng, count: int) -> None:
    """Add balloons that lie on the ground, are held together, or fly apart."""
    color = (DARK, WHITE, pick_color(rng))[rng.integers(3)]
    if canvas.ground is not None and rng.random() < 0.18:
        for pose in lying(canvas, rng, count):
            add_balloon(canvas, rng, pose, None, color)
        return
    held = rng.random() < 0.6
    anchor = _paint_holder(canvas, rng) if held else None
    for pose in hung(canvas, rng, count, anchor):
        loose_end = np.array((pose.x, pose.y)) + pose.size * rng.uniform((-1, 2), (1, 5))
        add_balloon(canvas, rng, pose, anchor if held else loose_end, color)


def _paint_holder(canvas: Canvas, rng: Rng) -> np.ndarray:
    """Paint who or what holds a bunch, if there is a ground to stand on; returns the (2,) pixels where strings end."""
    x = rng.uniform(0.2, 0.8) * canvas.width
    if canvas.ground is None:
        return np.array((x, canvas.height * rng.uniform(0.85, 1.15)))
    foot = (x, canvas.ground + rng.uniform(0.25, 0.9) * (canvas.height - canvas.ground))
    if rng.random() < 0.6:
        pose = canvas.stand(person(rng, raises_hand=True), foot, canvas.height * rng.uniform(0.17, 0.27))
        return pose.place(HAND[None])[0]
    parcel = canvas.stand(things.box(rng), foot, canvas.height * rng.uniform(0.05, 0.08))
    return np.array((x, parcel.y - 0.3 * parcel.size))
