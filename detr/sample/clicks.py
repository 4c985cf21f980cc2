"""What a person makes of what is seen of a thing: whether it is annotated, and by which clicks. No torch.

What is outlined is the visible part, as annotators do: what stands before it or the picture's edge cuts it off. A thing
that is cut in two (by a post, say) gets one outline that goes straight across the gap, since a VIA region is one
polygon. Holes are outlined over. Thin things, such as strings, cut nothing (`canvas.Canvas.line`).
"""

import contourpy
import numpy as np

from detr.importers.via.clip import polygon_area
from detr.sample.paints import Rng

MIN_POINTS, MAX_POINTS = 12, 30
_PIXELS_PER_POINT = 7  # how densely somebody clicks who is paid by the image
_MIN_SIDE = 6  # pixels: nobody annotates what is smaller
_CRUMB = 0.12  # of the largest part: nobody walks around a smaller one


def box_xyxy(mask: np.ndarray, scale: int) -> tuple[float, float, float, float]:
    """Return the box around a (scale * H, scale * W) mask, in image pixels."""
    across, down = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return across[0] / scale, down[0] / scale, (across[-1] + 1) / scale, (down[-1] + 1) / scale


def is_seen(mask: np.ndarray, scale: int, whole_area: float, least_share: float) -> bool:
    """Return whether so much of a thing is visible in a (scale * H, scale * W) mask that a person would annotate it.

    That is `least_share` of the `whole_area`, in square image pixels, that would be seen if nothing hid it.
    """
    if not mask.any() or mask.sum() < least_share * whole_area * scale**2:
        return False
    left, top, right, bottom = box_xyxy(mask, scale)
    return bool(min(right - left, bottom - top) >= _MIN_SIDE)


def click(mask: np.ndarray, scale: int, rng: Rng) -> list[tuple[int, int]]:
    """Outline a (scale * H, scale * W) mask, which must not be empty, by 12 to 30 clicks.

    Returns whole pixel coordinates (x, y) inside the image, in order. As the hand trembles, each misses the outline by
    up to about 1.5 pixels, less on small things.
    """
    contour = _contour(mask) / scale
    length = float(np.linalg.norm(contour - np.roll(contour, 1, 0), axis=1).sum())
    count = int(np.clip(round(length / _PIXELS_PER_POINT), MIN_POINTS, MAX_POINTS))
    clicks = _simplified(contour, count)
    clicks += rng.normal(0, min(0.6, length / count / 10), clicks.shape).clip(-1.2, 1.2)
    height, width = (side // scale for side in mask.shape)
    return [tuple(point) for point in np.clip(np.rint(clicks), 0, (width - 1, height - 1)).astype(int).tolist()]


def _contour(mask: np.ndarray) -> np.ndarray:
    """Return the border of a mask, (N, 2) mask pixels; where it is in several parts, the convex hull around them."""
    left, top, right, bottom = (int(side) for side in box_xyxy(mask, 1))
    tracer = contourpy.contour_generator(
        z=np.pad(mask[top:bottom, left:right], 1), fill_type=contourpy.FillType.OuterOffset
    )
    parts = zip(*tracer.filled(0.5, 1.5), strict=True)  # of each the outer border, then those of its holes
    corner = np.array((left - 0.5, top - 0.5))  # the padding's pixel ends there
    borders = [points[: starts[1] - 1] + corner for points, starts in parts]
    areas = np.array([polygon_area(border.tolist()) for border in borders])
    kept = [border for border, area in zip(borders, areas, strict=True) if area >= _CRUMB * areas.max()]
    if len(kept) == 1:
        return kept[0][:: max(1, len(kept[0]) // 100)]  # a person does not see more of it
    together = np.concatenate(kept)
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    return together[np.argmax(together @ (np.cos(angles), np.sin(angles)), axis=0)]  # the outermost towards each angle


def _simplified(contour: np.ndarray, count: int) -> np.ndarray:
    """Drop the point that makes the smallest triangle with its neighbours until `count` are left.

    Visvalingam and Whyatt, Line generalisation by repeated elimination of points, 1993.
    """
    while len(contour) > count:
        x, y = np.diff(np.concatenate([contour[-1:], contour, contour[:1]]), axis=0).T
        contour = np.delete(contour, np.argmin(np.abs(x[:-1] * y[1:] - y[:-1] * x[1:])), axis=0)
    return contour
