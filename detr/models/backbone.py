"""The convolutional backbone: a torchvision ResNet, MobileNetV2 or MobileNetV3 without its classifier.

With frozen BatchNorm, a convolution and the norm after it are one affine map; the norm is folded into the
convolution's weights at every call, which saves a pass over each feature map while gradients still reach the weights.

Shapes: B images, C channels of the last stage, H and W image size, S stride: 32, or 16 where the network is cut after
its last stage of that stride (16 with dilation as well, which keeps all stages).
A body's maps are those at strides 4, 8 and 16, which a mask head reads, and the last: at stride 16 the same once more.
"""

import bisect
import itertools
import math
import operator
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import mobilenetv2
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Conv2dNormActivation

from detr.models.cpu_kernels import fast_weight_gradient
from utils import UserError

RESNETS = tuple(
    torchvision.models.list_models(module=torchvision.models, include=["resnet*", "resnext*", "wide_resnet*"])
)
MOBILENETS = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
STRIDES = (32, 16)


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """BatchNorm with fixed statistics and fixed affine parameters: DETR's batches are too small to estimate them.

    `eps` is no part of a weights file: it must be what the weights were trained with.
    """

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the norm as an affine map, y = x * scale + shift, both (C,), for `conv_norm` to fold."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class TrainableBatchNorm2d(nn.BatchNorm2d):
    """Ordinary BatchNorm whose state dict has the keys of the frozen one, so that either loads the other's weights."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *arguments: object) -> None:
        nn.Module._load_from_state_dict(self, *arguments)  # BatchNorm's own would ask for num_batches_tracked


BATCH_NORMS = {"frozen": FrozenBatchNorm2d, "train": TrainableBatchNorm2d}
# What torchvision's MobileNetV3 was trained with (Howard et al. 2019, section 6.1, for the momentum).
MOBILENET_V3_NORMS = {
    "frozen": partial(FrozenBatchNorm2d, eps=1e-3),
    "train": partial(TrainableBatchNorm2d, eps=1e-3, momentum=0.01),
}


class _FoldedConvolution(torch.autograd.Function):
    """conv2d(x, weight * scale, shift), which keeps `weight` for the backward pass instead of a scaled copy of it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, geometry: tuple) -> Tensor:
        """`scale` and `shift` are (C,); `geometry` is stride, padding, dilation and groups."""
        ctx.save_for_backward(x, weight, scale)
        ctx.geometry = geometry
        return F.conv2d(x, _scaled(weight, scale, x.dtype), shift.to(x.dtype), *geometry)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `x` and `weight`, each where it is needed; the scale is applied to the latter's once more."""
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        scaled = _scaled(weight, scale, x.dtype)
        want_x, want_weight = ctx.needs_input_grad[:2]
        fast = fast_weight_gradient(gradient, x, weight.shape[2:], ctx.geometry) if want_weight else None
        needs_grad = [want_x, want_weight and fast is None, False]
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, scaled, None, stride, padding, dilation, False, (0, 0), groups, needs_grad
        )
        to_weight = to_weight if fast is None else fast
        if to_weight is not None:
            to_weight = _scaled(to_weight, scale, weight.dtype)
        return to_x, to_weight, None, None, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return _laid_out((weight * scale[:, None, None, None]).to(dtype))


def _laid_out(x: Tensor) -> Tensor:
    """Return (B, C, H, W) in the memory format that convolutions read fastest: channels last on CPUs and tensor cores.

    Not on Apple's GPUs, where PyTorch's gradients of that order are slow, and were wrong in some of its versions.
    """
    return x.contiguous(memory_format=torch.contiguous_format if x.device.type == "mps" else torch.channels_last)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """Convolution and BatchNorm, as one convolution where the norm is frozen."""
    dtype = x.dtype
    if conv.groups == conv.in_channels > 1 and x.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        # A CPU has no fast kernels for the gradients of depthwise convolutions in 16 bits: up to 100 times slower.
        with torch.autocast("cpu", enabled=False):
            return conv_norm(x.float(), conv, norm).to(dtype)
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(F.conv2d(x, _laid_out(conv.weight), None, *geometry))
    return _FoldedConvolution.apply(x, conv.weight, *norm.scale_and_shift(), geometry)


def _residual_block(x: Tensor, block: BasicBlock | Bottleneck) -> Tensor:
    """One residual block of any torchvision ResNet (He et al. 2016, figure 5): conv-norm-relu chain plus shortcut."""
    out = F.relu_(conv_norm(x, block.conv1, block.bn1))
    out = conv_norm(out, block.conv2, block.bn2)
    if isinstance(block, Bottleneck):
        out = conv_norm(F.relu_(out), block.conv3, block.bn3)
    shortcut = x if block.downsample is None else conv_norm(x, *block.downsample)
    return F.relu_(out.add_(shortcut))


