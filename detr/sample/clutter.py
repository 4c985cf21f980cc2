"""Things that no class is learned from: what stands around in a scene, behind or before the others. No torch.

As in `things`, each function draws one random thing as pieces, back to front, in a frame from about -1 to 1. Many are
round or bright on purpose: a detector has to tell them from what it looks for.
"""

import numpy as np

from detr.sample.canvas import Piece
from detr.sample.geometry import band, bezier, ellipse, points, rectangle, smooth, superellipse, turned
from detr.sample.surfaces import dome, dots, ellipsoid, facet, mixed, pick_color, sectors, stripes, tube
from detr.sample.things import DARK, GLASS, PAGE, WHITE

BARK, METAL, WOOD = (0.38, 0.26, 0.18), (0.33, 0.35, 0.38), (0.62, 0.43, 0.27)
GREENS = np.array([(0.20, 0.45, 0.20), (0.33, 0.55, 0.22), (0.45, 0.60, 0.25), (0.16, 0.42, 0.30), (0.70, 0.50, 0.20)])
SKINS = np.array([(0.98, 0.83, 0.72), (0.90, 0.70, 0.54), (0.72, 0.50, 0.36), (0.48, 0.31, 0.22)])
HAIRS = np.array([(0.14, 0.11, 0.10), (0.32, 0.20, 0.12), (0.62, 0.42, 0.20), (0.85, 0.70, 0.42), (0.62, 0.60, 0.60)])
HAND = np.array((0.36, -0.72))  # of a person who holds something up, in the person's frame


def _one_of(rng: np.random.Generator, colors: np.ndarray) -> np.ndarray:
    return colors[rng.integers(len(colors))] * rng.uniform(0.88, 1.1)


# ------------------------------------------------------------------------------------------------------------ outdoors


def cloud(rng: np.random.Generator, color: np.ndarray) -> list[Piece]:
    """Return a heap of puffs with a flat, darker base."""
    count = int(rng.integers(4, 8))
    x = np.linspace(-0.75, 0.75, count)
    radius = 0.16 + 0.24 * np.sin(np.linspace(0.35, 2.8, count)) * rng.uniform(0.6, 1.2, count)
    base, dim = 0.3, mixed(color, (0.52, 0.60, 0.72), 0.3)
    puffs = [
        np.minimum(ellipse(r * 1.15, r, cx, base - r * 0.9, 28), (9, base)) for cx, r in zip(x, radius, strict=True)
    ]
    bright = [puff * 0.86 + (-0.03, -0.05) for puff in puffs]
    return [*(Piece(puff, dim) for puff in puffs), *(Piece(puff, color) for puff in bright)]


def tree(rng: np.random.Generator) -> list[Piece]:
    """Return a broad tree: a trunk, and leaves in three tones."""
    green = _one_of(rng, GREENS)
    pieces = [
        Piece(smooth(points((-0.08, 0.2), (0.08, 0.2), (0.09, 0.9), (0.16, 1), (-0.16, 1), (-0.09, 0.9)), 3), BARK)
    ]
    spots = rng.uniform(-1, 1, (9, 2)) * (0.48, 0.4) + (0, -0.35)
    sizes = rng.uniform(0.2, 0.36, 9)
    for share, shrink, lift in ((0.35, 1.0, 0.0), (0.0, 0.84, 0.05), (-0.18, 0.5, 0.13)):
        tone = mixed(green, DARK, share) if share >= 0 else mixed(green, (0.95, 0.95, 0.5), -share)
        for (x, y), size in zip(spots, sizes, strict=True):
            pieces.append(Piece(ellipse(size * shrink, size * shrink, x - lift / 2, y - lift, 24), tone))
    return pieces


