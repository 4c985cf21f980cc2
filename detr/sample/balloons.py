"""Party balloons: bodies, knots, strings, and how they hang together. No torch."""

from typing import NamedTuple

import numpy as np

from detr.sample.backgrounds import Setting
from detr.sample.canvas import Canvas, Piece, Pose
from detr.sample.geometry import bezier, ellipse, moved, points, smooth, turned
from detr.sample.surfaces import Color, Light, Pattern, dome, dots, mixed, on_ball, pick_color, stripes

Rng = np.random.Generator
_KNOT = points((0, 1.1))  # where the string is tied, in a balloon's frame


class Balloon(NamedTuple):
    """One balloon in its place."""

    pieces: list[Piece]
    pose: Pose
    string_end: np.ndarray | None  # (2,) pixels; None: no string
    string_color: Color


def balloon_pieces(rng: Rng, light: Light, angle: float) -> list[Piece]:
    """Return a balloon whose body reaches from -1 to 1 with its knot below; `angle` is how it will be turned."""
    color = pick_color(rng, vivid=rng.random() < 0.75)
    body = _body(rng)
    pattern: Pattern | None = None
    if rng.random() < 0.14:
        motif = (stripes(0, rng.choice((3, 4))), dots(rng.choice((4, 5)), 0.26), stripes(np.pi / 2, 4, 0.4))
        pattern = on_ball(motif[rng.integers(3)], rng.uniform(-0.5, 0.5))
    gloss, glow = rng.uniform(0.55, 1.0), rng.uniform(0.15, 0.55)
    opacity = rng.uniform(0.8, 0.93) if rng.random() < 0.15 else 1.0
    dark = mixed(color, (0.1, 0.05, 0.1), 0.22)
    low = body[:, 1].max()
    knot = points(
        (-0.05, low - 0.04),
        (0.05, low - 0.04),
        (0.035, low + 0.03),
        (0.095, low + 0.12),
        (-0.095, low + 0.12),
        (-0.035, low + 0.03),
    )
    pieces = [
        Piece(knot, dark, opacity=opacity),
        Piece(
            body,
            color,
            dome(body, rng.uniform(1.0, 1.25)),
            gloss,
            pattern,
            mixed(pick_color(rng), (1, 1, 1), 0.4),
            None,
            opacity,
            glow,
        ),
    ]
    return pieces + _reflections(rng, light, angle, body)


def _body(rng: Rng) -> np.ndarray:
    """Return the outline: a drop, egg or ball mostly, sometimes long or a heart."""
    kind = rng.random()
    if kind < 0.07:
        half = points(
            (0, -0.52), (0.28, -0.84), (0.68, -0.86), (0.95, -0.5), (0.88, -0.05), (0.5, 0.5), (0.12, 0.92), (0, 1)
        )
        return smooth(np.concatenate([half, (half[1:-1] * (-1, 1))[::-1]]), 5)
    wide = rng.uniform(0.42, 0.55) if kind < 0.14 else rng.uniform(0.76, 0.98)
    taper = rng.uniform(0.05, 0.42)
    turn = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    down = (1 - np.cos(turn)) / 2  # 0 at the top, 1 at the knot
    x = wide * np.sin(turn) * (1 - taper * down**2) * (1 + 0.25 * taper)
    return np.stack([x, -np.cos(turn)], 1)


def _reflections(rng: Rng, light: Light, angle: float, body: np.ndarray) -> list[Piece]:
    """Return the bright shape of a window or lamp where the light comes from, and a faint one across from it."""
    wide = body[:, 0].max()
    towards = turned(light.direction[None, :2], -angle)[0]  # the light in the balloon's frame
    centre = towards * (0.72 * wide, 0.72)
    white, kind = (1.0, 1.0, 1.0), rng.integers(4)
    lean = float(np.arctan2(*towards[::-1])) + np.pi / 2
    bounce = bezier(points((-0.5, 0)), points((-0.25, 0.2)), points((0.25, 0.2)), points((0.5, 0)), 12)
    crescent = np.concatenate([bounce, (bounce * (1, 0.55))[::-1]])
    far = -towards * (0.8 * wide, 0.8)
    pieces = [Piece(turned(crescent, lean + np.pi, *far, 0.62) * (0.94, 0.94), white, opacity=rng.uniform(0.08, 0.2))]
    if kind == 0:  # four panes
        for x in (-0.095, 0.095):
            for y in (-0.085, 0.085):
                pane = np.array(
                    [(x - 0.08, y - 0.07), (x + 0.08, y - 0.07), (x + 0.08, y + 0.07), (x - 0.08, y + 0.07)]
                )
                pieces.append(Piece(turned(pane + (0, -0.12) * pane[:, :1] ** 2, lean, *centre), white, opacity=0.62))
    elif kind < 3:
        pieces.append(Piece(turned(ellipse(0.2, 0.085), lean, *centre), white, opacity=rng.uniform(0.45, 0.85)))
    return pieces


# ------------------------------------------------------------------------------------------------------- in their place


