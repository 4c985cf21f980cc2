"""Outlines of objects: COCO segmentations, packed for the loader's processes, and as masks of augmented images.

Masks are rasterized as COCO does it, by pycocotools.
"""

import pickle
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detr.data.coco_json import segmentation_problem, to_rle
from detr.data.transforms import AugmentParams, apply_to_points, resample
from utils import UserError


class PackedList:
    """Plain values pickled into one array, which loader processes share without copying; read one at a time."""

    def __init__(self, values: Iterable[object]) -> None:
        pickled = [pickle.dumps(value, pickle.HIGHEST_PROTOCOL) for value in values]
        self._bytes = np.frombuffer(b"".join(pickled), np.uint8)
        self._starts = np.cumsum([0, *map(len, pickled)])

    def __getitem__(self, index: int) -> object:
        return pickle.loads(self._bytes[self._starts[index] : self._starts[index + 1]])


def to_points(polygon: list[float]) -> np.ndarray:
    """Return a polygon of COCO, x and y in turn, as points (N, 2)."""
    return np.asarray(polygon, np.float32).reshape(-1, 2)


def check_outlines(annotations: Sequence[dict], sizes_hw: Sequence[tuple[int, int]], source: str) -> None:
    """Raise UserError that names the first of COCO's annotations without an outline, or with one that is none.

    `sizes_hw` are those of the image of each; `source`, their file, is for the message.
    """
    for annotation, size_hw in zip(annotations, sizes_hw, strict=True):
        if problem := segmentation_problem(annotation.get("segmentation"), size_hw):
            raise UserError(
                f"{source}: annotation {annotation['id']} of image {annotation['image_id']} {problem}; --masks "
                "learns from outlines: polygons or masks (RLE) of every object"
            )


def draw_masks(segmentations: Sequence[list | dict], params: AugmentParams, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (T, H, W) bool: COCO's segmentations in an image of `size_hw`, cropped, resized and flipped as it is."""
    masks = np.zeros((len(segmentations), *params.size_hw), dtype=bool)
    for row, segmentation in enumerate(segmentations):
        if isinstance(segmentation, list):
            moved = [apply_to_points(to_points(polygon), params).ravel().tolist() for polygon in segmentation]
            masks[row] = coco_mask.decode(to_rle(moved, params.size_hw))
        else:
            whole = coco_mask.decode(to_rle(segmentation, size_hw)) * np.uint8(255)
            masks[row] = np.asarray(resample(Image.fromarray(whole), params, size_hw)) >= 128
    return masks
