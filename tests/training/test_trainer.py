"""One step and one epoch: what is updated, what is left alone, and in which number format."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from detr.models.backbone import FrozenBatchNorm2d, conv_norm
from detr.models.criterion import SetCriterion
from detr.models.detr import Detr, DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.models.weights import detector_state, plain_state
from detr.structures import Batch, DetrOutput, Targets
from detr.training import device as device_room
from detr.training.device import Precision, pick_device, pick_precision
from detr.training.schedule import OptimConfig
from detr.training.trainer import Trainer, selection_key
from tests.conftest import RunScript, needs_shared
from tests.models.test_parity import make_batch
from tests.training.test_learning import SMALL, write_eight_images
from utils import UserError

FLOAT32 = Precision("cpu", None)
BFLOAT16 = Precision("cpu", torch.bfloat16)


SMALL_DETR = DetrConfig(
    3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, num_queries=6, dropout=0.0
)
RECIPE = OptimConfig(lr=1e-3, lr_backbone=1e-3, epochs=10)


def make_training(precision: Precision = FLOAT32, groups: int = 1, **recipe: object) -> Trainer:
    """The same weights every time."""
    torch.manual_seed(0)
    detr = Detr(SMALL_DETR)
    detr.add_query_groups(groups, spread=1.0)
    criterion = SetCriterion(3, HungarianMatcher())
    return Trainer(detr, criterion, dataclasses.replace(RECIPE, **recipe), 4, precision)


def snapshot(detr: Detr) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in detr.state_dict().items()}


def test_a_step_changes_what_is_trained_and_nothing_else() -> None:
    training = make_training()
    before = snapshot(training.model)
    log = training.train_epoch([make_batch(3)])
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert log["lr"] == 1e-3 and log["loss"] > 0


def break_gradient(training: Trainer, steps: set[int]) -> None:
    """Make the gradient of these steps, counted from 1, not finite."""
    done = 0

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal done
        done += 1
        return gradient * float("inf") if done in steps else gradient

    training.model.query_embed.weight.register_hook(spoil)


def broken_batch() -> Batch:
    """Its images are ids 1 and 2; the second has a pixel that is not a number."""
    batch = make_batch(3)
    batch.images[1, 0, 3, 4] = float("nan")
    return batch


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_an_update_that_is_not_finite_is_left_out(what: str, batch_norm: str) -> None:
    training = make_training(ema_decay=0.9)
    if batch_norm == "train":
        torch.manual_seed(0)
        model = Detr(dataclasses.replace(SMALL_DETR, batch_norm="train"))
        training = Trainer(model, training.criterion, training.config, 4, FLOAT32)
    before = snapshot(training.model)
    if what == "gradient":
        break_gradient(training, {1})
    with pytest.raises(UserError, match=rf"epoch 1/10, step 1, images \[1, 2\]: the {what} is not finite"):
        training.train_epoch([broken_batch() if what == "loss" else make_batch(3)])
    after = snapshot(training.model)
    assert all(torch.equal(after[name], before[name]) for name in before if what == "loss" or "running" not in name)
    assert all(torch.equal(s["exp_avg"], torch.zeros_like(s["exp_avg"])) for s in training.optimizer.state.values())


@pytest.mark.parametrize("after", [0, 1])
def test_the_step_that_broke_is_named_whatever_follows(after: int) -> None:
    """The host learns of it one step late, or at the end of the epoch."""
    training = make_training()
    break_gradient(training, {2})
    with pytest.raises(UserError, match=r"epoch 1/10, step 2, images \[1, 2\]: the gradient is not finite"):
        training.train_epoch([make_batch(3)] * (2 + after))


def test_so_many_steps_that_are_not_finite_are_tolerated_and_reported() -> None:
    training, clean = make_training(skip_nonfinite=2), make_training()
    reports: list[dict] = []
    training.on_nonfinite = reports.append
    log = training.train_epoch([make_batch(3), broken_batch(), make_batch(3), broken_batch()])
    expected = clean.train_epoch([make_batch(3)] * 2)
    assert log["loss"] == expected["loss"]  # neither the weights nor the means know of the others
    for name, value in snapshot(clean.model).items():
        assert torch.equal(value, training.model.state_dict()[name]), name
    assert [(report["epoch"], report["step"]) for report in reports] == [(1, 2), (1, 4)]
    assert [image["image_id"] for image in reports[0]["images"]] == [1, 2]
    assert reports[0]["losses"]["loss"] == "nan" and reports[0]["images"][0]["boxes_cxcywh"]
    with pytest.raises(UserError, match="step 5"):
        training.train_epoch([broken_batch()])


def test_a_frozen_backbone_has_no_backward_pass() -> None:
    training = make_training()
    detr, criterion = training.model, training.criterion
    detr.freeze_backbone()
    batch = make_batch(3)
    assert not any(x.requires_grad for x in detr.backbone[0](batch.images))
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
    exact, half = make_training(), make_training(BFLOAT16)
    logs = [training.train_epoch([make_batch(3)] * 3) for training in (exact, half)]
    for name in ("loss", "loss_ce", "loss_bbox", "loss_giou"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=0.03) and logs[1][name] != logs[0][name]
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def rates(recipe: OptimConfig, updates: int, per_epoch: int) -> list[float]:
    return [recipe.lr_factor(update, per_epoch) for update in range(updates)]


def test_in_bfloat16_with_dropout_a_run_that_goes_on_is_one_that_never_stopped() -> None:
    def make() -> Trainer:
        torch.manual_seed(0)
        detr = Detr(dataclasses.replace(SMALL_DETR, dropout=0.1))
        return Trainer(detr, SetCriterion(3, HungarianMatcher()), RECIPE, 4, BFLOAT16)

    whole, first = make(), make()
    torch.manual_seed(1)
    whole.train_epoch([make_batch(3)] * 4)
    torch.manual_seed(1)
    first.train_epoch([make_batch(3)] * 2)
    saved = first.state() | {"model": snapshot(first.model)}
    second = make()
    second.model.load_state_dict(saved["model"])
    second.load_state(saved, Path("checkpoint.pth"))
    second.train_epoch([make_batch(3)] * 2)
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in second.model.state_dict().items())
    torch.manual_seed(2)  # dropout does matter
    first.train_epoch([make_batch(3)] * 2)
    assert not torch.equal(first.model.query_embed.weight, whole.model.query_embed.weight)


def test_learning_rate_schedules() -> None:
    assert rates(OptimConfig(lr_drop=2), 9, 2) == pytest.approx([1] * 4 + [0.1] * 4 + [0.01])
    warm = rates(OptimConfig(lr_drop=2, warmup_steps=3), 5, 2)
    assert warm == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 0.1])
    cosine = rates(OptimConfig(epochs=4, lr_schedule="cosine"), 9, 2)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * n / 8)) / 2 for n in range(9)]) and cosine[-1] == 0


def test_the_optimizer_follows_the_schedule_from_a_checkpoint_too() -> None:
    training = make_training(lr_drop=1, warmup_steps=1, lr_backbone=1e-4)
    log = training.train_epoch([make_batch(3)] * 4)
    assert log["lr"] == pytest.approx((0.5 + 3) / 4 * 1e-3)
    training.end_epoch(None)
    training.train_epoch([make_batch(3)])
    assert [group["lr"] for group in training.optimizer.param_groups] == pytest.approx([1e-4, 1e-5])
    again = make_training(lr_drop=1, warmup_steps=1, lr_backbone=1e-4)
    again.load_state({**training.state(), "model": training.model.state_dict()}, Path("c.pth"))
    again.train_epoch([make_batch(3)])
    assert again.steps_done == 2 and again.epochs_done == 1
    assert [group["lr"] for group in again.optimizer.param_groups] == pytest.approx([1e-4, 1e-5])


def test_the_best_score_is_kept() -> None:
    training = make_training()
    assert [training.end_epoch(ap) for ap in (0.2, None, 0.1, 0.3, 0.3)] == [True, False, False, True, False]
    assert (training.best["AP"], training.best["epoch"]) == (0.3, 3)


def test_without_an_ap_the_lowest_loss_is_the_best() -> None:
    training = make_training()
    losses = (3.0, 2.0, 2.0, 2.5, 1.0)
    assert [training.end_epoch(-1.0, loss) for loss in losses] == [True, True, False, False, True]
    assert training.best == {"AP": -1.0, "epoch": 4, "loss": 1.0}
    assert selection_key({"AP": -1.0, "epoch": 0}) < selection_key(training.best), "a file of before losses were kept"


def single_images(batch: Batch) -> list[Batch]:
    """The images of a batch one by one; they are of one size here, so that nothing is padded either way."""
    parts = []
    for row in range(len(batch.images)):
        t = batch.targets
        targets = Targets(
            t.labels[row : row + 1],
            t.boxes_cxcywh[row : row + 1],
            t.counts[row : row + 1],
            t.image_ids[row : row + 1],
            t.original_sizes_hw[row : row + 1],
        )
        parts.append(Batch(batch.images[row : row + 1], batch.padding_mask[row : row + 1], targets))
    return parts


@pytest.mark.parametrize("groups", [1, 3])
def test_accumulated_batches_equal_the_larger_batch(groups: int) -> None:
    """Loss, logged terms and gradients, although one image has 3 objects and the other one."""
    whole = make_batch(3, padded=False)
    assert len(set(whole.targets.counts)) == 2
    found = []
    for accumulate, batches in ((1, [whole]), (2, single_images(whole))):
        training = make_training(groups=groups, accumulate=accumulate, lr=0.0, lr_backbone=0.0, clip_max_norm=0)
        log = training.train_epoch(batches)
        assert training.steps_done == 1 and training.images == 2
        found.append((log, {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}))
    (log, gradients), (parts_log, parts_gradients) = found
    assert log.keys() == parts_log.keys() and gradients.keys() == parts_gradients.keys()
    for name, value in log.items():
        assert parts_log[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    a, b = (torch.cat([g.flatten() for g in grads.values()]) for grads in (gradients, parts_gradients))
    assert (a - b).norm() < 1e-3 * a.norm()


@pytest.mark.parametrize("limit", [0.25, 0.999])
def test_the_average_of_the_weights_follows_its_formula_and_nothing_else_changes(limit: float) -> None:
    """A run's first steps keep less of the average than the decay says: 2/11, 3/12, 4/13, ..."""
    batches = [make_batch(3, seed=n) for n in range(4)]
    plain, averaged = make_training(), make_training(ema_decay=limit)
    expected = snapshot(plain.model)
    for number, batch in enumerate(batches, start=1):
        plain.train_epoch([batch])
        decay = min(limit, (1 + number) / (10 + number))
        for name, value in plain.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    averaged.train_epoch(batches)
    for name, value in snapshot(plain.model).items():
        assert torch.equal(averaged.model.state_dict()[name], value), name
        torch.testing.assert_close(averaged.detector.state_dict()[name], expected[name])
    assert plain.detector is plain.model and not averaged.detector.training


