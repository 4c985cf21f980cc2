"""COCO folder -> padded batches. The mapping from category ids to the network's labels lives here and in evaluation.

What happens to image i in epoch e is a function of (seed, e, i) alone: the sampler hands out (epoch, index) keys, and
the random numbers are drawn from them, whatever worker or process does the work.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from detr.annotations import check_images, read_coco
from detr.boxes import normalise_cxcywh, xywh_to_xyxy
from detr.errors import UserError
from detr.images import read_rgb
from detr.malloc import restore_malloc
from detr.sampler import Key, KeyBatches
from detr.structures import Batch, Targets
from detr.transforms import View, apply_to_boxes, apply_to_image, fitted_size_hw

# dataset_file -> (training file, validation file, training images, validation images), below --coco_path
LAYOUTS = {
    "custom": ("annotations/custom_train.json", "annotations/custom_val.json", "train2017", "val2017"),
    "coco": ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017"),
}
COCO_LABELS = 91  # the public weights use COCO's raw category ids, 1..90 with holes, as labels

ChooseView = Callable[[tuple[int, int], np.random.Generator], View]  # (original size_hw, random numbers) -> View


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

    train: "CocoImages"
    val: "CocoImages"
    val_coco: dict
    label_map: LabelMap
    num_classes: int  # of the network: those of the annotations, or more where asked for


class Sample(NamedTuple):
    """One image as a view shows it, with its objects."""

    image: Tensor  # (3, H, W) float32, ImageNet-normalised
    labels: Tensor  # (T,) int64
    boxes_cxcywh: Tensor  # (T, 4) in [0, 1]
    image_id: int
    original_size_hw: tuple[int, int]


class CocoImages(Dataset):
    """The images of one split with their boxes, held in packed arrays: workers share them without copying.

    Args:
        coco: a checked COCO dict (`read_coco`).
        folder: where its images lie.
        label_map: category ids -> labels.
        choose_view: (original size_hw, random numbers) -> View.
        seed: first part of every image's random numbers.

    Crowd regions are skipped; boxes are clipped to the image and dropped where nothing is left.
    """

    def __init__(
        self,
        coco: dict,
        folder: Path,
        label_map: LabelMap,
        choose_view: ChooseView,
        seed: int,
    ) -> None:
        self.folder = folder
        self.choose_view = choose_view
        self.seed = seed
        self.image_ids = np.array([image["id"] for image in coco["images"]], dtype=np.int64)
        self.cache: ImageCache | None = None
        self._sizes_hw = np.array([(image["height"], image["width"]) for image in coco["images"]], dtype=np.int64)
        self._file_names = np.array([image["file_name"] for image in coco["images"]], dtype=np.str_)
        index_of_id = {int(image_id): index for index, image_id in enumerate(self.image_ids)}
        kept = [a for a in coco["annotations"] if not a.get("iscrowd", 0)]
        owner = np.array([index_of_id[a["image_id"]] for a in kept], dtype=np.int64)
        order = np.argsort(owner, kind="stable")
        self._starts = np.searchsorted(owner[order], np.arange(len(self.image_ids) + 1))
        self._labels = np.array(label_map.to_labels([a["category_id"] for a in kept]), dtype=np.int64)[order]
        self._boxes_xywh = np.array([a["bbox"] for a in kept], dtype=np.float32).reshape(-1, 4)[order]

    def __len__(self) -> int:
        return len(self.image_ids)

    def path(self, index: int) -> Path:
        """Where the image lies."""
        return self.folder / str(self._file_names[index])

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Labels (T,) and boxes_xyxy (T, 4) in pixels, as annotated."""
        mine = slice(self._starts[index], self._starts[index + 1])
        return torch.from_numpy(self._labels[mine]), xywh_to_xyxy(torch.from_numpy(self._boxes_xywh[mine]))

    def view(self, key: Key) -> View:
        """What the network sees of an image in an epoch, from its size alone: nothing is read."""
        epoch, index = key
        return self.choose_view(self.size_hw(index), np.random.default_rng([self.seed, epoch, index]))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Upright height and width in pixels, as annotated."""
        height, width = self._sizes_hw[index]
        return int(height), int(width)

    def __getitem__(self, key: Key) -> Sample:
        _, index = key
        view, size_hw = self.view(key), self.size_hw(index)
        image = self.cache.read(index) if self.cache else read_rgb(self.path(index), view.scale)
        labels, boxes_xyxy = self.objects(index)
        boxes_xyxy, remains = apply_to_boxes(boxes_xyxy, view)
        boxes_cxcywh = normalise_cxcywh(boxes_xyxy[remains], view.size_hw)
        pixels = apply_to_image(image, view, size_hw)
        return Sample(pixels, labels[remains], boxes_cxcywh, int(self.image_ids[index]), size_hw)


class ImageCache:
    """Decoded images in memory that all workers share, each at the size at which it is evaluated.

    Filled as images are first read, so that it costs no start-up time. A crop is then scaled up from that size, as in
    the reference, which resizes before it crops.

    Args: the images, and the `scale` and `max_size` in pixels to keep them at. Raises UserError where the shared
    memory does not suffice.
    """

    def __init__(self, images: CocoImages, scale: int, max_size: int) -> None:
        self.images = images
        sizes = [fitted_size_hw(images.size_hw(index), scale, max_size) for index in range(len(images))]
        # Never larger than the file: scaling up saves nothing.
        kept = [min(size, images.size_hw(index)) for index, size in enumerate(sizes)]
        self._sizes_hw = np.array(kept, dtype=np.int64).reshape(-1, 2)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes_hw.prod(1) * 3)))
        try:
            self._pixels = torch.empty(int(self._starts[-1]), dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            needed = self._starts[-1] / 2**30
            raise UserError(f"--cache ram needs {needed:.1f} GiB of shared memory, which is not there") from error
        self._filled = torch.zeros(len(images), dtype=torch.bool).share_memory_()

    def read(self, index: int) -> Image.Image:
        """The image in RGB, decoded at its first use."""
        height, width = (int(side) for side in self._sizes_hw[index])
        slot = self._pixels[self._starts[index] : self._starts[index + 1]].view(height, width, 3).numpy()
        if not self._filled[index]:
            image = read_rgb(self.images.path(index), height / self.images.size_hw(index)[0])
            slot[:] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
            self._filled[index] = True
        return Image.fromarray(slot)


def pad_images(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, H, W) -> (B, 3, H, W) with zeros up to the largest, and the mask (B, H, W), True on padding."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    padded = torch.zeros(len(images), 3, height, width)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for row, image in enumerate(images):
        _, h, w = image.shape
        padded[row, :, :h, :w] = image
        padding_mask[row, :h, :w] = False
    return padded, padding_mask


def collate(samples: list[Sample]) -> Batch:
    """Pad images to the largest height and width of the batch, and objects to the fullest image."""
    images, padding_mask = pad_images([sample.image for sample in samples])
    most = max(len(sample.labels) for sample in samples)
    labels = torch.zeros(len(samples), most, dtype=torch.int64)
    boxes_cxcywh = torch.full((len(samples), most, 4), 0.5)
    for row, sample in enumerate(samples):
        labels[row, : len(sample.labels)] = sample.labels
        boxes_cxcywh[row, : len(sample.labels)] = sample.boxes_cxcywh
    targets = Targets(
        labels,
        boxes_cxcywh,
        counts=[len(sample.labels) for sample in samples],
        image_ids=[sample.image_id for sample in samples],
        original_sizes_hw=[sample.original_size_hw for sample in samples],
    )
    batch = Batch(images, padding_mask, targets)
    if get_worker_info() is not None:
        _move_to_shared_memory([images, padding_mask, labels, boxes_cxcywh])
    return batch


def _move_to_shared_memory(tensors: list[Tensor]) -> None:
    """Move a batch to where the main process finds it. PyTorch would, but in a thread whose errors reach nobody: the
    main process then waits for ever. Raises UserError where there is no room.
    """
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no shared memory for a batch of images ({reason}): {_SHM_HELP}") from error


_SHM_HELP = "take --num_workers 0, or more of it (Docker: --shm-size 2g)"


def make_loader(images: CocoImages, batches: KeyBatches, num_workers: int, pin_memory: bool) -> DataLoader:
    """A loader of padded batches; `batches.epoch` says which epoch's random numbers they are made with.

    Two updates' worth of batches are loaded ahead.
    """
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        prefetch_factor=max(2, -(-2 * batches.accumulate // num_workers)) if num_workers else None,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # of its own: starting an epoch must not move the model's random numbers
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int) -> None:
    """Ctrl-C in a terminal signals the whole process group; the main process decides when its helpers end."""
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
    restore_malloc()


class LoaderDied(UserError):
    """A process that loads images has ended."""


@contextlib.contextmanager
def loader_named() -> Iterator[None]:
    """Put what went wrong in a process that loads images into one sentence: a UserError, LoaderDied where it ended.

    PyTorch learns of that from a signal, and raises its own error wherever the main process is at that moment.
    """
    try:
        yield
    except LoaderDied:
        raise
    except UserError as error:
        # From a worker the loader wraps it in a traceback, which ends in the message.
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LoaderDied(
            f"a process that loads images has died ({str(error).splitlines()[0]}): most often memory ran out; try a "
            f"smaller --num_workers (0 loads in the main process). Where shared memory did: {_SHM_HELP}"
        ) from error


def read_batches(
    loader: DataLoader, while_waiting: Callable[[], AbstractContextManager] = contextlib.nullcontext
) -> Iterator[Batch]:
    """Yield the loader's batches; each is waited for inside a `while_waiting()`.

    Raises UserError, in one sentence, for what went wrong in a process that loads them.
    """
    with loader_named():
        batches = iter(loader)
        while True:
            with while_waiting():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def load_folder(
    folder: Path,
    layout: str,
    training_view: ChooseView,
    validation_view: ChooseView,
    seed: int,
    num_classes: int | None = None,
) -> Data:
    """Both splits of a COCO folder, checked against their images and each other.

    Args:
        folder, layout: where, and which of `LAYOUTS`.
        training_view, validation_view: what the network sees of an image.
        seed: of the training images' random numbers.
        num_classes: what the user expects; more than the annotations have is allowed, less is an error.

    Raises UserError naming the file and what does not fit.
    """
    train_file, val_file, train_images, val_images = (folder / part for part in LAYOUTS[layout])
    train_coco, val_coco = read_coco(train_file), read_coco(val_file)
    label_map = LabelMap(train_coco["categories"], raw_ids=layout == "coco")
    if LabelMap(val_coco["categories"]).categories != label_map.categories:
        raise UserError(
            f"{val_file}: its categories differ from those of {train_file}; they need the same ids and names"
        )
    if layout == "coco":
        _check_raw_ids(train_file, label_map, num_classes or COCO_LABELS)
    elif num_classes is not None and num_classes < label_map.num_classes:
        raise UserError(
            f"--num_classes {num_classes}: the annotations have {label_map.num_classes} classes: {label_map}"
        )
    for path, coco, images in ((train_file, train_coco, train_images), (val_file, val_coco, val_images)):
        if not coco["images"]:
            raise UserError(f"{path}: lists no images")
        check_images(coco, images)
    return Data(
        train=CocoImages(train_coco, train_images, label_map, training_view, seed),
        val=CocoImages(val_coco, val_images, label_map, validation_view, seed),
        val_coco=val_coco,
        label_map=label_map,
        num_classes=num_classes or label_map.num_classes,
    )


def _check_raw_ids(path: Path, label_map: LabelMap, num_classes: int) -> None:
    """Raise UserError for category ids that are no labels: label `num_classes` is "no object"."""
    wrong = [category for category in label_map.categories if not 0 <= category["id"] < num_classes]
    if wrong:
        named = ", ".join(f"{category['id']} {category['name']}" for category in wrong)
        raise UserError(
            f"{path}: --dataset_file coco takes category ids as labels, accepted: 0 to {num_classes - 1}; found "
            f"{named}. --num_classes {max(c['id'] for c in wrong) + 1} makes room; --dataset_file custom takes any ids"
        )
