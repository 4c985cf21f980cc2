"""Measure a dataset before it is written: what is in each split, what is there twice, what was changed. No torch."""

import filecmp
from collections import Counter
from typing import NamedTuple

import numpy as np

from detr.importers.class_names import similar_classes
from detr.importers.dataset_text import warnings_of
from detr.importers.duplicates import find_alikes, repeated_boxes
from detr.importers.notes import EXAMPLES
from detr.importers.splits import Split

SMALL_SIDE, LARGE_SIDE = 32, 96  # pixels; COCO's bounds of small, medium and large are the squares of these
TINY_SIDE = 16  # pixels: half a cell of DETR's feature map


class TrainingSizes(NamedTuple):
    """How images will be seen: the shorter sides trained at, the longest side, in pixels, and the object queries."""

    scales: tuple[int, ...]
    max_size: int
    num_queries: int


class PackedObjects(NamedTuple):
    """The boxes of one split, crowd regions left out (T of them)."""

    owners: np.ndarray  # (T,) position of the image
    classes: np.ndarray  # (T,) position of the category
    boxes_xywh: np.ndarray  # (T, 4) in pixels
    areas: np.ndarray  # (T,) in pixels of the image: the outline's where it is known, as COCO's evaluation takes it
    sizes_hw: np.ndarray  # (N, 2) of the N images


def pack_objects(coco: dict) -> PackedObjects:
    """Return a COCO dict's objects in packed arrays."""
    index_of = {image["id"]: index for index, image in enumerate(coco["images"])}
    class_of = {category["id"]: index for index, category in enumerate(coco["categories"])}
    kept = [a for a in coco["annotations"] if not a.get("iscrowd", 0)]
    boxes_xywh = np.array([a["bbox"] for a in kept], dtype=np.float64).reshape(-1, 4)
    return PackedObjects(
        np.array([index_of[a["image_id"]] for a in kept], dtype=np.int64),
        np.array([class_of[a["category_id"]] for a in kept], dtype=np.int64),
        boxes_xywh,
        np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in kept], dtype=np.float64),
        np.array([(image["height"], image["width"]) for image in coco["images"]], dtype=np.float64).reshape(-1, 2),
    )


def describe(splits: dict[str, Split], training: TrainingSizes) -> dict:
    """Return the report of "train" and "val", which have the same categories, as it goes to report.json: plain values.

    Boxes and numbers of objects are held against `training`.
    """
    report = {
        "training": training._asdict(),
        "splits": {name: _describe_split(split, training) for name, split in splits.items()},
        "validates_on_training": splits["train"].origins == splits["val"].origins,
        **_describe_alikes(splits),
        "similar_classes": _describe_similar_classes(splits),
    }
    return {**report, "warnings": warnings_of(report)}


def _describe_split(split: Split, training: TrainingSizes) -> dict:
    coco, objects = split.coco, pack_objects(split.coco)
    per_image = np.bincount(objects.owners, minlength=len(coco["images"]))
    per_class = np.bincount(objects.classes, minlength=len(coco["categories"]))
    names = [image["file_name"] for image in coco["images"]]
    width, height = objects.boxes_xywh[:, 2:].T
    wide, tall = int((width > 2 * height).sum()), int((height > 2 * width).sum())
    return {
        "images": len(names),
        "images_without_objects": int((per_image == 0).sum()),
        "objects": len(objects.owners),
        "crowd_regions": len(coco["annotations"]) - len(objects.owners),
        "objects_per_class": {c["name"]: int(n) for c, n in zip(coco["categories"], per_class, strict=True)},
        "objects_per_image": {
            "mean": round(float(per_image.mean()), 2) if names else 0.0,
            "most": int(per_image.max(initial=0)),
            "fullest_image": names[per_image.argmax()] if names else None,
            "images_over_queries": int((per_image > training.num_queries).sum()),
        },
        **_describe_sizes(objects, training),
        "box_shapes": {"wider than 2:1": wide, "in between": len(width) - wide - tall, "taller than 1:2": tall},
        "repeated_boxes": _describe_repeated(objects, names),
        "notes": [{"what": what, "count": len(at), "examples": at[:EXAMPLES]} for what, at in split.notes.items()],
    }


