"""Attention and dropout as they are written out on a CPU, against PyTorch's and against plain formulas in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detr.models import cpu_kernels
from detr.models.attention import to_attn_mask
from detr.models.cpu_kernels import Dropout, dropout, random_mask, scaled_dot_product_attention

PADDED = to_attn_mask(torch.tensor([[False] * 7, [False] * 4 + [True] * 3]))


def make_inputs(dtype: torch.dtype, spread: float = 1.0) -> list[Tensor]:
    """Query (2, 3, 5, 8), key and value (2, 3, 7, 8), as views of (B, N, M * d) like those of `Attention`."""
    torch.manual_seed(0)
    flat = [spread * torch.randn(2, tokens, 24) for tokens in (5, 7, 7)]
    return [x.to(dtype).unflatten(-1, (3, 8)).transpose(1, 2).detach().requires_grad_() for x in flat]


def by_formula(query: Tensor, key: Tensor, value: Tensor, kept: Tensor | float = 1.0) -> Tensor:
    """Softmax of the scaled scores where attention may look, times `kept`, times the values; in float64."""
    query, key, value = query.double(), key.double(), value.double()
    scores = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).masked_fill(~PADDED, -torch.inf)
    return scores.softmax(-1) * kept @ value


@pytest.fixture
def fixed_mask(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """(2, 3, 5, 7), the mask that dropout draws in this test."""
    kept = (torch.rand(6, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.7).to(torch.uint8)
    monkeypatch.setattr(cpu_kernels, "random_mask", lambda shape, share: (kept.view(shape), share))
    return kept.view(2, 3, 5, 7)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients(dtype: torch.dtype, tolerance: float, dropout: float, fixed_mask: Tensor) -> None:
    inputs = make_inputs(dtype)
    out = scaled_dot_product_attention(*inputs, PADDED, dropout)
    expected = by_formula(*inputs, fixed_mask.double() / (1 - dropout) if dropout else 1.0)
    towards = torch.randn(out.shape).to(dtype)
    gradients = torch.autograd.grad(out, inputs, towards)
    references = torch.autograd.grad(expected, inputs, towards.double())
    for found, reference in zip((out, *gradients), (expected, *references), strict=True):
        assert found.dtype == dtype
        assert (found.double() - reference.double()).abs().max() <= tolerance * reference.abs().max()


def test_gradients_of_the_written_out_form_by_differences(fixed_mask: Tensor) -> None:
    inputs = make_inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda *inputs: scaled_dot_product_attention(*inputs, PADDED, 0.3), inputs)
    (once,) = torch.autograd.grad(
        scaled_dot_product_attention(*inputs, PADDED, 0.3).square().sum(), inputs[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()  # rather than a second derivative that lacks a part


def test_gradients_inside_of_autocast(fixed_mask: Tensor) -> None:
    inputs = make_inputs(torch.float32)
    outside = torch.autograd.grad(scaled_dot_product_attention(*inputs, PADDED, 0.3).sum(), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(scaled_dot_product_attention(*inputs, PADDED, 0.3).sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


@pytest.mark.parametrize(
    ("dtype", "learns", "dropout", "is_written_out"),
    [
        (torch.float32, True, 0.0, False),  # PyTorch's keeps no weights
        (torch.float32, True, 0.1, True),
        (torch.bfloat16, True, 0.0, True),
        (torch.bfloat16, False, 0.0, False),
        (torch.float16, True, 0.0, False),
        (torch.float16, True, 0.1, True),
    ],
)
def test_weights_are_written_out_only_where_that_is_faster(
    dtype: torch.dtype, learns: bool, dropout: float, is_written_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    pytorchs = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *inputs: calls.append(1) or pytorchs(*inputs))
    with torch.set_grad_enabled(learns):
        scaled_dot_product_attention(*make_inputs(dtype), PADDED, dropout)
    assert len(calls) == (not is_written_out)


def test_other_devices_have_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "random_mask", None)
    inputs = [torch.empty(2, 3, tokens, 8, device="meta") for tokens in (5, 7, 7)]
    assert scaled_dot_product_attention(*inputs, None, 0.1).shape == (2, 3, 5, 8)
    assert dropout(inputs[0], 0.1).shape == (2, 3, 5, 8)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_not_rounded_to_16_bits(dtype: torch.dtype, learns: bool) -> None:
    """Scores reach 100, where bfloat16 has steps of 0.5: rounding them would change weights by a third."""
    inputs = make_inputs(dtype, spread=6.0)
    with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16):
        out = scaled_dot_product_attention(*inputs, PADDED, 0.0)
    assert out.dtype == dtype
    expected = by_formula(*inputs)
    assert (out - expected).abs().max() < 0.01 * expected.abs().max()


def test_with_dropout_it_is_attention_on_average() -> None:
    inputs = make_inputs(torch.float32)
    mean = sum(scaled_dot_product_attention(*inputs, PADDED, 0.3) for _ in range(3000)) / 3000
    assert (mean - F.scaled_dot_product_attention(*inputs, PADDED)).abs().max() < 0.04


def test_no_queries_no_keys_no_images() -> None:
    for images, queries, keys in ((2, 0, 7), (0, 5, 7), (2, 5, 0)):
        sizes = (queries, keys, keys)
        inputs = [torch.zeros(images, 3, tokens, 8, dtype=torch.bfloat16, requires_grad=True) for tokens in sizes]
        out = scaled_dot_product_attention(*inputs, None, 0.1)
        assert out.shape == (images, 3, queries, 8) and not out.isnan().any()
        out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 301, dtype=dtype, requires_grad=True)
    dropped = dropout(x, share)
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=0.004)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    assert torch.equal(Dropout(share).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_values_are_dropped_independently_of_each_other() -> None:
    torch.manual_seed(0)
    kept = random_mask(torch.Size((1001, 301)), 0.3)[0].double()
    correlation = torch.corrcoef(torch.stack([kept[:, shift : shift + 290].flatten() for shift in range(10)]))
    assert (correlation - torch.eye(10)).abs().max() < 0.01  # one random number serves eight neighbours


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.37, 0.99])
def test_the_share_is_right_over_many_calls(share: float) -> None:
    torch.manual_seed(0)
    masks, dropped = zip(*(random_mask(torch.Size((3, 5, 7)), share) for _ in range(20_000)), strict=True)
    means = 1 - torch.stack(masks).double().mean((1, 2, 3))
    assert set(dropped) == {int(share * 256) / 256, int(share * 256 + 1) / 256}
    assert means.mean().item() == pytest.approx(share, abs=4 * means.std().item() / 20_000**0.5)


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.997, 0.9999])
def test_every_call_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    for _ in range(5):
        assert dropout(torch.ones(1_000_000), share).mean().item() == pytest.approx(1, abs=0.06)


def test_masks_of_any_size() -> None:
    torch.manual_seed(0)
    for shape in ((0, 3), (), (1,), (7,), (8,), (9,), (3, 5, 7)):
        mask, dropped = random_mask(torch.Size(shape), 0.5)
        assert mask.shape == shape and dropped == 0.5
        assert set(mask.flatten().tolist()) <= {0, 1}
