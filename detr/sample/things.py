"""Twelve classes of things for pre-training, none of them a balloon. No torch.

Each function draws one random thing of its class as pieces, back to front, in a frame from about -1 to 1.
"""

from collections.abc import Callable

import numpy as np

from detr.sample.canvas import Piece
from detr.sample.geometry import band, bezier, ellipse, moved, points, rectangle, smooth, star, superellipse, turned
from detr.sample.surfaces import (
    Pattern,
    dome,
    dots,
    ellipsoid,
    facet,
    mixed,
    on_ball,
    pick_color,
    sectors,
    stripes,
    torus,
    tube,
)

DARK, WHITE, GLASS, PAGE = (0.12, 0.12, 0.15), (0.97, 0.97, 0.95), (0.62, 0.80, 0.90), (0.96, 0.94, 0.87)
CARDBOARD = np.array((0.78, 0.60, 0.40))


def box(rng: np.random.Generator) -> list[Piece]:
    """Return a parcel or crate seen from above one corner, with tape or ribbon."""
    color = CARDBOARD * rng.uniform(0.85, 1.1) if rng.random() < 0.5 else pick_color(rng)
    tape = mixed(color, WHITE, 0.6) if rng.random() < 0.5 else pick_color(rng)
    corner, depth, height = rng.uniform(-0.35, 0.35), rng.uniform(0.25, 0.42), rng.uniform(0.55, 1.05)
    left, right, near = np.array((-0.9, -0.35)), np.array((0.9, -0.35)), np.array((corner, -0.35 + depth))
    far, down = left + right - near, np.array((0, height))
    pieces = [
        Piece(np.array([left, far, right, near]), color, facet(0, -0.75)),
        Piece(np.array([left, near, near + down, left + down * 0.9]), color, facet(-0.75, 0.15)),
        Piece(np.array([near, right, right + down * 0.9, near + down]), color, facet(0.75, 0.15)),
    ]
    share, wide = 0.5, rng.uniform(0.06, 0.12)
    a, b = (left + (near - left) * (share + side * wide) for side in (-1, 1))
    over = right - near
    pieces.append(Piece(np.array([a, b, b + over, a + over]), tape, facet(0, -0.75)))
    length = rng.choice((0.25, 0.95))
    pieces.append(Piece(np.array([a, b, b + down * length, a + down * length]), tape, facet(-0.75, 0.15)))
    return pieces


def cone(rng: np.random.Generator) -> list[Piece]:
    """Return a traffic cone or party hat, striped or plain."""
    half, color, second = rng.uniform(0.42, 0.7), pick_color(rng), pick_color(rng)
    blunt = rng.choice((0.03, 0.1))
    foot = ellipse(half, half * 0.24, 0, 0.85)
    side = np.concatenate([points((-blunt, -0.98), (blunt, -0.98)), foot[:21]])
    pattern: Pattern | None = None
    if rng.random() < 0.7:
        pattern = stripes(rng.choice((np.pi / 2, 1.2)), rng.uniform(1.0, 2.5), rng.uniform(0.3, 0.5))
    surface = tube(lambda y: blunt + (half - blunt) * (y + 0.98) / 1.83, lean=-0.25)
    pieces = [Piece(side, color, surface, 0.25, pattern, second)]
    if rng.random() < 0.5:
        slab = turned(superellipse(1.25 * half, 0.3 * half, 3), 0, 0, 0.9)
        pieces[:0] = [Piece(moved(slab, 0, 0.08), mixed(color, DARK, 0.5)), Piece(slab, mixed(color, DARK, 0.25))]
    return pieces