class ResNetBody(nn.Module):
    """Stem and four stages of a torchvision ResNet (three at stride 16), under torchvision's own parameter names."""

    classifier = "fc."  # what the names begin with that a classifier's file has besides

    def __init__(self, name: str, dilation: bool, stride: int, batch_norm: str) -> None:
        super().__init__()
        norm_layer = BATCH_NORMS[batch_norm]
        try:
            resnet = torchvision.models.get_model(
                name, weights=None, norm_layer=norm_layer, replace_stride_with_dilation=[False, False, dilation]
            )
        except NotImplementedError as error:  # torchvision: no dilation in BasicBlock
            raise UserError(f"--dilation (DC5) needs a backbone of bottleneck blocks, {name} has none") from error
        self.channels = resnet.fc.in_features
        self.map_channels = (self.channels // 8, self.channels // 4, self.channels // 2)  # each stage doubles them
        for part in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, part, getattr(resnet, part))
        if stride == 16:
            self.layer4 = nn.Sequential()  # nothing to load and nothing to compute
            self.channels //= 2

    def up_to_stride_4(self) -> list[nn.Module]:
        """Stem and first stage."""
        return [self.conv1, self.bn1, self.layer1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the maps, the last of them (B, C, H/S, W/S), sizes rounded up."""
        x = F.relu_(conv_norm(images, self.conv1, self.bn1))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = _residual_block(x, block)
            maps.append(x)
        return maps


def _conv_norm_activation(x: Tensor, layer: Conv2dNormActivation) -> Tensor:
    """Run a convolution, its norm, and the activation of most of these layers."""
    conv, norm, *activations = layer
    x = conv_norm(x, conv, norm)
    for activation in activations:
        x = activation(x)
    return x


def _inverted_residual(x: Tensor, block: nn.Module) -> Tensor:
    """Run an inverted residual block: expand, depthwise, project (Sandler et al. 2018, figure 4, whose projection is
    linear); squeeze and excite in MobileNetV3 (Howard et al. 2019, figure 4).
    """
    out = x
    if isinstance(block, mobilenetv2.InvertedResidual):
        *layers, projection, norm = block.conv
        for layer in layers:
            out = _conv_norm_activation(out, layer)
        out = conv_norm(out, projection, norm)
    else:
        for part in block.block:
            out = _conv_norm_activation(out, part) if isinstance(part, Conv2dNormActivation) else part(out)
    return out.add_(x) if block.use_res_connect else out


class MobileNetBody(nn.Module):
    """The features of a torchvision MobileNet down to `stride`, under torchvision's own parameter names.

    At stride 32 that is all of them, with the 1x1 convolution at the end (1280, 576 or 960 channels): torchvision's
    detectors take its output for their last level too, and the ImageNet weights have it. Without it the body would end
    in a narrow linear layer which only this convolution was trained to read.
    """

    classifier = "classifier."  # what the names begin with that a classifier's file has besides

    def __init__(self, name: str, dilation: bool, stride: int, batch_norm: str) -> None:
        super().__init__()
        if dilation:
            raise UserError(f"--dilation (DC5) is for ResNets, not for {name}; --stride 16 makes as large a map")
        norm_layer = (BATCH_NORMS if name == "mobilenet_v2" else MOBILENET_V3_NORMS)[batch_norm]
        features = torchvision.models.get_model(name, weights=None, norm_layer=norm_layer).features
        self.features = features[: _count_up_to(features, stride)]
        self.channels = self.features[-1].out_channels
        self._ends = [_count_up_to(features, step) - 1 for step in (4, 8, 16)]
        self.map_channels = tuple(features[end].out_channels for end in self._ends)

    def up_to_stride_4(self) -> list[nn.Module]:
        """Return what is a ResNet's stem and first stage: the first 4 entries, 2 of MobileNetV3-small."""
        return list(self.features[: _count_up_to(self.features, 4)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the maps, the last of them (B, C, H/S, W/S), sizes rounded up."""
        x, maps = images, []
        for number, entry in enumerate(self.features):
            run = _conv_norm_activation if isinstance(entry, Conv2dNormActivation) else _inverted_residual
            x = run(x, entry)
            if number in self._ends:
                maps.append(x)
        return [*maps, x]


def _count_up_to(features: nn.Sequential, stride: int) -> int:
    """Return how many of the first entries there are whose output is at most `stride` times smaller than the image."""
    steps = (math.prod(m.stride[0] for m in entry.modules() if isinstance(m, nn.Conv2d)) for entry in features)
    return bisect.bisect_right(list(itertools.accumulate(steps, operator.mul)), stride)


# To add a backbone, write a body as ResNetBody: built from (name, dilation, stride, batch_norm), with `channels`,
# `map_channels`, `classifier`, `up_to_stride_4` and `forward`. Weights files are told apart by the shapes of its
# parameters; ImageNet's weights are torchvision's of that name.
BACKBONES = {**dict.fromkeys(RESNETS, ResNetBody), **dict.fromkeys(MOBILENETS, MobileNetBody)}


class Backbone(nn.Module):
    """The body, plus the rule of what is trained.

    With frozen BatchNorm everything down to stride 4 stays as pre-trained: stem and first stage of a ResNet (DETR,
    section 4), and as much of a MobileNet. With trained BatchNorm all is trained.
    """

    def __init__(self, name: str, dilation: bool = False, stride: int = 32, batch_norm: str = "frozen") -> None:
        super().__init__()
        if name not in BACKBONES:
            raise UserError(f"--backbone {name} is not known; accepted: {', '.join(BACKBONES)}")
        self.body = BACKBONES[name](name, dilation, stride, batch_norm).to(memory_format=torch.channels_last)
        self.channels, self.map_channels = self.body.channels, self.body.map_channels
        if batch_norm == "frozen":
            for part in self.body.up_to_stride_4():
                part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W), ImageNet-normalized, to the body's maps; 16-bit inside under autocast."""
        if torch.is_autocast_enabled(images.device.type):
            images = images.to(torch.get_autocast_dtype(images.device.type))
        return self.body(_laid_out(images))
