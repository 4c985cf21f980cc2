"""Draw scenes of the classes of `things`, for pre-training; none of them is a balloon. No torch."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.sample.backgrounds import paint_background
from detr.sample.canvas import Canvas, Pose, scattered
from detr.sample.clicks import box_xyxy, is_seen
from detr.sample.clutter import paint_decoys, paint_occluders
from detr.sample.geometry import ellipse
from detr.sample.paints import Rng
from detr.sample.photo_objects import PhotoObjects
from detr.sample.surfaces import lamp_light
from detr.sample.things import SHAPE_CLASSES, SHAPES

_SCALE = 2
_SIDES = (256, 353)  # pixels, from and below
_MIN_VISIBLE_SHARE = 0.3  # of the whole thing
_STREAM = 2  # random numbers of its own: no scene of `draw` shares its background
_STANDING = ("box", "cone", "cup")  # the others lie, hang or fly any way up


class ShapeScene(NamedTuple):
    """A drawn photograph with its objects."""

    image: Image.Image
    masks: list[np.ndarray]  # (H, W) bool each: what is seen of each of the T objects
    boxes_xyxy: np.ndarray  # (T, 4) float32, pixels: exactly around it, to half a pixel
    labels: np.ndarray  # (T,) int64, positions in `things.SHAPE_CLASSES`, or those of the photographs


def draw_shape_scene(seed: int, index: int, photos: PhotoObjects | None = None) -> ShapeScene:
    """Scene `index` of a seed: the same on every call, whatever was drawn before.

    About half of the objects and of the backgrounds come from `photos`, if there are any.
    """
    rng = np.random.default_rng((_STREAM, seed, index))
    canvas = Canvas(tuple(rng.integers(*_SIDES, 2).tolist()), _SCALE)
    labels: list[int] = []
    crop = photos.crop(rng, (canvas.height * _SCALE, canvas.width * _SCALE)) if photos and rng.random() < 0.6 else None
    if crop:
        image, objects = crop
        labels += [one.label for one in objects]
        canvas.fill(image, [one.polygons for one in objects])
        canvas.light = lamp_light(rng, rng.uniform(0.5, 0.8, 3), rng.uniform(0.35, 0.5, 3))
    else:
        paint_background(canvas, rng)
        paint_decoys(canvas, rng)
    labels += _add_things(canvas, rng, photos)
    if not crop and rng.random() < 0.3:
        paint_occluders(canvas, rng)
    seen = [
        (mask, label)
        for owner, (label, area) in enumerate(zip(labels, canvas.areas, strict=True), start=1)
        if is_seen(mask := canvas.visible(owner), _SCALE, area, _MIN_VISIBLE_SHARE)
    ]
    boxes_xyxy = np.array([box_xyxy(mask, _SCALE) for mask, _ in seen], np.float32).reshape(-1, 4)
    cells = (canvas.height, _SCALE, canvas.width, _SCALE)
    masks = [mask.reshape(cells).mean((1, 3)) >= 0.5 for mask, _ in seen]
    return ShapeScene(canvas.photograph(rng), masks, boxes_xyxy, np.array([label for _, label in seen], np.int64))


def _add_things(canvas: Canvas, rng: Rng, photos: PhotoObjects | None) -> list[int]:
    """Add 1 to 9 things that are drawn, or cut out of photographs; returns their labels."""
    typical = canvas.short * np.exp(rng.uniform(np.log(0.03), np.log(0.3)))

    def random_pose() -> Pose:
        """Return a place for one more."""
        size = typical * rng.uniform(0.7, 1.35)
        x, y = rng.uniform(0.35 * size, (canvas.width - 0.35 * size, canvas.height - 0.35 * size)).tolist()
        return Pose(x, y, size, rng.uniform(-np.pi, np.pi))

    labels = []
    for pose in scattered(rng, int(rng.integers(1, 10)), random_pose):
        if photos and rng.random() < 0.5:
            cutout, label = photos.cutout(rng, 2 * pose.size * _SCALE)
            canvas.paste(cutout, (pose.x, pose.y))
        else:
            label = int(rng.integers(len(SHAPES)))
            foot = pose.y + 0.9 * pose.size
            if SHAPE_CLASSES[label] in _STANDING or rng.random() < 0.4:
                pose = pose._replace(angle=rng.normal(0, 0.1))
            if canvas.ground is not None and foot > canvas.ground:
                canvas.contact_shadow((pose.x, foot), 0.8 * pose.size)
            elif not canvas.open_sky:  # on the wall behind it
                canvas.shadow(pose.place(ellipse(0.8, 0.8)) - canvas.light.direction[:2] * 5, 4, 0.3)
            canvas.add(SHAPES[label](rng), pose)
        labels.append(label)
    return labels
