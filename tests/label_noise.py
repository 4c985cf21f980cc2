"""Annotations that are spoilt on purpose, each in a way that is known: what a review of annotations has to find."""

import copy
from typing import NamedTuple

import numpy as np


class Spoilt(NamedTuple):
    """One annotation error that was put in."""

    kind: str  # as detr.report.review names it: missing, spurious, class, loose
    image_id: int
    bbox: list[float]  # xywh of the object that is dropped, or of the annotation that is wrong


def spoil(coco: dict, share: float, seed: int) -> tuple[dict, list[Spoilt]]:
    """Return a copy of a COCO dict with a share of its objects dropped, invented, moved or of another class."""
    rng, coco, spoilt = np.random.default_rng(seed), copy.deepcopy(coco), []
    classes = [category["id"] for category in coco["categories"]]
    kinds = ["missing", "spurious", "loose"] + ["class"] * (len(classes) > 1)
    images = {image["id"]: image for image in coco["images"]}
    originals = [list(a["bbox"]) for a in coco["annotations"]]
    chosen = rng.permutation(len(coco["annotations"]))[: round(share * len(coco["annotations"]))]
    dropped = set()
    for turn, number in enumerate(chosen.tolist()):
        annotation, kind = coco["annotations"][number], kinds[turn % len(kinds)]
        image = images[annotation["image_id"]]
        left, top, width, height = annotation["bbox"]
        if kind == "missing":
            dropped.add(number)
        elif kind == "class":
            annotation["category_id"] = int(rng.choice([i for i in classes if i != annotation["category_id"]]))
        elif kind == "loose":
            dx, dy = rng.choice((-1, 1), 2) * rng.uniform(0.25, 0.45, 2) * (width, height)
            annotation |= as_box(left + dx, top + dy, width, height, image)
        else:
            own = [box for a, box in zip(coco["annotations"], originals, strict=True) if a["image_id"] == image["id"]]
            left, top = _free_place(rng, own, width, height, image)
            annotation = annotation | {"id": len(coco["annotations"]) + 1} | as_box(left, top, width, height, image)
            coco["annotations"].append(annotation)
            originals.append(annotation["bbox"])
        spoilt.append(Spoilt(kind, image["id"], list(annotation["bbox"])))
    coco["annotations"] = [a for number, a in enumerate(coco["annotations"]) if number not in dropped]
    return coco, spoilt


def _free_place(
    rng: np.random.Generator, boxes_xywh: list[list[float]], width: float, height: float, image: dict
) -> tuple[float, float]:
    """Return the corner of a box of this size that lies on as little of the others as 50 tries find."""

    def overlap(corner: np.ndarray) -> float:
        boxes = np.array(boxes_xywh)
        ends = np.minimum(boxes[:, :2] + boxes[:, 2:], corner + np.array([width, height]))
        return float(np.maximum(ends - np.maximum(boxes[:, :2], corner), 0).prod(axis=1).sum())

    room = (max(image["width"] - width, 1), max(image["height"] - height, 1))
    left, top = min(rng.uniform((0, 0), room, (50, 2)), key=overlap)
    return float(left), float(top)


def as_box(left: float, top: float, width: float, height: float, image: dict) -> dict:
    """Return the fields of an annotation that say where it is: this box, as far as it is inside its image."""
    right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
    left, top = max(left, 0), max(top, 0)
    corners = [left, top, right, top, right, bottom, left, bottom]
    bbox = [float(value) for value in (left, top, right - left, bottom - top)]
    return {"bbox": bbox, "area": bbox[2] * bbox[3], "segmentation": [[float(value) for value in corners]]}
