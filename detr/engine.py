"""One epoch of training, and the means that are logged."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

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


def parameter_groups(model: Detr, lr: float, lr_backbone: float) -> list[dict]:
    """Trained parameters in two groups: the backbone at `lr_backbone`, everything else at `lr`."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in trained if not name.startswith("backbone.0.")], "lr": lr},
        {"params": [p for name, p in trained if name.startswith("backbone.0.")], "lr": lr_backbone},
    ]


def train_one_epoch(
    model: Detr,
    criterion: SetCriterion,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    epoch: int,
    clip_max_norm: float,
    on_step: Callable[[Means], None] = lambda means: None,
) -> dict[str, float]:
    """Train on every batch once and return the means of the epoch under the reference's log keys.

    Raises UserError before the weights change when a loss is not finite, naming the epoch, step and images.
    """
    model.train()
    means = Means()
    for step, batch in enumerate(batches, start=1):
        moved = batch.to(device)
        losses = _finite_losses(model, criterion, moved, f"epoch {epoch}, step {step}")
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if clip_max_norm > 0:
            nn.utils.clip_grad_norm_(model.parameters(), clip_max_norm)
        optimizer.step()
        means.add(losses)
        on_step(means)
    return {"lr": optimizer.param_groups[0]["lr"], **means.log_terms(criterion)}


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
