"""Training: one update after another, what is counted meanwhile, and the state that a checkpoint needs to go on."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from detr import distributed
from detr.averaging import Means, WeightAverage
from detr.checkpoint import plain_state, random_state, restore_random_state
from detr.criterion import Losses, Normalisers, SetCriterion
from detr.device import Precision, out_of_memory_named
from detr.distributed import live_statistics
from detr.errors import UserError
from detr.model import Detr
from detr.schedule import Recipe
from detr.structures import Batch, Targets

NONE_YET = {"AP": -math.inf, "epoch": -1, "loss": math.inf}  # the best detector of a run before its first evaluation
SMALLEST_SCALE = 1.0  # of a float16 run's gradients: below it something other than rounding is wrong


class Training:
    """A run: the model with what moves on from update to update and is saved to go on with.

    Apart from the matching, nothing in an update waits for the device: whether its loss is finite is decided there, an
    update that is not is left out there, and the host learns of it during the next one.

    Args:
        model: the network, on its device; parameters that are frozen stay as they are.
        criterion: its loss.
        recipe: learning rates and the rest.
        updates_per_epoch: of this process.
        precision: the number format of the network's forward and backward pass.
        processes: those of the run.
        epochs_done: epochs that count as done.
        on_nonfinite: called with a report of each update that was left out.
    """

    def __init__(
        self,
        model: Detr,
        criterion: SetCriterion,
        recipe: Recipe,
        updates_per_epoch: int,
        precision: Precision,
        processes: distributed.Processes = distributed.ALONE,
        epochs_done: int = 0,
        on_nonfinite: Callable[[dict], None] = lambda report: None,
    ) -> None:
        self.model, self.criterion, self.recipe = model, criterion, recipe
        self.updates_per_epoch = updates_per_epoch
        self.precision = precision
        self.processes = processes
        self.device = next(model.parameters()).device
        self.epochs_done = epochs_done
        self.on_nonfinite = on_nonfinite
        self.updates_done = 0  # in the epoch under way
        self.means = Means()  # of the epoch under way
        self.best = dict(NONE_YET)
        self.out_of_patience = False
        self.skipped = 0
        self.images, self.seconds, self.seconds_waiting = 0, 0.0, 0.0  # of the epoch under way, in this process
        self.optimizer = _make_optimizer(model, recipe)
        self.scaler = torch.amp.GradScaler(precision.device_type, enabled=precision.dtype == torch.float16)
        self.average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        self._network = distributed.wrap(model)
        self._pending: tuple[Tensor, Losses, list[Targets]] | None = None  # a step that was not looked at yet
        self._statistics = live_statistics(model)

    @property
    def detector(self) -> Detr:
        """The weights that are evaluated and kept as the best: the average where there is one."""
        return self.average.model if self.average else self.model

    def train_epoch(self, batches: Iterable[Batch], on_update: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Train on the batches of an epoch, or on what is left of it; returns its means under the reference's log keys.

        `on_update` is called after every update.
        Raises UserError when one more is not finite than the recipe allows, or when memory runs out, naming the epoch,
        the update and its images.
        """
        self.model.train()
        self.images, self.seconds, self.seconds_waiting = 0, 0.0, 0.0
        began = time.monotonic()
        for update in self._updates(iter(batches)):
            self._set_learning_rates()
            with out_of_memory_named(self._where(self.updates_done + 1), update):
                before = [statistic.clone() for statistic in self._statistics]
                losses = self._gradients(update)
                finite = self._step(losses)
            for statistic, old in zip(self._statistics, before, strict=True):
                statistic.copy_(torch.where(finite, statistic, old))
            self.means.add(losses, finite, self.optimizer.param_groups[0]["lr"])
            self.updates_done += 1
            if self.average:
                self.average.update(self._updates_so_far)
            # From a GPU a copy into pinned memory, which is there once the host waits for anything later.
            on_host = finite.to("cpu", non_blocking=self.device.type == "cuda")
            self._pending = on_host, losses, [batch.targets for batch in update]
            self.images += sum(len(batch.images) for batch in update) * self.processes.count
            self.seconds = time.monotonic() - began
            on_update()
        self._settle_after_waiting()
        return self.means.log_terms(self.criterion)

    def _settle_after_waiting(self) -> None:
        """Wait for the device, then look at whether the last step was finite."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._settle()

    def _settle(self) -> None:
        """Look at whether the last step was finite; the host has waited for the device since."""
        if self._pending is None:
            return
        (finite, losses, targets), self._pending = self._pending, None
        if finite:
            return
        where = self._where(self.updates_done)
        named = {name: float(value) for name, value in {"loss": losses.total, **losses.terms}.items()}
        images = distributed.gathered([image for one in targets for image in _describe(one)])
        written = {name: value if math.isfinite(value) else str(value) for name, value in named.items()}  # as JSON can
        self.on_nonfinite(
            {"epoch": self.epochs_done + 1, "step": self.updates_done, "losses": written, "images": images}
        )
        self.skipped += 1
        if self.skipped > self.recipe.skip_nonfinite:
            ids = [image["image_id"] for image in images]
            what = "the loss is not finite (NaN or infinity)"
            if math.isfinite(named["loss"]):
                what = "the gradient is not finite (NaN or infinity)"
                if self.scaler.is_enabled():
                    what = "float16 gradients overflow at any scale (--amp off computes in float32)"
            raise UserError(
                f"{where}, images {ids}: {what}; the weights were left as they were. A smaller --lr or --clip_max_norm "
                "usually helps; so does a look at these images"
            )

    def end_epoch(self, ap: float | None, loss: float = math.inf) -> bool:
        """Count an epoch as done, with its AP and validation loss where it was evaluated.

        Returns whether that is the best so far; where AP is not defined (-1), the lowest loss is.
        """
        candidate = {"AP": ap, "epoch": self.epochs_done, "loss": loss}
        is_best = ap is not None and goodness(candidate) > goodness(self.best)
        if ap is not None and candidate["epoch"] == self.best["epoch"]:  # again, after a kill while it was saved
            is_best = goodness(candidate) >= goodness(self.best)
        if is_best:
            self.best = candidate
        self.epochs_done += 1
        self.updates_done, self.means = 0, Means()
        return is_best

    def state(self) -> dict:
        """The part of a checkpoint that continues training, under the reference's keys and ours.

        Raises UserError when the last update was not finite, as `train_epoch` does.
        """
        self._settle_after_waiting()
        return {
            "optimizer": self.optimizer.state_dict(),
            # What torch's StepLR would hold.
            "lr_scheduler": {
                "step_size": self.recipe.lr_drop,
                "gamma": 0.1,
                "base_lrs": [self.recipe.lr, self.recipe.lr_backbone],
                "last_epoch": self.epochs_done,
                "_step_count": self.epochs_done + 1,
            },
            "epoch": self.epochs_done - 1,
            "step": {
                "updates_done": self.updates_done,
                "updates_per_epoch": self.updates_per_epoch,
                "means": self.means.state(),
            },
            "out_of_patience": self.out_of_patience,
            "best": self.best,
            "skipped": self.skipped,
            "ema": plain_state(self.average.model)[0] if self.average else None,
            "train_only": plain_state(self.model)[1],
            "scaler": self.scaler.state_dict(),
            "rng": distributed.gathered([random_state()]),  # of every process
        }

    def restore(self, checkpoint: dict, path: Path) -> None:
        """Go on from a checkpoint; learning rates and weight decay stay those asked for now.

        A checkpoint inside an epoch of other updates (another batch size, other processes) begins that epoch again.
        Raises UserError when it was made for other trained parameters.
        """
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise UserError(
                f"{path}: its optimiser trained other parameters than this command would; what is frozen, "
                "--batch_norm and --query_groups have to be as they were"
            ) from error
        self.epochs_done = checkpoint["epoch"] + 1
        self.best = checkpoint.get("best", self.best)
        self.skipped = checkpoint.get("skipped", 0)
        step = checkpoint.get("step")
        if step and step["updates_per_epoch"] == self.updates_per_epoch:
            self.updates_done = step["updates_done"]
            self.means.restore(step["means"], self.device)
        if self.average:
            saved = checkpoint.get("ema") or checkpoint["model"]
            self.average.model.load_state_dict(saved | plain_state(self.average.model)[1])
        if checkpoint.get("scaler"):
            self.scaler.load_state_dict(checkpoint["scaler"])
        if len(states := checkpoint.get("rng", [])) == self.processes.count:
            restore_random_state(states[self.processes.rank])

    @property
    def _updates_so_far(self) -> int:
        return self.epochs_done * self.updates_per_epoch + self.updates_done

    def _where(self, update: int) -> str:
        return f"epoch {self.epochs_done + 1}/{self.recipe.epochs}, step {update}"

    def _set_learning_rates(self) -> None:
        factor = self.recipe.rate_factor(self._updates_so_far, self.updates_per_epoch)
        rates = (self.recipe.lr, self.recipe.lr_backbone)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
            group["weight_decay"] = self.recipe.weight_decay

    def _updates(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """The batches of one update at a time; the time spent on waiting for them is counted."""
        while True:
            began = time.monotonic()
            update = list(itertools.islice(batches, self.recipe.accumulate))
            self.seconds_waiting += time.monotonic() - began
            if not update:
                return
            yield update

    def _gradients(self, update: list[Batch]) -> Losses:
        """Forward and backward through every batch of an update, in this process; its losses over all processes."""
        self.optimizer.zero_grad(set_to_none=True)
        groups = self.model.query_groups
        queries = self.model.config.num_queries
        parts = [self.criterion.normalisers(batch.targets.repeated(groups), queries) for batch in update]
        mine = torch.tensor(sum(parts[1:], parts[0]), dtype=torch.float64)
        whole = Normalisers(*distributed.summed(mine).tolist())
        found: list[Losses] = []
        for batch in update:
            is_last = len(found) + 1 == len(update)
            with contextlib.nullcontext() if is_last or self._network is self.model else self._network.no_sync():
                moved = batch.to(self.device)
                with self.precision.autocast():
                    outputs = self._network(moved.images, moved.padding_mask)
                losses = self.criterion(outputs, moved.targets.repeated(groups), whole)
                self._settle()  # the matching has just waited for the device
                # The mean over the processes is taken of the gradients; normalised by the whole they are to be summed.
                self.scaler.scale(losses.total * self.processes.count).backward()
            found.append(Losses(losses.total.detach(), losses.terms))
        return _over_processes(sum(found[1:], found[0]))

    def _step(self, losses: Losses) -> Tensor:
        """One step of the optimiser, left out where loss or gradients are not finite; returns whether they were, (),
        still on the device. With float16 infinite gradients are normal: then only the loss and the scale count.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_max_norm or math.inf)
        finite = torch.isfinite(losses.total)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return finite & (self.scaler.scale(torch.ones_like(losses.total)) >= SMALLEST_SCALE)
        finite = finite & torch.isfinite(norm)
        if self.device.type in ("cpu", "cuda"):
            self.optimizer.found_inf = 1 - finite.float()  # what a GradScaler tells a fused optimiser
            self.optimizer.step()
        elif finite:  # other devices' fused optimisers do not listen
            self.optimizer.step()
        return finite


def goodness(best: dict) -> tuple[float, float]:
    """Return what detectors are compared by: AP; without any object to find, where AP is -1, the validation loss."""
    return best["AP"], -best.get("loss", math.inf) if best["AP"] == -1 else 0.0


def _make_optimizer(model: Detr, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over what is trained: the backbone's parameters in a group of their own."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.startswith("backbone.0.")]},
        {"params": [p for name, p in trained if name.startswith("backbone.0.")]},
    ]
    # Fused: one pass over the parameters, which can also leave an update out without asking the host.
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _over_processes(losses: Losses) -> Losses:
    values = distributed.summed(torch.stack((losses.total, *losses.terms.values())))
    return Losses(values[0], dict(zip(losses.terms, values[1:], strict=True)))


def _describe(targets: Targets) -> list[dict]:
    """A batch's objects in plain values, an entry for each image."""
    return [
        {"image_id": image_id, "labels": labels[:count].tolist(), "boxes_cxcywh": boxes[:count].tolist()}
        for image_id, labels, boxes, count in zip(
            targets.image_ids, targets.labels, targets.boxes_cxcywh, targets.counts, strict=True
        )
    ]
