"""Network outputs -> detections in pixels (DETR, section 3: no anchors, no non-maximum suppression).

Shapes: B images, Q queries, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from detr.box_ops import cxcywh_to_xyxy
from detr.structures import DetrOutput


class Detections(NamedTuple):
    """One detection per query, in the order of the queries."""

    scores: Tensor  # (B, Q) in [0, 1]
    labels: Tensor  # (B, Q) in 0..K-1
    boxes_xyxy: Tensor  # (B, Q, 4) in pixels of the original images


def postprocess(outputs: DetrOutput, sizes_hw: list[tuple[int, int]]) -> Detections:
    """Best real class and its probability for every query of the last decoder layer, boxes scaled to `sizes_hw`."""
    probability = outputs.logits[-1].float().softmax(-1)[..., :-1]  # "no object" is never an answer
    scores, labels = probability.max(-1)
    boxes_xyxy = cxcywh_to_xyxy(outputs.boxes_cxcywh[-1].float())
    scale = torch.tensor([[width, height, width, height] for height, width in sizes_hw], device=boxes_xyxy.device)
    return Detections(scores, labels, boxes_xyxy * scale[:, None])
