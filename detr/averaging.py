"""Averages: of the losses over the updates of an epoch, and of the weights over the updates of a run."""

import copy

import torch
from torch import Tensor, nn

from detr import distributed
from detr.criterion import Losses, SetCriterion

HOST = torch.device("cpu")


class Means:
    """Running means of the loss, its terms and the learning rate; the sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None  # of every name, and how many were counted
        self._rates, self._updates = 0.0, 0

    def add(self, losses: Losses, counts: Tensor | None = None, rate: float = 0.0) -> None:
        """Count the losses of one batch or update, unless `counts`, (), which may still be on the device, is False."""
        self._names = ["loss", *losses.terms]
        values = torch.stack((losses.total.detach(), *losses.terms.values(), torch.ones_like(losses.total.detach())))
        if counts is not None:
            values = torch.where(counts, values, 0)
        self._sums = values if self._sums is None else self._sums + values
        self._rates += rate
        self._updates += 1

    def mean(self, name: str) -> float:
        """Mean of `loss` or of a term so far; NaN where nothing was counted."""
        return self._means()[name] if self._names else float("nan")

    def log_terms(self, criterion: SetCriterion) -> dict[str, float]:
        """Every mean under the reference's log keys: `loss_x` weighted as in the total, `loss_x_unscaled` as it is."""
        if not self._names:
            return {}
        means = self._means()
        log = {"lr": self._rates / self._updates, "class_error": means["class_error"], "loss": means.pop("loss")}
        log |= {
            name: mean * weight for name, mean in means.items() if (weight := criterion.weight_of(name)) is not None
        }
        return log | {f"{name}_unscaled": mean for name, mean in means.items()}

    def over_processes(self) -> "Means":
        """The same over the batches of all processes, of which some may have had none."""
        states = [state for state in distributed.gathered([self.state()]) if state["names"]]
        together = Means()
        for state in states:
            sums = state["sums"] if together._sums is None else together._sums + state["sums"]
            together.restore({**state, "sums": sums, "updates": together._updates + state["updates"]}, HOST)
        return together

    def state(self) -> dict:
        """What a checkpoint in the middle of an epoch holds of them."""
        sums = None if self._sums is None else self._sums.cpu()
        return {"names": self._names, "sums": sums, "rates": self._rates, "updates": self._updates}

    def restore(self, state: dict, device: torch.device) -> None:
        """Go on from `state`, with the sums on the device that computes the losses."""
        self._names, self._rates, self._updates = state["names"], state["rates"], state["updates"]
        self._sums = None if state["sums"] is None else state["sums"].to(device)

    def _means(self) -> dict[str, float]:
        *sums, count = self._sums.tolist()
        return {name: value / count if count else float("nan") for name, value in zip(self._names, sums, strict=True)}


class WeightAverage:
    """An exponential moving average of a model's weights, which is the steadier detector of the two.

    Args:
        model: what is averaged, with what is frozen frozen already.
        decay: share of the old average that an update keeps; the first updates keep less, so that the average is not
            held back by where the run began: (1 + n) / (10 + n) after n updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        kept = dict(self.model.named_parameters())
        trained = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
        self._theirs = [value for _, value in trained] + distributed.live_statistics(model)
        self._ours = [kept[name].detach() for name, _ in trained] + distributed.live_statistics(self.model)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Move towards the model after its `updates`-th update."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._ours, self._theirs, 1 - decay)
