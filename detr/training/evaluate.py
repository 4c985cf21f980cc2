"""COCO metrics of a model on a validation set (Lin et al. 2014; the 12 numbers of COCOeval, of boxes and of masks).

Shapes: B images, Q queries, M masks.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchvision.ops import box_convert

from detr.data.coco_json import all_have_outlines
from detr.data.dataset import LabelMap
from detr.evaluation.coco_matching import match_all, with_masks
from detr.evaluation.coco_metrics import coco_numbers, curves
from detr.models.criterion import MatchedQuerySelector, SetCriterion
from detr.models.detr import Detr
from detr.models.postprocess import Detections, average_boxes, masks_to_rle, postprocess, scoring_queries
from detr.structures import Batch, DetrOutput, MaskLogits
from detr.training import distributed
from detr.training.device import Precision, explain_oom
from detr.training.meters import MetricLogger


def to_coco_results(
    detections: Detections, image_ids: list[int], label_map: LabelMap, masks: dict[tuple[int, int], dict] | None = None
) -> list[dict]:
    """Return detections of a batch in COCO's results format, one dict each; labels without a category are left out.

    `masks` are RLEs by the numbers of image and query, for those that have one.
    """
    results = []
    boxes_xywh = box_convert(detections.boxes_xyxy, "xyxy", "xywh").tolist()
    for image, (image_id, scores, labels, boxes) in enumerate(
        zip(image_ids, detections.scores.tolist(), detections.labels.tolist(), boxes_xywh, strict=True)
    ):
        for query, (score, label, box_xywh) in enumerate(zip(scores, labels, boxes, strict=True)):
            category_id = label_map.to_category_id(label)
            if category_id is not None:
                mask = (masks or {}).get((image, query))
                result = {"image_id": image_id, "category_id": category_id, "bbox": box_xywh, "score": score}
                results.append(result | ({"segmentation": mask} if mask else {}))
    return results


def twelve_coco_numbers(coco: dict, results: list[dict], iou_type: str = "bbox") -> list[float]:
    """Return the 12 metrics of COCOeval, in the order of `COCO_NUMBERS`; -1 where they are not defined, as in its logs.

    `results`, in COCO's format, may be empty. `iou_type` is `bbox`, or `segm` for the masks of those that have one.
    """
    matches = match_all(coco, results if iou_type == "bbox" else with_masks(results), iou_type)
    return [-1.0 if value is None else value for value in coco_numbers(matches, curves(matches)).values()]


def _matched_and_scoring(matched: MatchedQuerySelector, outputs: DetrOutput) -> tuple[Tensor, ...]:
    """Choose the matched queries, for the loss, then those that score, for the metrics: (M,) images and queries."""
    return tuple(torch.cat(both) for both in zip(matched(outputs), scoring_queries(outputs), strict=True))


def evaluate(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    coco: dict,
    label_map: LabelMap,
    device: torch.device,
    precision: Precision,
    on_batch: Callable[[int], None] = lambda number: None,
) -> tuple[dict[str, float], dict[str, list[float]], list[dict]]:
    """Return losses, the 12 COCO numbers of boxes (`bbox`) and, with a mask head, of masks (`masks`), and the
    detections (COCO results format) of the model on a validation set.

    `batches` holds every image of `coco` once, over all ranks; each of them gets the whole result. The losses are those
    of all images in one batch, whatever the batches are. `on_batch` is called with the number of each, from 0.
    """
    model.eval()
    counts = Counter(annotation["image_id"] for annotation in coco["annotations"] if not annotation.get("iscrowd", 0))
    normalizers = criterion.normalizers([counts[image["id"]] for image in coco["images"]], model.config.num_queries)
    has_masks = model.config.masks and all_have_outlines(coco)
    losses: dict[str, Tensor] = {}
    results: list[dict] = []
    with torch.inference_mode():  # not below it: torch 2.5's collectives refuse tensors that are made in inference mode
        for number, batch in enumerate(batches):
            with explain_oom("evaluation", [batch]):
                moved, rles = batch.to(device), {}
                matched = MatchedQuerySelector(criterion, moved.targets, len(batch.images)) if has_masks else None
                select_queries = functools.partial(_matched_and_scoring, matched) if matched else None
                with precision.autocast():
                    outputs = model(moved.images, moved.padding_mask, select_queries)
                terms = criterion(outputs, moved.targets, normalizers, matched).terms
                losses = {name: losses.get(name, 0) + term for name, term in terms.items()}
                sizes_hw = batch.targets.original_sizes_hw
                if matched:
                    scored = MaskLogits(*(field[len(matched.pairs.image) :] for field in outputs.masks))
                    rles = masks_to_rle(scored, batch.sizes_hw, tuple(batch.images.shape[2:]), sizes_hw)
                detections = average_boxes(postprocess(outputs, sizes_hw), rles, model.config.mask_box_weight)
                results += to_coco_results(detections, batch.targets.image_ids, label_map, rles)
            on_batch(number)
    of_ranks = distributed.all_gather([{name: loss.cpu() for name, loss in losses.items()}] if losses else [])
    metrics = MetricLogger()
    metrics.update({name: sum(of_rank[name] for of_rank in of_ranks) for name in of_ranks[0]})
    results = sorted(distributed.all_gather(results), key=lambda result: result["image_id"])
    numbers = {"bbox": twelve_coco_numbers(coco, results)}
    if has_masks:
        numbers["masks"] = twelve_coco_numbers(coco, results, "segm")
    return metrics.log_terms(criterion), numbers, results
