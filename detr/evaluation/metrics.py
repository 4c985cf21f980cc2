"""Every number about a run, from its detections and the annotations alone. Numpy only.

AP, AR and their intervals are COCO's: of a class in an image they count at most the best `MAX_DETECTIONS`. All other
numbers count all detections.

`measure` gives plain values: what is not defined (a class without objects, the AP of nothing) is None, never NaN.
"""

import math

from detr.evaluation.bootstrap import intervals
from detr.evaluation.calibration import THRESHOLDS, at_thresholds, best_threshold, calibration, scored
from detr.evaluation.coco_matching import IOU_THRESHOLDS, Matches, match_all, match_results
from detr.evaluation.coco_metrics import IOU_50, MAX_DETECTIONS, RECALLS, Curves, coco_numbers, curves, mean
from detr.evaluation.error_analysis import confusion, find_errors, summarize_errors

FALLBACK_THRESHOLD = 0.5  # where no best one is known, or there is no true positive


def measure(coco: dict, results: list[dict], threshold: float | None = None, matches: Matches | None = None) -> dict:
    """Return all metrics of a run: of masks where the annotations and detections have them, otherwise of boxes.

    Detections without a mask do not count where masks are measured; `coco_boxes` are the 12 numbers of all boxes then.

    Args:
        coco: the annotations, a COCO dict.
        results: detections in COCO's results format, checked by `coco_matching.check_results`; may be empty.
        threshold: the lowest score that confusion and errors are counted from; None takes that of the best F1.
        matches: the first of `match_results` of both, where it is known already: masks take a while.
    """
    matches = matches or match_results(coco, results)[0]
    boxes = match_all(coco, results) if matches.iou_type == "segm" else None
    whole, everything = curves(matches), scored(matches)
    best = best_threshold(everything)
    if threshold is None:
        threshold = FALLBACK_THRESHOLD if best["threshold"] is None else best["threshold"]
    return {
        "images": matches.images,
        "objects": everything.objects,
        "detections": len(matches.detections.score),
        "iou_type": matches.iou_type,
        "coco": coco_numbers(matches, whole),
        **({"coco_boxes": coco_numbers(boxes, curves(boxes))} if boxes else {}),
        "interval": intervals(matches),
        "max_detections": MAX_DETECTIONS,
        "iou_thresholds": [round(value, 2) for value in IOU_THRESHOLDS.tolist()],
        "recalls": [round(value, 2) for value in RECALLS.tolist()],
        "thresholds": THRESHOLDS.tolist(),
        "overall": {"best": best, **at_thresholds(everything)},
        "classes": _measure_classes(coco, matches, whole),
        "threshold": threshold,
        "confusion": confusion(matches, threshold),
        "errors": summarize_errors(matches, find_errors(matches), threshold),
        "calibration": calibration(everything),
    }


def _measure_classes(coco: dict, matches: Matches, whole: Curves) -> list[dict]:
    """Per class, in the order of their ids, which is that of the confusion matrix."""
    classes, precision = [], curves(matches, max_dets=math.inf).precision
    for label, category in enumerate(sorted(coco["categories"], key=lambda category: category["id"])):
        detections = scored(matches, label)
        classes.append(
            {
                "id": category["id"],
                "name": category["name"],
                "objects": detections.objects,
                "AP": mean(whole.precision[:, label]),
                "AP50": mean(whole.precision[IOU_50, label]),
                "AR": mean(whole.recall[:, label]),
                "best": best_threshold(detections),
                **at_thresholds(detections),
                "precision_at_recall": precision[:, label].tolist() if detections.objects else None,
            }
        )
    return classes
