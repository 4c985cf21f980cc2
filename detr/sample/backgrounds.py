"""Where a scene takes place: sky, park, beach, room, street, studio, night. No torch.

Each function paints a whole canvas and says what light there is and where the ground begins.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.sample import clutter
from detr.sample.canvas import Canvas, Piece, Pose, to_bytes, to_uint8
from detr.sample.geometry import band, bezier, ellipse, points, rectangle
from detr.sample.surfaces import PAINTS, Color, Light, mixed, pick_color

Rng = np.random.Generator
_CREAM = (0.93, 0.90, 0.84)
_FLAT = Light(np.array((0, 0, 1.0)), np.zeros(3), np.ones(3))  # painted colors are the ones seen


class Setting(NamedTuple):
    """What a scene has to know of its background."""

    place: str
    light: Light
    ground: float | None  # y in pixels of where the ground meets what stands behind; None: there is no ground


def paint_background(canvas: Canvas, rng: Rng) -> Setting:
    """Paint one of all the places."""
    place = (sky, park, park, beach, room, room, room, street, street, studio, night)[rng.integers(11)]
    return place(canvas, rng)


def sun_light(rng: Rng, color: Color, around: Color) -> Light:
    """Return a lamp or sun above, to the left or right of the viewer's shoulder."""
    direction = np.array((rng.choice((-1, 1)) * rng.uniform(0.25, 0.6), -rng.uniform(0.45, 0.75), 0.65))
    return Light(direction / np.linalg.norm(direction), np.asarray(color), np.asarray(around))


# ------------------------------------------------------------------------------------------------------------ outdoors

# Color at the top, color at the horizon, color of the clouds, color of the sun's light.
_SKIES = (
    ((0.22, 0.52, 0.86), (0.74, 0.89, 0.97), (1.0, 1.0, 1.0), (0.76, 0.73, 0.66)),
    ((0.35, 0.66, 0.90), (0.90, 0.95, 0.95), (1.0, 1.0, 1.0), (0.74, 0.72, 0.68)),
    ((0.33, 0.40, 0.70), (0.99, 0.76, 0.58), (1.0, 0.86, 0.78), (0.86, 0.62, 0.46)),
    ((0.52, 0.62, 0.72), (0.86, 0.88, 0.89), (0.93, 0.94, 0.95), (0.52, 0.52, 0.53)),
    ((0.55, 0.42, 0.70), (0.98, 0.68, 0.66), (1.0, 0.84, 0.86), (0.84, 0.60, 0.52)),
)


def _paint_sky(canvas: Canvas, rng: Rng, horizon: float) -> Light:
    """Return a sky down to the horizon (pixels) with clouds, and a sun now and then."""
    top, low, white, sunlight = (np.array(color) for color in _SKIES[rng.integers(len(_SKIES))])
    gradient(canvas, 0, horizon, top, low)
    light = sun_light(rng, sunlight, (0.45, 0.47, 0.53))
    short = min(canvas.width, canvas.height)
    if rng.random() < 0.3:
        side = 0.5 + np.sign(light.direction[0]) * rng.uniform(0.15, 0.42)
        canvas.paint(
            clutter.sun(rng),
            Pose(side * canvas.width, rng.uniform(0.1, 0.5) * horizon, short * rng.uniform(0.05, 0.1)),
            _FLAT,
        )
    for _ in range(int(rng.integers(0, 6))):
        size = short * rng.uniform(0.12, 0.34)
        spot = Pose(rng.uniform(0, canvas.width), rng.uniform(0.05, 0.75) * horizon, size, 0, rng.random() < 0.5)
        canvas.paint(clutter.cloud(rng, mixed(white, low, rng.uniform(0, 0.35))), spot, _FLAT)
    for _ in range(int(rng.choice((0, 0, 2, 4)))):
        spot = Pose(rng.uniform(0, canvas.width), rng.uniform(0.1, 0.7) * horizon, short * rng.uniform(0.015, 0.035))
        canvas.paint(clutter.bird(rng), spot, light)
    return light


def _paint_hills(canvas: Canvas, rng: Rng, horizon: float, far: Color, near: Color, count: int) -> None:
    """Ranges of hills above the horizon, each nearer one lower and greener."""
    across = np.linspace(-0.02, 1.02, 50) * canvas.width
    for number in range(count):
        share = (number + 1) / count
        height = canvas.height * (0.16 - 0.10 * share)
        waves = sum(np.sin(across / canvas.width * rng.uniform(3, 9) * k + rng.uniform(0, 7)) / k for k in (1, 2, 3))
        crest = np.stack([across, horizon - height * (0.9 + 0.45 * waves)], 1)
        outline = np.concatenate([crest, points((2 * canvas.width, horizon + 2), (-canvas.width, horizon + 2))])
        canvas.paint([Piece(outline, mixed(far, near, share))], Pose(0, 0, 1), _FLAT)


