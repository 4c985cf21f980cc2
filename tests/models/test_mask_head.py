"""Masks against `transformers`' DetrForSegmentation with the same weights, and what only our head does."""

import pytest
import torch
from torch import Tensor

from detr.models.criterion import MatchedQueries, SetCriterion
from detr.models.detr import DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.structures import Batch, DetrOutput
from tests.models.test_parity import default_dtype, make_batch
from tests.peer import make_model, make_peer, peer_labels, to_peer_mask_state

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


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_losses_and_gradients_equal_the_peer(name: str) -> None:
    with default_dtype(torch.float64):
        detr = make_model(CONFIGS[name]).eval()
        batch = with_masks(make_batch(detr.config.num_classes))
        criterion = SetCriterion(detr.config.num_classes, HungarianMatcher(), aux_loss=False)
        peer = make_peer(detr).eval()
        theirs, terms = peer_masks(peer, batch)
        with torch.no_grad():
            ours = detr(batch.images, batch.padding_mask, every_query)
        matched = MatchedQueries(criterion, batch.targets, images=2)
        losses = criterion(detr(batch.images, batch.padding_mask, matched), batch.targets, matched=matched)
    torch.testing.assert_close(ours.masks.logits, theirs.flatten(0, 1), atol=1e-4, rtol=0)
    losses.total.backward()
    terms["total"].backward()
    torch.testing.assert_close(losses.total, terms.pop("total"), atol=0, rtol=1e-4)
    for term, value in terms.items():
        torch.testing.assert_close(losses.terms[term], value, atol=1e-6, rtol=1e-4, check_dtype=False)
    expected = {key: p.grad for key, p in peer.named_parameters() if p.grad is not None}
    found = to_peer_mask_state({key: p.grad for key, p in detr.named_parameters() if p.grad is not None})
    assert found.keys() == expected.keys()
    whole = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() < 1e-3 * gradient.norm().clamp(min=1e-6 * whole), key
