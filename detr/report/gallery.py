"""Validation images with their detections and errors, and whose attention goes with a box. Numpy only.

Shapes: G ground-truth objects, N detections, I images in the order of their ids, Q queries.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detr.data.coco_json import iou_xywh
from detr.evaluation.coco_matching import TP_IOU, UNMATCHED, Matches, match_results
from detr.evaluation.error_analysis import NO_ERROR, Errors, find_errors, missed_gt

MOST_IMAGES = 100  # of a report
_MOST_QUERIES = 20


class AttentionMaps(NamedTuple):
    """What Q queries, whatever their score, predict in an image, and what they attend to; every map sums to 1."""

    scores: np.ndarray  # (Q,) in [0, 1]
    boxes_xyxy: np.ndarray  # (Q, 4), pixels of the image
    boxes_cxcywh: np.ndarray  # (Q, 4) in [0, 1]
    cross: np.ndarray  # (Q, h, w) cross-attention of each query in the last decoder layer
    encoder: np.ndarray | None  # (h, w, h, w) self-attention of each cell in the last encoder layer, if there is any


class EvaluatedImages(NamedTuple):
    """A run's validation images with ground truth, detections and errors."""

    images: list[dict]  # COCO's, in the order of their ids
    folder: Path
    matches: Matches
    errors: Errors

    def of_image(self, number: int, threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of an image's ground truth, and of its detections from this score on, the best first."""
        own = self.matches.detections
        detections = np.flatnonzero((own.image == number) & (own.score >= threshold))
        best_first = np.argsort(-own.score[detections], kind="stable")
        return np.flatnonzero(self.matches.gt.image == number), detections[best_first]

    def missed(self, threshold: float) -> np.ndarray:
        """Return (G,) bool: objects that no detection from this score on matches or explains."""
        return missed_gt(self.matches, self.errors, self.matches.detections.score >= threshold)

    def count_errors(self, threshold: float) -> np.ndarray:
        """Return (I,) the errors of each image: false positives from this score on, and missed objects."""
        kept = (self.matches.detections.score >= threshold) & (self.errors.kind != NO_ERROR)
        images = self.matches.detections.image[kept], self.matches.gt.image[self.missed(threshold)]
        return np.bincount(np.concatenate(images), minlength=len(self.images))


def evaluate_images(coco: dict, results: list[dict], folder: Path, matches: Matches | None = None) -> EvaluatedImages:
    """Evaluate checked detections in COCO's results format against the annotations; the images are in `folder`.

    `matches` is the first of `match_results` of both, where it is known already.
    """
    images = sorted(coco["images"], key=lambda image: image["id"])
    matches = matches or match_results(coco, results)[0]
    return EvaluatedImages(images, folder, matches, find_errors(matches))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most this many of the numbers below `count`, evenly spaced, with the first and the last of them."""
    return np.linspace(0, max(0, count - 1), min(count, most)).round().astype(int).tolist()


def queries_of(boxes_xywh: np.ndarray, scores: np.ndarray, maps: AttentionMaps) -> Iterator[int]:
    """Yield the query that each detection of an image comes from, or `UNMATCHED`.

    Detections may have been made in a padded batch, which moves boxes a little: it is the query whose box is closest,
    and of equal boxes the one of the closest score.
    """
    queries_xywh = np.concatenate((maps.boxes_xyxy[:, :2], maps.boxes_xyxy[:, 2:] - maps.boxes_xyxy[:, :2]), axis=1)
    for box_xywh, score in zip(boxes_xywh, scores, strict=True):
        iou = iou_xywh(np.broadcast_to(box_xywh, queries_xywh.shape), queries_xywh)
        best = int(np.argmax(iou - 0.1 * np.abs(maps.scores - score)))
        yield best if iou[best] >= TP_IOU else UNMATCHED


def busiest_queries(attention: list[AttentionMaps]) -> dict[int, np.ndarray]:
    """Return (I, 5) boxes_cxcywh and scores of the queries with the highest scores, by their numbers, in this order."""
    if not attention:
        return {}
    predictions = np.stack([np.column_stack((maps.boxes_cxcywh, maps.scores)) for maps in attention])  # (I, Q, 5)
    busiest = np.argsort(-predictions[..., -1].mean(axis=0), kind="stable")[:_MOST_QUERIES]
    return {query: predictions[:, query] for query in sorted(busiest.tolist())}
