"""What a surface looks like: its normals, its patterns, and how light falls on it. No torch.

A *surface* is a function from positions in a thing's own frame, two (h, w) arrays, to the x and y of the unit normal
there, (h, w) each or plain numbers; z, towards the viewer, follows. A *pattern* is a function from the same positions
to the share of the second color, (h, w) in 0..1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Color = tuple[float, float, float] | np.ndarray  # red, green, blue in 0..1
Surface = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]

PAINTS = np.array(
    [
        *[(0.88, 0.14, 0.17), (0.95, 0.36, 0.22), (0.97, 0.56, 0.13), (0.99, 0.80, 0.20), (0.62, 0.78, 0.22)],
        *[(0.16, 0.62, 0.33), (0.07, 0.60, 0.60), (0.25, 0.67, 0.90), (0.13, 0.38, 0.80), (0.30, 0.24, 0.62)],
        *[(0.55, 0.29, 0.72), (0.83, 0.20, 0.56), (0.97, 0.55, 0.68), (0.96, 0.95, 0.93), (0.20, 0.21, 0.25)],
        *[(0.83, 0.65, 0.28), (0.74, 0.77, 0.81), (0.60, 0.83, 0.76), (0.98, 0.78, 0.66), (0.72, 0.70, 0.90)],
    ]
)

_VIVID = 13  # as many of them, from the start, are bright colors


def pick_color(rng: np.random.Generator, vivid: bool = False) -> np.ndarray:
    """Return a paint from the box, never quite the same one twice; `vivid` ones only, if wanted."""
    color = PAINTS[rng.integers(_VIVID if vivid else len(PAINTS))] * rng.uniform(0.86, 1.06) + rng.normal(0, 0.02, 3)
    return color.clip(0.02, 0.98)


def mixed(first: Color, second: Color, share: float) -> np.ndarray:
    """`share` of the second color in the first."""
    return np.asarray(first) * (1 - share) + np.asarray(second) * share


class Light(NamedTuple):
    """The light of one picture: one lamp or sun, and what comes from all around."""

    direction: np.ndarray  # (3,) unit vector towards it: x right, y down, z towards the viewer
    color: np.ndarray  # (3,) of the lamp
    around: np.ndarray  # (3,) from everywhere


def shade(
    albedo: np.ndarray, normal_x: np.ndarray, normal_y: np.ndarray, light: Light, gloss: float, glow: float
) -> np.ndarray:
    """Return colors of a lit surface: diffuse light, a darker rim, a soft and a sharp highlight.

    Args:
        albedo: (3,) or (h, w, 3) colors under white light.
        normal_x, normal_y: (h, w) or numbers.
        light: the picture's light.
        gloss: strength of the highlights, 0..1.
        glow: light that comes through from behind, as in thin rubber, 0..1.

    Returns (h, w, 3), or (3,) for a flat surface of one color; may leave 0..1.
    """
    normal_z = np.sqrt(np.maximum(1 - normal_x**2 - normal_y**2, 0))
    x, y, z = (float(value) for value in light.direction)
    facing = normal_x * x + normal_y * y + normal_z * z
    direct = np.maximum(facing, 0) + glow * np.maximum(-facing, 0)
    rim = 1 - 0.28 * (1 - normal_z) ** 2
    tone = (light.around + direct[..., None] * light.color) * rim[..., None]
    color = albedo * tone.astype(np.float32)
    if gloss:
        half = light.direction + np.array((0, 0, 1))
        half = half / np.linalg.norm(half)
        shine = np.maximum(normal_x * float(half[0]) + normal_y * float(half[1]) + normal_z * float(half[2]), 0)
        soft = shine**2
        soft = soft * soft
        soft = soft * soft
        soft = soft * soft
        white = gloss * (0.34 * soft + 0.62 * ((shine - 0.978) * 90).clip(0, 1))
        color = color + (1 - color) * white[..., None]
    return color


# ------------------------------------------------------------------------------------------------------------ surfaces


def facet(normal_x: float, normal_y: float) -> Surface:
    """Return a flat face that looks one way."""
    return lambda x, y: (np.float32(normal_x), np.float32(normal_y))


def ellipsoid(radius_x: float, radius_y: float, centre_x: float = 0.0, centre_y: float = 0.0) -> Surface:
    """Return a ball or egg seen from the front."""
    return lambda x, y: _inside((x - centre_x) / radius_x, (y - centre_y) / radius_y)


def dome(outline: np.ndarray, power: float = 1.0) -> Surface:
    """Return a swollen body over any outline that is seen whole from (0, 0): flat in the middle with a high `power`."""
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    order = np.argsort(angle)
    angles, radii = angle[order], np.linalg.norm(outline, axis=1)[order]

    def surface(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance = np.sqrt(x**2 + y**2) + np.float32(1e-6)
        radius = np.interp(np.arctan2(y, x), angles, radii, period=2 * np.pi).astype(np.float32)
        steep = np.minimum(distance / radius, 0.999) ** power / distance
        return x * steep, y * steep

    return surface


def tube(half_width: Callable[[np.ndarray], np.ndarray], lean: float = 0.0) -> Surface:
    """A body turned around the y axis: `half_width(y)`; `lean` is the y of its normals, negative where it narrows."""

    def surface(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x / np.maximum(half_width(y), 1e-3)).clip(-0.95, 0.95), np.full_like(x, lean)

    return surface


def torus(radius_y: float, inner: float) -> Surface:
    """Return a ring of outer radius 1 (radius_y along y) whose hole has the share `inner` of it."""

    def surface(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        upright = y / radius_y
        distance = np.sqrt(x**2 + upright**2) + np.float32(1e-6)
        across = ((distance - (1 + inner) / 2) / ((1 - inner) / 2)).clip(-0.97, 0.97) / distance
        return x * across, upright * across

    return surface


def _inside(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep normals shorter than 1 on the pixels that lie just outside."""
    shrink = 1 / np.maximum(np.sqrt(x**2 + y**2), 1.001)
    return x * shrink, y * shrink


# ------------------------------------------------------------------------------------------------------------ patterns


def stripes(angle: float, per_unit: float, share: float = 0.5) -> Pattern:
    """Straight stripes; `per_unit` of them in a unit of length, `share` of each in the second color."""
    across_x, across_y = float(np.cos(angle) * per_unit), float(np.sin(angle) * per_unit)
    return lambda x, y: ((x * across_x + y * across_y) % 1 < share).astype(np.float32)


def dots(per_unit: float, radius: float) -> Pattern:
    """Polka dots in staggered rows, of `radius` in units of their distance."""

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        row = np.floor(y * per_unit)
        across = (x * per_unit + row % 2 / 2) % 1 - 0.5
        down = y * per_unit - row - 0.5
        return (across**2 + down**2 < radius**2).astype(np.float32)

    return pattern


def on_ball(pattern: Pattern, tilt: float, radius_y: float = 1.0) -> Pattern:
    """Return a pattern wrapped around a ball: x becomes longitude, y latitude, in units of pi, about a tilted axis."""
    cosine, sine = float(np.cos(tilt)), float(np.sin(tilt))

    def wrapped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        y = y / radius_y
        z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
        upright, forward = y * cosine + z * sine, z * cosine - y * sine
        return pattern(np.arctan2(x, forward) / np.float32(np.pi), np.arcsin(upright.clip(-1, 1)) / np.float32(np.pi))

    return wrapped


def sectors(count: int) -> Pattern:
    """Equal sectors around (0, 0), every second one in the second color; `count` is even."""
    return lambda x, y: (np.floor(np.arctan2(y, x) * np.float32(count / (2 * np.pi))) % 2).astype(np.float32)
