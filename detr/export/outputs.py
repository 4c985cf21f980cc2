"""What a detector predicts, as every program that runs it returns it: the outputs of the ONNX file.

Shapes: B images, Q queries, K classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from detr.data.loader import pad_images
from detr.data.transforms import to_tensor
from detr.structures import DetrOutput

OUTPUTS = ("scores", "boxes_xyxy", "masks")
Outputs = list[Tensor]  # as many of these as there are
Inference = Callable[[list[Image.Image]], Outputs]


def every_query(outputs: DetrOutput) -> tuple[Tensor, Tensor]:
    """Choose a mask for every query: (B * Q,) images and queries."""
    batch, queries = outputs.boxes_cxcywh.shape[1:3]
    image, query = torch.arange(batch)[:, None], torch.arange(queries)
    return image.expand(batch, queries).flatten(), query.expand(batch, queries).flatten()


def to_outputs(
    outputs: DetrOutput, labels: list[int], padding_mask: Tensor, mask_box_weight: float = 0.0
) -> tuple[Tensor, ...]:
    """Return `OUTPUTS` of the last decoder layer, of every query.

    Args:
        outputs: with a mask for each query, in order, or none.
        labels: those that stand for a category.
        padding_mask: (B, H, W), True on padding.
        mask_box_weight: of the box around a mask in the mean with the predicted one, as `postprocess.average_boxes`.
    """
    scores = outputs.logits[-1].softmax(-1)[..., labels]
    boxes_xyxy = box_convert(outputs.boxes_cxcywh[-1], "cxcywh", "xyxy")
    if outputs.masks is None:
        return scores, boxes_xyxy
    masks = outputs.masks.logits.unflatten(0, scores.shape[:2])
    if mask_box_weight:
        boxes_xyxy = torch.lerp(boxes_xyxy, _boxes_around(masks, boxes_xyxy, padding_mask), mask_box_weight)
    return scores, boxes_xyxy, masks


def _boxes_around(masks: Tensor, otherwise_xyxy: Tensor, padding_mask: Tensor) -> Tensor:
    """Return the boxes around mask logits (B, Q, h, w), (B, Q, 4) in [0, 1] of each image's own width and height; of
    empty masks `otherwise_xyxy`.
    """
    whole = F.interpolate(masks, padding_mask.shape[1:], mode="bilinear")
    inside = (whole > 0) & ~padding_mask[:, None]  # (B, Q, H, W)
    low, high = [], []
    for dim in (2, 3):  # of rows a column has any of, and of columns a row has any of
        has_any = inside.any(dim).float()  # (B, Q, W or H)
        size = (~padding_mask).any(dim - 1).sum(-1)[:, None]  # (B, 1), without the padding
        low.append(has_any.argmax(-1) / size)  # the first of equal ones
        high.append((has_any.shape[-1] - has_any.flip(-1).argmax(-1)) / size)
    around_xyxy = torch.stack((*low, *high), dim=-1)
    return torch.where(inside.flatten(2).any(-1, keepdim=True), around_xyxy, otherwise_xyxy)


def pad_normalized(images: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Return images as a batch (B, 3, H, W), ImageNet-normalized, and its padding mask."""
    return pad_images([to_tensor(image) for image in images])
