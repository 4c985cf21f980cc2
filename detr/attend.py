"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1): PyTorch's own, except where a CPU is slow at it.

Shapes: B images, M heads, Q queries, N keys, d width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from detr.dropout import random_mask


def may_attend(padding_mask: Tensor | None) -> Tensor | None:
    """(B, N), True on padding -> (B, 1, 1, N), True where attention may look: SDPA's convention is the opposite."""
    return None if padding_mask is None else ~padding_mask[:, None, None, :]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """(B, M, Q, d), (B, M, N, d), (B, M, N, d) -> (B, M, Q, d); `mask` is True where attention may look.

    On a CPU, PyTorch's draws the random numbers of its dropout one by one, and its gradients in bfloat16 take three
    times as long as in float32. There the weights are written out instead.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
    dtype = query.dtype
    learns = torch.is_grad_enabled() and query.requires_grad
    with torch.autocast("cpu", enabled=False):
        if dtype == torch.float16 or (dtype == torch.bfloat16 and not learns):
            query, key, value = query.float(), key.float(), value.float()
        if dropout or query.dtype == torch.bfloat16:
            return _WrittenOut.apply(query, key, value, mask, dropout).to(dtype)
        return F.scaled_dot_product_attention(query, key, value, mask).to(dtype)


class _WrittenOut(torch.autograd.Function):
    """Attention that keeps its weights (B * M, Q, N) for the backward pass, in the number format of the inputs."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        """As `attend`. Scores and softmax are in float32 at least: of rounded scores the weights would be wrong."""
        heads, exact = query.shape[:2], torch.promote_types(query.dtype, torch.float32)
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        scores = (query.to(exact) * query.shape[-1] ** -0.5) @ key.to(exact).transpose(1, 2)
        if mask is not None:  # added, which is faster than filled in
            scores.unflatten(0, heads).add_(torch.zeros_like(mask, dtype=exact).masked_fill_(~mask, -torch.inf))
        weights = scores.softmax(-1).to(query.dtype)
        kept = random_mask(weights.shape, dropout) if dropout else None
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.dropout = dropout
        return (_masked(weights, kept) @ (value / (1 - dropout))).unflatten(0, heads)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, weights, kept = ctx.saved_tensors
        heads, root = gradient.shape[:2], query.shape[-1] ** -0.5
        gradient = gradient.flatten(0, 1) / (1 - ctx.dropout)
        to_weights = gradient @ value.transpose(1, 2)
        if kept is not None:
            to_weights *= kept
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_value = _masked(weights, kept).transpose(1, 2) @ gradient
        to_query, to_key = to_scores @ (key * root), to_scores.transpose(1, 2) @ (query * root)
        return *(x.unflatten(0, heads) for x in (to_query, to_key, to_value)), None, None


def _masked(weights: Tensor, kept: Tensor | None) -> Tensor:
    return weights if kept is None else weights * kept
