"""The backbone against torchvision's own networks."""

import pytest
import torch
import torchvision
from torch import nn

from detr.backbone import Backbone, FrozenBatchNorm2d, conv_norm
from detr.errors import UserError
from detr.model import Detr, DetrConfig

SMALL = {"backbone": "resnet18", "hidden_dim": 32, "nheads": 4, "enc_layers": 1, "dec_layers": 2, "num_queries": 5}


def randomise(norm: nn.Module) -> None:
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)


def test_folding_equals_convolution_then_norm_and_gradients_reach_the_weights() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False), FrozenBatchNorm2d(8)
    randomise(norm)
    x = torch.randn(2, 6, 9, 7)
    folded, apart = conv_norm(x, conv, norm), norm(conv(x))
    torch.testing.assert_close(folded, apart)
    (gradient,), (expected,) = (torch.autograd.grad(y.square().sum(), conv.weight) for y in (folded, apart))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_backbone_equals_torchvision_with_its_own_weights(name: str) -> None:
    torch.manual_seed(0)
    resnet = torchvision.models.get_model(name, weights=None).eval()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
            module.weight.data *= 0.3
    layers = [resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool]
    body = nn.Sequential(*layers, resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    backbone = Backbone(name).eval()
    kept = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.") and "num_batches" not in k}
    backbone.body.load_state_dict(kept)
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(backbone(images), body(images), rtol=1e-3, atol=1e-4)


def test_what_is_frozen() -> None:
    frozen = [name for name, p in Backbone("resnet18").named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith(("body.conv1", "body.layer1")) for name in frozen)
    assert all(p.requires_grad for p in Backbone("resnet18", batch_norm="live").parameters())
    detr = Detr(DetrConfig(1, **SMALL))
    detr.freeze_backbone()
    assert not any(p.requires_grad for p in detr.backbone.parameters())


def test_live_and_frozen_norms_share_their_keys() -> None:
    live, frozen = Backbone("resnet18", batch_norm="live"), Backbone("resnet18")
    for module in live.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
    frozen.load_state_dict(live.state_dict(), strict=True)
    live.load_state_dict(dict(frozen.state_dict()), strict=True)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(live.eval()(images), frozen.eval()(images), rtol=1e-3, atol=1e-3)


def test_impossible_backbones_are_named() -> None:
    with pytest.raises(UserError, match="vgg16 is not known"):
        Backbone("vgg16")
    with pytest.raises(UserError, match="bottleneck"):
        Backbone("resnet18", dilation=True)
