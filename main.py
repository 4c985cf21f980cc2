"""Fine-tune DETR on a COCO folder that prep.py wrote, or evaluate a checkpoint.

python main.py --resume detr-r50_no-class-head.pth --epochs 100     start fine-tuning
python main.py --resume auto --epochs 100                           go on after an interruption
python main.py --eval                                               the 12 COCO numbers of the best checkpoint
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import utils
from detr.annotations import fingerprint
from detr.cpu_load import CpuLoad, count_cpus
from detr.errors import UserError
from detr.flags import MAX_SIZE, SCALES, make_parser
from detr.public_weights import PUBLIC_CLASSES, PUBLIC_WEIGHTS
from detr.report.runs import read_json
from detr.schedule import Recipe

if TYPE_CHECKING:  # torch takes seconds to import: functions that need it do so, after the command line is parsed
    import torch
    from torch.utils.data import DataLoader

    from detr.averaging import Means
    from detr.class_rows import ClassRows
    from detr.criterion import SetCriterion
    from detr.data import CocoImages, Data
    from detr.device import Precision
    from detr.distributed import Processes
    from detr.engine import Training
    from detr.model import Detr
    from detr.sampler import KeyBatches

LAST, BEST, LOG, CONFIG, PREDICTIONS = RUN_FILES = (
    "checkpoint.pth",
    "checkpoint_best.pth",
    "log.txt",
    "config.json",
    "predictions.json",
)
TENSORBOARD = "tensorboard"


# -------------------------------------------------------------------------------------------------------- command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments` in its place."""
    args = make_parser(__doc__).parse_args(arguments)
    if args.lr_drop is None:
        args.lr_drop = max(1, round(args.epochs * 2 / 3))  # the paper drops at 200 of 300
    if args.freeze == "backbone":
        args.lr_backbone = 0.0
    return args


# ---------------------------------------------------------------------------------------------------------- the recipe


class Start(NamedTuple):
    """Where a run begins."""

    path: Path | None = None  # None: nothing but the backbone's weights
    checkpoint: dict | None = None
    continues: bool = False  # the file is a run to go on with, not only weights to start from


class Parts(NamedTuple):
    """What training and evaluation work with."""

    processes: "Processes"
    device: "torch.device"
    precision: "Precision"
    data: "Data"
    model: "Detr"
    criterion: "SetCriterion"


def main() -> None:
    """Run alone, or as one of the processes that torchrun started: all of them compute, only the first one reports."""
    args = parse_arguments()
    load = CpuLoad()  # measured while torch is imported, which takes seconds
    from detr import distributed

    processes = distributed.join()
    with Path(os.devnull).open("w") as nowhere:
        output = sys.stdout if processes.is_main else nowhere  # not None: libraries print too
        with contextlib.redirect_stdout(output), distributed.together(processes):
            run(args, processes, load)


def run(args: argparse.Namespace, processes: "Processes", load: CpuLoad) -> None:
    """Find where to start, build, then train and evaluate epoch by epoch."""
    start = find_start(args)
    check_same_start(start)
    check_class_map(args, start)
    if args.tensorboard:
        check_tensorboard()
    if reason := nothing_left(args, start):
        print(reason)
        return
    if processes.is_main:
        check_output_folder(args, start)
    choose_sizes(args, start)
    parts = build_parts(args, start, processes, load)
    if args.eval:
        evaluate_only(args, start, parts)
        return
    training = build_training(args, start, parts)
    with utils.claimed(args.output_dir) if processes.is_main else contextlib.nullcontext():
        if processes.is_main:
            begin_run_folder(args, start, parts)  # after everything that could go wrong: it deletes what is overwritten
        train(args, parts, training)


# ------------------------------------------------------------------------------------------------------ where to start


