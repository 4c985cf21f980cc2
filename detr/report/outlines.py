"""Masks as outlines of few points, and as pictures. No torch.

Shapes: N points of an outline, M masks.
"""

import itertools
from collections.abc import Sequence

import contourpy
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

_LARGEST_SHIFT = 0.03  # how far outlines may pass by, as a share of a mask's area per length: IoU stays over 0.98
_OPACITY = 0.35  # of masks over an image

Pieces = list[list[np.ndarray]]  # of a mask: the outline of each, (N, 2), then those of its holes


def outlines(rle: dict | None, tolerance: float = 0.5, most_points: int | None = None) -> list[np.ndarray]:
    """Return the outlines of all pieces of a mask and of their holes, (N, 2) x and y in pixels; none of no mask.

    Coordinates are COCO's: the image's corner is (0, 0), its first pixel's centre (0.5, 0.5). The first point is not
    repeated at the end. Holes go round the other way, so that both rules of filling leave them out.

    Args:
        rle: COCO's compressed runs, which fill their image (`coco_json.segmentation_problem`).
        tolerance: the most pixels that an outline may pass by the mask's border; small and thin masks get less.
        most_points: where there are more points, the tolerance grows and small pieces vanish.
    """
    return [outline for piece in _pieces(rle, tolerance, most_points) for outline in piece]


def to_polygons(rle: dict | None) -> list[list[float]]:
    """Return a mask as COCO's polygons, one a piece: x, y, x, y, ... in pixels.

    They know no holes, so a piece is cut open towards each of its own, and the cut is walked there and back.
    """
    polygons = []
    for polygon, *holes in _pieces(rle):
        for hole in holes:
            distance = ((polygon[:, None] - hole) ** 2).sum(axis=-1)
            at, of_hole = np.unravel_index(np.argmin(distance), distance.shape)
            polygon = np.concatenate([polygon[: at + 1], hole[of_hole:], hole[: of_hole + 1], polygon[at:]])
        polygons.append(polygon.ravel().tolist())
    return polygons


def _pieces(rle: dict | None, tolerance: float = 0.5, most_points: int | None = None) -> Pieces:
    """Return the same as `outlines`, piece by piece."""
    left, top, width, height = (int(side) for side in coco_mask.toBbox(rle)) if rle else (0, 0, 0, 0)
    if not width * height:
        return []
    mask = coco_mask.decode(rle)[top : top + height, left : left + width]
    # With a margin, outlines close at the image's border too.
    tracer = contourpy.contour_generator(z=np.pad(mask, 1), fill_type=contourpy.FillType.OuterOffset)
    corner = np.array((left - 0.5, top - 0.5))  # the centre of the margin's first pixel
    pieces = [
        [points[begin : end - 1] + corner for begin, end in itertools.pairwise(offsets.tolist())]
        for points, offsets in zip(*tracer.filled(0.5, 1.5), strict=True)
    ]
    length = sum(len(outline) for piece in pieces for outline in piece)
    tolerance = min(tolerance, _LARGEST_SHIFT * float(mask.sum()) / length)
    pieces = _simplified(pieces, tolerance)
    while most_points and sum(len(outline) for piece in pieces for outline in piece) > most_points:
        tolerance *= 1.5
        fewer = _simplified(pieces, tolerance)
        if not fewer:  # it is all small pieces
            return [max(pieces, key=lambda piece: len(piece[0]))]
        pieces = fewer
    return pieces


def _simplified(pieces: Pieces, tolerance: float) -> Pieces:
    """Return the pieces with fewer points, without pieces and holes that have less than three then."""
    simple = ([_few_points(outline, tolerance) for outline in piece] for piece in pieces)
    return [[outline for outline in piece if len(outline) > 2] for piece in simple if len(piece[0]) > 2]


def _few_points(outline: np.ndarray, tolerance: float) -> np.ndarray:
    """Keep the points of an outline that lie off the lines between those kept already, the farthest first.

    Douglas and Peucker, Algorithms for the reduction of the number of points required to represent a digitized line or
    its caricature, 1973.
    """
    outline = np.roll(outline, -np.argmax(((outline - outline.mean(axis=0)) ** 2).sum(axis=1)), axis=0)
    points = np.concatenate([outline, outline[:1]])
    farthest = int(np.argmax(((outline - outline[0]) ** 2).sum(axis=1)))
    kept, spans = {0, farthest}, [(0, farthest), (farthest, len(outline))]
    while spans:
        begin, end = spans.pop()
        if end - begin < 2:
            continue
        along, offsets = points[end] - points[begin], points[begin + 1 : end] - points[begin]
        distance = np.abs(offsets[:, 0] * along[1] - offsets[:, 1] * along[0]) / np.hypot(*along)
        if distance.max() > tolerance:
            middle = begin + 1 + int(np.argmax(distance))
            kept.add(middle)
            spans += [(begin, middle), (middle, end)]
    return points[sorted(kept)]


# ------------------------------------------------------------------------------------------------------------- pictures


def tint_masks(image: Image.Image, masks: Sequence[dict], colors: Sequence[str]) -> Image.Image:
    """Return an RGB image with M masks (RLE) laid over it, the first on top, through which it can be seen."""
    tinted = image.copy()
    for rle, color in zip(reversed(masks), reversed(colors), strict=True):
        tinted.paste(color, mask=Image.fromarray(coco_mask.decode(rle) * round(255 * _OPACITY)))
    return tinted


def color_splash(image: Image.Image, masks: Sequence[dict]) -> Image.Image:
    """Return an RGB image in gray, but for what M masks (RLE) cover, which keeps its color."""
    splash = image.convert("L").convert("RGB")
    if masks:
        splash.paste(image, mask=Image.fromarray(coco_mask.decode(coco_mask.merge([*masks])) * 255))
    return splash
