"""Decode every image once, as small as its format allows: which can be read, and how each looks. No torch."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from detr.errors import UserError
from detr.images import read_rgb, read_size_hw

SIZE_HW = (16, 18)
_DECODED_SIDE = 64  # pixels: enough to average from, and an eighth of most photographs


def read_thumbnail(path: Path) -> np.ndarray:
    """The upright image in 16 x 18 cells of grey, uint8. Raises UserError for what cannot be read to its end."""
    image = read_rgb(path, scale=_DECODED_SIDE / min(read_size_hw(path)))
    return np.asarray(image.convert("L").resize(SIZE_HW[::-1], Image.Resampling.BOX))


def read_thumbnails(
    paths: list[Path], on_image: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, dict[int, str]]:
    """Thumbnails (N, 16, 18) uint8 of N images, and for those that cannot be read, by position, why.

    `on_image` is called after each image.
    """
    thumbnails = np.zeros((len(paths), *SIZE_HW), dtype=np.uint8)
    problems: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside Python's lock
        for index, found in enumerate(pool.map(_thumbnail_or_problem, paths)):
            if isinstance(found, str):
                problems[index] = found
            else:
                thumbnails[index] = found
            on_image()
    return thumbnails, problems


def _thumbnail_or_problem(path: Path) -> np.ndarray | str:
    try:
        return read_thumbnail(path)
    except UserError as error:
        return str(error)
