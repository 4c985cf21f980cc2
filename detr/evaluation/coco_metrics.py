"""Average precision and recall as COCO defines them (Lin et al. 2014), numpy only.

Shapes: K classes, T IoU thresholds, N detections; 101 recall points. NaN stands for what is not defined.
"""

from typing import NamedTuple

import numpy as np

from detr.evaluation.coco_matching import IGNORED, IOU_THRESHOLDS, TP, Matches

MAX_DETECTIONS = 100  # of a class in an image: no more of them count in COCO's AP and AR
RECALLS = np.linspace(0, 1, 101)
COCO_NUMBERS = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large"),
)  # in COCOeval's order
IOU_50, _IOU_75 = 0, 5  # of IOU_THRESHOLDS
TINY = np.spacing(1)  # COCO adds it to what it divides by


class Curves(NamedTuple):
    """Precision against recall, and how far recall goes; NaN for classes without objects."""

    precision: np.ndarray  # (T, K, 101) at RECALLS; 0 where recall never gets so far
    recall: np.ndarray  # (T, K)


def curves(matches: Matches, area: str = "all", max_dets: float = MAX_DETECTIONS) -> Curves:
    """Curves of every class and IoU, of the objects of an area range and the best `max_dets` detections of an image."""
    classes = len(matches.names)
    precision = np.full((len(IOU_THRESHOLDS), classes, len(RECALLS)), np.nan)
    recall = np.full((len(IOU_THRESHOLDS), classes), np.nan)
    for label in range(classes):
        if objects := matches.count_gt(label, area):
            where = matches.slice_of(label)
            outcome = matches.outcome[area][:, where][:, matches.detections.rank[where] < max_dets]
            precision[:, label], recall[:, label] = precision_at_recalls(outcome, objects)
    return Curves(precision, recall)


def precision_at_recalls(outcome: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, 101) precision at RECALLS and (T,) recall of (T, N) outcomes, best first, of at least one object."""
    tp = np.cumsum(outcome == TP, axis=1, dtype=np.float64)
    precision = tp / (np.cumsum(outcome != IGNORED, axis=1) + TINY)
    # Precision at a recall is the best that is to be had at that recall or beyond; the column behind stands for never.
    reached = np.maximum.accumulate(np.pad(precision, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1]
    recall = tp / objects
    at_recalls = [row[np.searchsorted(steps, RECALLS)] for row, steps in zip(reached, recall, strict=True)]
    return np.array(at_recalls), recall.max(axis=1, initial=0)


def coco_numbers(matches: Matches, whole: Curves) -> dict[str, float | None]:
    """The 12 numbers of COCOeval under their names; None where it says -1. `whole` are the curves of everything."""
    by_area = [curves(matches, area) for area in ("small", "medium", "large")]
    values = [
        *(whole.precision, whole.precision[IOU_50], whole.precision[_IOU_75]),
        *(of_area.precision for of_area in by_area),
        *(curves(matches, max_dets=1).recall, curves(matches, max_dets=10).recall, whole.recall),
        *(of_area.recall for of_area in by_area),
    ]
    return dict(zip(COCO_NUMBERS, map(mean, values), strict=True))


def mean(values: np.ndarray | list[float]) -> float | None:
    """Return the mean of what is defined, that is not NaN; None where nothing is."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
