"""Masks against `transformers`' DetrForSegmentation with the same weights, and what only our head does."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from detr.models.criterion import MatchedQuerySelector, SetCriterion
from detr.models.detr import Detr, DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.models.postprocess import Detections, average_boxes, masks_to_rle
from detr.structures import Batch, DetrOutput, MaskLogits
from tests.models.test_parity import default_dtype, make_batch
from tests.peer import make_model, make_peer, peer_labels, to_peer_state
from utils import UserError

SMALL = {"hidden_dim": 64, "enc_layers": 1, "dec_layers": 2, "num_queries": 7, "dim_feedforward": 48, "masks": True}
CONFIGS = {
    "small": DetrConfig(3, backbone="resnet18", **SMALL),
    "dc5": DetrConfig(3, backbone="resnet50", dilation=True, **SMALL),
    "r50": DetrConfig(91, masks=True),
}


def with_masks(batch: Batch) -> Batch:
    """The batch with random masks of its objects."""
    shape = (sum(batch.targets.counts), *batch.padding_mask.shape[1:])
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.3
    return batch._replace(targets=batch.targets._replace(masks=masks))


def every_query(outputs: DetrOutput) -> tuple[Tensor, Tensor]:
    """Choose all queries of all images."""
    _, images, queries, _ = outputs.logits.shape
    return torch.arange(images).repeat_interleave(queries), torch.arange(queries).repeat(images)


def peer_masks(peer: torch.nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The peer's mask logits (B, Q, H/4, W/4), and its losses of classes, boxes and masks in the last layer."""
    masks = list(torch.split(batch.targets.masks, batch.targets.counts))
    labels = [one | {"masks": own} for one, own in zip(peer_labels(batch.targets), masks, strict=True)]
    peer.config.auxiliary_loss = peer.detr.config.auxiliary_loss = False
    output = peer(batch.images, pixel_mask=~batch.padding_mask, labels=labels)
    return output.pred_masks, {"total": output.loss, **output.loss_dict}


@pytest.mark.parametrize("name", ["small", "dc5", pytest.param("r50", marks=pytest.mark.long)])
def test_masks_losses_and_gradients_equal_the_peer(name: str) -> None:
    with default_dtype(torch.float64):
        detr = make_model(CONFIGS[name]).eval()
        batch = with_masks(make_batch(detr.config.num_classes))
        criterion = SetCriterion(detr.config.num_classes, HungarianMatcher(), aux_loss=False)
        peer = make_peer(detr).eval()
        theirs, terms = peer_masks(peer, batch)
        with torch.no_grad():
            ours = detr(batch.images, batch.padding_mask, every_query)
        matched = MatchedQuerySelector(criterion, batch.targets, images=2)
        losses = criterion(detr(batch.images, batch.padding_mask, matched), batch.targets, matched=matched)
    torch.testing.assert_close(ours.masks.logits, theirs.flatten(0, 1), atol=1e-4, rtol=0)
    losses.total.backward()
    terms["total"].backward()
    torch.testing.assert_close(losses.total, terms.pop("total"), atol=0, rtol=1e-4)
    for term, value in terms.items():
        torch.testing.assert_close(losses.terms[term], value, atol=1e-6, rtol=1e-4, check_dtype=False)
    expected = {key: p.grad for key, p in peer.named_parameters() if p.grad is not None}
    found = to_peer_state({key: p.grad for key, p in detr.named_parameters() if p.grad is not None})
    assert found.keys() == expected.keys()
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() < 1e-3 * gradient.norm().clamp(min=1e-6 * whole), key


def test_only_the_chosen_queries_are_computed_and_one_at_a_time_is_the_same() -> None:
    detr = make_model(CONFIGS["small"]).eval()
    batch = make_batch(3)
    heads: list[int] = []
    detr.mask_head.register_forward_hook(lambda module, inputs, output: heads.append(len(output)))

    def choose(outputs: DetrOutput) -> tuple[Tensor, Tensor]:
        return torch.tensor([0, 1, 1]), torch.tensor([4, 0, 6])

    with torch.no_grad():
        every = detr(batch.images, batch.padding_mask, every_query).masks
        assert sum(heads) == 14
        chosen = detr(batch.images, batch.padding_mask, choose).masks
        assert sum(heads) == 14 + 3
    torch.testing.assert_close(chosen.logits, every.logits[[4, 7, 13]])
    assert detr(batch.images, batch.padding_mask).masks is None


def test_memory_is_bounded_by_a_part_of_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    detr, batch = make_model(CONFIGS["small"]).eval(), make_batch(3)
    with torch.no_grad():
        at_once = detr(batch.images, batch.padding_mask, every_query).masks.logits
        monkeypatch.setattr("detr.models.mask_head._PAIRS_AT_ONCE", 3)
        heads: list[int] = []
        detr.mask_head.register_forward_hook(lambda module, inputs, output: heads.append(len(output)))
        torch.testing.assert_close(detr(batch.images, batch.padding_mask, every_query).masks.logits, at_once)
    assert heads == [3, 3, 3, 3, 2]


