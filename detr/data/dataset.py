"""COCO folder -> images and targets; `LabelMap` is the map between category ids and the network's labels.

What happens to image i in epoch e is a function of (seed, e, i) alone: the sampler hands out (epoch, index) keys, and
the random numbers are drawn from them, whatever worker or process does the work.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_convert

from detr.box_ops import normalize_cxcywh
from detr.data.cache import ImageCache
from detr.data.coco_json import LAYOUTS, all_have_outlines, check_categories, check_images, find_val, read_coco
from detr.data.copy_paste import LARGEST_SHARE, SMALLEST_SIDE, covered, cut_out, paste_objects
from detr.data.folds import read_both_splits, split_fold
from detr.data.images import read_rgb
from detr.data.masks import PackedList, check_outlines, draw_masks, to_points
from detr.data.transforms import AugmentParams, apply_to_boxes, resample, to_tensor
from detr.models.weights import labels_are_ids
from utils import UserError

COCO_LABELS = 91  # the public weights use COCO's raw category ids, 1..90 with holes, as labels

Key = tuple[int, int]  # (epoch, index of the image)
ChooseParams = Callable[[tuple[int, int], np.random.Generator], AugmentParams]  # (original size_hw, random numbers)


class LabelMap:
    """Category ids of the annotation file <-> labels 0..K-1 of the network.

    Args:
        categories: the file's categories, each with `id` and `name`.
        raw_ids: labels are the ids themselves (the official COCO weights) instead of positions of the sorted ids.
    """

    def __init__(self, categories: list[dict], raw_ids: bool = False) -> None:
        self.categories = sorted(
            ({"id": int(c["id"]), "name": str(c["name"])} for c in categories), key=lambda category: category["id"]
        )
        ids = [category["id"] for category in self.categories]
        self.raw_ids = raw_ids
        self.num_classes = COCO_LABELS if raw_ids else len(ids)
        self._label_of_id = {i: i for i in ids} if raw_ids else {i: label for label, i in enumerate(ids)}
        self._id_of_label = {label: i for i, label in self._label_of_id.items()}
        self.names = {self._label_of_id[c["id"]]: c["name"] for c in self.categories}  # label -> class

    def to_labels(self, category_ids: list[int]) -> list[int]:
        """Category ids of a file -> labels. Raises KeyError for an id that no category has."""
        return [self._label_of_id[i] for i in category_ids]

    def to_category_id(self, label: int) -> int | None:
        """Label -> category id; None for a label that stands for no category (a hole, or a spare class)."""
        return self._id_of_label.get(label)

    def __str__(self) -> str:
        return ", ".join(f"{category['id']} {category['name']}" for category in self.categories)


class Data(NamedTuple):
    """Both splits of a COCO folder, and what the labels mean."""

    train: "CocoDetection"
    val: "CocoDetection"
    val_coco: dict
    label_map: LabelMap
    num_classes: int  # K of the network: that of the annotations, or more


class Sample(NamedTuple):
    """One augmented image with its objects."""

    image: Tensor  # (3, H, W) float32, ImageNet-normalized
    labels: Tensor  # (T,) int64
    boxes_cxcywh: Tensor  # (T, 4) in [0, 1]
    image_id: int
    original_size_hw: tuple[int, int]
    masks: Tensor | None = None  # (T, H, W) bool, where masks are learnt


class CocoDetection(Dataset):
    """The images of one split with their boxes, held in packed arrays: workers share them without copying.

    Args:
        coco: a checked COCO dict (`read_coco`).
        folder: where its images lie.
        label_map: category ids -> labels.
        choose_params: (original size_hw, random numbers) -> AugmentParams.
        seed: first part of every image's random numbers.
        decode_small: a JPEG may be decoded at a fraction of its size, which is faster and moves detections a little.
        masks: every object has its mask as well. Raises UserError where one has no outline.

    Crowd regions are skipped; boxes are clipped to the image and dropped where nothing is left.
    """

    def __init__(
        self,
        coco: dict,
        folder: Path,
        label_map: LabelMap,
        choose_params: ChooseParams,
        seed: int,
        decode_small: bool = False,
        masks: bool = False,
    ) -> None:
        self.folder, self.choose_params = folder, choose_params
        self.seed, self.decode_small, self.masks = seed, decode_small, masks
        self.image_ids = np.array([image["id"] for image in coco["images"]], dtype=np.int64)
        self.cache: ImageCache | None = None
        self.copy_paste = 0.0
        self._sizes_hw = np.array([(image["height"], image["width"]) for image in coco["images"]], dtype=np.int64)
        self._file_names = np.array([image["file_name"] for image in coco["images"]], dtype=np.str_)
        index_of_id = {image["id"]: index for index, image in enumerate(coco["images"])}
        kept = [a for a in coco["annotations"] if not a.get("iscrowd", 0)]
        kept.sort(key=lambda a: index_of_id[a["image_id"]])
        owners = [index_of_id[a["image_id"]] for a in kept]
        self._starts = np.searchsorted(owners, np.arange(len(self.image_ids) + 1))
        self._labels = np.array(label_map.to_labels([a["category_id"] for a in kept]), dtype=np.int64)
        self._boxes_xywh = np.array([a["bbox"] for a in kept], dtype=np.float32).reshape(-1, 4)
        if masks:
            check_outlines(kept, [self.size_hw(owner) for owner in owners], str(folder))
        segmentations = [a.get("segmentation") for a in kept]
        self._segmentations = PackedList(segmentations)
        has_polygons = np.array([isinstance(s, list) and len(s) > 0 for s in segmentations], dtype=bool)
        self._cuttable = np.flatnonzero((self._boxes_xywh[:, 2:] >= SMALLEST_SIDE).all(axis=1) & has_polygons)

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> Path:
        """Return where the image file lies."""
        return self.folder / str(self._file_names[index])

    def keep_in_memory(self, scale: int, max_size: int) -> None:
        """Decode each image only once, at the size at which it is evaluated. Raises UserError without memory for it."""
        self.cache = ImageCache([self.size_hw(index) for index in range(len(self))], scale, max_size)

    def paste_into(self, share: float) -> None:
        """Paste objects of others into this share of the images. Raises UserError where none can be cut out."""
        if share and not len(self._cuttable):
            raise UserError(f"--copy_paste {share:g}: no object in {self.folder} has a polygon to cut it out along")
        self.copy_paste = share

    def target(self, index: int) -> tuple[Tensor, Tensor]:
        """Return labels (T,) and boxes_xyxy (T, 4) in pixels, as annotated."""
        own = slice(self._starts[index], self._starts[index + 1])
        boxes_xyxy = box_convert(torch.from_numpy(self._boxes_xywh[own]), "xywh", "xyxy")
        return torch.from_numpy(self._labels[own]), boxes_xyxy

    def augment_params(self, key: Key) -> AugmentParams:
        """Return crop, size and flip of an image in an epoch, from its size alone: nothing is read."""
        epoch, index = key
        return self.choose_params(self.size_hw(index), np.random.default_rng([self.seed, epoch, index]))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return the upright height and width in pixels, as annotated."""
        height, width = self._sizes_hw[index]
        return int(height), int(width)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        params, size_hw = self.augment_params(key), self.size_hw(index)
        image = resample(self._read(index, params.scale), params, size_hw)
        labels, boxes_xyxy = self.target(index)
        boxes_xyxy, keep = apply_to_boxes(boxes_xyxy, params)
        labels, boxes_xyxy, masks = labels[keep], boxes_xyxy[keep], None
        if self.masks:
            numbers = self._starts[index] + np.flatnonzero(keep.numpy())
            masks = draw_masks([self._segmentations[number] for number in numbers], params, size_hw)
        rng = np.random.default_rng([self.seed, epoch, index, 1])  # not that of the parameters: those stay as they are
        if rng.random() < self.copy_paste:
            image, boxes, added, on_top = paste_objects(image, boxes_xyxy.numpy(), self._cut_random_object, rng)
            labels, boxes_xyxy = torch.cat((labels, torch.tensor(added, dtype=torch.int64))), torch.from_numpy(boxes)
            masks = covered(masks, on_top) if self.masks else None
        boxes_cxcywh = normalize_cxcywh(boxes_xyxy, params.size_hw)
        pixels = to_tensor(image, params.color_factors)
        masks = None if masks is None else torch.from_numpy(masks)
        return Sample(pixels, labels, boxes_cxcywh, int(self.image_ids[index]), size_hw, masks)

    def _read(self, index: int, scale: float) -> Image.Image:
        if self.cache:
            return self.cache.read(index, self.path(index))
        return read_rgb(self.path(index), scale if self.decode_small else 1.0)

    def _cut_random_object(self, rng: np.random.Generator, largest: int) -> tuple[Image.Image, int] | None:
        """Cut out an object of any image at 0.5 to 1.5 times its size there; None where that is too small to see.

        `largest` is the most pixels of its longer side.
        """
        number = int(rng.choice(self._cuttable))
        index = int(np.searchsorted(self._starts, number, side="right")) - 1
        left, top, width, height = self._boxes_xywh[number]
        factor = largest / LARGEST_SHARE / min(self.size_hw(index)) * np.exp(rng.uniform(np.log(0.5), np.log(1.5)))
        factor = min(factor, largest / max(width, height))
        size = (round(float(width) * factor), round(float(height) * factor))
        if min(size) < SMALLEST_SIDE:
            return None
        image = self._read(index, factor)
        shrunk = np.array(image.size) / self.size_hw(index)[::-1]  # a JPEG is decoded smaller
        polygons = [to_points(polygon) * shrunk for polygon in self._segmentations[number]]
        box_xyxy = np.array((left, top, left + width, top + height)) * np.tile(shrunk, 2)
        return cut_out(image, polygons, box_xyxy, size, bool(rng.random() < 0.5)), int(self._labels[number])


