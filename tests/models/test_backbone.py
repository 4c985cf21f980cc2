"""Backbones against torchvision's own networks, cut at the same place: outputs, gradients, statistics, freezing."""

import itertools

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detr.models.backbone import BACKBONES, BATCH_NORMS, STRIDES, Backbone, FrozenBatchNorm2d, conv_norm
from detr.models.detr import Detr, DetrConfig
from utils import UserError

# Torchvision's modules in the order in which it runs them, counted by hand: name, stride -> how many, channels.
RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
CUTS = {
    ("resnet18", 32): (8, 512), ("resnet18", 16): (7, 256),
    ("resnet50", 32): (8, 2048), ("resnet50", 16): (7, 1024),
    ("resnext50_32x4d", 32): (8, 2048),
    ("mobilenet_v3_small", 32): (13, 576), ("mobilenet_v3_small", 16): (9, 48),
    ("mobilenet_v3_large", 32): (17, 960), ("mobilenet_v3_large", 16): (13, 112),
    ("mobilenet_v2", 32): (19, 1280), ("mobilenet_v2", 16): (14, 96),
}  # fmt: skip


def randomise(norm: nn.Module) -> None:
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)


def torchvision_network(name: str, stride: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Torchvision's layers down to the stride, float64, random statistics; and their weights as its files name them."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
            module.weight.data *= 0.3
    parts = list(network.features) if "mobilenet" in name else [getattr(network, part) for part in RESNET_PARTS]
    count = CUTS[name, stride][0]
    left_out = {id(parameter) for part in parts[count:] for parameter in part.state_dict(keep_vars=True).values()}
    state = {
        key: value
        for key, value in network.state_dict(keep_vars=True).items()
        if id(value) not in left_out and not key.startswith(("fc.", "classifier.")) and "num_batches" not in key
    }
    return nn.Sequential(*parts[:count]), state


def test_folding_equals_convolution_then_norm_and_gradients_reach_the_weights() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False), FrozenBatchNorm2d(8, eps=0.1)
    randomise(norm)
    live = nn.BatchNorm2d(8, eps=0.1).eval()
    live.load_state_dict(norm.state_dict(), strict=False)
    x, conv, norm, live = torch.randn(2, 6, 9, 7).double(), conv.double(), norm.double(), live.double()
    folded, apart = conv_norm(x, conv, norm), norm(conv(x))
    torch.testing.assert_close(folded, apart)
    torch.testing.assert_close(folded, live(conv(x)))
    (gradient,), (expected,) = (torch.autograd.grad(y.square().sum(), conv.weight) for y in (folded, apart))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize(("name", "stride"), CUTS)
