"""The picture while it is painted: its colors, and which thing is seen at each pixel. No torch.

Positions are in pixels of the final picture; the canvas holds `scale` times as many, so that edges come out smooth.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from detr.sample.geometry import turned
from detr.sample.surfaces import Color, Light, Pattern, Surface, shade

NOBODY = 0  # owner of what belongs to no annotated thing


class Pose(NamedTuple):
    """Where a thing stands: its frame's origin, the pixels per unit, and how it is turned."""

    x: float
    y: float
    size: float
    angle: float = 0.0  # radians, clockwise
    mirror: bool = False

    def place(self, outline: np.ndarray) -> np.ndarray:
        """Map (N, 2) in the thing's frame to (N, 2) in pixels."""
        if self.mirror:
            outline = outline * (-1, 1)
        return turned(outline, self.angle, self.x, self.y, self.size)


class Piece(NamedTuple):
    """One painted area of a thing, in the thing's frame."""

    outline: np.ndarray  # (N, 2)
    color: Color
    surface: Surface | None = None  # None: paper, with a touch of light across it
    gloss: float = 0.0
    pattern: Pattern | None = None
    second: Color = (1.0, 1.0, 1.0)  # where the pattern is
    hole: np.ndarray | None = None
    opacity: float = 1.0
    glow: float = 0.0


class Canvas:
    """A picture under paint.

    Args: height and width in pixels; how many canvas pixels make one pixel along a side.
    """

    def __init__(self, size_hw: tuple[int, int], scale: int) -> None:
        self.height, self.width = size_hw
        self.scale = scale
        wide, high = self.width * scale, self.height * scale
        self.image = Image.new("RGB", (wide, high))
        self._owner = Image.new("L", (wide, high), NOBODY)
        self._pen, self._owner_pen = ImageDraw.Draw(self.image), ImageDraw.Draw(self._owner)

    def paint(self, pieces: Sequence[Piece], pose: Pose, light: Light, owner: int | None = NOBODY) -> None:
        """Paint a thing over what is there. With `owner` None it hides nothing: for what is thin."""
        for piece in pieces:
            outline = pose.place(piece.outline) * self.scale
            box = self._clipped_box(outline)
            if box is None:
                continue
            colors = self._colors(piece, pose, light, box)
            if colors.ndim == 1 and piece.opacity == 1 and piece.hole is None:
                flat = outline.ravel().tolist()
                self._pen.polygon(flat, fill=to_bytes(colors))
                if owner is not None:
                    self._owner_pen.polygon(flat, fill=owner)
                continue
            mask = self._mask(outline, box)
            if piece.hole is not None:
                ImageDraw.Draw(mask).polygon(_shifted(pose.place(piece.hole) * self.scale, box), fill=0)
            if owner is not None:
                self._owner.paste(owner, box, mask)
            if piece.opacity < 1:
                mask = mask.point([round(piece.opacity * value) for value in range(256)])
            if colors.ndim == 1:
                self.image.paste(to_bytes(colors), box, mask)
            else:
                self.image.paste(Image.fromarray(to_uint8(colors)), box, mask)

    def paste(self, image: Image.Image, centre_xy: tuple[float, float], owner: int = NOBODY) -> None:
        """Paste an RGBA image, in canvas pixels, over what is there, its centre at `centre_xy`, in pixels."""
        left = round(centre_xy[0] * self.scale - image.width / 2)
        top = round(centre_xy[1] * self.scale - image.height / 2)
        alpha = image.getchannel("A")
        self.image.paste(image.convert("RGB"), (left, top), alpha)
        self._owner.paste(owner, (left, top), alpha.point(lambda value: 255 * (value > 127)))

    def fill(self, image: Image.Image, outlines: Sequence[Sequence[np.ndarray]]) -> None:
        """Take an RGB image of the canvas's size as background; outlines number i, in its pixels, are owner i + 1's."""
        self.image.paste(image)
        for owner, polygons in enumerate(outlines, start=1):
            for polygon in polygons:
                self._owner_pen.polygon(polygon.ravel().tolist(), fill=owner)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        """A thin line over everything, of `width` pixels; it hides nothing from an annotator."""
        thick = max(1, round(width * self.scale))
        self._pen.line((points * self.scale).ravel().tolist(), to_bytes(color), thick, "curve")

    def shadow(self, outline: np.ndarray, blur: float, strength: float, color: Color = (0.05, 0.05, 0.12)) -> None:
        """Darken the area of an outline, given in pixels, with edges as soft as `blur` pixels."""
        coarse = 4  # soft shadows need no detail: a sixteenth of the work
        margin = 3 * blur
        left, top = np.floor((outline.min(0) - margin) * self.scale).astype(int)
        wide, high = np.ceil((np.ptp(outline, 0) + 2 * margin) * self.scale / coarse).astype(int)
        small = Image.new("L", (int(wide), int(high)))
        inside = (outline * self.scale - (left, top)) / coarse
        ImageDraw.Draw(small).polygon(inside.ravel().tolist(), fill=round(255 * strength))
        small = small.filter(ImageFilter.GaussianBlur(float(blur) * self.scale / coarse))
        mask = small.resize((int(wide) * coarse, int(high) * coarse), Image.Resampling.BILINEAR)
        self.image.paste(to_bytes(color), (int(left), int(top)), mask)

    def visible(self, owner: int) -> np.ndarray:
        """Return (scale * height, scale * width) bool: where the thing is seen."""
        return np.asarray(self._owner) == owner

    def _clipped_box(self, outline: np.ndarray) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of the part on the canvas, in canvas pixels; None if there is none."""
        (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        left, top = max(math.floor(left), 0), max(math.floor(top), 0)
        right, bottom = min(math.ceil(right) + 1, self.image.width), min(math.ceil(bottom) + 1, self.image.height)
        return (left, top, right, bottom) if right > left and bottom > top else None

    def _mask(self, outline: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(mask).polygon(_shifted(outline, box), fill=255)
        return mask

    def _colors(self, piece: Piece, pose: Pose, light: Light, box: tuple[int, int, int, int]) -> np.ndarray:
        """Return (h, w, 3) of the box, or (3,) where the piece has one color all over."""
        albedo = np.asarray(piece.color, np.float32)
        if piece.surface is None and piece.pattern is None:
            return albedo * _paper_light(light)
        x, y = self._frame_positions(pose, box)
        if piece.pattern is not None:
            share = piece.pattern(x, y)[..., None]
            albedo = albedo + share * (np.asarray(piece.second, np.float32) - albedo)
        if piece.surface is None:
            return albedo * _paper_light(light)
        normal_x, normal_y = piece.surface(x, y)
        if pose.mirror:
            normal_x = -normal_x
        cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
        turned_x, turned_y = cosine * normal_x - sine * normal_y, sine * normal_x + cosine * normal_y
        return shade(albedo, turned_x, turned_y, light, piece.gloss, piece.glow)

    def _frame_positions(self, pose: Pose, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """x and y in the thing's frame of the canvas pixels of a box, (h, w) each."""
        left, top, right, bottom = box
        across = ((np.arange(left, right, dtype=np.float32) + 0.5) / self.scale - np.float32(pose.x))[None, :]
        down = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / self.scale - np.float32(pose.y))[:, None]
        cosine, sine = np.float32(np.cos(pose.angle) / pose.size), np.float32(np.sin(pose.angle) / pose.size)
        x, y = cosine * across + sine * down, cosine * down - sine * across
        return (-x if pose.mirror else x), y


