"""Copy-paste augmentation: what is pasted is where its box says, and hides little of what was there."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr.data.copy_paste import cut_out, paste_objects
from detr.data.dataset import CocoDetection, load_folder
from detr.data.transforms import evaluation_params
from utils import UserError

SIZES = {"scale": 96, "max_size": 160}


@pytest.fixture
def images(coco_folder: Path) -> CocoDetection:
    params = partial(evaluation_params, **SIZES)
    return load_folder(coco_folder, "custom", params, params, seed=3).train


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_cutout_shows_the_inside_of_its_polygon_only(mirrored: bool) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 255
    triangle = np.array([[10.0, 10], [50, 10], [10, 30]], np.float32)
    piece = cut_out(Image.fromarray(pixels), [triangle], np.array((10, 10, 50, 30)), (80, 40), mirrored)
    alpha, red = (np.asarray(piece.getchannel(name)).astype(int) for name in "AR")
    if mirrored:
        alpha, red = alpha[:, ::-1], red[:, ::-1]
    y, x = np.mgrid[:40, :80] + 0.5
    inside, edge = x / 80 + y / 40 < 1, abs(x / 80 + y / 40 - 1) < 0.08
    border = (x < 3) | (y < 3)  # the soft edge
    assert (alpha[inside & ~edge & ~border] > 240).all() and (alpha[~inside & ~edge] < 15).all()
    assert (red[:, :36] == 0).all() and (red[:, 44:] == 255).all()


def test_boxes_are_where_pixels_changed_and_the_labels_follow() -> None:
    black = Image.new("RGB", (120, 90))
    rng = np.random.default_rng(0)

    def draw(rng: np.random.Generator, largest: int) -> tuple[Image.Image, int]:
        assert largest == 54
        size = tuple(rng.integers(12, 25, 2).tolist())
        return Image.new("RGBA", size, (255, 255, 255, 255)), int(rng.integers(5))

    counts = set()
    for _ in range(50):
        image, boxes_xyxy, labels, _ = paste_objects(black, np.zeros((0, 4), np.float32), draw, rng)
        painted = np.zeros((90, 120), bool)
        for left, top, right, bottom in boxes_xyxy.astype(int).tolist():
            painted[top:bottom, left:right] = True
        np.testing.assert_array_equal(np.asarray(image)[..., 0] == 255, painted)
        assert len(labels) == len(boxes_xyxy)
        counts.add(len(labels))
    assert counts == {1, 2, 3, 4} and np.asarray(black).max() == 0


def test_little_of_what_is_annotated_is_hidden() -> None:
    annotated = np.array([[10, 10, 60, 60], [70, 20, 110, 80]], np.float32)
    rng = np.random.default_rng(0)
    piece = Image.new("RGBA", (40, 40), "white")
    pasted = 0
    for _ in range(100):
        _, boxes_xyxy, labels, _ = paste_objects(
            Image.new("RGB", (200, 90)), annotated, lambda rng, largest: (piece, 0), rng
        )
        np.testing.assert_array_equal(boxes_xyxy[:2], annotated)
        pasted += len(labels)
        for box in boxes_xyxy[2:]:
            sides = np.minimum(box[2:], annotated[:, 2:]) - np.maximum(box[:2], annotated[:, :2])
            areas = np.minimum(1600, np.prod(annotated[:, 2:] - annotated[:, :2], axis=1))
            assert (np.prod(sides.clip(0), axis=1) <= 0.3 * areas).all()
    assert pasted > 100


def test_an_image_in_an_epoch_is_always_the_same_and_the_share_is_kept(images: CocoDetection) -> None:
    plain = [images[epoch, 0] for epoch in range(40)]
    images.paste_into(0.5)
    first, second = ([images[epoch, 0] for epoch in range(40)] for _ in range(2))
    changed = 0
    for before, a, b in zip(plain, first, second, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.boxes_cxcywh, b.boxes_cxcywh)
        assert torch.equal(a.boxes_cxcywh[: len(before.labels)], before.boxes_cxcywh)
        assert torch.equal(a.image, before.image) == (len(a.labels) == len(before.labels))
        changed += len(a.labels) > len(before.labels)
    assert 8 <= changed <= 32


def test_without_polygons_pasting_is_refused(coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "custom_train.json"
    coco = json.loads(path.read_text())
    for annotation in coco["annotations"]:
        annotation["segmentation"] = []
    path.write_text(json.dumps(coco))
    params = partial(evaluation_params, **SIZES)
    images = load_folder(coco_folder, "custom", params, params, seed=3).train
    with pytest.raises(UserError, match=r"--copy_paste 0\.5: no object in .*train2017 has a polygon"):
        images.paste_into(0.5)
    images.paste_into(0.0)
