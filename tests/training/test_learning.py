"""Learning is real: a small DETR from random weights overfits eight balloon images; CI has test_pipeline instead."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import SHARED, RunScript, needs_shared

pytestmark = pytest.mark.slow

# Random weights, trained BatchNorm, no augmentation.
SMALL = [
    *("--backbone_weights", "none", "--backbone", "resnet18", "--hidden_dim", "128", "--enc_layers", "2"),
    *("--dec_layers", "3", "--dim_feedforward", "256", "--num_queries", "20", "--dropout", "0", "--no_augment"),
    *("--batch_size", "4", "--lr", "3e-4", "--lr_backbone", "3e-4", "--num_workers", "1", "--device", "cpu"),
]
LONGEST = 256  # pixels of the shrunk images


def write_eight_images(folder: Path) -> Path:
    """The first eight balloon images with at most five objects, shrunk with their polygons, as both splits."""
    source = SHARED / "balloon" / "train"
    entries = json.loads((source / "via_region_data.json").read_text())
    chosen = [entry for _, entry in sorted(entries.items()) if 1 <= len(entry["regions"]) <= 5][:8]
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        shrunk = {}
        for entry in chosen:
            name = entry["filename"]
            image = Image.open(source / name)
            scale = LONGEST / max(image.size)
            size = [round(side * scale) for side in image.size]
            image.resize(size).save(folder / split / name, quality=95)
            regions = {key: shrink(region, scale) for key, region in entry["regions"].items()}
            shrunk[name] = {"filename": name, "regions": regions}
        (folder / split / "via_region_data.json").write_text(json.dumps(shrunk))
    return folder


def shrink(region: dict, scale: float) -> dict:
    shape = region["shape_attributes"]
    points = {axis: [value * scale for value in shape[axis]] for axis in ("all_points_x", "all_points_y")}
    return {"shape_attributes": {"name": "polygon", **points}, "region_attributes": {}}


def train(run: RunScript, tmp_path: Path, epochs: int, lr_drop: int, size: int) -> list[float]:
    """The 12 COCO numbers of the last epoch, on the training images themselves."""
    write_eight_images(tmp_path / "eight")
    assert run("prep", "--via", "eight", "--weights", "none", "--categories", "balloon") == 0
    schedule = ["--epochs", epochs, "--lr_drop", lr_drop, "--eval_every", 100, "--save_every", epochs]
    assert run("main", *SMALL, *schedule, "--scales", size, "--max_size", LONGEST * size // 192) == 0
    last = (tmp_path / "outputs/log.txt").read_text().splitlines()[-1]
    return json.loads(last)["test_coco_eval_bbox"]


@needs_shared
def test_a_minute_of_training_detects_most_balloons(run: RunScript, tmp_path: Path) -> None:
    assert train(run, tmp_path, epochs=100, lr_drop=90, size=128)[1] > 0.5


@needs_shared
def test_eight_images_are_overfitted(run: RunScript, tmp_path: Path) -> None:
    assert train(run, tmp_path, epochs=300, lr_drop=260, size=192)[1] > 0.9
