"""Match detections with ground truth, by boxes or masks: packed arrays and COCO's greedy matching. No torch.

Shapes: G ground-truth objects, N detections, P pairs of both that overlap, T IoU thresholds. Images and classes are
numbers into the sorted ids of the COCO file.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detr.data.coco_json import segmentation_problem, to_rle
from utils import UserError

BACKGROUND_IOU = 0.1  # below it a detection is on background (TIDE's threshold)
TP_IOU = 0.5  # from here on a detection is a true positive
UNMATCHED = -1  # in place of the number of a ground-truth object


class GroundTruth(NamedTuple):
    """Ground-truth objects, in the order of the file."""

    image: np.ndarray  # (G,) int
    label: np.ndarray  # (G,) int
    boxes_xywh: np.ndarray  # (G, 4) float, pixels
    area: np.ndarray  # (G,) float, square pixels; the outline's where the file has it
    crowd: np.ndarray  # (G,) bool; regions that COCO ignores: detections in them count neither way
    masks: list[dict | None]  # G, compressed RLE; None where boxes are matched


class Detections(NamedTuple):
    """Detections, class by class, the best first; equal scores in the order of images, then of the file."""

    image: np.ndarray  # (N,) int
    label: np.ndarray  # (N,) int
    boxes_xywh: np.ndarray  # (N, 4) float, pixels
    score: np.ndarray  # (N,) float in [0, 1]
    area: np.ndarray  # (N,) float, square pixels: the mask's where masks are matched
    rank: np.ndarray  # (N,) int, how many of the same class and image are better
    index: np.ndarray  # (N,) int, position in the results
    masks: list[dict | None]  # N, compressed RLE; None where boxes are matched


class Pairs(NamedTuple):
    """Pairs of a detection and a ground-truth object of the same image that overlap."""

    detection: np.ndarray  # (P,) int
    gt: np.ndarray  # (P,) int
    iou: np.ndarray  # (P,) float, of boxes or of masks; for a crowd region the share of the detection inside it

    def where(self, kept: np.ndarray) -> "Pairs":
        """Return some of the pairs, by a mask or by indices."""
        return Pairs(*(field[kept] for field in self))


def pack_gt(coco: dict, iou_type: str = "bbox") -> GroundTruth:
    """Pack the annotations of a COCO dict."""
    annotations, masks = coco["annotations"], [None] * len(coco["annotations"])
    if iou_type == "segm":
        sizes_hw = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
        masks = [to_rle(a["segmentation"], sizes_hw[a["image_id"]]) for a in annotations]
    boxes_xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    return GroundTruth(
        _numbers(coco["images"], annotations, "image_id"),
        _numbers(coco["categories"], annotations, "category_id"),
        boxes_xywh,
        np.array(areas, dtype=np.float64),
        np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        masks,
    )


def pack_detections(coco: dict, results: list[dict], iou_type: str = "bbox") -> Detections:
    """Pack checked entries of COCO's results format."""
    image = _numbers(coco["images"], results, "image_id")
    label = _numbers(coco["categories"], results, "category_id")
    boxes_xywh = np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4)
    area, masks = boxes_xywh[:, 2] * boxes_xywh[:, 3], [None] * len(results)
    if iou_type == "segm":
        masks = [r["segmentation"] for r in results]
        area = np.array([coco_mask.area(mask) for mask in masks], dtype=np.float64)
    score = np.array([r["score"] for r in results], dtype=np.float64)
    rank = rank_within(image * len(coco["categories"]) + label, score)
    # Among equal scores COCO counts the image with the smaller id first.
    order = np.lexsort((rank, image, -score, label))
    fields = (field[order] for field in (image, label, boxes_xywh, score, area, rank))
    return Detections(*fields, order, [masks[index] for index in order])


def _numbers(listed: list[dict], entries: list[dict], key: str) -> np.ndarray:
    """Return positions among the sorted ids: not the network's labels where these are raw ids (`dataset.LabelMap`)."""
    number_of_id = {i: number for number, i in enumerate(sorted(entry["id"] for entry in listed))}
    return np.array([number_of_id[entry[key]] for entry in entries], dtype=np.int64)


