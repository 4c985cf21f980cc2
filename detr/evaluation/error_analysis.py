"""Types of detection errors in the spirit of TIDE (Bolya et al. 2020), and the confusion matrix. Numpy only.

Shapes: G ground-truth objects, N detections, K classes.
"""

from typing import NamedTuple

import numpy as np

from detr.evaluation.coco_matching import FP, IGNORED, TP, TP_IOU, UNMATCHED, Matches, Pairs, match, rank_within
from detr.evaluation.coco_metrics import mean, precision_at_recalls

# TIDE's names. Every false positive is of the first type that fits; objects that no detection explains are missed.
ERROR_TYPES = {
    "duplicate": "finds an object of its class that a better detection has found",
    "classification": "lies on an object of another class (IoU from 0.5)",
    "localization": "touches an object of its class (IoU 0.1 to 0.5)",
    "both": "touches an object of another class (IoU 0.1 to 0.5)",
    "background": "touches nothing (IoU below 0.1)",
    "missed": "an object that no detection finds, or would find with another class or a better box",
}
DUPLICATE, CLASSIFICATION, LOCALIZATION, BOTH, BACKGROUND, MISSED = range(len(ERROR_TYPES))
NO_ERROR = -1


class Errors(NamedTuple):
    """The error of each detection, whatever the threshold: those of higher scores are matched first."""

    kind: np.ndarray  # (N,) int, into ERROR_TYPES, or NO_ERROR: a true positive, or ignored
    gt: np.ndarray  # (N,) int, the object that a false positive overlaps most, or UNMATCHED


def find_errors(matches: Matches) -> Errors:
    """Return the type of error of every detection."""
    gt, detections, pairs = matches.gt, matches.detections, matches.pairs
    wrong = matches.outcome["all"][0] == FP
    pairs = pairs.where(wrong[pairs.detection] & ~gt.crowd[pairs.gt])
    is_same = gt.label[pairs.gt] == detections.label[pairs.detection]
    same, same_iou = _closest(pairs.where(is_same), len(wrong))
    other, other_iou = _closest(pairs.where(~is_same), len(wrong))
    # Pairs overlap by at least `coco_matching.BACKGROUND_IOU`; 0 says that there is none.
    fits = [same_iou >= TP_IOU, other_iou >= TP_IOU, same_iou > 0, other_iou > 0]
    kind = np.select([~wrong, *fits], [NO_ERROR, DUPLICATE, CLASSIFICATION, LOCALIZATION, BOTH], BACKGROUND)
    gt_index = np.select([~wrong, *fits], [UNMATCHED, same, other, same, other], UNMATCHED)
    return Errors(kind, gt_index)


