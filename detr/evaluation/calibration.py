"""What a score is worth: precision, recall and F1 of every threshold, and whether 0.9 means nine in ten. Numpy only.

Shapes: N detections. A true positive matches an object of its class with IoU 0.5 or more.
"""

from typing import NamedTuple

import numpy as np

from detr.evaluation.coco_matching import IGNORED, TP, Matches

THRESHOLDS = np.arange(101) / 100  # where curves are given
_BINS = 10
MIN_SCORE = 0.05  # of scores that count in `expected_errors`: below, a hundred queries would add up to noise


class ScoredDetections(NamedTuple):
    """Detections that count, the best first."""

    score: np.ndarray  # (N,) float
    tp: np.ndarray  # (N,) bool
    objects: int  # how many there are to find


def scored(matches: Matches, label: int | None = None) -> ScoredDetections:
    """Return the detections of a class, or of all classes together."""
    where = slice(None) if label is None else matches.slice_of(label)
    outcome, score = matches.outcome["all"][0, where], matches.detections.score[where]
    outcome, score = outcome[outcome != IGNORED], score[outcome != IGNORED]
    order = np.argsort(-score, kind="stable")
    objects = int(matches.counted["all"].sum()) if label is None else matches.count_gt(label)
    return ScoredDetections(score[order], outcome[order] == TP, objects)


def at_thresholds(detections: ScoredDetections, thresholds: np.ndarray = THRESHOLDS) -> dict[str, list[float | None]]:
    """Return precision, recall and F1 of the detections that score at least each threshold; None where not defined."""
    kept = np.searchsorted(-detections.score, -thresholds, "right")
    tp = np.append(0, np.cumsum(detections.tp))[kept]
    return {
        "precision": _ratios(tp, kept),
        "recall": _ratios(tp, np.full_like(kept, detections.objects)),
        "f1": _ratios(2 * tp, kept + detections.objects if detections.objects else np.zeros_like(kept)),
    }


def _ratios(above: np.ndarray, below: np.ndarray) -> list[float | None]:
    return [a / b if b else None for a, b in zip(above.tolist(), below.tolist(), strict=True)]


def best_threshold(detections: ScoredDetections) -> dict[str, float | None]:
    """Return the threshold of the best F1, halfway to the best detection that it leaves out, and what it gives.

    All None where there is no true positive. Of equally good thresholds it is the highest.
    """
    last_of_score = np.flatnonzero(np.diff(detections.score, append=-1.0))  # equal scores go together
    tp = np.cumsum(detections.tp)[last_of_score]
    if not tp.any():
        return dict.fromkeys(("threshold", "precision", "recall", "f1"))
    best = last_of_score[np.argmax(2 * tp / (last_of_score + 1 + detections.objects))]
    score, following = np.append(detections.score, 0.0)[best : best + 2].tolist()
    middle = (score + following) / 2
    threshold = middle if middle > following else score
    at = at_thresholds(detections, np.array([threshold]))
    return {"threshold": threshold} | {name: values[0] for name, values in at.items()}


def calibration(detections: ScoredDetections) -> dict:
    """Return the precision of detections by score, in ten bins of equal width, and the expected calibration error.

    The error is the mean distance of a bin's precision from its mean score, weighted by how many detections it holds
    (Guo et al. 2017); None without detections.
    """
    place = np.minimum((detections.score * _BINS).astype(np.int64), _BINS - 1)
    count, tp, score = (
        np.bincount(place, weights, minlength=_BINS) for weights in (None, detections.tp, detections.score)
    )
    bins = [
        {"low": number / _BINS, "high": (number + 1) / _BINS, "count": n, "score": mean, "precision": share}
        for number, (n, mean, share) in enumerate(
            zip(count.tolist(), _ratios(score, count), _ratios(tp, count), strict=True)
        )
    ]
    total = int(count.sum())
    return {"bins": bins, "expected_error": float(np.abs(tp - score).sum()) / total if total else None}


def calibrated(scores: np.ndarray, bins: list[dict]) -> np.ndarray:
    """Return (N,) how probably detections of these scores are right, by the bins of `calibration`.

    Between the bins' mean scores it is interpolated; without bins it is the score itself.
    """
    known = [(one["score"], one["precision"]) for one in bins if one["count"]]
    return np.interp(scores, *zip(*known, strict=True)) if known else np.asarray(scores, dtype=np.float64)


def expected_errors(scores: list[float], threshold: float, bins: list[dict]) -> float:
    """Return how many wrong decisions are to be expected in an image: detections from the threshold on that are wrong,
    and others from `MIN_SCORE` on that are right.
    """
    known = np.array([score for score in scores if score >= min(MIN_SCORE, threshold)])
    right = calibrated(known, bins)
    return float(np.where(known >= threshold, 1 - right, right).sum())
