"""Fine-tune DETR on a COCO folder that prep.py wrote, or evaluate a checkpoint.

python main.py --resume detr-r50_no-class-head.pth --epochs 100     start fine-tuning
python main.py --resume auto --epochs 100                           resume after an interruption
python main.py --eval                                               the 12 COCO numbers of the best checkpoint
"""

import argparse
import contextlib
import dataclasses
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import utils
from detr.training.cpu_load import CpuLoad
from detr.training.flags import flags_as_json, parse_arguments
from utils import UserError

CPU_LOAD = None
if __name__ == "__main__":  # before torch, which takes seconds: --help and mistakes answer at once
    CPU_LOAD, _ = CpuLoad(), parse_arguments(__doc__)

import torch
from torch.utils.data import DataLoader

from detr.data.dataset import Data, load_folder
from detr.data.loader import explain_worker_errors, make_loader, read_batches
from detr.data.sampler import AspectRatioBatchSampler, SameSizeBatchSampler
from detr.data.transforms import augment_params, evaluation_params
from detr.models.cpu_kernels import tune_malloc
from detr.models.criterion import SetCriterion
from detr.models.detr import Detr
from detr.models.matcher import HungarianMatcher
from detr.training import distributed, resume
from detr.training.device import Precision, limit_threads, pick_device, pick_precision
from detr.training.evaluate import evaluate
from detr.training.meters import TimeLeft, coco_lines, deciding_ap, summary_line
from detr.training.resume import ResumeState
from detr.training.run_folder import RunFolder, check_unused
from detr.training.schedule import OptimConfig
from detr.training.trainer import Trainer


class Session(NamedTuple):
    """What is built once: device, data, model, loss, loaders."""

    world: distributed.World
    device: torch.device
    precision: Precision
    data: Data
    model: Detr
    criterion: SetCriterion
    folder: RunFolder
    train_loader: DataLoader
    val_loader: DataLoader


def main() -> None:
    """Run as a single process, or as one rank of those that torchrun started: rank 0 alone reports."""
    args = parse_arguments(__doc__)
    world = distributed.init_process_group()
    with Path(os.devnull).open("w") as devnull:
        output = sys.stdout if world.is_main else devnull  # not None: libraries print too
        with contextlib.redirect_stdout(output), distributed.process_group(world):
            run(args, world)


def run(args: argparse.Namespace, world: distributed.World) -> None:
    """Find where to start, build data, model and trainer, then train and evaluate, or only evaluate."""
    given = (args.resume, args.weights, args.backbone_weights, args.overwrite, args.eval)
    start = resume.find_start(args.output_dir, *given)
    resume.check_class_map(start, args.class_map, args.eval)
    resume.check_fold(start, args.fold, args.coco_path, args.eval)
    if args.tensorboard:
        utils.check_packages("--tensorboard", ("tensorboard",))
    if reason := resume.finished_reason(start, args.epochs, args.patience):
        print(reason)
        return
    if world.is_main and not args.eval:
        inputs = [path for path in (start.path, args.backbone_weights) if path]
        check_unused(args.output_dir, start, args.overwrite, args.resume == "auto", inputs)
    args.scales, args.max_size = resume.choose_sizes(start, args.scales, args.max_size)
    session = build_session(args, start, world)
    if args.eval:
        evaluate_only(start, session)
        return
    trainer = build_trainer(args, start, session)
    with session.folder.locked():
        session.folder.prepare(start, session.model)  # after all that could go wrong: it deletes what is overwritten
        train(args, session, trainer)


# ------------------------------------------------------------------------------------------------------------ building