def conifer(rng: np.random.Generator) -> list[Piece]:
    """Return a fir of three or four skirts."""
    green, count = _one_of(rng, GREENS[:4]), int(rng.integers(3, 5))
    pieces = [Piece(rectangle(-0.06, 0.7, 0.06, 1), BARK)]
    for level in range(count):
        y, half = 0.8 - level * 1.35 / count, 0.52 * (1 - level / (count + 0.6))
        skirt = points((0, y - 2.1 / count), (half, y), (0, y + 0.07), (-half, y))
        pieces.append(Piece(skirt[[0, 2, 3]], mixed(green, (0.9, 0.95, 0.5), 0.1)))
        pieces.append(Piece(skirt[[0, 1, 2]], mixed(green, DARK, 0.2)))
    return pieces


def bush(rng: np.random.Generator) -> list[Piece]:
    """Return a low bush, some with round flowers."""
    green = _one_of(rng, GREENS[:4])
    spots = np.stack([np.linspace(-0.65, 0.65, 5), rng.uniform(0.0, 0.25, 5)], 1)
    pieces = [Piece(ellipse(0.4, 0.45, x, y + 0.3, 24), mixed(green, DARK, 0.25)) for x, y in spots]
    pieces += [Piece(ellipse(0.3, 0.32, x - 0.03, y + 0.16, 24), green) for x, y in spots]
    if rng.random() < 0.5:
        color = pick_color(rng)
        for x, y in rng.uniform(-1, 1, (7, 2)) * (0.75, 0.3) + (0, 0.25):
            pieces.append(Piece(ellipse(0.07, 0.07, x, y, 10), color))
    return pieces


def flower(rng: np.random.Generator) -> list[Piece]:
    """Return one flower on its stalk."""
    color, petals = pick_color(rng), int(rng.integers(5, 8))
    pieces = [Piece(rectangle(-0.05, -0.4, 0.05, 1), (0.25, 0.5, 0.2))]
    for angle in np.arange(petals) * 2 * np.pi / petals:
        pieces.append(Piece(turned(ellipse(0.26, 0.17, 0.3, 0, 12), angle, 0, -0.5), color))
    return [*pieces, Piece(ellipse(0.18, 0.18, 0, -0.5, 14), (0.96, 0.78, 0.2))]


def sun(rng: np.random.Generator) -> list[Piece]:
    """Return a sun or a full moon with its halo."""
    color = np.array(((1.0, 0.93, 0.62), (1.0, 0.80, 0.45), (0.97, 0.96, 0.90))[rng.integers(3)])
    halo = [Piece(ellipse(r, r, count=48), mixed(color, WHITE, 0.3), opacity=0.16) for r in (1.9, 1.5, 1.2)]
    return [*halo, Piece(ellipse(1, 1, count=48), color * 1.15)]


def bird(rng: np.random.Generator) -> list[Piece]:
    """Return a gull far away."""
    dip = rng.uniform(-0.4, 0.1)
    wing = bezier(points((-1, dip)), points((-0.6, -0.6)), points((-0.15, -0.4)), points((0, 0)), 8)
    line = np.concatenate([wing, (wing * (-1, 1))[::-1][1:]])
    return [Piece(band(line, 0.16), (0.25, 0.27, 0.33))]


def lamp_post(rng: np.random.Generator) -> list[Piece]:
    """Return a street lamp with one or two glass globes."""
    globe = ellipsoid(0.2, 0.2, 0, -0.78)
    pole = [
        Piece(rectangle(-0.035, -0.62, 0.035, 1), METAL, tube(lambda y: np.float32(0.05))),
        Piece(rectangle(-0.09, 0.86, 0.09, 1), METAL),
    ]
    glow = np.array((1.0, 0.96, 0.82)) * 1.05
    if rng.random() < 0.5:
        return [
            *pole,
            Piece(rectangle(-0.1, -0.64, 0.1, -0.56), METAL),
            Piece(ellipse(0.18, 0.18, 0, -0.78), glow, globe, 0.3),
        ]
    arm = Piece(band(points((-0.32, -0.6), (-0.28, -0.5), (0, -0.46), (0.28, -0.5), (0.32, -0.6)), 0.04), METAL)
    globes = [Piece(ellipse(0.15, 0.15, x, -0.74), glow, ellipsoid(0.17, 0.17, x, -0.74), 0.3) for x in (-0.32, 0.32)]
    return [*pole, arm, *globes]


