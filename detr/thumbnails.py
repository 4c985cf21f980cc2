"""Decode every image once, as small as its format allows: which can be read, and how each looks. No torch."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.errors import UserError
from detr.images import read_rgb, read_size_hw

_SIZE_HW = (16, 18)
_DECODED_SIDE = 64  # pixels: enough to average from, and an eighth of most photographs

# As utils.Progress: (steps, what is being done) -> a context whose value has `update()`
Progress = Callable[[int, str], AbstractContextManager]


class Looks(NamedTuple):
    """What is known of N images once each has been decoded."""

    thumbnails: np.ndarray  # (N, 16, 18) uint8, cells of grey
    sizes_hw: list[tuple[int, int]]  # upright, in pixels
    problems: dict[int, str]  # position of an image that cannot be read -> why


def look_at(paths: list[Path], progress: Progress) -> Looks:
    """Decode N images and tell `progress`."""
    thumbnails = np.zeros((len(paths), *_SIZE_HW), dtype=np.uint8)
    sizes_hw, problems = [(0, 0)] * len(paths), {}
    # In threads: Pillow decodes outside Python's lock.
    with progress(len(paths), "look at images") as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, found in enumerate(pool.map(_look_at_one, paths)):
            if isinstance(found, str):
                problems[index] = found
            else:
                sizes_hw[index], thumbnails[index] = found
            bar.update()
    return Looks(thumbnails, sizes_hw, problems)


def _look_at_one(path: Path) -> tuple[tuple[int, int], np.ndarray] | str:
    try:
        size_hw = read_size_hw(path)
        image = read_rgb(path, scale=_DECODED_SIDE / min(size_hw))
    except UserError as error:
        return str(error)
    return size_hw, np.asarray(image.convert("L").resize(_SIZE_HW[::-1], Image.Resampling.BOX))
