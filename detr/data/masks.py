"""Outlines of objects: COCO segmentations, packed for the loader's processes, and as masks of augmented images.

Masks are rasterized as COCO does it, by pycocotools.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from detr.data.coco_json import segmentation_problem, to_rle
from detr.data.transforms import AugmentParams, apply_to_points, resample
from utils import UserError


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


class PackedMasks:
    """The masks of many objects: `polygons`, and the RLE of those that have a mask instead, in arrays as well.

    Args: COCO's annotations, and of each the size of its image in pixels; `source`, their file, is for messages.

    Raises UserError that names the first object without an outline, or with one that is none.
    """

    def __init__(
        self, annotations: Sequence[dict], sizes_hw: Sequence[tuple[int, int]], polygons: PackedPolygons, source: str
    ) -> None:
        self.polygons = polygons
        runs = []
        for annotation, size_hw in zip(annotations, sizes_hw, strict=True):
            if problem := segmentation_problem(annotation.get("segmentation"), size_hw):
                raise UserError(
                    f"{source}: annotation {annotation['id']} of image {annotation['image_id']} {problem}; --masks "
                    "learns from outlines: polygons or masks (RLE) of every object"
                )
            segmentation = annotation["segmentation"]
            runs.append(b"" if isinstance(segmentation, list) else to_rle(segmentation, size_hw)["counts"])
        self._runs = np.frombuffer(b"".join(runs), np.uint8)
        self._starts = np.cumsum([0, *map(len, runs)])

    def masks(self, numbers: Sequence[int], params: AugmentParams, size_hw: tuple[int, int]) -> np.ndarray:
        """Return (T, H, W) bool: objects of an image of `size_hw`, cropped, resized and flipped as it is."""
        masks = np.zeros((len(numbers), *params.size_hw), dtype=bool)
        for row, number in enumerate(numbers):
            runs = self._runs[self._starts[number] : self._starts[number + 1]].tobytes()
            if runs:
                whole = coco_mask.decode({"size": list(size_hw), "counts": runs}) * np.uint8(255)
                masks[row] = np.asarray(resample(Image.fromarray(whole), params, size_hw)) >= 128
            else:
                moved = [apply_to_points(points, params).ravel().tolist() for points in self.polygons[number]]
                masks[row] = coco_mask.decode(to_rle(moved, params.size_hw))
        return masks
