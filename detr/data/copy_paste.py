"""Copy-paste augmentation: objects of other training images, cut out along their polygons (Dwibedi et al. 2017, Cut,
Paste and Learn; Ghiasi et al. 2021, Simple Copy-Paste).
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SMALLEST_SIDE = 12  # pixels: what is smaller is not pasted
_MOST = 4  # objects pasted into an image
_TRIALS = 8
LARGEST_SHARE = 0.6  # of the image's shorter side
_MOST_HIDDEN = 0.3  # of an object's box
_SOFT_EDGE = 0.7  # pixels


class PackedPolygons:
    """The polygons of many objects in three arrays, which loader processes share without copying.

    Args: for each object its COCO segmentation; what is no list of polygons (a mask, nothing) has none.
    """

    def __init__(self, segmentations: Sequence[object]) -> None:
        polygons = [
            [np.asarray(polygon, np.float32) for polygon in segmentation] if isinstance(segmentation, list) else []
            for segmentation in segmentations
        ]
        flat = [polygon for own in polygons for polygon in own]
        self._points_xy = np.concatenate([np.zeros(0, np.float32), *flat]).reshape(-1, 2)
        self._point_starts = np.cumsum([0, *(len(polygon) // 2 for polygon in flat)])
        self._starts = np.cumsum([0, *map(len, polygons)])

    def __getitem__(self, index: int) -> list[np.ndarray]:
        """Return the polygons of an object, (N, 2) each."""
        numbers = range(self._starts[index], self._starts[index + 1])
        return [self._points_xy[self._point_starts[n] : self._point_starts[n + 1]] for n in numbers]

    def counts(self) -> np.ndarray:
        """Return how many polygons each object has."""
        return np.diff(self._starts)


def paste_objects(
    image: Image.Image,
    boxes_xyxy: np.ndarray,
    draw: Callable[[np.random.Generator, int], tuple[Image.Image, int] | None],
    rng: np.random.Generator,
) -> tuple[Image.Image, np.ndarray, list[int]]:
    """Paste 1 to 4 objects into an RGB image where they hide little of what is annotated there.

    Args:
        image: it is left as it is.
        boxes_xyxy: (T, 4) in its pixels.
        draw: (random numbers, largest side) -> an object as RGBA, and its label; None for none.
        rng: the random numbers.

    Returns the image, the boxes (T + P, 4) with those of the P pasted objects behind the others, and the P labels.
    """
    image, boxes, labels = image.copy(), list(boxes_xyxy), []
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
                break
    return image, np.array(boxes, np.float32).reshape(-1, 4), labels


def _hidden_share(box_xyxy: np.ndarray, by_xyxy: np.ndarray) -> float:
    """Return the larger of: the share of the first box that the second covers, and the reverse."""
    low, high = np.maximum(box_xyxy[:2], by_xyxy[:2]), np.minimum(box_xyxy[2:], by_xyxy[2:])
    intersection = np.prod(np.maximum(high - low, 0))
    return float(intersection / min(np.prod(box[2:] - box[:2]) for box in (box_xyxy, by_xyxy)))


def cut_out(
    image: Image.Image, polygons: list[np.ndarray], box_xyxy: np.ndarray, size: tuple[int, int], mirrored: bool
) -> Image.Image:
    """Return the object inside `polygons` as RGBA of `size` (width, height), with a soft edge; its box is the image."""
    left, top, right, bottom = np.minimum(box_xyxy, np.tile(image.size, 2)).tolist()
    piece = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    factors = np.array((size[0] / (right - left), size[1] / (bottom - top)))
    mask = Image.new("L", size)
    for polygon in polygons:
        ImageDraw.Draw(mask).polygon(((polygon - (left, top)) * factors).ravel().tolist(), fill=255)
    piece.putalpha(mask.filter(ImageFilter.GaussianBlur(_SOFT_EDGE)))
    return piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else piece
