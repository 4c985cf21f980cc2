"""The picture while it is painted: its colors, and which thing is seen at each pixel. No torch.

Positions are in pixels of the final picture; the canvas holds `scale` times as many, so that edges come out smooth.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from detr.importers.via.clip import polygon_area
from detr.sample.geometry import ellipse, turned
from detr.sample.paints import Color, Rng
from detr.sample.surfaces import EVEN_LIGHT, Pattern, Surface, shade

NOBODY = 0  # owner of what belongs to no annotated thing


class Pose(NamedTuple):
    """Where a thing stands: its frame's origin, the pixels per unit, and how it is turned."""

    x: float
    y: float
    size: float
    angle: float = 0.0  # radians, clockwise

    def place(self, outline: np.ndarray) -> np.ndarray:
        """Map (N, 2) in the thing's frame to (N, 2) in pixels."""
        return turned(outline, self.angle, self.x, self.y, self.size)


class Piece(NamedTuple):
    """One painted area of a thing, in the thing's frame."""

    outline: np.ndarray  # (N, 2)
    color: Color
    surface: Surface | None = None  # None: flat as paper
    gloss: float = 0.0
    pattern: Pattern | None = None
    second: Color = (1.0, 1.0, 1.0)  # where the pattern is
    hole: np.ndarray | None = None
    opacity: float = 1.0
    glow: float = 0.0


