"""What a score is worth: precision, recall and F1 of every threshold, and whether 0.9 means nine in ten. Numpy only.

Shapes: N detections. A detection is right where it finds an object of its class with IoU 0.5 or more.
"""

from typing import NamedTuple

import numpy as np

from detr.evaluation.coco_matching import IGNORED, TP, Matches

THRESHOLDS = np.arange(101) / 100  # where curves are given
_BINS = 10


class Scored(NamedTuple):
    """Detections that count, the best first."""

    score: np.ndarray  # (N,) float
    right: np.ndarray  # (N,) bool
    objects: int  # how many there are to find


def scored(matches: Matches, label: int | None = None) -> Scored:
    """The detections of a class, or of all classes together."""
    where = slice(None) if label is None else matches.slice_of(label)
    outcome, score = matches.outcome["all"][0, where], matches.detections.score[where]
    outcome, score = outcome[outcome != IGNORED], score[outcome != IGNORED]
    order = np.argsort(-score, kind="stable")
    objects = int(matches.counted["all"].sum()) if label is None else matches.count_gt(label)
    return Scored(score[order], outcome[order] == TP, objects)


def at_thresholds(these: Scored, thresholds: np.ndarray = THRESHOLDS) -> dict[str, list[float | None]]:
    """Precision, recall and F1 of the detections that score at least each threshold; None where not defined."""
    kept = np.searchsorted(-these.score, -thresholds, "right")
    right = np.append(0, np.cumsum(these.right))[kept]
    return {
        "precision": _ratios(right, kept),
        "recall": _ratios(right, np.full_like(kept, these.objects)),
        "f1": _ratios(2 * right, kept + these.objects if these.objects else np.zeros_like(kept)),
    }


def _ratios(above: np.ndarray, below: np.ndarray) -> list[float | None]:
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]


def best_threshold(these: Scored) -> dict[str, float | None]:
    """The threshold of the best F1, halfway to the best detection that it leaves out, and what it gives.

    All None where nothing right is found. Of equally good thresholds it is the highest.
    """
    last_of_score = np.flatnonzero(np.diff(these.score, append=-1.0))  # equal scores are kept or left together
    right = np.cumsum(these.right)[last_of_score]
    if not right.any():
        return dict.fromkeys(("threshold", "precision", "recall", "f1"))
    best = last_of_score[np.argmax(2 * right / (last_of_score + 1 + these.objects))]
    score, following = np.append(these.score, 0.0)[best : best + 2].tolist()
    middle = (score + following) / 2
    threshold = middle if middle > following else score
    at = at_thresholds(these, np.array([threshold]))
    return {"threshold": threshold} | {name: values[0] for name, values in at.items()}


def calibration(these: Scored) -> dict:
    """How often detections of a score are right: ten bins of equal width, and the expected calibration error.

    The error is the mean distance of a bin's share of right detections from its mean score, weighted by how many it
    holds (Guo et al. 2017); None without detections.
    """
    place = np.minimum((these.score * _BINS).astype(np.int64), _BINS - 1)
    count, right, score = (np.bincount(place, weights, minlength=_BINS) for weights in (None, these.right, these.score))
    bins = [
        {"low": number / _BINS, "high": (number + 1) / _BINS, "count": n, "score": mean, "precision": share}
        for number, (n, mean, share) in enumerate(
            zip(count.tolist(), _ratios(score, count), _ratios(right, count), strict=True)
        )
    ]
    total = int(count.sum())
    return {"bins": bins, "expected_error": float(np.abs(right - score).sum()) / total if total else None}