@pytest.mark.parametrize("norm", [0.0, 0.1, 3.0])
def test_the_gradient_is_clipped_to_its_largest_norm(norm: float) -> None:
    """After one step the moments are a tenth of the gradient and a thousandth of its square."""
    training = make_training(clip_max_norm=norm, ema_decay=0.0)
    batch = make_batch(3)
    training.train_epoch([batch])
    reference = make_training().model.train()
    training.criterion(reference(batch.images, batch.padding_mask), batch.targets).total.backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert whole > 3
    for name, parameter in training.model.named_parameters():
        if name in gradients:
            expected = gradients[name] * (norm / whole if norm else 1.0)
            state = training.optimizer.state[parameter]
            torch.testing.assert_close(state["exp_avg"], expected / 10, rtol=1e-3, atol=1e-6, msg=name)
            torch.testing.assert_close(state["exp_avg_sq"], expected.square() / 1000, rtol=1e-3, atol=1e-9, msg=name)


def test_query_groups_teach_more_queries_and_leave_a_plain_detr() -> None:
    batch = make_batch(3)
    training = make_training(groups=3)
    detr = training.model.train()
    outputs = detr(batch.images, batch.padding_mask)
    assert outputs.logits.shape[1:3] == (3 * 2, 6)
    # Each group is what a DETR with its queries alone would say: groups do not see each other.
    for group in range(3):
        alone = Detr(SMALL_DETR).train()
        alone.load_state_dict(plain_state(detr)[0])
        if group:
            alone.query_embed.weight.data = detr.extra_queries.data[group - 1]
        expected = alone(batch.images, batch.padding_mask)
        torch.testing.assert_close(outputs.logits[:, 2 * group : 2 * group + 2], expected.logits, rtol=1e-4, atol=1e-5)
    # The loss is the mean over the groups.
    losses = training.criterion(outputs, batch.targets.repeated(3))
    apart = [
        training.criterion(DetrOutput(*(part[:, 2 * g : 2 * g + 2] for part in outputs[:2])), batch.targets).total
        for g in range(3)
    ]
    torch.testing.assert_close(losses.total, sum(apart) / 3)
    training.train_epoch([batch])
    assert (training.optimizer.state[detr.extra_queries]["exp_avg"] != 0).any()
    assert detr.eval()(batch.images, batch.padding_mask).logits.shape[1:3] == (2, 6)
    weights = detector_state(detr, [], {}, training.best)["model"]
    assert weights.keys() == Detr(SMALL_DETR).state_dict().keys()
    state = training.state()
    assert list(state["train_only"]) == ["extra_queries"]