def load_folder(
    folder: Path,
    layout: str,
    train_params: ChooseParams,
    val_params: ChooseParams,
    seed: int,
    num_classes: int | None = None,
    evaluate: bool = False,
    unnamed_classes: int | None = None,
    masks: bool = False,
    fold: str | None = None,
) -> Data:
    """Return both splits of a COCO folder, checked against their images and each other.

    Args:
        folder, layout: where, and which of `LAYOUTS`.
        train_params, val_params, seed: how images are resized and augmented, and from which random numbers on.
        num_classes: what the user expects; more than the annotations have is allowed, less is an error.
        evaluate: nothing is trained; where there is only one annotation file, it is evaluated on.
        unnamed_classes: of the file to evaluate, where it does not name them; its labels may be category ids then.
        masks: masks are learnt too, so that every object needs an outline.
        fold: of a cross-validation, as `folds.split_fold` takes it; the splits are as they are where it is None.

    Raises UserError naming the file and what does not fit.
    """
    splits = _read_splits(folder, layout, evaluate, fold)
    (train_file, train_coco, train_images), (val_file, val_coco, val_images) = splits
    raw_ids = layout == "coco"
    if evaluate and unnamed_classes is not None:
        raw_ids = raw_ids or labels_are_ids(val_coco["categories"], unnamed_classes, val_file)
        num_classes = unnamed_classes
    label_map = LabelMap(train_coco["categories"], raw_ids)
    if raw_ids and layout != "coco":
        print(f"the file to evaluate names no classes; its labels are taken for category ids: {label_map}")
    check_categories(train_file, train_coco, val_file, val_coco)
    _check_num_classes(train_file, label_map, num_classes)
    for path, coco, images in splits:
        if not coco["images"]:
            raise UserError(f"{path}: lists no images")
        check_images(coco, images)
    _check_objects(train_file, train_coco, val_file, val_coco, evaluate)
    if masks and evaluate and not all_have_outlines(val_coco):
        print(f"{val_file}: not all objects have an outline: boxes alone are evaluated")
        masks = False
    train = CocoDetection(train_coco, train_images, label_map, train_params, seed, decode_small=True, masks=masks)
    val = CocoDetection(val_coco, val_images, label_map, val_params, seed, masks=masks)
    return Data(train, val, val_coco, label_map, num_classes or label_map.num_classes)