def find_start(args: argparse.Namespace) -> Start:
    """What --resume, --weights and --eval mean here. Raises UserError when they contradict each other."""
    from detr.checkpoint import read_checkpoint
    from detr.distributed import first_on_each_machine

    if args.resume == "auto":
        last = args.output_dir / LAST
        path = last if last.exists() and not args.overwrite else args.weights
        if not (last.exists() or args.eval):
            print(f"{last} is not there: no run to go on with")
    elif args.resume and args.weights:
        raise UserError("--resume FILE and --weights FILE: one of them; --resume auto goes with --weights")
    elif args.resume:
        is_url = args.resume.startswith(("http://", "https://"))
        path = first_on_each_machine(partial(_fetched, args.resume)) if is_url else Path(args.resume)
    else:
        path = args.weights
    if args.eval and path is None:
        path = args.output_dir / BEST
        if not path.exists():
            raise UserError(f"--eval needs a checkpoint: {path} is not there; name one with --resume")
    if path is None:
        return Start()
    best = args.output_dir / BEST
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        if not utils.is_same_file(path, args.output_dir / LAST) or not best.exists():
            raise
        raise UserError(
            f"{error}. The best weights so far can start a new run: --resume {best} --output_dir NEW"
        ) from error
    if args.backbone_weights and not args.eval and "optimizer" not in checkpoint:
        raise UserError(f"--backbone_weights and {path}: that file holds a backbone already")
    if "optimizer" in checkpoint and "rng" not in checkpoint and not args.eval:
        print(f"{path}: from the reference code; its weights are a start, its optimiser's state is of no use here")
    # Not by their spelling: with --resume auto, --weights may be what the run itself has left.
    start = Start(path, checkpoint, "rng" in checkpoint and path is not args.weights and not args.eval)
    if args.overwrite and goes_on_there(args, start):
        raise UserError(
            f"--resume {args.resume} and --overwrite: the run in {args.output_dir} is resumed, or deleted; leave one "
            "of them out"
        )
    return start


def _fetched(url: str) -> Path:
    path = Path(Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name)
    if not path.name:
        raise UserError(f"--resume {url}: names no file; accepted: the address of a weights file")
    prefixes = {weights.file_name: weights.sha256_prefix for weights in PUBLIC_WEIGHTS.values()}
    if not utils.download(url, path, prefixes.get(path.name, "")):
        print(f"{path} is there already: {url} is not downloaded again")
    return path


def check_same_start(start: Start) -> None:
    """Raise UserError unless all processes of the run begin at the same point."""
    from detr.distributed import gathered

    found = set(gathered([(start.continues, (start.checkpoint or {}).get("epoch"))]))
    if len(found) > 1:
        raise UserError("the processes of this run find different checkpoints: --output_dir has to be the same folder")


def nothing_left(args: argparse.Namespace, start: Start) -> str:
    """Why the run to go on with has nothing left to train; empty where it has."""
    if not start.continues:
        return ""
    done, best = start.checkpoint["epoch"] + 1, start.checkpoint["best"]
    epochs = f"{done} epoch{'s' * (done > 1)}"
    if done >= args.epochs:
        return f"{start.path} has done {epochs} and --epochs asks for {args.epochs}: nothing is left to train"
    if start.checkpoint["out_of_patience"] and 0 < args.patience <= done - 1 - best["epoch"]:
        return (
            f"{start.path} has done {epochs}, the best was epoch {best['epoch'] + 1}: --patience {args.patience} "
            "is used up"
        )
    return ""


def check_class_map(args: argparse.Namespace, start: Start) -> None:
    """Raise UserError where --class_map is given and there is no class head to take rows from."""
    from detr.checkpoint import has_class_head

    if args.class_map is None:
        return
    if args.eval:
        raise UserError("--class_map and --eval: class rows are taken over when a run starts, not when it is evaluated")
    if start.checkpoint is None:
        raise UserError("--class_map needs weights with a class head to start from: name them with --resume FILE")
    if start.continues:
        # The command that began the run may be given again: after a disconnect nobody should have to edit it.
        if args.class_map != arguments_of(start.checkpoint).get("class_map"):
            raise UserError(
                f"--class_map: {start.path} is a run to go on with; its class rows were chosen at its start"
            )
    elif not has_class_head(start.checkpoint):
        raise UserError(
            f"--class_map: {start.path} has no class head to take rows from; start from the whole file, which "
            "prep.py leaves beside the stripped one"
        )


def check_output_folder(args: argparse.Namespace, start: Start) -> None:
    """Raise UserError where a new run would mix with one that is there."""
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"{args.output_dir}: is a file; --output_dir names a folder")
    used = [path.name for path in files_of_run(args) if path.name != CONFIG]
    if args.eval or goes_on_there(args, start) or not used:
        return
    for path in filter(None, (start.path, args.backbone_weights)):
        above = (path, *Path(path).resolve().parents)  # TensorBoard's part of a run is a folder
        if any(utils.is_same_file(one, own) for one in above for own in files_of_run(args)):
            raise UserError(f"{path} would be deleted with the run in {args.output_dir}: take another --output_dir")
    # Interrupted before its first checkpoint: there is nothing to go on with, and nothing to lose.
    only_begun = args.resume == "auto" and not {LAST, BEST} & set(used)
    if not (args.overwrite or only_begun):
        go_on = f"{LAST}, to go on with, is gone" if args.resume == "auto" else "go on with --resume auto"
        raise UserError(
            f"{args.output_dir} holds a run already ({', '.join(used)}): {go_on}, take another --output_dir, or delete "
            "it with --overwrite"
        )


