"""Outlines as arrays of points. No torch.

Every outline is (N, 2) float, x right and y down, closed without repeating its first point. Things are drawn in a frame
of their own that reaches from about -1 to 1; `canvas.Pose` places them in a picture.
"""

import numpy as np


def points(*xy: tuple[float, float]) -> np.ndarray:
    """Return an outline from its corners."""
    return np.array(xy, np.float64)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the corners of an upright rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(rx: float, ry: float, x: float = 0, y: float = 0, power: float = 2, count: int = 40) -> np.ndarray:
    """Return an upright ellipse with radii rx and ry around (x, y); from a `power` of 4 it is a rounded rectangle."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.sign(circle) * np.abs(circle) ** (2 / power) * (rx, ry) + (x, y)


def symmetric(right_half: np.ndarray) -> np.ndarray:
    """Return the outline whose right half is given, from the top down."""
    return np.concatenate([right_half, right_half[::-1] * (-1, 1)])


def smooth(corners: np.ndarray, steps: int = 6) -> np.ndarray:
    """Return a closed curve through the corners: Catmull-Rom splines, `steps` points from one corner to the next."""
    before, after, beyond = np.roll(corners, 1, 0), np.roll(corners, -1, 0), np.roll(corners, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (before, corners, after, beyond))
    curve = p1 + t / 2 * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)


def bezier(start: np.ndarray, pull_start: np.ndarray, pull_end: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
    """Return an open cubic curve from `start` to `end` of `count` points."""
    t = np.linspace(0, 1, count)[:, None]
    return (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * pull_start + 3 * (1 - t) * t**2 * pull_end + t**3 * end


def band(line: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return the outline of an open line (N, 2) drawn with a width, one for all or one per point."""
    along = np.gradient(line, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
    half = np.broadcast_to(np.asarray(width) / 2, len(line))[:, None]
    return np.concatenate([line + half * across, (line - half * across)[::-1]])


def turned(outline: np.ndarray, angle: float, x: float = 0.0, y: float = 0.0, size: float = 1.0) -> np.ndarray:
    """Return the outline scaled, turned clockwise by `angle` radians and moved by (x, y)."""
    cosine, sine = np.cos(angle) * size, np.sin(angle) * size
    return outline @ np.array(((cosine, sine), (-sine, cosine))) + (x, y)
