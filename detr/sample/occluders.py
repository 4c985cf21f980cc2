"""What stands at the front of a scene and hides part of it. No torch."""

import numpy as np

from detr.sample import clutter
from detr.sample.backgrounds import Setting
from detr.sample.canvas import Canvas, Piece, Pose
from detr.sample.geometry import band, bezier, ellipse, moved, points, rectangle
from detr.sample.surfaces import Light, dots, facet, mixed, pick_color, stripes, tube
from detr.sample.things import WHITE

Rng = np.random.Generator
_PICTURE = Pose(0, 0, 1)  # for what is drawn in pixels


def stand(canvas: Canvas, pieces: list[Piece], foot_xy: tuple[float, float], size: float, setting: Setting) -> Pose:
    """Paint a thing of no class that stands on the ground at `foot_xy`, with its contact shadow; returns its pose."""
    x, y = foot_xy
    pose = Pose(x, y - size * max(piece.outline[:, 1].max() for piece in pieces), size)
    contact_shadow(canvas, foot_xy, size * max(piece.outline[:, 0].max() for piece in pieces), setting.light)
    canvas.paint(pieces, pose, setting.light)
    return pose


def contact_shadow(canvas: Canvas, foot_xy: tuple[float, float], half_width: float, light: Light) -> None:
    """Darken the ground below what stands at `foot_xy`, a little away from the light."""
    x, y = foot_xy
    outline = ellipse(0.95 * half_width, 0.2 * half_width, x - light.direction[0] * 0.3 * half_width, y)
    canvas.shadow(outline, 1 + 0.06 * half_width, 0.5)


