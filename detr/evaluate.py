"""COCO metrics of a model on a validation set (Lin et al. 2014; the 12 numbers of COCOeval).

Shapes: B images, Q queries.
"""

import contextlib
import io
from collections.abc import Callable, Iterable

import torch
from faster_coco_eval import COCO, COCOeval_faster

from detr import distributed
from detr.averaging import Means
from detr.boxes import xyxy_to_xywh
from detr.criterion import SetCriterion
from detr.data import LabelMap
from detr.device import Precision, out_of_memory_named
from detr.model import Detr
from detr.postprocess import Detections, postprocess
from detr.structures import Batch

COCO_METRICS = (
    "AP",
    "AP50",
    "AP75",
    "AP small",
    "AP medium",
    "AP large",
    "AR 1",
    "AR 10",
    "AR 100",
    "AR small",
    "AR medium",
    "AR large",
)


def to_coco_results(detections: Detections, image_ids: list[int], label_map: LabelMap) -> list[dict]:
    """Detections of a batch in COCO's results format, one dict each; labels without a category are left out."""
    results = []
    boxes_xywh = xyxy_to_xywh(detections.boxes_xyxy).tolist()
    for image_id, scores, labels, boxes in zip(
        image_ids, detections.scores.tolist(), detections.labels.tolist(), boxes_xywh, strict=True
    ):
        for score, label, box_xywh in zip(scores, labels, boxes, strict=True):
            category_id = label_map.to_category_id(label)
            if category_id is not None:
                results.append({"image_id": image_id, "category_id": category_id, "bbox": box_xywh, "score": score})
    return results


def coco_metrics(coco: dict, results: list[dict]) -> list[float]:
    """The 12 box metrics of COCOeval, in the order of `COCO_METRICS`; -1 where they are not defined.

    Computed by faster-coco-eval, whose numbers are those of pycocotools but for the order of a last sum (1e-12).

    Args:
        coco: ground truth, a COCO dict.
        results: detections in COCO's results format; may be empty.
    """
    truth = [{**_with_area(a), "iscrowd": a.get("iscrowd", 0)} for a in coco["annotations"]]
    found = [{**_with_area(r), "iscrowd": 0, "id": number} for number, r in enumerate(results, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval reports on stdout; callers decide what is shown
        evaluation = COCOeval_faster(_index(coco, truth), _index(coco, found), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def _with_area(annotation: dict) -> dict:
    width, height = annotation["bbox"][2:]
    return {**annotation, "area": annotation.get("area", width * height)}


def _index(coco: dict, annotations: list[dict]) -> COCO:
    indexed = COCO()
    indexed.dataset = {"images": coco["images"], "categories": coco["categories"], "annotations": annotations}
    indexed.createIndex()
    return indexed


@torch.inference_mode()
def evaluate(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    coco: dict,
    label_map: LabelMap,
    device: torch.device,
    precision: Precision,
    on_step: Callable[[Means], None] = lambda means: None,
) -> tuple[dict[str, float], list[float], list[dict]]:
    """Losses, the 12 COCO numbers and the detections (COCO results format) of the model on a validation set.

    `batches` holds every image of `coco` once, over all processes; each of them gets the whole result.
    """
    model.eval()
    means = Means()
    results: list[dict] = []
    for batch in batches:
        with out_of_memory_named("evaluation", [batch]), precision.autocast():
            moved = batch.to(device)
            outputs = model(moved.images, moved.padding_mask)
        means.add(criterion(outputs, moved.targets))
        detections = postprocess(outputs, batch.targets.original_sizes_hw)
        results += to_coco_results(detections, batch.targets.image_ids, label_map)
        on_step(means)
    means = means.over_processes()
    results = sorted(distributed.gathered(results), key=lambda result: result["image_id"])
    return means.log_terms(criterion), coco_metrics(coco, results), results
