"""COCO metrics: perfect detections score exactly 1, empty ones 0, and they equal COCO's own loading path."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from detr.data.dataset import LabelMap
from detr.importers.importer import import_via
from detr.models.postprocess import Detections
from detr.structures import Batch, Targets
from detr.training.evaluate import evaluate, to_coco_results, twelve_coco_numbers
from tests.conftest import SHARED, needs_shared
from tests.models.test_parity import make_batch
from tests.training.test_trainer import FLOAT32, make_training
from utils import UserError


def small_coco() -> dict:
    boxes = [(1, 10, 10, 20, 20), (1, 50, 50, 40, 30), (2, 5, 5, 90, 90)]
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 100} for number in (1, 2, 3)],
        "categories": [{"id": 4, "name": "a"}, {"id": 9, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 4 if n < 3 else 9, "bbox": box, "area": box[2] * box[3]}
            for n, (image, *box) in enumerate(boxes, start=1)
        ],
    }


def as_results(coco: dict) -> list[dict]:
    return [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1.0} for a in coco["annotations"]]


def test_nothing_found_scores_zero() -> None:
    assert twelve_coco_numbers(small_coco(), [])[:3] == [0, 0, 0]


def test_no_objects_to_find_is_not_defined() -> None:
    assert twelve_coco_numbers(small_coco() | {"annotations": []}, []) == [-1] * 12


@pytest.mark.filterwarnings("error")
def test_a_network_that_has_gone_astray_scores_zero() -> None:
    lost = [{**result, "score": float("nan"), "bbox": [float("nan")] * 4} for result in as_results(small_coco())]
    assert twelve_coco_numbers(small_coco(), lost)[:3] == [0, 0, 0]


def test_ground_truth_scores_one() -> None:
    metrics = twelve_coco_numbers(small_coco(), as_results(small_coco()))
    assert metrics[0] == metrics[1] == metrics[2] == 1.0


@needs_shared
@pytest.mark.parametrize("split", ["train", "val"])
def test_balloon_ground_truth_scores_exactly_one(split: str) -> None:
    coco = import_via(SHARED / "balloon")[split].coco
    assert twelve_coco_numbers(coco, as_results(coco))[0] == 1.0


def test_equals_pycocotools_own_path(tmp_path: Path) -> None:
    """Noisy detections through COCO's file loading and `loadRes` give the same 12 numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco = small_coco()
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = 0
    rng = np.random.default_rng(0)
    results = [
        {**result, "bbox": [v + rng.normal(0, 3) for v in result["bbox"]], "score": rng.random()}
        for result in as_results(coco) * 5
    ]
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert twelve_coco_numbers(coco, results) == pytest.approx(evaluation.stats.tolist(), abs=1e-12, rel=0)


def test_results_carry_category_ids_and_leave_spare_labels_out() -> None:
    label_map = LabelMap(small_coco()["categories"])
    boxes = torch.tensor([[[1.0, 2, 4, 6], [0, 0, 1, 1], [0, 0, 1, 1]]])
    detections = Detections(torch.tensor([[0.5, 0.25, 0.75]]), torch.tensor([[1, 0, 2]]), boxes)
    assert to_coco_results(detections, [7], label_map) == [
        {"image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 0.25},
    ]


def part_of(batch: Batch, rows: slice) -> Batch:
    targets = Targets(*(field[rows] for field in batch.targets[:-1]))
    return Batch(batch.images[rows], batch.padding_mask[rows], targets)


def test_losses_and_detections_are_the_same_whatever_the_batches() -> None:
    """Of images of one size; the losses are those of all images in one batch."""
    training, size_hw = make_training(), (96, 160)
    targets = Targets(torch.tensor([[0, 1], [2, 0], [0, 0], [1, 0]]), torch.rand(4, 2, 4) * 0.4 + 0.1, [2, 1, 0, 1],
                      [1, 2, 3, 4], [size_hw] * 4)  # fmt: skip
    whole = Batch(torch.randn(4, 3, *size_hw), torch.zeros(4, *size_hw, dtype=torch.bool), targets)
    box = {"bbox": [10, 10, 40, 40], "category_id": 4}
    owners = [1, 1, 2, 4, 3]
    coco = small_coco() | {
        "images": [{"id": n} for n in (1, 2, 3, 4)],
        "annotations": [{**box, "id": n, "image_id": i, "iscrowd": int(i == 3)} for n, i in enumerate(owners, start=1)],
    }
    label_map = LabelMap(coco["categories"])
    ways = ([slice(0, 4)], [slice(n, n + 1) for n in range(4)], [slice(3, 4), slice(0, 3)])
    evaluated = []
    for way in ways:
        batches = [part_of(whole, rows) for rows in way]
        args = training.model, training.criterion, batches, coco, label_map, training.device, FLOAT32
        evaluated.append(evaluate(*args))
    training.model.eval()
    with torch.inference_mode():
        total = training.criterion(training.model(whole.images, whole.padding_mask), targets).total
    assert evaluated[0][0]["loss"] == pytest.approx(total.item(), rel=1e-5)
    for losses, numbers, results in evaluated[1:]:
        assert losses == pytest.approx(evaluated[0][0], rel=1e-4, abs=1e-5)
        assert numbers["bbox"] == pytest.approx(evaluated[0][1]["bbox"], abs=1e-6)
        assert [r["image_id"] for r in results] == [r["image_id"] for r in evaluated[0][2]]
        for one, other in zip(results, evaluated[0][2], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
            assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)


@pytest.mark.parametrize("where", ["model", "criterion"])
def test_running_out_of_memory_is_explained_wherever_it_happens(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    training = make_training()
    monkeypatch.setattr(getattr(training, where), "forward", full)
    label_map = LabelMap(small_coco()["categories"])
    with pytest.raises(UserError, match=r"evaluation: out of memory; its largest batch is 2 x 160x96 pixels"):
        evaluate(training.model, training.criterion, [make_batch(3)], small_coco(), label_map, training.device, FLOAT32)
