"""What a detector predicts, as every program that runs it returns it: the outputs of the ONNX file.

Shapes: B images, Q queries, K classes.
"""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from detr.box_ops import cxcywh_to_xyxy
from detr.data.loader import pad_images
from detr.data.transforms import to_tensor
from detr.structures import DetrOutput

OUTPUTS = ("scores", "boxes_xyxy", "masks")
Outputs = list[Tensor]  # as many of these as there are
Run = Callable[[list[Image.Image]], Outputs]


def every_query(outputs: DetrOutput) -> tuple[Tensor, Tensor]:
    """Choose a mask for every query: (B * Q,) images and queries."""
    batch, queries = outputs.boxes_cxcywh.shape[1:3]
    image, query = torch.arange(batch)[:, None], torch.arange(queries)
    return image.expand(batch, queries).flatten(), query.expand(batch, queries).flatten()


def to_outputs(outputs: DetrOutput, labels: list[int]) -> tuple[Tensor, ...]:
    """Return `OUTPUTS` of the last decoder layer; `labels` are those that stand for a category."""
    scores = outputs.logits[-1].softmax(-1)[..., labels]
    boxes_xyxy = cxcywh_to_xyxy(outputs.boxes_cxcywh[-1])
    masks = () if outputs.masks is None else (outputs.masks.logits.unflatten(0, scores.shape[:2]),)
    return scores, boxes_xyxy, *masks


def pad_normalized(images: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Return images as a batch (B, 3, H, W), ImageNet-normalized, and its padding mask."""
    return pad_images([to_tensor(image) for image in images])