def five_point_star(rng: np.random.Generator) -> list[Piece]:
    """Return a star of five or six spikes: cut in facets, or swollen."""
    spikes, color = int(rng.choice((5, 5, 5, 6))), pick_color(rng)
    outline = star(spikes, rng.uniform(0.4, 0.52))
    if rng.random() < 0.5:
        return [Piece(smooth(outline, 3), mixed(color, DARK, 0.15), dome(outline, 1.5), 0.5)]
    pieces = []
    for number, (first, second) in enumerate(zip(outline, np.roll(outline, -1, 0), strict=True)):
        middle = (first + second) / 2
        lean = turned(middle[None], 0.5 if number % 2 else -0.5)[0] * 0.9
        pieces.append(Piece(np.array([(0, 0), first, second]), color, facet(*lean)))
    return pieces


def ring(rng: np.random.Generator) -> list[Piece]:
    """Return a swimming ring or a doughnut, seen from the front or at an angle."""
    flat, inner = rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.66)
    pattern = (sectors(int(rng.choice((4, 6, 8)))), None)[int(rng.random() < 0.35)]
    return [
        Piece(
            ellipse(1, flat, count=56),
            pick_color(rng),
            torus(flat, inner),
            rng.uniform(0.3, 0.9),
            pattern,
            pick_color(rng),
            ellipse(inner, inner * flat),
        )
    ]


def ball(rng: np.random.Generator) -> list[Piece]:
    """Return a ball with a bold pattern: segments, bands, dots or seams."""
    tilt = rng.uniform(-1.2, 1.2)
    pattern = [
        stripes(0, rng.choice((2, 3, 4))),
        stripes(np.pi / 2, rng.choice((2.5, 4)), 0.45),
        dots(rng.choice((3, 4)), 0.3),
        stripes(0, 4, 0.09),
    ][rng.integers(4)]
    color, second = pick_color(rng), (pick_color(rng), np.array(WHITE))[int(rng.random() < 0.5)]
    return [Piece(ellipse(1, 1, count=56), color, ellipsoid(1, 1), 0.4, on_ball(pattern, tilt), second)]


def book(rng: np.random.Generator) -> list[Piece]:
    """Return a book, closed and seen at an angle, or open."""
    return _open_book(rng) if rng.random() < 0.4 else _closed_book(rng)


def _closed_book(rng: np.random.Generator) -> list[Piece]:
    color, second, thick = pick_color(rng), pick_color(rng), rng.uniform(0.12, 0.3)
    slant = rng.uniform(0.05, 0.2)
    cover = points((-0.7, -0.9), (0.6, -0.9 + slant), (0.6, 0.8 + slant - 0.1), (-0.7, 0.8))
    back = moved(cover, thick, -thick * 0.7)
    top = np.array([cover[0], back[0], back[1], cover[1]])
    side = np.array([cover[1], back[1], back[2], cover[2]])
    inset = (cover - cover.mean(0)) * (0.66, 0.26) + cover.mean(0) - (0, 0.35)
    return [
        Piece(back, color, facet(0.3, 0)),
        Piece(top, PAGE, facet(0, -0.8), pattern=stripes(np.pi / 2, 18, 0.3), second=(0.75, 0.72, 0.66)),
        Piece(side, PAGE, facet(0.8, 0), pattern=stripes(0, 18, 0.3), second=(0.75, 0.72, 0.66)),
        Piece(cover, color, facet(-0.15, 0.05)),
        Piece(np.array([cover[0], cover[0] + (0.13, 0), cover[3] + (0.13, 0), cover[3]]), mixed(color, DARK, 0.35)),
        Piece(inset, second),
        Piece(turned(inset - inset.mean(0), 0, *moved(inset.mean(0), 0, 0.75), 0.5), mixed(color, WHITE, 0.5)),
    ]


