"""Annotations that are probably wrong: where a detector and they disagree. Numpy only.

Shapes: G annotated objects, N detections.
"""

from typing import NamedTuple

import numpy as np

from detr.data.coco_json import iou_xywh
from detr.evaluation.coco_matching import TP_IOU, Detections, GroundTruth, overlapping_pairs, pack_detections, pack_gt

KINDS = {
    "missing": "detected, and not annotated",
    "spurious": "annotated, and nothing is detected there",
    "class": "detected as another class",
    "loose": "detected, and the box does not fit",
}
# The IoU from which on a box fits, and below which it does not: detections of one object differ by no more, and a box
# that is off by a third of its sides overlaps by less.
_FITS, _OFF = 0.8, 0.4
# The sum of IoUs with annotations up to which a detection may be an object in a crowd, and from which it is none: a box
# between two objects, say.
_MOST_COVERED_MISSING, _COVERED = 0.3, 0.8
_PRIOR = 3  # objects of its image that an object's class counts as, where recall is estimated


class Suspect(NamedTuple):
    """One thing that is probably wrong in the annotations."""

    kind: str  # of KINDS
    suspicion: float  # 0 to 1
    image_id: int
    annotation: dict | None  # COCO's; None where one is missing
    result: dict | None  # the detection that tells, COCO's results format; None where there is none

    @property
    def bbox(self) -> list[float]:
        """Return where it is: xywh in pixels."""
        return (self.annotation or self.result)["bbox"]


def find_suspects(coco: dict, results: list[dict]) -> list[Suspect]:
    """Return a suspect for each annotation, and one for each object that may be missing, the most suspicious first.

    Each detection belongs to the annotation that it overlaps most. The best one of an annotation has the largest
    score * IoU; how well it fits, from 0 to 1, follows from the IoU. The suspicion is
        (1 - score * fit) * `_recall_nearby` of an annotation (spurious or loose),
        score * fit, where that is 0.5 or more, of one whose best detection is of another class (class),
        score * the share of it that no annotation covers, of a detection that is the best of none (missing).
    Crowd regions explain detections and are not suspicious.

    `results`, in COCO's results format, are to have those of low scores too: they tell that something is there.
    """
    gt, detections = pack_gt(coco), pack_detections(coco, results)
    pairs = overlapping_pairs(gt, detections, len(coco["images"]))
    most = np.zeros(len(detections.score))
    np.maximum.at(most, pairs.detection, pairs.iou)
    about = pairs.where(pairs.iou == most[pairs.detection])
    # Of what is written to one place, the last stays.
    about = about.where(np.argsort(detections.score[about.detection] * about.iou, kind="stable"))
    best, fit = np.full(len(gt.crowd), -1), np.zeros(len(gt.crowd))
    best[about.gt], fit[about.gt] = about.detection, ((about.iou - _OFF) / (_FITS - _OFF)).clip(0, 1)
    score = np.where(best >= 0, np.append(detections.score, 0.0)[best], 0.0)
    detected = score * fit
    undetected = (1 - detected) * _recall_nearby(gt, detected)
    suspects = []
    for number in np.flatnonzero(~gt.crowd).tolist():
        annotation, one = coco["annotations"][number], int(best[number])
        result = results[detections.index[one]] if one >= 0 else None
        kind = "spurious" if 1 - score[number] >= score[number] * (1 - fit[number]) else "loose"
        suspicion = undetected[number]
        if result and result["category_id"] != annotation["category_id"] and detected[number] >= 0.5:
            kind, suspicion = "class", detected[number]
        suspects.append(Suspect(kind, float(suspicion), annotation["image_id"], annotation, result))
    covered = np.bincount(pairs.detection, pairs.iou, minlength=len(most))
    is_missing = detections.score * ((_COVERED - covered) / (_COVERED - _MOST_COVERED_MISSING)).clip(0, 1)
    is_missing[best[best >= 0]] = 0
    for number in _without_duplicates(detections, is_missing, best[best >= 0].tolist()):
        result = results[detections.index[number]]
        suspects.append(Suspect("missing", float(is_missing[number]), result["image_id"], None, result))
    return sorted(suspects, key=lambda suspect: -suspect.suspicion)


def _recall_nearby(gt: GroundTruth, detected: np.ndarray) -> np.ndarray:
    """Return (G,) how well the detector finds objects like each: the others in its image, and those of its class.

    That nothing is detected tells little where much is overlooked: in a crowd, or of a class that is hard.
    """
    counts = ~gt.crowd
    of_class = np.bincount(gt.label[counts], detected[counts]), np.bincount(gt.label[counts])
    of_image = np.bincount(gt.image[counts], detected[counts]), np.bincount(gt.image[counts])
    recall, nearby = np.zeros(len(detected)), np.flatnonzero(counts)
    label, image = gt.label[nearby], gt.image[nearby]
    prior = (of_class[0][label] + 1) / (of_class[1][label] + 1)
    recall[nearby] = (of_image[0][image] - detected[nearby] + _PRIOR * prior) / (of_image[1][image] - 1 + _PRIOR)
    return recall


def _without_duplicates(detections: Detections, weight: np.ndarray, taken: list[int]) -> list[int]:
    """Return the detections of some weight that are no duplicates of weightier ones or of those that are taken."""
    kept = [*taken]
    for number in np.argsort(-weight, kind="stable")[: int((weight > 0).sum())].tolist():
        others = [other for other in kept if detections.image[other] == detections.image[number]]
        boxes_xywh = detections.boxes_xywh[[number] * len(others)]
        if not (iou_xywh(boxes_xywh, detections.boxes_xywh[others]) >= TP_IOU).any():
            kept.append(number)
    return kept[len(taken) :]
