"""What is shown of validation images: which ones, how wrong each is, and whose attention goes with a box. Numpy only.

Shapes: G annotated objects, N detections, I images in the order of their ids, Q queries.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detr.report.matching import FOUND_IOU, IGNORED, NOTHING, Matches, match_all, overlap_of
from detr.report.mistakes import NO_MISTAKE, Mistakes, find_mistakes, missed_objects

MOST_IMAGES = 100  # of a report
_MOST_QUERIES = 20


class Look(NamedTuple):
    """What a detector looks at in an image, as `detr.detector.Look` has it."""

    scores: np.ndarray  # (Q,) in [0, 1]
    boxes_xyxy: np.ndarray  # (Q, 4), pixels of the image
    boxes_cxcywh: np.ndarray  # (Q, 4) in [0, 1]
    cross: np.ndarray  # (Q, h, w), each with sum 1
    encoder: np.ndarray | None  # (h, w, h, w), likewise


class Judged(NamedTuple):
    """A run's validation images with every object and every detection, and what is wrong with them."""

    images: list[dict]  # COCO's, in the order of their ids
    folder: Path
    matches: Matches
    mistakes: Mistakes

    def of_image(self, number: int, threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of an image's objects, and of its detections from this score on, the best first."""
        found = np.flatnonzero((self.matches.found.image == number) & (self.matches.found.score >= threshold))
        best_first = np.argsort(-self.matches.found.score[found], kind="stable")
        return np.flatnonzero(self.matches.objects.image == number), found[best_first]

    def missed(self, threshold: float) -> np.ndarray:
        """(G,) bool: objects that nothing from this score on finds or explains."""
        return missed_objects(self.matches, self.mistakes, self.matches.found.score >= threshold)

    def wrong(self, threshold: float) -> np.ndarray:
        """(I,) how many mistakes each image has: wrong detections from this score on, and missed objects."""
        kept = (self.matches.found.score >= threshold) & (self.mistakes.kind != NO_MISTAKE)
        images = self.matches.found.image[kept], self.matches.objects.image[self.missed(threshold)]
        return np.bincount(np.concatenate(images), minlength=len(self.images))

    def is_ignored(self, number: int) -> bool:
        """Whether a detection counts neither way: it lies in a crowd region."""
        return bool(self.matches.outcome["all"][0, number] == IGNORED)


def judge(coco: dict, results: list[dict], folder: Path) -> Judged:
    """Detections in COCO's results format, checked ones, held against the annotations; the images are in `folder`."""
    matches = match_all(coco, results)
    images = sorted(coco["images"], key=lambda image: image["id"])
    return Judged(images, folder, matches, find_mistakes(matches))


def spread(count: int, most: int) -> list[int]:
    """At most this many of the numbers below `count`, evenly spaced, with the first and the last of them."""
    return np.linspace(0, max(0, count - 1), min(count, most)).round().astype(int).tolist()


def worst_first(judged: Judged, threshold: float) -> np.ndarray:
    """(I,) the numbers of the images, those with most mistakes first."""
    return np.argsort(-judged.wrong(threshold), kind="stable")


def queries_of(boxes_xywh: np.ndarray, scores: np.ndarray, look: Look) -> Iterator[int]:
    """The query that each detection of an image comes from, or `NOTHING`.

    Detections may have been made in a padded batch, which moves boxes a little: it is the query whose box is closest,
    and of equal boxes the one of the closest score.
    """
    queries_xywh = np.concatenate((look.boxes_xyxy[:, :2], look.boxes_xyxy[:, 2:] - look.boxes_xyxy[:, :2]), axis=1)
    nowhere = np.zeros(len(queries_xywh), dtype=bool)
    for box_xywh, score in zip(boxes_xywh, scores, strict=True):
        iou = overlap_of(np.broadcast_to(box_xywh, queries_xywh.shape), queries_xywh, nowhere)
        best = int(np.argmax(iou - 0.1 * np.abs(look.scores - score)))
        yield best if iou[best] >= FOUND_IOU else NOTHING


class Places(NamedTuple):
    """Where a query looks: what it predicts in each of I images."""

    query: int
    boxes_cxcywh: np.ndarray  # (I, 4) in [0, 1]
    scores: np.ndarray  # (I,)


def busiest_queries(looks: list[Look]) -> list[Places]:
    """The queries with the highest scores, in their own order."""
    if not looks:
        return []
    scores, boxes_cxcywh = np.stack([look.scores for look in looks]), np.stack([look.boxes_cxcywh for look in looks])
    busiest = np.argsort(-scores.mean(axis=0), kind="stable")[:_MOST_QUERIES]
    return [Places(query, boxes_cxcywh[:, query], scores[:, query]) for query in sorted(busiest.tolist())]