def training_scale(sizes_hw: np.ndarray, shorter: int, longest: int) -> np.ndarray:
    """Return pixels of the training image per pixel of the file, for images (N, 2)."""
    return np.minimum(shorter / sizes_hw.min(1), longest / sizes_hw.max(1))


def _describe_sizes(objects: PackedObjects, training: TrainingSizes) -> dict:
    """Objects by COCO's sizes, in the files and as the network sees them at its smallest and largest scale."""
    sizes = {"in the images": _by_size(objects.areas)}
    for side in sorted({min(training.scales), max(training.scales)}):
        areas = objects.areas * training_scale(objects.sizes_hw, side, training.max_size)[objects.owners] ** 2
        sizes[f"at shorter side {side}"] = _by_size(areas)
    return {"box_sizes": sizes, "tiny_boxes": int((areas < TINY_SIDE**2).sum())}  # tiny even at the largest scale


def _by_size(areas: np.ndarray) -> dict[str, int]:
    small, large = int((areas < SMALL_SIDE**2).sum()), int((areas >= LARGE_SIDE**2).sum())
    return {"small": small, "medium": len(areas) - small - large, "large": large}


def _describe_repeated(objects: PackedObjects, names: list[str]) -> dict:
    groups = objects.owners * (objects.classes.max(initial=0) + 1) + objects.classes
    repeated = np.flatnonzero(repeated_boxes(groups, objects.boxes_xywh))
    shown = [(names[objects.owners[i]], objects.boxes_xywh[i]) for i in repeated[:EXAMPLES]]
    examples = [f"{name} at {', '.join(f'{value:.0f}' for value in bbox)}" for name, bbox in shown]
    return {"count": len(repeated), "examples": examples}


def _describe_alikes(splits: dict[str, Split]) -> dict:
    """Return images that look alike: within each split, and validation images that look like training images."""
    both = (splits["train"], splits["val"])
    names = [f"{name}/{image['file_name']}" for name in ("train", "val") for image in splits[name].coco["images"]]
    origins = [path for split in both for path in split.origins]
    train_count = len(splits["train"].origins)
    earlier, in_training = find_alikes(np.concatenate([split.thumbnails for split in both]), train_count)
    repeats, leaks = _pairs(earlier), _pairs(in_training)
    identical = {pair for pair in (*repeats, *leaks) if filecmp.cmp(*(origins[i] for i in pair), shallow=False)}
    return {
        "repeated_images": {
            "train": _describe_pairs([pair for pair in repeats if pair[0] < train_count], identical, names),
            "val": _describe_pairs([pair for pair in repeats if pair[0] >= train_count], identical, names),
        },
        "validation_images_in_training": _describe_pairs(leaks, identical, names),
    }


def _describe_similar_classes(splits: dict[str, Split]) -> dict:
    """Classes whose names may be meant to be one, with an image of the rarer."""
    counts: Counter[str] = Counter()
    image_of: dict[str, str] = {}
    for name, split in splits.items():
        files = {image["id"]: image["file_name"] for image in split.coco["images"]}
        classes = {category["id"]: category["name"] for category in split.coco["categories"]}
        for annotation in split.coco["annotations"]:
            label = classes[annotation["category_id"]]
            counts[label] += 1
            image_of.setdefault(label, f"{name}/{files[annotation['image_id']]}")
    pairs = similar_classes(counts)
    examples = [f"{a} ({counts[a]}, in {image_of[a]}) and {b} ({counts[b]})" for a, b in pairs[:EXAMPLES]]
    return {"count": len(pairs), "examples": examples}


def _pairs(partners: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of an image and the one it looks like, of those that have one."""
    return [(image, partner) for image, partner in enumerate(partners.tolist()) if partner < len(partners)]


def _describe_pairs(pairs: list[tuple[int, int]], identical: set[tuple[int, int]], names: list[str]) -> dict:
    """Count pairs of images that look alike, and those of them that are the same file, named first, with = for ~."""
    first = sorted(pairs, key=lambda pair: pair not in identical)
    return {
        "count": len(pairs),
        "examples": [f"{names[a]} {'=' if (a, b) in identical else '~'} {names[b]}" for a, b in first[:EXAMPLES]],
        "identical": sum(pair in identical for pair in pairs),
    }
