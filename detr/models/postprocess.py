"""Network outputs -> detections in pixels (DETR, section 3: no anchors, no non-maximum suppression).

Shapes: B images, Q queries, K classes, M masks, H and W size of the padded images.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_convert

from detr.structures import DetrOutput, MaskLogits

LEAST_MASK_SCORE = 0.01  # detections below it get no mask: COCO's AP of masks hardly counts them, and they are most


class Detections(NamedTuple):
    """One detection per query, in the order of the queries."""

    scores: Tensor  # (B, Q) in [0, 1]
    labels: Tensor  # (B, Q) in 0..K-1
    boxes_xyxy: Tensor  # (B, Q, 4) in pixels of the original images


def postprocess(outputs: DetrOutput, sizes_hw: list[tuple[int, int]]) -> Detections:
    """Best real class and its probability for every query of the last decoder layer, boxes scaled to `sizes_hw`."""
    probability = outputs.logits[-1].float().softmax(-1)[..., :-1]  # "no object" is never an answer
    scores, labels = probability.max(-1)
    boxes_xyxy = box_convert(outputs.boxes_cxcywh[-1].float(), "cxcywh", "xyxy")
    scale = torch.tensor([[width, height, width, height] for height, width in sizes_hw], device=boxes_xyxy.device)
    return Detections(scores, labels, boxes_xyxy * scale[:, None])


def scoring_queries(outputs: DetrOutput, threshold: float = LEAST_MASK_SCORE) -> tuple[Tensor, Tensor]:
    """Choose queries for `Detr.forward` in prediction, those from a score on: (M,) images and queries, by image."""
    scores = outputs.logits[-1].float().softmax(-1)[..., :-1].amax(-1)  # (B, Q)
    return torch.nonzero(scores >= max(threshold, LEAST_MASK_SCORE), as_tuple=True)


def masks_to_rle(
    masks: MaskLogits, unpadded_hw: list[tuple[int, int]], padded_hw: tuple[int, int], sizes_hw: list[tuple[int, int]]
) -> dict[tuple[int, int], dict]:
    """Return the masks as RLE over the original images, by the numbers of image and query.

    Sizes are those of each image without its padding, of the batch, and of each original image. The logits are resized
    to the batch, as the loss does it, and to the original without the padding: never more than one at a time.
    """
    rles = {}
    for logits, image, query in zip(masks.logits, masks.image.tolist(), masks.query.tolist(), strict=True):
        valid_hw = unpadded_hw[image]
        whole = F.interpolate(logits.float()[None, None], padded_hw, mode="bilinear")
        valid = whole[..., : valid_hw[0], : valid_hw[1]]
        mask = F.interpolate(valid, sizes_hw[image], mode="bilinear")[0, 0] > 0
        encoded = coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
        rles[image, query] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    return rles


def average_boxes(detections: Detections, rles: dict[tuple[int, int], dict], weight: float) -> Detections:
    """Return the detections with boxes between the predicted ones and those around their masks.

    The box head and the mask head err independently: after little training, the mean of two estimates is far closer.
    `rles` are masks (RLE) by the numbers of image and query: the box around one has the weight `weight`, 0 to 1; where
    there is none, or an empty one, the predicted box stays.
    """
    seen = [key for key, rle in rles.items() if coco_mask.area(rle)] if weight else []
    if not seen:
        return detections
    around_xywh = torch.from_numpy(coco_mask.toBbox([rles[key] for key in seen])).to(detections.boxes_xyxy)
    image, query = torch.tensor(seen, device=around_xywh.device).T
    boxes_xyxy = detections.boxes_xyxy.clone()
    around_xyxy = box_convert(around_xywh, "xywh", "xyxy")
    boxes_xyxy[image, query] = torch.lerp(boxes_xyxy[image, query], around_xyxy, weight)
    return detections._replace(boxes_xyxy=boxes_xyxy)
