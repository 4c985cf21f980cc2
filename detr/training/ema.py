"""Exponential moving average of a model's weights."""

import copy

import torch
from torch import nn

from detr.training.distributed import batch_norm_statistics


class ModelEma:
    """An exponential moving average of a model's weights, which usually evaluates better than the weights themselves.

    `decay` is the share of the old average that a step keeps; the first steps keep less, (1 + n) / (10 + n) after n, so
    that the average is not held back by where the run began. Freeze the model before.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        averaged = dict(self.model.named_parameters())
        trained = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
        self._weights = [value for _, value in trained] + batch_norm_statistics(model)
        self._averages = [averaged[name].detach() for name, _ in trained] + batch_norm_statistics(self.model)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Move towards the model after its `steps`-th step."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