class Canvas:
    """A picture under paint. Its background says where that is, what light there is and where the ground begins."""

    def __init__(self, size_hw: tuple[int, int], scale: int) -> None:
        self.height, self.width = size_hw
        self.short = min(size_hw)
        self.scale = scale
        self.outdoors = False
        self.open_sky = False
        self.light = EVEN_LIGHT
        self.ground: float | None = None  # y in pixels of its far end; None: there is no ground
        self.areas: list[float] = []  # square pixels of each object, also of what is hidden; number i is owner i + 1
        self.image = Image.new("RGB", (self.width * scale, self.height * scale))
        self._owner = Image.new("L", self.image.size, NOBODY)

    def paint(self, pieces: Sequence[Piece], pose: Pose | None = None, owner: int = NOBODY) -> None:
        """Paint a thing over what is there; without a pose it is drawn in pixels."""
        pose = pose or Pose(0, 0, 1)
        for piece in pieces:
            outline = pose.place(piece.outline) * self.scale
            left, top = np.maximum(np.floor(outline.min(0)), 0).astype(int).tolist()
            right, bottom = np.minimum(np.ceil(outline.max(0)) + 1, self.image.size).astype(int).tolist()
            if right <= left or bottom <= top:
                continue
            mask = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(mask).polygon((outline - (left, top)).ravel().tolist(), fill=255)
            if piece.hole is not None:
                hole = pose.place(piece.hole) * self.scale - (left, top)
                ImageDraw.Draw(mask).polygon(hole.ravel().tolist(), fill=0)
            box = (left, top, right, bottom)
            self._owner.paste(owner, box, mask)
            if piece.opacity < 1:
                mask = mask.point([round(piece.opacity * value) for value in range(256)])
            self.image.paste(self._colors(piece, pose, box), box, mask)

    def add(self, pieces: Sequence[Piece], pose: Pose) -> None:
        """Paint an object: a thing that will be annotated."""
        half = math.ceil(2 * pose.size)
        alone = Canvas((2 * half, 2 * half), 1)  # shows its whole silhouette
        flat = [piece._replace(surface=None, pattern=None) for piece in pieces]
        alone.paint(flat, pose._replace(x=half, y=half), owner=1)
        self.areas.append(float(alone.visible(1).sum()))
        self.paint(pieces, pose, owner=len(self.areas))

    def paste(self, image: Image.Image, centre_xy: tuple[float, float]) -> None:
        """Paste an object, an RGBA image in canvas pixels, its centre at `centre_xy`, in pixels."""
        left = round(centre_xy[0] * self.scale - image.width / 2)
        top = round(centre_xy[1] * self.scale - image.height / 2)
        mask = image.getchannel("A").point(lambda value: 255 * (value > 127))
        self.areas.append(mask.histogram()[255] / self.scale**2)
        self.image.paste(image.convert("RGB"), (left, top), image.getchannel("A"))
        self._owner.paste(len(self.areas), (left, top), mask)

    def fill(self, image: Image.Image, objects: Sequence[Sequence[np.ndarray]]) -> None:
        """Take an RGB image of the canvas's size as background, with the polygons of its objects, in its pixels."""
        self.image.paste(image)
        for polygons in objects:
            self.areas.append(sum(polygon_area(polygon.tolist()) for polygon in polygons) / self.scale**2)
            for polygon in polygons:
                ImageDraw.Draw(self._owner).polygon(polygon.ravel().tolist(), fill=len(self.areas))

    def stand(self, pieces: Sequence[Piece], foot_xy: tuple[float, float], size: float) -> Pose:
        """Paint a thing that stands on the ground at `foot_xy`, with its shadow there; returns its pose."""
        low = max(piece.outline[:, 1].max() for piece in pieces)
        self.contact_shadow(foot_xy, size * max(piece.outline[:, 0].max() for piece in pieces))
        pose = Pose(foot_xy[0], foot_xy[1] - size * low, size)
        self.paint(pieces, pose)
        return pose

    def contact_shadow(self, foot_xy: tuple[float, float], half_width: float) -> None:
        """Darken the ground below what stands at `foot_xy`, a little away from the light."""
        x = foot_xy[0] - self.light.direction[0] * 0.3 * half_width
        self.shadow(ellipse(0.95 * half_width, 0.2 * half_width, x, foot_xy[1]), 1 + 0.06 * half_width, 0.5)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        """A thin line over everything, of `width` pixels; it hides nothing from an annotator."""
        thick = max(1, round(width * self.scale))
        ImageDraw.Draw(self.image).line((points * self.scale).ravel().tolist(), to_bytes(color), thick, "curve")

    def shadow(self, outline: np.ndarray, blur: float, strength: float) -> None:
        """Darken the area of an outline, given in pixels, with edges as soft as `blur` pixels."""
        coarse = 4  # soft shadows need no detail: a sixteenth of the work
        left, top = np.floor((outline.min(0) - 3 * blur) * self.scale).astype(int).tolist()
        wide, high = np.ceil((np.ptp(outline, 0) + 6 * blur) * self.scale / coarse).astype(int).tolist()
        small = Image.new("L", (wide, high))
        inside = (outline * self.scale - (left, top)) / coarse
        ImageDraw.Draw(small).polygon(inside.ravel().tolist(), fill=round(255 * strength))
        small = small.filter(ImageFilter.GaussianBlur(float(blur) * self.scale / coarse))
        mask = small.resize((wide * coarse, high * coarse), Image.Resampling.BILINEAR)
        self.image.paste(to_bytes((0.05, 0.05, 0.12)), (left, top), mask)

    def visible(self, owner: int) -> np.ndarray:
        """Return (scale * height, scale * width) bool: where the thing is seen."""
        return np.asarray(self._owner) == owner

    def photograph(self, rng: Rng) -> Image.Image:
        """Return the picture as a camera sees it: a little blurred, with a color cast and sensor noise."""
        image = self.image.reduce(self.scale)
        if rng.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.25, 0.7)))
        gain = (rng.uniform(0.96, 1.14) * rng.normal(1, 0.025, 3)).astype(np.float32)
        noise = rng.standard_normal((self.height, self.width, 3), np.float32) * np.float32(rng.uniform(0.5, 4.0))
        return Image.fromarray((np.asarray(image) * gain + noise).clip(0, 255).astype(np.uint8))

    def _colors(self, piece: Piece, pose: Pose, box: tuple[int, int, int, int]) -> tuple[int, ...] | Image.Image:
        """Return a piece's one color, or its colors at the canvas pixels of a box."""
        colors = np.array((piece.color, piece.second), np.float32)
        if piece.surface is None:  # it faces the viewer
            colors = to_uint8(colors * (self.light.around + self.light.direction[2] * self.light.color))
            if piece.pattern is None:
                return tuple(colors[0].tolist())
        x, y = self._frame_positions(pose, box)
        color = colors[0] if piece.pattern is None else np.where(piece.pattern(x, y)[..., None], colors[1], colors[0])
        if piece.surface is not None:
            light = self.light.in_frame(pose.angle)
            color = to_uint8(shade(color, piece.surface(piece.outline, x, y), light, piece.gloss, piece.glow))
        return Image.fromarray(color)

    def _frame_positions(self, pose: Pose, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """x and y in the thing's frame of the canvas pixels of a box; they broadcast to (h, w)."""
        left, top, right, bottom = box
        across = ((np.arange(left, right, dtype=np.float32) + 0.5) / self.scale - np.float32(pose.x))[None, :]
        down = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / self.scale - np.float32(pose.y))[:, None]
        x, y = across / np.float32(pose.size), down / np.float32(pose.size)
        if pose.angle:
            cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
            x, y = cosine * x + sine * y, cosine * y - sine * x
        return x, y


def to_uint8(colors: np.ndarray) -> np.ndarray:
    """Convert colors in 0..1 to 0..255."""
    return (colors * 255 + 0.5).clip(0, 255).astype(np.uint8)


def to_bytes(color: Color) -> tuple[int, ...]:
    """Return one color as Pillow takes it."""
    return tuple(to_uint8(np.asarray(color)).tolist())


def to_jpeg(image: Image.Image) -> bytes:
    """Return the bytes of a JPEG file."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=90)
    return file.getvalue()


def scattered(rng: Rng, count: int, random_pose: Callable[[], Pose]) -> list[Pose]:
    """Return up to `count` random poses, of which no two overlap by more than a little."""
    poses: list[Pose] = []
    for _ in range(30 * count):
        new, apart = random_pose(), rng.uniform(0.6, 1.0)
        if all(math.hypot(new.x - old.x, new.y - old.y) > apart * (new.size + old.size) for old in poses):
            poses.append(new)
        if len(poses) == count:
            break
    return poses
