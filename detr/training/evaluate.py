"""COCO metrics of a model on a validation set (Lin et al. 2014; the 12 numbers of COCOeval).

Shapes: B images, Q queries.
"""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterable

import torch

from detr.box_ops import xyxy_to_xywh
from detr.data.dataset import LabelMap
from detr.evaluation.coco_matching import match_all
from detr.evaluation.coco_metrics import coco_numbers, curves
from detr.models.criterion import Losses, SetCriterion
from detr.models.detr import Detr
from detr.models.postprocess import Detections, postprocess
from detr.structures import Batch
from detr.training import distributed
from detr.training.device import Precision, explain_oom
from detr.training.meters import MetricLogger


def to_coco_results(detections: Detections, image_ids: list[int], label_map: LabelMap) -> list[dict]:
    """Return detections of a batch in COCO's results format, one dict each; labels without a category are left out."""
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


def twelve_coco_numbers(coco: dict, results: list[dict]) -> list[float]:
    """The 12 box metrics of COCOeval, in the order of `COCO_NUMBERS`; -1 where they are not defined, as in its logs.

    Args:
        coco: ground truth, a COCO dict.
        results: detections in COCO's results format; may be empty.
    """
    matches = match_all(coco, results)
    return [-1.0 if value is None else value for value in coco_numbers(matches, curves(matches)).values()]


def evaluate(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    coco: dict,
    label_map: LabelMap,
    device: torch.device,
    precision: Precision,
    on_batch: Callable[[int], None] = lambda number: None,
) -> tuple[dict[str, float], list[float], list[dict]]:
    """Return losses, the 12 COCO numbers and the detections (COCO results format) of the model on a validation set.

    `batches` holds every image of `coco` once, over all ranks; each of them gets the whole result. The losses are those
    of all images in one batch, whatever the batches are. `on_batch` is called with the number of each, from 0.
    """
    model.eval()
    counts = Counter(annotation["image_id"] for annotation in coco["annotations"] if not annotation.get("iscrowd", 0))
    normalizers = criterion.normalizers([counts[image["id"]] for image in coco["images"]], model.config.num_queries)
    losses: Losses | None = None
    results: list[dict] = []
    with torch.inference_mode():  # not below it: torch 2.5's collectives refuse tensors that are made in inference mode
        for number, batch in enumerate(batches):
            with explain_oom("evaluation", [batch]):
                moved = batch.to(device)
                with precision.autocast():
                    outputs = model(moved.images, moved.padding_mask)
                part = criterion(outputs, moved.targets, normalizers)
                losses = part if losses is None else losses + part
                detections = postprocess(outputs, batch.targets.original_sizes_hw)
                results += to_coco_results(detections, batch.targets.image_ids, label_map)
            on_batch(number)
    own = [Losses(losses.total.cpu(), {name: term.cpu() for name, term in losses.terms.items()})] if losses else []
    metrics = MetricLogger()
    metrics.update(functools.reduce(operator.add, distributed.all_gather(own)))
    results = sorted(distributed.all_gather(results), key=lambda result: result["image_id"])
    return metrics.log_terms(criterion), twelve_coco_numbers(coco, results), results
