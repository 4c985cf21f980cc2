"""Draw scenes of the twelve classes of `things`, for pre-training; none of them is a balloon. No torch."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.sample import clutter
from detr.sample.backgrounds import Setting, paint_background, sun_light
from detr.sample.camera import photograph, through_jpeg
from detr.sample.canvas import Canvas, Piece, Pose, silhouette_area
from detr.sample.draw import is_seen
from detr.sample.geometry import ellipse, polygon_area
from detr.sample.occluders import contact_shadow, paint_occluders, stand
from detr.sample.photo_objects import PhotoObjects
from detr.sample.things import SHAPES

_SCALE = 2
_MIN_VISIBLE_SHARE = 0.3  # of the whole thing
_MOST_IN_PHOTO = 60  # objects of a photograph
_STREAM = 2  # random numbers of its own: no scene of `draw` shares its background
_STANDING = ("box", "cone", "cup", "car", "house")  # the others lie, hang or fly any way up


class ShapeScene(NamedTuple):
    """A drawn photograph with its objects."""

    image: Image.Image
    boxes_xyxy: np.ndarray  # (T, 4) float32, pixels: exactly what is seen of each object
    labels: np.ndarray  # (T,) int64, positions in `things.SHAPE_CLASSES`


def draw_shape_scene(
    seed: int, index: int, sides: tuple[int, int] = (192, 288), photos: PhotoObjects | None = None
) -> ShapeScene:
    """Scene `index` of a seed: the same on every call, whatever was drawn before.

    Args:
        seed, index: which scene.
        sides: the smallest and the largest height and width in pixels.
        photos: where to take half of the objects and of the backgrounds from.
    """
    rng = np.random.default_rng((_STREAM, seed, index))
    canvas = Canvas(tuple(rng.integers(sides[0], sides[1] + 1, 2).tolist()), _SCALE)
    areas: list[float] = []  # of whole objects, square pixels; number i is owner i + 1
    labels: list[int] = []
    crop = photos.crop(rng, (canvas.height * _SCALE, canvas.width * _SCALE)) if photos and rng.random() < 0.6 else None
    if crop:
        objects = crop.objects[:_MOST_IN_PHOTO]
        canvas.fill(crop.image, [one.polygons for one in objects])
        areas += [sum(map(polygon_area, one.polygons)) / _SCALE**2 for one in objects]
        labels += [one.label for one in objects]
        setting = Setting("photo", sun_light(rng, rng.uniform(0.5, 0.8, 3), rng.uniform(0.35, 0.5, 3)), None)
    else:
        setting = paint_background(canvas, rng)
        for _ in range(int(rng.integers(0, 4))):
            _paint_unlabelled(canvas, rng, setting)
    _paint_things(canvas, rng, setting, areas, labels, photos)
    if not crop and rng.random() < 0.3:
        paint_occluders(canvas, rng, setting)
    boxes, kept = [], []
    for owner, (area, label) in enumerate(zip(areas, labels, strict=True), start=1):
        mask = canvas.visible(owner)
        if is_seen(mask, _SCALE, area, _MIN_VISIBLE_SHARE):
            boxes.append(box_xyxy(mask, _SCALE))
            kept.append(label)
    image = photograph(canvas, rng)
    if rng.random() < 0.5:
        image = through_jpeg(image, int(rng.integers(70, 96)))
    return ShapeScene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(kept, np.int64))


def box_xyxy(mask: np.ndarray, scale: int) -> tuple[float, float, float, float]:
    """Return the box around a (scale * H, scale * W) mask, in image pixels."""
    across, down = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return across[0] / scale, down[0] / scale, (across[-1] + 1) / scale, (down[-1] + 1) / scale


def _paint_things(
    canvas: Canvas,
    rng: np.random.Generator,
    setting: Setting,
    areas: list[float],
    labels: list[int],
    photos: PhotoObjects | None,
) -> None:
    """Add 1 to 7 things that are drawn, or cut out of photographs; appends their whole areas and labels."""
    smallest, largest = (0.06, 0.3) if photos else (0.09, 0.24)
    typical = min(canvas.height, canvas.width) * np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    poses: list[Pose] = []
    for _ in range(int(rng.integers(1, 8))):
        size = typical * rng.uniform(0.7, 1.35)
        if photos and rng.random() < 0.5:
            pose = _free_pose(canvas, rng, setting, size, False, poses)
            if pose:
                poses.append(pose)
                cutout, label = photos.cutout(rng, 2 * size * _SCALE)
                canvas.paste(cutout, (pose.x, pose.y), len(labels) + 1)
                areas.append((np.asarray(cutout.getchannel("A")) > 127).sum() / _SCALE**2)
                labels.append(label)
            continue
        label = int(rng.integers(len(SHAPES)))
        name, draw = SHAPES[label]
        pieces = draw(rng)
        pose = _free_pose(canvas, rng, setting, size, name in _STANDING, poses)
        if pose:
            poses.append(pose)
            _paint_shadow(canvas, setting, pieces, pose)
            canvas.paint(pieces, pose, setting.light, owner=len(labels) + 1)
            areas.append(silhouette_area(pieces, pose))
            labels.append(label)


def _free_pose(
    canvas: Canvas, rng: np.random.Generator, setting: Setting, size: float, stands: bool, poses: list[Pose]
) -> Pose | None:
    """A place that overlaps the others a little at most, on the ground as a rule for what stands; None: no room."""
    angle = rng.normal(0, 0.15) if stands or rng.random() < 0.6 else rng.uniform(-np.pi, np.pi)
    for trial in range(12):
        x, y = rng.uniform(0.02, 0.98, 2) * (canvas.width, canvas.height)
        if stands and setting.ground is not None and trial < 6:
            y, angle = setting.ground + rng.uniform(0.1, 1) * (canvas.height - setting.ground) - 0.8 * size, 0.0
        x = float(np.clip(x, 0.35 * size, canvas.width - 0.35 * size))
        y = float(np.clip(y, 0.35 * size, canvas.height - 0.35 * size))
        apart = rng.uniform(0.6, 1.0)
        if all(np.hypot(x - other.x, y - other.y) > apart * (size + other.size) for other in poses):
            return Pose(x, y, float(size), float(angle), rng.random() < 0.5)
    return None


def _paint_shadow(canvas: Canvas, setting: Setting, pieces: list[Piece], pose: Pose) -> None:
    """On the ground below what stands there, on the wall behind what is higher up; none in the open sky."""
    foot = float(max(pose.place(piece.outline)[:, 1].max() for piece in pieces))
    if setting.ground is not None and foot > setting.ground:
        contact_shadow(canvas, (pose.x, foot - 0.03 * pose.size), 0.8 * pose.size, setting.light)
    elif setting.place in ("room", "street", "studio"):
        x = pose.x - setting.light.direction[0] * 0.25 * pose.size
        canvas.shadow(ellipse(0.8 * pose.size, 0.8 * pose.size, x, pose.y + 0.15 * pose.size), 4, 0.3)


def _paint_unlabelled(canvas: Canvas, rng: np.random.Generator, setting: Setting) -> None:
    """Something of no class."""
    short = min(canvas.height, canvas.width)
    kinds = (clutter.cushion, clutter.fruit, clutter.plate, clutter.clock, clutter.bottle, clutter.plant, clutter.cake)
    outdoors = (
        clutter.person,
        clutter.bush,
        clutter.traffic_light,
        clutter.lamp_post,
        clutter.parasol,
        clutter.conifer,
    )
    kind = (*kinds, *outdoors)[rng.integers(len(kinds) + len(outdoors))]
    size = short * rng.uniform(0.05, 0.13) * (1.6 if kind in outdoors else 1)
    x = rng.uniform(0, canvas.width)
    if setting.ground is not None:
        foot = setting.ground + rng.uniform(0.05, 0.9) * (canvas.height - setting.ground)
        stand(canvas, kind(rng), (x, foot), size, setting)
    else:
        canvas.paint(kind(rng), Pose(x, rng.uniform(0.1, 0.9) * canvas.height, size, rng.normal(0, 0.2)), setting.light)