def _paint_skyline(canvas: Canvas, rng: Rng, horizon: float, color: Color) -> None:
    """Tower blocks far away, with rows of windows."""
    x = -5.0
    while x < canvas.width:
        wide, high = canvas.width * rng.uniform(0.05, 0.12), canvas.height * rng.uniform(0.08, 0.28)
        tone = mixed(color, (0.35, 0.38, 0.5), rng.uniform(0.2, 0.6))
        pieces = [Piece(rectangle(x, horizon - high, x + wide, horizon + 1), tone)]
        for column in np.arange(x + 3, x + wide - 4, 5.5):
            for row in np.arange(horizon - high + 4, horizon - 5, 7):
                if rng.random() < 0.6:
                    pieces.append(Piece(rectangle(column, row, column + 2.2, row + 3), mixed(tone, _CREAM, 0.35)))
        canvas.paint(pieces, Pose(0, 0, 1), _FLAT)
        x += wide * rng.uniform(0.9, 1.4)


def sky(canvas: Canvas, rng: Rng) -> Setting:
    """High up: sky with clouds, and perhaps hills or a town at the lower edge."""
    light = _paint_sky(canvas, rng, canvas.height)
    if rng.random() < 0.4:
        if rng.random() < 0.4:
            _paint_skyline(canvas, rng, canvas.height * 0.95, (0.72, 0.78, 0.86))
        _paint_hills(canvas, rng, canvas.height, (0.55, 0.68, 0.66), (0.32, 0.52, 0.28), 2)
    return Setting("sky", light, None)


def park(canvas: Canvas, rng: Rng) -> Setting:
    """Return a lawn before trees, hills or a town."""
    horizon = canvas.height * rng.uniform(0.5, 0.7)
    light = _paint_sky(canvas, rng, horizon)
    if rng.random() < 0.35:
        _paint_skyline(canvas, rng, horizon, (0.72, 0.78, 0.86))
    else:
        _paint_hills(canvas, rng, horizon, (0.60, 0.72, 0.74), (0.40, 0.58, 0.36), int(rng.integers(1, 4)))
    lawn = np.array(((0.45, 0.66, 0.28), (0.36, 0.58, 0.26), (0.60, 0.66, 0.32))[rng.integers(3)])
    gradient(canvas, horizon, canvas.height, mixed(lawn, _CREAM, 0.15), lawn * 0.78)
    mottle(canvas, rng, horizon, lawn * 0.6, 26, 0.35)
    if rng.random() < 0.4:
        _paint_path(canvas, rng, horizon)
    for _ in range(int(rng.integers(1, 6))):
        size = canvas.height * rng.uniform(0.12, 0.3)
        kind = (clutter.tree, clutter.conifer, clutter.bush)[rng.choice(3, p=(0.55, 0.25, 0.2))]
        spot = Pose(rng.uniform(0, canvas.width), horizon - size * 0.93 + rng.uniform(0, 0.06) * canvas.height, size)
        canvas.shadow(spot.place(ellipse(0.5, 0.07, 0.1, 0.98)), 2, 0.35)
        canvas.paint(kind(rng), spot, light)
    _paint_meadow(canvas, rng, horizon, lawn, light)
    return Setting("park", light, horizon)


def _paint_path(canvas: Canvas, rng: Rng, horizon: float) -> None:
    far, near = rng.uniform(0.2, 0.8) * canvas.width, rng.uniform(0, 1) * canvas.width
    line = bezier(
        points((far, horizon)),
        points((far + rng.uniform(-60, 60), horizon + 0.1 * canvas.height)),
        points((near, canvas.height * 0.85)),
        points((near, canvas.height + 10)),
        24,
    )
    outline = band(line, np.linspace(0.03, 0.3, 24) ** 1.2 * canvas.width)
    canvas.paint([Piece(outline, (0.80, 0.72, 0.58))], Pose(0, 0, 1), _FLAT)


