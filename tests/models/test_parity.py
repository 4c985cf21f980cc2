"""Our DETR against `transformers`' with the same random weights: outputs, matching, losses and gradients."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detr.models.criterion import SetCriterion
from detr.models.detr import Detr, DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.structures import Batch, DetrOutput, Targets
from tests.peer import make_model, make_peer, peer_labels, run_peer, to_peer_state

CONFIGS = {
    "tiny": DetrConfig(3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=2, dec_layers=3, num_queries=7,
                       dim_feedforward=48),
    "tiny-learned": DetrConfig(3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2,
                               num_queries=9, dim_feedforward=48, position_embedding="learned"),
    "r50": DetrConfig(91),
    "r50-dc5": DetrConfig(91, dilation=True),
}  # fmt: skip


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Everything that is made inside has this floating point type."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def make_batch(num_classes: int, padded: bool = True, seed: int = 1) -> Batch:
    """Two images of different size, so that there is padding on both axes; three objects and one."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(2, 3, 96, 160)
    padding_mask = torch.ones(2, 96, 160, dtype=torch.bool)
    sizes_hw = [(96, 128), (64, 160)] if padded else [(96, 160)] * 2
    for row, (height, width) in enumerate(sizes_hw):
        images[row, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        padding_mask[row, :height, :width] = False
    boxes = torch.rand(2, 3, 4, generator=generator) * 0.4 + 0.1
    labels = torch.randint(num_classes, (2, 3), generator=generator)
    return Batch(images, padding_mask, Targets(labels, boxes, [3, 1], [1, 2], sizes_hw))


def relative_gradient_errors(detr: Detr, peer: torch.nn.Module) -> tuple[dict[str, float], float]:
    """Relative error of each parameter's gradient, and of all of them as one vector."""
    theirs = {key: p.grad for key, p in peer.named_parameters() if p.grad is not None}
    ours = to_peer_state({key: p.grad for key, p in detr.named_parameters() if p.grad is not None})
    assert ours.keys() == theirs.keys()
    whole = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    differences = {key: (ours[key] - theirs[key]).norm() for key in theirs}
    # Attention does not depend on a shift of all keys: such gradients are rounding noise, nothing to compare.
    errors = {key: float(d / theirs[key].norm().clamp(min=1e-6 * whole)) for key, d in differences.items()}
    return errors, float(torch.stack(list(differences.values())).norm() / whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_losses_and_gradients_equal_the_peer(name: str, dtype: torch.dtype) -> None:
    """float32 is what the product computes; in float64 no ReLU flips by rounding, so that each gradient can be held."""
    with default_dtype(dtype):
        detr = make_model(CONFIGS[name]).eval()
        batch = make_batch(detr.config.num_classes)
        peer = make_peer(detr).eval()
        peer_output, peer_loss, peer_terms = run_peer(peer, batch)
        output = detr(batch.images, batch.padding_mask)
        losses = SetCriterion(detr.config.num_classes, HungarianMatcher())(output, batch.targets)
    assert output.logits.dtype == dtype
    torch.testing.assert_close(output.logits, peer_output.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(output.boxes_cxcywh, peer_output.boxes_cxcywh, atol=1e-4, rtol=0)
    torch.testing.assert_close(losses.total, peer_loss, atol=0, rtol=1e-4)
    assert peer_terms.keys() == losses.terms.keys() - {"loss", "class_error"}
    for term, value in peer_terms.items():
        torch.testing.assert_close(losses.terms[term], value, atol=1e-6, rtol=1e-4, check_dtype=False)

    losses.total.backward()
    peer_loss.backward()
    errors, error_of_all = relative_gradient_errors(detr, peer)
    assert error_of_all < 1e-3
    if dtype == torch.float64:
        assert max(errors.values()) < 1e-3, max(errors, key=errors.get)


def test_matching_equals_the_peer_image_by_image() -> None:
    from transformers.loss.loss_for_object_detection import HungarianMatcher as PeerMatcher

    generator = torch.Generator().manual_seed(2)
    logits, boxes = torch.randn(3, 2, 20, 5, generator=generator), torch.rand(3, 2, 20, 4, generator=generator)
    targets = make_batch(4).targets
    match = HungarianMatcher()(DetrOutput(logits, boxes), targets)
    peer_matcher = PeerMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    for layer in range(3):
        theirs = peer_matcher({"logits": logits[layer], "pred_boxes": boxes[layer]}, peer_labels(targets))
        for image, (query, target) in enumerate(theirs):
            mine = (match.layer == layer) & (match.image == image)
            assert match.query[mine].tolist() == query.tolist()
            assert match.target[mine].tolist() == target.tolist()


@pytest.mark.parametrize(("num_classes", "parameters"), [(91, 41_302_368), (1, 41_279_238)])
def test_trainable_parameters_of_detr_r50(num_classes: int, parameters: int) -> None:
    assert Detr(DetrConfig(num_classes)).count_trainable() == parameters


def test_scipy_is_called_on_the_cost_the_paper_writes() -> None:
    """Equation 1 by double loop: minus probability, L1, minus GIoU (torchvision's)."""
    from torchvision.ops import box_convert, generalized_box_iou

    generator = torch.Generator().manual_seed(3)
    logits, boxes = torch.randn(1, 1, 6, 4, generator=generator), torch.rand(1, 1, 6, 4, generator=generator)
    labels, wanted = torch.tensor([[2, 0]]), torch.rand(1, 2, 4, generator=generator)
    cost = torch.empty(6, 2)
    for q in range(6):
        for t in range(2):
            corners = [box_convert(b[None], "cxcywh", "xyxy") for b in (boxes[0, 0, q], wanted[0, t])]
            cost[q, t] = (
                -logits[0, 0, q].softmax(0)[labels[0, t]]
                + 5 * (boxes[0, 0, q] - wanted[0, t]).abs().sum()
                - 2 * generalized_box_iou(*corners)[0, 0]
            )
    match = HungarianMatcher(1, 5, 2)(DetrOutput(logits, boxes), Targets(labels, wanted, [2], [1], [(1, 1)]))
    query, target = linear_sum_assignment(cost.numpy())
    assert match.query.tolist() == query.tolist() and match.target.tolist() == target.tolist()