def test_backbone_equals_torchvision_with_its_own_weights(name: str, stride: int, batch_norm: str) -> None:
    expected, state = torchvision_network(name, stride)
    backbone = Backbone(name, stride=stride, batch_norm=batch_norm).double().eval()
    backbone.body.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, 66, 95, dtype=torch.float64)
    *maps, out = backbone(images)
    shapes = [(1, backbone.map_channels[n], -(-66 // step), -(-95 // step)) for n, step in enumerate((4, 8, 16))]
    assert [one.shape for one in maps] == shapes
    assert stride == 32 or torch.equal(maps[-1], out)
    assert out.shape == (1, CUTS[name, stride][1], -(-66 // stride), -(-95 // stride))
    assert backbone.channels == out.shape[1]
    assert expected(images).std() > 0.1
    torch.testing.assert_close(out, expected(images))  # 1e-7: an epsilon of 1e-5 instead of 1e-3 is far outside


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small"])
def test_gradients_equal_torchvisions(name: str, batch_norm: str) -> None:
    expected, state = torchvision_network(name, 16)
    backbone = Backbone(name, stride=16, batch_norm=batch_norm).double().eval()
    backbone.body.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    backbone(images)[-1].square().sum().backward()
    expected(images).square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in backbone.body.named_parameters() if parameter.requires_grad}
    assert len(gradients) >= 10
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, state[key].grad)


def test_live_statistics_move_like_torchvisions() -> None:
    expected, state = torchvision_network("mobilenet_v3_small", 16)
    backbone = Backbone("mobilenet_v3_small", stride=16, batch_norm="train").double()
    backbone.body.load_state_dict(state)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(backbone.train()(images)[-1], expected.train()(images))
    for key, value in backbone.body.state_dict().items():
        torch.testing.assert_close(value, state[key])


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_sixteen_bits_go_through_forward_and_backward(name: str, batch_norm: str) -> None:
    torch.manual_seed(0)
    backbone, images = Backbone(name, stride=16, batch_norm=batch_norm), torch.randn(2, 3, 96, 96)
    exact = backbone(images)[-1]
    with torch.autocast("cpu", torch.bfloat16):
        out = backbone(images)[-1]
    assert out.dtype == torch.bfloat16
    assert (out - exact).norm() < 0.1 * exact.norm()
    out.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_depthwise_convolutions_of_16_bits_are_computed_in_float32(batch_norm: str) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False), BATCH_NORMS[batch_norm](8)
    x, towards = torch.randn(2, 8, 12, 12).bfloat16().requires_grad_(), torch.randn(2, 8, 6, 6).bfloat16()
    exact = conv_norm(x.float(), conv, norm)
    expected = torch.autograd.grad(exact, (x, conv.weight), towards.float())
    with torch.autocast("cpu", torch.bfloat16):
        out = conv_norm(x, conv, norm)
    assert torch.equal(out, exact.bfloat16())
    for gradient, expectation in zip(torch.autograd.grad(out, (x, conv.weight), towards), expected, strict=True):
        assert torch.equal(gradient, expectation)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("resnet18", ("conv1.", "layer1.")),
        ("mobilenet_v2", ("features.0.", "features.1.", "features.2.", "features.3.")),
        ("mobilenet_v3_small", ("features.0.", "features.1.")),
        ("mobilenet_v3_large", ("features.0.", "features.1.", "features.2.", "features.3.")),
    ],
)
def test_what_is_frozen(name: str, kept: tuple[str, ...]) -> None:
    for stride in STRIDES:
        body = Backbone(name, stride=stride).body
        frozen = {key for key, parameter in body.named_parameters() if not parameter.requires_grad}
        assert frozen and frozen == {key for key, _ in body.named_parameters() if key.startswith(kept)}
        assert all(p.requires_grad for p in Backbone(name, stride=stride, batch_norm="train").parameters())
    detr = Detr(DetrConfig(1, backbone=name, hidden_dim=32, dec_layers=1))
    detr.freeze_backbone()
    assert not any(p.requires_grad for p in detr.backbone.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small"])
def test_live_and_frozen_norms_share_their_keys(name: str) -> None:
    live, frozen = Backbone(name, batch_norm="train"), Backbone(name)
    for module in live.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
    frozen.load_state_dict(live.state_dict(), strict=True)
    live.load_state_dict(dict(frozen.state_dict()), strict=True)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(live.eval()(images), frozen.eval()(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_sizes_are_rounded_up(name: str, stride: int) -> None:
    backbone = Backbone(name, stride=stride).eval()
    for height, width in ((1, 17), (31, 33), (64, 65), (95, 32)):
        assert backbone(torch.zeros(1, 3, height, width))[-1].shape[2:] == (-(-height // stride), -(-width // stride))


def test_shapes_tell_every_backbone_and_stride_apart() -> None:
    with torch.device("meta"):
        states = [Backbone(name, stride=stride).state_dict() for name, stride in itertools.product(BACKBONES, STRIDES)]
    shapes = {frozenset((key, value.shape) for key, value in state.items()) for state in states}
    assert len(shapes) == len(states) == 2 * len(BACKBONES)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_detr_on_a_mobilenet_at_stride_16(batch_norm: str) -> None:
    """Torchvision's names under `backbone.0.body`, a feature map of stride 16, gradients for all that is trained."""
    torch.manual_seed(0)
    shape = {"hidden_dim": 32, "nheads": 4, "enc_layers": 1, "dec_layers": 2, "num_queries": 5}
    detr = Detr(DetrConfig(2, backbone="mobilenet_v3_small", stride=16, batch_norm=batch_norm, **shape))
    _, state = torchvision_network("mobilenet_v3_small", 16)
    prefix = "backbone.0.body."
    assert {key for key in detr.state_dict() if key.startswith(prefix)} == {prefix + key for key in state}
    tokens = []
    detr.input_proj.register_forward_hook(lambda module, inputs, output: tokens.append(tuple(output.shape)))
    padding_mask = torch.zeros(2, 70, 96, dtype=torch.bool)
    padding_mask[1, 50:] = True
    outputs = detr(torch.randn(2, 3, 70, 96), padding_mask)
    assert tokens == [(2, 32, 5, 6)]
    (outputs.logits.square().mean() + outputs.boxes_cxcywh.square().mean()).backward()
    trained = {key: parameter for key, parameter in detr.named_parameters() if parameter.requires_grad}
    assert any(key.startswith(prefix) for key in trained)
    assert [key for key, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_impossible_backbones_are_named() -> None:
    with pytest.raises(UserError, match=r"vgg16 is not known; accepted: .*resnet50.*mobilenet_v3_small"):
        Backbone("vgg16")
    with pytest.raises(UserError, match="bottleneck"):
        Backbone("resnet18", dilation=True)
    with pytest.raises(UserError, match="is for ResNets, not for mobilenet_v3_large; --stride 16"):
        Backbone("mobilenet_v3_large", dilation=True)
