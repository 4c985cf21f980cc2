"""Decode every image once, as small as its format allows: which can be read, and how each looks. No torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
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


def decode_all(paths: Sequence[Path]) -> Iterator[DecodedImage | UserError]:
    """Decode images, in parallel, and show the progress; for one that cannot be read to its end yield the error."""
    # Pillow decodes outside Python's lock.
    with Progress(len(paths), "check images") as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for decoded in pool.map(_decode, paths):
                progress.update()
                yield decoded
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C should not wait for ten thousand images


def stacked(decoded_images: Iterable[DecodedImage]) -> np.ndarray:
    """Return the thumbnails of N images, (N, 16, 18) uint8."""
    return np.array([decoded.thumbnail for decoded in decoded_images], dtype=np.uint8).reshape(-1, *_SIZE_HW)


def _decode(path: Path) -> DecodedImage | UserError:
    try:
        header = read_header(path)
        image = read_rgb(path, scale=_DECODED_SIDE / min(header.size_hw))
    except UserError as error:
        return error
    return DecodedImage(header, np.asarray(image.convert("L").resize(_SIZE_HW[::-1], Image.Resampling.BOX)))
