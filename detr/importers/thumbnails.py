"""Decode every image once, as small as its format allows: which can be read, and how each looks. No torch."""

import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from detr.data.images import Header, read_header, read_rgb
from utils import Progress, UserError

_SIZE_HW = (16, 18)
_DECODED_SIDE = 64  # pixels: enough to average from, and an eighth of most photographs


class DecodedImage(NamedTuple):
    """What is known of an image once it has been decoded."""

    header: Header
    thumbnail: np.ndarray  # (16, 18) uint8, cells of grey


def decode_all(paths: Collection[Path]) -> tuple[dict[Path, DecodedImage], dict[Path, str]]:
    """Decode images, in parallel, and show the progress; return also what is wrong with those that cannot be read."""
    decoded, unreadable = {}, {}
    # Pillow decodes outside Python's lock.
    with Progress(len(paths), "check images") as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for path, result in zip(paths, pool.map(_decode, paths), strict=True):
                progress.update()
                if isinstance(result, DecodedImage):
                    decoded[path] = result
                else:
                    unreadable[path] = result
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C should not wait for ten thousand images
    return decoded, unreadable


def stacked(decoded_images: Iterable[DecodedImage]) -> np.ndarray:
    """Return the thumbnails of N images, (N, 16, 18) uint8."""
    return np.array([decoded.thumbnail for decoded in decoded_images], dtype=np.uint8).reshape(-1, *_SIZE_HW)


def _decode(path: Path) -> DecodedImage | str:
    try:
        header = read_header(path)
        image = read_rgb(path, scale=_DECODED_SIDE / min(header.size_hw))
    except UserError as error:
        return str(error)
    return DecodedImage(header, np.asarray(image.convert("L").resize(_SIZE_HW[::-1], Image.Resampling.BOX)))
