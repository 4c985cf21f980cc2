"""The convolutional backbone: a torchvision ResNet without its classifier.

With frozen BatchNorm, a convolution and the norm after it are one affine map; the norm is folded into the
convolution's weights at every call, which saves a pass over each feature map while gradients still reach the weights.

Shapes: B images, C channels of the last stage, H and W image size, stride 32 (16 with dilation).
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from detr.errors import UserError

RESNETS = tuple(
    torchvision.models.list_models(module=torchvision.models, include=["resnet*", "resnext*", "wide_resnet*"])
)


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm with fixed statistics and fixed affine parameters: DETR's batches are too small to estimate them.

    All four vectors are buffers under BatchNorm's own names, so that pre-trained weights load.
    """

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm as an affine map, y = x * scale + shift, both (C,)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), for use on its own; `conv_norm` folds instead."""
        scale, shift = self.scale_and_shift()
        return x * scale[:, None, None] + shift[:, None, None]


class LiveBatchNorm2d(nn.BatchNorm2d):
    """Ordinary BatchNorm whose state dict has the keys of the frozen one, so that either loads the other's weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *arguments: object) -> None:
        nn.Module._load_from_state_dict(self, *arguments)  # BatchNorm's own would ask for num_batches_tracked


BATCH_NORMS = {"frozen": FrozenBatchNorm2d, "live": LiveBatchNorm2d}


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
        """Gradients of `x` and `weight`, each where it is wanted; the scale is applied to the latter's once more."""
        x, weight, scale = ctx.saved_tensors
        *geometry, groups = ctx.geometry
        wanted = [*ctx.needs_input_grad[:2], False]
        to_x, to_scaled, _ = torch.ops.aten.convolution_backward(
            gradient, x, _scaled(weight, scale, x.dtype), None, *geometry, False, (0, 0), groups, wanted
        )
        to_weight = _scaled(to_scaled, scale, weight.dtype) if wanted[1] else None
        return to_x, to_weight, None, None, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight * scale[:, None, None, None]).to(dtype)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """Convolution and BatchNorm, as one convolution where the norm is frozen."""
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
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
    """Stem and four stages of a torchvision ResNet, under torchvision's own parameter names."""

    def __init__(self, name: str, dilation: bool, batch_norm: str) -> None:
        super().__init__()
        norm_layer = BATCH_NORMS[batch_norm]
        try:
            resnet = torchvision.models.get_model(
                name,
                weights=None,
                norm_layer=norm_layer,
                replace_stride_with_dilation=[False, False, dilation],
            )
        except NotImplementedError as error:  # torchvision: no dilation in BasicBlock
            raise UserError(f"--dilation (DC5) needs a backbone of bottleneck blocks, {name} has none") from error
        self.channels = resnet.fc.in_features
        for part in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, part, getattr(resnet, part))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/32, W/32), sizes rounded up."""
        x = F.relu_(conv_norm(images, self.conv1, self.bn1))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = _residual_block(x, block)
        return x


class Backbone(nn.Module):
    """The body, plus the rule of what is trained (DETR, section 4: stem and first stage stay as pre-trained)."""

    def __init__(self, name: str, dilation: bool = False, batch_norm: str = "frozen") -> None:
        super().__init__()
        if name not in RESNETS:
            raise UserError(f"--backbone {name} is not known; accepted: {', '.join(RESNETS)}")
        # Channels last in memory: what convolutions on CPUs and tensor cores read fastest.
        self.body = ResNetBody(name, dilation, batch_norm).to(memory_format=torch.channels_last)
        self.channels = self.body.channels
        if batch_norm == "frozen":
            self.body.conv1.requires_grad_(False)
            self.body.layer1.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), ImageNet-normalised -> (B, C, H/32, W/32); 16-bit inside under autocast."""
        if torch.is_autocast_enabled(images.device.type):
            images = images.to(torch.get_autocast_dtype(images.device.type))
        return self.body(images.contiguous(memory_format=torch.channels_last))
