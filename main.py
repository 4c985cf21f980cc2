"""Fine-tune DETR on a COCO folder that prep.py wrote, or evaluate a checkpoint.

python main.py --resume detr-r50_no-class-head.pth --epochs 100     start fine-tuning
python main.py --resume auto --epochs 100                           go on after an interruption
python main.py --eval                                               the 12 COCO numbers of the best checkpoint
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import utils
from detr.errors import UserError
from detr.public_weights import PUBLIC_CLASSES, PUBLIC_WEIGHTS

if TYPE_CHECKING:  # torch takes seconds to import: functions that need it do so, after the command line is parsed
    import torch
    from torch.utils.data import DataLoader

    from detr.class_rows import ClassRows
    from detr.criterion import SetCriterion
    from detr.data import CocoImages, Data, KeyBatches
    from detr.device import Precision
    from detr.engine import Means, Training
    from detr.model import Detr

LAST, BEST, LOG, CONFIG, PREDICTIONS = RUN_FILES = (
    "checkpoint.pth",
    "checkpoint_best.pth",
    "log.txt",
    "config.json",
    "predictions.json",
)


# -------------------------------------------------------------------------------------------------------- command line


def make_parser() -> argparse.ArgumentParser:
    """The reference's flags and ours. Architecture flags default to None, unset, so that a file's own are adopted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    _add_training_flags(parser.add_argument_group("training"))
    _add_architecture_flags(parser.add_argument_group("architecture (default: that of the weights started from)"))
    _add_loss_flags(parser.add_argument_group("matching and loss"))
    _add_data_flags(parser.add_argument_group("data"))
    _add_run_flags(parser.add_argument_group("run"))
    return parser


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments` in its place."""
    args = make_parser().parse_args(arguments)
    if args.lr_drop is None:
        args.lr_drop = max(1, round(args.epochs * 2 / 3))  # the paper drops at 200 of 300
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _not_negative(kind: Callable[[str], float], text: str) -> float:
    value = kind(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def _pair(text: str) -> tuple[str, str]:
    old, _, new = (part.strip() for part in text.partition("="))
    if not (old and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not COCO_NAME=YOUR_NAME, such as person=pedestrian")
    return old, new


_count = partial(_not_negative, int)
_count.__name__ = "whole number"
_amount = partial(_not_negative, float)
_amount.__name__ = "number"


def _add_training_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--lr", type=_amount, default=1e-4, help="learning rate of the transformer and the heads (%(default)s)")
    add("--lr_backbone", type=_amount, default=1e-5, help="learning rate of the backbone; 0 freezes it (%(default)s)")
    add("--batch_size", type=_positive, default=2, help="images per step (%(default)s)")
    add("--weight_decay", type=_amount, default=1e-4, help="weight decay of AdamW, per step (%(default)s)")
    add("--epochs", type=_positive, default=300, help="passes over the training images (%(default)s)")
    add("--lr_drop", type=_positive, help="epochs until learning rates drop to a tenth (default: 2/3 of --epochs)")
    add("--clip_max_norm", type=_amount, default=0.1, help="largest norm of the gradient; 0 never clips (%(default)s)")


def _add_architecture_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--backbone", help="torchvision ResNet: resnet18, resnet34, resnet50, resnet101, ... (resnet50)")
    add("--dilation", action="store_true", default=None, help="stride 16 instead of 32 in the last stage (DC5)")
    add("--position_embedding", choices=("sine", "learned"), help="kind of position embedding (sine)")
    add("--enc_layers", type=_count, help="encoder layers (6)")
    add("--dec_layers", type=_positive, help="decoder layers (6)")
    add("--dim_feedforward", type=_positive, help="width of the feed-forward networks, in channels (2048)")
    add("--hidden_dim", type=_positive, help="width of the transformer, in channels (256)")
    add("--dropout", type=_amount, help="share of activations dropped in training, 0 to 1 (0.1)")
    add("--nheads", type=_positive, help="attention heads (8)")
    add("--num_queries", type=_positive, help="object queries: the most objects an image can have (100)")
    add("--pre_norm", action="store_true", default=None, help="LayerNorm before each block instead of after it")
    add(
        "--num_classes",
        type=_positive,
        help="number of classes; needs no counting: it is read from the annotations and only checked against this",
    )
    add(
        "--backbone_weights",
        metavar="{imagenet,none,FILE}",
        help="where the backbone starts when no DETR weights are given: torchvision's ImageNet weights (downloaded), a "
        "file of them, or random numbers; then nothing is frozen and BatchNorm is live (imagenet)",
    )


def _add_loss_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--no_aux_loss", dest="aux_loss", action="store_false", help="supervise only the last decoder layer")
    add("--set_cost_class", type=_amount, default=1.0, help="weight of the class in the matching (%(default)s)")
    add("--set_cost_bbox", type=_amount, default=5.0, help="weight of the boxes' L1 in the matching (%(default)s)")
    add("--set_cost_giou", type=_amount, default=2.0, help="weight of the boxes' GIoU in the matching (%(default)s)")
    add("--bbox_loss_coef", type=_amount, default=5.0, help="weight of the L1 box loss (%(default)s)")
    add("--giou_loss_coef", type=_amount, default=2.0, help="weight of the GIoU box loss (%(default)s)")
    add("--eos_coef", type=_amount, default=0.1, help='weight of the "no object" class in its loss (%(default)s)')


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataset_file", choices=("custom", "coco"), default="custom", help="layout of --coco_path (%(default)s)")
    add("--coco_path", type=Path, default=Path("data/custom"), help="the COCO folder (%(default)s)")
    add(
        "--scales",
        type=_positive,
        nargs="+",
        metavar="PIXELS",
        help="shorter sides to train at, drawn per image; evaluation takes the largest (480 to 800 by 32)",
    )
    add(
        "--max_size",
        type=_positive,
        metavar="PIXELS",
        help="longest side, in pixels (1333)",
    )
    add("--no_augment", dest="augment", action="store_false", help="no mirroring and no cropping")
    add(
        "--cache", choices=("none", "ram"), default="none", help="ram: decode each image once, keep it in memory (none)"
    )
    add("--num_workers", type=_count, default=2, help="processes that load images; 0 loads in between (%(default)s)")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output_dir", type=Path, default=Path("outputs"), help="the run's folder (%(default)s)")
    add("--device", default="auto", help="auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps or cpu (%(default)s)")
    add(
        "--amp",
        choices=("auto", "bf16", "fp16", "off"),
        default="auto",
        help="16-bit arithmetic in the network: auto where the device has it natively, off for float32 (%(default)s)",
    )
    add("--seed", type=_count, default=42, help="seed of all random numbers (%(default)s)")
    add(
        "--resume",
        metavar="{auto,FILE,URL}",
        help="a checkpoint to go on with, or weights to start from; auto goes on with the run in --output_dir, "
        "or starts from --weights if there is none",
    )
    add("--weights", type=Path, metavar="FILE", help="weights to start from")
    add(
        "--class_map",
        type=_pair,
        nargs="+",
        action="extend",
        metavar="COCO_NAME=YOUR_NAME",
        help="classes that start from what the weights know under another name, such as person=pedestrian; the same "
        "names and their plurals are found without it",
    )
    add("--overwrite", action="store_true", help="start anew in a used --output_dir: its run is deleted")
    add("--start_epoch", type=_count, default=0, help="epoch to begin a new run with, from 0 (%(default)s)")
    add("--eval", action="store_true", help="evaluate --resume (default: the run's checkpoint_best.pth), do not train")
    add("--eval_every", type=_positive, default=1, metavar="EPOCHS", help="epochs from one evaluation to the next (1)")
    add("--save_every", type=_positive, default=1, metavar="EPOCHS", help="epochs from one checkpoint to the next (1)")


# ---------------------------------------------------------------------------------------------------------- the recipe


class Start(NamedTuple):
    """Where a run begins."""

    path: Path | None = None  # None: nothing but the backbone's weights
    checkpoint: dict | None = None
    continues: bool = False  # the file is a run to go on with, not only weights to start from


class Parts(NamedTuple):
    """What training and evaluation work with."""

    device: "torch.device"
    precision: "Precision"
    data: "Data"
    model: "Detr"
    criterion: "SetCriterion"


def main() -> None:
    """Find where to start, build, then train and evaluate epoch by epoch."""
    args = parse_arguments()
    from detr.device import keep_freed_memory

    keep_freed_memory()
    start = find_start(args)
    check_class_map(args, start)
    if start.continues and start.checkpoint["epoch"] + 1 >= args.epochs:
        done = start.checkpoint["epoch"] + 1
        print(f"{start.path} has done {done} epochs and --epochs asks for {args.epochs}: nothing is left to train")
        return
    check_output_folder(args, start)
    choose_sizes(args, start)
    parts = build_parts(args, start)
    if args.eval:
        evaluate_only(args, parts)
        return
    training = build_training(args, start, parts)
    begin_run_folder(args, start, parts)
    train(args, parts, training)


# ------------------------------------------------------------------------------------------------------ where to start


def find_start(args: argparse.Namespace) -> Start:
    """What --resume, --weights and --eval mean here. Raises UserError when they contradict each other."""
    from detr.checkpoint import read_checkpoint

    if args.resume == "auto":
        last = args.output_dir / LAST
        path = last if last.exists() else args.weights
    elif args.resume and args.weights:
        raise UserError("--resume FILE and --weights FILE: one of them; --resume auto goes with --weights")
    elif args.resume:
        path = _fetched(args.resume) if args.resume.startswith(("http://", "https://")) else Path(args.resume)
    else:
        path = args.weights
    if args.eval and path is None:
        path = args.output_dir / BEST
        if not path.exists():
            raise UserError(f"--eval needs a checkpoint: {path} is not there; name one with --resume")
    if path is None:
        return Start()
    checkpoint = read_checkpoint(path)
    if args.backbone_weights and not args.eval and "optimizer" not in checkpoint:
        raise UserError(f"--backbone_weights and {path}: that file holds a backbone already")
    is_run = {"optimizer", "epoch"} <= checkpoint.keys()
    return Start(path, checkpoint, is_run and path != args.weights and not args.eval)


def _fetched(url: str) -> Path:
    path = Path(url.rsplit("/", 1)[1])
    prefixes = {weights.file_name: weights.sha256_prefix for weights in PUBLIC_WEIGHTS.values()}
    utils.download(url, path, prefixes.get(path.name, ""))
    return path


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
    used = [name for name in (LAST, LOG) if (args.output_dir / name).exists()]
    goes_on_there = start.continues and start.path.parent.resolve() == args.output_dir.resolve()
    # Interrupted before its first checkpoint: there is nothing to go on with, and nothing to lose.
    only_begun = args.resume == "auto" and LAST not in used
    if used and not (args.eval or args.overwrite or goes_on_there or only_begun):
        raise UserError(
            f"{args.output_dir} holds a run already ({', '.join(used)}): go on with --resume auto, take another "
            "--output_dir, or delete it with --overwrite"
        )


def choose_sizes(args: argparse.Namespace, start: Start) -> None:
    """Fill in --scales and --max_size where they are not given: the paper's, or what a file to evaluate was made at."""
    made_at = (start.checkpoint or {}).get("resolution", {}) if args.eval else {}
    args.scales = args.scales or ([made_at["scale"]] if made_at else list(range(480, 801, 32)))
    args.max_size = args.max_size or made_at.get("max_size", 1333)


def begin_run_folder(args: argparse.Namespace, start: Start, parts: Parts) -> None:
    """Make the run's folder ready: an overwritten run is deleted, a continued log is cut to the checkpoint."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    log = args.output_dir / LOG
    if start.continues:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        kept = [line for line in lines if _epoch_of(line) <= start.checkpoint["epoch"]]
        with utils.atomic_path(log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    else:
        for name in RUN_FILES:
            (args.output_dir / name).unlink(missing_ok=True)
    about = {
        "args": plain(args),
        "config": dataclasses.asdict(parts.model.config),
        "categories": parts.data.label_map.categories,
        "n_parameters": parts.model.count_trainable(),
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
    from detr.transforms import augmented_view, evaluation_view, plain_training_view

    training_view = augmented_view if args.augment else plain_training_view
    data = load_folder(
        args.coco_path,
        args.dataset_file,
        partial(training_view, scales=args.scales, max_size=args.max_size),
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
    from detr.checkpoint import load_backbone_weights, load_weights, read_config
    from detr.model import Detr, DetrConfig

    fields = {field.name for field in dataclasses.fields(DetrConfig)} - {"num_classes", "batch_norm"}
    asked = {name: value for name in sorted(fields) if (value := getattr(args, name)) is not None}
    if start.checkpoint is None:
        source = args.backbone_weights or "imagenet"
        batch_norm = "live" if source == "none" else "frozen"
        model = Detr(DetrConfig(data.num_classes, batch_norm=batch_norm, **asked))
        if source == "none":
            print("random backbone: nothing is frozen, BatchNorm is live")
        else:
            print(load_backbone_weights(model, source))
    else:
        own = read_config(start.path, start.checkpoint)
        has_run = args.eval or start.continues
        num_classes = own.get("num_classes", data.num_classes) if has_run else data.num_classes
        for name in asked.keys() & own.keys() - {"dropout"}:  # dropout is a way to train, not what the file is
            if asked[name] != own[name]:
                raise UserError(f"--{name} {asked[name]} contradicts {start.path}, which has {own[name]}; leave it out")
        model = Detr(DetrConfig(**(own | asked | {"num_classes": num_classes})))
        same_classes = start.checkpoint.get("categories", data.label_map.categories) == data.label_map.categories
        class_rows = None if has_run else choose_class_rows(args, start, data)
        report = load_weights(model, start.checkpoint["model"], start.path, class_rows)
        if has_run and (report.fresh or not same_classes or args.num_classes not in (None, num_classes)):
            raise UserError(f"{start.path}: its class head is not for the categories of {args.coco_path}")
        print(f"{start.path}: {report}")
    if args.lr_backbone == 0:
        model.freeze_backbone()
    return model


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


def build_parts(args: argparse.Namespace, start: Start) -> Parts:
    """Device, data, network and loss, as the command line and the file to start from say."""
    import torch

    from detr.criterion import SetCriterion
    from detr.device import pick_device, pick_precision
    from detr.matcher import HungarianMatcher

    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    data = load_data(args)
    model = build_model(args, start, data)
    matcher = HungarianMatcher(args.set_cost_class, args.set_cost_bbox, args.set_cost_giou)
    criterion = SetCriterion(
        model.config.num_classes, matcher, args.eos_coef, args.bbox_loss_coef, args.giou_loss_coef, args.aux_loss
    )
    return Parts(device, pick_precision(args.amp, device), data, model.to(device), criterion.to(device))


def build_training(args: argparse.Namespace, start: Start, parts: Parts) -> "Training":
    """Optimiser and schedule; a continued run gets its state back, and is told where this command line differs."""
    from detr.engine import Training

    training = Training(
        parts.model, args.lr, args.lr_backbone, args.weight_decay, args.lr_drop, parts.precision, args.start_epoch
    )
    if start.continues:
        training.restore(start.checkpoint, start.path)
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
    from detr.data import KeyBatches
    from detr.engine import train_one_epoch

    data, trained = parts.data, parts.model.count_trainable()
    print(
        f"{trained:,} parameters to train on {len(data.train)} images, {len(data.val)} to evaluate on; "
        f"{parts.device}, {parts.precision}; epochs {training.epochs_done + 1} to {args.epochs}"
    )
    keys = KeyBatches(data.train, args.batch_size, args.seed)
    train_loader = load(args, parts, data.train, keys)
    val_loader = load(args, parts, data.val, KeyBatches(data.val, args.batch_size))
    for keys.epoch in range(training.epochs_done, args.epochs):
        began, epoch = time.monotonic(), keys.epoch
        title = f"epoch {epoch + 1}/{args.epochs}"
        with utils.Progress(len(keys), title) as bar:
            means = train_one_epoch(
                parts.model,
                parts.criterion,
                train_loader,
                training,
                parts.device,
                parts.precision,
                title,
                args.clip_max_norm,
                partial(show_step, bar),
            )
        log, ap = prefixed("train_", means), None
        is_last = epoch + 1 == args.epochs
        if is_last or (epoch + 1) % args.eval_every == 0:
            losses, metrics, found = evaluate_on(parts, val_loader)
            log |= prefixed("test_", losses) | {"test_coco_eval_bbox": metrics}
            ap = metrics[0]
        log |= {"epoch": epoch, "n_parameters": trained, "seconds": round(time.monotonic() - began, 2)}
        if training.end_epoch(ap):
            save_best(args, parts, training, found)
        append_log(args.output_dir / LOG, log)
        if is_last or (epoch + 1) % args.save_every == 0:
            save_last(args, parts, training)
        print(summary_line(title, log, training.best), flush=True)
    print(f"done: {args.output_dir / BEST} has AP {training.best['AP']:.3f}; next: python results.py")


def evaluate_only(args: argparse.Namespace, parts: Parts) -> None:
    """Print the 12 COCO numbers and write predictions.json."""
    from detr.data import KeyBatches
    from detr.evaluate import COCO_METRICS

    val_loader = load(args, parts, parts.data.val, KeyBatches(parts.data.val, args.batch_size))
    _, metrics, predictions = evaluate_on(parts, val_loader)
    for name, value in zip(COCO_METRICS, metrics, strict=True):
        print(f"{name:10} {value:.4f}")
    utils.write_json(args.output_dir / PREDICTIONS, predictions)
    print(f"detections: {args.output_dir / PREDICTIONS}")


def load(args: argparse.Namespace, parts: Parts, images: "CocoImages", keys: "KeyBatches") -> "DataLoader":
    """A loader of the batches that `keys` names."""
    from detr.data import make_loader

    return make_loader(images, keys, args.num_workers, pin_memory=parts.device.type == "cuda")


def evaluate_on(parts: Parts, val_loader: "DataLoader") -> tuple[dict, list[float], list[dict]]:
    """Losses, the 12 COCO numbers and the detections on the validation images."""
    from detr.evaluate import evaluate

    with utils.Progress(len(val_loader), "evaluate") as bar:
        return evaluate(
            parts.model,
            parts.criterion,
            val_loader,
            parts.data.val_coco,
            parts.data.label_map,
            parts.device,
            parts.precision,
            partial(show_step, bar),
        )


def show_step(bar: utils.Progress, means: "Means") -> None:
    """Move the progress bar on."""
    bar.update(text=lambda: f"loss {means.mean('loss'):.3f}")


def prefixed(prefix: str, values: dict) -> dict:
    """The same values under longer names."""
    return {prefix + name: value for name, value in values.items()}


def append_log(path: Path, log: dict) -> None:
    """Add one line to log.txt; a crash can cut it short, which resuming mends."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(log) + "\n")


def summary_line(title: str, log: dict, best: dict) -> str:
    """One epoch in one line a person can read."""
    words = [title, f"loss {log['train_loss']:.3f}"]
    if "test_coco_eval_bbox" in log:
        ap, ap50 = log["test_coco_eval_bbox"][:2]
        star = " (best so far)" if best["epoch"] == log["epoch"] else ""
        words += [f"val loss {log['test_loss']:.3f}", f"AP {ap:.3f}", f"AP50 {ap50:.3f}{star}"]
    return "  ".join([*words, f"lr {log['train_lr']:.1e}", f"{log['seconds']:.0f} s"])


def save_best(args: argparse.Namespace, parts: Parts, training: "Training", found: list[dict]) -> None:
    """The weights to use, and what they find on the validation images."""
    import torch

    with utils.atomic_path(args.output_dir / BEST) as temporary:
        torch.save(detector_state(args, parts, training), temporary)
    utils.write_json(args.output_dir / PREDICTIONS, found)


def save_last(args: argparse.Namespace, parts: Parts, training: "Training") -> None:
    """Everything that going on needs."""
    import torch

    state = detector_state(args, parts, training) | training.state() | {"args": plain(args)}
    with utils.atomic_path(args.output_dir / LAST) as temporary:
        torch.save(state, temporary)


def detector_state(args: argparse.Namespace, parts: Parts, training: "Training") -> dict:
    """What makes a file a detector."""
    from detr.checkpoint import weights_state

    label_map = parts.data.label_map
    return weights_state(parts.model, label_map.categories, resolution(args), training.best, label_map.raw_ids)


if __name__ == "__main__":
    utils.run_script(main)
