"""Running means of what an epoch logs, and the time that remains."""

import time

import torch
from torch import Tensor

from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.models.criterion import SetCriterion


class MetricLogger:
    """Running means of the loss, its terms and the learning rate; the sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None  # of every name, and how many were counted
        self._lrs, self._steps = 0.0, 0

    def update(self, terms: dict[str, Tensor], counts: Tensor | None = None, lr: float = 0.0) -> None:
        """Count `Losses.terms` of one step, unless `counts`, (), which may still be on the device, is False."""
        self._names = list(terms)
        values = torch.stack((*terms.values(), torch.ones_like(terms["loss"])))
        if counts is not None:
            values = torch.where(counts, values, 0)
        self._sums = values if self._sums is None else self._sums + values
        self._lrs += lr
        self._steps += 1

    def mean(self, name: str) -> float:
        """Return the mean of `loss` or of a term so far; NaN where nothing was counted."""
        return self._means()[name] if self._names else float("nan")

    def log_terms(self, criterion: SetCriterion) -> dict[str, float]:
        """Return all means under the reference's log keys: `loss_x` weighted as in the total, `loss_x_unscaled` not."""
        if not self._names:
            return {}
        means = self._means()
        log = {"lr": self._lrs / self._steps, "class_error": means["class_error"], "loss": means.pop("loss")}
        log |= {
            name: mean * weight for name, mean in means.items() if (weight := criterion.weight_of(name)) is not None
        }
        return log | {f"{name}_unscaled": mean for name, mean in means.items()}

    def state(self) -> dict:
        """Return what a checkpoint in the middle of an epoch holds of them."""
        sums = None if self._sums is None else self._sums.cpu()
        return {"names": self._names, "sums": sums, "lrs": self._lrs, "steps": self._steps}

    def load_state(self, state: dict, device: torch.device) -> None:
        """Continue from `state`, with the sums on the device that computes the losses."""
        self._names, self._lrs, self._steps = state["names"], state["lrs"], state["steps"]
        self._sums = None if state["sums"] is None else state["sums"].to(device)

    def _means(self) -> dict[str, float]:
        *sums, count = self._sums.tolist()
        return {name: value / count if count else float("nan") for name, value in zip(self._names, sums, strict=True)}


class TimeLeft:
    """How long the remaining epochs will take, from the mean of those that are done: from `first_whole_epoch` on, the
    first, counted from 0, that is measured from beginning to end.
    """

    def __init__(self, epochs: int, first_whole_epoch: int) -> None:
        self._epochs, self._first, self._began = epochs, first_whole_epoch, time.monotonic()

    def after(self, epoch: int) -> float:
        """Return the seconds that remain after an epoch; 0 while nothing is known."""
        now = time.monotonic()
        if epoch < self._first:
            self._began = now  # the rest of an epoch does not tell how long one takes
        return (now - self._began) / max(1, epoch + 1 - self._first) * (self._epochs - epoch - 1)


def deciding_ap(log: dict) -> float | None:
    """Return the AP of an epoch by which the best one is chosen: of masks where they are learnt, else of boxes; None
    where nothing was evaluated.
    """
    return log.get("test_coco_eval_masks", log.get("test_coco_eval_bbox", [None]))[0]


def coco_lines(metrics: dict[str, list[float]]) -> str:
    """Return the 12 COCO numbers of boxes (`bbox`), and of `masks` where there are any, one a line."""
    named = [
        (name if kind == "bbox" else f"mask {name}", value)
        for kind, numbers in metrics.items()
        for name, value in zip(COCO_NUMBERS, numbers, strict=True)
    ]
    width = max(len(name) for name, _ in named) + 1
    return "\n".join(f"{name:{width}} {value:.4f}" for name, value in named)


def summary_line(log: dict, epochs: int, best: dict, seconds_left: float) -> str:
    """Return one epoch in one line."""
    words = [f"epoch {log['epoch'] + 1}/{epochs}", f"loss {log['train_loss']:.3f}"]
    if "test_coco_eval_bbox" in log:
        ap, ap50 = log["test_coco_eval_bbox"][:2]
        star = " (best so far)" if best["epoch"] == log["epoch"] else ""
        scores = [f"AP {ap:.3f}", f"AP50 {ap50:.3f}{star}"] if ap >= 0 else [f"AP not defined{star}"]
        if "test_coco_eval_masks" in log:
            scores.append(f"mask AP {log['test_coco_eval_masks'][0]:.3f}")
        words += [f"val loss {log['test_loss']:.3f}", *scores]
    words += [f"lr {log['train_lr']:.1e}", f"{log['images_per_second']:.1f} images/s", f"{log['seconds']:.0f} s"]
    return "  ".join(words + ([f"{_duration(seconds_left)} left"] if seconds_left else []))


def _duration(seconds: float) -> str:
    """Return a time that a person can read: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
