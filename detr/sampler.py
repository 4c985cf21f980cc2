"""Which images make up a batch, and which batches an update of the weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from detr.errors import UserError
from detr.transforms import View

Key = tuple[int, int]  # (epoch, index of the image)


class Views(Protocol):
    """What has to be known of the images: `data.CocoImages` knows it."""

    folder: Path

    def __len__(self) -> int: ...

    def size_hw(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels."""

    def view(self, key: Key) -> View:
        """What the network sees of an image in an epoch."""


class KeyBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) keys, images of like shape together: less padding, and no batch of one wide and one
    tall image. What the updates of an epoch consist of is a function of (seed, epoch) alone.

    An update of the weights takes `accumulate` batches from each of the `processes`, so that the images of an update
    are the same however they are split.

    Args:
        images: whose views are to be batched.
        batch_size: images per batch.
        seed: of the shuffling; None sorts by shape instead and keeps every image (evaluation). When shuffling, the
            images of an incomplete last update are left out, as in the reference, unless it is the only one.
        grouped: False puts whatever comes next into a batch.
        accumulate: batches per update and process.
        process, processes: which share of each update (of all batches in evaluation) is handed out here.

    `epoch` and `first_update` say where to begin. Raises UserError with fewer images than processes.
    """

    POOL = 32  # batches' worth of shuffled images from which like ones are picked: more saves little more padding

    def __init__(
        self,
        images: Views,
        batch_size: int,
        seed: int | None = None,
        grouped: bool = True,
        accumulate: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        if len(images) < processes and seed is not None:
            raise UserError(f"{images.folder}: {len(images)} images are too few to share among {processes} processes")
        self.images = images
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.update_size = batch_size * accumulate * processes
        self.seed = seed
        self.grouped = grouped
        self.process, self.processes = process, processes
        self.epoch = 0
        self.first_update = 0

    @property
    def smallest_share(self) -> int:
        """Batches of an evaluation that every process has, whichever has the fewest."""
        return -(-len(self.images) // self.batch_size) // self.processes

    @property
    def updates(self) -> int:
        """Updates of the weights in a whole epoch of training."""
        return max(1, len(self.images) // self.update_size)

    def __len__(self) -> int:
        """Batches handed out here in a whole epoch."""
        if self.seed is None:
            return len(range(self.process, -(-len(self.images) // self.batch_size), self.processes))
        updates = _slices(np.arange(len(self.images)), self.update_size)[: self.updates]
        return sum(-(-len(self._share(update)) // self.batch_size) for update in updates)

    def __iter__(self) -> Iterator[list[Key]]:
        if self.seed is None:
            order = np.arange(len(self.images))
            if self.grouped:
                order = np.array(sorted(order, key=lambda index: np.divide(*self.images.size_hw(index))))
            yield from (
                [(0, int(i)) for i in b] for b in _slices(order, self.batch_size)[self.process :: self.processes]
            )
            return
        for update in self._updates():
            batches = _slices(self._share(update), self.batch_size)
            yield from ([(self.epoch, int(index)) for index in batch] for batch in batches)

    def _share(self, update: np.ndarray) -> np.ndarray:
        """What this process has of an update."""
        return np.array_split(update, self.processes)[self.process]

    def _updates(self) -> Iterator[np.ndarray]:
        """The images of each update of this epoch from `first_update` on."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.images))[: self.updates * self.update_size]
        done = 0
        for pool in _slices(order, self.POOL * self.update_size):
            places = rng.permutation(-(-len(pool) // self.update_size))
            skipped, done = max(0, self.first_update - done), done + len(places)
            if skipped < len(places):
                updates = self._alike(pool) if self.grouped else _slices(pool, self.update_size)
                yield from (updates[place] for place in places[skipped:])

    def _alike(self, indices: np.ndarray) -> list[np.ndarray]:
        """Updates picked greedily: the first image left, and those that would be padded least beside it."""
        sizes_hw = np.array([self.images.view((self.epoch, int(index))).size_hw for index in indices])
        left, updates = np.arange(len(indices)), []
        while len(left):
            first, rest = left[0], left[1:]
            together = np.maximum(sizes_hw[first], sizes_hw[rest])
            padding = 2 * together.prod(1) - sizes_hw[first].prod() - sizes_hw[rest].prod(1)
            chosen = np.argsort(padding, kind="stable")[: self.update_size - 1]
            updates.append(indices[np.append(first, rest[chosen])])
            left = np.delete(rest, chosen)
        return updates


def _slices(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive pieces of this size, the last one may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]
