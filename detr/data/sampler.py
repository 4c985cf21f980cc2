"""Which images make up a batch, and which batches a step of the optimizer."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

from detr.data.dataset import CocoDetection, Key
from utils import UserError

Indices = TypeVar("Indices", list[int], np.ndarray)


class AspectRatioBatchSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys, images of similar aspect ratio together: less padding, and no batch of one wide
    and one tall image. What the steps of an epoch consist of is a function of (seed, epoch) alone.

    A step takes `accumulate` batches from each of `world_size` ranks, so that the images of a step are the same however
    they are split.

    Args:
        images, batch_size: what is to be batched, and how many are in each.
        seed: of the shuffling. The images of an incomplete last step are left out, as in the reference, unless it is
            the only one.
        accumulate: batches per step and rank.
        rank, world_size: which share of each step is handed out here.

    Raises UserError with fewer images than ranks.
    """

    POOL = 32  # batches' worth of shuffled images from which similar ones are picked: more saves little more padding

    def __init__(
        self, images: CocoDetection, batch_size: int, seed: int, accumulate: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        if len(images) < world_size:
            raise UserError(f"{images.folder}: {len(images)} images are too few to share among {world_size} processes")
        self.images, self.seed = images, seed
        self.batch_size, self.accumulate = batch_size, accumulate
        self.rank, self.world_size = rank, world_size
        self.images_per_step = batch_size * accumulate * world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_step: int = 0) -> None:
        """Begin at a step of an epoch, both counted from 0."""
        self.epoch, self.first_step = epoch, first_step

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in a whole epoch of training."""
        return max(1, len(self.images) // self.images_per_step)

    def __len__(self) -> int:
        """Return batches handed out here in a whole epoch."""
        steps = _chunks(np.arange(len(self.images)), self.images_per_step)[: self.steps_per_epoch]
        return sum(-(-len(self._shard(step)) // self.batch_size) for step in steps)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in itertools.islice(self._steps(), self.first_step, None):
            batches = _chunks(self._shard(step), self.batch_size)
            yield from ([(self.epoch, int(index)) for index in batch] for batch in batches)

    def _shard(self, step: np.ndarray) -> np.ndarray:
        """Return what this rank has of a step."""
        return np.array_split(step, self.world_size)[self.rank]

    def _steps(self) -> Iterator[np.ndarray]:
        """Yield the images of each step of this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.images))[: self.steps_per_epoch * self.images_per_step]
        for pool in _chunks(order, self.POOL * self.images_per_step):
            steps = self._similar(pool)
            yield from (steps[place] for place in rng.permutation(len(steps)))

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


class SameSizeBatchSampler(Sampler[list[Key]]):
    """Batches of (0, index) keys for evaluation: every image once over all ranks, and nothing is padded.

    `batch_size` is the most images in a batch; `rank` and `world_size` say which share of them is handed out here.
    """

    accumulate = 1

    def __init__(self, images: CocoDetection, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        sizes_hw = [images.augment_params((0, index)).size_hw for index in range(len(images))]
        batches = same_size_batches(sizes_hw, batch_size)
        self.batches_on_every_rank = len(batches) // world_size  # at least
        self._batches = batches[rank::world_size]

    def __len__(self) -> int:
        """Return batches handed out here."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        yield from ([(0, index) for index in batch] for batch in self._batches)


def same_size_batches(sizes_hw: Iterable[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Return the positions of all images in batches of equal size, at most `batch_size` each.

    Beside a larger image a smaller one would be padded, and DETR detects something else in it then: where convolutions
    look beyond the border of an image that is alone they see zeros, in padding what BatchNorm's shifts make of zeros.
    """
    by_size = defaultdict(list)
    for index, size_hw in enumerate(sizes_hw):
        by_size[size_hw].append(index)
    return [batch for indices in by_size.values() for batch in _chunks(indices, batch_size)]


def _chunks(order: Indices, size: int) -> list[Indices]:
    """Return consecutive pieces of this size, the last one may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]
