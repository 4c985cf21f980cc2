"""The set loss (DETR, sections 3.1 and 4.4): classes, boxes, masks and what the reference code logs beside them.

All decoder layers are computed together. Every term is a sum over images or objects divided by a normalizer that is
known from the targets alone, so that the parts of a batch that is split over accumulation steps or processes, each
divided by the normalizers of the whole, add up to the loss of the whole. (That of masks is a mean over pixels, padding
included, as in the reference: parts that are padded to another size move it a little.)

Shapes: L decoder layers, B images, Q queries, T most objects of an image, K classes, M matched pairs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, sigmoid_focal_loss

from detr.box_ops import generalized_box_iou
from detr.models.matcher import HungarianMatcher, Match
from detr.structures import DetrOutput, MaskLogits, Targets, to_device

TINY = 1e-12  # in place of a normalizer that is 0, so that 0 / 0 is 0


class Normalizers(NamedTuple):
    """What the losses are divided by. Those of a batch are the sums of those of its parts."""

    images: float
    num_boxes: float
    matched: float  # objects that get a query: all of an image, unless it has more objects than there are queries
    class_weight: float  # summed over the queries of all images


class Losses(NamedTuple):
    """The number to minimise, and what is logged. Those of the parts of a batch add up to those of the whole."""

    total: Tensor  # ()
    terms: dict[str, Tensor]  # detached, each (): the total as `loss`, then the others, unweighted, as the reference's


class MatchedQuerySelector:
    """Matches queries in the middle of `Detr.forward`, as in training only those that are matched get a mask.

    `targets` are repeated for each group of queries; `images` is B, those of the first group.
    """

    def __init__(self, criterion: "SetCriterion", targets: Targets, images: int) -> None:
        self.criterion, self.targets, self.images = criterion, targets, images
        self.match: Match | None = None  # of all layers and groups, for the loss
        self.pairs: Match | None = None  # of the last layer and the first group

    def __call__(self, outputs: DetrOutput) -> tuple[Tensor, Tensor]:
        """Match, and return (M,) images and queries."""
        supervised = self.criterion.supervised(outputs)
        self.match = self.criterion.matcher(supervised, self.targets)
        matched = [min(count, supervised.logits.shape[2]) for count in self.targets.counts]
        self.pairs = self.match.of_last_layer(matched, self.images)
        return self.pairs.image, self.pairs.query


class SetCriterion(nn.Module):
    """Hungarian set loss over all decoder layers.

    Args:
        num_classes: K; label K is "no object".
        eos_coef: weight of the "no object" class in the classification loss.
        bbox_loss_coef, giou_loss_coef: weights of the box losses; classification has weight 1.
        mask_loss_coef, dice_loss_coef: weights of the focal and the dice loss of masks, where there are any.
        aux_loss: supervise every decoder layer, not only the last (DETR, section 3.2).
    """

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        eos_coef: float = 0.1,
        bbox_loss_coef: float = 5.0,
        giou_loss_coef: float = 2.0,
        aux_loss: bool = True,
        mask_loss_coef: float = 1.0,
        dice_loss_coef: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.matcher = num_classes, matcher
        self.eos_coef, self.aux_loss = eos_coef, aux_loss
        self.weights = {"loss_ce": 1.0, "loss_bbox": bbox_loss_coef, "loss_giou": giou_loss_coef}
        self.weights |= {"loss_mask": mask_loss_coef, "loss_dice": dice_loss_coef}
        class_weights = torch.ones(num_classes + 1)
        class_weights[num_classes] = eos_coef
        self.register_buffer("class_weights", class_weights, persistent=False)

    def normalizers(self, counts: list[int], num_queries: int) -> Normalizers:
        """Return those of images with so many objects each, answered by Q queries each."""
        images, matched = len(counts), sum(min(count, num_queries) for count in counts)
        class_weight = matched + self.eos_coef * (images * num_queries - matched)
        return Normalizers(images, sum(counts), matched, class_weight)

    def supervised(self, outputs: DetrOutput) -> DetrOutput:
        """Return the outputs of the decoder layers that are supervised: all of them, or the last."""
        return outputs if self.aux_loss else DetrOutput(outputs.logits[-1:], outputs.boxes_cxcywh[-1:], outputs.masks)

    def forward(
        self,
        outputs: DetrOutput,
        targets: Targets,
        batch_normalizers: Normalizers | None = None,
        matched: MatchedQuerySelector | None = None,
    ) -> Losses:
        """Return the losses of the outputs (L, B, Q, ...) against the targets of the B images.

        `batch_normalizers` are those of the batch that these images are a part of; by default they are all of it.
        `matched` is what the network has matched already; where there are masks, the first ones are those of it.
        """
        outputs = self.supervised(outputs)
        normalizers = batch_normalizers or self.normalizers(targets.counts, outputs.logits.shape[2])
        match = matched.match if matched else self.matcher(outputs, targets)
        target_classes = self._target_classes(outputs, targets, match)
        per_layer = {
            "loss_ce": self._class_loss(outputs.logits, target_classes) / max(normalizers.class_weight, TINY),
            **self._box_losses(outputs.boxes_cxcywh, targets, match, max(normalizers.num_boxes, 1)),
        }
        if outputs.masks is not None:  # of the last layer alone
            per_layer |= self._mask_losses(outputs.masks, targets, matched.pairs, max(normalizers.num_boxes, 1))
        total = sum(self.weights[name] * values.sum() for name, values in per_layer.items())
        with torch.no_grad():
            per_layer["cardinality_error"] = self._cardinality_error(outputs.logits, targets) / normalizers.images
            terms = {"loss": total.detach(), **_name_by_layer({name: x.detach() for name, x in per_layer.items()})}
            terms["class_error"] = self._class_error(outputs.logits, target_classes, normalizers)
        return Losses(total, terms)

    def weight_of(self, term: str) -> float | None:
        """The weight of a logged term in the total, such as `loss_bbox_3`; None for terms that are only logged."""
        return self.weights.get(term.rstrip("0123456789").rstrip("_"))

    def _target_classes(self, outputs: DetrOutput, targets: Targets, match: Match) -> Tensor:
        """Return (L, B, Q): the matched object's label, K for queries without one."""
        target_classes = outputs.logits.new_full(outputs.logits.shape[:-1], self.num_classes, dtype=torch.int64)
        target_classes[match.layer, match.image, match.query] = targets.labels[match.image, match.target]
        return target_classes

    def _class_loss(self, logits: Tensor, target_classes: Tensor) -> Tensor:
        """Weighted cross-entropy, summed: (L, B, Q, K + 1), (L, B, Q) -> (L,)."""
        loss = F.cross_entropy(logits.flatten(0, 2), target_classes.flatten(), self.class_weights, reduction="none")
        return loss.unflatten(0, target_classes.shape).sum((1, 2))

    def _box_losses(self, boxes_cxcywh: Tensor, targets: Targets, match: Match, num_boxes: float) -> dict[str, Tensor]:
        """L1 and GIoU losses of the matched pairs, per object: (L, B, Q, 4) -> (L,) each."""
        predicted = boxes_cxcywh[match.layer, match.image, match.query]  # (M, 4)
        target_boxes = targets.boxes_cxcywh[match.image, match.target]
        distance = (predicted - target_boxes).abs().sum(-1)
        corners = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, target_boxes))
        giou_loss = 1 - generalized_box_iou(*corners)
        zeros = boxes_cxcywh.sum((1, 2, 3)) * 0  # keeps the heads in the graph of a batch without objects
        return {
            "loss_bbox": zeros.index_add(0, match.layer, distance) / num_boxes,
            "loss_giou": zeros.index_add(0, match.layer, giou_loss) / num_boxes,
        }

    def _mask_losses(self, masks: MaskLogits, targets: Targets, pairs: Match, num_boxes: float) -> dict[str, Tensor]:
        """Focal (Lin et al. 2017) and dice loss (Milletari et al. 2016) of the matched pairs, per object: (1,) each.

        They are computed at the resolution of the images, to which the logits are resized. With G groups of queries
        only the first has masks, but the objects of all are divided by: the masks' weight is then a G-th.
        """
        starts = to_device(torch.tensor([0, *targets.counts]).cumsum(0), pairs.image.device)
        target_masks = targets.masks[starts[pairs.image] + pairs.target].float()  # (M, H, W)
        logits = masks.logits[: len(target_masks), None]
        logits = F.interpolate(logits, size=target_masks.shape[-2:], mode="bilinear")[:, 0]
        focal = sigmoid_focal_loss(logits, target_masks).mean((1, 2))  # alpha 0.25, gamma 2
        probability = logits.sigmoid()
        overlap = 2 * (probability * target_masks).sum((1, 2)) + 1
        dice = 1 - overlap / (probability.sum((1, 2)) + target_masks.sum((1, 2)) + 1)
        return {"loss_mask": focal.sum()[None] / num_boxes, "loss_dice": dice.sum()[None] / num_boxes}

    def _cardinality_error(self, logits: Tensor, targets: Targets) -> Tensor:
        """Sum the absolute errors in the number of objects: (L, B, Q, K + 1) -> (L,). Logged, not trained on."""
        num_detected = (logits.argmax(-1) != self.num_classes).sum(-1).float()  # (L, B)
        num_targets = to_device(torch.tensor(targets.counts, dtype=torch.float32), logits.device)
        return (num_detected - num_targets).abs().sum(-1)

    def _class_error(self, logits: Tensor, target_classes: Tensor, normalizers: Normalizers) -> Tensor:
        """Percentage of matched queries of the last layer that name another class, (); 100 where nothing is matched."""
        if not normalizers.matched:
            return logits.new_full((), 100 * logits.shape[1] / normalizers.images)
        last = target_classes[-1]
        wrong = (last != self.num_classes) & (logits[-1].argmax(-1) != last)
        return 100 * wrong.sum() / normalizers.matched


def _name_by_layer(per_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """{name: (L,) or (1,)} -> {name: last, name_0: first, ...}, as the reference's log calls them."""
    terms = {name: values[-1] for name, values in per_layer.items()}
    for layer in range(max(map(len, per_layer.values())) - 1):
        terms |= {f"{name}_{layer}": values[layer] for name, values in per_layer.items() if len(values) > 1}
    return terms
