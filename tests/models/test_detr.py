"""Attention and positions: the parts that parity with the peer cannot isolate."""

import pytest
import torch
from torch import nn

from detr.models.attention import MultiheadAttention
from detr.models.detr import Detr, DetrConfig
from detr.models.position_encoding import LearnedPositionEmbedding, SinePositionEmbedding
from utils import UserError

SMALL = {"backbone": "resnet18", "hidden_dim": 32, "nheads": 4, "enc_layers": 1, "dec_layers": 2, "num_queries": 5}


def test_constructors_never_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a constructor went to the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    Detr(DetrConfig(1, **SMALL))


def test_attention_equals_torch_with_the_same_weights_and_mask() -> None:
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(32, 4, dropout=0.0), nn.MultiheadAttention(32, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    query, key, value = torch.randn(2, 3, 32), torch.randn(2, 6, 32), torch.randn(2, 6, 32)
    padding_mask = torch.tensor([[False] * 6, [False, False, True, False, True, True]])
    expected, _ = theirs(query, key, value, key_padding_mask=padding_mask)
    torch.testing.assert_close(ours(query, key, value, padding_mask), expected)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_attention_never_sees_padding(pre_norm: bool) -> None:
    """Tokens under the padding may hold anything: the queries' outputs do not change."""
    torch.manual_seed(0)
    detr = Detr(DetrConfig(2, **SMALL, pre_norm=pre_norm)).eval()
    features, queries = torch.randn(1, 32, 4, 6), detr.query_embed.weight[None]
    padding_mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    padding_mask[:, 3:], padding_mask[:, :, 4:] = True, True
    positions = detr.backbone[1](padding_mask)
    changed = torch.where(padding_mask[:, None], 100 * torch.randn_like(features), features)
    first, second = (detr.transformer(x, positions, padding_mask, queries)[0] for x in (features, changed))
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, detr.transformer(features + 1, positions, padding_mask, queries)[0])


@pytest.mark.parametrize("kind", [SinePositionEmbedding, LearnedPositionEmbedding])
def test_positions_tell_every_cell_apart(kind: type[nn.Module]) -> None:
    positions = kind(32)(torch.zeros(1, 7, 5, dtype=torch.bool))
    assert positions.shape == (1, 32, 7, 5)
    cells = positions.flatten(2)[0].T
    assert (torch.cdist(cells, cells) + torch.eye(35)).min() > 1e-3


def test_sine_positions_are_relative_to_the_image_without_its_padding() -> None:
    alone = SinePositionEmbedding(32)(torch.zeros(1, 4, 6, dtype=torch.bool))
    mask = torch.ones(1, 8, 9, dtype=torch.bool)
    mask[:, :4, :6] = False
    torch.testing.assert_close(SinePositionEmbedding(32)(mask)[:, :, :4, :6], alone)


def test_learned_positions_refuse_a_map_that_is_too_large() -> None:
    with pytest.raises(UserError, match=r"50 rows and columns.* 3x51; .*neither --dilation nor --stride 16"):
        LearnedPositionEmbedding(32)(torch.zeros(1, 3, 51, dtype=torch.bool))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"num_classes": 0}, "num_classes"), ({"hidden_dim": 30}, "multiple"), ({"dropout": 1.0}, "dropout"),
     ({"position_embedding": "none"}, "sine, learned"), ({"enc_layers": -1}, "enc_layers"),
     ({"stride": 8}, "stride must be one of 32, 16, got 8"),
     ({"stride": 16, "dilation": True}, "the second leaves that stage out")],
)  # fmt: skip
def test_configurations_that_no_detr_can_have(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DetrConfig(**({"num_classes": 1} | wrong))


def test_boxes_are_in_full_precision_where_the_network_is_not() -> None:
    """In bfloat16 they would lie on a grid: 3 pixels apart in the middle of a large photograph."""
    torch.manual_seed(0)
    detr = Detr(DetrConfig(3, **SMALL)).eval()
    images, padding_mask = torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits, boxes_cxcywh, _ = detr(images, padding_mask)
    assert logits.dtype == boxes_cxcywh.dtype == torch.float32
    assert not torch.equal(boxes_cxcywh, boxes_cxcywh.bfloat16().float())
