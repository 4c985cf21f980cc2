"""Copy-paste augmentation: objects of other training images, cut out along their polygons (Dwibedi et al. 2017, Cut,
Paste and Learn; Ghiasi et al. 2021, Simple Copy-Paste).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SMALLEST_SIDE = 12  # pixels: what is smaller is not pasted
_MOST = 4  # objects pasted into an image
_TRIALS = 8
LARGEST_SHARE = 0.6  # of the image's shorter side
_MOST_HIDDEN = 0.3  # of an object's box
_SOFT_EDGE = 0.7  # pixels


def paste_objects(
    image: Image.Image,
    boxes_xyxy: np.ndarray,
    draw: Callable[[np.random.Generator, int], tuple[Image.Image, int] | None],
    rng: np.random.Generator,
) -> tuple[Image.Image, np.ndarray, list[int], np.ndarray]:
    """Paste 1 to 4 objects into an RGB image where they hide little of what is annotated there.

    Args:
        image, boxes_xyxy: it is left as it is; (T, 4) in its pixels.
        draw: (random numbers, largest side) -> an object as RGBA, and its label; None for none.

    Returns the image; the boxes of before and those of the P objects that were pasted, (T + P, 4) float32; the labels
    of the P; and where each of them is pasted, (P, H, W) bool: a later one lies on top.
    """
    image, boxes, labels, masks = image.copy(), list(boxes_xyxy), [], []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        drawn = draw(rng, round(LARGEST_SHARE * min(image.size)))
        if drawn is None:
            continue
        cutout, label = drawn
        for _ in range(_TRIALS):
            left = int(rng.integers(0, max(1, image.width - cutout.width + 1)))
            top = int(rng.integers(0, max(1, image.height - cutout.height + 1)))
            box = np.array((left, top, left + cutout.width, top + cutout.height), np.float32)
            if all(_hidden_share(other, box) <= _MOST_HIDDEN for other in boxes):
                image.paste(cutout, (left, top), cutout)  # the alpha channel is the mask
                boxes.append(box)
                labels.append(label)
                masks.append(np.zeros((image.height, image.width), dtype=bool))
                place = masks[-1][top : top + cutout.height, left : left + cutout.width]
                place[:] = np.asarray(cutout.getchannel("A"))[: place.shape[0], : place.shape[1]] >= 128
                break
    masks = np.array(masks, dtype=bool).reshape(-1, image.height, image.width)
    return image, np.array(boxes, np.float32).reshape(-1, 4), labels, masks


def covered(masks: np.ndarray, on_top: np.ndarray) -> np.ndarray:
    """Return (T + P, H, W): masks (T, H, W), then those of objects that were pasted on top one after the other, each
    without what lies over it.
    """
    together = np.concatenate([masks, on_top])
    for number in range(len(masks), len(together)):
        together[:number] &= ~together[number]
    return together


def _hidden_share(box_xyxy: np.ndarray, by_xyxy: np.ndarray) -> float:
    """Return the larger of: the share of the first box that the second covers, and the reverse."""
    low, high = np.maximum(box_xyxy[:2], by_xyxy[:2]), np.minimum(box_xyxy[2:], by_xyxy[2:])
    intersection = np.prod(np.maximum(high - low, 0))
    return float(intersection / min(np.prod(box[2:] - box[:2]) for box in (box_xyxy, by_xyxy)))


def cut_out(
    image: Image.Image, polygons: list[np.ndarray], box_xyxy: np.ndarray, size: tuple[int, int], hflip: bool
) -> Image.Image:
    """Return the object inside `polygons` as RGBA of `size` (width, height), with a soft edge; its box is the image."""
    left, top, right, bottom = np.minimum(box_xyxy, np.tile(image.size, 2)).tolist()
    piece = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    factors = np.array((size[0] / (right - left), size[1] / (bottom - top)))
    mask = Image.new("L", size)
    for polygon in polygons:
        ImageDraw.Draw(mask).polygon(((polygon - (left, top)) * factors).ravel().tolist(), fill=255)
    piece.putalpha(mask.filter(ImageFilter.GaussianBlur(_SOFT_EDGE)))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if hflip else piece
