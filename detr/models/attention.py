"""Multi-head attention (Vaswani et al. 2017, section 3.2).

Shapes: B images, Q queries, N keys, D width, M heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.models.cpu_kernels import scaled_dot_product_attention


def to_attn_mask(padding_mask: Tensor | None) -> Tensor | None:
    """Turn a mask (B, N), True on padding, into SDPA's opposite convention: (B, 1, 1, N), True where it may attend."""
    return None if padding_mask is None else ~padding_mask[:, None, None, :]


class MultiheadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) under nn.MultiheadAttention's parameter names."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))  # query, key and value rows, in that order
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Attend from (B, Q, D) to keys and values (B, N, D) -> (B, Q, D); `padding_mask` (B, N) is True on padding."""
        query, key, value = self._in_proj(query, key, value)
        dropout_p = self.dropout if self.training else 0.0
        out = scaled_dot_product_attention(query, key, value, to_attn_mask(padding_mask), dropout_p)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, key: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return the attention weights of `forward`, which keeps none itself, averaged over the heads: (B, Q, N)."""
        query, key = self._in_proj(query, key)
        mean = 0.0
        for head in range(self.num_heads):  # one at a time: all of them would take M times the memory
            scores = query[:, head] @ key[:, head].transpose(-1, -2) * query.shape[-1] ** -0.5
            if padding_mask is not None:
                scores = scores.masked_fill(padding_mask[:, None, :], -torch.inf)
            mean = mean + scores.softmax(-1) / self.num_heads
        return mean

    def _in_proj(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Project query, key and value, in that order, each (B, N, D) -> (B, M, N, D/M)."""
        rows = zip(inputs, self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=False)
        return tuple(
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x, weight, bias in rows
        )