def traffic_light(rng: np.random.Generator) -> list[Piece]:
    """Return a traffic light on its pole, one lamp lit."""
    lit = int(rng.integers(3))
    pieces = [
        Piece(rectangle(-0.04, 0, 0.04, 1), METAL, tube(lambda y: np.float32(0.06))),
        Piece(turned(superellipse(0.19, 0.5, 6), 0, 0, -0.48), (0.16, 0.17, 0.18), facet(-0.2, 0)),
    ]
    for place, color in enumerate(((0.95, 0.18, 0.15), (0.98, 0.75, 0.15), (0.2, 0.8, 0.35))):
        tone = np.array(color) * 1.1 if place == lit else mixed(color, DARK, 0.72)
        y = -0.79 + 0.31 * place
        pieces.append(Piece(ellipse(0.12, 0.12, 0, y, 24), tone, ellipsoid(0.16, 0.16, 0, y), 0.3))
    return pieces


def parasol(rng: np.random.Generator) -> list[Piece]:
    """Return a parasol in segments of two colors."""
    first, second = pick_color(rng), mixed(pick_color(rng), WHITE, 0.6)
    angle = np.linspace(np.pi, 2 * np.pi, 25)
    top = np.stack([0.95 * np.cos(angle), -0.15 + 0.7 * np.sin(angle)], 1)
    scallops = np.stack([0.95 * np.cos(angle[::-1]), -0.15 - 0.09 * np.abs(np.sin(angle[::-1] * 4))], 1)
    gores = stripes(0, 1.0)
    return [
        Piece(rectangle(-0.03, -0.2, 0.03, 1), WOOD),
        Piece(
            np.concatenate([top, scallops]),
            first,
            ellipsoid(1.0, 0.9, 0, -0.1),
            0.1,
            lambda x, y: gores(x * 1.9 / np.sqrt(np.maximum(1.02 - ((y + 0.15) / 0.72) ** 2, 0.05)), y),
            second,
        ),
    ]


# ------------------------------------------------------------------------------------------------------------- indoors


def window(rng: np.random.Generator) -> list[Piece]:
    """Return a window, square or round, with the sky in it and curtains now and then."""
    frame = (WHITE, WOOD)[rng.integers(2)]
    if rng.random() < 0.3:
        outer, inner, bar = ellipse(0.8, 0.8), ellipse(0.68, 0.68), 0.68
    else:
        outer, inner, bar = rectangle(-0.72, -0.9, 0.72, 0.9), rectangle(-0.63, -0.81, 0.63, 0.81), 0.81
    pieces = [
        Piece(outer, frame, facet(-0.1, -0.1)),
        Piece(inner, GLASS, facet(0, 0), pattern=stripes(0.7, 0.55, 0.4), second=mixed(GLASS, WHITE, 0.35)),
        Piece(rectangle(-0.045, -bar, 0.045, bar), frame),
        Piece(rectangle(-bar * 0.8, -0.045, bar * 0.8, 0.045), frame),
    ]
    if rng.random() < 0.5:
        color = pick_color(rng)
        folds = stripes(0, 5, 0.5)
        for side in (-1, 1):
            cloth = points((0.35, -1), (1, -1), (1, 1), (0.6, 1), (0.66, 0.2)) * (side, 1)
            pieces.append(Piece(cloth, color, facet(0, 0), pattern=folds, second=mixed(color, DARK, 0.15)))
    return pieces


def picture(rng: np.random.Generator) -> list[Piece]:
    """Return a framed picture of hills under a sun, or of dots."""
    frame, mount = (DARK, WOOD, (0.8, 0.65, 0.3))[rng.integers(3)], pick_color(rng)
    half = rng.uniform(0.6, 1.0)
    inside = rectangle(-half + 0.12, -0.66, half - 0.12, 0.66)
    pieces = [
        Piece(rectangle(-half, -0.8, half, 0.8), frame, facet(-0.2, -0.3)),
        Piece(inside, mixed(mount, WHITE, 0.5)),
    ]
    if rng.random() < 0.5:
        pieces[-1] = pieces[-1]._replace(surface=facet(0, 0), pattern=dots(2.2, 0.32), second=pick_color(rng))
        return pieces
    hill = points(
        (-half + 0.12, 0.66), (-half + 0.12, 0.2), (-0.2, 0.0), (0.25, 0.3), (half - 0.12, 0.1), (half - 0.12, 0.66)
    )
    return [*pieces, Piece(ellipse(0.17, 0.17, 0.15, -0.25, 20), pick_color(rng)), Piece(hill, _one_of(rng, GREENS))]


