"""The gradient of convolution weights against a sum over shifts, and where it stands in for PyTorch's."""

import pytest
import torch
from torch import Tensor, nn

from detr.models.backbone import FrozenBatchNorm2d, conv_norm
from detr.models.cpu_kernels import _by_one_product, _by_taps, _by_winograd, fast_weight_gradient

GEOMETRIES = {1: ((1, 1), (1, 1), (1, 1), 1), 2: ((2, 2), (1, 1), (1, 1), 1)}


def by_shifts(gradient: Tensor, x: Tensor, stride: int) -> Tensor:
    """(B, O, H, W), (B, C, ., .) -> (O, C, 3, 3), one entry at a time: which pixel met which output through it."""
    total = torch.zeros(gradient.shape[1], x.shape[1], 3, 3, dtype=x.dtype)
    for i in range(3):
        for j in range(3):
            for row in range(gradient.shape[2]):
                for column in range(gradient.shape[3]):
                    y, z = row * stride + i - 1, column * stride + j - 1
                    if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]:
                        total[:, :, i, j] += gradient[:, :, row, column].T @ x[:, :, y, z]
    return total


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (4, 4), (5, 7), (8, 3), (9, 12)])
def test_equals_a_sum_over_shifts(size: tuple[int, int], images: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    for stride, way in ((1, _by_winograd), (2, _by_taps)):
        rows, columns = (-(-side // stride) for side in size)
        x = torch.randn(images, 5, *size, dtype=torch.float64).to(memory_format=layout)
        gradient = torch.randn(images, 3, rows, columns, dtype=torch.float64).to(memory_format=layout)
        result = way(gradient, x)
        assert result.shape == (3, 5, 3, 3)
        torch.testing.assert_close(result, by_shifts(gradient, x, stride), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("stride", "size"), [(1, (13, 22)), (2, (26, 43)), (2, (25, 44))])
def test_stands_in_for_pytorchs_behind_a_folded_norm(stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(128, 136, 3, stride, padding=1, bias=False)
    norm = FrozenBatchNorm2d(136)
    norm.weight.uniform_(0.5, 2)
    x = torch.randn(1, 128, *size).to(memory_format=torch.channels_last).requires_grad_()
    out = conv_norm(x, conv, norm)
    towards = torch.randn_like(out)
    assert fast_weight_gradient(towards, x.detach(), (3, 3), GEOMETRIES[stride]) is not None
    gradients = torch.autograd.grad(out, (x, conv.weight), towards)
    x, conv, norm = x.detach().double().requires_grad_(), conv.double(), norm.double()
    expected = torch.autograd.grad(norm(conv(x)), (x, conv.weight), towards.double())
    for gradient, expectation in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expectation).abs().max() < 1e-5 * expectation.abs().max()


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("size", [(0, 4), (1, 1), (5, 8), (9, 12)])
def test_one_product_equals_a_sum_over_positions(size: tuple[int, int], stride: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    seen = x[:, :, :: stride[0], :: stride[1]]
    gradient = torch.randn(2, 3, *seen.shape[2:], dtype=torch.float64)
    expected = torch.einsum("bohw,bchw->oc", gradient, seen)[:, :, None, None]
    torch.testing.assert_close(_by_one_product(gradient, seen), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 10), (7, 9)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
def test_one_product_stands_in_for_pytorchs_in_bfloat16(stride: tuple[int, int], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(72, 64, 1, stride, bias=False)
    norm = FrozenBatchNorm2d(64)
    norm.weight.uniform_(0.5, 2)
    x = torch.randn(2, 72, *size).bfloat16().requires_grad_()
    out = conv_norm(x, conv, norm)
    towards = torch.randn_like(out)
    assert fast_weight_gradient(towards, x.detach(), (1, 1), (stride, (0, 0), (1, 1), 1)) is not None
    (gradient,) = torch.autograd.grad(out, conv.weight, towards)
    conv, norm = conv.double(), norm.double()
    (expected,) = torch.autograd.grad(norm(conv(x.detach().double())), conv.weight, towards.double())
    assert gradient.dtype == torch.float32
    assert (gradient - expected).abs().max() < 0.01 * expected.abs().max()


def test_a_frozen_weight_gets_no_gradient() -> None:
    conv, norm = nn.Conv2d(128, 128, 3, 2, padding=1, bias=False).requires_grad_(False), FrozenBatchNorm2d(128)
    x = torch.randn(1, 128, 8, 8, requires_grad=True)
    conv_norm(x, conv, norm).sum().backward()
    assert x.grad.abs().sum() > 0 and conv.weight.grad is None


def test_an_input_that_wants_no_gradient_as_behind_frozen_layers() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(64, 128, 3, 2, padding=1, bias=False), FrozenBatchNorm2d(128)
    x = torch.randn(2, 64, 9, 12)
    (gradient,) = torch.autograd.grad(conv_norm(x, conv, norm).square().sum(), conv.weight)
    (expected,) = torch.autograd.grad(norm(conv(x)).square().sum(), conv.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)


def test_all_else_is_left_to_pytorch() -> None:
    def is_left(
        channels: int = 128, side: int = 16, dtype: torch.dtype = torch.float32, wider: int = 1, **change: object
    ) -> bool:
        of = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, **change}
        x = torch.zeros(1, channels, *(side * step for step in of["stride"]), dtype=dtype)
        kernel, *geometry = of.values()
        gradient = torch.zeros(1, wider * channels, side, side, dtype=dtype)
        return fast_weight_gradient(gradient, x, kernel, tuple(geometry)) is None

    assert not is_left() and not is_left(stride=(2, 2)) and not is_left(channels=8, side=1, stride=(2, 2))
    assert is_left(dtype=torch.bfloat16) and is_left(dtype=torch.float64)
    assert is_left(kernel=(1, 1)) and is_left(stride=(1, 2)) and is_left(stride=(3, 3)) and is_left(padding=(0, 0))
    assert is_left(dilation=(2, 2)) and is_left(groups=128)
    assert is_left(channels=127) and is_left(side=15)

    narrow = {"kernel": (1, 1), "padding": (0, 0), "dtype": torch.bfloat16, "channels": 32}
    assert not is_left(**narrow) and not is_left(**narrow, stride=(2, 2))
    assert is_left(**{**narrow, "dtype": torch.float32}) and is_left(**{**narrow, "padding": (1, 1)})
    assert is_left(**narrow, side=17) and is_left(**narrow, side=17, wider=2) and is_left(**narrow, groups=32)
    assert is_left(**{**narrow, "channels": 31})
