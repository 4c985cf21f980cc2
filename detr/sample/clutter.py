"""Things that no class is learned from: decoys among the others, occluders before them. No torch.

As in `things`, a function that returns pieces draws one random thing, back to front, in a frame from about -1 to 1.
Many are round or bright on purpose: a detector has to tell them from what it looks for.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from detr.sample.canvas import Canvas, Piece, Pose
from detr.sample.geometry import band, bezier, ellipse, points, rectangle, smooth, symmetric, turned
from detr.sample.paints import BARK, DARK, GLASS, METAL, WHITE, WOOD, Color, Rng, mixed, pick_color
from detr.sample.surfaces import dome, dots, lathe, sectors, stripes

_GREENS = np.array(((0.20, 0.45, 0.20), (0.33, 0.55, 0.22), (0.45, 0.60, 0.25), (0.16, 0.42, 0.30), (0.70, 0.50, 0.20)))
_SKINS = np.array(((0.98, 0.83, 0.72), (0.90, 0.70, 0.54), (0.72, 0.50, 0.36), (0.48, 0.31, 0.22)))
_HAIRS = np.array(((0.14, 0.11, 0.10), (0.32, 0.20, 0.12), (0.62, 0.42, 0.20), (0.85, 0.70, 0.42), (0.62, 0.60, 0.60)))
_FRUITS = np.array(((0.85, 0.15, 0.13), (0.55, 0.72, 0.2), (0.97, 0.56, 0.1), (0.98, 0.85, 0.25), (0.42, 0.18, 0.42)))
_GLOW = (1.05, 1.0, 0.86)
HAND = np.array((0.36, -0.72))  # of a person who holds something up, in the person's frame


def cloud(rng: Rng, color: Color) -> list[Piece]:
    """Return a heap of puffs with a flat, darker base."""
    count = int(rng.integers(4, 8))
    radii = 0.16 + 0.24 * np.sin(np.linspace(0.35, 2.8, count)) * rng.uniform(0.6, 1.2, count)
    spots = zip(np.linspace(-0.75, 0.75, count), radii, strict=True)
    puffs = [np.minimum(ellipse(1.15 * radius, radius, x, 0.3 - 0.9 * radius), (9, 0.3)) for x, radius in spots]
    dim = mixed(color, (0.52, 0.60, 0.72), 0.3)
    return [*(Piece(puff, dim) for puff in puffs), *(Piece(puff * 0.86 - (0.03, 0.05), color) for puff in puffs)]


def tree(rng: Rng) -> list[Piece]:
    """Return a broad tree: a trunk, and leaves in three tones."""
    trunk = symmetric(points((0.08, 0.2), (0.09, 0.9), (0.16, 1)))
    return [Piece(trunk, BARK), *_leaves(rng, rng.uniform(-1, 1, (9, 2)) * (0.48, 0.4) - (0, 0.35))]


def bush(rng: Rng) -> list[Piece]:
    """Return a low bush."""
    return _leaves(rng, np.stack([np.linspace(-0.65, 0.65, 6), rng.uniform(0.4, 0.7, 6)], 1))


def _leaves(rng: Rng, spots: np.ndarray) -> list[Piece]:
    green, sizes, pieces = pick_color(rng, _GREENS), rng.uniform(0.24, 0.36, len(spots)), []
    for other, share, shrink, lift in ((DARK, 0.35, 1.0, 0.0), (DARK, 0.0, 0.84, 0.05), (WHITE, 0.15, 0.5, 0.13)):
        for (x, y), size in zip(spots, sizes * shrink, strict=True):
            pieces.append(Piece(ellipse(size, size, x - lift / 2, y - lift, count=24), mixed(green, other, share)))
    return pieces


def lamp_post(rng: Rng) -> list[Piece]:
    """Return a street lamp with one or two glass globes."""
    reach = rng.choice((0.0, 0.32))
    arm = points((-reach, -0.6), (-0.9 * reach, -0.5), (0, -0.46), (0.9 * reach, -0.5), (reach, -0.6))
    globes = [Piece(ellipse(0.17, 0.17, x, -0.75), _GLOW, dome, 0.3) for x in (-reach, reach)]
    return [Piece(rectangle(-0.035, -0.6, 0.035, 1), METAL, lathe), Piece(band(arm, 0.04), METAL), *globes]


def window(rng: Rng) -> list[Piece]:
    """Return a window, square or round, with the sky in it and curtains now and then."""
    frame, power, curtain = (WHITE, WOOD)[rng.integers(2)], rng.choice((2, 24, 24)), pick_color(rng)
    shine, folds = stripes(0.7, 0.55, 0.4), stripes(0, 5)
    pieces = [
        Piece(ellipse(0.8, 0.9, power=power), frame),
        Piece(ellipse(0.7, 0.8, power=power), GLASS, pattern=shine, second=mixed(GLASS, WHITE, 0.35)),
        Piece(rectangle(-0.045, -0.8, 0.045, 0.8), frame),
        Piece(rectangle(-0.7, -0.045, 0.7, 0.045), frame),
    ]
    for side in (-1, 1) if rng.random() < 0.5 else ():
        cloth = points((0.35, -1), (1, -1), (1, 1), (0.6, 1), (0.66, 0.2)) * (side, 1)
        pieces.append(Piece(cloth, curtain, pattern=folds, second=mixed(curtain, DARK, 0.15)))
    return pieces


def disc(rng: Rng) -> list[Piece]:
    """Return something round and flat for a wall: a plate, a clock without hands or a paper rosette."""
    fan = sectors(int(rng.choice((12, 16)))) if rng.random() < 0.4 else None
    rim = Piece(ellipse(1, 1), pick_color(rng), partial(dome, power=4), 0.3, fan, pick_color(rng))
    inner = mixed(pick_color(rng), WHITE, 0.6)
    return [rim, *(Piece(ellipse(r, r), mixed(inner, DARK, 0.8 - r)) for r in ((0.2,) if fan else (0.8, 0.55)))]


def lantern(rng: Rng) -> list[Piece]:
    """Return a glass or paper globe on its cord."""
    color = mixed(_GLOW, pick_color(rng), rng.choice((0.0, 0.25, 0.7)))
    folds = stripes(np.pi / 2, 5, 0.12) if rng.random() < 0.5 else None
    globe = Piece(ellipse(0.8, 0.8 * rng.uniform(0.75, 1)), color, dome, 0.2, folds, mixed(color, DARK, 0.2))
    return [Piece(rectangle(-0.02, -60, 0.02, -0.3), DARK), globe, Piece(rectangle(-0.16, -0.88, 0.16, -0.7), METAL)]


def fruit(rng: Rng) -> list[Piece]:
    """Return an apple, an orange, a lemon or a plum."""
    stalk = band(points((0, -0.8), (0.05, -1.0), (0.14, -1.15)), 0.08)
    body = ellipse(0.95, rng.uniform(0.7, 0.95), power=2.25)
    return [Piece(stalk, BARK), Piece(body, pick_color(rng, _FRUITS), dome, 0.35)]


def plant(rng: Rng) -> list[Piece]:
    """Return a plant in a pot."""
    green, pot = pick_color(rng, _GREENS[:4]), pick_color(rng)
    blade = smooth(points((0, 0), (0.11, -0.5), (0, -1.15), (-0.11, -0.5)), 4)
    blades = [turned(blade, angle, 0, 0.3) for angle in np.linspace(-1.1, 1.1, 7) + rng.normal(0, 0.1, 7)]
    return [
        *(Piece(outline, mixed(green, DARK, rng.uniform(0, 0.4))) for outline in blades),
        Piece(symmetric(points((0.42, 0.3), (0.3, 1))), pot, lathe, 0.2),
        Piece(rectangle(-0.47, 0.22, 0.47, 0.4), mixed(pot, DARK, 0.1), lathe, 0.2),
    ]


def person(rng: Rng, raises_hand: bool = False) -> list[Piece]:
    """Somebody standing, seen from behind or before, head at -1 and feet at 1; a raised hand is at `HAND`."""
    skin, shirt, cloth, skirt = pick_color(rng, _SKINS), pick_color(rng), pick_color(rng) * 0.7, rng.random() < 0.4
    torso = smooth(symmetric(points((0.1, -0.64), (0.25, -0.54), (0.2, 0.1), (0.22, 0.2))), 4)
    leg = points((0.06, 0.12), (0.22, 0.12), (0.2, 0.96), (0.07, 0.96))
    lowered = points((0.2, -0.52), (0.31, -0.15), (0.26, 0.22))
    pieces = [
        *(Piece(leg * (side, 1), skin if skirt else mixed(cloth, DARK, 0.1 + 0.1 * side)) for side in (-1, 1)),
        *(Piece(ellipse(0.1, 0.045, x, 0.97, count=14), DARK) for x in (-0.15, 0.15)),
        *([Piece(symmetric(points((0.2, 0.05), (0.36, 0.55))), cloth, lathe)] if skirt else []),
        Piece(torso, shirt, lathe),
    ]
    for arm in (points((0.2, -0.52), (0.42, -0.32), tuple(HAND)) if raises_hand else lowered, lowered * (-1, 1)):
        pieces.append(Piece(band(arm[1:], 0.085), skin))
        pieces.append(Piece(band(arm[:2], 0.12), mixed(shirt, DARK, 0.1)))
        pieces.append(Piece(ellipse(0.06, 0.06, *arm[2], count=12), skin))
    return [*pieces, Piece(rectangle(-0.05, -0.72, 0.05, -0.58), mixed(skin, DARK, 0.15)), *_head(rng, skin)]


def _head(rng: Rng, skin: Color) -> list[Piece]:
    """Return a head around (0, -0.83): seen from behind, or with a simple face."""
    hair = pick_color(rng, _HAIRS)
    if rng.random() < 0.4:
        return [Piece(ellipse(0.16, 0.185, 0, -0.86), hair, dome, 0.12)]
    fringe = points((0.15, -0.84), (0.07, -0.92), (-0.08, -0.9), (-0.15, -0.82))
    return [
        Piece(ellipse(0.135, 0.165, 0, -0.83), skin, dome),
        *(Piece(ellipse(0.017, 0.02, x, -0.82, count=10), DARK) for x in (-0.055, 0.055)),
        Piece(ellipse(0.035, 0.012, 0, -0.74, count=10), (0.6, 0.25, 0.25)),
        Piece(np.concatenate([ellipse(0.155, 0.18, 0, -0.85)[20:], fringe]), hair),
    ]


Draw = Callable[[Rng], list[Piece]]
# What stands on the ground, and its size as a share of the picture's shorter side.
_OUTDOORS = ((person, 0.2), (lamp_post, 0.22), (bush, 0.1), (fruit, 0.05))
_INDOORS = ((person, 0.2), (fruit, 0.05), (fruit, 0.07), (plant, 0.08))


def paint_decoys(canvas: Canvas, rng: Rng, standing: Sequence[Draw] = (), flying: Sequence[Draw] = ()) -> None:
    """Up to three things of no class, or of those that are given, on the ground, on a cord or in the sky."""
    kinds = (*(_OUTDOORS if canvas.outdoors else _INDOORS), *((thing, 0.06) for thing in standing))
    ground = 0.7 * canvas.height if canvas.ground is None else canvas.ground
    for _ in range(int(rng.integers(0, 4))):
        kind, share = kinds[rng.integers(len(kinds))]
        x, size = rng.uniform(0.03, 0.97) * canvas.width, canvas.short * rng.uniform(0.7, 1.3)
        above = Pose(x, rng.uniform(0.08, 0.5) * canvas.height, 0.07 * size)
        if canvas.open_sky and (canvas.ground is None or rng.random() < 0.25):
            if flying:
                canvas.paint(flying[rng.integers(len(flying))](rng), above._replace(angle=rng.normal(0, 0.5)))
        elif not canvas.outdoors and rng.random() < 0.25:
            canvas.paint(lantern(rng), above)
        else:
            canvas.stand(kind(rng), (x, ground + rng.uniform(0.1, 0.9) * (canvas.height - ground)), share * size)


def paint_occluders(canvas: Canvas, rng: Rng) -> None:
    """Something at the front that suits the place."""
    (_people, _bunting, _post if canvas.outdoors else _table)[rng.integers(3)](canvas, rng)


def _people(canvas: Canvas, rng: Rng) -> None:
    """One to three people near the viewer, cut off by the lower border."""
    for _ in range(int(rng.integers(1, 4))):
        x, size = rng.uniform(0.02, 0.98) * canvas.width, canvas.height * rng.uniform(0.42, 0.62)
        y = canvas.height * rng.uniform(0.62, 0.8) + size
        canvas.paint(person(rng), Pose(x, y, size, rng.normal(0, 0.03)))


def _post(canvas: Canvas, rng: Rng) -> None:
    """A post or trunk from border to border."""
    half = canvas.width * rng.uniform(0.012, 0.035)
    color = (METAL, WOOD, BARK, pick_color(rng))[rng.integers(4)]
    pole = Piece(rectangle(-half, -canvas.height, half, canvas.height), color, lathe, 0.2)
    canvas.paint([pole], Pose(rng.uniform(0.05, 0.95) * canvas.width, canvas.height / 2, 1, rng.normal(0, 0.02)))


def _bunting(canvas: Canvas, rng: Rng) -> None:
    """A line with flags across the upper part."""
    ends, sag = canvas.height * rng.uniform(0.0, 0.3, 2), canvas.height * rng.uniform(0.06, 0.2)
    x, y = np.array((-0.02, 0.3, 0.7, 1.02)) * canvas.width, ends.repeat(2) + np.array((0, sag, sag, 0))
    line, step = bezier(*np.stack([x, y], 1), count=80), int(rng.integers(5, 10))
    canvas.line(line, (0.9, 0.9, 0.88), 1)
    colors = [pick_color(rng) for _ in range(int(rng.integers(2, 5)))]
    for count, start in enumerate(range(1, len(line) - step, step + 1)):
        a, b = line[start], line[start + step - 1]
        down = np.array((a[1] - b[1], b[0] - a[0]))
        canvas.paint([Piece(np.array([a, b, (a + b) / 2 + down]), colors[count % len(colors)])])


def _table(canvas: Canvas, rng: Rng) -> None:
    """A table along the lower border with a cloth, and what a party leaves on it."""
    top, deep = canvas.height * rng.uniform(0.78, 0.9), canvas.height * 0.05
    left, right = canvas.width * np.array(((-0.1, 1.1), (-0.1, 0.62), (0.38, 1.1))[rng.integers(3)])
    cloth, step = mixed(pick_color(rng), WHITE, rng.uniform(0.1, 0.8)), canvas.width * rng.uniform(0.05, 0.09)
    pattern = (None, stripes(0, 1 / step), dots(1 / step, 0.25))[rng.integers(3)]
    front = rectangle(left, top + deep, right, canvas.height + 5)
    board = points((left + 8, top), (right - 8, top), (right, top + deep), (left, top + deep))
    canvas.paint([Piece(front, cloth, pattern=pattern, second=mixed(cloth, WHITE, 0.45)), Piece(board, cloth * 1.12)])
    for _ in range(int(rng.integers(1, 5))):
        kind, size = ((fruit, 0.04), (fruit, 0.03), (plant, 0.06))[rng.integers(3)]
        foot = (rng.uniform(max(left, 0), min(right, canvas.width)), top + deep * rng.uniform(0.4, 0.85))
        canvas.stand(kind(rng), foot, canvas.height * size * rng.uniform(0.8, 1.2))
