"""The flags of main.py: the reference code's names, meanings and defaults, and ours. No torch."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from detr.training.schedule import LR_SCHEDULES

# The paper's, and what prep.py holds a dataset against.
SCALES, MAX_SIZE = tuple(range(480, 801, 32)), 1333  # shorter sides trained at, longest side, in pixels
NUM_QUERIES = 100


def parse_arguments(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `arguments` in its place."""
    parser = make_parser(description)
    args = parser.parse_args(arguments)
    if args.frozen_weights and args.weights:
        parser.error("--frozen_weights and --weights: one of them")
    if args.frozen_weights and not args.masks:
        parser.error("--frozen_weights needs --masks: nothing else would be trained")
    args.weights = args.frozen_weights or args.weights
    if args.lr_drop is None:
        args.lr_drop = max(1, round(args.epochs * 2 / 3))  # the paper drops at 200 of 300
    if args.freeze == "backbone":
        args.lr_backbone = 0.0
    return args


def flags_as_json(args: argparse.Namespace) -> dict:
    """Return the command line as plain values, fit for JSON and for checkpoints."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def make_parser(description: str) -> argparse.ArgumentParser:
    """The reference's flags and ours. Architecture flags default to None, unset, so that a file's own are adopted."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    _add_training_flags(parser.add_argument_group("training"))
    _add_architecture_flags(parser.add_argument_group("architecture (default: that of the weights started from)"))
    _add_loss_flags(parser.add_argument_group("matching and loss"))
    _add_mask_flags(parser.add_argument_group("masks"))
    _add_data_flags(parser.add_argument_group("data"))
    run = parser.add_argument_group("run")
    _add_run_flags(run)
    _add_start_flags(run)
    _add_saving_flags(run)
    return parser


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1. Raises ArgumentTypeError."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _not_negative(kind: Callable[[str], float], text: str) -> float:
    value = kind(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is negative" if value < 0 else f"{value} is not finite")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return value


def _class_pair(text: str) -> tuple[str, str]:
    old, _, new = (part.strip() for part in text.partition("="))
    if not (old and new):
        raise argparse.ArgumentTypeError(f"{text!r} is not COCO_NAME=YOUR_NAME, such as person=pedestrian")
    return old, new


def _fold(text: str) -> str:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) and int(count) > 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 1/5 for the first of five parts")
    return f"{int(number)}/{int(count)}"


_natural = partial(_not_negative, int)
_natural.__name__ = positive_int.__name__ = "whole number"  # as argparse calls them in its messages
_nonneg = partial(_not_negative, float)
_nonneg.__name__ = _share.__name__ = "number"


def _add_training_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--lr", type=_nonneg, default=1e-4, help="learning rate of the transformer and the heads (%(default)s)")
    add("--lr_backbone", type=_nonneg, default=1e-5, help="learning rate of the backbone; 0 freezes it (%(default)s)")
    add("--batch_size", type=positive_int, default=2, help="images per step (%(default)s)")
    add("--weight_decay", type=_nonneg, default=1e-4, help="weight decay of AdamW, per step (%(default)s)")
    add("--epochs", type=positive_int, default=300, help="passes over the training images (%(default)s)")
    add("--lr_drop", type=positive_int, help="epochs until learning rates drop to a tenth (default: 2/3 of --epochs)")
    add("--clip_max_norm", type=_nonneg, default=0.1, help="largest norm of the gradient; 0 never clips (%(default)s)")
    add("--lr_schedule", choices=LR_SCHEDULES, default="step", help="drop at --lr_drop, or a cosine down to 0 (step)")
    add("--warmup_steps", type=_natural, default=0, metavar="N", help="steps over which learning rates rise (0)")
    add(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="batches per step: the result of N x --batch_size in the memory of --batch_size (1)",
    )
    add(
        "--ema_decay",
        type=_nonneg,
        default=0.99,
        help="decay of the weights' exponential moving average (EMA) per step; the EMA is evaluated and kept as best; "
        "0: none (%(default)s)",
    )
    add(
        "--patience",
        type=_natural,
        default=0,
        metavar="EPOCHS",
        help="stop after so many without a better AP (0: never)",
    )
    add("--freeze", choices=("backbone",), help="what to keep as it is: the same as --lr_backbone 0")
    add(
        "--query_groups",
        type=positive_int,
        default=1,
        metavar="K",
        help="train K groups of queries side by side, so that an object teaches K of them; only the first is kept (1)",
    )


def _add_architecture_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--backbone",
        help="torchvision ResNet: resnet18, resnet34, resnet50, resnet101, ..., or for small machines "
        "mobilenet_v2, mobilenet_v3_small, mobilenet_v3_large (resnet50)",
    )
    add("--dilation", action="store_true", default=None, help="stride 16 instead of 32 in the last stage (DC5)")
    add(
        "--stride",
        type=int,
        choices=(16, 32),
        help="pixels from one cell of the feature map to the next; 16 leaves out the backbone's last stage: fewer "
        "parameters and a finer map, of four times as many cells (32)",
    )
    add("--position_embedding", choices=("sine", "learned"), help="kind of position embedding (sine)")
    add("--enc_layers", type=_natural, help="encoder layers (6)")
    add("--dec_layers", type=positive_int, help="decoder layers (6)")
    add("--dim_feedforward", type=positive_int, help="width of the feed-forward networks, in channels (2048)")
    add("--hidden_dim", type=positive_int, help="width of the transformer, in channels (256)")
    add("--dropout", type=_nonneg, help="share of activations dropped in training, 0 to 1 (0.1)")
    add("--nheads", type=positive_int, help="attention heads (8)")
    add("--num_queries", type=positive_int, help="object queries: the most objects an image can have (100)")
    add("--pre_norm", action="store_true", default=None, help="LayerNorm before each block instead of after it")
    add(
        "--batch_norm",
        type=lambda text: {"live": "train"}.get(text, text),  # as earlier versions called it
        choices=("frozen", "train"),
        help="keep the backbone's BatchNorm as pre-trained, or train it, for large batches (frozen)",
    )
    add(
        "--num_classes",
        type=positive_int,
        help="number of classes; needs no counting: it is read from the annotations and only checked against this",
    )
    add(
        "--backbone_weights",
        metavar="{imagenet,none,FILE}",
        help="where the backbone starts when no DETR weights are given: torchvision's ImageNet weights (downloaded), a "
        "file of them, or random numbers; then nothing is frozen and BatchNorm is trained (imagenet)",
    )


