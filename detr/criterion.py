"""The set loss (DETR, section 3.1, equation 2): classes, boxes and what the reference code logs beside them.

All decoder layers are computed together; the normalisers are known from the targets alone, so that a batch split
over processes or accumulation steps gives the same number as the whole batch.

Shapes: L decoder layers, B images, Q queries, T objects of the fullest image, K classes, M matched pairs.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.boxes import cxcywh_to_xyxy, generalized_iou
from detr.matcher import HungarianMatcher, Match
from detr.structures import DetrOutput, Targets


class Losses(NamedTuple):
    """The number to minimise and the terms behind it."""

    total: Tensor  # ()
    terms: dict[str, Tensor]  # unweighted and detached, each (); named as in the reference's log


class SetCriterion(nn.Module):
    """Hungarian set loss over all decoder layers.

    Args:
        num_classes: K; label K is "no object".
        matcher: pairs predictions with objects.
        eos_coef: weight of the "no object" class in the classification loss.
        bbox_loss_coef, giou_loss_coef: weights of the box losses; classification has weight 1.
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
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.eos_coef = eos_coef
        self.weights = {"loss_ce": 1.0, "loss_bbox": bbox_loss_coef, "loss_giou": giou_loss_coef}
        self.aux_loss = aux_loss
        class_weights = torch.ones(num_classes + 1)
        class_weights[num_classes] = eos_coef
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, outputs: DetrOutput, targets: Targets) -> Losses:
        """Loss of the outputs (L, B, Q, ...) against the targets of the B images, in float32.

        Raises FloatingPointError, naming the quantity, when the outputs or a loss are not finite.
        """
        outputs = outputs.in_full_precision()
        if not self.aux_loss:
            outputs = DetrOutput(outputs.logits[-1:], outputs.boxes_cxcywh[-1:])
        match = self.matcher(outputs, targets)
        target_classes = self._target_classes(outputs, targets, match)
        per_layer = {
            "loss_ce": self._class_loss(outputs.logits, target_classes),
            **self._box_losses(outputs.boxes_cxcywh, targets, match),
        }
        total = sum(self.weights[name] * values.sum() for name, values in per_layer.items())
        with torch.no_grad():
            per_layer["cardinality_error"] = self._cardinality_error(outputs.logits, targets)
            terms = _name_by_layer({name: values.detach() for name, values in per_layer.items()})
            terms["class_error"] = _class_error(outputs.logits, target_classes, self.num_classes)
        return Losses(total, terms)

    def weight_of(self, term: str) -> float | None:
        """The weight of a logged term in the total, such as `loss_bbox_3`; None for terms that are only logged."""
        return self.weights.get(term.rstrip("0123456789").rstrip("_"))

    def _target_classes(self, outputs: DetrOutput, targets: Targets, match: Match) -> Tensor:
        """(L, B, Q): the matched object's label, K for queries without one."""
        target_classes = torch.full(
            outputs.logits.shape[:-1], self.num_classes, dtype=torch.int64, device=outputs.logits.device
        )
        target_classes[match.layer, match.image, match.query] = targets.labels[match.image, match.target]
        return target_classes

    def _class_loss(self, logits: Tensor, target_classes: Tensor) -> Tensor:
        """Weighted cross-entropy, averaged by weight: (L, B, Q, K + 1), (L, B, Q) -> (L,)."""
        loss = F.cross_entropy(logits.flatten(0, 2), target_classes.flatten(), self.class_weights, reduction="none")
        weight = self.class_weights[target_classes]
        return loss.unflatten(0, target_classes.shape).sum((1, 2)) / weight.sum((1, 2))

    def _box_losses(self, boxes_cxcywh: Tensor, targets: Targets, match: Match) -> dict[str, Tensor]:
        """L1 and GIoU losses of the matched pairs, per object of the batch: (L, B, Q, 4) -> (L,) each."""
        predicted = boxes_cxcywh[match.layer, match.image, match.query]  # (M, 4)
        wanted = targets.boxes_cxcywh[match.image, match.target]
        distance = (predicted - wanted).abs().sum(-1)
        giou_loss = 1 - generalized_iou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
        num_boxes = max(1, sum(targets.counts))
        zeros = boxes_cxcywh.sum((1, 2, 3)) * 0  # keeps the heads in the graph of a batch without objects
        return {
            "loss_bbox": zeros.index_add(0, match.layer, distance) / num_boxes,
            "loss_giou": zeros.index_add(0, match.layer, giou_loss) / num_boxes,
        }

    def _cardinality_error(self, logits: Tensor, targets: Targets) -> Tensor:
        """Mean absolute error in the number of objects found: (L, B, Q, K + 1) -> (L,). Logged, not trained on."""
        found = (logits.argmax(-1) != self.num_classes).sum(-1).float()  # (L, B)
        wanted = torch.tensor(targets.counts, dtype=torch.float32, device=logits.device)
        return (found - wanted).abs().mean(-1)


def _class_error(logits: Tensor, target_classes: Tensor, no_object: int) -> Tensor:
    """Percentage of matched queries of the last layer that name another class; 100 where nothing is matched."""
    predicted, wanted = logits[-1].argmax(-1), target_classes[-1]
    matched = wanted != no_object
    correct = (matched & (predicted == wanted)).sum()
    return 100 - 100 * correct / matched.sum().clamp(min=1)


def _name_by_layer(per_layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """{name: (L,)} -> {name: last, name_0: first, ...}, as the reference's log calls them."""
    terms = {name: values[-1] for name, values in per_layer.items()}
    for layer in range(len(next(iter(per_layer.values()))) - 1):
        terms |= {f"{name}_{layer}": values[layer] for name, values in per_layer.items()}
    return terms
