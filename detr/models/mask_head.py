"""The mask head: one mask per query, from its attention over the image (DETR, section 4.4 and figure 8).

Shapes: B images, M pairs of an image and one of its queries, D width, N heads, C channels of the backbone's maps at
strides 4, 8 and 16, h and w cells of the encoder's map.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import UserError

_GROUPS = 8  # of a GroupNorm
_PAIRS_AT_ONCE = 16  # without gradients: what bounds the memory of a prediction, whatever is detected


def _widths(dim: int, nheads: int) -> tuple[int, ...]:
    """Return the channels that enter the first of the five layers, and those that leave each."""
    return (dim + nheads, dim + nheads, dim // 2, dim // 4, dim // 8, dim // 16)


def check_width(dim: int, nheads: int) -> None:
    """Raise UserError where a mask head's GroupNorms cannot have this width: powers of two and multiples of 128 fit."""
    if dim % 16 or any(width % min(_GROUPS, width) for width in _widths(dim, nheads)):
        raise UserError(
            f"--masks: hidden_dim {dim} with {nheads} heads does not divide into the mask head's groups of channels; "
            "accepted: 32, 64 or a multiple of 128, with 8 heads"
        )


class MHAttentionMap(nn.Module):
    """Where each query looks in the encoder's map, one heatmap per head; the public files call it `bbox_attention`."""

    def __init__(self, dim: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.q_linear = nn.Linear(dim, dim)
        self.k_linear = nn.Linear(dim, dim)
        for layer in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def keys(self, memory: Tensor) -> Tensor:
        """Map the encoder's output (B, h*w, D) to the keys of its cells, (B, N, D/N, h*w)."""
        return self.k_linear(memory).unflatten(-1, (self.nheads, -1)).permute(0, 2, 3, 1)

    def forward(self, queries: Tensor, keys: Tensor, padding_mask: Tensor) -> Tensor:
        """Map decoded queries (M, D), the keys of their images (M, N, D/N, h*w) and mask (M, h, w) to (M, N, h, w).

        The softmax runs over the heads and cells of a query together, as in the published model.
        """
        heads = self.q_linear(queries).unflatten(-1, (self.nheads, 1, -1))  # (M, N, 1, D/N)
        scores = (heads * heads.shape[-1] ** -0.5) @ keys  # (M, N, 1, h*w)
        scores = scores.masked_fill(padding_mask.flatten(1)[:, None, None], -torch.inf)
        return scores.flatten(1).softmax(-1).unflatten(1, (self.nheads, *padding_mask.shape[1:]))


class MaskHeadSmallConv(nn.Module):
    """Convolutions from the heatmaps to masks at stride 4, with the backbone's finer maps added on the way up.

    `channels` are those of the maps at strides 4, 8 and 16.
    """

    def __init__(self, dim: int, nheads: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        widths = _widths(dim, nheads)
        for number, (before, after) in enumerate(itertools.pairwise(widths), start=1):
            setattr(self, f"lay{number}", nn.Conv2d(before, after, 3, padding=1))
            setattr(self, f"gn{number}", nn.GroupNorm(min(_GROUPS, after), after))
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for number, channels_in in enumerate(reversed(channels), start=1):
            setattr(self, f"adapter{number}", nn.Conv2d(channels_in, widths[number + 1], 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def shared(self, src: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """What all queries of an image have in common: the first layer's part that reads the projected features `src`
        (B, D, h, w), and the adapted maps at strides 16, 8 and 4.
        """
        features = F.conv2d(src, self.lay1.weight[:, : src.shape[1]], self.lay1.bias, padding=1)
        adapters = (self.adapter1, self.adapter2, self.adapter3)
        return [features, *(adapter(x) for adapter, x in zip(adapters, reversed(maps), strict=True))]

    def forward(self, heatmaps: Tensor, shared: list[Tensor]) -> Tensor:
        """Map heatmaps (M, N, h, w), and `shared` for each of the pairs, to mask logits (M, H/4, W/4).

        A convolution is linear in its channels: the published head repeats `src` for each query and convolves it as
        often; here that part is computed once an image, and only the heatmaps' part for every query.
        """
        features, *maps = shared
        weight = self.lay1.weight[:, -heatmaps.shape[1] :]
        x = F.relu(self.gn1(features + F.conv2d(heatmaps, weight, padding=1)))
        x = F.relu(self.gn2(self.lay2(x)))
        layers, norms = (self.lay3, self.lay4, self.lay5), (self.gn3, self.gn4, self.gn5)
        for layer, norm, finer in zip(layers, norms, maps, strict=True):
            x = finer + F.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = F.relu(norm(layer(x)))
        return self.out_lay(x)[:, 0]


def predict_masks(
    attention: MHAttentionMap,
    head: MaskHeadSmallConv,
    src: Tensor,
    maps: list[Tensor],
    memory: Tensor,
    padding_mask: Tensor,
    queries: Tensor,
    image: Tensor,
) -> Tensor:
    """Return mask logits (M, H/4, W/4) of decoded queries (M, D), each of the image with number `image` (M,).

    Args:
        src: projected features (B, D, h, w).
        maps: the backbone's at strides 4, 8 and 16, (B, C, H/4, W/4) and so on.
        memory: the encoder's output (B, h*w, D).
        padding_mask: (B, h, w), True on padding.
        queries, image: which masks to predict; only these are computed.
    """
    keys, shared = attention.keys(memory), head.shared(src, maps)

    def predict(queries: Tensor, image: Tensor) -> Tensor:
        heatmaps = attention(queries, keys[image], padding_mask[image])
        return head(heatmaps, [x[image] for x in shared]).to(queries.dtype)

    if torch.is_grad_enabled():  # of an exported graph too, whose number of pairs is not known
        return predict(queries, image)
    parts = zip(queries.split(_PAIRS_AT_ONCE), image.split(_PAIRS_AT_ONCE), strict=True)
    return torch.cat([predict(*part) for part in parts])