def _paint_meadow(canvas: Canvas, rng: Rng, horizon: float, lawn: Color, light: Light) -> None:
    """Blades of grass, larger near the viewer, and flowers."""
    for _ in range(50):
        depth = rng.uniform(0.05, 1)
        x, y = rng.uniform(0, canvas.width), horizon + depth * (canvas.height - horizon)
        tall, tone = 2 + 5 * depth, mixed(lawn, ((0.2, 0.35, 0.12), (0.8, 0.9, 0.5))[rng.integers(2)], 0.4)
        canvas.line(points((x, y), (x + rng.uniform(-2, 2), y - tall)), tone, 0.6 + 0.6 * depth)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(4, 14))):
            depth = rng.uniform(0.15, 1)
            y = horizon + depth * (canvas.height - horizon)
            canvas.paint(clutter.flower(rng), Pose(rng.uniform(0, canvas.width), y, 2 + 5 * depth), light)


def beach(canvas: Canvas, rng: Rng) -> Setting:
    """Sand before the sea, with parasols."""
    horizon = canvas.height * rng.uniform(0.42, 0.55)
    shore = horizon + canvas.height * rng.uniform(0.08, 0.15)
    light = _paint_sky(canvas, rng, horizon)
    gradient(canvas, horizon, shore, np.array((0.16, 0.48, 0.66)), np.array((0.42, 0.76, 0.78)))
    for _ in range(14):
        x, y = rng.uniform(0, canvas.width), rng.uniform(horizon + 2, shore)
        canvas.line(points((x, y), (x + rng.uniform(6, 22), y)), (0.75, 0.90, 0.93), 0.8)
    sand = np.array((0.93, 0.83, 0.62)) * rng.uniform(0.9, 1.02)
    gradient(canvas, shore, canvas.height, sand, sand * 0.86)
    mottle(canvas, rng, shore, sand * 0.72, 40, 0.3)
    across = np.linspace(0, 1, 30) * canvas.width
    surf = np.stack([across, shore + 2.5 * np.sin(across / 17 + rng.uniform(0, 6))], 1)
    canvas.line(surf, (0.97, 0.98, 0.98), 3)
    for _ in range(int(rng.integers(0, 3))):
        size = canvas.height * rng.uniform(0.1, 0.2)
        spot = Pose(rng.uniform(0, canvas.width), shore + rng.uniform(0, 0.1) * canvas.height - size * 0.9, size)
        canvas.shadow(spot.place(ellipse(0.8, 0.1, 0.2, 1)), 2, 0.3)
        canvas.paint(clutter.parasol(rng), spot, light)
    return Setting("beach", light, shore)


# ------------------------------------------------------------------------------------------------------------- indoors


def room(canvas: Canvas, rng: Rng) -> Setting:
    """Return a papered wall and a floor, with a window, pictures, a lamp."""
    floor = canvas.height * rng.uniform(0.68, 0.86)
    wall = mixed(pick_color(rng), _CREAM, rng.uniform(0.35, 0.85))
    gradient(canvas, 0, floor, mixed(wall, (1, 1, 1), 0.12), mixed(wall, (0.25, 0.2, 0.25), 0.1))
    _paint_wallpaper(canvas, rng, floor, wall)
    light = sun_light(rng, (0.62, 0.60, 0.56), (0.47, 0.46, 0.47))
    _paint_floor(canvas, rng, floor)
    base = np.array(((0.95, 0.94, 0.91), (0.45, 0.32, 0.24))[rng.integers(2)])
    canvas.paint([Piece(rectangle(-1, floor - 7, canvas.width + 1, floor), base)], Pose(0, 0, 1), light)
    canvas.line(points((0, floor), (canvas.width, floor)), base * 0.55, 1)
    _hang_on_wall(canvas, rng, floor, light)
    if rng.random() < 0.35:
        size = canvas.height * rng.uniform(0.06, 0.11)
        canvas.paint(
            clutter.pendant_lamp(rng),
            Pose(rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(1.2, 2.6) * size, size),
            light,
        )
    return Setting("room", light, floor)


def _hang_on_wall(canvas: Canvas, rng: Rng, floor: float, light: Light) -> None:
    """A window, pictures, a clock, plates: side by side, so that they do not overlap."""
    kinds = (
        clutter.window,
        clutter.window,
        clutter.picture,
        clutter.picture,
        clutter.clock,
        clutter.plate,
        clutter.pinwheel,
    )
    slots = rng.permutation(4)[: int(rng.integers(0, 4))]
    for slot in slots:
        kind = kinds[rng.integers(len(kinds))]
        size = min(canvas.width, floor) * (
            rng.uniform(0.15, 0.24) if kind is clutter.window else rng.uniform(0.06, 0.12)
        )
        spot = Pose((slot + rng.uniform(0.4, 0.6)) / 4 * canvas.width, rng.uniform(0.22, 0.5) * floor, size)
        canvas.shadow(spot.place(ellipse(0.8, 0.85)) - light.direction[:2] * 3, 2.5, 0.3)
        canvas.paint(kind(rng), spot, light)


