"""Masks of augmented images: from polygons and from runs (RLE), padded into batches, covered by what is pasted."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from detr.data.coco_json import to_rle
from detr.data.copy_paste import covered
from detr.data.dataset import CocoDetection, LabelMap
from detr.data.loader import collate
from detr.data.masks import PackedList, check_outlines, draw_masks
from detr.data.transforms import AugmentParams, augment_params, evaluation_params, resample
from utils import UserError

SIZE_HW = (120, 160)
HEART = [30.5, 20, 60, 45, 90, 20, 100, 50, 60, 100.25, 20, 50]
PIECES = [[10, 10, 40, 10, 40, 40, 10, 40], [100, 60, 140, 60, 140, 110]]
CUT = [[-20.0, 50, 30, 60, 20, 140, -20, 140]]  # beyond the left and the lower border


def annotation(segmentation: object, number: int = 1) -> dict:
    """One object of image 1; its box plays no part."""
    box = {"bbox": [10, 10, 90, 90], "area": 100, "iscrowd": 0}
    return {"id": number, "image_id": 1, "category_id": 1, "segmentation": segmentation, **box}


def ring() -> dict:
    """A mask with a hole, as uncompressed runs."""
    pixels = np.zeros(SIZE_HW, np.uint8)
    pixels[20:100, 30:130], pixels[50:70, 60:100] = 1, 0
    flat = pixels.flatten(order="F")
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    return {"size": list(SIZE_HW), "counts": np.diff([0, *ends]).tolist()}


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_no_objects_have_no_masks() -> None:
    masks = draw_masks([], evaluation_params(SIZE_HW, None, 60, 100), SIZE_HW)
    assert masks.shape == (0, 60, 80) and masks.dtype == bool


def test_a_packed_list_is_the_list() -> None:
    values = [None, [[0, 1, 2, 3, 4, 5.5]], ring(), [], PIECES]
    packed = PackedList(values)
    assert [packed[index] for index in range(len(values))] == values
    PackedList([])


@pytest.mark.parametrize("segmentation", [[HEART], PIECES, CUT, ring()], ids=["heart", "pieces", "cut", "ring"])
@pytest.mark.parametrize("seed", range(4))
def test_masks_are_those_of_the_augmented_image(segmentation: list | dict, seed: int) -> None:
    """Against the mask of the original, moved as the image is; small pieces lose a pixel at their edge either way."""
    params = augment_params(SIZE_HW, np.random.default_rng(seed), scales=[240, 300], max_size=600)
    (mask,) = draw_masks([segmentation], params, SIZE_HW)
    original = coco_mask.decode(to_rle(segmentation, SIZE_HW)) * np.uint8(255)
    moved = np.asarray(resample(Image.fromarray(original), params, SIZE_HW)) >= 128
    assert mask.shape == params.size_hw and mask.any()
    assert iou(mask, moved) > 0.95
    coarse = np.abs(mask.mean() - moved.mean())
    assert coarse < 0.01


@pytest.mark.parametrize("hflip", [False, True])
def test_a_mask_at_its_own_size_is_what_coco_rasterizes(hflip: bool) -> None:
    params = AugmentParams((0, 0, SIZE_HW[1], SIZE_HW[0]), SIZE_HW, hflip)
    for segmentation in ([HEART], PIECES, CUT, ring()):
        (mask,) = draw_masks([segmentation], params, SIZE_HW)
        expected = coco_mask.decode(to_rle(segmentation, SIZE_HW)).astype(bool)
        assert iou(mask, expected[:, ::-1] if hflip else expected) > 0.98


@pytest.mark.parametrize(
    ("segmentation", "fact"),
    [
        (None, "no outline"),
        ([], "no outline"),
        ([[1, 2, 3, 4]], "[1, 2, 3, 4]"),
        ([[1, 2, 3, 4, 5, float("nan")]], "nan"),
        ("polygon", "polygon"),
        ({"size": [5, 5], "counts": [25]}, "another size"),
        ({"size": list(SIZE_HW), "counts": [7]}, "no runs"),
        ({"size": list(SIZE_HW), "counts": ["x"]}, "no runs"),
    ],
)
def test_objects_without_an_outline_are_named(segmentation: object, fact: str) -> None:
    with pytest.raises(UserError, match=r"set\.json: annotation 1 of image 1") as error:
        check_outlines([annotation(segmentation)], [SIZE_HW], "set.json")
    assert fact in str(error.value)


@pytest.fixture
def images(tmp_path: Path) -> CocoDetection:
    """Two images of different size: two objects, and one."""
    for number, (height, width) in enumerate((SIZE_HW, (100, 100)), start=1):
        Image.new("RGB", (width, height), "white").save(tmp_path / f"{number}.png")
    listed = [{"id": n, "file_name": f"{n}.png", "height": h, "width": w} for n, h, w in ((1, *SIZE_HW), (2, 100, 100))]
    annotations = [annotation([HEART], 1), annotation(ring(), 2), annotation([HEART], 3) | {"image_id": 2}]
    coco = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    params = partial(evaluation_params, scale=64, max_size=100)
    return CocoDetection(coco, tmp_path, LabelMap(coco["categories"]), params, seed=1, masks=True)


def test_a_batch_holds_the_masks_of_its_objects_in_order(images: CocoDetection) -> None:
    samples = [images[0, 0], images[0, 1]]
    batch = collate(samples)
    assert batch.targets.masks.shape == (3, *batch.images.shape[2:]) and batch.targets.masks.dtype == torch.bool
    for row, (mask, image) in enumerate(zip(batch.targets.masks, (0, 0, 1), strict=True)):
        assert mask.any() and not (mask & batch.padding_mask[image]).any(), row
    assert torch.equal(batch.targets.masks[1, :64, :85], samples[0].masks[1])
    assert batch.sizes_hw == [tuple(sample.image.shape[1:]) for sample in samples]


def test_boxes_alone_have_no_masks(images: CocoDetection) -> None:
    alone = copy.copy(images)
    alone.masks = False
    assert alone[0, 0].masks is None and collate([alone[0, 0]]).targets.masks is None


def test_what_is_pasted_covers_what_was_there(images: CocoDetection) -> None:
    below = np.ones((2, 4, 6), dtype=bool)
    first, second = np.zeros((2, 4, 6), dtype=bool)
    first[:, :3], second[:2] = True, True
    together = covered(below, np.stack([first, second]))
    assert together.sum(0).max() == 2 and together[:2].sum() == 2 * 2 * 3  # both of below share what is left of them
    assert np.array_equal(together[2], first & ~second) and np.array_equal(together[3], second)
    images.paste_into(1.0)
    seen = 0
    for epoch in range(20):
        sample = images[epoch, 0]
        assert len(sample.masks) == len(sample.labels) == len(sample.boxes_cxcywh)
        assert (sample.masks[2:].sum(0) <= 1).all(), "what is pasted later lies on top"
        seen += len(sample.masks) > 2
    assert seen > 5
