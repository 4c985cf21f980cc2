"""Attention maps of a DETR's last layers, computed beside a forward pass that keeps none.

Shapes: Q queries, N = H*W tokens of the feature map, h and w at most `MOST_CELLS` cells of it.
"""

import contextlib

import torch.nn.functional as F
from torch import Tensor, nn

from detr.models.detr import Detr
from detr.structures import DetrOutput

MOST_CELLS = 12  # along the longer side of a map; finer than this nobody sees


def attention_maps(model: Detr, image: Tensor, padding_mask: Tensor) -> tuple[DetrOutput, Tensor, Tensor | None]:
    """Run a model in evaluation mode on one image (1, 3, H, W), ImageNet-normalized, and its padding mask (1, H, W).

    Returns the outputs; (Q, h, w), the cross-attention of each query in the last decoder layer; and (h, w, h, w), the
    self-attention of each cell in the last encoder layer, None without one. They are means over the heads; every map
    sums to 1.
    """
    transformer = model.transformer
    of_queries = transformer.decoder.layers[-1].multihead_attn
    of_points = [layer.self_attn for layer in transformer.encoder.layers[-1:]]  # none without an encoder
    inputs: dict[nn.Module, tuple[Tensor, ...]] = {}
    with contextlib.ExitStack() as hooks:
        for module in (transformer, of_queries, *of_points):
            hooks.enter_context(module.register_forward_pre_hook(lambda module, given: inputs.update({module: given})))
        outputs = model(image, padding_mask)
    size_hw = inputs[transformer][0].shape[-2:]
    cross = _pooled(_weights(of_queries, inputs[of_queries]), size_hw)
    if not of_points:
        return outputs, cross, None
    points = _pooled(_weights(of_points[0], inputs[of_points[0]]), size_hw)  # (N, h, w)
    cells = F.adaptive_avg_pool2d(points.flatten(1).T.unflatten(1, size_hw), points.shape[1:])  # (h*w, h, w)
    return outputs, cross, cells.permute(1, 2, 0).unflatten(2, points.shape[1:])


def _weights(attention: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return (Q, N) weights of the first image, on the host: not every device pools to sizes that divide nothing."""
    query, key, _, padding_mask = inputs
    return attention.weights(query, key, padding_mask)[0].cpu()


def _pooled(weights: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Pool (Q, N) maps over tokens to (Q, h, w) over cells, each again with sum 1."""
    shrink = min(1.0, MOST_CELLS / max(size_hw))
    cells_hw = [max(1, round(side * shrink)) for side in size_hw]
    pooled = F.adaptive_avg_pool2d(weights.unflatten(1, tuple(size_hw)), cells_hw)
    return pooled / pooled.sum((1, 2), keepdim=True)
