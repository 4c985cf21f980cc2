"""Hyperparameters of the optimizer, and the learning-rate schedule."""

import dataclasses
import math

from utils import UserError

LR_SCHEDULES = ("step", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Hyperparameters of a run. Raises UserError for values that no run can have.

    Args:
        lr, lr_backbone: learning rates of everything but the backbone, and of the backbone.
        weight_decay: of AdamW.
        clip_max_norm: largest norm of the gradient of a step; 0 never clips.
        epochs: length of the run.
        lr_schedule: `step` drops both rates to a tenth every `lr_drop` epochs (DETR, section 4); `cosine` lets them
            fall to 0 along half a cosine over the run (Loshchilov and Hutter 2017, equation 5).
        warmup_steps: steps over which the rates rise linearly at the start.
        accumulate: batches whose gradients make one step.
        ema_decay: of the average of the weights; 0 keeps none.
        patience: epochs without a better AP after which the run stops; 0 never does.
        skip_nonfinite: how many steps with a loss or gradient that is not finite are left out before the run stops.
    """

    lr: float = 1e-4
    lr_backbone: float = 1e-5
    weight_decay: float = 1e-4
    clip_max_norm: float = 0.1
    epochs: int = 300
    lr_schedule: str = "step"
    lr_drop: int = 200
    warmup_steps: int = 0
    accumulate: int = 1
    ema_decay: float = 0.0
    patience: int = 0
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        if self.lr_schedule not in LR_SCHEDULES:
            raise UserError(f"lr_schedule must be one of {', '.join(LR_SCHEDULES)}, got {self.lr_schedule!r}")
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
