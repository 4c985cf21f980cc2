"""Padded batches, loaded by worker processes, whose failures end in one sentence."""

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, get_worker_info

from detr.data.dataset import CocoDetection, Sample
from detr.data.sampler import AspectRatioBatchSampler, SameSizeBatchSampler
from detr.models.cpu_kernels import restore_malloc
from detr.structures import Batch, Targets
from utils import StopRequest, UserError


def pad_images(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad images (3, H, W) with zeros to (B, 3, H, W); return them and the mask (B, H, W), True on padding."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    padded = torch.zeros(len(images), 3, height, width)
    padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for row, image in enumerate(images):
        _, h, w = image.shape
        padded[row, :, :h, :w] = image
        padding_mask[row, :h, :w] = False
    return padded, padding_mask


def collate(samples: list[Sample]) -> Batch:
    """Pad images to the largest height and width of the batch, and objects to those of the image with most."""
    images, padding_mask = pad_images([sample.image for sample in samples])
    labels = pad_sequence([sample.labels for sample in samples], batch_first=True)
    boxes_cxcywh = pad_sequence([sample.boxes_cxcywh for sample in samples], batch_first=True, padding_value=0.5)
    masks = None
    if samples[0].masks is not None:
        height, width = padding_mask.shape[1:]  # padded on the right and below like the images, False there
        of_images = [sample.masks for sample in samples]
        masks = torch.cat([F.pad(own, (0, width - own.shape[2], 0, height - own.shape[1])) for own in of_images])
    targets = Targets(
        labels,
        boxes_cxcywh,
        counts=[len(sample.labels) for sample in samples],
        image_ids=[sample.image_id for sample in samples],
        original_sizes_hw=[sample.original_size_hw for sample in samples],
        masks=masks,
    )
    batch = Batch(images, padding_mask, targets)
    if get_worker_info() is not None:
        _move_to_shared_memory([x for x in (images, padding_mask, labels, boxes_cxcywh, masks) if x is not None])
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


def make_loader(
    images: CocoDetection, sampler: AspectRatioBatchSampler | SameSizeBatchSampler, num_workers: int, pin_memory: bool
) -> DataLoader:
    """Return a loader of padded batches; the sampler says of which epoch.

    Two steps' worth of batches are loaded ahead.
    """
    return DataLoader(
        images,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        prefetch_factor=max(2, -(-2 * sampler.accumulate // num_workers)) if num_workers else None,
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


@contextlib.contextmanager
def explain_worker_errors() -> Iterator[None]:
    """Put what went wrong in a process that loads images into one sentence: a UserError.

    PyTorch learns of that from a signal, and raises its own error wherever the main process is at that moment.
    """
    try:
        yield
    except UserError as error:
        # From a worker the loader wraps it in a traceback, which ends in the message.
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that loads images has died ({str(error).splitlines()[0]}): most often memory ran out; try a "
            f"smaller --num_workers (0 loads in the main process). Where shared memory did: {_SHM_HELP}"
        ) from error


def read_batches(loader: DataLoader, stop: StopRequest | None = None) -> Iterator[Batch]:
    """Yield the loader's batches. Raises Stopped where a stop was asked for and no batch comes any more."""
    waiting = stop.while_waiting if stop else contextlib.nullcontext
    with waiting():
        batches = iter(loader)
    while True:
        with waiting():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
