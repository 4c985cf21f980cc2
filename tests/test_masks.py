"""--masks through the scripts: train, resume, evaluate, freeze, come from a file of boxes and go back to one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from detr.data.coco_json import read_coco, to_rle
from detr.detector import Detector
from detr.training.evaluate import twelve_coco_numbers
from tests.conftest import SHARED, TINY, RunScript, needs_shared
from tests.test_main import read_log, weights

MASKS = [*TINY, "--nheads", "8", "--masks", "--mask_box_weight", "0.5"]
BOXES = [flag for flag in MASKS if flag != "--masks"]
SCRATCH = ("--backbone_weights", "none")


def as_results(coco: dict) -> list[dict]:
    """The annotations as detections with their own masks."""
    sizes_hw = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    return [
        {key: a[key] for key in ("image_id", "category_id", "bbox")}
        | {"score": 0.5, "segmentation": to_rle(a["segmentation"], sizes_hw[a["image_id"]])}
        for a in coco["annotations"]
    ]


@needs_shared
def test_the_balloon_outlines_fed_back_score_one(run: RunScript, tmp_path: Path) -> None:
    run("prep", "--via", str(SHARED / "balloon"), "--weights", "none")
    coco = read_coco(tmp_path / "data" / "custom" / "annotations" / "custom_val.json")
    assert twelve_coco_numbers(coco, as_results(coco), "segm")[0] == 1.0


@pytest.mark.long
def test_the_samples_outlines_fed_back_score_one(run: RunScript, tmp_path: Path) -> None:
    run("prep", "--sample", "--weights", "none")
    coco = read_coco(tmp_path / "data" / "custom" / "annotations" / "custom_val.json")
    assert twelve_coco_numbers(coco, as_results(coco), "segm")[0] == 1.0


@pytest.fixture
def trained(coco_folder: Path, run: RunScript) -> Path:
    """A run of one epoch with masks."""
    run("main", *MASKS, *SCRATCH, "--epochs", "1", "--query_groups", "2", "--copy_paste", "0.5")
    return Path("outputs")


@pytest.mark.long
def test_masks_are_trained_resumed_and_evaluated(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    first = read_log()[0]
    assert {"train_loss_mask", "train_loss_dice_unscaled", "test_loss_mask"} <= first.keys()
    assert len(first["test_coco_eval_masks"]) == len(first["test_coco_eval_bbox"]) == 12
    assert not [key for key in first if key.startswith("train_loss_mask_") and key != "train_loss_mask_unscaled"]
    results = json.loads((trained / "predictions.json").read_text())
    with_masks = [result for result in results if "segmentation" in result]
    assert with_masks and all(result["score"] >= 0.01 for result in with_masks)
    capsys.readouterr()
    run("main", *BOXES, "--eval")
    lines = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines() if line.startswith("mask A"))
    assert float(lines["mask AP50"]) == pytest.approx(first["test_coco_eval_masks"][1], abs=1e-4)
    run("main", *MASKS, "--resume", "auto", "--epochs", "2", "--query_groups", "2", "--copy_paste", "0.5")
    assert len(read_log()) == 2
    # The detector alone gives the same masks as the evaluation did.
    detector = Detector(trained / "checkpoint_best.pth", device="cpu")
    best = torch.load(trained / "checkpoint_best.pth", weights_only=True)
    assert {key.split(".")[0] for key in best["model"]} == {"detr", "mask_head", "bbox_attention"}
    coco = read_coco(Path("data/custom/annotations/custom_val.json"))
    saved = json.loads((trained / "predictions.json").read_text())
    for image in coco["images"]:
        path = Path("data/custom/val2017") / image["file_name"]
        found = detector(path, threshold=0.0)
        expected = [r for r in saved if r["image_id"] == image["id"] and "segmentation" in r]
        masks = [detection for detection in found if detection.mask is not None]
        assert len(masks) == len(expected)
        for detection in masks:
            assert detection.mask.shape == (image["height"], image["width"]) and detection.mask.dtype == bool
        closest = max(expected, key=lambda r: r["score"])
        assert np.mean(coco_mask.decode(closest["segmentation"]) != masks[0].mask) < 0.01
        left, top, right, bottom = masks[0].box_xyxy
        assert [left, top, right - left, bottom - top] == pytest.approx(closest["bbox"], abs=1), (
            "a mean with the mask's"
        )


@pytest.mark.long
def test_a_mask_head_starts_fresh_freezes_the_rest_and_is_left_out(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    run("main", *BOXES, *SCRATCH, "--epochs", "1", "--output_dir", "boxes")
    capsys.readouterr()
    run("main", *MASKS, "--frozen_weights", "boxes/checkpoint_best.pth", "--epochs", "1", "--output_dir", "masks")
    assert "starting fresh: the mask head" in capsys.readouterr().out
    before, after = weights("boxes/checkpoint_best.pth")["model"], weights("masks/checkpoint_best.pth")["model"]
    assert all(torch.equal(value, after[f"detr.{key}"]) for key, value in before.items())
    run("main", *BOXES, "--weights", "masks/checkpoint_best.pth", "--epochs", "1", "--output_dir", "again")
    assert "its mask head is left out" in capsys.readouterr().out
    assert "test_coco_eval_masks" not in read_log("again")[0]


def test_what_masks_cannot_do_is_said(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *BOXES, "--frozen_weights", "any.pth") == 2
    assert "--masks" in capsys.readouterr().err
    path = coco_folder / "annotations" / "custom_train.json"
    coco = json.loads(path.read_text())
    coco["annotations"][1]["segmentation"] = []
    path.write_text(json.dumps(coco))
    assert run("main", *MASKS, *SCRATCH, "--epochs", "1") == 2
    assert f"annotation {coco['annotations'][1]['id']} of image" in capsys.readouterr().err
