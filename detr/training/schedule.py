"""Hyperparameters of the optimizer, and the learning-rate schedule."""

import dataclasses
import math

from utils import UserError

LR_SCHEDULES = ("step", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Hyperparameters of a run. Raises UserError for values that no run can have.

    The schedule `step` drops both learning rates to a tenth every `lr_drop` epochs (DETR, section 4); `cosine` lets
    them fall to 0 along half a cosine over the run (Loshchilov and Hutter 2017, equation 5).
    """

    lr: float = 1e-4  # of everything but the backbone
    lr_backbone: float = 1e-5
    weight_decay: float = 1e-4
    clip_max_norm: float = 0.1  # largest norm of the gradient of a step; 0 never clips
    epochs: int = 300
    lr_schedule: str = "step"
    lr_drop: int = 200  # epochs until a drop to a tenth; main.py takes two thirds of all
    warmup_steps: int = 0  # over which the learning rates rise linearly at the start
    accumulate: int = 1  # batches whose gradients make one step
    ema_decay: float = 0.0  # of the average of the weights; 0 keeps none
    patience: int = 0  # epochs without a better AP after which the run stops; 0 never does
    skip_nonfinite: int = 0  # steps that are left out, as loss or gradient is not finite, before the run stops

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay must be in [0, 1), got {self.ema_decay}")

    def lr_factor(self, step: int, steps_per_epoch: int) -> float:
        """Return what the learning rates are multiplied by in a step, counted from 0. It depends on the step
        alone, so that a resumed run needs no state.
        """
        if self.lr_schedule == "cosine":
            factor = (1 + math.cos(math.pi * min(1.0, step / (self.epochs * steps_per_epoch)))) / 2
        else:
            factor = 0.1 ** (step // steps_per_epoch // self.lr_drop)
        return factor * min(1.0, (step + 1) / (self.warmup_steps + 1))
