"""A run's folder: what may be written there, and what is."""

import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch

import utils
from detr.data.coco_json import fingerprint, white_in
from detr.data.dataset import Data
from detr.models.detr import Detr
from detr.models.weights import detector_state, read_checkpoint, save_tensors
from detr.training import run_files
from detr.training.distributed import World, barrier
from detr.training.resume import ResumeState
from detr.training.run_files import BEST, CONFIG, LAST, LOG, PREDICTIONS
from detr.training.trainer import NO_EVALUATION_YET, Trainer, selection_key
from utils import UserError


class RunFolder:
    """The folder of a run, written to by rank 0 only.

    `flags` are the command line as plain values, which checkpoints and config.json keep; `resolution` has `scale` and
    `max_size` of evaluated images, in pixels.
    """

    def __init__(self, path: Path, world: World, flags: dict, data: Data, resolution: dict[str, int]) -> None:
        self.path, self.world, self.flags, self.data, self.resolution = path, world, flags, data, resolution

    def locked(self) -> AbstractContextManager:
        """Keep other runs out of the folder. Raises UserError where one is in it."""
        return run_files.locked_dir(self.path) if self.world.is_main else nullcontext()

    def prepare(self, start: ResumeState, model: Detr) -> None:
        """Delete an overwritten run, cut a resumed log to its checkpoint, and write config.json.

        Raises UserError where the disk has no room for the run's checkpoints.
        """
        if not self.world.is_main:
            return
        weights = sum(value.nbytes for value in model.state_dict().values())
        # AdamW keeps two moments; while a checkpoint is replaced, the old and the new one are there.
        last = weights * (1 + bool(self.flags["ema_decay"])) + 2 * 4 * model.count_trainable()
        needed, free = last if start.resumes else 2 * last + weights, shutil.disk_usage(self.path).free
        if free < needed:
            raise UserError(
                f"{self.path}: the run's checkpoints will need {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB "
                "are free there"
            )
        utils.clear_unfinished(self.path)
        if start.resumes_in_place(self.path):
            run_files.truncate_log(self.path / LOG, start.checkpoint["epoch"])
        else:
            for path in files_of_run(self.path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        config = {
            "args": self.flags,
            "config": dataclasses.asdict(model.config),
            "categories": self.data.label_map.categories,
            "n_parameters": model.count_trainable(),
            "validation_images": fingerprint(self.data.val_coco),
        }
        utils.write_json(self.path / CONFIG, config, indent=2)

    def open_log(self, epochs_done: int, tensorboard: bool) -> Callable[[dict], None]:
        """Return what writes an epoch's numbers to log.txt, and to TensorBoard where that is asked for; both forget
        epochs beyond those that are done.
        """
        if not self.world.is_main:
            return lambda log: None
        if not tensorboard:
            return partial(run_files.append_log, self.path / LOG)
        from torch.utils.tensorboard import SummaryWriter  # a package that only --tensorboard needs

        writer = SummaryWriter(self.path / run_files.TENSORBOARD, purge_step=epochs_done)

        def write(log: dict) -> None:
            """Write the numbers of an epoch to both; a list becomes one scalar for each of its entries."""
            run_files.append_log(self.path / LOG, log)
            for name, value in log.items():
                values = {f"{name}_{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value}
                for tag, scalar in values.items():
                    writer.add_scalar(tag, scalar, log["epoch"])
            writer.flush()

        return write

    def save_best(self, trainer: Trainer, predictions: list[dict]) -> None:
        """Save the weights to use and their detections on the validation images: model, config, categories, raw_ids,
        resolution, white, best, and epoch, here that of the best. Predictions of other weights are deleted first.
        """
        if self.world.is_main:
            (self.path / PREDICTIONS).unlink(missing_ok=True)  # a kill from here on leaves none
            save_tensors(self.path / BEST, self._detector_dict(trainer, trainer.detector))
            utils.write_json(self.path / PREDICTIONS, predictions)

    def save_last(self, trainer: Trainer) -> None:
        """Save all that resuming needs.

        Of the detector (`weights.detector_state`): model, config, categories, raw_ids, resolution, white. Of the
        trainer (`Trainer.state`): optimizer, lr_scheduler, epoch (the last that is done), step, best, out_of_patience,
        skipped, ema, train_only, scaler, rng. And args, the command line, and threads.
        """
        state = trainer.state()  # every rank has a part in it
        state |= {"args": self.flags, "threads": torch.get_num_threads()}
        if self.world.is_main:
            save_tensors(self.path / LAST, self._detector_dict(trainer, trainer.model) | state)
        barrier()  # no rank says that it is saved before it is

    def _detector_dict(self, trainer: Trainer, model: Detr) -> dict:
        label_map, white = self.data.label_map, white_in(self.data.val_coco)
        return detector_state(model, label_map.categories, self.resolution, trainer.best, label_map.raw_ids, white)

    @contextmanager
    def saved_when_stopped(self, trainer: Trainer) -> Iterator[None]:
        """Save before a stop that was asked for ends the run, and say how to resume it."""
        try:
            yield
        except utils.Stopped as stop:
            if stop.is_abrupt and self.world.size > 1:
                raise  # other ranks may be in a step: they do not save with this one
            self.save_last(trainer)
            raise utils.Stopped(
                f"stopped in epoch {trainer.epochs_done + 1} after step {trainer.steps_done} of "
                f"{trainer.steps_per_epoch}; {self.path / LAST} is saved. To resume, run the same command with "
                "--resume auto",
                stop.signal,
            ) from None

    def best_so_far(self, start: ResumeState, best: dict) -> dict:
        """Return the score of the best detector in this output folder, as a resumed run is to know it."""
        if not start.resumes_in_place(self.path):
            return dict(NO_EVALUATION_YET)  # that detector stays where it is
        if (self.path / BEST).exists():  # may have been saved after the last checkpoint
            return max(best, read_checkpoint(self.path / BEST).get("best", best), key=selection_key)
        return best

    def describe_best(self, best: dict) -> str:
        """Return the last line of a run: how good its best detector is, and the next command."""
        score = f"AP {best['AP']:.3f}" if best["AP"] >= 0 else f"the lowest validation loss, {best['loss']:.3f}"
        log = ["--log", str(self.path)] if self.path != Path("outputs") else []
        return f"done: {self.path / BEST} has {score}; next: {utils.command_line(['python', 'results.py', *log])}"

    def write_nonfinite(self, report: dict) -> None:
        """Keep what is known of a step that was not finite."""
        path = self.path / f"nonfinite_epoch{report['epoch']}_step{report['step']}.json"
        if self.world.is_main:
            utils.write_json(path, report, indent=2)
        print(f"epoch {report['epoch']}, step {report['step']} is not finite and was left out; its batch is in {path}")

    def write_predictions(self, start: ResumeState, predictions: list[dict]) -> Path:
        """Save the detections of an evaluation: predictions.json is only ever that of checkpoint_best.pth."""
        path = self.path / PREDICTIONS
        config = utils.read_json(self.path / CONFIG) or {}
        is_best = (
            utils.is_same_file(start.path, self.path / BEST)
            and config.get("validation_images") == fingerprint(self.data.val_coco)
            and start.checkpoint.get("resolution") == self.resolution
        )
        if path.exists() or not is_best:
            path = self.path / f"predictions_{start.path.stem}.json"
        if self.world.is_main:
            utils.write_json(path, predictions)
        return path


def files_of_run(folder: Path) -> list[Path]:
    """Return the files that a run has left in a folder."""
    paths = [folder / name for name in run_files.RUN_FILES]
    return [path for path in (*paths, *folder.glob("nonfinite_epoch*.json")) if path.exists()]


def check_unused(folder: Path, start: ResumeState, overwrite: bool, is_auto: bool, inputs: Iterable[Path]) -> None:
    """Raise UserError where a new run would mix with the one in `folder`, or delete one of its own `inputs`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; --output_dir names a folder")
    used = [path.name for path in files_of_run(folder) if path.name != CONFIG]
    if start.resumes_in_place(folder) or not used:
        return
    for path in inputs:
        above = (path, *Path(path).resolve().parents)  # TensorBoard's part of a run is a folder
        if any(utils.is_same_file(one, own) for one in above for own in files_of_run(folder)):
            raise UserError(f"{path} would be deleted with the run in {folder}: take another --output_dir")
    # Interrupted before its first checkpoint: there is nothing to resume, and nothing to lose.
    has_no_checkpoint = is_auto and not {LAST, BEST} & set(used)
    if not (overwrite or has_no_checkpoint):
        resume = f"{LAST}, to resume from, is gone" if is_auto else "resume it with --resume auto"
        raise UserError(
            f"{folder} holds a run already ({', '.join(used)}): {resume}, take another --output_dir, or delete it with "
            "--overwrite"
        )
