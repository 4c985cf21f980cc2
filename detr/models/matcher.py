"""Bipartite matching of predictions to objects (DETR, section 3.1, equation 1).

Shapes: L decoder layers, B images, Q queries, T most objects of an image, K classes, M matched pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert

from detr.box_ops import generalized_box_iou
from detr.structures import DetrOutput, Targets, to_device
from utils import UserError

NONFINITE_COST = 1e9  # higher than the cost of any pair of finite boxes


class Match(NamedTuple):
    """M matched pairs over all layers and images, as index vectors (M,) on the outputs' device."""

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor  # position among the image's own objects

    def of_last_layer(self, matched: Sequence[int], images: int) -> "Match":
        """Return the pairs of the last layer and of the first images, of all of which `matched` says how many each has.

        Pairs are in the order of layers and images (`assign`), so that nothing needs to be asked of the device.
        """
        end = len(self.layer) - sum(matched[images:])  # behind are those of the other groups of queries
        return Match(*(field[end - sum(matched[:images]) : end] for field in self))


def matching_cost(
    outputs: DetrOutput, targets: Targets, cost_class: float, cost_bbox: float, cost_giou: float
) -> Tensor:
    """Return what pairing each query with each object would cost, (L, B, Q, T).

    Minus the class probability, the L1 distance and minus the GIoU of the boxes, weighted. Columns beyond an image's
    own number of objects are meaningless.
    """
    probability = outputs.logits.softmax(-1)  # (L, B, Q, K + 1)
    layers, _, queries, _ = probability.shape
    labels = targets.labels[None, :, None, :].expand(layers, -1, queries, -1)  # (L, B, Q, T)
    predicted = outputs.boxes_cxcywh[..., None, :]  # (L, B, Q, 1, 4)
    target_boxes = targets.boxes_cxcywh[None, :, None, :, :]  # (1, B, 1, T, 4)
    giou = generalized_box_iou(*(box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, target_boxes)))
    distance = (predicted - target_boxes).abs().sum(-1)
    return cost_bbox * distance - cost_class * probability.gather(-1, labels) - cost_giou * giou


class HungarianMatcher:
    """Finds the cheapest one-to-one pairing for every layer and image at once, with a single copy to the host.

    Args: weights of the class, L1 and GIoU costs. With more objects than queries, every query is matched.
    """

    def __init__(self, cost_class: float = 1.0, cost_bbox: float = 5.0, cost_giou: float = 2.0) -> None:
        if not (cost_class or cost_bbox or cost_giou):
            raise UserError("--set_cost_class, --set_cost_bbox and --set_cost_giou are all 0; one of them must not be")
        self.costs = (cost_class, cost_bbox, cost_giou)

    @torch.no_grad()
    def __call__(self, outputs: DetrOutput, targets: Targets) -> Match:
        """Match the outputs (L, B, Q, ...) with the targets of the B images.

        A cost that is not finite is matched last: the loss will not be finite either, and says so.
        """
        cost = matching_cost(outputs, targets, *self.costs)
        return Match(*to_device(assign(cost.cpu(), targets.counts), outputs.logits.device))


def assign(cost: Tensor, counts: list[int]) -> Tensor:
    """Find the cheapest pairs: costs (L, B, Q, T) on the host, objects per image -> rows of `Match` (4, M), int64."""
    # SciPy takes finite costs only.
    finite = np.nan_to_num(cost.numpy(), copy=False, nan=NONFINITE_COST, posinf=NONFINITE_COST, neginf=NONFINITE_COST)
    pairs = [
        np.stack(np.broadcast_arrays(layer, image, *linear_sum_assignment(finite[layer, image, :, :count])))
        for layer in range(finite.shape[0])
        for image, count in enumerate(counts)
    ]
    return torch.from_numpy(np.concatenate(pairs, axis=1, dtype=np.int64))