def paint_occluders(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """One or two things at the front that suit the place."""
    outdoors = (people, post, bunting, garland, shrubs)
    indoors = (people, bunting, garland, table, table, pot_plant)
    kinds = {"sky": (bunting, blossoms, post), "studio": (bunting, garland, table), "night": (people, table, bunting)}
    choice = kinds.get(setting.place, indoors if setting.place == "room" else outdoors)
    for _ in range(1 + int(rng.random() < 0.2)):
        choice[rng.integers(len(choice))](canvas, rng, setting)


def people(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """One to three people near the viewer, cut off by the lower edge."""
    for _ in range(int(rng.integers(1, 4))):
        size = canvas.height * rng.uniform(0.42, 0.62)
        x = rng.uniform(0.02, 0.98) * canvas.width
        pose = Pose(x, canvas.height * rng.uniform(0.62, 0.8) + size, size, rng.normal(0, 0.03), rng.random() < 0.5)
        canvas.paint(clutter.person(rng), pose, setting.light)


def post(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A post, pillar or trunk from edge to edge."""
    x, half = rng.uniform(0.05, 0.95) * canvas.width, canvas.width * rng.uniform(0.012, 0.035)
    color = (clutter.METAL, clutter.WOOD, clutter.BARK, pick_color(rng))[rng.integers(4)]
    rings = stripes(np.pi / 2, 1 / (8 * half), 0.5) if rng.random() < 0.2 else None
    pole = Piece(
        rectangle(-half, -canvas.height, half, canvas.height),
        color,
        tube(lambda y: np.float32(1.05 * half)),
        0.2,
        rings,
    )
    canvas.paint([pole], Pose(x, canvas.height / 2, 1, rng.normal(0, 0.02)), setting.light)


def bunting(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A string of flags across the upper part."""
    left, right = canvas.height * rng.uniform(0.0, 0.3, 2)
    sag = canvas.height * rng.uniform(0.06, 0.2)
    wide = canvas.width
    line = bezier(
        points((-5, left)),
        points((wide * 0.3, left + sag)),
        points((wide * 0.7, right + sag)),
        points((wide + 5, right)),
        80,
    )
    canvas.line(line, (0.9, 0.9, 0.88), 1)
    colors = [pick_color(rng) for _ in range(int(rng.integers(2, 5)))]
    step = int(rng.integers(5, 9))
    for count, start in enumerate(range(1, len(line) - step, step + 1)):
        a, b = line[start], line[start + step - 1]
        down = np.array((a[1] - b[1], b[0] - a[0])) * rng.uniform(0.9, 1.2)
        canvas.paint(
            [
                Piece(
                    np.array([a, b, (a + b) / 2 + down]), colors[count % len(colors)], facet(0, rng.uniform(-0.3, 0.1))
                )
            ],
            _PICTURE,
            setting.light,
        )


def garland(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A string of lights: small glowing bulbs on a wire."""
    left, right = canvas.height * rng.uniform(0.02, 0.35, 2)
    sag, wide = canvas.height * rng.uniform(0.05, 0.2), canvas.width
    line = bezier(
        points((-5, left)),
        points((wide * 0.3, left + sag)),
        points((wide * 0.7, right + sag)),
        points((wide + 5, right)),
        60,
    )
    canvas.line(line, (0.2, 0.2, 0.22), 1)
    size, colorful = canvas.width * rng.uniform(0.008, 0.016), rng.random() < 0.5
    for x, y in line[2::5]:
        color = pick_color(rng) * 1.1 if colorful else np.array((1.1, 1.0, 0.75))
        glow, bulb = Piece(ellipse(2, 2, count=20), color, opacity=0.2), Piece(ellipse(0.8, 1, count=16), color)
        canvas.paint([glow], Pose(x, y + size, size), setting.light, owner=None)
        canvas.paint([bulb], Pose(x, y + size, size), setting.light)


def table(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A table along the lower edge with a cloth, and what a party leaves on it."""
    top, deep = canvas.height * rng.uniform(0.78, 0.9), canvas.height * 0.05
    left, right = ((-10, canvas.width + 10), (-10, canvas.width * 0.62), (canvas.width * 0.38, canvas.width + 10))[
        rng.integers(3)
    ]
    cloth = mixed(pick_color(rng), WHITE, rng.uniform(0.1, 0.8))
    step = canvas.width * rng.uniform(0.05, 0.09)
    pattern = (None, stripes(0, 1 / step, 0.5), dots(1 / step, 0.25))[rng.integers(3)]
    second = mixed(cloth, WHITE, 0.45)
    pieces = [
        Piece(
            rectangle(left, top + deep, right, canvas.height + 5), cloth, facet(0, 0.25), pattern=pattern, second=second
        ),
        Piece(
            points((left + 8, top), (right - 8, top), (right, top + deep), (left, top + deep)), cloth, facet(0, -0.6)
        ),
    ]
    canvas.paint(pieces, _PICTURE, setting.light)
    kinds = (clutter.cake, clutter.fruit, clutter.fruit, clutter.bottle, clutter.plant, clutter.plate)
    for _ in range(int(rng.integers(1, 5))):
        kind = kinds[rng.integers(len(kinds))]
        size = canvas.height * (rng.uniform(0.025, 0.04) if kind is clutter.fruit else rng.uniform(0.05, 0.085))
        x = rng.uniform(max(left, 0) + size, min(right, canvas.width) - size)
        stand(canvas, kind(rng), (x, top + deep * rng.uniform(0.4, 0.85)), size, setting)


def shrubs(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """Bushes along the lower edge."""
    for _ in range(int(rng.integers(1, 4))):
        size = canvas.width * rng.uniform(0.09, 0.18)
        canvas.paint(
            clutter.bush(rng), Pose(rng.uniform(0, canvas.width), canvas.height - 0.3 * size, size), setting.light
        )


def pot_plant(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A big plant at one side."""
    size = canvas.height * rng.uniform(0.13, 0.24)
    x = rng.choice((0.1, 0.9)) * canvas.width + rng.normal(0, 0.04) * canvas.width
    stand(canvas, clutter.plant(rng), (x, canvas.height * 0.97), size, setting)


def blossoms(canvas: Canvas, rng: Rng, setting: Setting) -> None:
    """A branch in blossom that reaches in from an upper corner."""
    side = rng.choice((-1, 1))
    start = np.array((canvas.width / 2 - side * (canvas.width / 2 + 5), canvas.height * rng.uniform(0.0, 0.2)))
    tip = moved(start, side * canvas.width * rng.uniform(0.25, 0.5), canvas.height * rng.uniform(0.02, 0.2))
    line = bezier(start, moved(start, side * 20, 8), moved(tip, -side * 20, 2), tip, 24)
    color = mixed(((0.97, 0.70, 0.78), (0.98, 0.97, 0.95), (0.55, 0.72, 0.30))[rng.integers(3)], WHITE, 0.1)
    canvas.paint([Piece(band(line, np.linspace(4.5, 1, 24)), clutter.BARK)], _PICTURE, setting.light)
    for spot in np.repeat(line[3:], 4, axis=0) + rng.normal(0, 0.018, (84, 2)) * canvas.width:
        petal = Piece(ellipse(1, 1, count=10), color * rng.uniform(0.85, 1.04))
        canvas.paint([petal], Pose(*spot, canvas.width * rng.uniform(0.006, 0.015)), setting.light)