def _closest(pairs: Pairs, detections: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) the object that each detection overlaps most, and the IoU; UNMATCHED and 0 where there is none."""
    gt, iou = np.full(detections, UNMATCHED), np.zeros(detections)
    pairs = pairs.where(np.argsort(pairs.iou, kind="stable"))  # of what is written to one place, the last stays
    gt[pairs.detection], iou[pairs.detection] = pairs.gt, pairs.iou
    return gt, iou


def missed_gt(matches: Matches, errors: Errors, kept: np.ndarray) -> np.ndarray:
    """Return (G,) bool: objects missed by the detections that are `kept`, an (N,) mask."""
    missed = matches.counted["all"].copy()
    missed[matches.matched[kept & (matches.outcome["all"][0] == TP)]] = False
    missed[errors.gt[kept & np.isin(errors.kind, (CLASSIFICATION, LOCALIZATION))]] = False
    return missed


def summarize_errors(matches: Matches, errors: Errors, threshold: float) -> dict[str, dict]:
    """Count the errors of each type from a threshold on, and what AP50 would gain without that type.

    The gain is that of all detections, whatever their score: classification and localization errors are corrected where
    the object has no true positive, all others are removed (missed objects: from the ground truth). None without any.
    """
    kept = matches.detections.score >= threshold
    counts = np.bincount(errors.kind[kept & (errors.kind != NO_ERROR)], minlength=len(ERROR_TYPES)).tolist()
    counts[MISSED] = int(missed_gt(matches, errors, kept).sum())
    ap50 = _ap50_without(matches, errors)
    return {
        name: {
            "count": counts[kind],
            "ap50_gain": None if ap50 is None else _ap50_without(matches, errors, kind) - ap50,
            "meaning": meaning,
        }
        for kind, (name, meaning) in enumerate(ERROR_TYPES.items())
    }


def _ap50_without(matches: Matches, errors: Errors, kind: int = NO_ERROR) -> float | None:
    """Return what AP50 were without the errors of a type, the mean over the classes with objects; None without any.

    A class of which no objects remain, as all are missed, is perfect.
    """
    label, outcome = matches.detections.label.copy(), matches.outcome["all"][0].copy()
    remaining = is_counted = matches.counted["all"]
    if kind == MISSED:
        remaining = is_counted & ~missed_gt(matches, errors, np.ones(len(label), dtype=bool))
    elif kind != NO_ERROR:
        outcome[errors.kind == kind] = IGNORED
    if kind in (CLASSIFICATION, LOCALIZATION):
        corrected = _best_on_unmatched_gt(matches, errors, errors.kind == kind)
        label[corrected] = matches.gt.label[errors.gt[corrected]]
        outcome[corrected] = TP
    best_first = np.lexsort((-matches.detections.score, label))
    by_class = np.split(outcome[best_first], np.searchsorted(label[best_first], np.arange(1, len(matches.names))))
    counts = (np.bincount(matches.gt.label[mask], minlength=len(matches.names)) for mask in (is_counted, remaining))
    ap = [
        precision_at_recalls(of_class[None], left)[0].mean() if left else 1.0
        for of_class, objects, left in zip(by_class, *counts, strict=True)
        if objects
    ]
    return mean(ap)


def _best_on_unmatched_gt(matches: Matches, errors: Errors, mask: np.ndarray) -> np.ndarray:
    """Return the indices of the best detections in a mask on each object without a true positive."""
    is_free = matches.counted["all"].copy()
    is_free[matches.matched[matches.outcome["all"][0] == TP]] = False
    candidates = np.flatnonzero(mask & is_free[errors.gt])
    candidates = candidates[np.argsort(-matches.detections.score[candidates], kind="stable")]
    return candidates[np.unique(errors.gt[candidates], return_index=True)[1]]


def confusion(matches: Matches, threshold: float) -> list[list[int]]:
    """Return (K+1, K+1) counts: rows are ground truth, columns predictions, the last of each is background.

    Detections that score at least `threshold` are matched within their class first (IoU 0.5); what remains is then
    matched across classes, the best first. Ignored detections and crowd regions are not counted.
    """
    gt, detections, classes = matches.gt, matches.detections, len(matches.names)
    kept = (detections.score >= threshold) & (matches.outcome["all"][0] != IGNORED)
    matched = np.where(kept, matches.matched, UNMATCHED)
    free = matches.counted["all"].copy()
    free[matched[matched != UNMATCHED]] = False
    unmatched = kept & (matched == UNMATCHED)
    pairs = matches.pairs
    pairs = pairs.where(unmatched[pairs.detection] & free[pairs.gt])
    rank = rank_within(detections.image, detections.score)
    nowhere = np.zeros(len(free), dtype=bool)
    across_classes = match(pairs, rank, nowhere, nowhere, np.array([TP_IOU]))[0]
    matched = np.where(unmatched, across_classes, matched)
    free[matched[matched != UNMATCHED]] = False
    true = np.append(gt.label, classes)[np.append(matched[kept], np.flatnonzero(free))]
    predicted = np.append(detections.label[kept], np.full(free.sum(), classes))
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(table, (true, predicted), 1)
    return table.tolist()