def build_session(args: argparse.Namespace, start: ResumeState, world: distributed.World) -> Session:
    """Build device, data, model and loss, as the command line and the file to start from say."""
    device = pick_device(args.device, world)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL and the thread that pins batches take
    if device.type == "cpu":
        tune_malloc()
        limit_threads(CPU_LOAD or CpuLoad(), start.checkpoint.get("threads") if start.resumes else None)
    torch.manual_seed(args.seed)
    resolution = {"scale": max(args.scales), "max_size": args.max_size}
    data = load_data(args, resolution, start)
    architecture, freeze_backbone = resume.architecture_of(vars(args)), args.lr_backbone == 0
    if start.checkpoint is None:
        model = resume.new_model(data, architecture, args.backbone_weights or "imagenet", freeze_backbone)
    else:
        flags = (args.num_classes, args.class_map or [], args.eval, args.frozen_weights is not None)
        model = resume.model_from_file(start, data, architecture, *flags)
    if freeze_backbone:
        model.freeze_backbone()
    if args.frozen_weights is not None:
        model.freeze_detector()
    resume.add_query_groups(model, start, args.query_groups)
    matcher = HungarianMatcher(args.set_cost_class, args.set_cost_bbox, args.set_cost_giou)
    coefficients = (args.eos_coef, args.bbox_loss_coef, args.giou_loss_coef)
    masks = (args.mask_loss_coef, args.dice_loss_coef)
    criterion = SetCriterion(model.config.num_classes, matcher, *coefficients, args.aux_loss, *masks)
    torch.manual_seed(args.seed + world.rank)  # the weights are the same on every rank; dropout is not to be
    shard = {"rank": world.rank, "world_size": world.size}
    train_sampler = AspectRatioBatchSampler(data.train, args.batch_size, args.seed, accumulate=args.accumulate, **shard)
    val_sampler = SameSizeBatchSampler(data.val, args.batch_size, **shard)
    return Session(
        world,
        device,
        pick_precision(args.amp, device),
        data,
        model.to(device),
        criterion.to(device),
        RunFolder(args.output_dir, world, flags_as_json(args), data, resolution),
        make_loader(data.train, train_sampler, args.num_workers, pin_memory=device.type == "cuda"),
        make_loader(data.val, val_sampler, args.num_workers, pin_memory=device.type == "cuda"),
    )


def load_data(args: argparse.Namespace, resolution: dict[str, int], start: ResumeState) -> Data:
    """Load both splits, augmented as the command line asks; what the file to start from is, says whether with masks."""
    drawn = {
        "scales": args.scales,
        "max_size": args.max_size,
        "augment": args.augment,
        "color_jitter": args.color_jitter,
    }
    train_params = partial(augment_params, **drawn)
    params = (train_params, partial(evaluation_params, **resolution))
    classes = (args.num_classes, args.eval, start.unnamed_classes)
    masks = bool(args.masks) or (start.has_masks and (start.resumes or args.eval))
    data = load_folder(args.coco_path, args.dataset_file, *params, args.seed, *classes, masks, args.fold)
    data.train.paste_into(args.copy_paste)
    if args.cache == "ram":
        data.train.keep_in_memory(**resolution)
        data.val.keep_in_memory(**resolution)
    if data.num_classes > data.label_map.num_classes:
        print(f"--num_classes {data.num_classes}: more than the annotations use ({data.label_map})")
    return data


def build_trainer(args: argparse.Namespace, start: ResumeState, session: Session) -> Trainer:
    """Build the trainer; a resumed run gets its state back, and is told where this command line differs."""
    config = OptimConfig(**{field.name: getattr(args, field.name) for field in dataclasses.fields(OptimConfig)})
    model, criterion, folder = session.model, session.criterion, session.folder
    steps, precision, world = session.train_loader.batch_sampler.steps_per_epoch, session.precision, session.world
    trainer = Trainer(model, criterion, config, steps, precision, world, args.start_epoch, folder.write_nonfinite)
    if start.resumes:
        trainer.load_state(start.checkpoint, start.path)
        trainer.best = folder.best_so_far(start, trainer.best)
        if start.checkpoint["step"]["steps_done"] > trainer.steps_done:
            print(f"{start.path} was saved inside an epoch of other steps than this command's: the epoch begins again")
        for name, now, before in start.changed_flags(folder.flags):
            print(f"--{name} is {now}; up to epoch {trainer.epochs_done} it was {before}")
    return trainer


# ------------------------------------------------------------------------------------------------------------ training


