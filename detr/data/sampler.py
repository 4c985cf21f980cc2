"""Which images make up a batch, and which batches a step of the optimizer."""

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from torch.utils.data import Sampler

from detr.data.transforms import AugmentParams
from utils import UserError

Key = tuple[int, int]  # (epoch, index of the image)
Items = TypeVar("Items", list, np.ndarray)


class SizedImages(Protocol):
    """What has to be known of the images: `dataset.CocoDetection` knows it."""

    folder: Path

    def __len__(self) -> int: ...

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return height and width of an image in pixels."""

    def augment_params(self, key: Key) -> AugmentParams:
        """Return crop, size and flip of an image in an epoch."""


class AspectRatioBatchSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys, images of similar aspect ratio together: less padding, and no batch of one wide
    and one tall image. What the steps of an epoch consist of is a function of (seed, epoch) alone.

    A step takes `accumulate` batches from each of `world_size` ranks, so that the images of a step are the same however
    they are split.

    Args:
        images: whose sizes are to be batched.
        batch_size: images per batch.
        seed: of the shuffling; None is for evaluation: every image once, and only images of one size in a batch, as
            padding moves detections. When shuffling, the images of an incomplete last step are left out, as in the
            reference, unless it is the only one.
        grouped: False puts whatever comes next into a batch of training.
        accumulate: batches per step and rank.
        rank, world_size: which share of each step (of all batches in evaluation) is handed out here.

    Raises UserError with fewer images than ranks.
    """

    POOL = 32  # batches' worth of shuffled images from which similar ones are picked: more saves little more padding

    def __init__(
        self,
        images: SizedImages,
        batch_size: int,
        seed: int | None = None,
        grouped: bool = True,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(images) < world_size and seed is not None:
            raise UserError(f"{images.folder}: {len(images)} images are too few to share among {world_size} processes")
        self.images = images
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.images_per_step = batch_size * accumulate * world_size
        self.seed = seed
        self.grouped = grouped
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Begin at a step of an epoch, both counted from 0."""
        self.epoch, self.first_step = epoch, first_step

    @property
    def batches_on_every_rank(self) -> int:
        """Batches of an evaluation that each rank has at least."""
        return len(self._unpadded_batches) // self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in a whole epoch of training."""
        return max(1, len(self.images) // self.images_per_step)

    def __len__(self) -> int:
        """Return batches handed out here in a whole epoch."""
        if self.seed is None:
            return len(self._unpadded_batches[self.rank :: self.world_size])
        steps = _chunks(np.arange(len(self.images)), self.images_per_step)[: self.steps_per_epoch]
        return sum(-(-len(self._shard(step)) // self.batch_size) for step in steps)

    def __iter__(self) -> Iterator[list[Key]]:
        if self.seed is None:
            for batch in self._unpadded_batches[self.rank :: self.world_size]:
                yield [(0, index) for index in batch]
            return
        for step in self._steps():
            batches = _chunks(self._shard(step), self.batch_size)
            yield from ([(self.epoch, int(index)) for index in batch] for batch in batches)

    @cached_property
    def _unpadded_batches(self) -> list[list[int]]:
        """Batches of an evaluation, over all ranks."""
        sizes_hw = [self.images.augment_params((0, index)).size_hw for index in range(len(self.images))]
        return equal_size_batches(sizes_hw, self.batch_size)

    def _shard(self, step: np.ndarray) -> np.ndarray:
        """Return what this rank has of a step."""
        return np.array_split(step, self.world_size)[self.rank]

    def _steps(self) -> Iterator[np.ndarray]:
        """Yield the images of each step of this epoch from `first_step` on."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.images))[: self.steps_per_epoch * self.images_per_step]
        done = 0
        for pool in _chunks(order, self.POOL * self.images_per_step):
            places = rng.permutation(-(-len(pool) // self.images_per_step))
            skipped, done = max(0, self.first_step - done), done + len(places)
            if skipped < len(places):
                steps = self._similar(pool) if self.grouped else _chunks(pool, self.images_per_step)
                yield from (steps[place] for place in places[skipped:])

    def _similar(self, indices: np.ndarray) -> list[np.ndarray]:
        """Steps picked greedily: the first image that remains, and those that would be padded least beside it."""
        sizes_hw = np.array([self.images.augment_params((self.epoch, int(index))).size_hw for index in indices])
        remaining, steps = np.arange(len(indices)), []
        while len(remaining):
            first, rest = remaining[0], remaining[1:]
            padded_hw = np.maximum(sizes_hw[first], sizes_hw[rest])
            padding = 2 * padded_hw.prod(1) - sizes_hw[first].prod() - sizes_hw[rest].prod(1)
            chosen = np.argsort(padding, kind="stable")[: self.images_per_step - 1]
            steps.append(indices[np.append(first, rest[chosen])])
            remaining = np.delete(rest, chosen)
        return steps


def equal_size_batches(sizes_hw: list[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Return the positions of images in batches of one size each, those of similar aspect ratio one after the other."""
    of_size = defaultdict(list)
    for index, size_hw in enumerate(sizes_hw):
        of_size[size_hw].append(index)
    ordered = sorted(of_size, key=lambda size_hw: (size_hw[0] / size_hw[1], size_hw))
    return [batch for size_hw in ordered for batch in _chunks(of_size[size_hw], batch_size)]


def _chunks(order: Items, size: int) -> list[Items]:
    """Return consecutive pieces of this size, the last one may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]
