"""Everything that is written out because PyTorch, or the C library, is slow at it on a CPU.

The other files of this room call each of these in one line, on any device; away from the CPU all of them are PyTorch's
own. `python -m tests.benchmarks.speed` has the times.

Shapes: B images, M heads, Q queries, N keys, d width of a head; C channels in, O channels out, H and W size of the
output, T tiles.
"""

import ctypes
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# ------------------------------------------------------------------------------------------------------------ attention


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float
) -> Tensor:
    """Compute softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, equation 1): (B, M, Q, d) from (B, M, Q, d) queries and
    (B, M, N, d) keys and values.

    `attn_mask`, (B, 1, 1, N), is True where attention may look: at one key of every image at least.

    On a CPU, PyTorch's own draws random numbers for its dropout one by one, and its bfloat16 gradients take three times
    as long as float32 ones: with dropout, and in bfloat16 training, the weights are written out here.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p=dropout_p)
    dtype = query.dtype
    with torch.autocast("cpu", enabled=False):
        if dtype == torch.float16 or (dtype == torch.bfloat16 and not torch.is_grad_enabled()):
            query, key, value = query.float(), key.float(), value.float()  # SDPA is the fastest so, and more precise
        if dropout_p or query.dtype == torch.bfloat16:
            return _Attention.apply(query, key, value, attn_mask, dropout_p).to(dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask).to(dtype)


class _Attention(torch.autograd.Function):
    """Attention that keeps its weights (B * M, Q, N) for the backward pass, in the number format of the inputs."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
        """Compute what `scaled_dot_product_attention` says, of the same shapes."""
        outer = query.shape[:2]
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        weights = _attention_weights(query, key, attn_mask, outer)
        kept, dropped = random_mask(weights.shape, dropout_p) if dropout_p else (None, 0.0)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.scale = 1 / (1 - dropped)
        return (_masked(weights, kept) @ (value * ctx.scale)).unflatten(0, outer)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value from that of the output, (B, M, Q, d)."""
        query, key, value, weights, kept = ctx.saved_tensors
        outer, root = grad.shape[:2], query.shape[-1] ** -0.5
        with torch.autocast("cpu", enabled=False):
            grad = grad.flatten(0, 1) * ctx.scale
            grad_weights = grad @ value.transpose(1, 2)
            if kept is not None:
                grad_weights *= kept
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_value = _masked(weights, kept).transpose(1, 2) @ grad
            grad_query, grad_key = grad_scores @ (key * root), grad_scores.transpose(1, 2) @ (query * root)
        return *(x.unflatten(0, outer) for x in (grad_query, grad_key, grad_value)), None, None


def _attention_weights(query: Tensor, key: Tensor, attn_mask: Tensor | None, outer: torch.Size) -> Tensor:
    """Return (B * M, Q, N), each row summing to 1, of (B * M, Q, d) queries, (B * M, N, d) keys and (B, M) `outer`.

    Scores and softmax are in float32 at least: of rounded scores the weights would be wrong.
    """
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(exact) * query.shape[-1] ** -0.5) @ key.to(exact).transpose(1, 2)
    if attn_mask is not None:  # added, which is faster than filled in
        bias = torch.zeros_like(attn_mask, dtype=exact).masked_fill_(~attn_mask, -torch.inf)
        scores.unflatten(0, outer).add_(bias)
    return scores.softmax(-1).to(query.dtype)


def _masked(weights: Tensor, kept: Tensor | None) -> Tensor:
    return weights if kept is None else weights * kept


# -------------------------------------------------------------------------------------------------------------- dropout


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero a random share p of the values and scale up the others to keep the mean (Srivastava et al. 2014)."""
    if x.device.type != "cpu":
        return F.dropout(x, p)
    mask, dropped = random_mask(x.shape, p)
    return x * mask.to(x.dtype).mul_(1 / (1 - dropped))


def random_mask(shape: torch.Size, p: float) -> tuple[Tensor, float]:
    """Return a uint8 mask on the CPU, 0 for a random share of the values and 1 for the others, and that share.

    One 64-bit number serves eight values, where PyTorch's own draws one for each. A byte tells 256 shares apart: each
    call takes the one below or above `p` (at most 255/256), at random, so that over many calls a share p of the values
    is dropped. The mask is not bool, as PyTorch multiplies by that several times more slowly than by numbers.
    """
    count = shape.numel()
    numbers = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count]
    dropped = min(int(p * 256 + torch.rand(()).item()), 255)
    return numbers.ge_(dropped).view(shape), dropped / 256


