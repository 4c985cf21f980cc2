"""Attention maps of a DETR's last layers, computed beside a forward pass that keeps none.

Shapes: Q queries, N = H*W tokens of the feature map, h and w at most `MOST_CELLS` cells of it.
"""

import contextlib
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from detr.models.detr import Detr
from detr.structures import DetrOutput

MOST_CELLS = 12  # along the longer side of a map; finer than this nobody sees


def attention_maps(model: Detr, image: Tensor, padding_mask: Tensor) -> tuple[DetrOutput, Tensor, Tensor | None]:
    """Return the outputs for one image, and the attention of the last layers, averaged over the heads.

    Args:
        model: in evaluation mode.
        image: (1, 3, H, W), ImageNet-normalized.
        padding_mask: (1, H, W), True on padding.

    Returns the outputs; (Q, h, w), the cross-attention of each query in the last decoder layer; and (h, w, h, w), the
    self-attention of each cell in the last encoder layer, None without one. Every map sums to 1.
    """
    transformer = model.transformer
    encoder = transformer.encoder.layers[-1].self_attn if len(transformer.encoder.layers) else None
    with (
        _inputs_of(transformer) as whole,
        _inputs_of(transformer.decoder.layers[-1].multihead_attn) as seen_by_queries,
        _inputs_of(encoder) as seen_by_points,
    ):
        outputs = model(image, padding_mask)
    size_hw = whole[0].shape[-2:]
    cross = _pooled(_weights(transformer.decoder.layers[-1].multihead_attn, seen_by_queries), size_hw)
    if encoder is None:
        return outputs, cross, None
    points = _pooled(_weights(encoder, seen_by_points), size_hw)  # (N, h, w)
    cells = F.adaptive_avg_pool2d(points.flatten(1).T.unflatten(1, size_hw), points.shape[1:])  # (h*w, h, w)
    return outputs, cross, cells.permute(1, 2, 0).unflatten(2, points.shape[1:])


@contextlib.contextmanager
def _inputs_of(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The positional inputs of the module's next call, in a list that is filled when that happens."""
    inputs: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: inputs.extend(given)) if module else None
    try:
        yield inputs
    finally:
        if handle:
            handle.remove()


def _weights(attention: nn.Module, inputs: list[Tensor]) -> Tensor:
    """Return (Q, N) weights of the first image, on the host: not every device pools to sizes that divide nothing."""
    query, key, _, padding_mask = inputs
    return attention.weights(query, key, padding_mask)[0].cpu()


def _pooled(weights: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Pool (Q, N) maps over tokens to (Q, h, w) over cells, each again with sum 1."""
    shrink = min(1.0, MOST_CELLS / max(size_hw))
    cells_hw = [max(1, round(side * shrink)) for side in size_hw]
    pooled = F.adaptive_avg_pool2d(weights.unflatten(1, tuple(size_hw)), cells_hw)
    return pooled / pooled.sum((1, 2), keepdim=True)
