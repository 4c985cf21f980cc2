"""The flags of main.py: the reference code's names, meanings and defaults, and ours. No torch."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import utils
from detr.training.schedule import LR_SCHEDULES

# The paper's, and what prep.py holds a dataset against.
SCALES, MAX_SIZE = tuple(range(480, 801, 32)), 1333  # shorter sides trained at, longest side, in pixels
NUM_QUERIES = 100
AMP_CHOICES = ("auto", "bf16", "fp16", "off")


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
    parser = utils.ArgumentParser(description=description)
    _add_training_flags(parser.add_argument_group("training"))
    _add_architecture_flags(parser.add_argument_group("architecture (default: that of the weights started from)"))
    _add_loss_flags(parser.add_argument_group("matching and loss"))
    _add_mask_flags(parser.add_argument_group("masks"))
    _add_data_flags(parser.add_argument_group("data"))
    _add_run_flags(parser.add_argument_group("run"))
    return parser


def _number(kind: Callable[[str], float], least: int, most: float, text: str) -> float:
    value = kind(text)
    if not abs(value) < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not finite")
    if not least <= value <= most:
        accepted = f"{least} or more" if most == math.inf else f"between {least} and {most}"
        raise argparse.ArgumentTypeError(f"{value} is not {accepted}")
    return value


positive_int, _natural = partial(_number, int, 1, math.inf), partial(_number, int, 0, math.inf)
positive_int.__name__ = _natural.__name__ = "whole number"  # as argparse calls them in its messages
_nonneg, _share = partial(_number, float, 0, math.inf), partial(_number, float, 0, 1)
_nonneg.__name__ = _share.__name__ = "number"


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


def _add_flag(
    group: argparse._ArgumentGroup, name: str, kind: Callable | None, default: object, text: str, **settings: object
) -> None:
    """Add a flag that takes a value; its help ends with the default, where it has one."""
    shown = "" if default is None else " (%(default)s)"
    group.add_argument(name, type=kind, default=default, help=text + shown, **settings)


def _add_training_flags(group: argparse._ArgumentGroup) -> None:
    add = partial(_add_flag, group)
    add("--lr", _nonneg, 1e-4, "learning rate of the transformer and the heads")
    add("--lr_backbone", _nonneg, 1e-5, "learning rate of the backbone; 0 freezes it")
    add("--batch_size", positive_int, 2, "images per step")
    add("--weight_decay", _nonneg, 1e-4, "weight decay of AdamW, per step")
    add("--epochs", positive_int, 300, "passes over the training images")
    add("--lr_drop", positive_int, None, "epochs until learning rates drop to a tenth (default: 2/3 of --epochs)")
    add("--clip_max_norm", _nonneg, 0.1, "largest norm of the gradient; 0 never clips")
    add("--lr_schedule", None, "step", "drop at --lr_drop, or a cosine down to 0", choices=LR_SCHEDULES)
    add("--warmup_steps", _natural, 0, "steps over which learning rates rise", metavar="N")
    text = "batches per step: the result of N x --batch_size in the memory of --batch_size"
    add("--accumulate", positive_int, 1, text, metavar="N")
    text = "decay of the weights' exponential moving average (EMA) per step; it is evaluated and kept as best; 0: none"
    add("--ema_decay", _nonneg, 0.99, text)
    add("--patience", _natural, 0, "stop after so many without a better AP; 0: never", metavar="EPOCHS")
    add("--freeze", None, None, "what to keep as it is: the same as --lr_backbone 0", choices=("backbone",))
    text = "train K groups of queries side by side, so that an object teaches K of them; only the first is kept"
    add("--query_groups", positive_int, 1, text, metavar="K")


def _add_architecture_flags(group: argparse._ArgumentGroup) -> None:
    add, add_switch = partial(_add_flag, group), partial(group.add_argument, action="store_true", default=None)
    text = (
        "torchvision ResNet: resnet18, resnet34, resnet50, resnet101, ..., or for small machines mobilenet_v2, "
        "mobilenet_v3_small, mobilenet_v3_large (resnet50)"
    )
    add("--backbone", None, None, text)
    add_switch("--dilation", help="stride 16 instead of 32 in the last stage (DC5)")
    text = "pixels per cell of the feature map; 16 leaves out the last stage: fewer parameters, 4 times the cells (32)"
    add("--stride", int, None, text, choices=(16, 32))
    add("--position_embedding", None, None, "kind of position embedding (sine)", choices=("sine", "learned"))
    add("--enc_layers", _natural, None, "encoder layers (6)")
    add("--dec_layers", positive_int, None, "decoder layers (6)")
    add("--dim_feedforward", positive_int, None, "width of the feed-forward networks, in channels (2048)")
    add("--hidden_dim", positive_int, None, "width of the transformer, in channels (256)")
    add("--dropout", _nonneg, None, "share of activations dropped in training, 0 to 1 (0.1)")
    add("--nheads", positive_int, None, "attention heads (8)")
    add("--num_queries", positive_int, None, "object queries: the most objects an image can have (100)")
    add_switch("--pre_norm", help="LayerNorm before each block instead of after it")
    text = "keep the backbone's BatchNorm as pre-trained, or train it, for large batches (frozen)"
    earlier = {"live": "train"}  # versions called it so
    add("--batch_norm", lambda name: earlier.get(name, name), None, text, choices=("frozen", "train"))
    text = "number of classes; needs no counting: it is read from the annotations and only checked against this"
    add("--num_classes", positive_int, None, text)
    text = (
        "where the backbone starts when no DETR weights are given: torchvision's ImageNet weights (downloaded), a file "
        "of them, or random numbers; then nothing is frozen and BatchNorm is trained (imagenet)"
    )
    add("--backbone_weights", None, None, text, metavar="{imagenet,none,FILE}")


def _add_loss_flags(group: argparse._ArgumentGroup) -> None:
    add, text = partial(_add_flag, group), "supervise only the last decoder layer"
    group.add_argument("--no_aux_loss", dest="aux_loss", action="store_false", help=text)
    add("--set_cost_class", _nonneg, 1.0, "weight of the class in the matching")
    add("--set_cost_bbox", _nonneg, 5.0, "weight of the boxes' L1 in the matching")
    add("--set_cost_giou", _nonneg, 2.0, "weight of the boxes' GIoU in the matching")
    add("--bbox_loss_coef", _nonneg, 5.0, "weight of the L1 box loss")
    add("--giou_loss_coef", _nonneg, 2.0, "weight of the GIoU box loss")
    add("--eos_coef", _nonneg, 0.1, 'weight of the "no object" class in its loss')


def _add_mask_flags(group: argparse._ArgumentGroup) -> None:
    add, text = partial(_add_flag, group), "a mask head: objects get outlines as well as boxes"
    group.add_argument("--masks", action="store_true", default=None, help=text)
    text = "a box is the mean of the predicted one and the one around the mask, which has this weight (0)"
    add("--mask_box_weight", _share, None, text, metavar="W")
    add("--mask_loss_coef", _nonneg, 1.0, "weight of the masks' focal loss (with --query_groups K a K-th of it)")
    add("--dice_loss_coef", _nonneg, 1.0, "weight of the masks' dice loss (with --query_groups K a K-th of it)")


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    add = partial(_add_flag, group)
    add("--dataset_file", None, "custom", "layout of --coco_path", choices=("custom", "coco"))
    add("--coco_path", Path, Path("data/custom"), "the COCO folder")
    text = (
        "cross-validation: evaluate on part K of N of the images of both splits, train on the others; results.py "
        "--log of all N runs measures them as one (default: the splits as they are)"
    )
    add("--fold", _fold, None, text, metavar="K/N")
    text = "shorter sides to train at, drawn per image; evaluation takes the largest (480 to 800 by 32)"
    add("--scales", positive_int, None, text, nargs="+", metavar="PIXELS")
    add("--max_size", positive_int, None, "longest side, in pixels (1333)", metavar="PIXELS")
    group.add_argument("--no_augment", dest="augment", action="store_false", help="no flipping and no cropping")
    text = "change brightness, contrast and saturation of training images by up to this share, such as 0.2"
    add("--color_jitter", _nonneg, 0.0, text, metavar="S")
    text = "share of the training images into which objects of others are pasted, cut out along their polygons"
    add("--copy_paste", _share, 0.0, text, metavar="P")
    add("--cache", None, "none", "ram: decode each image once, keep it in memory", choices=("none", "ram"))
    add("--num_workers", _natural, 2, "processes that load images; 0 loads in between")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    add, add_switch = partial(_add_flag, group), partial(group.add_argument, action="store_true")
    add("--output_dir", Path, Path("outputs"), "the run's folder")
    add("--device", None, "auto", "auto (CUDA, then MPS, then CPU), cuda, cuda:1, mps or cpu")
    text = "16-bit arithmetic in the network: auto where the device has it natively, off for float32"
    add("--amp", None, "auto", text, choices=AMP_CHOICES)
    add("--seed", _natural, 42, "seed of all random numbers")
    text = "a checkpoint to resume, or weights to start from; auto: the run in --output_dir, --weights if there is none"
    add("--resume", None, None, text, metavar="{auto,FILE,URL}")
    add("--weights", Path, None, "weights to start from", metavar="FILE")
    text = "a detector that was trained on these classes: it stays as it is, and with --masks learns masks alone"
    add("--frozen_weights", Path, None, text, metavar="FILE")
    text = (
        "classes that start from the weights' row of another name, such as person=pedestrian, or of a number, such as "
        "1=balloon; equal names, whatever their case and with or without an s, need none"
    )
    add("--class_map", _class_pair, None, text, nargs="+", action="extend", metavar="COCO_NAME=YOUR_NAME")
    add_switch("--overwrite", help="start anew in a used --output_dir: its run is deleted")
    add("--start_epoch", _natural, 0, "epoch to begin a new run with, from 0")
    add_switch("--eval", help="evaluate --resume (default: the run's checkpoint_best.pth), do not train")
    add("--eval_every", positive_int, 1, "epochs from one evaluation to the next", metavar="EPOCHS")
    add("--save_every", positive_int, 1, "epochs from one checkpoint to the next", metavar="EPOCHS")
    add("--save_every_steps", _natural, 0, "save every N steps too, for long epochs; 0: no", metavar="N")
    text = "leave out up to N steps whose loss or gradient is not finite before stopping"
    add("--skip_nonfinite", _natural, 0, text, metavar="N")
    add_switch("--tensorboard", help="write the log for TensorBoard too, to --output_dir/tensorboard")
