"""Training: one optimizer step after another, what is counted meanwhile, and what a checkpoint needs to resume."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from detr.models.cpu_kernels import trim_malloc
from detr.models.criterion import MatchedQuerySelector, Normalizers, SetCriterion
from detr.models.detr import Detr
from detr.models.weights import best_weights, plain_state, random_state, restore_random_state
from detr.structures import Batch, Targets
from detr.training import distributed
from detr.training.device import Precision, explain_oom, peak_memory_mib
from detr.training.ema import ModelEma
from detr.training.meters import MetricLogger
from detr.training.schedule import OptimConfig
from utils import UserError

NO_EVALUATION_YET = {"AP": -math.inf, "epoch": -1, "loss": math.inf}  # before a run has a best detector
SMALLEST_SCALE = 1.0  # of a float16 run's gradients: below it something other than rounding is wrong


class Trainer:
    """The model with its optimizer, EMA and counters: everything that changes from step to step and is saved to resume.

    Apart from the matching, nothing in a step waits for the GPU: whether its loss is finite is decided there, a step
    that is not finite is left out there, and the host learns of it during the next step.

    `model` is on its device, and its parameters that are frozen stay as they are; `epochs_done` count as done;
    `on_nonfinite` is called with a report of each step that was left out.
    """

    def __init__(
        self,
        model: Detr,
        criterion: SetCriterion,
        config: OptimConfig,
        steps_per_epoch: int,
        precision: Precision,
        world: distributed.World = distributed.SINGLE_PROCESS,
        epochs_done: int = 0,
        on_nonfinite: Callable[[dict], None] = lambda report: None,
    ) -> None:
        self.model, self.criterion, self.config = model, criterion, config
        self.steps_per_epoch, self.precision, self.world = steps_per_epoch, precision, world
        self.device = next(model.parameters()).device
        self.on_nonfinite = on_nonfinite
        self.epochs_done = epochs_done
        self.steps_done = 0  # in the current epoch, as are the next two lines
        self.metrics = MetricLogger()
        self.images, self.seconds, self.seconds_data = 0, 0.0, 0.0
        self.best = dict(NO_EVALUATION_YET)
        self.out_of_patience = False
        self.skipped = 0
        self.optimizer = _make_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(precision.device_type, enabled=precision.dtype == torch.float16)
        self.ema = ModelEma(model, config.ema_decay) if config.ema_decay else None
        self._ddp_model = distributed.wrap_ddp(model)
        self._batch_norm = distributed.batch_norm_statistics(model)
        self._pending_check: tuple[Tensor, dict[str, Tensor], list[Targets]] | None = None  # of the last step

    @property
    def detector(self) -> Detr:
        """The weights that are evaluated and kept as the best: the EMA where there is one."""
        return self.ema.model if self.ema else self.model

    def train_epoch(self, batches: Iterable[Batch], on_step: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Train on the batches of an epoch, or of the rest of it; return its means under the reference's log keys.

        `on_step` is called after every step. Raises UserError when one more step is not finite than the config allows,
        or when memory runs out, naming the epoch, the step and its images.
        """
        self.model.train()
        self.images, self.seconds, self.seconds_data = 0, 0.0, 0.0
        began = time.monotonic()
        for step in self._grouped_by_step(iter(batches)):
            self._set_learning_rates()
            with explain_oom(self._where(self.steps_done + 1), step):
                batch_norm = [statistic.clone() for statistic in self._batch_norm]
                terms = self._forward_backward(step)
                finite = self._optimizer_step(terms["loss"])
            for statistic, before in zip(self._batch_norm, batch_norm, strict=True):  # of a step that was left out
                statistic.copy_(torch.where(finite, statistic, before))
            self.metrics.update(terms, finite, self.optimizer.param_groups[0]["lr"])
            self.steps_done += 1
            if self.ema:
                self.ema.update(self._global_step)
            # From a GPU a copy into pinned memory, which is there once the host waits for anything later.
            on_host = finite.to("cpu", non_blocking=self.device.type == "cuda")
            self._pending_check = on_host, terms, [batch.targets for batch in step]
            self.images += sum(len(batch.images) for batch in step) * self.world.size
            self.seconds = time.monotonic() - began
            if self.device.type == "cpu":
                trim_malloc()
            on_step()
        self._synchronize()
        return self.metrics.log_terms(self.criterion)

    def _grouped_by_step(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Yield the batches of one step at a time; the time spent on waiting for them is counted."""
        while True:
            began = time.monotonic()
            step = list(itertools.islice(batches, self.config.accumulate))
            self.seconds_data += time.monotonic() - began
            if not step:
                return
            yield step

    def _set_learning_rates(self) -> None:
        factor = self.config.lr_factor(self._global_step, self.steps_per_epoch)
        for group, lr in zip(self.optimizer.param_groups, (self.config.lr, self.config.lr_backbone), strict=True):
            group["lr"] = lr * factor
            group["weight_decay"] = self.config.weight_decay

    def _forward_backward(self, step: list[Batch]) -> dict[str, Tensor]:
        """Forward and backward through every batch of a step on this rank; return `Losses.terms` over all ranks."""
        self.optimizer.zero_grad(set_to_none=True)
        groups = self.model.query_groups
        counts = [count for batch in step for count in batch.targets.counts * groups]
        own = torch.tensor(self.criterion.normalizers(counts, self.model.config.num_queries), dtype=torch.float64)
        batch_normalizers = Normalizers(*distributed.all_reduce_sum(own).tolist())
        parts = []
        for number, batch in enumerate(step, start=1):
            syncs = number == len(step) or self._ddp_model is self.model
            with contextlib.nullcontext() if syncs else self._ddp_model.no_sync():
                moved = batch.to(self.device)
                targets = moved.targets.repeated(groups)
                has_masks = self.model.config.masks
                matched = MatchedQuerySelector(self.criterion, targets, len(batch.images)) if has_masks else None
                with self.precision.autocast():
                    outputs = self._ddp_model(moved.images, moved.padding_mask, matched)
                losses = self.criterion(outputs, targets, batch_normalizers, matched)
                self._check_last_step()  # the matching has just waited for the device
                # DDP averages the gradients over the ranks; normalized by the whole batch they are to be summed.
                self.scaler.scale(losses.total * self.world.size).backward()
            parts.append(torch.stack(tuple(losses.terms.values())))
        return dict(zip(losses.terms, distributed.all_reduce_sum(sum(parts)), strict=True))

    def _optimizer_step(self, loss: Tensor) -> Tensor:
        """Step the optimizer, unless loss or gradients are not finite; return whether all is well, (), on the device.

        With float16, gradients that overflow are normal: the GradScaler leaves out the step, which still counts as
        done, and lowers its scale. Then only an infinite loss, or a scale that has collapsed, is not well.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_max_norm or math.inf)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return torch.isfinite(loss) & (self.scaler.scale(torch.ones_like(loss)) >= SMALLEST_SCALE)
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        if self.device.type in ("cpu", "cuda"):
            self.optimizer.found_inf = 1 - finite.float()  # fused AdamW leaves out the step where this is 1
            self.optimizer.step()
        elif finite:  # other devices' fused optimizers do not listen
            self.optimizer.step()
        return finite

    def _synchronize(self) -> None:
        """Wait for the device, then check the last step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._check_last_step()

    def _check_last_step(self) -> None:
        """Report the last step if it was not finite; the host has waited for the device since."""
        if self._pending_check is None:
            return
        (finite, terms, targets), self._pending_check = self._pending_check, None
        if not finite:
            self._report_nonfinite({name: float(value) for name, value in terms.items()}, targets)

    def _report_nonfinite(self, losses: dict[str, float], targets: list[Targets]) -> None:
        """Report and count the last step as left out. Raises UserError when it is one more than the config allows."""
        images = distributed.all_gather([image for batch in targets for image in _describe(batch)])
        as_json = {name: value if math.isfinite(value) else str(value) for name, value in losses.items()}
        self.on_nonfinite({"epoch": self.epochs_done + 1, "step": self.steps_done, "losses": as_json, "images": images})
        self.skipped += 1
        if self.skipped > self.config.skip_nonfinite:
            if not math.isfinite(losses["loss"]):
                what = "the loss is not finite (NaN or infinity)"
            elif self.scaler.is_enabled():
                what = "float16 gradients overflow at any scale"
            else:
                what = "the gradient is not finite (NaN or infinity)"
            ids = [image["image_id"] for image in images]
            raise UserError(
                f"{self._where(self.steps_done)}, images {ids}: {what}; the weights were left as they were. "
                f"{self.advice}; so does a look at these images"
            )

    @property
    def advice(self) -> str:
        """What usually helps where a number is not finite; float16, which has a scaler, ends at 65,504."""
        first = "--amp off (float32), or a" if self.scaler.is_enabled() else "A"
        return f"{first} smaller --lr or --clip_max_norm usually helps"

    def end_epoch(self, ap: float | None, loss: float = math.inf) -> bool:
        """Count an epoch as done, with its AP and validation loss where it was evaluated.

        Returns whether that is the best so far; where AP is not defined (-1), the lowest loss is.
        """
        candidate = {"AP": ap, "epoch": self.epochs_done, "loss": loss}
        is_best = ap is not None and selection_key(candidate) > selection_key(self.best)
        if ap is not None and candidate["epoch"] == self.best["epoch"]:  # again, after a kill while it was saved
            is_best = selection_key(candidate) >= selection_key(self.best)
        if is_best:
            self.best = candidate
        if ap is not None and self.config.patience:
            self.out_of_patience = self.epochs_done - self.best["epoch"] >= self.config.patience
        self.epochs_done += 1
        self.steps_done, self.metrics = 0, MetricLogger()
        return is_best

    def stats(self, seconds_eval: float) -> dict[str, float]:
        """Return where the time and the memory of the epoch went, on this rank, for the log."""
        return {
            "lr_backbone": self.optimizer.param_groups[1]["lr"],
            "seconds": round(self.seconds + seconds_eval, 2),
            "seconds_train": round(self.seconds, 2),
            "seconds_data": round(self.seconds_data, 2),
            "images_per_second": round(self.images / self.seconds, 2) if self.seconds else 0.0,
            "peak_memory_mib": round(peak_memory_mib(self.device)),
        }

    def state(self) -> dict:
        """Return the part of a checkpoint that resumes training, under the reference's keys and ours.

        Raises UserError when the last step was not finite, as `train_epoch` does.
        """
        self._synchronize()
        config, metrics = self.config, self.metrics.state()
        # What torch's StepLR would hold, for the reference code: here lr_factor needs no state.
        step_lr = {"step_size": config.lr_drop, "gamma": 0.1, "base_lrs": [config.lr, config.lr_backbone]}
        return {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": step_lr | {"last_epoch": self.epochs_done, "_step_count": self.epochs_done + 1},
            "epoch": self.epochs_done - 1,  # the last one that is done, as in the reference
            "step": {"steps_done": self.steps_done, "steps_per_epoch": self.steps_per_epoch, "metrics": metrics},
            "out_of_patience": self.out_of_patience,
            "best": self.best,
            "skipped": self.skipped,
            "ema": plain_state(self.ema.model)[0] if self.ema else None,
            "train_only": plain_state(self.model)[1],
            "scaler": self.scaler.state_dict(),
            "rng": distributed.all_gather([random_state()]),  # of every rank
        }

    def load_state(self, checkpoint: dict, path: Path) -> None:
        """Resume from a checkpoint; learning rates and weight decay stay those asked for now.

        A checkpoint inside an epoch of other steps (another batch size, other ranks) begins that epoch again.
        Raises UserError when it was made for other trained parameters.
        """
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise UserError(
                f"{path}: its optimizer trained other parameters than this command would; what is frozen, "
                "--batch_norm and --query_groups have to be as they were"
            ) from error
        self.epochs_done = checkpoint["epoch"] + 1
        self.best, self.skipped, step = checkpoint["best"], checkpoint["skipped"], checkpoint["step"]
        if step["steps_per_epoch"] == self.steps_per_epoch:
            self.steps_done = step["steps_done"]
            self.metrics.load_state(step["metrics"], self.device)
        if self.ema:
            self.ema.model.load_state_dict(best_weights(checkpoint) | plain_state(self.ema.model)[1])
        if checkpoint["scaler"]:  # empty without float16
            self.scaler.load_state_dict(checkpoint["scaler"])
        if len(checkpoint["rng"]) == self.world.size:
            restore_random_state(checkpoint["rng"][self.world.rank])

    @property
    def _global_step(self) -> int:
        return self.epochs_done * self.steps_per_epoch + self.steps_done

    def _where(self, step: int) -> str:
        return f"epoch {self.epochs_done + 1}/{self.config.epochs}, step {step}"


def selection_key(best: dict) -> tuple[float, float]:
    """Return what detectors are compared by: AP; without any ground truth, where AP is -1, the validation loss."""
    return best["AP"], (-best.get("loss", math.inf) if best["AP"] == -1 else 0.0)


def _make_optimizer(model: Detr, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over what is trained: the backbone's parameters in a group of their own."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    of_backbone = [p for name, p in trained if name.startswith("backbone.0.")]
    groups = [{"params": [p for name, p in trained if not name.startswith("backbone.0.")]}, {"params": of_backbone}]
    # Fused: one pass over the parameters, which can also leave a step out without asking the host.
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _describe(targets: Targets) -> list[dict]:
    """Return the ground truth of a batch in plain values, an entry for each image."""
    by_image = zip(targets.image_ids, targets.labels, targets.boxes_cxcywh, targets.counts, strict=True)
    return [
        {"image_id": image_id, "labels": labels[:count].tolist(), "boxes_cxcywh": boxes[:count].tolist()}
        for image_id, labels, boxes, count in by_image
    ]
