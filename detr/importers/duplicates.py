"""Find boxes that are drawn twice and images that are there twice, without comparing each with every other.

Shapes: N images or boxes, P pairs of them.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

from detr.data.coco_json import iou_xywh

SAME_BOX_IOU = 0.9  # from here on two boxes of one class are taken for one object that was drawn twice
# Copies that were scaled to a third or saved at JPEG quality 40 differ in up to 5 of 64 bits and correlate above 0.98;
# different photographs of one subject (balloons, blood cells) differ in 12 bits or more and correlate below 0.85.
MOST_DIFFERENT_BITS = 5
LEAST_CORRELATION = 0.95
_MOST_NEIGHBOURS = 64  # compared with each entry, so that a hostile file cannot make the work grow with its square


def repeated_boxes(groups: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
    """Return which boxes nearly equal another one of their group (image and class) that begins further left.

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
        repeated[order[j[iou_xywh(boxes_xywh[i], boxes_xywh[j]) >= SAME_BOX_IOU]]] = True
    return repeated


def find_alikes(thumbnails: np.ndarray, train_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which images look alike: equal thumbnails, or thumbnails whose hashes and grey values are close.

    Args: thumbnails (N, 16, 18) uint8, those of the training images first; the number of these.

    Returns positions (N,) twice: of an earlier image of the same split, and for validation images of a training image;
    N where there is none.
    """
    none = len(thumbnails)
    distinct, kind = np.unique(thumbnails, axis=0, return_inverse=True)
    kind = kind.reshape(-1)  # NumPy 2.0 returned it as a column
    train_first, val_first = (np.full(len(distinct), none) for _ in range(2))  # images with each look
    np.minimum.at(train_first, kind[:train_count], np.arange(train_count))
    np.minimum.at(val_first, kind[train_count:], np.arange(train_count, none))

    def earlier(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        close = _close_partners(distinct, own, others, none)[kind]
        return np.where(others[kind] < np.arange(none), others[kind], close)

    is_val = np.arange(none) >= train_count
    own = np.where(is_val, earlier(val_first, val_first), earlier(train_first, train_first))
    return own, np.where(is_val, earlier(val_first, train_first), none)


def _close_partners(thumbnails: np.ndarray, own: np.ndarray, others: np.ndarray, none: int) -> np.ndarray:
    """For each of L thumbnails one of the images `others` (L,), with a close one, that precedes that in `own` (L,).

    One suffices: the pictures of a film, hundreds that look alike, would make tens of thousands of pairs.
    """
    partners, searching = np.full(len(thumbnails), none), own < none
    hashes = difference_hashes(thumbnails)
    for i, j in candidates(hashes):
        for a, b in ((i, j), (j, i)):
            useful = searching[a] & (others[b] < own[a])
            a, b = a[useful], b[useful]
            close = are_close(hashes, thumbnails, a, b)
            partners[a[close]] = others[b[close]]
            searching[a[close]] = False
    return partners


def are_close(hashes: np.ndarray, thumbnails: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return whether the images at positions a and b (P,) show the same scene, in whatever lighting: (P,) bool."""
    close = np.unpackbits(hashes[a] ^ hashes[b], axis=1).sum(1) <= MOST_DIFFERENT_BITS
    close[close] = _correlation(thumbnails[a[close]], thumbnails[b[close]]) >= LEAST_CORRELATION
    return close


def difference_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Map (N, 16, 18) gray values to (N, 8) uint8: a bit for each of 8 x 8 places, whether it is brighter right."""
    cells = thumbnails.reshape(-1, 8, 2, 9, 2).mean((2, 4))
    return np.packbits(cells[:, :, 1:] > cells[:, :, :-1], axis=2)[:, :, 0]


def candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of positions, among them all of hashes (N, 8) uint8 that differ in at most `MOST_DIFFERENT_BITS`.

    So many bits lie in at most 5 of the 8 bytes, the other 3 agree: hashes are sorted by every 3 of their bytes, and
    those with equal keys are compared, up to `_MOST_NEIGHBOURS` of them.
    """
    for columns in combinations(range(8), 8 - MOST_DIFFERENT_BITS):
        keys = hashes[:, columns] @ np.array([1 << 16, 1 << 8, 1])
        order = np.argsort(keys, kind="stable")
        for i, j in _following(len(keys), lambda i, j, keys=keys[order]: keys[i] == keys[j]):
            yield order[i], order[j]


def _following(
    count: int, may_match: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions (i, i + 1), then (i, i + 2), ... of sorted entries, each i for as long as it `may_match`."""
    i = np.arange(count)
    for step in range(1, _MOST_NEIGHBOURS + 1):
        i = i[i + step < count]
        i = i[may_match(i, i + step)]
        if not len(i):
            return
        yield i, i + step


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlation of the gray values of two times P thumbnails."""
    a, b = (pixels.reshape(-1, 16 * 18).astype(np.float32) for pixels in (a, b))
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)
