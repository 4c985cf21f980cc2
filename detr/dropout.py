"""Dropout (Srivastava et al. 2014). PyTorch's own draws one random number per value on a CPU, one after the other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def drop(x: Tensor, share: float) -> Tensor:
    """Set a random share of the values to 0 and scale up the others to keep the mean."""
    if x.device.type != "cpu":
        return F.dropout(x, share)
    mask, dropped = random_mask(x.shape, share)
    return x * mask.to(x.dtype).mul_(1 / (1 - dropped))


def random_mask(shape: torch.Size, share: float) -> tuple[Tensor, float]:
    """A mask on the CPU, uint8: 0 for a random share of the values, 1 for the others; and which share was taken.

    One 64-bit number serves eight values. A byte tells 256 shares apart: each call takes the one below or above `share`
    (at most 255/256), at random, so that over many calls `share` of the values are dropped. The mask is not bool, as
    PyTorch multiplies by that several times more slowly than by numbers.
    """
    count = shape.numel()
    numbers = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count]
    dropped = min(int(share * 256 + torch.rand(()).item()), 255)
    return numbers.ge_(dropped).view(shape), dropped / 256


class Dropout(nn.Dropout):
    """`drop` while training; the parameter-free module that keeps `share` out of every signature."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return drop(x, self.p) if self.training and self.p else x
