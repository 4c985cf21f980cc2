"""What a backbone is taught before DETR, cell by cell."""

from pathlib import Path

import pytest
import torch

from detr.structures import Targets
from detr.training import pretrain_backbone
from detr.training.pretrain_backbone import IGNORE_INDEX, cell_labels
from tests.conftest import TINY, RunScript


def slow_labels(targets: Targets, sizes_hw: list[tuple[int, int]], shape_hw: tuple[int, int]) -> list:
    """The same by loops over images, cells and objects."""
    found = []
    for image, (height, width) in enumerate(sizes_hw):
        for row in range(shape_hw[0]):
            for column in range(shape_hw[1]):
                label, smallest = (5, float("inf")) if row < height and column < width else (IGNORE_INDEX, 0.0)
                for number in range(targets.counts[image]):
                    x, y, w, h = targets.boxes_cxcywh[image, number].tolist()
                    distance = ((column + 0.5) / width - x) ** 2 / (w / 2) ** 2
                    distance += ((row + 0.5) / height - y) ** 2 / (h / 2) ** 2
                    if distance < 1 and w * h < smallest:
                        label, smallest = int(targets.labels[image, number]), w * h
                found.append(label)
    return found


def test_cells_are_labelled_as_by_hand() -> None:
    torch.manual_seed(3)
    sizes_hw, most = [(6, 9), (7, 5), (7, 9)], 4
    labels, boxes = torch.randint(5, (3, most)), torch.rand(3, most, 4) * 0.5 + 0.2
    targets = Targets(labels, boxes, [4, 0, 2], [1, 2, 3], [(1, 1)] * 3)
    padding_mask = torch.ones(3, 7, 9, dtype=torch.bool)
    for image, (height, width) in enumerate(sizes_hw):
        padding_mask[image, :height, :width] = False
    found = cell_labels(targets, padding_mask, 5)
    assert found.flatten().tolist() == slow_labels(targets, sizes_hw, (7, 9))
    assert {IGNORE_INDEX, 5} < set(found.flatten().tolist()), "padding, nothing, and objects"


def test_images_without_objects_show_nothing() -> None:
    nothing = Targets(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 4), [0, 0], [1, 2], [(1, 1)] * 2)
    assert cell_labels(nothing, torch.zeros(2, 3, 4, dtype=torch.bool), 7).eq(7).all()


def test_a_pretrained_backbone_is_one_to_start_from(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ("--backbone", "resnet18", "--stride", "16", "--scale", "64", "--max_size", "96", "--epochs", "2")
    monkeypatch.setattr("sys.argv", ["pretrain_backbone", str(coco_folder), "backbone.pth", *sizes])
    pretrain_backbone.main()
    flags = (*TINY, "--backbone_weights", "backbone.pth", "--lr", 0, "--lr_backbone", 0, "--epochs", 1)
    assert run("main", *flags) == 0
    trained = torch.load("backbone.pth", weights_only=True)["layer3.1.conv2.weight"]
    started = torch.load("outputs/checkpoint_best.pth", weights_only=True)["model"]
    assert torch.equal(started["backbone.0.body.layer3.1.conv2.weight"], trained)
