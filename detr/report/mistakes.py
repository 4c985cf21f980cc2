"""What a detector gets wrong: kinds of mistakes in the spirit of TIDE (Bolya et al. 2020), and which class is taken for
which. Numpy only.

Shapes: G annotated objects, N detections, K classes.
"""

from typing import NamedTuple

import numpy as np

from detr.report.matching import FOUND_IOU, IGNORED, NEAR_IOU, NOTHING, RIGHT, WRONG, Matches, Pairs, match, rank_within
from detr.report.precision import mean, precision_at_recalls

# Every wrong detection is of the first kind that fits it; objects that no detection explains are missed.
KINDS = {
    "duplicate": "finds an object of its class that a better detection has found",
    "wrong_class": "lies on an object of another class (IoU from 0.5)",
    "badly_placed": "touches an object of its class (IoU 0.1 to 0.5)",
    "both": "touches an object of another class (IoU 0.1 to 0.5)",
    "background": "touches nothing (IoU below 0.1)",
    "missed": "an object that no detection finds, or would find with another class or a better box",
}
DUPLICATE, WRONG_CLASS, BADLY_PLACED, BOTH, BACKGROUND, _ = range(len(KINDS))
NO_MISTAKE = -1


class Mistakes(NamedTuple):
    """What is wrong with each detection; the threshold plays no part in it, as better ones choose first."""

    kind: np.ndarray  # (N,) int, into KINDS, or NO_MISTAKE: right, or ignored
    about: np.ndarray  # (N,) int, the object that a wrong one lies on or touches most, or NOTHING


def find_mistakes(matches: Matches) -> Mistakes:
    """The kind of mistake of every detection."""
    objects, found, pairs = matches.objects, matches.found, matches.pairs
    wrong = matches.outcome["all"][0] == WRONG
    pairs = pairs.where(wrong[pairs.detection] & ~objects.crowd[pairs.object])
    is_same = objects.label[pairs.object] == found.label[pairs.detection]
    same, same_iou = _closest(pairs.where(is_same), len(wrong))
    other, other_iou = _closest(pairs.where(~is_same), len(wrong))
    fits = [same_iou >= FOUND_IOU, other_iou >= FOUND_IOU, same_iou >= NEAR_IOU, other_iou >= NEAR_IOU]
    kind = np.select([~wrong, *fits], [NO_MISTAKE, DUPLICATE, WRONG_CLASS, BADLY_PLACED, BOTH], BACKGROUND)
    about = np.select([~wrong, *fits], [NOTHING, same, other, same, other], NOTHING)
    return Mistakes(kind, about)