class Dropout(nn.Dropout):
    """`dropout` while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return dropout(x, self.p) if self.training and self.p else x


# ----------------------------------------------------------------------------------------------------- weight gradients


# PyTorch computes the output of a convolution and the gradient of its input at nine tenths of the cores' peak, the
# gradient of its weights at three quarters, and in float32 with a stride at a quarter. Here are other ways to add it
# up, for 3x3 in float32 and for 1x1 in bfloat16; what they round stays in this gradient and reaches no other layer.

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
    """Return (O, C, *kernel) of gradient (B, O, H, W) and x (B, C, ., .), or None where PyTorch's own is faster.

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
    outputs, inputs = (side.permute(0, 2, 3, 1).flatten(0, 2) for side in (gradient, x))
    return (outputs.t() @ inputs)[:, :, None, None]


def _by_taps(gradient: Tensor, x: Tensor) -> Tensor:
    """Stride 2: one matrix product over all positions for each of the nine weights of a pair of channels."""
    rows, columns = gradient.shape[2:]
    inputs = _tiles(x, (1, 2 * columns + 1 - x.shape[3], 1, 2 * rows + 1 - x.shape[2]), side=3, step=2)
    return _as_weights(gradient.permute(0, 2, 3, 1).flatten(0, 2).t() @ inputs)


def _by_winograd(gradient: Tensor, x: Tensor) -> Tensor:
    """Stride 1: 36 products over all tiles of 4x4 positions, a quarter of the multiplications, between transforms."""
    right, below = -x.shape[3] % _STEP, -x.shape[2] % _STEP
    inputs = _transform(_INPUT, _tiles(x, (1, right + 1, 1, below + 1), side=6, step=_STEP))
    outputs = _transform(_OUTPUT.t(), _tiles(gradient, (0, right, 0, below), side=4, step=_STEP))
    return _as_weights(_transform(_WEIGHT.t(), outputs.transpose(1, 2) @ inputs))


def _tiles(x: Tensor, padding: tuple[int, int, int, int], side: int, step: int) -> Tensor:
    """Map (B, C, ., .) to (side * side, T, C): the squares that begin every `step` pixels, their pixels first."""
    squares = F.pad(x, padding).permute(0, 2, 3, 1).unfold(1, side, step).unfold(2, side, step)
    return squares.permute(4, 5, 0, 1, 2, 3).flatten(2, 4).flatten(0, 1)


def _transform(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Map tiles (k * k, ., .) by a matrix (n, k) to (n * n, ., .): matrix @ tile @ matrix.T for every square."""
    both = torch.kron(matrix, matrix).to(tiles.dtype)
    return (both @ tiles.flatten(1)).unflatten(1, tiles.shape[1:])


def _as_weights(gradient: Tensor) -> Tensor:
    """Map (9, O, C) to (O, C, 3, 3)."""
    return gradient.unflatten(0, (3, 3)).permute(2, 3, 0, 1)


# --------------------------------------------------------------------------------------------------------------- memory


# By default glibc hands every large block back to the system, and each training step on a CPU then spends up to a third
# of its time on having the same pages cleared and mapped again. The settings are mallopt(3)'s.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_in_use = {"after trim": 0}  # bytes


def tune_malloc() -> None:
    """Keep freed memory for the next tensor; for a process whose model runs on the CPU."""
    # One heap for all threads: what the backward thread frees, the forward pass finds.
    _mallopt({_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def trim_malloc(most_kept: float = 0.25) -> None:
    """Give freed memory back to the system where more than this share of the machine's is kept: after a step.

    With images of many sizes what is kept has holes of many sizes, and grows: to 7 GB in five epochs that need 3.
    """
    if sys.platform != "linux":
        return
    if _resident() - _in_use["after trim"] > most_kept * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)
        _in_use["after trim"] = _resident()


def _resident() -> int:
    """Return how much memory this process holds, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def share_malloc() -> None:
    """Let all threads use one heap, for a process that detects: what reading an image frees, the network finds."""
    _mallopt({_M_ARENA_MAX: 1})


def restore_malloc() -> None:
    """Undo `tune_malloc` in a process forked from one that called it: what it frees goes back to the system."""
    # The thresholds are where glibc's own adjustment ends; naming any of them has switched that off.
    _mallopt({_M_ARENA_MAX: 0, _M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * 2**20, _M_TRIM_THRESHOLD: 64 * 2**20})


def _mallopt(settings: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in settings.items():
            mallopt(parameter, value)