def goes_on_there(args: argparse.Namespace, start: Start) -> bool:
    """Whether the run to go on with is the one in --output_dir."""
    return start.continues and start.path.parent.resolve() == args.output_dir.resolve()


def files_of_run(args: argparse.Namespace) -> list[Path]:
    """What a run has left in --output_dir."""
    paths = [args.output_dir / name for name in (*RUN_FILES, TENSORBOARD)]
    return [path for path in (*paths, *args.output_dir.glob("nonfinite_epoch*.json")) if path.exists()]


def choose_sizes(args: argparse.Namespace, start: Start) -> None:
    """Fill in --scales and --max_size where they are not given: those of the run that goes on, what the file to start
    from or to evaluate was made at, or the paper's.
    """
    checkpoint = start.checkpoint or {}
    made_at = checkpoint.get("resolution", {})
    then = arguments_of(checkpoint) if start.continues else {}
    scales = then.get("scales") or ([made_at["scale"]] if made_at else list(SCALES))
    args.scales = args.scales or scales
    args.max_size = args.max_size or then.get("max_size") or made_at.get("max_size", MAX_SIZE)


def begin_run_folder(args: argparse.Namespace, start: Start, parts: Parts) -> None:
    """Make the run's folder ready: an overwritten run is deleted, a continued log is cut to the checkpoint."""
    weights = sum(value.nbytes for value in parts.model.state_dict().values())
    last = weights * (1 + bool(args.ema_decay)) + 2 * 4 * parts.model.count_trainable()  # AdamW keeps two moments
    # While a checkpoint is replaced, the old and the new one are there.
    utils.check_free_space(args.output_dir, last if start.continues else 2 * last + weights, "the run's checkpoints")
    utils.clear_unfinished(args.output_dir)
    log = args.output_dir / LOG
    if goes_on_there(args, start):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= start.checkpoint["epoch"]]
        with utils.atomic_path(log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    else:
        for path in files_of_run(args):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    about = {
        "args": plain(args),
        "config": dataclasses.asdict(parts.model.config),
        "categories": parts.data.label_map.categories,
        "n_parameters": parts.model.count_trainable(),
        "validation_images": fingerprint(parts.data.val_coco),
    }
    utils.write_json(args.output_dir / CONFIG, about, indent=2)


def _epoch_of(line: str) -> float:
    """The epoch of a log line; infinite for a line that was cut off while it was written."""
    try:
        return json.loads(line)["epoch"]
    except (json.JSONDecodeError, KeyError):
        return math.inf


def arguments_of(checkpoint: dict) -> dict:
    """The command line that a checkpoint was made with; nothing where it does not say."""
    args = checkpoint.get("args", {})
    return args if isinstance(args, dict) else vars(args)  # the reference saves a Namespace


def plain(args: argparse.Namespace) -> dict:
    """The command line as plain values, fit for JSON and for checkpoints."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


# ------------------------------------------------------------------------------------------------------------ building


def load_data(args: argparse.Namespace) -> "Data":
    """Both splits, checked, with the views that the command line asks for."""
    from detr.data import ImageCache, load_folder
    from detr.transforms import augmented_view, evaluation_view, jittered_view, plain_training_view

    training_view = partial(
        augmented_view if args.augment else plain_training_view, scales=args.scales, max_size=args.max_size
    )
    if args.color_jitter:
        training_view = partial(jittered_view, choose=training_view, strength=args.color_jitter)
    data = load_folder(
        args.coco_path,
        args.dataset_file,
        training_view,
        partial(evaluation_view, **resolution(args)),
        args.seed,
        args.num_classes,
    )
    if args.cache == "ram":
        for images in (data.train, data.val):
            images.cache = ImageCache(images, **resolution(args))
    if data.num_classes > data.label_map.num_classes:
        print(f"--num_classes {data.num_classes}: more than the annotations use ({data.label_map})")
    return data


def resolution(args: argparse.Namespace) -> dict[str, int]:
    """The size in pixels at which images are evaluated."""
    return {"scale": max(args.scales), "max_size": args.max_size}


def build_model(args: argparse.Namespace, start: Start, data: "Data") -> "Detr":
    """The network, with the weights it starts from; what was loaded is printed."""
    from detr.model import DetrConfig

    fields = {field.name for field in dataclasses.fields(DetrConfig)} - {"num_classes"}
    asked = {name: value for name in sorted(fields) if (value := getattr(args, name)) is not None}
    model = model_from_file(args, asked, start, data) if start.checkpoint else new_model(args, asked, data)
    if args.lr_backbone == 0:
        model.freeze_backbone()
    add_query_groups(args, start, model)
    return model


def new_model(args: argparse.Namespace, asked: dict, data: "Data") -> "Detr":
    """A network as `asked` that has learnt nothing yet but its backbone."""
    from detr.checkpoint import load_backbone_weights
    from detr.model import Detr, DetrConfig

    source = args.backbone_weights or "imagenet"
    if source == "none":
        asked = {"batch_norm": "live"} | asked
    model = Detr(DetrConfig(data.num_classes, **asked))
    if source != "none":
        print(load_backbone_weights(model, source))
        return model
    if model.config.batch_norm == "frozen":
        raise UserError("--batch_norm frozen needs a pre-trained backbone, and --backbone_weights is none")
    if args.lr_backbone == 0:
        print("random backbone, which stays random: it is frozen")
    else:
        print("random backbone: nothing is frozen, BatchNorm is live")
    return model


def model_from_file(args: argparse.Namespace, asked: dict, start: Start, data: "Data") -> "Detr":
    """The network of the file to start from. Raises UserError where what is `asked` or the data contradicts it."""
    from detr.checkpoint import best_weights, load_weights, read_config
    from detr.model import Detr, DetrConfig

    own = read_config(start.path, start.checkpoint)
    has_run = args.eval or start.continues
    num_classes = own.get("num_classes", data.num_classes) if has_run else data.num_classes
    for name in asked.keys() & own.keys() - {"dropout", "batch_norm"}:  # ways to train, not what the file is
        if asked[name] != own[name]:
            raise UserError(f"--{name} {asked[name]} contradicts {start.path}, which has {own[name]}; leave it out")
    model = Detr(DetrConfig(**(own | asked | {"num_classes": num_classes})))
    same_classes = start.checkpoint.get("categories", data.label_map.categories) == data.label_map.categories
    weights = start.checkpoint["model"] if start.continues else best_weights(start.checkpoint)
    class_rows = None if has_run else choose_class_rows(args, start, data)
    report = load_weights(model, weights, start.path, class_rows)
    if has_run and (report.fresh or not same_classes or args.num_classes not in (None, num_classes)):
        raise UserError(
            f"{start.path}: its class head is not for the categories of {args.coco_path}, {data.label_map}; if those "
            "are new, take another --output_dir to train for them, or --coco_path to name the folder of before"
        )
    print(f"{start.path}: {report}")
    return model


def add_query_groups(args: argparse.Namespace, start: Start, model: "Detr") -> None:
    """The groups of queries to train side by side: those of the run to go on with, or new ones."""
    from detr.checkpoint import plain_state

    # Near the queries that have learnt something already; random ones are as good as any other.
    model.add_query_groups(args.query_groups, spread=0.1 if start.checkpoint else 1.0)
    if start.continues:
        saved, own = start.checkpoint["train_only"], plain_state(model)[1]
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(f"{start.path}: was trained with another number of --query_groups than {args.query_groups}")
        model.load_state_dict(saved, strict=False)


def choose_class_rows(args: argparse.Namespace, start: Start, data: "Data") -> "ClassRows | None":
    """Which rows of the file's class head to start from; None where it has none, or all of them as they are."""
    from detr.checkpoint import has_class_head
    from detr.class_rows import match_classes
    from detr.data import COCO_LABELS, LabelMap

    if not has_class_head(start.checkpoint):
        return None
    num_classes = len(start.checkpoint["model"]["class_embed.bias"]) - 1
    if "categories" in start.checkpoint:
        file_names = LabelMap(start.checkpoint["categories"], start.checkpoint.get("raw_ids", False)).names
    else:
        file_names = PUBLIC_CLASSES if num_classes == COCO_LABELS else {}
    # A file that does not name its classes is trusted where their number is right.
    if not args.class_map and num_classes == data.num_classes and file_names in ({}, data.label_map.names):
        return None
    return match_classes(file_names, data.label_map.names, args.class_map or [], start.path)


def build_parts(args: argparse.Namespace, start: Start, processes: "Processes", load: CpuLoad) -> Parts:
    """Device, data, network and loss, as the command line and the file to start from say."""
    import torch

    from detr.criterion import SetCriterion
    from detr.device import pick_device, pick_precision
    from detr.malloc import tune_malloc
    from detr.matcher import HungarianMatcher

    device = pick_device(args.device, processes)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what NCCL and the thread that pins batches take
    if device.type == "cpu":
        tune_malloc()
        choose_threads(start, load)
    torch.manual_seed(args.seed)
    data = load_data(args)
    model = build_model(args, start, data)
    matcher = HungarianMatcher(args.set_cost_class, args.set_cost_bbox, args.set_cost_giou)
    criterion = SetCriterion(
        model.config.num_classes, matcher, args.eos_coef, args.bbox_loss_coef, args.giou_loss_coef, args.aux_loss
    )
    torch.manual_seed(args.seed + processes.rank)  # the processes began with the same weights, and drop others
    precision = pick_precision(args.amp, device)
    return Parts(processes, device, precision, data, model.to(device), criterion.to(device))


def choose_threads(start: Start, load: CpuLoad) -> None:
    """Leave the cores to other processes that these keep busy: OpenMP's threads wait for one another actively, and
    where one of them has to wait for its core, a run of two becomes ten times slower. A user's OMP_NUM_THREADS wins.

    A resumed run keeps its number, on which the last bits of its results depend.
    """
    import torch

    if "OMP_NUM_THREADS" in os.environ:
        return
    most = torch.get_num_threads()
    if start.continues:
        threads, why = min(most, start.checkpoint.get("threads", most)), "as when this run began"
    else:
        threads = max(1, min(most, count_cpus() - round(load.cores())))
        why = "other processes keep the CPU busy"
    if threads < most:
        print(f"{threads} of {most} threads: {why} (OMP_NUM_THREADS sets another number)")
    torch.set_num_threads(threads)


def build_training(args: argparse.Namespace, start: Start, parts: Parts) -> "Training":
    """Optimiser and schedule; a continued run gets its state back, and is told where this command line differs."""
    from detr.checkpoint import read_checkpoint
    from detr.engine import NONE_YET, Training, goodness

    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    updates = training_keys(args, parts).updates
    training = Training(
        parts.model,
        parts.criterion,
        recipe,
        updates,
        parts.precision,
        parts.processes,
        args.start_epoch,
        partial(write_nonfinite, args, parts),
    )
    if start.continues:
        training.restore(start.checkpoint, start.path)
        if not goes_on_there(args, start):
            training.best = dict(NONE_YET)  # that detector stays where it is
        elif (args.output_dir / BEST).exists():  # saved when it was found, which may be after the last checkpoint
            saved = read_checkpoint(args.output_dir / BEST).get("best", training.best)
            training.best = max(training.best, saved, key=goodness)
        if start.checkpoint["step"]["updates_done"] > training.updates_done:
            print(f"{start.path} is inside an epoch of other steps than this command's: the epoch begins again")
        then = arguments_of(start.checkpoint)
        for name, value in plain(args).items():
            if (
                name in then
                and None not in (value, then[name])
                and then[name] != value
                and name not in ("resume", "overwrite")
            ):
                print(f"--{name} is {value}; up to epoch {training.epochs_done} it was {then[name]}")
    return training


# ------------------------------------------------------------------------------------------------ training, evaluation


def train(args: argparse.Namespace, parts: Parts, training: "Training") -> None:
    """The loop: train, evaluate, log, save."""
    from detr.data import loader_named

    data, trained = parts.data, parts.model.count_trainable()
    print(
        f"{trained:,} parameters to train on {len(data.train)} images, {len(data.val)} to evaluate on; "
        f"{parts.device}, {parts.precision}; epochs {training.epochs_done + 1} to {args.epochs}"
    )
    if all(annotation.get("iscrowd", 0) for annotation in data.val_coco["annotations"]):
        print(
            "the validation images have no object: AP is not defined, and the weights of the lowest validation loss "
            "are kept as the best"
        )
    keys = training_keys(args, parts)
    train_loader, val_loader = load(args, parts, data.train, keys), validation_loader(args, parts)
    log_to = open_logs(args, parts, training.epochs_done)
    began, first = time.monotonic(), training.epochs_done + bool(training.updates_done)  # the first whole epoch here
    with utils.StopRequest() as stop, loader_named():
        for keys.epoch in range(training.epochs_done, args.epochs):
            epoch, keys.first_update = keys.epoch, training.updates_done
            means = train_one_epoch(args, parts, training, train_loader, len(keys), stop)
            log, found = prefixed("train_", means), []
            is_last = epoch + 1 == args.epochs
            if is_last or (epoch + 1) % args.eval_every == 0:
                evaluation, found = evaluate_one_epoch(args, parts, training, val_loader, stop)
                log |= evaluation
            ap = log.get("test_coco_eval_bbox", [None])[0]
            log |= {"epoch": epoch, "n_parameters": trained} | accounts(parts, training, log)
            if training.end_epoch(ap, log.get("test_loss", math.inf)):
                save_best(args, parts, training, found)
            log_to(log)
            waited = epoch - training.best["epoch"]
            training.out_of_patience = bool(args.patience) and ap is not None and waited >= args.patience
            if is_last or training.out_of_patience or (epoch + 1) % args.save_every == 0:
                save_last(args, parts, training)
            now = time.monotonic()
            if epoch < first:
                began = now  # what was left of an epoch does not tell how long one takes
            left = (now - began) / max(1, epoch + 1 - first) * (args.epochs - epoch - 1)
            print(summary_line(f"epoch {epoch + 1}/{args.epochs}", log, training.best, left), flush=True)
            if training.out_of_patience:
                better = "better AP" if training.best["AP"] >= 0 else "lower validation loss"
                print(f"stopping: no {better} in {args.patience} epochs")
                break
    show = ["python", "results.py"] + (["--log", str(args.output_dir)] if args.output_dir != Path("outputs") else [])
    best = training.best
    score = f"AP {best['AP']:.3f}" if best["AP"] >= 0 else f"the lowest validation loss, {best['loss']:.3f}"
    print(f"done: {args.output_dir / BEST} has {score}; next: {utils.command_line(show)}")


def train_one_epoch(
    args: argparse.Namespace,
    parts: Parts,
    training: "Training",
    loader: "DataLoader",
    batches: int,
    stop: utils.StopRequest,
) -> dict[str, float]:
    """What is left of an epoch; saves in between where it is asked to, and before it stops."""
    from detr.data import read_batches
    from detr.distributed import any_process

    title = f"epoch {training.epochs_done + 1}/{args.epochs}"
    done = training.updates_done * args.accumulate
    with (
        saved_when_stopped(args, parts, training, stop),
        utils.Progress(batches, title, done=done, shown=parts.processes.is_main) as bar,
    ):

        def on_update() -> None:
            bar.update(args.accumulate, lambda: f"loss {training.means.mean('loss'):.3f}")
            if any_process(bool(stop.signal)):
                raise utils.Stopped("", stop.signal)
            if args.save_every_steps and training.updates_done % args.save_every_steps == 0:
                save_last(args, parts, training)

        return training.train_epoch(read_batches(loader, stop.while_waiting), on_update)


def evaluate_one_epoch(
    args: argparse.Namespace, parts: Parts, training: "Training", loader: "DataLoader", stop: utils.StopRequest
) -> tuple[dict, list[dict]]:
    """The log's keys of an evaluation, and the detections."""
    from detr.distributed import any_process, share_statistics

    left = loader.batch_sampler.smallest_share  # as often as all processes can ask each other

    def on_step() -> None:
        nonlocal left
        left -= 1
        if left >= 0 and any_process(bool(stop.signal)):
            raise utils.Stopped("", stop.signal)

    began = time.monotonic()
    share_statistics(training.detector)
    with saved_when_stopped(args, parts, training, stop):
        losses, metrics, found = evaluate_on(parts, training.detector, loader, on_step, stop.while_waiting)
    if not math.isfinite(losses["loss"]):
        raise UserError(
            f"epoch {training.epochs_done + 1}: on the validation images the loss is not finite (NaN or infinity): the "
            "last steps have spoilt the weights, which do not replace the saved ones. A smaller --lr or "
            "--clip_max_norm usually helps"
        )
    seconds = {"seconds_eval": round(time.monotonic() - began, 2)}
    return prefixed("test_", losses) | {"test_coco_eval_bbox": metrics} | seconds, found


@contextlib.contextmanager
def saved_when_stopped(
    args: argparse.Namespace, parts: Parts, training: "Training", stop: utils.StopRequest
) -> Iterator[None]:
    """Save before a stop that was asked for ends the run, and say how to go on."""
    from detr.data import LoaderDied

    try:
        yield
    except (utils.Stopped, LoaderDied) as reason:
        if isinstance(reason, LoaderDied) and not stop.signal:
            raise  # otherwise it was asked to stop as well
        if isinstance(reason, LoaderDied | utils.BrokenOff) and parts.processes.count > 1:
            raise  # others may be in a step: they do not save with us
        save_last(args, parts, training)
        raise stopped(args, training, stop) from None


def stopped(args: argparse.Namespace, training: "Training", stop: utils.StopRequest) -> utils.Stopped:
    """What to raise when the run was asked to stop, and was saved."""
    return utils.Stopped(
        f"stopped in epoch {training.epochs_done + 1} after step {training.updates_done} of "
        f"{training.updates_per_epoch}; {args.output_dir / LAST} is saved. To go on, run the same command with "
        "--resume auto",
        stop.signal or signal.SIGTERM,
    )


def evaluate_only(args: argparse.Namespace, start: Start, parts: Parts) -> None:
    """Print the 12 COCO numbers and save the detections; predictions.json is only ever that of checkpoint_best.pth."""
    from detr.data import loader_named
    from detr.report.precision import COCO_NUMBERS

    with loader_named():
        _, metrics, predictions = evaluate_on(parts, parts.model, validation_loader(args, parts))
    for name, value in zip(COCO_NUMBERS, metrics, strict=True):
        print(f"{name:10} {value:.4f}")
    path = args.output_dir / PREDICTIONS
    if path.exists() or not repeats_the_run(args, start, parts):
        path = args.output_dir / f"predictions_{start.path.stem}.json"
    if parts.processes.is_main:
        utils.write_json(path, predictions)
    print(f"detections: {path}")


def repeats_the_run(args: argparse.Namespace, start: Start, parts: Parts) -> bool:
    """Whether an evaluation is that of the run's best detector: its weights, on its images, at its resolution."""
    config = read_json(args.output_dir / CONFIG) or {}
    return (
        utils.is_same_file(start.path, args.output_dir / BEST)
        and config.get("validation_images") == fingerprint(parts.data.val_coco)
        and start.checkpoint.get("resolution") == resolution(args)
    )


def training_keys(args: argparse.Namespace, parts: Parts) -> "KeyBatches":
    """Which images make up the updates of an epoch, and which of them this process takes."""
    from detr.sampler import KeyBatches

    processes = parts.processes
    return KeyBatches(
        parts.data.train,
        args.batch_size,
        args.seed,
        accumulate=args.accumulate,
        process=processes.rank,
        processes=processes.count,
    )


def validation_loader(args: argparse.Namespace, parts: Parts) -> "DataLoader":
    """This process's share of the validation images."""
    from detr.sampler import KeyBatches

    processes = parts.processes
    keys = KeyBatches(parts.data.val, args.batch_size, process=processes.rank, processes=processes.count)
    return load(args, parts, parts.data.val, keys)


def load(args: argparse.Namespace, parts: Parts, images: "CocoImages", keys: "KeyBatches") -> "DataLoader":
    """A loader of the batches that `keys` names."""
    from detr.data import make_loader

    return make_loader(images, keys, args.num_workers, pin_memory=parts.device.type == "cuda")


def evaluate_on(
    parts: Parts,
    model: "Detr",
    val_loader: "DataLoader",
    on_step: Callable[[], None] = lambda: None,
    while_waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> tuple[dict, list[float], list[dict]]:
    """Losses, the 12 COCO numbers and the detections on the validation images."""
    from detr.data import read_batches
    from detr.evaluate import evaluate

    with utils.Progress(len(val_loader), "evaluate", shown=parts.processes.is_main) as bar:

        def show(means: "Means") -> None:
            bar.update(text=lambda: f"loss {means.mean('loss'):.3f}")
            on_step()

        return evaluate(
            model,
            parts.criterion,
            read_batches(val_loader, while_waiting),
            parts.data.val_coco,
            parts.data.label_map,
            parts.device,
            parts.precision,
            show,
        )


# ------------------------------------------------------------------------------------------------- logs and checkpoints


def accounts(parts: Parts, training: "Training", log: dict) -> dict[str, float]:
    """Where an epoch's time and memory went, of this process: keys for the log."""
    from detr.device import peak_memory_mib

    return {
        "lr_backbone": training.optimizer.param_groups[1]["lr"],
        "seconds": round(training.seconds + log.get("seconds_eval", 0.0), 2),
        "seconds_train": round(training.seconds, 2),
        "seconds_data": round(training.seconds_waiting, 2),
        "images_per_second": round(training.images / training.seconds, 2) if training.seconds else 0.0,
        "peak_memory_mib": round(peak_memory_mib(parts.device)),
    }


def prefixed(prefix: str, values: dict) -> dict:
    """The same values under longer names."""
    return {prefix + name: value for name, value in values.items()}


def open_logs(args: argparse.Namespace, parts: Parts, epochs_done: int) -> Callable[[dict], None]:
    """What writes an epoch's numbers to log.txt, and to TensorBoard where that is asked for; both forget what was
    logged of epochs beyond those that are done.
    """
    if not parts.processes.is_main:
        return lambda log: None
    path = args.output_dir / LOG
    if not args.tensorboard:
        return partial(append_log, path)
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(args.output_dir / TENSORBOARD, purge_step=epochs_done)

    def write(log: dict) -> None:
        append_log(path, log)
        for name, value in log.items():
            values = value if isinstance(value, list) else [value]
            for number, one in enumerate(values):
                writer.add_scalar(f"{name}_{number}" if isinstance(value, list) else name, one, log["epoch"])
        writer.flush()

    return write


def check_tensorboard() -> None:
    """Raise UserError where --tensorboard has nothing to write with."""
    try:
        import torch.utils.tensorboard  # noqa: F401  # an import that fails says what is missing
    except ImportError as error:
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard") from error


def append_log(path: Path, log: dict) -> None:
    """Add one line to log.txt, with null for what is not a number; a crash can cut it short, which resuming mends."""
    log = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in log.items()}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(log, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint, which is to find its epoch in the log
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); go on with --resume auto") from error


def summary_line(title: str, log: dict, best: dict, seconds_left: float) -> str:
    """One epoch in one line a person can read."""
    words = [title, f"loss {log['train_loss']:.3f}"]
    if "test_coco_eval_bbox" in log:
        ap, ap50 = log["test_coco_eval_bbox"][:2]
        star = " (best so far)" if best["epoch"] == log["epoch"] else ""
        scores = [f"AP {ap:.3f}", f"AP50 {ap50:.3f}{star}"] if ap >= 0 else [f"AP not defined{star}"]
        words += [f"val loss {log['test_loss']:.3f}", *scores]
    words += [f"lr {log['train_lr']:.1e}", f"{log['images_per_second']:.1f} images/s", f"{log['seconds']:.0f} s"]
    return "  ".join(words + ([f"{utils.duration(seconds_left)} left"] if seconds_left else []))


def write_nonfinite(args: argparse.Namespace, parts: Parts, report: dict) -> None:
    """Keep what is known of an update that was not finite."""
    path = args.output_dir / f"nonfinite_epoch{report['epoch']}_step{report['step']}.json"
    if parts.processes.is_main:
        utils.write_json(path, report, indent=2)
    print(f"epoch {report['epoch']}, step {report['step']} is not finite and was left out; its batch is in {path}")


def save_best(args: argparse.Namespace, parts: Parts, training: "Training", found: list[dict]) -> None:
    """The weights to use, and what they find on the validation images: never what other weights found."""
    if parts.processes.is_main:
        (args.output_dir / PREDICTIONS).unlink(missing_ok=True)  # a kill from here on leaves none
        utils.save_tensors(args.output_dir / BEST, detector_state(args, parts, training, training.detector))
        utils.write_json(args.output_dir / PREDICTIONS, found)


def save_last(args: argparse.Namespace, parts: Parts, training: "Training") -> None:
    """Everything that going on needs."""
    import torch

    from detr.distributed import wait

    # Every process has a part in it.
    state = training.state() | {"args": plain(args), "threads": torch.get_num_threads()}
    if parts.processes.is_main:
        utils.save_tensors(args.output_dir / LAST, detector_state(args, parts, training, parts.model) | state)
    wait()  # nobody says that it is saved before it is


def detector_state(args: argparse.Namespace, parts: Parts, training: "Training", model: "Detr") -> dict:
    """What makes a file a detector."""
    from detr.checkpoint import weights_state

    label_map = parts.data.label_map
    return weights_state(model, label_map.categories, resolution(args), training.best, label_map.raw_ids)


if __name__ == "__main__":
    utils.run_script(main)