def test_a_frozen_backbone_keeps_its_live_statistics() -> None:
    detr = Detr(dataclasses.replace(SMALL_DETR, batch_norm="train"))
    detr.freeze_backbone()
    before = snapshot(detr)
    Trainer(detr, SetCriterion(3, HungarianMatcher()), RECIPE, 4, FLOAT32).train_epoch([make_batch(3)])
    running = [name for name in before if "running" in name]
    assert running and all(torch.equal(detr.state_dict()[name], before[name]) for name in running)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("GET was unable to find an engine to execute this computation"),  # cuDNN, for its workspace
    ],
)
def test_running_out_of_memory_is_explained(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(training.model, "forward", fail)
    with pytest.raises(
        UserError, match=r"step 1: out of memory; its largest batch is 2 x 160x96 pixels, images \[1, 2\]"
    ):
        training.train_epoch([make_batch(3)])
    monkeypatch.setattr(training.model, "forward", lambda *_: torch.empty(2**60))
    with pytest.raises(UserError, match="out of memory"):
        training.train_epoch([make_batch(3)])


@pytest.mark.parametrize(
    ("amp", "native", "expected"),
    [("auto", True, "bfloat16"), ("auto", False, "float32"), ("bf16", False, "bfloat16"), ("off", True, "float32")],
)
def test_number_formats(amp: str, native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_room, "_cpu_has_bfloat16", lambda: native)
    assert str(pick_precision(amp, pick_device("cpu"))) == expected


def test_float16_is_refused_where_the_optimizer_would_take_infinite_gradients() -> None:
    assert pick_precision("auto", torch.device("mps")).dtype is None
    with pytest.raises(UserError, match="--amp fp16: not on mps"):
        pick_precision("fp16", torch.device("mps"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_an_epoch_on_a_gpu(amp: str) -> None:
    gpu = pick_device("cuda")
    precision = pick_precision(amp, gpu)
    model = make_training().model.to(gpu)
    criterion = SetCriterion(3, HungarianMatcher()).to(gpu)
    log = Trainer(model, criterion, RECIPE, 4, precision).train_epoch([make_batch(3)] * 3)
    assert log["loss"] == pytest.approx(make_training().train_epoch([make_batch(3)] * 3)["loss"], rel=0.1)


@needs_shared
@pytest.mark.slow
def test_a_short_training_in_bfloat16_stays_within_the_spread_of_float32_seeds(run: RunScript, tmp_path: Path) -> None:
    write_eight_images(tmp_path / "eight")
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
