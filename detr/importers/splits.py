"""Imported data: a checked COCO dict per split with its image files, and which image goes to which split. No torch."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detr.data.folds import name_share
from detr.importers.notes import Notes
from utils import UserError, pluralize

SPLITS = ("train", "val")


class Split(NamedTuple):
    """What is imported for training, or for validation."""

    coco: dict
    origins: list[Path]  # the file of each of `coco["images"]`
    notes: Notes
    thumbnails: np.ndarray  # (images, 16, 18) uint8, as `thumbnails.decode_all` makes them


def validates_on_training(image_count: int, val_fraction: float) -> bool:
    """Return whether images are too few, or not meant, to be divided: validation is on the training images then."""
    return image_count == 1 or val_fraction == 0


def split_images(names: Sequence[str], classes: Sequence[set[int]], fraction: float, seed: int) -> list[bool]:
    """For each image, whether it is for validation.

    A hash of name and seed says so: an image added later moves none of the others. Only where training would lack a
    class, validation one that two images have, or either any image, are those moved whose hash is nearest to the limit.

    Args: file names, each once; the category ids of each image's objects; the share that is for validation, between 0
    and 1; another seed gives another split. Raises UserError for less than two images.
    """
    if len(names) < 2:
        raise UserError(f"{pluralize(len(names), 'image')} cannot be divided into two splits; at least 2 are needed")
    shares = [name_share(name, seed) for name in names]
    in_val = [share < fraction for share in shares]
    order = sorted(range(len(names)), key=lambda index: shares[index])
    counts = {False: Counter(), True: Counter()}
    having: dict[int, list[int]] = defaultdict(list)  # images with a class, by share
    for index in order:
        counts[in_val[index]].update(classes[index])
        for category in classes[index]:
            having[category].append(index)

    def move(candidates: Sequence[int], to_val: bool, is_spared: bool) -> bool:
        """Move the first candidate from the other side, sparing those whose class would vanish there."""
        for index in candidates:
            is_last = any(counts[not to_val][category] == 1 for category in classes[index])
            if in_val[index] is not to_val and not (is_spared and is_last):
                in_val[index] = to_val
                counts[not to_val].subtract(classes[index])
                counts[to_val].update(classes[index])
                return True
        return False

    for category in sorted(having):
        if not counts[False][category]:
            move(having[category][::-1], to_val=False, is_spared=False)
    for category in sorted(having):
        if not counts[True][category] and len(having[category]) > 1:
            move(having[category], to_val=True, is_spared=True)
    for to_val, candidates in ((True, order), (False, order[::-1])):
        if to_val not in in_val:
            _ = move(candidates, to_val, is_spared=True) or move(candidates, to_val, is_spared=False)
    return in_val