def _paint_wallpaper(canvas: Canvas, rng: Rng, floor: float, wall: np.ndarray) -> None:
    """Nothing, stripes, dots, diamonds or panels."""
    tone = mixed(wall, (pick_color(rng), np.ones(3))[rng.integers(2)], rng.uniform(0.15, 0.4))
    kind, step = rng.integers(6), rng.uniform(12, 30)
    if kind == 1:
        for x in np.arange(0, canvas.width, step):
            canvas.paint([Piece(rectangle(x, 0, x + step / 2, floor), tone)], Pose(0, 0, 1), _FLAT)
    elif kind in (2, 3):
        motif = ellipse(0.24, 0.24, count=16) if kind == 2 else points((0, -0.32), (0.2, 0), (0, 0.32), (-0.2, 0))
        for row, y in enumerate(np.arange(step / 2, floor, step)):
            for x in np.arange(row % 2 * step / 2, canvas.width + step, step):
                canvas.paint([Piece(motif, tone)], Pose(x, y, step), _FLAT)
    elif kind == 4:
        rail = floor * 0.62
        canvas.paint([Piece(rectangle(0, rail, canvas.width, floor), tone)], Pose(0, 0, 1), _FLAT)
        for x in np.arange(step / 2, canvas.width, 1.5 * step):
            canvas.line(rectangle(x, rail + 8, x + step, floor - 14)[[0, 1, 2, 3, 0]], tone * 0.85, 1)
        canvas.line(points((0, rail), (canvas.width, rail)), tone * 0.75, 2)


def _paint_floor(canvas: Canvas, rng: Rng, floor: float) -> None:
    """Boards or tiles in perspective, or a carpet."""
    tones = ((0.72, 0.52, 0.34), (0.55, 0.38, 0.26), (0.80, 0.74, 0.66), (0.56, 0.58, 0.62))
    color = np.array(tones[rng.integers(4)]) * rng.uniform(0.85, 1.1)
    gradient(canvas, floor, canvas.height, color * 0.82, color * 1.05)
    kind, middle = rng.integers(3), canvas.width / 2
    if kind < 2:
        for x in np.arange(-1.5, 2.5, 0.13) * canvas.width:
            canvas.line(points((middle + (x - middle) * 0.45, floor), (x, canvas.height + 2)), color * 0.66, 0.9)
    if kind == 1:
        for depth in np.linspace(0, 1, 6)[1:] ** 1.6:
            y = floor + depth * (canvas.height - floor)
            canvas.line(points((0, y), (canvas.width, y)), color * 0.66, 0.9)
    if kind == 2:
        mottle(canvas, rng, floor, color * 0.6, 60, 0.3)


def street(canvas: Canvas, rng: Rng) -> Setting:
    """Return a brick or plastered front above a pavement, with a street lamp or a traffic light."""
    kerb = canvas.height * rng.uniform(0.74, 0.88)
    bricks = ((0.66, 0.33, 0.26), (0.78, 0.60, 0.46), (0.52, 0.50, 0.50), (0.85, 0.80, 0.72))
    brick = np.array(bricks[rng.integers(4)]) * rng.uniform(0.9, 1.08)
    gradient(canvas, 0, kerb, brick, brick * 0.88)
    _paint_bricks(canvas, rng, kerb, brick)
    light = sun_light(rng, (0.70, 0.66, 0.60), (0.43, 0.44, 0.48))
    for x in np.arange(rng.uniform(0, 0.3), 1.1, rng.uniform(0.33, 0.5)) * canvas.width:
        size = canvas.height * rng.uniform(0.13, 0.16)
        spot = Pose(x, kerb * 0.36, size)
        if rng.random() < 0.6:
            canvas.shadow(spot.place(rectangle(-0.7, -0.9, 0.8, 1.0)), 2, 0.35)
            canvas.paint(clutter.window(rng), spot, light)
    gradient(canvas, kerb, canvas.height, np.array((0.62, 0.61, 0.60)), np.array((0.50, 0.50, 0.51)))
    mottle(canvas, rng, kerb, (0.3, 0.3, 0.32), 50, 0.25)
    for x in np.arange(-0.5, 1.6, 0.22) * canvas.width:
        canvas.line(points((x * 0.9 + 0.05 * canvas.width, kerb), (x, canvas.height)), (0.44, 0.44, 0.45), 1)
    canvas.line(points((0, kerb), (canvas.width, kerb)), (0.3, 0.3, 0.32), 1.5)
    if rng.random() < 0.6:
        kind, size = (clutter.lamp_post, clutter.traffic_light)[rng.integers(2)], canvas.height * rng.uniform(0.28, 0.4)
        canvas.paint(kind(rng), Pose(rng.uniform(0.05, 0.95) * canvas.width, kerb + 8 - size, size), light)
    return Setting("street", light, kerb)


