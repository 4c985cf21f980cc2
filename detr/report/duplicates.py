"""Find boxes that are drawn twice and images that are there twice, without comparing each with every other.

Shapes: N images or boxes, P pairs.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations

import numpy as np

SAME_BOX_IOU = 0.9  # from here on two boxes of one class are taken for one object that was drawn twice
# Copies that were scaled to a third or saved at JPEG quality 40 differ in up to 5 of 64 bits and correlate above 0.98;
# different photographs of one subject (balloons, blood cells) differ in 12 bits or more and correlate below 0.85.
MOST_DIFFERENT_BITS = 5
LEAST_CORRELATION = 0.95
_MOST_NEIGHBOURS = 100  # compared with each entry, so that a hostile file cannot make the work grow with its square


def repeated_boxes(groups: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
    """Which boxes nearly equal another one of their group (image and class) that begins further left.

    Args: groups (N,), whole numbers; boxes_xywh (N, 4). Returns (N,) bool.
    """
    order = np.lexsort((boxes_xywh[:, 0], groups))
    groups, boxes_xywh = groups[order], boxes_xywh[order]
    left, width = boxes_xywh[:, 0], boxes_xywh[:, 2]

    def may_match(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        # What j begins later is missing from the overlap: beyond this share of i's width the IoU cannot be reached.
        return (groups[i] == groups[j]) & (left[j] - left[i] <= (1 - SAME_BOX_IOU) * width[i])

    repeated = np.zeros(len(groups), dtype=bool)
    for i, j in _following(len(groups), may_match):
        repeated[order[j[_iou(boxes_xywh[i], boxes_xywh[j]) >= SAME_BOX_IOU]]] = True
    return repeated


def _iou(a_xywh: np.ndarray, b_xywh: np.ndarray) -> np.ndarray:
    low = np.maximum(a_xywh[:, :2], b_xywh[:, :2])
    high = np.minimum(a_xywh[:, :2] + a_xywh[:, 2:], b_xywh[:, :2] + b_xywh[:, 2:])
    shared = (high - low).clip(0).prod(1)
    return shared / np.maximum(a_xywh[:, 2:].prod(1) + b_xywh[:, 2:].prod(1) - shared, 1e-9)


class Alikes:
    """Which images look alike: equal thumbnails, or thumbnails whose hashes and grey values are close.

    Args: thumbnails (N, 16, 18) uint8 of all images together.
    """

    def __init__(self, thumbnails: np.ndarray) -> None:
        cells = np.prod(thumbnails.shape[1:])
        distinct, self._look = np.unique(thumbnails.reshape(-1, cells), axis=0, return_inverse=True)
        self._look = self._look.reshape(-1)  # NumPy 2.0 returned it as a column
        self._count = len(distinct)
        pairs = near_pairs(difference_hashes(distinct.reshape(-1, *thumbnails.shape[1:])))
        self._pairs = pairs[_correlation(distinct[pairs[:, 0]], distinct[pairs[:, 1]]) >= LEAST_CORRELATION]

    def firsts(self, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each image the first of the images `among` (N,) bool with an equal, and with a close thumbnail.

        Returns (N,) positions twice, N where there is none; an image among them may be its own first equal one.
        """
        none = len(self._look)
        equal, close = np.full(self._count, none), np.full(self._count, none)
        np.minimum.at(equal, self._look[among], np.flatnonzero(among))
        for here, there in (self._pairs.T, self._pairs.T[::-1]):
            np.minimum.at(close, here, equal[there])
        return equal[self._look], close[self._look]


def difference_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 16, 18) grey values -> (N, 8) uint8: a bit for each of 8 x 8 places, whether it is brighter to the right."""
    cells = thumbnails.reshape(-1, 8, 2, 9, 2).mean((2, 4))
    return np.packbits(cells[:, :, 1:] > cells[:, :, :-1], axis=2)[:, :, 0]


def near_pairs(hashes: np.ndarray) -> np.ndarray:
    """Pairs (P, 2), sorted and first < second, of hashes (N, 8) uint8 that differ in at most `MOST_DIFFERENT_BITS`.

    So many bits lie in at most 5 of the 8 bytes, the other 3 agree: only hashes with some 3 equal bytes are compared.
    """
    found = np.empty((0, 2), dtype=np.int64)
    for columns in combinations(range(8), 8 - MOST_DIFFERENT_BITS):
        keys = hashes[:, columns] @ np.array([1 << 16, 1 << 8, 1])
        order = np.argsort(keys, kind="stable")
        near = [found]
        for i, j in _following(len(keys), partial(_equal, keys[order])):
            pairs = np.sort(np.stack((order[i], order[j]), axis=1), axis=1)
            different = np.unpackbits(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]], axis=1).sum(1)
            near.append(pairs[different <= MOST_DIFFERENT_BITS])
        found = np.unique(np.concatenate(near), axis=0)
    return found


def _equal(keys: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return keys[i] == keys[j]


def _following(
    count: int, may_match: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (i, i + 1), then (i, i + 2), ... of sorted entries, each i for as long as it `may_match`."""
    i = np.arange(count)
    for step in range(1, _MOST_NEIGHBOURS + 1):
        i = i[i + step < count]
        i = i[may_match(i, i + step)]
        if not len(i):
            return
        yield i, i + step


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the rows of two (P, V) arrays: the same scene in another light still correlates."""
    a, b = (rows - rows.mean(1, keepdims=True, dtype=np.float32) for rows in (a, b))
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)
