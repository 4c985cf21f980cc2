"""What a surface looks like: its normals, its patterns, and how light falls on it. No torch.

A *surface* is a function from an outline and positions in its frame, two arrays that broadcast to (h, w), to the x and
y of the unit normal there, (h, w) each; z, towards the viewer, follows. A *pattern* is a function from positions to
where the second color is, (h, w) bool.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from detr.sample.geometry import turned
from detr.sample.paints import Color, Rng

Normals = tuple[np.ndarray, np.ndarray]
Surface = Callable[[np.ndarray, np.ndarray, np.ndarray], Normals]
Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Light(NamedTuple):
    """The light of one picture: one lamp or sun, and what comes from all around."""

    direction: np.ndarray  # (3,) unit vector towards it: x right, y down, z towards the viewer
    color: np.ndarray  # (3,) of the lamp
    around: np.ndarray  # (3,) from everywhere

    def in_frame(self, angle: float) -> "Light":
        """Return the light as it falls on a thing that is turned by `angle`, in its frame."""
        x, y = turned(self.direction[:2], -angle)
        return self._replace(direction=np.array((x, y, self.direction[2])))


EVEN_LIGHT = Light(np.array((0, 0, 1.0)), np.zeros(3), np.ones(3))  # painted colors are the ones seen


def lamp_light(rng: Rng, color: Color, around: Color) -> Light:
    """Return the light of a lamp or sun above, to the left or right of the viewer's shoulder."""
    direction = np.array((rng.choice((-1, 1)) * rng.uniform(0.25, 0.6), -rng.uniform(0.45, 0.75), 0.65))
    return Light(direction / np.linalg.norm(direction), np.asarray(color), np.asarray(around))


def shade(albedo: np.ndarray, normals: Normals, light: Light, gloss: float, glow: float) -> np.ndarray:
    """Return the (h, w, 3) colors of a lit surface: diffuse light, a darker rim, a soft and a sharp highlight.

    `albedo` are the colors under white light, (3,) or (h, w, 3). `gloss` is the strength of the
    highlights and `glow` the light that comes through from behind, as in thin rubber, both 0..1.
    """
    normal_x, normal_y = normals
    normal_z = np.sqrt(np.maximum(1 - normal_x**2 - normal_y**2, 0))
    x, y, z = (float(value) for value in light.direction)
    facing = normal_x * x + normal_y * y + normal_z * z
    direct = np.maximum(facing, 0) + glow * np.maximum(-facing, 0)
    rim = 1 - 0.28 * (1 - normal_z) ** 2
    tone = (light.around + direct[..., None] * light.color) * rim[..., None]
    color = albedo * tone.astype(np.float32)
    if gloss:
        half = light.direction + np.array((0, 0, 1))
        x, y, z = (half / np.linalg.norm(half)).tolist()
        shine = np.maximum(normal_x * x + normal_y * y + normal_z * z, 0)
        soft = np.square(np.square(np.square(np.square(shine))))  # a tenth of the time of shine**16
        white = gloss * (0.34 * soft + 0.62 * ((shine - 0.978) * 90).clip(0, 1))
        color = color + (1 - color) * white[..., None]
    return color


def dome(outline: np.ndarray, x: np.ndarray, y: np.ndarray, power: float = 1, inner: float = 0) -> Normals:
    """Swell an outline that is seen whole from its middle.

    With a high `power` it is flat in the middle; with `inner` it is a ring whose hole has that share of its radius.
    """
    middle = (outline.min(0) + outline.max(0)) / 2
    around = outline - middle
    x, y = x - np.float32(middle[0]), y - np.float32(middle[1])
    distance = np.sqrt(x**2 + y**2) + np.float32(1e-6)
    angles = np.arctan2(around[:, 1], around[:, 0])
    radius = np.interp(np.arctan2(y, x), angles, np.linalg.norm(around, axis=1), period=2 * np.pi).astype(np.float32)
    share = np.minimum(distance / radius, 0.999)
    steep = ((2 * share - 1 - inner) / (1 - inner)).clip(-0.97, 0.97) if inner else share**power
    return x * (steep / distance), y * (steep / distance)


def lathe(outline: np.ndarray, x: np.ndarray, y: np.ndarray) -> Normals:
    """Turn an outline around its upright middle line."""
    middle = (outline[:, 0].min() + outline[:, 0].max()) / 2
    right = outline[outline[:, 0] > middle]
    right = right[np.argsort(right[:, 1])]
    half = np.interp(y, right[:, 1], right[:, 0] - middle).astype(np.float32)
    normal_x = ((x - np.float32(middle)) / np.maximum(half, np.float32(1e-3))).clip(-0.95, 0.95)
    return normal_x, np.zeros_like(normal_x)


def stripes(angle: float, per_unit: float, share: float = 0.5) -> Pattern:
    """Straight stripes; `per_unit` of them in a unit of length, `share` of each in the second color."""
    across_x, across_y = float(np.cos(angle) * per_unit), float(np.sin(angle) * per_unit)
    return lambda x, y: (x * across_x + y * across_y) % 1 < share


def dots(per_unit: float, radius: float) -> Pattern:
    """Polka dots in staggered rows, of `radius` in units of their distance."""

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        row = np.floor(y * per_unit)
        across = (x * per_unit + row % 2 / 2) % 1 - 0.5
        return across**2 + (y * per_unit - row - 0.5) ** 2 < radius**2

    return pattern


def bricks(per_unit: float) -> Pattern:
    """Mortar between courses of bricks, `per_unit` courses in a unit of length."""

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        row = np.floor(y * per_unit)
        return (y * per_unit - row < 0.12) | ((x * per_unit / 2.2 + row % 2 / 2) % 1 < 0.05)

    return pattern


def sectors(count: int) -> Pattern:
    """Equal sectors around (0, 0), every second one in the second color; `count` is even."""
    return lambda x, y: np.floor(np.arctan2(y, x) * np.float32(count / (2 * np.pi))) % 2 == 1


def on_ball(pattern: Pattern, tilt: float) -> Pattern:
    """Return a pattern wrapped around a ball: x becomes longitude, y latitude, in units of pi, about a tilted axis."""
    cosine, sine = float(np.cos(tilt)), float(np.sin(tilt))

    def wrapped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
        upright, forward = y * cosine + z * sine, z * cosine - y * sine
        return pattern(np.arctan2(x, forward) / np.float32(np.pi), np.arcsin(upright.clip(-1, 1)) / np.float32(np.pi))

    return wrapped