def _paint_bricks(canvas: Canvas, rng: Rng, bottom: float, brick: np.ndarray) -> None:
    high = rng.uniform(6, 11)
    wide, mortar = high * rng.uniform(2, 2.6), mixed(brick, _CREAM, 0.4)
    for row, y in enumerate(np.arange(0, bottom, high)):
        for x in np.arange(row % 2 * wide / 2 - wide, canvas.width, wide):
            if rng.random() < 0.3:
                tone = brick * rng.uniform(0.82, 1.12)
                canvas.paint([Piece(rectangle(x, y, x + wide, min(y + high, bottom)), tone)], Pose(0, 0, 1), _FLAT)
            canvas.line(points((x, y), (x, min(y + high, bottom))), mortar, 0.8)
        canvas.line(points((0, y), (canvas.width, y)), mortar, 0.8)


def studio(canvas: Canvas, rng: Rng) -> Setting:
    """Return a plain backdrop, bright in the middle, with confetti now and then."""
    color = mixed(pick_color(rng), _CREAM, rng.uniform(0.1, 0.9))
    y, x = np.mgrid[0:48, 0:48].astype(np.float32) / 48
    distance = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.25, 0.6))[..., None]
    small = Image.fromarray(to_uint8(color * (1.1 - 0.55 * distance)))
    canvas.image.paste(small.resize(canvas.image.size, Image.Resampling.BICUBIC))
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(20, 70))):
            piece = Piece(rectangle(-1, -0.5, 1, 0.5), pick_color(rng))
            spot = Pose(
                rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), rng.uniform(1.5, 3.5), rng.uniform(0, 3)
            )
            canvas.paint([piece], spot, _FLAT)
    return Setting("studio", sun_light(rng, (0.68, 0.66, 0.63), (0.45, 0.45, 0.47)), None)


def night(canvas: Canvas, rng: Rng) -> Setting:
    """Return an evening out of focus: discs of far lights on dark, which nobody should take for anything near."""
    top = mixed(PAINTS[rng.integers(len(PAINTS))], (0.05, 0.06, 0.15), 0.72)
    gradient(canvas, 0, canvas.height, top, mixed(top, (0.36, 0.20, 0.26), 0.5))
    short = min(canvas.width, canvas.height)
    for _ in range(int(rng.integers(14, 40))):
        radius, color = short * rng.uniform(0.015, 0.08), mixed(pick_color(rng), (1.0, 0.85, 0.55), 0.5)
        spot = Pose(rng.uniform(0, canvas.width), rng.normal(0.5, 0.22) * canvas.height, radius)
        share = rng.uniform(0.2, 0.6)
        canvas.paint([Piece(ellipse(1, 1, count=24), color, opacity=share)], spot, _FLAT)
        canvas.line(spot.place(ellipse(1, 1, count=24))[[*range(24), 0]], mixed(top, color, min(1, share + 0.2)), 0.8)
    return Setting("night", sun_light(rng, (0.78, 0.66, 0.50), (0.30, 0.29, 0.38)), None)


# --------------------------------------------------------------------------------------------------------------- paint


def gradient(canvas: Canvas, top: float, bottom: float, first: np.ndarray, last: np.ndarray) -> None:
    """Fill from `top` to `bottom` (pixels), the whole width, from one color to another."""
    low, high = round(top * canvas.scale), round(bottom * canvas.scale)
    share = np.linspace(0, 1, max(high - low, 1))[:, None, None]
    column = Image.fromarray(to_uint8(first + share * (last - first)))
    canvas.image.paste(column.resize((canvas.image.width, column.height), Image.Resampling.NEAREST), (0, low))


def mottle(canvas: Canvas, rng: Rng, top: float, color: Color, cells: int, strength: float) -> None:
    """Uneven patches of a color from `top` (pixels) down, about `cells` of them along the width."""
    low = round(top * canvas.scale)
    high = canvas.image.height - low
    if high < 1:
        return
    noise = (rng.random((max(2, cells // 2), cells)) * 255 * strength).astype(np.uint8)
    mask = Image.fromarray(noise).resize((canvas.image.width, high), Image.Resampling.BILINEAR)
    canvas.image.paste(to_bytes(color), (0, low), mask)
