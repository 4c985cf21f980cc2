"""The polygon that a person would click around what is seen of a thing. No torch.

What is outlined is the visible part, as annotators do: what stands before it or the picture's edge cuts it off. A thing
that is cut in two (by a post, say) gets one outline that goes straight across the gap, since a VIA region is one
polygon. Holes are outlined over. Thin things, such as strings, cut nothing (`canvas.Canvas.line`).
"""

import numpy as np

MIN_POINTS, MAX_POINTS = 12, 30
_PIXELS_PER_POINT = 9  # how densely somebody clicks who is paid by the image
_CRUMB = 0.12  # of the largest part
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up


def click(mask: np.ndarray, scale: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Outline a mask by 12 to 30 clicks.

    Args:
        mask: (scale * H, scale * W) bool, not empty, without crumbs.
        scale: mask pixels per image pixel along a side.
        rng: where the hand trembles.

    Returns whole pixel coordinates (x, y) inside the image, in order; corners are clicked first, then the longest ways
    between them are filled. Each click misses the outline by up to about 1.5 pixels, less on small things.
    """
    contour = _one_contour(mask) / scale
    length = np.linalg.norm(np.diff(contour, axis=0, append=contour[:1]), axis=1)
    count = int(np.clip(round(length.sum() / _PIXELS_PER_POINT), MIN_POINTS, MAX_POINTS))
    tolerance = 1.2
    while len(chosen := _corners(contour, tolerance)) > count:
        tolerance *= 1.3
    chosen = _filled(chosen, np.concatenate([[0], np.cumsum(length)]), count)
    tremble = min(0.6, length.sum() / count / 10)
    clicks = contour[chosen] + rng.normal(0, tremble, (len(chosen), 2)).clip(-1.2, 1.2)
    height, width = (side // scale for side in mask.shape)
    return [tuple(point) for point in np.clip(np.rint(clicks), 0, (width - 1, height - 1)).astype(int).tolist()]


def without_crumbs(mask: np.ndarray) -> np.ndarray:
    """Return the mask without parts so small beside the largest that nobody would walk around them."""
    kept = np.zeros_like(mask)
    if mask.any():
        window = _window(mask)
        parts = [inside & mask[window] for _, inside in _parts(mask[window])]
        largest = max(part.sum() for part in parts)
        kept[window] = np.logical_or.reduce([part for part in parts if part.sum() >= _CRUMB * largest])
    return kept


def outline_of(mask: np.ndarray) -> np.ndarray:
    """The outer border of the part of a mask that comes first in reading order: (N, 2) corners of pixels, clockwise."""
    padded = np.pad(mask, 1)
    wide = padded.shape[1]
    start_y, start_x = divmod(int(padded.argmax()), wide)
    pixels = padded.tobytes()  # a tenth of an array's time for one pixel at a time
    # For a step right, down, left, up: the pixel ahead to the left of the corner, and the one ahead to its right.
    ahead = (((0, -1), (0, 0)), ((0, 0), (-1, 0)), ((-1, 0), (-1, -1)), ((-1, -1), (0, -1)))
    x, y, way, border = start_x, start_y, 0, []
    while not border or (x, y) != (start_x, start_y):
        border.append((x - 1, y - 1))
        x, y = x + _STEPS[way][0], y + _STEPS[way][1]
        (left_x, left_y), (right_x, right_y) = ahead[way]
        if pixels[(y + left_y) * wide + x + left_x]:
            way = (way - 1) % 4
        elif not pixels[(y + right_y) * wide + x + right_x]:
            way = (way + 1) % 4
    return np.array(border)


def _one_contour(mask: np.ndarray) -> np.ndarray:
    """Return the border of a mask; where it is in several parts, the hull around them, a point per pixel or more."""
    window = _window(mask)
    corner = (window[1].start, window[0].start)
    borders = [(border + corner).astype(float) for border, _ in _parts(mask[window])]
    if len(borders) == 1:
        return borders[0]
    hull = _hull(np.concatenate(borders))
    sides = zip(hull, np.roll(hull, -1, 0), strict=True)
    return np.concatenate([np.linspace(a, b, max(2, int(np.hypot(*(b - a)))), endpoint=False) for a, b in sides])


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold all of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _parts(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the parts of a mask that do not touch: the border of each, and its pixels with its holes, (H, W) bool."""
    rest, parts = mask.copy(), []
    while rest.any():
        border = outline_of(rest)
        inside = _enclosed(border, mask.shape)
        parts.append((border, inside))
        rest &= ~inside
    return parts


def _enclosed(border: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (H, W) bool of the pixels inside a border of pixel corners, holes included."""
    after = np.roll(border, -1, 0)
    upright = border[:, 0] == after[:, 0]
    crossings = np.zeros((shape[0], shape[1] + 1), np.int32)
    np.add.at(crossings, (np.minimum(border, after)[upright, 1], border[upright, 0]), 1)
    return np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1


def _hull(points: np.ndarray) -> np.ndarray:
    """Return the convex hull of (N, 2) points, by Andrew's monotone chain."""
    ordered = sorted(set(map(tuple, points.tolist())))

    def half(sequence: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]), float)


def _corners(contour: np.ndarray, tolerance: float) -> list[int]:
    """Indices of the points that say the contour's shape to within `tolerance` pixels (Douglas and Peucker 1973)."""
    first = int(np.argmax(np.linalg.norm(contour - contour.mean(0), axis=1)))
    second = int(np.argmax(np.linalg.norm(contour - contour[first], axis=1)))
    low, high = min(first, second), max(first, second)
    kept, spans = {low, high}, [(low, high), (high, low + len(contour))]
    while spans:
        start, end = spans.pop()
        between = np.arange(start + 1, end) % len(contour)
        if not len(between):
            continue
        base, tip = contour[start % len(contour)], contour[end % len(contour)]
        along, there = tip - base, contour[between] - base
        share = (there @ along / max(float(along @ along), 1e-9)).clip(0, 1)  # of the nearest point on the segment
        off = np.linalg.norm(there - share[:, None] * along, axis=1)
        worst = int(np.argmax(off))
        if off[worst] > tolerance:
            kept.add(int(between[worst]))
            spans += [(start, start + 1 + worst), (start + 1 + worst, end)]
    return sorted(kept)


def _filled(chosen: list[int], position: np.ndarray, count: int) -> list[int]:
    """Add points halfway along the longest gaps until there are `count`; `position` is the way along the contour."""
    total = position[-1]
    while len(chosen) < count:
        starts = position[chosen]
        gaps = np.diff(starts, append=starts[0] + total)
        widest = int(np.argmax(gaps))
        middle = (starts[widest] + gaps[widest] / 2) % total
        extra = min(int(np.searchsorted(position, middle)), len(position) - 2)
        if extra in chosen:
            break
        chosen = sorted([*chosen, extra])
    return chosen
