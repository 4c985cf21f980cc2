"""The benchmarks that are not part of the test run still fit the code: each at its smallest."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import benchmarks
from tests.benchmarks import profile_step, scaling, speed
from tests.benchmarks.common import Ours, Peer, make_batch


def tiny() -> Ours:
    config = {"backbone": "resnet18", "hidden_dim": 32, "enc_layers": 1, "dec_layers": 2, "dim_feedforward": 32}
    return Ours(make_batch(2, 64, 96, objects=3), **config)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_every_benchmark_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"tests.benchmarks.{name}").__doc__


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_parts_of_a_step_are_told_apart_and_both_sides_can_be_timed(dtype: torch.dtype | None) -> None:
    ours = tiny()
    parts = profile_step.step_in_parts(ours, dtype)
    assert list(parts) == [
        "backbone, forward", "transformer, forward", "matching and losses", "transformer, backward",
        "backbone, backward", "clipping and AdamW",
    ]  # fmt: skip
    assert all(seconds > 0 for seconds in parts.values())
    assert not ours.model.backbone[0]._forward_hooks
    for side in (ours, Peer(ours)):
        side.step(dtype)
        side.forward(dtype)


@pytest.mark.parametrize(
    ("measure", "arguments"),
    [(speed.time_weight_gradients, ([(128, 128, 16, 16, 3, 1)], torch.float32)), (speed.time_attention, (0.1,))],
)
def test_both_ways_to_a_part_are_called(measure: Callable[..., dict], arguments: tuple) -> None:
    times = measure(*arguments, 1)
    assert len(times["ours"]) == len(times["PyTorch"]) == 4


def test_growth_is_fitted_by_what_it_is_made_of(tmp_path: Path) -> None:
    sizes = np.array([1.0, 2.0, 5.0, 9.0])
    costs = np.stack((3 + 0.5 * sizes**2, 40 + 7 * sizes), axis=1)
    np.testing.assert_allclose(scaling.fitted(sizes, costs[:, 0]), [3, 0, 0.5], atol=1e-9)
    assert scaling.formula(scaling.fitted(sizes, costs[:, 1])) == "40 + 7 n"
    series = scaling.Series("images", (1, 2, 5, 9), "images", sizes, [])
    scaling.draw([(series, costs)], tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