def clock(rng: np.random.Generator) -> list[Piece]:
    """Return a round wall clock."""
    color, hour = pick_color(rng), rng.uniform(0, 2 * np.pi)
    pieces = [Piece(ellipse(1, 1), color, dome(ellipse(1, 1), 4), 0.3), Piece(ellipse(0.82, 0.82), WHITE)]
    for angle in np.arange(12) * np.pi / 6:
        pieces.append(Piece(turned(rectangle(0.64, -0.035, 0.76, 0.035), angle), DARK))
    for angle, length, width in ((hour, 0.42, 0.06), (hour * 5, 0.62, 0.04)):
        pieces.append(Piece(turned(rectangle(-0.05, -width, length, width), angle), DARK))
    return pieces


def plate(rng: np.random.Generator) -> list[Piece]:
    """Return a decorated plate on the wall, or a target of rings."""
    first, second = mixed(pick_color(rng), WHITE, 0.45), pick_color(rng)
    return [
        Piece(ellipse(1, 1), first, dome(ellipse(1, 1), 5), 0.2),
        Piece(ellipse(0.86, 0.86), second),
        Piece(ellipse(0.78, 0.78), first, ellipsoid(2, 2)),
        Piece(ellipse(0.58, 0.58), mixed(first, DARK, 0.08), ellipsoid(-2, -2)),
        Piece(ellipse(0.2, 0.2), second),
    ]


def pendant_lamp(rng: np.random.Generator) -> list[Piece]:
    """Return a lamp on its cord: a globe, or a shade."""
    cord = Piece(rectangle(-0.02, -60, 0.02, -0.3), DARK)
    if rng.random() < 0.5:
        warm = mixed((1.0, 0.95, 0.82), pick_color(rng), rng.choice((0.0, 0.25)))
        return [
            cord,
            Piece(ellipse(0.7, 0.7, 0, 0.3), warm, ellipsoid(0.9, 0.9, 0, 0.3), 0.2),
            Piece(rectangle(-0.16, -0.5, 0.16, -0.34), METAL),
        ]
    shade = smooth(points((-0.2, -0.4), (0.2, -0.4), (0.5, 0.1), (0.85, 0.4), (-0.85, 0.4), (-0.5, 0.1)), 4)
    return [
        cord,
        Piece(ellipse(0.3, 0.3, 0, 0.42, 24), (1.0, 0.95, 0.75)),
        Piece(shade, pick_color(rng), tube(lambda y: 0.35 + 0.45 * (y + 0.4))),
    ]


def cushion(rng: np.random.Generator) -> list[Piece]:
    """Return a stuffed cushion, plain or patterned."""
    outline = superellipse(0.95, 0.8, rng.uniform(2.6, 4))
    pattern = (None, stripes(0.8, 3, 0.4), dots(2.5, 0.28))[rng.integers(3)]
    button = Piece(ellipse(0.07, 0.07, count=14), DARK)
    cover = Piece(outline, pick_color(rng), dome(outline, 2.2), 0, pattern, pick_color(rng))
    return [cover, button] if rng.random() < 0.4 else [cover]


