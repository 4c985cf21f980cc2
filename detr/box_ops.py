"""Relative boxes and generalized IoU; formats are torchvision's (`ops.box_convert`).

Formats, always carried in a variable's name:
    boxes_xyxy    left, top, right, bottom
    boxes_xywh    left, top, width, height (COCO files)
    boxes_cxcywh  centre, width, height, divided by the image's width and height (what the network predicts)
"""

import torch
from torch import Tensor
from torchvision.ops import box_convert


def normalize_cxcywh(boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Convert pixel corners (..., 4) in an image of height and width `size_hw` to the network's relative cxcywh."""
    height, width = size_hw
    return box_convert(boxes_xyxy, "xyxy", "cxcywh") / boxes_xyxy.new_tensor([width, height, width, height])


def generalized_box_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al. 2019, Algorithm 1), shapes broadcast: (..., 4), (..., 4) -> (...) in [-1, 1].

    IoU minus the share of the smallest enclosing box that neither box covers. torchvision's is of all pairs, and not a
    number for empty boxes.
    """
    tiny = torch.finfo(boxes1_xyxy.dtype).tiny
    (low1, high1), (low2, high2) = (boxes.split(2, dim=-1) for boxes in (boxes1_xyxy, boxes2_xyxy))
    intersection = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(-1)
    enclosing = (torch.maximum(high1, high2) - torch.minimum(low1, low2)).clamp(min=0).prod(-1)
    union = (high1 - low1).prod(-1) + (high2 - low2).prod(-1) - intersection
    return intersection / union.clamp(min=tiny) - (enclosing - union) / enclosing.clamp(min=tiny)
