"""Party balloons: bodies, knots, strings, and how they hang together. No torch."""

from functools import partial

import numpy as np

from detr.sample.canvas import Canvas, Piece, Pose, scattered
from detr.sample.geometry import bezier, ellipse, points, smooth, symmetric, turned
from detr.sample.paints import DARK, PAINTS, VIVID_PAINTS, WHITE, Color, Rng, mixed, pick_color
from detr.sample.surfaces import Light, dome, dots, on_ball, stripes

_KNOT = points((0, 1.1))  # where the string is tied, in a balloon's frame


def balloon_pieces(rng: Rng, light: Light, angle: float) -> list[Piece]:
    """Return a balloon whose body reaches from -1 to 1 with its knot below; `angle` is how it will be turned."""
    color = pick_color(rng, VIVID_PAINTS if rng.random() < 0.75 else PAINTS)
    motifs = (stripes(0, rng.choice((3, 4))), dots(rng.choice((4, 5)), 0.26), stripes(np.pi / 2, 4, 0.4))
    pattern = on_ball(motifs[rng.integers(3)], rng.uniform(-0.5, 0.5)) if rng.random() < 0.14 else None
    opacity = rng.uniform(0.8, 0.93) if rng.random() < 0.15 else 1.0
    body = _body(rng)
    low = body[:, 1].max()
    knot = symmetric(points((0.05, low - 0.04), (0.035, low + 0.03), (0.095, low + 0.12)))
    shine, glow, second = rng.uniform(0.55, 1.0), rng.uniform(0.15, 0.55), mixed(pick_color(rng), WHITE, 0.4)
    swollen = partial(dome, power=rng.uniform(1.0, 1.25))
    return [
        Piece(knot, mixed(color, DARK, 0.22), opacity=opacity),
        Piece(body, color, swollen, shine, pattern, second, opacity=opacity, glow=glow),
        *_reflections(rng, light, angle, body),
    ]


def _body(rng: Rng) -> np.ndarray:
    """Return the outline: a drop, egg or ball mostly, sometimes long or a heart."""
    kind = rng.random()
    if kind < 0.07:
        half = ((0.02, -0.52), (0.28, -0.84), (0.68, -0.86), (0.95, -0.5), (0.88, -0.05), (0.5, 0.5), (0.12, 0.92))
        return smooth(symmetric(points(*half, (0.01, 1))), 5)
    wide = rng.uniform(0.42, 0.55) if kind < 0.14 else rng.uniform(0.76, 0.98)
    taper = rng.uniform(0.05, 0.42)
    turn = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    down = (1 - np.cos(turn)) / 2  # 0 at the top, 1 at the knot
    x = wide * np.sin(turn) * (1 - taper * down**2) * (1 + 0.25 * taper)
    return np.stack([x, -np.cos(turn)], 1)


def _reflections(rng: Rng, light: Light, angle: float, body: np.ndarray) -> list[Piece]:
    """Return the bright shape of a window or lamp where the light comes from, and a faint one across from it."""
    towards = light.in_frame(angle).direction[:2] * (body[:, 0].max(), 1)
    lean = float(np.arctan2(towards[1], towards[0])) + np.pi / 2
    arc = bezier(*points((-0.3, 0), (-0.15, 0.12), (0.15, 0.12), (0.3, 0)), count=12)
    crescent = turned(np.concatenate([arc, (arc * (1, 0.55))[::-1]]), lean + np.pi, *(-0.76 * towards))
    pieces = [Piece(crescent, WHITE, opacity=rng.uniform(0.08, 0.2))]
    if rng.random() < 0.75:
        spot = ellipse(0.19, 0.09) if rng.random() < 0.6 else ellipse(0.16, 0.13, power=6)
        pieces.append(Piece(turned(spot, lean, *(0.72 * towards)), WHITE, opacity=rng.uniform(0.45, 0.8)))
    return pieces


def hung(canvas: Canvas, rng: Rng, count: int, anchor: np.ndarray | None) -> list[Pose]:
    """Return up to `count` places in the air, the far ones first: above `anchor`, (2,) pixels, or anywhere."""
    size = canvas.short * np.exp(rng.uniform(np.log(0.1), np.log(0.29))) * (1 if count < 4 else 0.85)
    spread = size * np.sqrt(count)
    low = canvas.height if canvas.ground is None else 0.7 * canvas.ground + 0.3 * canvas.height

    def random_pose() -> Pose:
        """Return a place for one more."""
        radius = size * rng.uniform(0.78, 1.25)
        x, y = rng.uniform(0, 1, 2) * (canvas.width, 0.95 * low)
        if anchor is not None:
            x, y = rng.normal(0, 0.5, 2) * (spread, spread * 0.8) + anchor - (0, 1.2 * spread + 1.6 * radius)
        inside = radius * (1.0 if rng.random() < 0.75 else 0.45)  # some are cut by the border, by a third at most
        x, y = np.clip((x, y), inside, (canvas.width - inside, canvas.height - inside)).tolist()
        angle = 0.0 if anchor is None else 0.7 * np.arctan2(x - anchor[0], anchor[1] - y)
        return Pose(x, y, radius, rng.normal(angle, 0.2 if anchor is None else 0.06))

    return sorted(scattered(rng, count, random_pose), key=lambda pose: pose.size)


def lying(canvas: Canvas, rng: Rng, count: int) -> list[Pose]:
    """Return `count` places on the ground, the far ones first, for balloons that are turned any way."""
    size, deep = canvas.short * rng.uniform(0.11, 0.17), canvas.height - canvas.ground
    depth = np.sort(rng.uniform(0.15, 1.0, count))
    radius = size * (0.6 + 0.6 * depth)
    x = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count * canvas.width
    y = canvas.ground + depth * deep - 0.9 * radius
    return [Pose(*place) for place in np.stack([x, y, radius, rng.uniform(-2.4, 2.4, count)], 1).tolist()]


def add_balloon(canvas: Canvas, rng: Rng, pose: Pose, string_end: np.ndarray | None, string_color: Color) -> None:
    """Paint a balloon with its string to `string_end`, (2,) pixels; without one, with its shadow on the ground."""
    if string_end is None:
        canvas.contact_shadow((pose.x, pose.y + 0.92 * pose.size), 0.85 * pose.size)
    else:
        canvas.line(_string(rng, pose.place(_KNOT)[0], string_end, pose.size), string_color, rng.uniform(0.6, 1.1))
    canvas.add(balloon_pieces(rng, canvas.light, pose.angle), pose)


def _string(rng: Rng, start: np.ndarray, end: np.ndarray, size: float) -> np.ndarray:
    """Return a hanging string from knot to end, (N, 2) pixels: slack, or curled like a ribbon."""
    swing, sag = rng.normal(0, 0.5, 2) * size, 0.35 * np.hypot(*(end - start))
    line = bezier(start, start + points((swing[0], sag)), end - points((swing[1], sag)), end, 40)
    if rng.random() < 0.2:
        turn = np.linspace(0, rng.uniform(4, 9) * np.pi, 40)
        line += np.stack([np.sin(turn), 0.3 * np.cos(turn)], 1) * np.linspace(0, 0.13, 40)[:, None] * size
    return line