def _read_splits(folder: Path, layout: str, evaluate: bool, fold: str | None) -> list[tuple[Path, dict, Path]]:
    """Return the file, the annotations and the image folder of training and of validation."""
    train_file, val_file, train_images, val_images = (folder / part for part in LAYOUTS[layout])
    if fold:
        train_coco, val_coco = split_fold(read_both_splits(folder, layout), fold)
        return [(train_file, train_coco, folder), (val_file, val_coco, folder)]
    if evaluate and train_file.exists() != val_file.exists():
        val_file, val_images = find_val(folder, layout)
        train_file, train_images = val_file, val_images
    return [(train_file, read_coco(train_file), train_images), (val_file, read_coco(val_file), val_images)]


def _check_objects(train_file: Path, train_coco: dict, val_file: Path, val_coco: dict, evaluate: bool) -> None:
    """Raise UserError where there is nothing to learn from; say where AP is not defined."""
    has_objects, can_be_measured = (
        not all(annotation.get("iscrowd", 0) for annotation in coco["annotations"]) for coco in (train_coco, val_coco)
    )
    if not evaluate and not has_objects:
        raise UserError(f"{train_file}: no image has an object; there is nothing to learn from")
    if not can_be_measured:
        best = "" if evaluate else ", and the weights of the lowest validation loss are kept as the best"
        print(f"{val_file}: the validation images have no object: AP is not defined{best}")


def _check_num_classes(path: Path, label_map: LabelMap, num_classes: int | None) -> None:
    """Raise UserError for too few classes, or category ids that are no labels: label `num_classes` is "no object"."""
    if not label_map.raw_ids:
        if num_classes is not None and num_classes < label_map.num_classes:
            raise UserError(
                f"--num_classes {num_classes}: the annotations have {label_map.num_classes} classes: {label_map}"
            )
        return
    num_classes = num_classes or COCO_LABELS
    wrong = [category for category in label_map.categories if not 0 <= category["id"] < num_classes]
    if wrong:
        named = ", ".join(f"{category['id']} {category['name']}" for category in wrong)
        raise UserError(
            f"{path}: --dataset_file coco takes category ids as labels, accepted: 0 to {num_classes - 1}; found "
            f"{named}. --num_classes {max(c['id'] for c in wrong) + 1} makes room; --dataset_file custom takes any ids"
        )