def hung(canvas: Canvas, rng: Rng, setting: Setting, count: int, anchor: np.ndarray | None) -> list[Balloon]:
    """Balloons in their places, the far ones first.

    Args:
        canvas: for its size.
        rng: the scene's.
        setting: for light and ground.
        count: how many.
        anchor: (2,) pixels of where all strings end, such as a hand; None: they fly apart.
    """
    short = min(canvas.height, canvas.width)
    size = short * np.exp(rng.uniform(np.log(0.085), np.log(0.24)))
    size *= 1.25 if count < 3 else 0.95 if count > 5 else 1.1
    spots: list[tuple[float, float, float]] = []
    for _ in range(count):
        for _ in range(60):
            radius = size * rng.uniform(0.78, 1.25)
            x, y = _spot(canvas, rng, setting, radius, size * np.sqrt(count), anchor)
            if all(np.hypot(x - a, y - b) > rng.uniform(0.6, 1.0) * (radius + c) for a, b, c in spots):
                spots.append((x, y, radius))
                break
    spots.sort(key=lambda spot: spot[2])
    color = ((0.95, 0.95, 0.95), (0.25, 0.25, 0.28), pick_color(rng))[rng.integers(3)]
    return [_in_place(rng, setting, Pose(*spot), anchor, color) for spot in spots]


def _spot(
    canvas: Canvas, rng: Rng, setting: Setting, radius: float, spread: float, anchor: np.ndarray | None
) -> tuple[float, float]:
    """A centre in pixels: around a point above the anchor, or anywhere above the ground; a little may stick out."""
    if anchor is not None:
        x, y = rng.normal(0, 0.5, 2) * (spread, spread * 0.8) + anchor - (0, 1.2 * spread + 1.6 * radius)
    else:
        low = (
            canvas.height * 0.92 if setting.ground is None else setting.ground + 0.3 * (canvas.height - setting.ground)
        )
        x, y = rng.uniform(-0.02, 1.02) * canvas.width, rng.uniform(0.0, 1.0) * low
    inside = radius * (1.0 if rng.random() < 0.75 else 0.45)  # some are cut by the edge, by a third at most
    return float(np.clip(x, inside, canvas.width - inside)), float(np.clip(y, inside, canvas.height - inside))


def _in_place(rng: Rng, setting: Setting, pose: Pose, anchor: np.ndarray | None, color: Color) -> Balloon:
    if anchor is not None:
        away = np.array((pose.x, pose.y)) - anchor
        angle = float(np.arctan2(away[0], -away[1])) * 0.7 + rng.normal(0, 0.06)
        end: np.ndarray | None = anchor
    else:
        angle = rng.normal(0, 0.22)
        long = pose.size * rng.uniform(1.5, 4.5)
        end = np.array((pose.x + rng.normal(0, 0.25) * long, pose.y + pose.size + long))
        if rng.random() < 0.12:
            end = None
    pose = pose._replace(angle=angle)
    return Balloon(balloon_pieces(rng, setting.light, angle), pose, end, color)


def on_ground(canvas: Canvas, rng: Rng, setting: Setting, count: int) -> list[Balloon]:
    """Balloons that lie about on the ground, turned any way, the far ones first."""
    ground = setting.ground if setting.ground is not None else 0.6 * canvas.height
    size = min(canvas.height, canvas.width) * rng.uniform(0.11, 0.17)
    feet = np.sort(rng.uniform(0.15, 1.0, count))
    across = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count * canvas.width
    found = []
    for depth, x in zip(feet, across, strict=True):
        radius = size * (0.6 + 0.6 * depth)
        y = min(ground + depth * (canvas.height - ground), canvas.height + 0.2 * radius) - 0.9 * radius
        pose = Pose(float(x), float(y), float(radius), rng.uniform(-2.4, 2.4))
        found.append(Balloon(balloon_pieces(rng, setting.light, pose.angle), pose, None, (1, 1, 1)))
    return found


def paint_balloon(canvas: Canvas, rng: Rng, balloon: Balloon, light: Light, owner: int, grounded: bool) -> None:
    """Paint a balloon with its string or its shadow."""
    pose = balloon.pose
    if grounded:
        foot = (pose.x - light.direction[0] * 0.3 * pose.size, pose.y + 0.92 * pose.size)
        canvas.shadow(ellipse(0.8 * pose.size, 0.14 * pose.size, *foot), 2.5, 0.45)
    if balloon.string_end is not None:
        canvas.line(
            string(rng, pose.place(_KNOT)[0], balloon.string_end, pose.size),
            balloon.string_color,
            rng.uniform(0.6, 1.1),
        )
    canvas.paint(balloon.pieces, pose, light, owner)


def string(rng: Rng, start: np.ndarray, end: np.ndarray, size: float) -> np.ndarray:
    """Return a hanging string from knot to end, (N, 2) pixels: slack, or curled like a ribbon."""
    swing = rng.normal(0, 0.5, 2) * size
    line = bezier(
        start,
        moved(start, swing[0], 0.35 * np.hypot(*(end - start))),
        moved(end, -swing[1], -0.3 * np.hypot(*(end - start))),
        end,
        40,
    )
    if rng.random() < 0.2:
        turn = np.linspace(0, rng.uniform(4, 9) * np.pi, 40)
        line = line + np.stack([np.sin(turn), 0.3 * np.cos(turn)], 1) * np.linspace(0, 0.13, 40)[:, None] * size
    return line