def test_a_batch_without_objects_has_a_loss_of_nothing_and_all_gradients() -> None:
    """DistributedDataParallel waits for the gradient of every parameter, whatever the images show."""
    detr = make_model(CONFIGS["small"]).train()
    batch = with_masks(make_batch(3))
    nothing = batch.targets._replace(counts=[0, 0], masks=batch.targets.masks[:0])
    criterion = SetCriterion(3, HungarianMatcher())
    matched = MatchedQuerySelector(criterion, nothing, images=2)
    losses = criterion(detr(batch.images, batch.padding_mask, matched), nothing, matched=matched)
    losses.total.backward()
    assert losses.terms["loss_mask"] == losses.terms["loss_dice"] == 0
    without = [name for name, p in detr.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_groups_of_queries_leave_masks_to_the_first() -> None:
    detr = make_model(CONFIGS["small"])
    detr.add_query_groups(3, spread=0.1)
    batch = with_masks(make_batch(3))
    criterion, targets = SetCriterion(3, HungarianMatcher()), batch.targets.repeated(3)
    matched = MatchedQuerySelector(criterion, targets, images=2)
    outputs = detr.train()(batch.images, batch.padding_mask, matched)
    assert len(outputs.masks.logits) == sum(batch.targets.counts) and outputs.masks.image.max() < 2
    alone = criterion.matcher(DetrOutput(outputs.logits[-1:, :2], outputs.boxes_cxcywh[-1:, :2]), batch.targets)
    assert torch.equal(matched.pairs.query, alone.query) and torch.equal(matched.pairs.target, alone.target)
    assert torch.isfinite(criterion(outputs, targets, matched=matched).total)


def test_frozen_weights_train_the_mask_head_alone() -> None:
    detr = Detr(CONFIGS["small"])
    detr.freeze_detector()
    trained = {name.split(".")[0] for name, p in detr.named_parameters() if p.requires_grad}
    assert trained == {"bbox_attention", "mask_head"}
    detr.train()
    assert detr.mask_head.training and not detr.transformer.training and not detr.backbone[0].training


@pytest.mark.parametrize(("dim", "heads"), [(48, 8), (96, 8), (32, 4), (64, 1)])
def test_widths_that_do_not_divide_are_refused(dim: int, heads: int) -> None:
    with pytest.raises(UserError, match=f"hidden_dim {dim} with {heads} heads"):
        DetrConfig(1, hidden_dim=dim, nheads=heads, masks=True)


def test_masks_come_back_at_the_size_of_the_original() -> None:
    """A disc of the padded image, in one that was twice as large."""
    y, x = torch.meshgrid(torch.arange(24), torch.arange(40), indexing="ij")
    disc = 10.0 - ((y - 8) ** 2 + (x - 12) ** 2) / 4.9  # around (50, 34) of the 160x96 pixels
    masks = MaskLogits(torch.stack((disc, -torch.ones_like(disc))), torch.tensor([0, 0]), torch.tensor([3, 5]))
    runs = masks_to_rle(masks, [(64, 128)], (96, 160), [(128, 256)])
    assert runs.keys() == {(0, 3), (0, 5)} and coco_mask.area(runs[0, 5]) == 0
    found = coco_mask.decode(runs[0, 3]).astype(bool)
    rows, columns = np.mgrid[:128, :256] + 0.5
    expected = (rows / 2 - 34) ** 2 + (columns / 2 - 50) ** 2 <= 49 * 16
    assert found.shape == (128, 256) and (found & expected).sum() / (found | expected).sum() > 0.97


def test_boxes_are_between_the_predicted_ones_and_those_around_the_masks() -> None:
    boxes_xyxy = torch.tensor([[[0.0, 0, 8, 8], [2, 2, 6, 6]], [[0, 0, 8, 8], [1, 1, 3, 3]]])
    found = Detections(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.int64), boxes_xyxy)
    assert average_boxes(found, {}, 0.5) is found
    mask = np.zeros((10, 10), np.uint8, order="F")
    nothing = coco_mask.encode(mask)
    mask[4:8, 2:10] = 1
    runs = {(0, 1): coco_mask.encode(mask), (1, 0): nothing}
    assert average_boxes(found, runs, 0.0) is found
    half = average_boxes(found, runs, 0.5)
    assert half.boxes_xyxy.tolist() == [[[0, 0, 8, 8], [2, 3, 8, 7]], [[0, 0, 8, 8], [1, 1, 3, 3]]]
    assert average_boxes(found, runs, 1.0).boxes_xyxy[0, 1].tolist() == [2, 4, 10, 8]
    assert boxes_xyxy[0, 1].tolist() == [2, 2, 6, 6] and half.scores is found.scores
    with pytest.raises(UserError, match="mask_box_weight must be in"):
        DetrConfig(1, mask_box_weight=1.5)
