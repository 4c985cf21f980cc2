"""Find boxes that are drawn twice and images that are there twice. No torch.

Shapes: N images or boxes.
"""

import numpy as np

from detr.data.coco_json import iou_xywh

SAME_BOX_IOU = 0.9  # from here on two boxes of one class are taken for one object that was drawn twice
# Copies that were scaled to a third or saved at JPEG quality 40 differ in up to 5 of 64 bits and correlate above 0.98;
# different photographs of one subject (balloons, blood cells) differ in 12 bits or more and correlate below 0.85.
MOST_DIFFERENT_BITS = 5
LEAST_CORRELATION = 0.95
_MOST_NEIGHBOURS = 64  # compared with each box, so that a hostile file cannot make the work grow with its square
_BLOCK = 256  # images that are compared with all earlier ones at once


def repeated_boxes(groups: np.ndarray, boxes_xywh: np.ndarray) -> np.ndarray:
    """Return which boxes nearly equal another one of their group (image and class) that begins further left.

    Args: groups (N,), whole numbers; boxes_xywh (N, 4). Returns (N,) bool.
    """
    order = np.lexsort((boxes_xywh[:, 0], groups))
    groups, boxes_xywh = groups[order], boxes_xywh[order]
    left, width = boxes_xywh[:, 0], boxes_xywh[:, 2]
    repeated = np.zeros(len(groups), dtype=bool)
    i = np.arange(len(groups))
    for step in range(1, _MOST_NEIGHBOURS + 1):
        i = i[i + step < len(groups)]
        # What j begins later is missing from the overlap: beyond this share of i's width the IoU cannot be reached.
        i = i[(groups[i] == groups[i + step]) & (left[i + step] - left[i] <= (1 - SAME_BOX_IOU) * width[i])]
        j = i + step
        repeated[order[j[iou_xywh(boxes_xywh[i], boxes_xywh[j]) >= SAME_BOX_IOU]]] = True
    return repeated


def find_alikes(thumbnails: np.ndarray, train_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which images look alike: equal thumbnails, or thumbnails whose hashes and grey values are close.

    Args: thumbnails (N, 16, 18) uint8, those of the training images first; the number of these.

    Returns positions (N,) twice: of an earlier image of the same split, and for validation images of a training image;
    N where there is none. Of several, equal ones come first.
    """
    none = len(thumbnails)
    own, in_training = np.full(none, none), np.full(none, none)
    is_val = np.arange(none) >= train_count
    kinds = np.unique(thumbnails, axis=0, return_inverse=True)[1].reshape(-1)  # NumPy 2.0 returned a column
    signs, pixels = _hash_signs(thumbnails), _standardized(thumbnails)
    for start in range(0, none, _BLOCK):
        rows, others = slice(start, start + _BLOCK), slice(start + _BLOCK)
        close = signs[rows] @ signs[others].T >= 64 - 2 * MOST_DIFFERENT_BITS
        close &= pixels[rows] @ pixels[others].T >= LEAST_CORRELATION
        likeness = np.add(close, kinds[rows, None] == kinds[others], dtype=np.uint8)
        likeness = np.tril(likeness, start - 1)  # to earlier ones only
        same = is_val[rows, None] == is_val[others]
        for partners, of_split in ((own, likeness * same), (in_training, likeness * ~same)):
            partners[rows] = np.where(of_split.any(1), of_split.argmax(1), none)
    return own, in_training


def _hash_signs(thumbnails: np.ndarray) -> np.ndarray:
    """Map (N, 16, 18) gray values to (N, 64): 1 for each of 8 x 8 places that is brighter right, -1 for the others.

    The product of two such rows is 64 less twice the number of bits in which the difference hashes differ.
    """
    cells = thumbnails.reshape(-1, 8, 2, 9, 2).mean((2, 4))
    return np.where(cells[:, :, 1:] > cells[:, :, :-1], np.float32(1), np.float32(-1)).reshape(-1, 64)


def _standardized(thumbnails: np.ndarray) -> np.ndarray:
    """Map (N, 16, 18) gray values to (N, 288) whose products are correlations; 0 where a thumbnail is of one gray."""
    values = thumbnails.reshape(-1, 16 * 18).astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-3)
