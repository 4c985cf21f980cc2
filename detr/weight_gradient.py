"""The gradient of a convolution's weights on a CPU, where PyTorch's own is slow.

There the output of a convolution and the gradient of its input come at nine tenths of the cores' peak, the gradient of
its weights at three quarters, and in float32 with a stride at a quarter. Here are other ways to add it up, for 3x3 in
float32 and for 1x1 in bfloat16; what they round stays in this one gradient and reaches no other layer.
`python -m tests.benchmarks.speed` has the times.

Shapes: B images, C channels in, O channels out, H and W size of the output, T tiles.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Winograd's minimal filtering F(4x4, 3x3), at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, section
# 4.3), is output = A^T ((G weight G^T) * (B^T input B)) A. These are B^T, G and A^T; what is computed is the derivative
# of that map by the weight.
_INPUT = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
_WEIGHT = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]).double() / 24
_OUTPUT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_STEP = 4  # pixels from tile to tile: the side of the output tile


def fast_weight_gradient(gradient: Tensor, x: Tensor, kernel: tuple[int, int], geometry: tuple) -> Tensor | None:
    """(B, O, H, W), (B, C, ., .) -> (O, C, *kernel), or None where PyTorch's own way is the faster.

    `geometry` is stride, padding, dilation and groups of the convolution. The result differs from PyTorch's by its
    rounding: up to 1e-5 of the largest entry in float32, a unit in the last place in bfloat16.
    """
    stride, padding, dilation, groups = geometry
    if x.device.type != "cpu" or (dilation, groups) != ((1, 1), 1):
        return None
    channels = min(gradient.shape[1], x.shape[1])
    positions = gradient[:, 0].numel()
    kind = (x.dtype, *kernel, padding)
    if kind == (torch.bfloat16, 1, 1, (0, 0)) and positions <= 8 * channels:  # as in a ResNet's last stage
        return _by_one_product(gradient, x[:, :, :: stride[0], :: stride[1]])
    if kind != (torch.float32, 3, 3, (1, 1)):
        return None
    if stride == (2, 2):
        return _by_taps(gradient, x)
    if stride == (1, 1) and channels >= 128 and positions >= 2 * channels:  # enough for the transforms to pay
        return _by_winograd(gradient, x)
    return None


def _by_one_product(gradient: Tensor, x: Tensor) -> Tensor:
    """1x1: outputs meet the pixels, (B, C, H, W), that they were computed from, in one product over all positions."""
    wanted, seen = (side.permute(0, 2, 3, 1).flatten(0, 2) for side in (gradient, x))
    return (wanted.t() @ seen)[:, :, None, None]


def _by_taps(gradient: Tensor, x: Tensor) -> Tensor:
    """Stride 2: one matrix product over all positions for each of the nine weights of a pair of channels."""
    rows, columns = gradient.shape[2:]
    seen = _tiles(x, (1, 2 * columns + 1 - x.shape[3], 1, 2 * rows + 1 - x.shape[2]), side=3, step=2)
    return _as_weights(gradient.permute(0, 2, 3, 1).flatten(0, 2).t() @ seen)


def _by_winograd(gradient: Tensor, x: Tensor) -> Tensor:
    """Stride 1: 36 products over all tiles of 4x4 positions, a quarter of the multiplications, between transforms."""
    right, below = -x.shape[3] % _STEP, -x.shape[2] % _STEP
    seen = _transform(_INPUT, _tiles(x, (1, right + 1, 1, below + 1), side=6, step=_STEP))
    wanted = _transform(_OUTPUT.t(), _tiles(gradient, (0, right, 0, below), side=4, step=_STEP))
    return _as_weights(_transform(_WEIGHT.t(), wanted.transpose(1, 2) @ seen))


def _tiles(x: Tensor, padding: tuple[int, int, int, int], side: int, step: int) -> Tensor:
    """(B, C, ., .) -> (side * side, T, C): the squares that begin every `step` pixels, their pixels first."""
    squares = F.pad(x, padding).permute(0, 2, 3, 1).unfold(1, side, step).unfold(2, side, step)
    return squares.permute(4, 5, 0, 1, 2, 3).flatten(2, 4).flatten(0, 1)


def _transform(matrix: Tensor, tiles: Tensor) -> Tensor:
    """(n, k), (k * k, ., .) -> (n * n, ., .): matrix @ tile @ matrix.T for every square of k x k."""
    both = torch.kron(matrix, matrix).to(tiles.dtype)
    return (both @ tiles.flatten(1)).unflatten(1, tiles.shape[1:])


def _as_weights(gradient: Tensor) -> Tensor:
    """(9, O, C) -> (O, C, 3, 3)."""
    return gradient.unflatten(0, (3, 3)).permute(2, 3, 0, 1)