def silhouette_area(pieces: Sequence[Piece], pose: Pose) -> int:
    """Square pixels that a thing covers, also those outside the picture or behind others."""
    outlines = [pose.place(piece.outline) for piece in pieces]
    together = np.concatenate(outlines)
    low = together.min(0)
    wide, high = (np.ceil(together.max(0) - low) + 1).astype(int).tolist()
    mask = Image.new("L", (wide, high))
    pen = ImageDraw.Draw(mask)
    for piece, outline in zip(pieces, outlines, strict=True):
        pen.polygon((outline - low).ravel().tolist(), fill=1)
        if piece.hole is not None:
            pen.polygon((pose.place(piece.hole) - low).ravel().tolist(), fill=0)
    return mask.histogram()[1]


def to_uint8(colors: np.ndarray) -> np.ndarray:
    """Convert colors in 0..1 to 0..255."""
    return (colors * 255 + 0.5).clip(0, 255).astype(np.uint8)


def to_bytes(color: Color) -> tuple[int, int, int]:
    """Return one color as Pillow takes it."""
    red, green, blue = (min(max(int(share * 255 + 0.5), 0), 255) for share in np.asarray(color).tolist())
    return red, green, blue


def _paper_light(light: Light) -> np.ndarray:
    """Return what reaches a sheet that faces the viewer."""
    return (light.around + light.direction[2] * light.color).astype(np.float32)


def _shifted(outline: np.ndarray, box: tuple[int, int, int, int]) -> list[float]:
    return (outline - box[:2]).ravel().tolist()
