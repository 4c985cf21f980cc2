"""Where a scene takes place: outdoors, in a street, in a room, before a backdrop. No torch.

Each place paints a whole canvas and sets its light and where its ground begins.
"""

import numpy as np
from PIL import Image

from detr.sample import clutter
from detr.sample.canvas import Canvas, Piece, Pose, to_bytes, to_uint8
from detr.sample.geometry import ellipse, points, rectangle
from detr.sample.paints import CREAM, DARK, WHITE, Color, Rng, mixed, pick_color
from detr.sample.surfaces import bricks, dots, lamp_light, stripes

# Color at the top, color at the horizon, color of the clouds, color of the sun's light.
_SKIES = (
    ((0.22, 0.52, 0.86), (0.74, 0.89, 0.97), (1.0, 1.0, 1.0), (0.76, 0.73, 0.66)),
    ((0.35, 0.66, 0.90), (0.90, 0.95, 0.95), (1.0, 1.0, 1.0), (0.74, 0.72, 0.68)),
    ((0.33, 0.40, 0.70), (0.99, 0.76, 0.58), (1.0, 0.86, 0.78), (0.86, 0.62, 0.46)),
    ((0.55, 0.42, 0.70), (0.98, 0.68, 0.66), (1.0, 0.84, 0.86), (0.84, 0.60, 0.52)),
)
_LAWNS = np.array(((0.45, 0.66, 0.28), (0.36, 0.58, 0.26), (0.60, 0.66, 0.32)))
_SAND, _SEA, _FOAM = np.array(((0.93, 0.83, 0.62), (0.16, 0.48, 0.66), (0.80, 0.93, 0.95)))
_PAVEMENT = np.array((0.60, 0.59, 0.59))
_FLOORS = np.array(((0.72, 0.52, 0.34), (0.55, 0.38, 0.26), (0.80, 0.74, 0.66), (0.56, 0.58, 0.62)))
_FRONTS = np.array(((0.66, 0.33, 0.26), (0.78, 0.60, 0.46), (0.52, 0.50, 0.50), (0.85, 0.80, 0.72)))


def paint_background(canvas: Canvas, rng: Rng) -> None:
    """Paint one of all the places."""
    (_outdoors, _outdoors, _outdoors, _walls, _walls, _walls, _backdrop)[rng.integers(7)](canvas, rng)


def _outdoors(canvas: Canvas, rng: Rng) -> None:
    """Sky with clouds; as a rule above a lawn with trees before hills, or above a beach."""
    canvas.outdoors = canvas.open_sky = True
    top, low, white, sunlight = _SKIES[rng.integers(len(_SKIES))]
    horizon = canvas.height * (rng.uniform(0.45, 0.7) if rng.random() < 0.75 else 1)
    _gradient(canvas, 0, horizon, top, low)
    if rng.random() < 0.3:
        sun = Pose(rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.1, 0.5) * horizon, 0.07 * canvas.short)
        for size, opacity in ((1.9, 0.16), (1.5, 0.16), (1, 1)):
            canvas.paint([Piece(ellipse(size, size), (1, 0.95, 0.7), opacity=opacity)], sun)
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0.05, 0.75) * horizon
        puffs = clutter.cloud(rng, mixed(white, low, rng.uniform(0, 0.35)))
        canvas.paint(puffs, Pose(x, y, canvas.short * rng.uniform(0.12, 0.34)))
    canvas.light = lamp_light(rng, sunlight, (0.45, 0.47, 0.53))
    if horizon < canvas.height:
        canvas.ground = horizon
        (_paint_lawn, _paint_lawn, _paint_beach)[rng.integers(3)](canvas, rng)


def _paint_lawn(canvas: Canvas, rng: Rng) -> None:
    """Grass before hills, with trees; its blades are larger near the viewer."""
    lawn, deep = pick_color(rng, _LAWNS), canvas.height - canvas.ground
    x = np.linspace(-0.02, 1.02, 50)
    for share in (0.0, 0.5, 1.0)[int(rng.integers(0, 3)) :]:
        waves = sum(np.sin(x * rng.uniform(3, 9) * k + rng.uniform(0, 7)) / k for k in (1, 2, 3))
        y = canvas.ground - canvas.height * (0.16 - 0.1 * share) * (0.9 + 0.45 * waves)
        ridge = np.stack([x * canvas.width, y], 1)
        hills = [*ridge, (9999, canvas.ground), (-9999, canvas.ground)]
        canvas.paint([Piece(np.array(hills), mixed((0.60, 0.72, 0.74), (0.36, 0.55, 0.32), share))])
    _paint_ground(canvas, rng, lawn)
    for depth in np.sort(rng.uniform(0, 0.2, int(rng.integers(1, 6)))):
        kind = (clutter.tree, clutter.tree, clutter.bush)[rng.integers(3)]
        foot = (rng.uniform(0, canvas.width), canvas.ground + depth * deep)
        canvas.stand(kind(rng), foot, canvas.height * rng.uniform(0.07, 0.15))
    for depth in rng.uniform(0.05, 1, 60):
        x, y, tall = rng.uniform(0, canvas.width), canvas.ground + depth * deep, 2 + 5 * depth
        tone = mixed(lawn, (DARK, CREAM)[rng.integers(2)], 0.4)
        canvas.line(points((x, y), (x + rng.uniform(-2, 2), y - tall)), tone, 0.6 + 0.6 * depth)


