"""How far AP would move with other validation images of the same kind: a bootstrap over images. Numpy only.

Shapes: B resamples, I images, K classes, T IoU thresholds, N detections of a class.
"""

import numpy as np

from detr.evaluation.coco_matching import IGNORED, IOU_THRESHOLDS, TP, Matches
from detr.evaluation.coco_metrics import MAX_DETECTIONS, RECALLS, TINY

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
_NUMBERS_AT_ONCE = 1 << 22  # bounds the memory: resamples of a step times detections of a class


def intervals(matches: Matches) -> dict[str, list[float] | float | None]:
    """Return the central 95 % of AP and AP50 over resamples of the images, None where none of them has objects; and how
    they were drawn.

    Images that are drawn twice make the curves bumpier, which raises interpolated precision and with it the AP of every
    resample. That is no matter of chance, so the resamples are moved together until their mean is the AP of the images
    themselves.
    """
    rng = np.random.default_rng(SEED)
    images = matches.images
    drawn = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES) if images else np.zeros((RESAMPLES, 0))
    times_drawn = np.concatenate((np.ones((1, images)), drawn)).astype(np.int32)
    by_class = resampled_ap(matches, times_drawn)
    ends = {"AP": _interval(by_class.reshape(len(by_class), -1)), "AP50": _interval(by_class[:, :, 0])}
    return ends | {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}


def _interval(values: np.ndarray) -> list[float] | None:
    """Return quantiles of the mean of what is defined in (1 + B, ...), whose first is of the images as they are."""
    is_defined = ~np.isnan(values).all(axis=1)
    if not is_defined[0] or not is_defined[1:].any():
        return None
    means = np.nanmean(values[is_defined], axis=1)
    as_they_are, resampled = means[0], means[1:]
    ends = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + (as_they_are - resampled.mean())
    return ends.clip(0, 1).tolist()


def resampled_ap(matches: Matches, times_drawn: np.ndarray) -> np.ndarray:
    """Return (B, K, T) AP of every class and IoU where image i counts `times_drawn[b, i]` times; NaN without objects.

    As if COCOeval were run on copies of the images: matching happens within an image, so it is done only once.
    """
    ap = np.full((len(times_drawn), len(matches.names), len(IOU_THRESHOLDS)), np.nan)
    for label in range(len(matches.names)):
        if not matches.count_gt(label):
            continue
        where = matches.slice_of(label)
        counts = matches.detections.rank[where] < MAX_DETECTIONS
        outcome, image = matches.outcome["all"][:, where][:, counts], matches.detections.image[where][counts]
        # What comes after the last true positive changes nothing.
        end = int(np.append(0, np.flatnonzero((outcome == TP).any(axis=0)) + 1).max())
        is_class = matches.counted["all"] & (matches.gt.label == label)
        objects = times_drawn @ np.bincount(matches.gt.image[is_class], minlength=matches.images)
        step = max(1, _NUMBERS_AT_ONCE // (end + 1))
        for begin in range(0, len(times_drawn), step):
            part = slice(begin, begin + step)
            ap[part, label] = _class_ap(outcome[:, :end], times_drawn[part][:, image[:end]], objects[part])
    return ap


def _class_ap(outcome: np.ndarray, weight: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return (B, T) AP of a class from (T, N) outcomes, (B, N) weights of its detections and (B,) object counts."""
    all_up_to = np.cumsum(weight, axis=1, dtype=np.int32)
    ap = np.empty((len(weight), len(outcome)))
    for level, results in enumerate(outcome):
        tp, ignored = np.flatnonzero(results == TP), np.flatnonzero(results == IGNORED)
        tp_up_to = np.cumsum(weight[:, tp], axis=1, dtype=np.int32)
        # Column n is of the first n ignored ones: as many as come before a true positive do not count there.
        first_ignored = np.pad(np.cumsum(weight[:, ignored], axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        counted_up_to = all_up_to[:, tp] - first_ignored[:, np.searchsorted(ignored, tp)]
        precision = tp_up_to / (counted_up_to + TINY)
        reached = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # Each true positive answers for the recall points that it is the first to reach.
        recall = tp_up_to / np.maximum(objects, 1)[:, None]
        points = np.diff(np.searchsorted(RECALLS, recall, "right"), axis=1, prepend=0)
        ap[:, level] = (reached * points).sum(axis=1) / len(RECALLS)
    ap[objects == 0] = np.nan
    return ap
