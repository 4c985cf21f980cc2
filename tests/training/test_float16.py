"""Training in float16 with a gradient scaler, as on GPUs before Ampere: autocast and scaler are the CPU's own here."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from detr.models.criterion import SetCriterion
from detr.models.detr import Detr
from detr.models.matcher import HungarianMatcher
from detr.structures import Batch
from detr.training.device import Precision
from detr.training.trainer import Trainer
from tests.conftest import TINY, RunScript
from tests.models.test_parity import make_batch
from tests.test_main import read_log, weights
from tests.training.test_trainer import FLOAT32, RECIPE, SMALL_DETR, snapshot
from utils import UserError

FLOAT16 = Precision("cpu", torch.float16)
SCALE = 32.0  # at which the gradients of these random weights do not overflow


def small_batch(seed: int = 0) -> Batch:
    """Images of 32x32 pixels: convolutions in float16 are slow on a CPU."""
    batch = make_batch(3, seed=seed)
    return batch._replace(images=batch.images[..., :32, :32], padding_mask=batch.padding_mask[..., :32, :32] & False)


def make_training(precision: Precision = FLOAT16, dropout: float = 0.0, **recipe: object) -> Trainer:
    """The same weights every time; a frozen backbone, whose gradients take most of the time."""
    torch.manual_seed(0)
    model = Detr(dataclasses.replace(SMALL_DETR, dropout=dropout))
    model.freeze_backbone()
    criterion = SetCriterion(3, HungarianMatcher())
    training = Trainer(model, criterion, dataclasses.replace(RECIPE, **recipe), 4, precision)
    if precision.dtype:
        training.scaler.load_state_dict(training.scaler.state_dict() | {"scale": SCALE})
    return training


def break_gradients(training: Trainer, steps: range) -> None:
    """Let the gradient overflow in these steps, counted from 0, whatever the scale."""
    done = iter(range(1000))
    training.model.query_embed.weight.register_hook(lambda g: g * (float("inf") if next(done) in steps else 1))


def moments(training: Trainer) -> list[torch.Tensor]:
    return [state[name] for state in training.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq", "step")]


def test_a_step_whose_gradient_overflows_is_skipped_and_the_scale_halved() -> None:
    training = make_training(ema_decay=0.9)
    reports: list[dict] = []
    training.on_nonfinite = reports.append
    training.train_epoch([small_batch()])
    at_first = snapshot(training.model)
    before = [value.clone() for value in moments(training)]
    break_gradients(training, range(1))
    training.train_epoch([small_batch()])
    assert training.scaler.get_scale() == SCALE / 2
    assert all(torch.equal(value, at_first[name]) for name, value in training.model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(moments(training), before, strict=True))
    log = training.train_epoch([small_batch()] * 3)
    assert reports == [] and training.skipped == 0, "the search for a scale is no error"
    assert not torch.equal(training.model.query_embed.weight, at_first["query_embed.weight"]) and log["loss"] > 0


def test_a_scale_that_collapses_is_named() -> None:
    training = make_training()
    training.train_epoch([small_batch()])
    training.scaler.load_state_dict(training.scaler.state_dict() | {"scale": 4.0})
    break_gradients(training, range(100))
    done: list[int] = []
    with pytest.raises(UserError, match=r"epoch 1/10, step 4, images \[1, 2\]: .*float16.* overflow") as error:
        training.train_epoch([small_batch()] * 6, lambda: done.append(training.steps_done))
    assert "--amp off" in str(error.value)
    assert done[-1] == 4, "2 and 1 are scales that may be; the next is not, and the step after it is told so"


def test_an_infinite_loss_may_be_float16s(monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training()
    monkeypatch.setattr(training.criterion, "weights", {name: float("inf") for name in training.criterion.weights})
    with pytest.raises(UserError, match=r"the loss is not finite .*--amp off"):
        training.train_epoch([small_batch()] * 2)


def total_norm(training: Trainer) -> float:
    """The norm of the gradient that the first step was taken with: its running mean holds a tenth of it."""
    gradient = [state["exp_avg"].flatten() / 0.1 for state in training.optimizer.state.values()]
    return float(torch.cat(gradient).norm())


@pytest.mark.parametrize("precision", [FLOAT32, FLOAT16], ids=str)
def test_the_gradient_is_clipped_as_it_is_and_not_as_it_is_scaled(precision: Precision) -> None:
    free, clipped, loose = (make_training(precision, clip_max_norm=norm) for norm in (0, 0.1, 1e6))
    for training in (free, clipped, loose):
        training.train_epoch([small_batch()])
    assert total_norm(free) > 1
    assert total_norm(clipped) == pytest.approx(0.1, rel=1e-3)
    assert total_norm(loose) == pytest.approx(total_norm(free), rel=1e-3)


def test_losses_and_steps_are_nearly_those_of_float32() -> None:
    exact, half = make_training(FLOAT32), make_training()
    logs = [training.train_epoch([small_batch(seed) for seed in range(4)]) for training in (exact, half)]
    for name in ("loss", "loss_ce", "loss_bbox", "loss_giou"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=0.05) and logs[1][name] != logs[0][name]
    assert half.scaler.get_scale() == SCALE and {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert total_norm(half) == pytest.approx(total_norm(exact), rel=0.05)


def test_a_run_that_is_resumed_inside_an_epoch_is_one_that_never_stopped() -> None:
    """Also where the scale was just halved, and where a step is skipped after the resume."""
    whole, first, second = (make_training(dropout=0.1) for _ in range(3))
    for training in (whole, first):
        break_gradients(training, range(1, 2))
    torch.manual_seed(1)
    whole.train_epoch([small_batch(seed) for seed in range(4)])
    torch.manual_seed(1)
    first.train_epoch([small_batch(seed) for seed in range(2)])
    saved = first.state() | {"model": snapshot(first.model)}
    second.model.load_state_dict(saved["model"])
    second.load_state(saved, Path("checkpoint.pth"))
    second.train_epoch([small_batch(seed) for seed in range(2, 4)])
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in second.model.state_dict().items())


@pytest.mark.long
def test_the_whole_network_trains_from_the_command_line(coco_folder: Path, run: RunScript) -> None:
    """Live BatchNorm, all gradients; the scale comes down from where the scaler starts, and is saved."""
    flags = ("--amp", "fp16", "--scales", 32, "--max_size", 48, "--batch_size", 3, "--backbone_weights", "none")
    assert run("main", *TINY, *flags, "--epochs", 1) == 0
    assert read_log()[0]["train_loss"] > 0
    assert 1 <= weights("outputs/checkpoint.pth")["scaler"]["scale"] <= 65536
    assert json.loads(Path("outputs/predictions.json").read_text())
