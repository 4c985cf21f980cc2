"""Box formats and overlaps: the only converter between formats.

Formats, always carried in a variable's name:
    boxes_xyxy    left, top, right, bottom
    boxes_xywh    left, top, width, height (COCO files)
    boxes_cxcywh  centre, width, height, divided by the image's width and height (what the network predicts)
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert boxes (..., 4) from centre and size to corners; units are kept."""
    centre_x, centre_y, width, height = boxes_cxcywh.unbind(-1)
    half_width, half_height = 0.5 * width, 0.5 * height
    corners = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    return torch.stack(corners, dim=-1)


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Convert boxes (..., 4) from corners to centre and size; units are kept."""
    left, top, right, bottom = boxes_xyxy.unbind(-1)
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), dim=-1)


def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Convert boxes (..., 4) from COCO's left, top, width, height to corners; units are kept."""
    left, top, width, height = boxes_xywh.unbind(-1)
    return torch.stack((left, top, left + width, top + height), dim=-1)


def xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    """Convert boxes (..., 4) from corners to COCO's left, top, width, height; units are kept."""
    left, top, right, bottom = boxes_xyxy.unbind(-1)
    return torch.stack((left, top, right - left, bottom - top), dim=-1)


def normalize_cxcywh(boxes_xyxy: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Convert pixel corners (..., 4) in an image of height and width `size_hw` to the network's relative cxcywh."""
    height, width = size_hw
    return xyxy_to_cxcywh(boxes_xyxy) / boxes_xyxy.new_tensor([width, height, width, height])


def _union_and_intersection(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Union and intersection areas, shapes broadcast: (..., 4), (..., 4) -> (...), (...)."""
    top_left = torch.maximum(boxes1_xyxy[..., :2], boxes2_xyxy[..., :2])
    bottom_right = torch.minimum(boxes1_xyxy[..., 2:], boxes2_xyxy[..., 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(-1)
    area1 = (boxes1_xyxy[..., 2:] - boxes1_xyxy[..., :2]).prod(-1)
    area2 = (boxes2_xyxy[..., 2:] - boxes2_xyxy[..., :2]).prod(-1)
    return area1 + area2 - intersection, intersection


def generalized_box_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Generalized IoU (Rezatofighi et al. 2019, Algorithm 1), shapes broadcast: (..., 4), (..., 4) -> (...) in [-1, 1].

    IoU minus the share of the smallest enclosing box that neither box covers.
    """
    tiny = torch.finfo(boxes1_xyxy.dtype).tiny
    union, intersection = _union_and_intersection(boxes1_xyxy, boxes2_xyxy)
    top_left = torch.minimum(boxes1_xyxy[..., :2], boxes2_xyxy[..., :2])
    bottom_right = torch.maximum(boxes1_xyxy[..., 2:], boxes2_xyxy[..., 2:])
    enclosing = (bottom_right - top_left).clamp(min=0).prod(-1)
    return intersection / union.clamp(min=tiny) - (enclosing - union) / enclosing.clamp(min=tiny)
