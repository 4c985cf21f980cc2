"""Matching, losses and post-processing on cases small enough to work out by hand or by an independent loop."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou

from detr.models.criterion import SetCriterion
from detr.models.matcher import HungarianMatcher, matching_cost
from detr.models.postprocess import postprocess
from detr.structures import DetrOutput, Targets


def make_targets(counts: list[int], num_classes: int, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(counts), max(counts))
    labels = torch.randint(num_classes, shape, generator=generator)
    boxes = torch.rand(*shape, 4, generator=generator) * 0.5 + 0.1
    return Targets(labels, boxes, counts, list(range(len(counts))), [(1, 1)] * len(counts))


def make_output(layers: int, batch: int, queries: int, num_classes: int, seed: int = 1) -> DetrOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, batch, queries, num_classes + 1, generator=generator, requires_grad=True)
    boxes = torch.rand(layers, batch, queries, 4, generator=generator) * 0.5 + 0.1
    return DetrOutput(logits, boxes.requires_grad_())


def test_no_objects_at_all_is_a_loss_that_stays_in_the_graph() -> None:
    output = make_output(2, 2, 4, 3)
    losses = SetCriterion(3, HungarianMatcher())(output, make_targets([0, 0], 3))
    losses.total.backward()
    assert losses.terms["loss_bbox"] == losses.terms["loss_giou"] == 0
    expected = F.cross_entropy(output.logits[1].flatten(0, 1), torch.full((8,), 3))
    torch.testing.assert_close(losses.terms["loss_ce"], expected)
    assert losses.terms["class_error"] == 100
    assert output.boxes_cxcywh.grad is not None and output.boxes_cxcywh.grad.abs().sum() == 0


def test_matching_is_the_cheapest_of_all_assignments() -> None:
    output, targets = make_output(1, 1, 5, 3), make_targets([3], 3)
    cost = matching_cost(output, targets, 1, 5, 2)[0, 0].detach()
    best = min(sum(cost[q, t] for t, q in enumerate(qs)) for qs in itertools.permutations(range(5), 3))
    match = HungarianMatcher()(output, targets)
    torch.testing.assert_close(cost[match.query, match.target].sum(), best)
    assert sorted(match.target.tolist()) == [0, 1, 2]


def test_more_objects_than_queries_matches_every_query() -> None:
    output, targets = make_output(1, 2, 3, 2), make_targets([7, 1], 2)
    match = HungarianMatcher()(output, targets)
    assert sorted(match.query[match.image == 0].tolist()) == [0, 1, 2]
    assert torch.isfinite(SetCriterion(2, HungarianMatcher())(output, targets).total)


def test_padding_of_the_targets_changes_nothing() -> None:
    output, targets = make_output(2, 2, 6, 3), make_targets([4, 1], 3)
    labels, boxes = targets.labels.clone(), targets.boxes_cxcywh.clone()
    labels[1, 1:], boxes[1, 1:] = 2, 0.9
    criterion = SetCriterion(3, HungarianMatcher())
    other = criterion(output, targets._replace(labels=labels, boxes_cxcywh=boxes))
    assert criterion(output, targets).total == other.total


def test_losses_equal_a_loop_over_images() -> None:
    """Every term of every layer, by a loop that shares nothing with the criterion but the matching."""
    num_classes, eos = 3, 0.1
    output, targets = make_output(2, 2, 6, num_classes), make_targets([4, 2], num_classes)
    losses = SetCriterion(num_classes, HungarianMatcher(), eos_coef=eos)(output, targets)
    match = HungarianMatcher()(output, targets)
    for layer, suffix in ((0, "_0"), (1, "")):
        classes = torch.full((2, 6), num_classes)
        l1 = giou = 0.0
        for at, image, query, target in zip(*(field.tolist() for field in match), strict=True):
            if at == layer:
                classes[image, query] = targets.labels[image, target]
                pair = output.boxes_cxcywh[layer, image, query][None], targets.boxes_cxcywh[image, target][None]
                l1 += F.l1_loss(*pair, reduction="sum")
                giou += 1 - generalized_box_iou(*(box_convert(b, "cxcywh", "xyxy") for b in pair))[0, 0]
        weight = torch.tensor([1.0] * num_classes + [eos])
        expected = F.cross_entropy(output.logits[layer].transpose(1, 2), classes, weight)
        torch.testing.assert_close(losses.terms[f"loss_ce{suffix}"], expected)
        torch.testing.assert_close(losses.terms[f"loss_bbox{suffix}"], l1 / 6)
        torch.testing.assert_close(losses.terms[f"loss_giou{suffix}"], giou / 6)
        counted = [(output.logits[layer, i].argmax(-1) != num_classes).sum() for i in range(2)]
        expected = np.mean([abs(int(found) - wanted) for found, wanted in zip(counted, targets.counts, strict=True)])
        assert losses.terms[f"cardinality_error{suffix}"] == pytest.approx(expected)
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    parts = [w * losses.terms[f"{name}{suffix}"] for name, w in weights.items() for suffix in ("", "_0")]
    torch.testing.assert_close(losses.total, sum(parts))


def test_without_auxiliary_losses_only_the_last_layer_learns() -> None:
    output, targets = make_output(3, 1, 4, 2), make_targets([2], 2)
    losses = SetCriterion(2, HungarianMatcher(), aux_loss=False)(output, targets)
    losses.total.backward()
    assert output.logits.grad[:2].abs().sum() == 0 and output.logits.grad[2].abs().sum() > 0
    assert not [name for name in losses.terms if name[-1].isdigit()]


def test_class_error_counts_matched_queries_only() -> None:
    targets = make_targets([2], 2)._replace(labels=torch.tensor([[0, 1]]))
    logits = torch.full((1, 1, 3, 3), -5.0)
    boxes = torch.full((1, 1, 3, 4), 0.9)
    boxes[0, 0, :2] = targets.boxes_cxcywh[0]  # query 0 and 1 sit on object 0 and 1
    logits[0, 0, 0, 0] = logits[0, 0, 1, 0] = logits[0, 0, 2, 2] = 5.0  # both say class 0: one is wrong
    losses = SetCriterion(2, HungarianMatcher())(DetrOutput(logits, boxes), targets)
    assert losses.terms["class_error"] == 50


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["logits", "boxes_cxcywh"])
def test_what_is_not_finite_reaches_the_loss_and_not_scipy(field: str, value: float) -> None:
    output = make_output(1, 1, 1, 2)
    broken = output._replace(**{field: torch.full_like(getattr(output, field), value)})
    assert not torch.isfinite(SetCriterion(2, HungarianMatcher())(broken, make_targets([1], 2)).total)


def test_the_parts_of_a_batch_add_up_to_the_whole() -> None:
    output, targets = make_output(2, 3, 6, 3), make_targets([4, 0, 7], 3)  # one image has more objects than queries
    criterion = SetCriterion(3, HungarianMatcher())
    normalizers = criterion.normalizers(targets.counts, 6)
    assert normalizers == (3, 11, 10, pytest.approx(10 + 0.1 * 8))
    parts = []
    for n in range(3):
        mine = Targets(*(field[n : n + 1] for field in targets[:-1]))
        parts.append(criterion(DetrOutput(*(field[:, n : n + 1] for field in output[:2])), mine, normalizers))
    for name, value in criterion(output, targets).terms.items():
        torch.testing.assert_close(sum(part.terms[name] for part in parts), value)


def test_weights_of_logged_terms() -> None:
    criterion = SetCriterion(2, HungarianMatcher(), bbox_loss_coef=3)
    assert criterion.weight_of("loss_bbox_11") == 3 and criterion.weight_of("loss_ce") == 1
    assert criterion.weight_of("cardinality_error_0") is None and criterion.weight_of("class_error") is None


def test_postprocess_never_answers_no_object_and_scales_to_each_image() -> None:
    logits = torch.tensor([[[[0.0, 2.0, 9.0]]], [[[0.0, 2.0, 1.0]]]]).transpose(0, 1)  # (1, 2, 1, 3)
    boxes = torch.tensor([0.5, 0.5, 0.5, 1.0]).expand(1, 2, 1, 4)
    found = postprocess(DetrOutput(logits, boxes), [(100, 200), (40, 40)])
    assert found.labels.tolist() == [[1], [1]]
    torch.testing.assert_close(found.scores, logits[0].softmax(-1)[..., 1])
    assert found.boxes_xyxy.tolist() == [[[50, 0, 150, 100]], [[10, 0, 30, 40]]]
