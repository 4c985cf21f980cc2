"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1): PyTorch's own, except where a CPU is slow at it.

Shapes: B images, M heads, Q queries, N keys, d width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from detr.dropout import random_mask


def may_attend(padding_mask: Tensor | None) -> Tensor | None:
    """(B, N), True on padding -> (B, 1, 1, N), True where attention may look: SDPA's convention is the opposite."""
    return None if padding_mask is None else ~padding_mask[:, None, None, :]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """(B, M, Q, d), (B, M, N, d), (B, M, N, d) -> (B, M, Q, d).

    `mask`, (B, 1, 1, N), is True where attention may look: at one key of every image at least.

    On a CPU, PyTorch's own draws random numbers for its dropout one by one, and its bfloat16 gradients take three times
    as long as float32 ones: with dropout, and where bfloat16 is learnt from, the weights are written out here.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
    dtype = query.dtype
    with torch.autocast("cpu", enabled=False):
        if dtype == torch.float16 or (dtype == torch.bfloat16 and not torch.is_grad_enabled()):
            query, key, value = query.float(), key.float(), value.float()  # SDPA is the fastest so, and more precise
        if dropout or query.dtype == torch.bfloat16:
            return _WrittenOut.apply(query, key, value, mask, dropout).to(dtype)
        return F.scaled_dot_product_attention(query, key, value, mask).to(dtype)


class _WrittenOut(torch.autograd.Function):
    """Attention that keeps its weights (B * M, Q, N) for the backward pass, in the number format of the inputs."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """As `attend`."""
        outer = query.shape[:2]
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        weights = _weights(query, key, mask, outer)
        kept, dropped = random_mask(weights.shape, dropout) if dropout else (None, 0.0)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.raised = 1 / (1 - dropped)
        return (_masked(weights, kept) @ (value * ctx.raised)).unflatten(0, outer)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, weights, kept = ctx.saved_tensors
        outer, root = gradient.shape[:2], query.shape[-1] ** -0.5
        with torch.autocast("cpu", enabled=False):
            gradient = gradient.flatten(0, 1) * ctx.raised
            to_weights = gradient @ value.transpose(1, 2)
            if kept is not None:
                to_weights *= kept
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            to_value = _masked(weights, kept).transpose(1, 2) @ gradient
            to_query, to_key = to_scores @ (key * root), to_scores.transpose(1, 2) @ (query * root)
        return *(x.unflatten(0, outer) for x in (to_query, to_key, to_value)), None, None


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, outer: torch.Size) -> Tensor:
    """(B * M, Q, d), (B * M, N, d), mask as in `attend`, (B, M) -> (B * M, Q, N), each row summing to 1.

    Scores and softmax are in float32 at least: of rounded scores the weights would be wrong.
    """
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(exact) * query.shape[-1] ** -0.5) @ key.to(exact).transpose(1, 2)
    if mask is not None:  # added, which is faster than filled in
        scores.unflatten(0, outer).add_(torch.zeros_like(mask, dtype=exact).masked_fill_(~mask, -torch.inf))
    return scores.softmax(-1).to(query.dtype)


def _masked(weights: Tensor, kept: Tensor | None) -> Tensor:
    return weights if kept is None else weights * kept