def _add_loss_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--no_aux_loss", dest="aux_loss", action="store_false", help="supervise only the last decoder layer")
    add("--set_cost_class", type=_nonneg, default=1.0, help="weight of the class in the matching (%(default)s)")
    add("--set_cost_bbox", type=_nonneg, default=5.0, help="weight of the boxes' L1 in the matching (%(default)s)")
    add("--set_cost_giou", type=_nonneg, default=2.0, help="weight of the boxes' GIoU in the matching (%(default)s)")
    add("--bbox_loss_coef", type=_nonneg, default=5.0, help="weight of the L1 box loss (%(default)s)")
    add("--giou_loss_coef", type=_nonneg, default=2.0, help="weight of the GIoU box loss (%(default)s)")
    add("--eos_coef", type=_nonneg, default=0.1, help='weight of the "no object" class in its loss (%(default)s)')


def _add_mask_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--masks", action="store_true", default=None, help="a mask head: objects get outlines as well as boxes")
    add(
        "--mask_box_weight",
        type=_share,
        metavar="W",
        help="a box is the mean of the predicted one and the one around the mask, which has this weight (0)",
    )
    add("--mask_loss_coef", type=_nonneg, default=1.0, help="weight of the masks' focal loss (%(default)s)")
    add("--dice_loss_coef", type=_nonneg, default=1.0, help="weight of the masks' dice loss (%(default)s)")


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataset_file", choices=("custom", "coco"), default="custom", help="layout of --coco_path (%(default)s)")
    add("--coco_path", type=Path, default=Path("data/custom"), help="the COCO folder (%(default)s)")
    add(
        "--fold",
        type=_fold,
        metavar="K/N",
        help="cross-validation: evaluate on part K of N of the images of both splits, train on the others; results.py "
        "--log of all N runs measures them as one (default: the splits as they are)",
    )
    add(
        "--scales",
        type=positive_int,
        nargs="+",
        metavar="PIXELS",
        help="shorter sides to train at, drawn per image; evaluation takes the largest (480 to 800 by 32)",
    )
    add("--max_size", type=positive_int, metavar="PIXELS", help="longest side, in pixels (1333)")
    add("--no_augment", dest="augment", action="store_false", help="no flipping and no cropping")
    add(
        "--color_jitter",
        type=_nonneg,
        default=0.0,
        metavar="S",
        help="change brightness, contrast and saturation of training images by up to this share, such as 0.2 (0)",
    )
    add(
        "--copy_paste",
        type=_share,
        default=0.0,
        metavar="P",
        help="share of the training images into which objects of others are pasted, cut out along their polygons (0)",
    )
    add(
        "--cache", choices=("none", "ram"), default="none", help="ram: decode each image once, keep it in memory (none)"
    )
    add("--num_workers", type=_natural, default=2, help="processes that load images; 0 loads in between (%(default)s)")


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
    add("--seed", type=_natural, default=42, help="seed of all random numbers (%(default)s)")


def _add_start_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--resume",
        metavar="{auto,FILE,URL}",
        help="a checkpoint to resume, or weights to start from; auto resumes the run in --output_dir, "
        "or starts from --weights if there is none",
    )
    add("--weights", type=Path, metavar="FILE", help="weights to start from")
    add(
        "--frozen_weights",
        type=Path,
        metavar="FILE",
        help="a detector that was trained on these classes: it stays as it is, and with --masks learns masks alone",
    )
    add(
        "--class_map",
        type=_class_pair,
        nargs="+",
        action="extend",
        metavar="COCO_NAME=YOUR_NAME",
        help="classes that start from the weights' row of another name, such as person=pedestrian, or of a number, "
        "such as 1=balloon; equal names, whatever their case and with or without an s, need none",
    )
    add("--overwrite", action="store_true", help="start anew in a used --output_dir: its run is deleted")
    add("--start_epoch", type=_natural, default=0, help="epoch to begin a new run with, from 0 (%(default)s)")
    add("--eval", action="store_true", help="evaluate --resume (default: the run's checkpoint_best.pth), do not train")


def _add_saving_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--eval_every",
        type=positive_int,
        default=1,
        metavar="EPOCHS",
        help="epochs from one evaluation to the next (1)",
    )
    add(
        "--save_every",
        type=positive_int,
        default=1,
        metavar="EPOCHS",
        help="epochs from one checkpoint to the next (1)",
    )
    add(
        "--save_every_steps",
        type=_natural,
        default=0,
        metavar="N",
        help="save every N steps too, for long epochs (0: no)",
    )
    add(
        "--skip_nonfinite",
        type=_natural,
        default=0,
        metavar="N",
        help="leave out up to N steps whose loss or gradient is not finite before stopping (%(default)s)",
    )
    add("--tensorboard", action="store_true", help="write the log for TensorBoard too, to --output_dir/tensorboard")