def _open_book(rng: np.random.Generator) -> list[Piece]:
    cover, ink = pick_color(rng), (0.45, 0.45, 0.5)
    lift = rng.uniform(0.08, 0.2)
    upper = np.stack([np.linspace(0, 0.95, 9), -0.55 - lift * np.sin(np.linspace(0, np.pi, 9))], 1)
    page = np.concatenate([upper, moved(upper[::-1], 0, 1.15)])
    lines = stripes(np.pi / 2, rng.uniform(6, 9), 0.35)
    pieces = [Piece(rectangle(-1, -0.6, 1, 0.7), cover, facet(0, 0.3))]
    for side in (-1, 1):
        line = upper[1:-1] * (0.94, 1)
        text = np.concatenate([moved(line, 0, 0.15), moved(line[::-1], 0, 1.0)])
        pieces.append(Piece(page * (side, 1), PAGE, facet(side * 0.25, -0.1)))
        pieces.append(Piece(text * (side, 1), PAGE, facet(side * 0.25, -0.1), pattern=lines, second=ink))
    pieces.append(Piece(rectangle(-0.02, -0.55, 0.02, 0.6), mixed(PAGE, DARK, 0.4)))
    return pieces


def cup(rng: np.random.Generator) -> list[Piece]:
    """Return a mug or a tea cup with its handle to one side."""
    color, second = pick_color(rng), pick_color(rng)
    foot, tall = rng.uniform(0.38, 0.62), rng.uniform(0.6, 0.95)
    rim = ellipse(0.66, 0.17, -0.15, -tall)
    bottom = ellipse(foot, 0.13, -0.15, tall - 0.13)
    body = np.concatenate([points((-0.81, -tall)), bottom[:21][::-1], points((0.51, -tall))])
    handle, hole = ellipse(0.36, 0.42, 0.5, -0.08), ellipse(0.22, 0.27, 0.5, -0.08)
    pattern = (None, stripes(np.pi / 2, 1.1, 0.4), stripes(0, 3.1, 0.4), dots(2.6, 0.3))[rng.integers(4)]
    around = tube(lambda y: foot + (0.66 - foot) * (tall - y) / (2 * tall))
    drink = ((0.33, 0.19, 0.10), (0.72, 0.42, 0.15), mixed(color, DARK, 0.7))[rng.integers(3)]
    return [
        Piece(handle, mixed(color, DARK, 0.12), ellipsoid(0.5, 0.55, 0.45, -0.08), 0.3, hole=hole),
        Piece(body, color, lambda x, y: around(x + 0.15, y), 0.35, pattern, second),
        Piece(rim, mixed(color, WHITE, 0.35)),
        Piece(ellipse(0.57, 0.125, -0.15, -tall + 0.02), drink),
    ]


def kite(rng: np.random.Generator) -> list[Piece]:
    """Return a diamond kite of two or four colors with a short tail."""
    wide, cross = rng.uniform(0.5, 0.72), rng.uniform(-0.55, -0.3)
    top, right, bottom, left = points((0, -1), (wide, cross), (0, 0.6), (-wide, cross))
    middle, first, second = np.array((0, cross)), pick_color(rng), pick_color(rng)
    third = pick_color(rng) if rng.random() < 0.4 else first
    sway = rng.uniform(-0.5, 0.5)
    tail = bezier(bottom, moved(bottom, sway, 0.15), moved(bottom, -sway, 0.25), moved(bottom, sway * 0.3, 0.45), 12)
    pieces = [Piece(band(tail, 0.035), DARK)]
    for place, color in ((5, second), (10, first)):
        bow = turned(points((-0.13, -0.07), (0.13, 0.07), (0.13, -0.07), (-0.13, 0.07)), sway, *tail[place])
        pieces.append(Piece(bow, color))
    for corners, color, lean in (
        ((top, right), first, (0.5, -0.4)),
        ((right, bottom), second, (0.5, 0.4)),
        ((bottom, left), third, (-0.5, 0.4)),
        ((left, top), second, (-0.5, -0.4)),
    ):
        pieces.append(Piece(np.array([middle, *corners]), color, facet(*lean)))
    pieces.append(Piece(band(np.array([top, bottom]), 0.03), DARK))
    pieces.append(Piece(band(np.array([left, right]), 0.03), DARK))
    return pieces


