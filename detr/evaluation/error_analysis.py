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
DUPLICATE, CLASSIFICATION, LOCALIZATION, BOTH, BACKGROUND, _ = range(len(ERROR_TYPES))
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
    counts[-1] = int(missed_gt(matches, errors, kept).sum())
    gains = _gains(matches, errors)
    return {
        name: {"count": count, "ap50_gain": gain, "meaning": meaning}
        for (name, meaning), count, gain in zip(ERROR_TYPES.items(), counts, gains, strict=True)
    }


def _gains(matches: Matches, errors: Errors) -> list[float | None]:
    """Return what AP50 gains without the errors of each type."""
    label, outcome = matches.detections.label, matches.outcome["all"][0]
    is_counted, labels = matches.counted["all"], range(len(matches.names))
    objects = np.bincount(matches.gt.label[is_counted], minlength=len(labels))
    if not is_counted.any():
        return [None] * len(ERROR_TYPES)
    now = _ap50(label, matches.detections.score, outcome, objects, objects)
    fixed = []
    for kind in range(len(ERROR_TYPES) - 1):
        of_kind = errors.kind == kind
        new_label, new_outcome = label.copy(), np.where(of_kind, IGNORED, outcome)
        if kind in (CLASSIFICATION, LOCALIZATION):
            corrected = _best_on_unmatched_gt(matches, errors, of_kind)
            new_label[corrected] = matches.gt.label[errors.gt[corrected]]
            new_outcome[corrected] = TP
        fixed.append(_ap50(new_label, matches.detections.score, new_outcome, objects, objects))
    missed = missed_gt(matches, errors, np.ones(len(label), dtype=bool))
    remaining = objects - np.bincount(matches.gt.label[missed], minlength=len(labels))
    fixed.append(_ap50(label, matches.detections.score, outcome, objects, remaining))
    return [ap50 - now for ap50 in fixed]


def _best_on_unmatched_gt(matches: Matches, errors: Errors, mask: np.ndarray) -> np.ndarray:
    """Return the indices of the best detections in a mask on each object without a true positive."""
    is_free = matches.counted["all"].copy()
    is_free[matches.matched[matches.outcome["all"][0] == TP]] = False
    candidates = np.flatnonzero(mask & is_free[errors.gt])
    candidates = candidates[np.argsort(-matches.detections.score[candidates], kind="stable")]
    return candidates[np.unique(errors.gt[candidates], return_index=True)[1]]


def _ap50(
    label: np.ndarray, score: np.ndarray, outcome: np.ndarray, objects: np.ndarray, remaining: np.ndarray
) -> float:
    """Return the mean over the classes with objects; one of which none are `remaining` is perfect."""
    order = np.lexsort((-score, label))
    bounds = np.searchsorted(label[order], np.arange(len(objects) + 1))
    precisions = [
        precision_at_recalls(outcome[order[begin:end]][None], n)[0] if n else np.ones(1)
        for begin, end, n in zip(bounds[:-1], bounds[1:], remaining, strict=True)
    ]
    return mean([precision.mean() for precision, n in zip(precisions, objects, strict=True) if n])


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
