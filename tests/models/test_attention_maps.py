"""What is shown as attention is what the layers attend to, and looking changes nothing."""

import pytest
import torch
from torch import nn

from detr.models.attention import MultiheadAttention
from detr.models.attention_maps import MOST_CELLS, attention_maps
from detr.models.detr import Detr, DetrConfig

TINY = {
    "num_classes": 2, "backbone": "resnet18", "batch_norm": "train", "hidden_dim": 16, "nheads": 4, "enc_layers": 2,
    "dec_layers": 2, "dim_feedforward": 16, "num_queries": 5,
}  # fmt: skip


def network(**changes: object) -> Detr:
    torch.manual_seed(0)
    return Detr(DetrConfig(**TINY | changes)).eval()


def image_of(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 3, height, width), torch.zeros(1, height, width, dtype=torch.bool)


@pytest.mark.parametrize("padded", [False, True])
def test_weights_are_those_of_pytorchs_own_attention(padded: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(16, 4, 0.0), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, key = torch.randn(2, 3, 16), torch.randn(2, 7, 16)
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[1, 4:] = padded
    out, weights = theirs(query, key, key, key_padding_mask=mask)
    torch.testing.assert_close(ours.weights(query, key, mask), weights)
    torch.testing.assert_close(ours(query, key, key, mask), out)


@torch.inference_mode()
def test_every_token_that_fits_is_shown_as_it_is() -> None:
    """From the inputs of the layers by an explicit softmax, head by head."""
    model = network()
    image, mask = image_of(64, 96)
    seen: dict[str, tuple] = {}
    encoder, decoder = model.transformer.encoder.layers[-1], model.transformer.decoder.layers[-1]
    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given}))
        for name, layer in (("points", encoder.self_attn), ("queries", decoder.multihead_attn))
    ]
    plain = model(image, mask)
    for handle in handles:
        handle.remove()
    outputs, cross, points = attention_maps(model, image, mask)
    assert torch.equal(outputs.logits, plain.logits) and torch.equal(outputs.boxes_cxcywh, plain.boxes_cxcywh)
    assert cross.shape == (5, 2, 3) and points.shape == (2, 3, 2, 3)
    for name, layer, maps in (("points", encoder.self_attn, points), ("queries", decoder.multihead_attn, cross)):
        rows = zip(seen[name], layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=False)
        query, key, _ = (x[0] @ weight.T + bias for x, weight, bias in rows)
        heads = [(query[:, i : i + 4] @ key[:, i : i + 4].T / 2).softmax(-1) for i in range(0, 16, 4)]
        torch.testing.assert_close(maps.flatten(-2).reshape(-1, 6), sum(heads) / 4)


@torch.inference_mode()
def test_large_maps_are_pooled() -> None:
    model = network(stride=16)
    _, cross, points = attention_maps(model, *image_of(128, 400))
    assert cross.shape == (5, 4, MOST_CELLS) and points.shape == (4, MOST_CELLS, 4, MOST_CELLS)
    torch.testing.assert_close(cross.sum((1, 2)), torch.ones(5))
    torch.testing.assert_close(points.sum((2, 3)), torch.ones(4, MOST_CELLS))
    assert attention_maps(model, *image_of(4000, 16))[1].shape == (5, MOST_CELLS, 1)


@torch.inference_mode()
def test_nothing_is_left_behind_and_no_encoder_is_needed() -> None:
    model = network(enc_layers=0)
    _, cross, points = attention_maps(model, *image_of(64, 64))
    assert points is None and cross.shape == (5, 2, 2)
    assert not any(module._forward_pre_hooks for module in model.modules())
