"""The encoder-decoder transformer (DETR, section 3.2 and figure 10).

Shapes: B images, N = H*W tokens of the feature map, Q object queries in each of G groups, L decoder layers, D width, M
heads.
Positions are added to queries and keys of every attention, never to values, so that content stays free of place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.attend import attend, may_attend
from detr.dropout import Dropout


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) under nn.MultiheadAttention's parameter names."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))  # query, key and value rows, in that order
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, Q, D), (B, N, D), (B, N, D) -> (B, Q, D); `padding_mask` (B, N) is True where a key is padding."""
        query, key, value = self._project(query, key, value)
        out = attend(query, key, value, may_attend(padding_mask), self.dropout if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, key: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, Q, N) mean over the heads of what `forward` attends to, for looking at; it keeps no weights itself."""
        query, key = self._project(query, key)
        mean = 0.0
        for head in range(self.heads):  # one at a time: all of them would take M times the memory
            scores = query[:, head] @ key[:, head].transpose(-1, -2) * query.shape[-1] ** -0.5
            if padding_mask is not None:
                scores = scores.masked_fill(padding_mask[:, None, :], -torch.inf)
            mean = mean + scores.softmax(-1) / self.heads
        return mean

    def _project(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """(B, N, D) each of query, key and value, in that order -> (B, M, N, D/M)."""
        rows = zip(inputs, self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=False)
        return tuple(
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x, weight, bias in rows
        )


class FeedForward(nn.Module):
    """The feed-forward half of a layer; a base class because the public files keep its parameters in the layer."""

    def __init__(self, dim: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.dropout = Dropout(dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(FeedForward):
    """Self-attention among the tokens, then a feed-forward network, each with a residual and a LayerNorm."""

    def __init__(self, dim: int, heads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dim, dim_feedforward, dropout)
        self.self_attn = Attention(dim, heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.pre_norm = pre_norm

    def forward(self, tokens: Tensor, positions: Tensor, padding_mask: Tensor) -> Tensor:
        """(B, N, D), (B, N, D), (B, N) -> (B, N, D)."""

        def attend(x: Tensor) -> Tensor:
            placed = x + positions
            return self.self_attn(placed, placed, x, padding_mask)

        tokens = _residual(tokens, attend, self.norm1, self.dropout, self.pre_norm)
        return _residual(tokens, self.feed_forward, self.norm2, self.dropout, self.pre_norm)


class DecoderLayer(FeedForward):
    """Self-attention among the queries, attention from queries to tokens, then a feed-forward network."""

    def __init__(self, dim: int, heads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dim, dim_feedforward, dropout)
        self.self_attn = Attention(dim, heads, dropout)
        self.multihead_attn = Attention(dim, heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.pre_norm = pre_norm

    def forward(
        self, slots: Tensor, queries: Tensor, memory: Tensor, placed_memory: Tensor, padding_mask: Tensor
    ) -> Tensor:
        """(B, G, Q, D) slots, (G, Q, D) queries, (B, N, D) memory without and with positions, (B, N) mask -> slots."""

        def attend_slots(x: Tensor) -> Tensor:
            placed = (x + queries).flatten(0, 1)  # (B * G, Q, D): the groups do not see each other
            return self.self_attn(placed, placed, x.flatten(0, 1)).view_as(x)

        def attend_memory(x: Tensor) -> Tensor:
            placed = (x + queries).flatten(1, 2)
            return self.multihead_attn(placed, placed_memory, memory, padding_mask).view_as(x)

        slots = _residual(slots, attend_slots, self.norm1, self.dropout, self.pre_norm)
        slots = _residual(slots, attend_memory, self.norm2, self.dropout, self.pre_norm)
        return _residual(slots, self.feed_forward, self.norm3, self.dropout, self.pre_norm)


def _residual(x: Tensor, branch, norm: nn.LayerNorm, dropout: Dropout, pre_norm: bool) -> Tensor:
    """x plus branch(x), normalised after the sum (DETR's default) or before the branch (`--pre_norm`)."""
    return x + dropout(branch(norm(x))) if pre_norm else norm(x + dropout(branch(x)))


class Encoder(nn.Module):
    """A stack of encoder layers; pre-norm ends with one more LayerNorm."""

    def __init__(self, depth: int, dim: int, heads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, dim_feedforward, dropout, pre_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(dim) if pre_norm else None

    def forward(self, tokens: Tensor, positions: Tensor, padding_mask: Tensor) -> Tensor:
        """(B, N, D), (B, N, D), (B, N) -> memory (B, N, D)."""
        for layer in self.layers:
            tokens = layer(tokens, positions, padding_mask)
        return tokens if self.norm is None else self.norm(tokens)


class Decoder(nn.Module):
    """A stack of decoder layers; each layer's output passes the same LayerNorm on its way to the heads."""

    def __init__(self, depth: int, dim: int, heads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, dim_feedforward, dropout, pre_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor, padding_mask: Tensor) -> Tensor:
        """(G, Q, D), (B, N, D), (B, N, D), (B, N) -> normalised output of every layer (L, G * B, Q, D)."""
        slots = queries.new_zeros(()).expand(memory.shape[0], *queries.shape)
        placed_memory = memory + positions
        outputs = []
        for layer in self.layers:
            slots = layer(slots, queries, memory, placed_memory, padding_mask)
            outputs.append(slots)
        return self.norm(torch.stack(outputs)).transpose(1, 2).flatten(1, 2)


class Transformer(nn.Module):
    """Encoder over the feature map, decoder over the object queries."""

    def __init__(
        self,
        dim: int = 256,
        heads: int = 8,
        enc_layers: int = 6,
        dec_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(enc_layers, dim, heads, dim_feedforward, dropout, pre_norm)
        self.decoder = Decoder(dec_layers, dim, heads, dim_feedforward, dropout, pre_norm)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, positions: Tensor, padding_mask: Tensor, queries: Tensor) -> Tensor:
        """(B, D, H, W) features and positions, (B, H, W) mask, (G, Q, D) queries -> (L, G * B, Q, D)."""
        tokens = features.flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, N, D)
        positions = positions.flatten(2).transpose(1, 2)
        padding_mask = padding_mask.flatten(1)
        memory = self.encoder(tokens, positions, padding_mask)
        return self.decoder(queries, memory, positions, padding_mask)
