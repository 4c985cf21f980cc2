"""Training: the optimiser and its schedule, one epoch, and the means that are logged."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from detr.checkpoint import random_state, restore_random_state
from detr.criterion import Losses, SetCriterion
from detr.device import Precision
from detr.errors import UserError
from detr.model import Detr
from detr.structures import Batch

SMALLEST_SCALE = 1.0  # of a float16 run's gradients: below it something other than rounding is wrong


class Means:
    """Running means of the loss and its terms over the steps of an epoch; the sums stay on the device."""

    def __init__(self) -> None:
        self.steps = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Losses) -> None:
        """Count one step."""
        self.steps += 1
        for name, value in {"loss": losses.total.detach(), **losses.terms}.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def mean(self, name: str) -> float:
        """Mean of `loss` or of a term so far."""
        return float(self._sums[name]) / self.steps

    def log_terms(self, criterion: SetCriterion) -> dict[str, float]:
        """Every mean under the reference's log keys: `loss_x` weighted as in the total, `loss_x_unscaled` as it is."""
        if not self.steps:
            return {}
        names, values = list(self._sums), (torch.stack(list(self._sums.values())) / self.steps).tolist()
        means = dict(zip(names, values, strict=True))
        log = {"class_error": means["class_error"], "loss": means.pop("loss")}
        log |= {
            name: mean * weight for name, mean in means.items() if (weight := criterion.weight_of(name)) is not None
        }
        return log | {f"{name}_unscaled": mean for name, mean in means.items()}


class Training:
    """What moves on from epoch to epoch and is saved to go on with: AdamW, its schedule, and the best score.

    Args:
        model: the network; parameters that are frozen are left out.
        lr, lr_backbone: learning rates of everything but the backbone, and of the backbone.
        weight_decay: of AdamW.
        lr_drop: epochs until both rates drop to a tenth.
        precision: float16 needs its gradients scaled.
        epochs_done: epochs that count as done.
    """

    def __init__(
        self,
        model: Detr,
        lr: float,
        lr_backbone: float,
        weight_decay: float,
        lr_drop: int,
        precision: Precision,
        epochs_done: int = 0,
    ) -> None:
        self.rates = (lr, lr_backbone)
        self.weight_decay = weight_decay
        self.lr_drop = lr_drop
        self.epochs_done = epochs_done
        self.best = {"AP": -math.inf, "epoch": -1}
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if not name.startswith("backbone.0.")]},
            {"params": [p for name, p in trained if name.startswith("backbone.0.")]},
        ]
        # Fused: one pass over the parameters, which can also leave an update out without asking the host.
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)
        self.scaler = torch.amp.GradScaler(precision.device_type, enabled=precision.dtype == torch.float16)
        self.set_learning_rates()

    def set_learning_rates(self) -> None:
        """Rates of the coming epoch: a function of the epochs done alone, so that a continued run needs no history."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * 0.1 ** (self.epochs_done // self.lr_drop)
            group["weight_decay"] = self.weight_decay

    def update(self, model: Detr, loss: Tensor, clip_max_norm: float) -> Tensor:
        """One step of the optimiser, left out where loss or gradients are not finite; returns whether they were, (),
        still on the device. With float16 infinite gradients are normal: then only the loss and the scale count.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_max_norm or math.inf)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return torch.isfinite(loss.detach()) & (self.scaler.scale(torch.ones_like(loss.detach())) >= SMALLEST_SCALE)
        finite = torch.isfinite(loss.detach()) & torch.isfinite(norm)
        self.optimizer.found_inf = 1 - finite.float()  # what a GradScaler tells a fused optimiser
        self.optimizer.step()
        return finite

    def end_epoch(self, ap: float | None) -> bool:
        """Count an epoch as done, with its AP where it was evaluated; returns whether that is the best so far."""
        is_best = ap is not None and ap > self.best["AP"]
        if is_best:
            self.best = {"AP": ap, "epoch": self.epochs_done}
        self.epochs_done += 1
        self.set_learning_rates()
        return is_best

    def state(self) -> dict:
        """The part of a checkpoint that continues training, under the reference's keys and ours."""
        return {
            "optimizer": self.optimizer.state_dict(),
            # What torch's StepLR would hold, so that the reference code can go on with our checkpoint too.
            "lr_scheduler": {
                "step_size": self.lr_drop,
                "gamma": 0.1,
                "base_lrs": list(self.rates),
                "last_epoch": self.epochs_done,
                "_step_count": self.epochs_done + 1,
            },
            "epoch": self.epochs_done - 1,
            "best": self.best,
            "scaler": self.scaler.state_dict(),
            "rng": random_state(),
        }

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Go on from a checkpoint; learning rates and weight decay stay those asked for now.

        Raises UserError when it was made for other trained parameters.
        """
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise UserError(f"{path}: its optimiser trained other parameters; is --lr_backbone as it was?") from error
        self.epochs_done = checkpoint["epoch"] + 1
        self.best = checkpoint.get("best", self.best)
        self.set_learning_rates()
        if checkpoint.get("scaler"):
            self.scaler.load_state_dict(checkpoint["scaler"])
        if "rng" in checkpoint:
            restore_random_state(checkpoint["rng"])


def train_one_epoch(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    training: Training,
    device: torch.device,
    precision: Precision,
    title: str,
    clip_max_norm: float,
    on_step: Callable[[Means], None] = lambda means: None,
) -> dict[str, float]:
    """Train on every batch once and return the means of the epoch under the reference's log keys.

    Apart from the matching, nothing in a step waits for the device: whether its loss is finite is decided there, an
    update that is not is left out there, and the host learns of it at the next step.
    Raises UserError when a loss is not finite, naming the epoch (`title`), step and images.
    """
    model.train()
    means = Means()
    previous: tuple[Tensor, str] | None = None
    for step, batch in enumerate(batches, start=1):
        moved = batch.to(device)
        where = f"{title}, step {step}: images {batch.targets.image_ids}"
        with precision.autocast():
            outputs = model(moved.images, moved.padding_mask)
        try:
            losses = criterion(outputs, moved.targets)
        except FloatingPointError as error:
            raise UserError(_not_finite(where, str(error))) from error
        _stop_unless_finite(previous)  # the matching has just waited for the device: reading this costs nothing
        previous = training.update(model, losses.total, clip_max_norm), where
        means.add(losses)
        on_step(means)
    _stop_unless_finite(previous)
    return {"lr": training.optimizer.param_groups[0]["lr"], **means.log_terms(criterion)}


def _stop_unless_finite(update: tuple[Tensor, str] | None) -> None:
    if update is not None and not update[0]:
        raise UserError(_not_finite(update[1], "the loss or its gradient"))


def _not_finite(where: str, what: str) -> str:
    return (
        f"{where}: {what} is not finite (NaN or infinity); the weights were left as they were. A smaller --lr or "
        "--clip_max_norm usually helps; so does a look at these images"
    )
