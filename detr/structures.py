"""What the rooms hand each other: a padded batch with its targets, and the network's outputs.

Shapes: B images, H and W size of the largest image, T most objects of an image, N objects of all images, Q queries,
K classes, L layers, M masks.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the host to a device; the host does not wait for a GPU."""
    is_cuda = device.type == "cuda"
    return (values.pin_memory() if is_cuda else values).to(device, non_blocking=is_cuda)


class Targets(NamedTuple):
    """The objects of a batch, padded to those of the image with most: two copies take them to the device."""

    labels: Tensor  # (B, T) int64 in 0..K-1, padded with 0
    boxes_cxcywh: Tensor  # (B, T, 4) in [0, 1], relative to each image's own size; padded with a harmless box
    counts: list[int]  # objects of each image
    image_ids: list[int]
    original_sizes_hw: list[tuple[int, int]]  # upright pixels of the file, what detections are scaled to
    masks: Tensor | None = None  # (N, H, W) bool, the objects of the first image before those of the second

    def repeated(self, times: int) -> "Targets":
        """Return the same images several times over, (times * B): what several groups of queries are compared with.

        The masks stay those of the first time: only the first group of queries has masks.
        """
        lists = (values * times for values in (self.counts, self.image_ids, self.original_sizes_hw))
        return Targets(self.labels.repeat(times, 1), self.boxes_cxcywh.repeat(times, 1, 1), *lists, self.masks)


class Batch(NamedTuple):
    """Images padded to a common size, their padding, and their objects."""

    images: Tensor  # (B, 3, H, W) float32, ImageNet-normalized, 0 on padding
    padding_mask: Tensor  # (B, H, W) bool, True on padding
    targets: Targets

    @property
    def sizes_hw(self) -> list[tuple[int, int]]:
        """Height and width of each image without its padding."""
        valid = ~self.padding_mask
        return list(zip(valid.any(2).sum(1).tolist(), valid.any(1).sum(1).tolist(), strict=True))

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on another device; copies overlap with computation where the memory is pinned."""
        moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in self.targets)
        images = self.images.to(device, non_blocking=True)
        return Batch(images, self.padding_mask.to(device, non_blocking=True), Targets(*moved))


class MaskLogits(NamedTuple):
    """Masks of some queries of the last decoder layer: those that were asked for."""

    logits: Tensor  # (M, H/4, W/4) float32, on the padded images
    image: Tensor  # (M,) int64
    query: Tensor  # (M,) int64


class DetrOutput(NamedTuple):
    """What the heads say after every decoder layer, in float32 whatever the network computes in; index -1 is the
    prediction, the others are auxiliary.
    """

    logits: Tensor  # (L, B, Q, K + 1)
    boxes_cxcywh: Tensor  # (L, B, Q, 4) in [0, 1], relative to each image's own size, without its padding
    masks: MaskLogits | None = None