def _closest(pairs: Pairs, detections: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) the object that each detection overlaps most, and by how much; NOTHING and 0 where there is none."""
    thing, iou = np.full(detections, NOTHING), np.zeros(detections)
    pairs = pairs.where(np.argsort(pairs.iou, kind="stable"))  # of what is written to one place, the last stays
    thing[pairs.detection], iou[pairs.detection] = pairs.object, pairs.iou
    return thing, iou


def missed_objects(matches: Matches, mistakes: Mistakes, kept: np.ndarray) -> np.ndarray:
    """(G,) bool: objects missed by the detections that are `kept`, an (N,) mask."""
    missed = matches.counted["all"].copy()
    missed[matches.matched[kept & (matches.outcome["all"][0] == RIGHT)]] = False
    missed[mistakes.about[kept & np.isin(mistakes.kind, (WRONG_CLASS, BADLY_PLACED))]] = False
    return missed


def summarise_mistakes(matches: Matches, mistakes: Mistakes, threshold: float) -> dict[str, dict]:
    """How many mistakes of each kind there are from a threshold on, and how much AP50 would gain without that kind.

    The gain is that of all detections, whatever their score: wrong class and bad box are put right where the object is
    not found otherwise, everything else is taken out (missed objects: from those to be found). None without objects.
    """
    kept = matches.found.score >= threshold
    counts = np.bincount(mistakes.kind[kept & (mistakes.kind != NO_MISTAKE)], minlength=len(KINDS)).tolist()
    counts[-1] = int(missed_objects(matches, mistakes, kept).sum())
    gains = _gains(matches, mistakes)
    return {
        name: {"count": count, "ap50_gain": gain, "meaning": meaning}
        for (name, meaning), count, gain in zip(KINDS.items(), counts, gains, strict=True)
    }


def _gains(matches: Matches, mistakes: Mistakes) -> list[float | None]:
    """What AP50 gains without the mistakes of each kind."""
    label, outcome = matches.found.label, matches.outcome["all"][0]
    is_counted, labels = matches.counted["all"], range(len(matches.names))
    objects = np.bincount(matches.objects.label[is_counted], minlength=len(labels))
    if not is_counted.any():
        return [None] * len(KINDS)
    now = _ap50(label, matches.found.score, outcome, objects, objects)
    fixed = []
    for kind in range(len(KINDS) - 1):
        mine = mistakes.kind == kind
        new_label, new_outcome = label.copy(), np.where(mine, IGNORED, outcome)
        if kind in (WRONG_CLASS, BADLY_PLACED):
            put_right = _first_of_free_objects(matches, mistakes, mine)
            new_label[put_right] = matches.objects.label[mistakes.about[put_right]]
            new_outcome[put_right] = RIGHT
        fixed.append(_ap50(new_label, matches.found.score, new_outcome, objects, objects))
    missed = missed_objects(matches, mistakes, np.ones(len(label), dtype=bool))
    left = objects - np.bincount(matches.objects.label[missed], minlength=len(labels))
    fixed.append(_ap50(label, matches.found.score, outcome, objects, left))
    return [ap50 - now for ap50 in fixed]


def _first_of_free_objects(matches: Matches, mistakes: Mistakes, mine: np.ndarray) -> np.ndarray:
    """Of the detections in a mask, the best about each object that is not found: their numbers."""
    is_free = matches.counted["all"].copy()
    is_free[matches.matched[matches.outcome["all"][0] == RIGHT]] = False
    candidates = np.flatnonzero(mine & is_free[mistakes.about])
    candidates = candidates[np.argsort(-matches.found.score[candidates], kind="stable")]
    return candidates[np.unique(mistakes.about[candidates], return_index=True)[1]]


def _ap50(label: np.ndarray, score: np.ndarray, outcome: np.ndarray, objects: np.ndarray, left: np.ndarray) -> float:
    """Mean over the classes with objects; one of which none are `left` to be found is perfect."""
    order = np.lexsort((-score, label))
    bounds = np.searchsorted(label[order], np.arange(len(objects) + 1))
    precisions = [
        precision_at_recalls(outcome[order[begin:end]][None], n)[0] if n else np.ones(1)
        for begin, end, n in zip(bounds[:-1], bounds[1:], left, strict=True)
    ]
    return mean([precision.mean() for precision, n in zip(precisions, objects, strict=True) if n])


def confusion(matches: Matches, threshold: float) -> list[list[int]]:
    """(K+1, K+1) counts: rows are annotated classes, columns what they are taken for, the last of each is background.

    Detections that score at least `threshold` find objects of their class first (IoU 0.5); those left over are then
    matched with the objects left over, the best first. Ignored detections and crowd regions are not counted.
    """
    objects, found, classes = matches.objects, matches.found, len(matches.names)
    kept = (found.score >= threshold) & (matches.outcome["all"][0] != IGNORED)
    matched = np.where(kept, matches.matched, NOTHING)
    free = matches.counted["all"].copy()
    free[matched[matched != NOTHING]] = False
    left = kept & (matched == NOTHING)
    pairs = matches.pairs
    pairs = pairs.where(left[pairs.detection] & free[pairs.object])
    rank = rank_within(found.image, found.score)
    nowhere = np.zeros(len(free), dtype=bool)
    taken_for = match(pairs, rank, nowhere, nowhere, np.array([FOUND_IOU]))[0]
    matched = np.where(left, taken_for, matched)
    free[matched[matched != NOTHING]] = False
    truth = np.append(objects.label, classes)[np.append(matched[kept], np.flatnonzero(free))]
    seen = np.append(found.label[kept], np.full(free.sum(), classes))
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(table, (truth, seen), 1)
    return table.tolist()
