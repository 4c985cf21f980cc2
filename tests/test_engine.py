"""One step and one epoch: what is updated, what is left alone, and in which number format."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from detr import device as device_room
from detr.backbone import FrozenBatchNorm2d, conv_norm
from detr.criterion import SetCriterion
from detr.device import Precision, pick_device, pick_precision
from detr.engine import Training, train_one_epoch
from detr.errors import UserError
from detr.matcher import HungarianMatcher
from detr.model import Detr, DetrConfig
from detr.structures import Batch
from tests.conftest import RunScript, needs_shared
from tests.test_learning import SMALL, write_eight_photographs
from tests.test_parity import make_batch

CPU = torch.device("cpu")
FLOAT32 = Precision("cpu", None)
BFLOAT16 = Precision("cpu", torch.bfloat16)


def make_training(lr: float = 1e-3, seed: int = 0) -> tuple[Detr, SetCriterion, Training]:
    torch.manual_seed(seed)
    detr = Detr(DetrConfig(3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, num_queries=6))
    training = Training(detr, lr, lr, 1e-4, 10, FLOAT32)
    return detr, SetCriterion(3, HungarianMatcher()), training


def snapshot(detr: Detr) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in detr.state_dict().items()}


def train(batches: list[Batch], precision: Precision = FLOAT32, spoil: Callable | None = None) -> tuple[Detr, dict]:
    detr, criterion, training = make_training()
    if spoil:
        spoil(detr)
    log = train_one_epoch(detr, criterion, batches, training, CPU, precision, "epoch 1/1", 0.1)
    return detr, log


def test_a_step_changes_what_is_trained_and_nothing_else() -> None:
    before = snapshot(make_training()[0])
    detr, log = train([make_batch(3)])
    for name, parameter in detr.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert log["lr"] == 1e-3 and log["loss"] > 0


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_left_out(what: str) -> None:
    detr, criterion, training = make_training()
    before = snapshot(detr)
    batch = make_batch(3)
    loss = criterion(detr(batch.images, batch.padding_mask), batch.targets).total
    if what == "loss":
        loss = loss * float("nan")
    else:
        detr.query_embed.weight.register_hook(lambda gradient: gradient * float("inf"))
    assert not training.update(detr, loss, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in detr.state_dict().items())
    assert all(torch.equal(s["exp_avg"], torch.zeros_like(s["exp_avg"])) for s in training.optimizer.state.values())


@pytest.mark.parametrize("after", [0, 1])
def test_the_step_that_broke_is_named_whatever_follows(after: int) -> None:
    """The host learns of it one step late, or at the end of the epoch."""
    steps = 0

    def spoil(detr: Detr) -> None:
        def break_second(gradient: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            return gradient * float("nan") if steps == 2 else gradient

        detr.query_embed.weight.register_hook(break_second)

    with pytest.raises(UserError, match=r"epoch 1/1, step 2: images \[1, 2\]: the loss or its gradient is not finite"):
        train([make_batch(3)] * (2 + after), spoil=spoil)


def test_a_frozen_backbone_has_no_backward_pass() -> None:
    detr, criterion, _ = make_training()
    detr.freeze_backbone()
    batch = make_batch(3)
    assert not detr.backbone[0](batch.images).requires_grad
    criterion(detr(batch.images, batch.padding_mask), batch.targets).total.backward()
    assert all(p.grad is None for p in detr.backbone.parameters()) and detr.input_proj.weight.grad is not None


def test_the_fold_keeps_no_scaled_weights() -> None:
    conv, norm = torch.nn.Conv2d(64, 64, 3, bias=False), FrozenBatchNorm2d(64)
    x = torch.randn(1, 64, 5, 5, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        conv_norm(x, conv, norm).sum()
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() >= conv.weight.numel()}
    assert large == {conv.weight.data_ptr()}


def test_bfloat16_gives_nearly_the_same_losses_and_float32_weights() -> None:
    exact, half = (train([make_batch(3)] * 3, precision) for precision in (FLOAT32, BFLOAT16))
    for name in ("loss", "loss_ce", "loss_bbox", "loss_giou"):
        assert half[1][name] == pytest.approx(exact[1][name], rel=0.03) and half[1][name] != exact[1][name]
    assert {p.dtype for p in half[0].parameters()} == {torch.float32}


def test_learning_rates_drop_and_come_back_from_a_checkpoint() -> None:
    detr, _, training = make_training()
    training.lr_drop = 2
    rates = []
    for _ in range(4):
        rates.append(training.optimizer.param_groups[0]["lr"])
        training.end_epoch(None)
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    again = Training(detr, 1e-3, 1e-3, 1e-4, 2, FLOAT32)
    again.restore(training.state(), Path("c.pth"))
    assert again.epochs_done == 4 and again.optimizer.param_groups[1]["lr"] == pytest.approx(1e-5)


def test_the_best_score_is_kept() -> None:
    training = make_training()[2]
    assert [training.end_epoch(ap) for ap in (0.2, None, 0.1, 0.3, 0.3)] == [True, False, False, True, False]
    assert training.best == {"AP": 0.3, "epoch": 3}


@pytest.mark.parametrize(
    ("amp", "native", "expected"),
    [("auto", True, "bfloat16"), ("auto", False, "float32"), ("bf16", False, "bfloat16"), ("off", True, "float32")],
)
def test_number_formats(amp: str, native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_room, "_cpu_has_bfloat16", lambda: native)
    assert str(pick_precision(amp, pick_device("cpu"))) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_an_epoch_on_a_gpu(amp: str) -> None:
    gpu = pick_device("cuda")
    precision = pick_precision(amp, gpu)
    detr, criterion, _ = make_training()
    detr, criterion = detr.to(gpu), criterion.to(gpu)
    training = Training(detr, 1e-3, 1e-3, 1e-4, 10, precision)
    log = train_one_epoch(detr, criterion, [make_batch(3)] * 3, training, gpu, precision, "epoch 1/1", 0.1)
    assert log["loss"] == pytest.approx(train([make_batch(3)] * 3)[1]["loss"], rel=0.1)


@needs_shared
@pytest.mark.slow
def test_a_short_training_in_bfloat16_stays_within_the_spread_of_float32_seeds(run: RunScript, tmp_path: Path) -> None:
    write_eight_photographs(tmp_path / "eight")
    assert run("prep", "--via", "eight", "--weights", "none", "--categories", "balloon") == 0
    schedule = ["--epochs", 60, "--eval_every", 60, "--save_every", 60, "--scales", 128, "--max_size", 170]
    final = {}
    for amp in ("off", "bf16"):
        for seed in (1, 2, 3):
            name = f"{amp}{seed}"
            assert run("main", *SMALL, *schedule, "--amp", amp, "--seed", seed, "--output_dir", name) == 0
            losses = [json.loads(line)["train_loss"] for line in (tmp_path / name / "log.txt").read_text().splitlines()]
            final.setdefault(amp, []).append(sum(losses[-10:]) / 10)
    print("mean training loss of the last 10 epochs:", final)
    spread = max(final["off"]) - min(final["off"])
    assert abs(sum(final["bf16"]) - sum(final["off"])) / 3 <= spread