def leaf(rng: np.random.Generator) -> list[Piece]:
    """Return a leaf with veins, green or as in autumn; smooth or toothed."""
    palette = ((0.25, 0.58, 0.22), (0.45, 0.66, 0.20), (0.12, 0.45, 0.28), (0.86, 0.48, 0.12), (0.75, 0.20, 0.12))
    color = np.array(palette[rng.integers(len(palette))]) * rng.uniform(0.85, 1.15)
    wide, belly = rng.uniform(0.38, 0.7), rng.uniform(-0.1, 0.35)
    along = np.linspace(-0.95, 0.75, 23)
    profile = wide * np.sin(np.pi * ((along + 0.95) / 1.7) ** (0.75 + belly)) ** 0.8
    if rng.random() < 0.4:
        profile[1:-1:2] *= 0.78
    bend = 0.25 * rng.uniform(-1, 1) * (along**2)
    spine = np.stack([bend, along], 1)
    halves = [np.concatenate([spine, (spine + profile[:, None] * (side, 0))[::-1]]) for side in (-1, 1)]
    stalk = band(np.array([spine[-1], spine[-1] + (bend[-1] * 0.4, 0.25)]), 0.07)
    pieces = [
        Piece(stalk, mixed(color, DARK, 0.3)),
        Piece(halves[0], color, facet(-0.45, -0.1)),
        Piece(halves[1], color, facet(0.45, 0.1)),
        Piece(band(spine, 0.035), mixed(color, WHITE, 0.35)),
    ]
    for place in (5, 9, 13, 17):
        for side in (-1, 1):
            tip = spine[place] + (side * profile[place] * 0.7, -0.22)
            pieces.append(Piece(band(np.array([spine[place], tip]), 0.022), mixed(color, WHITE, 0.25)))
    return pieces


def fish(rng: np.random.Generator) -> list[Piece]:
    """Return a fish from the side with fins, an eye and often stripes."""
    color, second, high = pick_color(rng), pick_color(rng), rng.uniform(0.36, 0.62)
    body = smooth(
        points(
            (-0.95, 0.02), (-0.6, -0.62 * high / 0.6), (0, -high), (0.6, -0.22), (0.6, 0.22), (0, high), (-0.6, 0.35)
        )
    )
    tail = smooth(points((0.5, 0), (0.98, -0.5), (0.84, 0), (0.98, 0.5)), 4)
    fin = points((-0.25, -high * 0.8), (0.15, -high - 0.3), (0.4, -high * 0.6))
    pattern = (None, stripes(rng.uniform(-0.2, 0.2), rng.uniform(1.5, 3), 0.35), dots(4, 0.3))[rng.integers(3)]
    dim = mixed(second, DARK, 0.1)
    return [
        Piece(tail, dim),
        Piece(fin, dim),
        Piece(fin * (0.8, -0.9), dim),
        Piece(body, color, ellipsoid(1.15, high * 1.1), 0.45, pattern, second),
        Piece(points((-0.25, 0.05), (0.1, 0.16), (-0.05, 0.38)), mixed(color, DARK, 0.25)),
        Piece(ellipse(0.12, 0.12, -0.62, -0.1, 16), WHITE),
        Piece(ellipse(0.06, 0.06, -0.64, -0.1, 12), DARK),
    ]


