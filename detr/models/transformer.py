"""The encoder-decoder transformer (DETR, section 3.2 and figure 10).

Shapes: B images, N = H*W tokens of the feature map, Q object queries in each of G groups, L decoder layers, D width.
Positions are added to queries and keys of every attention, never to values, so that content and position stay apart.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.models.attention import MultiheadAttention
from detr.models.cpu_kernels import Dropout


class _Layer(nn.Module):
    """What both kinds of layer have. `pre_norm` normalizes before each branch, not after the sum (DETR's default)."""

    def __init__(self, dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.dropout = Dropout(dropout)
        self.self_attn = MultiheadAttention(dim, nheads, dropout)
        self.pre_norm = pre_norm

    def feed_forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.linear2(self.dropout(F.relu(self.linear1(x))))

    def residual(self, x: Tensor, branch: Callable[[Tensor], Tensor], norm: nn.LayerNorm) -> Tensor:
        """Return x plus branch(x), normalized."""
        return x + self.dropout(branch(norm(x))) if self.pre_norm else norm(x + self.dropout(branch(x)))


class EncoderLayer(_Layer):
    """Self-attention among the tokens, then a feed-forward network, each with a residual and a LayerNorm."""

    def __init__(self, dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dim, nheads, dim_feedforward, dropout, pre_norm)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, src: Tensor, pos: Tensor, padding_mask: Tensor) -> Tensor:
        """Map tokens (B, N, D), their positions (B, N, D) and mask (B, N) to (B, N, D)."""

        def self_attention(x: Tensor) -> Tensor:
            x_with_pos = x + pos
            return self.self_attn(x_with_pos, x_with_pos, x, padding_mask)

        src = self.residual(src, self_attention, self.norm1)
        return self.residual(src, self.feed_forward, self.norm2)


class DecoderLayer(_Layer):
    """Self-attention among the queries, attention from queries to tokens, then a feed-forward network."""

    def __init__(self, dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dim, nheads, dim_feedforward, dropout, pre_norm)
        self.multihead_attn = MultiheadAttention(dim, nheads, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self, tgt: Tensor, query_embed: Tensor, memory: Tensor, memory_with_pos: Tensor, padding_mask: Tensor
    ) -> Tensor:
        """Map tgt (B, G, Q, D), query_embed (G, Q, D), memory (B, N, D), the same with positions, and mask to tgt."""

        def self_attention(x: Tensor) -> Tensor:
            x_with_pos = (x + query_embed).flatten(0, 1)  # (B * G, Q, D): the groups do not see each other
            return self.self_attn(x_with_pos, x_with_pos, x.flatten(0, 1)).view_as(x)

        def cross_attention(x: Tensor) -> Tensor:
            x_with_pos = (x + query_embed).flatten(1, 2)
            return self.multihead_attn(x_with_pos, memory_with_pos, memory, padding_mask).view_as(x)

        tgt = self.residual(tgt, self_attention, self.norm1)
        tgt = self.residual(tgt, cross_attention, self.norm2)
        return self.residual(tgt, self.feed_forward, self.norm3)


class _Stack(nn.Module):
    """Layers and the LayerNorm behind them, under the public files' names; `Transformer.forward` runs them."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm


class Transformer(nn.Module):
    """Encoder over the feature map, decoder over the object queries; `depths` are their numbers of layers.

    Pre-norm ends the encoder with one more LayerNorm; the output of each decoder layer passes the same LayerNorm on its
    way to the heads.
    """

    def __init__(
        self, depths: tuple[int, int], dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool
    ) -> None:
        super().__init__()
        layer = (dim, nheads, dim_feedforward, dropout, pre_norm)
        last_norm = nn.LayerNorm(dim) if pre_norm else None
        self.encoder = _Stack((EncoderLayer(*layer) for _ in range(depths[0])), last_norm)
        self.decoder = _Stack((DecoderLayer(*layer) for _ in range(depths[1])), nn.LayerNorm(dim))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, pos: Tensor, padding_mask: Tensor, query_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Map features and positions (B, D, H, W), mask (B, H, W) and query_embed (G, Q, D) to the decoded queries
        (L, G * B, Q, D) and the encoder's memory (B, N, D).
        """
        memory = src.flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, N, D)
        pos, padding_mask = pos.flatten(2).transpose(1, 2), padding_mask.flatten(1)
        for layer in self.encoder.layers:
            memory = layer(memory, pos, padding_mask)
        if self.encoder.norm is not None:
            memory = self.encoder.norm(memory)
        tgt = query_embed.new_zeros(()).expand(memory.shape[0], *query_embed.shape)
        memory_with_pos, decoded = memory + pos, []
        for layer in self.decoder.layers:
            tgt = layer(tgt, query_embed, memory, memory_with_pos, padding_mask)
            decoded.append(tgt)
        return self.decoder.norm(torch.stack(decoded)).transpose(1, 2).flatten(1, 2), memory