def fruit(rng: np.random.Generator) -> list[Piece]:
    """Return an apple, an orange, a lemon or a plum."""
    skin = np.array([(0.85, 0.15, 0.13), (0.55, 0.72, 0.2), (0.97, 0.56, 0.1), (0.98, 0.85, 0.25), (0.42, 0.18, 0.42)])
    kind = int(rng.integers(len(skin)))
    high = 0.72 if kind == 3 else 0.92
    dip = ellipse(0.16, 0.05, 0, -high * 0.93, 14)
    body = superellipse(0.95, high, 2.25)
    pieces = [Piece(body, skin[kind] * rng.uniform(0.9, 1.08), ellipsoid(1, high * 1.03), 0.35)]
    if kind < 2:
        pieces += [
            Piece(dip, mixed(skin[kind], DARK, 0.5)),
            Piece(band(points((0, -0.85), (0.05, -1.05), (0.14, -1.2)), 0.08), BARK),
        ]
    return pieces


def bottle(rng: np.random.Generator) -> list[Piece]:
    """Return a bottle or a vase with a label."""
    color = pick_color(rng) * 0.8
    half = points((0.1, -1), (0.1, -0.55), (0.32, -0.2), (0.34, 0.9), (0.28, 1))
    body = np.concatenate([half, (half * (-1, 1))[::-1]])
    round_ = tube(lambda y: np.where(y < -0.4, 0.13, 0.38).astype(np.float32))
    return [
        Piece(body, color, round_, 0.6),
        Piece(rectangle(-0.33, 0.1, 0.33, 0.6), PAGE, round_),
        Piece(rectangle(-0.12, -1.08, 0.12, -0.86), WOOD, round_),
    ]


def plant(rng: np.random.Generator) -> list[Piece]:
    """Return a plant in a pot."""
    green, pot = _one_of(rng, GREENS[:4]), pick_color(rng)
    pieces = []
    for angle in np.linspace(-1.1, 1.1, 7) + rng.normal(0, 0.1, 7):
        blade = smooth(points((0, 0), (0.11, -0.5), (0, -1.15), (-0.11, -0.5)), 4)
        pieces.append(
            Piece(
                turned(blade, angle, 0, 0.3), mixed(green, DARK, rng.uniform(0, 0.3)), facet(np.sin(angle) * 0.5, -0.2)
            )
        )
    body = points((-0.42, 0.3), (0.42, 0.3), (0.3, 1), (-0.3, 1))
    pieces.append(Piece(body, pot, tube(lambda y: 0.46 - 0.17 * (y - 0.3)), 0.2))
    pieces.append(Piece(rectangle(-0.47, 0.22, 0.47, 0.4), mixed(pot, DARK, 0.1), tube(lambda y: np.float32(0.5)), 0.2))
    return pieces


def cake(rng: np.random.Generator) -> list[Piece]:
    """Return a birthday cake with candles and a cherry or two."""
    icing, sponge = mixed(pick_color(rng), WHITE, 0.5), (0.80, 0.58, 0.36)
    side = tube(lambda y: np.float32(0.82))
    drip = np.stack([np.linspace(-0.8, 0.8, 33), 0.12 + 0.1 * np.abs(np.sin(np.linspace(0, 6 * np.pi, 33)))], 1)
    pieces = [
        Piece(ellipse(1, 0.24, 0, 0.8), WHITE),
        Piece(np.concatenate([points((-0.8, -0.1), (0.8, -0.1)), ellipse(0.8, 0.18, 0, 0.72)[:21]]), sponge, side),
        Piece(np.concatenate([points((-0.8, -0.12)), drip, points((0.8, -0.12))]), icing, side, 0.2),
        Piece(ellipse(0.8, 0.18, 0, -0.12), mixed(icing, WHITE, 0.35)),
    ]
    for x in np.linspace(-0.5, 0.5, int(rng.integers(2, 5))):
        pieces.append(Piece(rectangle(x - 0.04, -0.6, x + 0.04, -0.1), pick_color(rng), facet(0.1, 0)))
        pieces.append(
            Piece(smooth(points((x, -0.84), (x + 0.06, -0.68), (x, -0.6), (x - 0.06, -0.68)), 3), (1.0, 0.85, 0.35))
        )
    return pieces


# -------------------------------------------------------------------------------------------------------------- people