def _paint_beach(canvas: Canvas, rng: Rng) -> None:
    """Sand before the sea."""
    sea, canvas.ground = canvas.ground, canvas.ground + canvas.height * rng.uniform(0.08, 0.15)
    _gradient(canvas, sea, canvas.ground, _SEA, mixed(_SEA, _FOAM, 0.6))
    _paint_ground(canvas, rng, _SAND)
    x = np.linspace(0, canvas.width, 30)
    canvas.line(np.stack([x, canvas.ground + 2.5 * np.sin(x / 17)], 1), WHITE, 3)


def _walls(canvas: Canvas, rng: Rng) -> None:
    """A papered wall above a floor, or a brick front above a pavement, with windows and the like on it."""
    canvas.outdoors, canvas.ground = rng.random() < 0.35, canvas.height * rng.uniform(0.68, 0.87)
    step = rng.uniform(12, 30)
    if not canvas.outdoors:
        wall, floor = mixed(pick_color(rng), CREAM, rng.uniform(0.35, 0.85)), pick_color(rng, _FLOORS)
        second = mixed(wall, pick_color(rng) if rng.random() < 0.5 else WHITE, rng.uniform(0.15, 0.4))
        pattern = (None, None, stripes(0, 1 / step), dots(1 / step, 0.22), dots(2 / step, 0.16))[rng.integers(5)]
    else:
        wall, floor, pattern = pick_color(rng, _FRONTS), _PAVEMENT, bricks(2.5 / step)
        second = mixed(wall, CREAM, 0.4)
    canvas.paint([Piece(rectangle(0, 0, canvas.width, canvas.ground), wall, pattern=pattern, second=second)])
    canvas.light = lamp_light(rng, (0.66, 0.63, 0.58), (0.45, 0.45, 0.47))
    _paint_floor(canvas, rng, floor)
    for slot in rng.permutation(4)[: int(rng.integers(0, 5))]:
        kind = clutter.window if canvas.outdoors or rng.random() < 0.5 else clutter.disc
        size = rng.uniform(0.13, 0.18) if kind is clutter.window else rng.uniform(0.05, 0.1)
        x, y = (slot + rng.uniform(0.4, 0.6)) / 4 * canvas.width, 0.36 if canvas.outdoors else rng.uniform(0.22, 0.5)
        spot = Pose(x, y * canvas.ground, size * canvas.short)
        canvas.shadow(spot.place(ellipse(0.75, 0.85)) - canvas.light.direction[:2] * 4, 2.5, 0.35)
        canvas.paint(kind(rng), spot)


def _paint_floor(canvas: Canvas, rng: Rng, color: np.ndarray) -> None:
    """Tiles, boards or one piece, below a skirting board or a kerb."""
    _paint_ground(canvas, rng, color)
    canvas.line(points((0, canvas.ground - 2), (canvas.width, canvas.ground - 2)), (WHITE, DARK)[rng.integers(2)], 5)
    kind = rng.integers(3)
    for x in np.arange(-1.5, 2.5, 0.15) * canvas.width if kind < 2 else ():
        canvas.line(points((0.27 * canvas.width + 0.45 * x, canvas.ground), (x, canvas.height)), color * 0.66, 0.9)
    for y in canvas.ground + np.linspace(0, 1, 6) ** 1.6 * (canvas.height - canvas.ground) if kind < 1 else ():
        canvas.line(points((0, y), (canvas.width, y)), color * 0.66, 0.9)


def _backdrop(canvas: Canvas, rng: Rng) -> None:
    """A plain backdrop, bright in the middle, with confetti; or the dark, with far lights out of focus."""
    dark = rng.random() < 0.5
    color = mixed(pick_color(rng), (0.1, 0.1, 0.2) if dark else CREAM, rng.uniform(0.5, 0.8))
    y, x = np.mgrid[0:48, 0:48].astype(np.float32) / 48
    distance = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.25, 0.6))[..., None]
    small = Image.fromarray(to_uint8(color * (1.1 - 0.55 * distance)))
    canvas.image.paste(small.resize(canvas.image.size, Image.Resampling.BICUBIC))
    for _ in range(int(rng.integers(14, 40))):
        size, opacity = (rng.uniform(0.015, 0.08), rng.uniform(0.2, 0.6)) if dark else (rng.uniform(0.003, 0.009), 1)
        disc = Piece(ellipse(1, 1), mixed(pick_color(rng), (1, 0.85, 0.55), 0.5 if dark else 0), opacity=opacity)
        canvas.paint([disc], Pose(*rng.uniform(0, (canvas.width, canvas.height)), size * canvas.short))
    canvas.light = lamp_light(rng, (0.70, 0.66, 0.60), (0.42, 0.42, 0.45))


def _gradient(canvas: Canvas, top: float, bottom: float, first: Color, last: Color) -> None:
    """Fill from `top` to `bottom` (pixels), the whole width, from one color to another."""
    low, high = round(top * canvas.scale), round(bottom * canvas.scale)
    share = np.linspace(0, 1, max(high - low, 1))[:, None, None]
    column = Image.fromarray(to_uint8(mixed(first, last, share)))
    canvas.image.paste(column.resize((canvas.image.width, column.height), Image.Resampling.NEAREST), (0, low))


def _paint_ground(canvas: Canvas, rng: Rng, color: np.ndarray) -> None:
    """Fill from where the ground begins to the lower border, unevenly, brighter far away."""
    _gradient(canvas, canvas.ground, canvas.height, color * 1.05, color * 0.85)
    low = round(canvas.ground * canvas.scale)
    noise = Image.fromarray((rng.random((20, 40)) * 80).astype(np.uint8))
    mask = noise.resize((canvas.image.width, canvas.image.height - low), Image.Resampling.BILINEAR)
    canvas.image.paste(to_bytes(color * 0.65), (0, low), mask)