def train(args: argparse.Namespace, session: Session, trainer: Trainer) -> None:
    """Run the epochs: train, evaluate, log, save."""
    data, folder, trainable = session.data, session.folder, session.model.count_trainable()
    print(
        f"{trainable:,} parameters to train on {len(data.train)} images, {len(data.val)} to evaluate on; "
        f"{session.device}, {session.precision}; epochs {trainer.epochs_done + 1} to {args.epochs}"
    )
    write_log = folder.open_log(trainer.epochs_done, args.tensorboard)
    time_left = TimeLeft(args.epochs, trainer.epochs_done + bool(trainer.steps_done))
    with utils.StopRequest() as stop, explain_worker_errors(), folder.saved_when_stopped(trainer):
        for epoch in range(trainer.epochs_done, args.epochs):
            session.train_loader.batch_sampler.set_epoch(epoch, trainer.steps_done)
            log, predictions = train_one_epoch(session, trainer, stop, args.save_every_steps), []
            is_last = epoch + 1 == args.epochs
            if is_last or (epoch + 1) % args.eval_every == 0:
                val_log, predictions = evaluate_one_epoch(session, trainer, stop)
                log |= val_log
            log |= {"epoch": epoch, "n_parameters": trainable} | trainer.stats(log.get("seconds_eval", 0.0))
            if trainer.end_epoch(deciding_ap(log), log.get("test_loss", math.inf)):
                folder.save_best(trainer, predictions)
            write_log(log)
            if is_last or trainer.out_of_patience or (epoch + 1) % args.save_every == 0:
                folder.save_last(trainer)
            print(summary_line(log, args.epochs, trainer.best, time_left.after(epoch)), flush=True)
            if trainer.out_of_patience:
                better = "better AP" if trainer.best["AP"] >= 0 else "lower validation loss"
                print(f"stopping: no {better} in {args.patience} epochs")
                break
    print(folder.describe_best(trainer.best))


def train_one_epoch(
    session: Session, trainer: Trainer, stop: utils.StopRequest, save_every_steps: int
) -> dict[str, float]:
    """Train on the rest of an epoch, saving every so many steps; return its means, named as in the log."""
    loader, accumulate = session.train_loader, trainer.config.accumulate
    title, done = f"epoch {trainer.epochs_done + 1}/{trainer.config.epochs}", trainer.steps_done * accumulate
    with utils.Progress(len(loader), title, done=done, shown=session.world.is_main) as bar:

        def on_step() -> None:
            bar.update(accumulate, lambda: f"loss {trainer.metrics.mean('loss'):.3f}")
            stop.check(distributed.any_rank(stop.requested))
            if save_every_steps and trainer.steps_done % save_every_steps == 0:
                session.folder.save_last(trainer)

        means = trainer.train_epoch(read_batches(loader, stop), on_step)
    return {f"train_{name}": mean for name, mean in means.items()}


def evaluate_one_epoch(session: Session, trainer: Trainer, stop: utils.StopRequest) -> tuple[dict, list[dict]]:
    """Evaluate the EMA, or the model where there is none; return the log's `test_` keys and the detections."""
    began = time.monotonic()
    distributed.broadcast_batch_norm(trainer.detector)
    losses, metrics, predictions = evaluate_with_progress(session, trainer.detector, stop)
    if not math.isfinite(losses["loss"]):
        raise UserError(
            f"epoch {trainer.epochs_done + 1}: on the validation images the loss is not finite (NaN or infinity); "
            f"these weights do not replace the saved ones. {trainer.advice}"
        )
    log = {f"test_{name}": loss for name, loss in losses.items()}
    log |= {f"test_coco_eval_{kind}": numbers for kind, numbers in metrics.items()}
    return log | {"seconds_eval": round(time.monotonic() - began, 2)}, predictions


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_only(start: ResumeState, session: Session) -> None:
    """Print the 12 COCO numbers and save the detections."""
    with explain_worker_errors():
        _, metrics, predictions = evaluate_with_progress(session, session.model)
    print(coco_lines(metrics))
    print(f"detections: {session.folder.write_predictions(start, predictions)}")


def evaluate_with_progress(
    session: Session, model: Detr, stop: utils.StopRequest | None = None
) -> tuple[dict, dict[str, list[float]], list[dict]]:
    """Evaluate on the validation images; return losses, the COCO numbers of boxes and masks, and the detections."""
    loader = session.val_loader
    shared = loader.batch_sampler.batches_on_every_rank  # any_rank is a collective: all ranks must still have a batch
    with utils.Progress(len(loader), "evaluate", shown=session.world.is_main) as bar:

        def on_batch(number: int) -> None:
            bar.update()
            if stop and number < shared:
                stop.check(distributed.any_rank(stop.requested))

        batches, gt = read_batches(loader, stop), (session.data.val_coco, session.data.label_map)
        return evaluate(model, session.criterion, batches, *gt, session.device, session.precision, on_batch)


if __name__ == "__main__":
    utils.run_script(main)