def person(rng: np.random.Generator, raises_hand: bool = False) -> list[Piece]:
    """Somebody standing, seen from behind or before, head at -1 and feet at 1; a raised hand is at `HAND`."""
    skin, hair, shirt, cloth = _one_of(rng, SKINS), _one_of(rng, HAIRS), pick_color(rng), pick_color(rng) * 0.7
    hand = HAND if raises_hand else np.array((0.27, 0.22))
    elbow = np.array((0.42, -0.32)) if raises_hand else np.array((0.32, -0.15))
    arms = [points((0.2, -0.52), tuple(elbow), tuple(hand)), points((-0.2, -0.52), (-0.31, -0.15), (-0.26, 0.22))]
    torso = smooth(
        points(
            (-0.1, -0.64),
            (0.1, -0.64),
            (0.25, -0.54),
            (0.2, 0.1),
            (0.22, 0.2),
            (-0.22, 0.2),
            (-0.2, 0.1),
            (-0.25, -0.54),
        ),
        4,
    )
    pieces = []
    if rng.random() < 0.4:
        skirt = points((-0.2, 0.05), (0.2, 0.05), (0.36, 0.55), (-0.36, 0.55))
        legs = [Piece(rectangle(x - 0.06, 0.5, x + 0.06, 0.97), skin, facet(x, 0)) for x in (-0.12, 0.12)]
        pieces += [*legs, Piece(skirt, cloth, tube(lambda y: 0.26 + 0.3 * y))]
    else:
        pieces += [
            Piece(points((x * 0.3, 0.12), (x, 0.12), (x * 0.95, 0.96), (x * 0.35, 0.96)), cloth, facet(x, 0))
            for x in (-0.22, 0.22)
        ]
    pieces += [Piece(ellipse(0.1, 0.045, x, 0.97, 14), DARK) for x in (-0.15, 0.15)]
    pieces += [Piece(torso, shirt, tube(lambda y: np.float32(0.3)))]
    for arm in arms:
        sleeve, forearm = band(arm[:2], 0.12), band(arm[1:], 0.085)
        pieces += [
            Piece(forearm, skin, facet(0.1, 0)),
            Piece(sleeve, mixed(shirt, DARK, 0.1)),
            Piece(ellipse(0.06, 0.06, *arm[2], 12), skin),
        ]
    pieces += [Piece(rectangle(-0.05, -0.72, 0.05, -0.58), mixed(skin, DARK, 0.15))]
    return pieces + _head(rng, skin, hair)


def _head(rng: np.random.Generator, skin: np.ndarray, hair: np.ndarray) -> list[Piece]:
    """Return a head around (0, -0.83): seen from behind, or with a simple face."""
    head = Piece(ellipse(0.135, 0.165, 0, -0.83, 28), skin, ellipsoid(0.16, 0.19, 0, -0.83))
    full = Piece(ellipse(0.16, 0.185, 0, -0.86, 28), hair, ellipsoid(0.19, 0.21, 0, -0.86), 0.12)
    if rng.random() < 0.4:
        return [head, full]
    cap = np.concatenate(
        [ellipse(0.155, 0.18, 0, -0.85, 28)[14:], points((0.15, -0.84), (0.07, -0.92), (-0.08, -0.9), (-0.15, -0.82))]
    )
    eyes = [Piece(ellipse(0.017, 0.02, x, -0.82, 10), DARK) for x in (-0.055, 0.055)]
    mouth = Piece(
        band(
            bezier(points((-0.04, -0.75)), points((-0.02, -0.73)), points((0.02, -0.73)), points((0.04, -0.75)), 6),
            0.014,
        ),
        (0.6, 0.25, 0.25),
    )
    behind = [full] if rng.random() < 0.4 else []
    return [*behind, head, *eyes, mouth, Piece(cap, hair, ellipsoid(0.19, 0.21, 0, -0.86), 0.12)]


def pinwheel(rng: np.random.Generator) -> list[Piece]:
    """Return a paper pinwheel or rosette."""
    outline = ellipse(1, 1)
    return [
        Piece(
            outline, pick_color(rng), facet(0, 0), pattern=sectors(int(rng.choice((12, 16)))), second=pick_color(rng)
        ),
        Piece(ellipse(0.22, 0.22, count=20), pick_color(rng)),
    ]
