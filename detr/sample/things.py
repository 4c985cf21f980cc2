"""Eight classes of things for pre-training, none of them a balloon. No torch.

Each function draws one random thing of its class as pieces, back to front, in a frame from about -1 to 1.
"""

from functools import partial

import numpy as np

from detr.sample.canvas import Piece
from detr.sample.geometry import band, bezier, ellipse, points, smooth, turned
from detr.sample.paints import CREAM, DARK, WHITE, WOOD, Rng, mixed, pick_color
from detr.sample.surfaces import dome, dots, lathe, on_ball, sectors, stripes


def box(rng: Rng) -> list[Piece]:
    """Return a parcel or crate seen from above one corner, with tape or ribbon."""
    color = mixed(WOOD, CREAM, rng.uniform(0.1, 0.4)) if rng.random() < 0.5 else pick_color(rng)
    tape = mixed(color, WHITE, 0.6) if rng.random() < 0.5 else pick_color(rng)
    left, right = np.array((-0.9, -0.35)), np.array((0.9, -0.35))
    near = np.array((rng.uniform(-0.35, 0.35), rng.uniform(-0.1, 0.07)))
    far, down = left + right - near, np.array((0, rng.uniform(0.55, 1.05)))
    wide, length = rng.uniform(0.06, 0.12), rng.choice((0.25, 0.95))
    a, b = (left + (near - left) * share for share in (0.5 - wide, 0.5 + wide))
    return [
        Piece(np.array([left, far, right, near]), mixed(color, WHITE, 0.12)),
        Piece(np.array([left, near, near + down, left + down * 0.9]), mixed(color, DARK, 0.12)),
        Piece(np.array([near, right, right + down * 0.9, near + down]), mixed(color, DARK, 0.35)),
        Piece(np.array([a, b, b + right - near, a + right - near]), tape),
        Piece(np.array([a, b, b + down * length, a + down * length]), mixed(tape, DARK, 0.15)),
    ]


def cone(rng: Rng) -> list[Piece]:
    """Return a traffic cone or party hat, striped or plain."""
    half, color, blunt = rng.uniform(0.42, 0.7), pick_color(rng), rng.choice((0.03, 0.1))
    side = np.concatenate([points((-blunt, -0.98), (blunt, -0.98)), ellipse(half, half * 0.24, 0, 0.8)[:21]])
    bands = stripes(rng.choice((np.pi / 2, 1.2)), rng.uniform(1.0, 2.5), rng.uniform(0.3, 0.5))
    pieces = [Piece(side, color, lathe, 0.25, bands if rng.random() < 0.7 else None, pick_color(rng))]
    if rng.random() < 0.5:
        slab = ellipse(1.25 * half, 0.3 * half, 0, 0.78, power=3)
        pieces[:0] = [Piece(slab + points((0, 0.08)), mixed(color, DARK, 0.5)), Piece(slab, mixed(color, DARK, 0.25))]
    return pieces


def star(rng: Rng) -> list[Piece]:
    """Return a star of five or six spikes: cut in facets, or swollen."""
    color = pick_color(rng)
    outline = turned(ellipse(1, 1, count=int(rng.choice((10, 10, 12)))), -np.pi / 2)
    outline[1::2] *= rng.uniform(0.4, 0.52)
    if rng.random() < 0.5:
        return [Piece(smooth(outline, 3), color, partial(dome, power=1.5), 0.5)]
    corners = zip(outline, np.roll(outline, -1, 0), strict=True)
    return [
        Piece(np.array([(0, 0), first, second]), mixed(color, (WHITE, DARK)[number % 2], 0.2))
        for number, (first, second) in enumerate(corners)
    ]


def ring(rng: Rng) -> list[Piece]:
    """Return a swimming ring or a doughnut, seen from the front or at an angle."""
    flat, inner = rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.66)
    pattern = sectors(int(rng.choice((4, 6, 8)))) if rng.random() < 0.65 else None
    surface, hole = partial(dome, inner=inner), ellipse(inner, inner * flat)
    gloss = rng.uniform(0.3, 0.9)
    return [Piece(ellipse(1, flat, count=56), pick_color(rng), surface, gloss, pattern, pick_color(rng), hole)]


