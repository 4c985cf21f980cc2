"""Training: the optimiser and its schedule, one epoch, and the means that are logged."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from detr.checkpoint import random_state, restore_random_state
from detr.criterion import Losses, SetCriterion
from detr.errors import UserError
from detr.model import Detr
from detr.structures import Batch


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
        lr, lr_backbone: learning rates of the backbone and of everything else.
        weight_decay: of AdamW.
        lr_drop: epochs until both rates drop to a tenth.
        epochs_done: epochs that count as done.
    """

    def __init__(
        self, model: Detr, lr: float, lr_backbone: float, weight_decay: float, lr_drop: int, epochs_done: int = 0
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
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
        self.set_learning_rates()

    def set_learning_rates(self) -> None:
        """Rates of the coming epoch: a function of the epochs done alone, so that a continued run needs no history."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * 0.1 ** (self.epochs_done // self.lr_drop)
            group["weight_decay"] = self.weight_decay

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
        if "rng" in checkpoint:
            restore_random_state(checkpoint["rng"])


def train_one_epoch(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    title: str,
    clip_max_norm: float,
    on_step: Callable[[Means], None] = lambda means: None,
) -> dict[str, float]:
    """Train on every batch once and return the means of the epoch under the reference's log keys.

    Raises UserError before the weights change when a loss is not finite, naming the epoch (`title`), step and images.
    """
    model.train()
    means = Means()
    for step, batch in enumerate(batches, start=1):
        moved = batch.to(device)
        losses = _finite_losses(model, criterion, moved, f"{title}, step {step}")
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if clip_max_norm > 0:
            nn.utils.clip_grad_norm_(model.parameters(), clip_max_norm)
        optimizer.step()
        means.add(losses)
        on_step(means)
    return {"lr": optimizer.param_groups[0]["lr"], **means.log_terms(criterion)}


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes CUDA, then MPS, then the CPU. Raises UserError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from error
    return device


def _finite_losses(model: Detr, criterion: SetCriterion, batch: Batch, where: str) -> Losses:
    try:
        losses = criterion(model(batch.images, batch.padding_mask), batch.targets)
        if not torch.isfinite(losses.total):
            broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)]
            raise FloatingPointError(", ".join(broken))
    except FloatingPointError as error:
        raise UserError(
            f"{where}: {error} is not finite (NaN or infinity) for images {batch.targets.image_ids}; the weights were "
            "left as they were. A smaller --lr or --clip_max_norm usually helps; so does a look at these images"
        ) from error
    return losses