def rank_within(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return (N,) how many of the same group come before each: better ones, and equal ones that stand earlier."""
    order = np.lexsort((-score, group))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return rank


def check_results(results: object, coco: dict, path: Path) -> list[dict]:
    """Check detections read from a file, and return them with masks as compressed RLE.

    Raises UserError that names the first entry that is not of this dataset.
    """
    if not isinstance(results, list):
        raise UserError(f"{path}: not detections; a list in COCO's results format is needed")
    images = {image["id"]: image for image in coco["images"]}
    checked, category_ids = [], {category["id"] for category in coco["categories"]}
    for number, entry in enumerate(results):
        try:
            is_known = entry["image_id"] in images, entry["category_id"] in category_ids
            values = [float(entry["score"]), *map(float, entry["bbox"])]
        except (KeyError, TypeError, ValueError) as error:
            needed = "image_id, category_id, bbox of four numbers and score are needed"
            raise UserError(f"{path}: entry {number} is not a detection; {needed}") from error
        if not all(is_known):
            what = "image_id" if not is_known[0] else "category_id"
            raise UserError(
                f"{path}: entry {number} has {what} {entry[what]}, which the annotations do not list; they are not "
                "those it was made with"
            )
        if len(values) != 5 or not all(map(math.isfinite, values)) or not 0 <= values[0] <= 1:
            raise UserError(
                f"{path}: entry {number} has bbox {entry['bbox']} and score {entry['score']}; four finite numbers and "
                "a score between 0 and 1 are needed"
            )
        if segmentation := entry.get("segmentation"):
            size_hw = tuple(images[entry["image_id"]][side] for side in ("height", "width"))
            if problem := segmentation_problem(segmentation, size_hw):
                raise UserError(f"{path}: entry {number} {problem}")
            entry = entry | {"segmentation": to_rle(segmentation, size_hw)}
        checked.append(entry)
    return checked


def overlapping_pairs(gt: GroundTruth, detections: Detections, images: int) -> Pairs:
    """Return all pairs of the same image, of whatever classes, that overlap by at least `BACKGROUND_IOU`: their masks,
    or their boxes where they have none.
    """
    parts = [Pairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    for objects, detected in zip(_by_image(gt.image, images), _by_image(detections.image, images), strict=True):
        if not (len(objects) and len(detected)):
            continue
        pair = detections.boxes_xywh[detected], gt.boxes_xywh[objects]
        if gt.masks[0]:
            pair = [detections.masks[one] for one in detected], [gt.masks[one] for one in objects]
        iou = coco_mask.iou(*pair, gt.crowd[objects].astype(np.uint8).tolist())
        rows, columns = np.nonzero(iou >= BACKGROUND_IOU)
        parts.append(Pairs(detected[rows], objects[columns], iou[rows, columns]))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _by_image(image: np.ndarray, images: int) -> list[np.ndarray]:
    """Return the positions of each image's entries, of (N,) numbers of images."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(1, images)))[:images]


def with_masks(results: list[dict]) -> list[dict]:
    """Return the detections that have a mask."""
    return [result for result in results if result.get("segmentation")]


def match(
    pairs: Pairs, rank: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, iou_thresholds: np.ndarray
) -> np.ndarray:
    """Return (T, N) the object each detection is matched with, or `UNMATCHED`: COCO's greedy matching.

    The best detection chooses first. It takes the free object that it overlaps most, an ignored one only where no other
    is free; a crowd region can be matched again and again.

    Args:
        pairs: which may be matched: of the same class, say.
        rank: (N,) when each detection may choose; two of the same rank must have no object in common.
        ignored: (G,) bool, objects that do not count.
        crowd: (G,) bool, those of them that may be matched again and again.
        iou_thresholds: (T,) the least overlap.
    """
    matched = np.full((len(iou_thresholds), len(rank)), UNMATCHED, dtype=np.int64)
    taken = np.zeros((len(iou_thresholds), len(ignored)), dtype=bool)
    pairs = pairs.where(pairs.iou >= iou_thresholds.min())
    # Rank by rank, the best pairs of a detection last; between equals COCO takes the later object.
    order = np.lexsort((pairs.gt, pairs.iou, ~ignored[pairs.gt], rank[pairs.detection]))
    for of_rank in np.split(order, np.flatnonzero(np.diff(rank[pairs.detection[order]])) + 1):
        detection, gt, iou = pairs.where(of_rank)
        may_match = (iou >= iou_thresholds[:, None]) & (crowd[gt] | ~taken[:, gt])
        level, pair = np.nonzero(may_match)
        matched[level, detection[pair]] = gt[pair]  # of what is written to one place, the last stays
        taken[level, matched[level, detection[pair]]] = True
    return matched


TP, FP, IGNORED = 1, 0, -1  # outcomes of a detection
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # to the last bit as COCO has them
# Square pixels, both ends included.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


class Matches(NamedTuple):
    """Matched detections and ground truth: what every metric is computed from."""

    iou_type: str  # COCO's: segm where masks are matched, bbox where boxes are
    names: list[str]  # of the K classes
    images: int
    gt: GroundTruth
    detections: Detections
    pairs: Pairs
    outcome: dict[str, np.ndarray]  # area -> (T, N) int8, one of TP, FP, IGNORED at each of IOU_THRESHOLDS
    counted: dict[str, np.ndarray]  # area -> (G,) bool, objects that count as ground truth
    matched: np.ndarray  # (N,) int, the object that each is matched with at TP_IOU in area "all", or UNMATCHED

    def slice_of(self, label: int) -> slice:
        """Return where the detections of a class stand."""
        return slice(*np.searchsorted(self.detections.label, [label, label + 1]))

    def count_gt(self, label: int, area: str = "all") -> int:
        """Return how many ground-truth objects a class has."""
        return int((self.counted[area] & (self.gt.label == label)).sum())


def match_all(coco: dict, results: list[dict], iou_type: str = "bbox") -> Matches:
    """Match detections in COCO's results format, checked ones, with the annotations of a COCO dict as COCOeval does.

    `iou_type` is COCO's: `bbox` matches boxes, `segm` masks, which all of them need then.
    """
    gt, detections = pack_gt(coco, iou_type), pack_detections(coco, results, iou_type)
    pairs = overlapping_pairs(gt, detections, len(coco["images"]))
    same_class = pairs.where(gt.label[pairs.gt] == detections.label[pairs.detection])
    outcome, counted = {}, {}
    for area, (least, most) in AREAS.items():
        counted[area] = ~gt.crowd & (gt.area >= least) & (gt.area <= most)
        matched_gt = match(same_class, detections.rank, ~counted[area], gt.crowd, IOU_THRESHOLDS)
        is_outside = (detections.area < least) | (detections.area > most)
        is_tp = np.append(counted[area], False)[matched_gt]  # the last is UNMATCHED's
        is_ignored = np.where(matched_gt == UNMATCHED, is_outside, ~is_tp)
        outcome[area] = np.where(is_ignored, IGNORED, is_tp).astype(np.int8)
        if area == "all":
            matched = matched_gt[0]
    names = [c["name"] for c in sorted(coco["categories"], key=lambda category: category["id"])]
    return Matches(iou_type, names, len(coco["images"]), gt, detections, pairs, outcome, counted, matched)


def match_results(coco: dict, results: list[dict]) -> tuple[Matches, str]:
    """Match checked detections by masks where all annotations and any detection have one, otherwise by boxes.

    Those without a mask are left out where masks are matched. Returns also why masks are not; empty where they are.
    """
    masked = with_masks(results)
    images = {image["id"]: image for image in coco["images"]}
    no_masks = "" if masked else "no detection has a mask"
    for annotation in coco["annotations"] if masked else ():
        image = images[annotation["image_id"]]
        if problem := segmentation_problem(annotation.get("segmentation"), (image["height"], image["width"])):
            no_masks = f"annotation {annotation['id']}, of {image['file_name']}, {problem}"
            break
    measured, iou_type = (results, "bbox") if no_masks else (masked, "segm")
    return match_all(coco, measured, iou_type), no_masks