def ball(rng: Rng) -> list[Piece]:
    """Return a ball with a bold pattern: segments, bands, dots or seams."""
    segments, seams = stripes(0, rng.choice((2, 3, 4))), stripes(0, 4, 0.09)
    pattern = (segments, seams, stripes(np.pi / 2, rng.choice((2.5, 4)), 0.45), dots(4, 0.3))[rng.integers(4)]
    second = pick_color(rng) if rng.random() < 0.5 else WHITE
    pattern = on_ball(pattern, rng.uniform(-1.2, 1.2))
    return [Piece(ellipse(1, 1, count=56), pick_color(rng), dome, 0.4, pattern, second)]


def cup(rng: Rng) -> list[Piece]:
    """Return a mug or a tea cup with its handle to one side."""
    color, foot, tall = pick_color(rng), rng.uniform(0.38, 0.62), rng.uniform(0.6, 0.95)
    bottom = ellipse(foot, 0.13, -0.15, tall - 0.13)
    body = np.concatenate([points((-0.81, -tall)), bottom[20::-1], points((0.51, -tall))])
    pattern = (None, stripes(np.pi / 2, 1.1, 0.4), stripes(0, 3.1, 0.4), dots(2.6, 0.3))[rng.integers(4)]
    drink = ((0.33, 0.19, 0.10), (0.72, 0.42, 0.15), mixed(color, DARK, 0.7))[rng.integers(3)]
    hole = ellipse(0.22, 0.27, 0.5, -0.08)
    return [
        Piece(ellipse(0.36, 0.42, 0.5, -0.08), mixed(color, DARK, 0.12), partial(dome, inner=0.6), 0.3, hole=hole),
        Piece(body, color, lathe, 0.35, pattern, pick_color(rng)),
        Piece(ellipse(0.66, 0.17, -0.15, -tall), mixed(color, WHITE, 0.35)),
        Piece(ellipse(0.57, 0.125, -0.15, -tall + 0.02), drink),
    ]


def kite(rng: Rng) -> list[Piece]:
    """Return a diamond kite of two or four colors with a short tail."""
    wide, cross = rng.uniform(0.5, 0.72), rng.uniform(-0.55, -0.3)
    top, right, bottom, left = points((0, -1), (wide, cross), (0, 0.6), (-wide, cross))
    colors = [pick_color(rng) for _ in range(2)] * 2 if rng.random() < 0.6 else [pick_color(rng) for _ in range(4)]
    sway = rng.uniform(-0.5, 0.5)
    tail = bezier(*(bottom + points((0, 0), (sway, 0.15), (-sway, 0.25), (sway * 0.3, 0.35))), count=12)
    pieces = [Piece(band(tail, 0.035), DARK)]
    corners, shades = (top, right, bottom, left, top), (0, 0.2, 0.12, 0.05)
    for i in range(4):
        sail = np.array([(0, cross), corners[i], corners[i + 1]])
        pieces.append(Piece(sail, mixed(colors[i], DARK, shades[i])))
    return [*pieces, Piece(band(np.array([top, bottom]), 0.03), DARK), Piece(band(np.array([left, right]), 0.03), DARK)]


def fish(rng: Rng) -> list[Piece]:
    """Return a fish from the side with fins, an eye and often stripes."""
    color, second, high = pick_color(rng), pick_color(rng), rng.uniform(0.36, 0.62)
    back, belly = ((-0.95, 0.02), (-0.6, -high), (0, -high), (0.6, -0.22)), ((0.6, 0.22), (0, high), (-0.6, 0.35))
    tail = smooth(points((0.5, 0), (0.98, -0.5), (0.84, 0), (0.98, 0.5)), 4)
    fin = points((-0.25, -high * 0.8), (0.15, -high - 0.3), (0.4, -high * 0.6))
    pattern = (None, stripes(rng.uniform(-0.2, 0.2), rng.uniform(1.5, 3), 0.35), dots(4, 0.3))[rng.integers(3)]
    return [
        *(Piece(outline, mixed(second, DARK, 0.1)) for outline in (tail, fin, fin * (0.8, -0.9))),
        Piece(smooth(points(*back, *belly)), color, dome, 0.45, pattern, second),
        Piece(points((-0.25, 0.05), (0.1, 0.16), (-0.05, 0.38)), mixed(color, DARK, 0.25)),
        Piece(ellipse(0.12, 0.12, -0.62, -0.1), WHITE),
        Piece(ellipse(0.06, 0.06, -0.64, -0.1), DARK),
    ]


# The class head's labels are the positions in these two.
SHAPE_CLASSES = ("box", "cone", "star", "ring", "ball", "cup", "kite", "fish")
SHAPES = (box, cone, star, ring, ball, cup, kite, fish)
