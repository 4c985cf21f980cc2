"""`--cache ram`: decoded images in shared memory."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detr.data.images import read_rgb
from detr.data.transforms import fitted_size_hw
from utils import UserError


class ImageCache:
    """Decoded images in memory that all workers share, each at the size at which it is evaluated.

    Filled as images are first read, so that it costs no start-up time. A crop is then scaled up from that size, as in
    the reference, which resizes before it crops.

    Args:
        sizes_hw: upright height and width of each image file, in pixels.
        scale, max_size: shorter side and largest longer side, in pixels, to keep images at.

    Raises UserError where the shared memory does not suffice.
    """

    def __init__(self, sizes_hw: list[tuple[int, int]], scale: int, max_size: int) -> None:
        # Never larger than the file: scaling up saves nothing.
        kept = [min(fitted_size_hw(size_hw, scale, max_size), size_hw) for size_hw in sizes_hw]
        self._sizes_hw = np.array(kept, dtype=np.int64).reshape(-1, 2)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes_hw.prod(1) * 3)))
        try:
            self._pixels = torch.empty(int(self._starts[-1]), dtype=torch.uint8).share_memory_()
        except RuntimeError as error:
            needed = self._starts[-1] / 2**30
            raise UserError(f"--cache ram needs {needed:.1f} GiB of shared memory, which is not there") from error
        self._filled = torch.zeros(len(sizes_hw), dtype=torch.bool).share_memory_()

    def read(self, index: int, path: Path) -> Image.Image:
        """Return image number `index` in RGB; at its first use it is decoded from `path`."""
        height, width = (int(side) for side in self._sizes_hw[index])
        pixels = self._pixels[self._starts[index] : self._starts[index + 1]].view(height, width, 3).numpy()
        if not self._filled[index]:
            pixels[:] = np.asarray(read_rgb(path).resize((width, height), Image.Resampling.BILINEAR))
            self._filled[index] = True
        return Image.fromarray(pixels)