def car(rng: np.random.Generator) -> list[Piece]:
    """Return a small car from the side: saloon, beetle or van."""
    color, roof = pick_color(rng), rng.uniform(-0.62, -0.45)
    front, back = rng.uniform(-0.62, -0.4), rng.uniform(0.45, 0.9)
    body = smooth(points((-1, 0.28), (-0.97, 0.02), (-0.5, -0.1), (0.5, -0.12), (0.98, -0.03), (1, 0.28)), 4)
    body = np.concatenate([body[(body[:, 1] < 0.28)], points((1, 0.34), (-1, 0.34))])
    cabin = smooth(points((front - 0.12, 0), (front + 0.18, roof), (back - 0.2, roof), (back, 0)), 5)
    cabin[:, 1] = np.maximum(np.minimum(cabin[:, 1], 0.05), roof - 0.04)
    middle = (front + back) / 2
    panes = [
        points((front + 0.04, -0.1), (front + 0.24, roof + 0.09), (middle - 0.04, roof + 0.07), (middle - 0.04, -0.1)),
        points((middle + 0.04, -0.1), (middle + 0.04, roof + 0.07), (back - 0.26, roof + 0.09), (back - 0.13, -0.1)),
    ]
    swell = dome(superellipse(1.1, 0.75, 3), 2)
    pieces = [
        Piece(cabin, mixed(color, DARK, 0.06), swell, 0.2),
        Piece(body, color, swell, 0.3),
        *(Piece(pane, GLASS, facet(-0.2, -0.5)) for pane in panes),
        Piece(ellipse(0.06, 0.06, -0.92, 0.08, 12), (1.0, 0.93, 0.6)),
        Piece(rectangle(0.9, 0.02, 0.98, 0.13), (0.8, 0.1, 0.1)),
        Piece(rectangle(-1, 0.26, 1, 0.34), mixed(color, DARK, 0.6)),
    ]
    for x in (-0.55, 0.57):
        pieces.append(Piece(ellipse(0.25, 0.25, x, 0.33, 24), DARK, ellipsoid(0.3, 0.3, x, 0.33)))
        pieces.append(Piece(ellipse(0.12, 0.12, x, 0.33, 16), (0.75, 0.76, 0.78)))
    return pieces


def house(rng: np.random.Generator) -> list[Piece]:
    """Return a small house from the front with door, windows and a roof."""
    wall, roof = mixed(pick_color(rng), PAGE, rng.uniform(0.2, 0.7)), pick_color(rng)
    eaves, half, flat = rng.uniform(-0.25, 0.05), rng.uniform(0.62, 0.85), rng.choice((0.0, 0.35))
    top = points((-flat, -0.95), (flat, -0.95), (half + 0.14, eaves), (-half - 0.14, eaves))
    door = rng.uniform(-0.35, 0.35)
    lines = stripes(np.pi / 2, rng.uniform(5, 8), 0.2)
    pieces = [
        Piece(rectangle(half * 0.35, -0.9, half * 0.6, eaves), mixed(roof, DARK, 0.4), facet(0.3, 0)),
        Piece(rectangle(-half, eaves, half, 0.92), wall, facet(0.1, 0.1)),
        Piece(rectangle(-half, eaves, half, eaves + 0.09), mixed(wall, DARK, 0.35)),
        Piece(top, roof, facet(0, -0.5), pattern=lines, second=mixed(roof, DARK, 0.3)),
        Piece(rectangle(door - 0.16, 0.36, door + 0.16, 0.92), mixed(roof, DARK, 0.35), facet(0.2, 0)),
        Piece(ellipse(0.03, 0.03, door + 0.1, 0.66, 8), (0.95, 0.85, 0.4)),
    ]
    for x in (-half * 0.62, half * 0.62):
        if abs(x - door) > 0.34:
            y = eaves + 0.42
            pieces.append(Piece(rectangle(x - 0.19, y - 0.19, x + 0.19, y + 0.19), WHITE))
            pieces.append(Piece(rectangle(x - 0.15, y - 0.15, x + 0.15, y + 0.15), GLASS, facet(-0.3, -0.3)))
            pieces.append(Piece(rectangle(x - 0.02, y - 0.17, x + 0.02, y + 0.17), WHITE))
            pieces.append(Piece(rectangle(x - 0.17, y - 0.02, x + 0.17, y + 0.02), WHITE))
    return pieces


# The class head's labels are the positions in this tuple.
SHAPES: tuple[tuple[str, Callable[[np.random.Generator], list[Piece]]], ...] = (
    ("box", box),
    ("cone", cone),
    ("star", five_point_star),
    ("ring", ring),
    ("ball", ball),
    ("book", book),
    ("cup", cup),
    ("kite", kite),
    ("leaf", leaf),
    ("fish", fish),
    ("car", car),
    ("house", house),
)
SHAPE_CLASSES = tuple(name for name, _ in SHAPES)
