"""Weights and checkpoints: read, strip, describe, adapt, and gather what continuing a run needs.

A file holds tensors and plain values only and is always read with `weights_only=True`. Its `model` has exactly the
keys and shapes of the public DETR files; its `config` says which architecture they belong to. The public files with a
mask head keep everything else under `detr.`: so do ours, and only this file knows (`public_names`).
"""

import argparse
import dataclasses
import itertools
import pickle
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

from detr.models.backbone import BACKBONES, STRIDES
from detr.models.class_transfer import ClassRows
from detr.models.detr import Detr, DetrConfig
from detr.models.huggingface import is_hub_folder, read_folder
from detr.models.model_zoo import PUBLIC_WEIGHTS
from utils import UserError, atomic_path

CLASS_HEAD = ("class_embed.weight", "class_embed.bias")
MASK_HEAD = ("bbox_attention.", "mask_head.")  # what its keys begin with
REFERENCE_RESOLUTION = {"scale": 800, "max_size": 1333}  # pixels; what the reference's code evaluates at
TRAIN_ONLY = ("extra_queries",)  # parameters that help to train a DETR and are no part of it


def read_checkpoint(path: Path) -> dict:
    """Read a file that holds a DETR's `model` state dict, and whatever lies beside it; or a folder of `transformers`.

    Raises UserError with the file's name and the reason: missing, truncated, holding code, not a DETR.
    """
    if is_hub_folder(path):
        return read_folder(path)
    checkpoint = _read_tensors(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"{path}: not a DETR checkpoint; expected a dict with the weights under 'model'")
    if not_tensors := [key for key, value in checkpoint["model"].items() if not isinstance(value, Tensor)]:
        raise UserError(f"{path}: 'model' holds something that is not a tensor: {not_tensors[0]}")
    model = {key.removeprefix("detr."): value for key, value in checkpoint["model"].items()}  # see `public_names`
    return _upgrade(checkpoint | {"model": model})


def public_names(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of `Detr`, with or without a mask head, with the keys of the public files."""
    if not has_mask_head(model):
        return model
    return {key if key.startswith(MASK_HEAD) else f"detr.{key}": value for key, value in model.items()}


def has_mask_head(model: dict[str, Tensor]) -> bool:
    """Return whether a state dict has the weights of a mask head."""
    return any(key.startswith(MASK_HEAD) for key in model)


def _upgrade(checkpoint: dict) -> dict:
    """Give the parts of a file that an earlier version wrote the names that they have now."""
    for part in (checkpoint.get("config"), checkpoint.get("args")):
        if isinstance(part, dict) and part.get("batch_norm") == "live":
            part["batch_norm"] = "train"
    if "updates_done" in (step := checkpoint.get("step") or {}):
        means, steps = step["means"], {"steps_done": step["updates_done"], "steps_per_epoch": step["updates_per_epoch"]}
        metrics = {"names": means["names"], "sums": means["sums"], "lrs": means["rates"], "steps": means["updates"]}
        checkpoint["step"] = steps | {"metrics": metrics}
    return checkpoint


def _read_tensors(path: Path) -> object:
    """`torch.load` with tensors and plain values only, plus the Namespace of the reference's own checkpoints."""
    if path.suffix == ".safetensors" and path.exists():
        raise UserError(f"{path}: safetensors hold no architecture; accepted: the folder with it and its config.json")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; the weights of a run are its checkpoint_best.pth") from error
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            reason = "it holds Python objects other than tensors and plain values, which could run code when read"
        else:
            reason = "it is not a PyTorch file, or it is damaged"
        raise UserError(f"{path}: refused, {reason}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a PyTorch file; it is truncated or damaged") from error


def save_tensors(path: Path, value: object) -> None:
    """Write a file for `torch.load`, atomically. Raises UserError where that fails: most often the disk is full."""
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(value, file)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer raises an error of its own about the one that it was stopped by.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise UserError(
            f"{path} could not be written ({cause.strerror}; {free:.0f} MiB are free there); what was saved before is "
            "as it was"
        ) from error


def strip_class_head(checkpoint: dict, config: dict) -> dict:
    """Return what a fine-tuning starts from: the detector's weights (the EMA's of a run) without the class head, the
    architecture without its classes, and the size of the images where that is known.
    """
    model = {key: value for key, value in best_weights(checkpoint).items() if key not in CLASS_HEAD}
    architecture = {key: value for key, value in config.items() if key != "num_classes"}
    resolution = {"resolution": checkpoint["resolution"]} if "resolution" in checkpoint else {}
    return {"model": public_names(model), "config": architecture} | resolution


def has_class_head(checkpoint: dict) -> bool:
    """Return whether the weights still have their class head."""
    return checkpoint["model"].keys() >= set(CLASS_HEAD)


def read_config(path: Path, checkpoint: dict) -> dict:
    """The architecture of a checkpoint as keywords of `DetrConfig`; without `num_classes` where the head is stripped.

    Files without `config` (the public ones) are read from their shapes; what shapes cannot tell (heads, dropout,
    dilation) is left out unless the file's name is that of a public file, or the reference's code has left its `args`.
    Raises UserError when the file's weights are not a DETR.
    """
    config = checkpoint.get("config")
    if config is None:
        config = _config_from_shapes(path, checkpoint["model"])
        dilation_of = {weights.file_name: weights.dilation for weights in PUBLIC_WEIGHTS.values()}
        if path.name in dilation_of:
            config["dilation"] = dilation_of[path.name]
        if isinstance(reference := checkpoint.get("args"), argparse.Namespace):
            config |= {name: vars(reference)[name] for name in ("nheads", "dilation") if name in reference}
    config = {"stride": 32, "masks": False} | config  # files from before there was a choice
    if unknown := sorted(config.keys() - {field.name for field in dataclasses.fields(DetrConfig)}):
        raise UserError(f"{path}: its config has {', '.join(unknown)}, unknown here; it is from another version")
    return config


def _config_from_shapes(path: Path, model: dict[str, Tensor]) -> dict:
    needed = ("input_proj.weight", "query_embed.weight", "transformer.decoder.layers.0.linear1.weight")
    if missing := [key for key in needed if key not in model]:
        raise UserError(f"{path}: not the weights of a DETR, {missing[0]} is missing")
    backbone, stride = _backbone_from_shapes(path, model)
    config = {
        "backbone": backbone,
        "stride": stride,
        "position_embedding": "learned" if "backbone.1.row_embed.weight" in model else "sine",
        "hidden_dim": model["input_proj.weight"].shape[0],
        "enc_layers": _count_layers(model, "transformer.encoder.layers."),
        "dec_layers": _count_layers(model, "transformer.decoder.layers."),
        "dim_feedforward": model["transformer.decoder.layers.0.linear1.weight"].shape[0],
        "num_queries": model["query_embed.weight"].shape[0],
        "pre_norm": "transformer.encoder.norm.weight" in model,
        "masks": has_mask_head(model),
    }
    if "class_embed.bias" in model:
        config["num_classes"] = model["class_embed.bias"].shape[0] - 1
    return config


def _count_layers(model: dict[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in model if key.startswith(prefix)})


def _backbone_from_shapes(path: Path, model: dict[str, Tensor]) -> tuple[str, int]:
    """Name and stride of the backbone whose parameters have the shapes of `backbone.0.body.*`."""
    prefix = "backbone.0.body."
    shapes = {key[len(prefix) :]: value.shape for key, value in model.items() if key.startswith(prefix)}
    for stride, name in itertools.product(STRIDES, BACKBONES):
        if shapes == _body_shapes(name, stride):
            return name, stride
    raise UserError(
        f"{path}: its backbone has the shapes of no torchvision ResNet or MobileNet; accepted: {', '.join(BACKBONES)}"
    )


def _body_shapes(name: str, stride: int) -> dict[str, torch.Size]:
    with torch.device("meta"):
        body = BACKBONES[name](name, dilation=False, stride=stride, batch_norm="frozen")
    return _shapes(body.state_dict())


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


class LoadReport(NamedTuple):
    """What became of a file's weights."""

    loaded: int  # tensors, as they are
    fresh: list[str]  # what stays as initialised: the parameters of the class head, the mask head, or nothing
    class_rows: ClassRows | None  # the class head where it was put together row by row
    left_out: int = 0  # tensors: those of a mask head that the network does not have

    def __str__(self) -> str:
        text = f"{self.loaded} tensors loaded"
        if self.fresh:
            text += f"; starting fresh: {', '.join(self.fresh)}"
        if self.left_out:
            text += "; its mask head is left out (--masks keeps it)"
        return text + (f"; {self.class_rows}" if self.class_rows else "")


def load_weights(detr: Detr, model: dict[str, Tensor], path: Path, class_rows: ClassRows | None = None) -> LoadReport:
    """Load a state dict into the network; only the class head and the mask head may be missing, and start fresh then.

    `class_rows` says which rows to take of a head that is there for other classes; None takes the head as it is.
    Raises UserError naming the keys when anything else is missing, unexpected or of another shape.
    """
    own, train_only = plain_state(detr)
    left_out = [] if detr.config.masks else [key for key in model if key.startswith(MASK_HEAD)]
    model = {key: value for key, value in model.items() if key not in left_out}
    if class_rows:
        model = model | _head_from_rows(own, model, class_rows, path)
    fresh = [] if any(key in model for key in CLASS_HEAD) else list(CLASS_HEAD)
    optional = (*fresh, *(() if has_mask_head(model) else MASK_HEAD))
    missing = [f"{key} is missing" for key in own if key not in model and not key.startswith(optional)]
    fresh += ["the mask head"] if detr.config.masks and not has_mask_head(model) else []
    unexpected = [f"{key} is not part of this model" for key in model if key not in own]
    reshaped = [
        f"has shape {key} {tuple(model[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in model and model[key].shape != own[key].shape
    ]
    if wrong := missing or unexpected or reshaped:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{path}: the weights do not fit a DETR with {detr.config.backbone}: {wrong[0]}{more}")
    detr.load_state_dict(own | model | train_only)
    return LoadReport(len(model) - (len(CLASS_HEAD) if class_rows else 0), fresh, class_rows, len(left_out))


def _head_from_rows(own: dict[str, Tensor], model: dict[str, Tensor], class_rows: ClassRows, path: Path) -> dict:
    """Return the network's class head with rows of the file's; spare rows, of no class, stay as initialised.

    Classes without a row start as the mean of all: with "no object", it tells an object from none from the first step.
    """
    head, rows = {}, len(model["class_embed.bias"])
    named = list(class_rows.file_names or range(rows - 1))
    for key in CLASS_HEAD:
        theirs, ours = model[key], own[key].clone()
        if theirs.shape != (rows, *ours.shape[1:]) or not all(row < rows - 1 for row in class_rows.file_names):
            raise UserError(f"{path}: its class head does not fit its classes, {key} has shape {tuple(theirs.shape)}")
        for label in class_rows.names:
            row = class_rows.row_of_label.get(label)
            ours[label] = theirs[named].float().mean(0) if row is None else theirs[row]
        ours[-1] = theirs[-1]
        head[key] = ours
    return head


class SavedDetector(NamedTuple):
    """A fine-tuned detector as its file describes it."""

    model: Detr  # for evaluation
    categories: list[dict]
    raw_ids: bool  # how labels follow from `categories`, see `data.LabelMap`
    resolution: dict[str, int]
    white: dict[str, int]  # of images of more than 8 bits, see `data.images.White`; empty where there were none


def load_detector(path: Path, categories: list[dict] | None = None) -> SavedDetector:
    """Rebuild a fine-tuned detector from its file alone; of a run's `checkpoint.pth` it is the EMA of the weights.

    The files of the reference's code and the public ones do not name their classes: `categories`, COCO's, do so for
    them, and they see images at `REFERENCE_RESOLUTION`.

    Raises UserError where the file has no class head, or nothing says what its classes are.
    """
    checkpoint = read_checkpoint(path)
    config = read_config(path, checkpoint)
    if "num_classes" not in config or not has_class_head(checkpoint):
        raise UserError(f"{path}: has no class head; fine-tune it with main.py first")
    resolution, raw_ids = checkpoint.get("resolution", REFERENCE_RESOLUTION), checkpoint.get("raw_ids", False)
    if "categories" not in checkpoint:
        if categories is None:
            raise UserError(
                f"{path}: does not say what its classes are called, as main.py's checkpoints do; --coco_path with the "
                "annotations it was trained on tells"
            )
        raw_ids = labels_are_ids(categories, config["num_classes"], path)
    detr = Detr(DetrConfig(**config))
    load_weights(detr, best_weights(checkpoint), path)
    categories, white = checkpoint.get("categories", categories), checkpoint.get("white", {})
    return SavedDetector(detr.eval(), categories, raw_ids, resolution, white)


def labels_are_ids(categories: list[dict], num_classes: int, path: Path) -> bool:
    """Return whether the labels of a detector that does not name its classes are category ids.

    The reference's code has it so wherever all ids are below `num_classes`. Ids that are not can only be meant by their
    order: 1 for the single class of a file whose labels start at 0. Raises UserError where neither fits.
    """
    ids = [category["id"] for category in categories]
    if max(ids) < num_classes:
        return True
    if len(ids) != num_classes:
        raise UserError(
            f"{path}: the file has {num_classes} classes, the annotations have {len(ids)}, with ids up to {max(ids)}"
            ": they are not those it was trained on"
        )
    return False


def best_weights(checkpoint: dict) -> dict[str, Tensor]:
    """Return the weights to use for anything but resuming: the EMA where there is one."""
    return checkpoint.get("ema") or checkpoint["model"]


def plain_state(detr: Detr) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state dict in two: what a plain DETR has, under the public files' keys, and what only its training uses."""
    state = dict(detr.state_dict())
    train_only = {key: state.pop(key) for key in TRAIN_ONLY if key in state}
    return state, train_only


def detector_state(
    detr: Detr, categories: list[dict], resolution: dict, best: dict, raw_ids: bool = False, white: dict | None = None
) -> dict:
    """Return a detector as it is saved: weights, architecture, what its classes are called, and how good it was when.

    `resolution` has the keywords `scale` and `max_size` of `transforms.evaluation_params`, in pixels; `raw_ids` says
    how labels follow from `categories`, as in `data.LabelMap`; `white` how deeper images are scaled to 8 bits.
    """
    return {
        "model": public_names(plain_state(detr)[0]),
        "config": dataclasses.asdict(detr.config),
        "categories": categories,
        "raw_ids": raw_ids,
        "resolution": resolution,
        "white": white or {},
        "best": best,
        "epoch": best["epoch"],
    }


def random_state() -> dict:
    """Return the random numbers' state on every device, as tensors."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict) -> None:
    """Set the random numbers to where `random_state` found them; other numbers of GPUs are left as seeded."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.backends.mps.is_available() and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Return torchvision's ImageNet weights of a backbone, downloaded once. Raises UserError where that fails."""
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): fetch {weights.url} by hand and give "
            "its path as --backbone_weights, or start from a DETR with --resume"
        ) from error


def read_backbone_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Read a classifier's state dict from a file. Raises UserError where it is none."""
    state = _read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict of a torchvision {name}")
    return state


def load_backbone_weights(detr: Detr, state: dict[str, Tensor], source: str) -> None:
    """Start the backbone from a classifier's state dict, and print its `source`.

    The classifier's last layers are not used, and neither are stages that this backbone leaves out for its stride.
    Raises UserError where the weights do not fit.
    """
    body, name = detr.backbone[0].body, detr.config.backbone
    state = {key: x for key, x in state.items() if not key.startswith(body.classifier) and "num_batches" not in key}
    own, whole = _shapes(body.state_dict()), _body_shapes(name, stride=32)
    if not own.items() <= _shapes(state).items() <= whole.items():
        raise UserError(f"{source}: these are not the weights of a torchvision {name}")
    body.load_state_dict({key: state[key] for key in own})
    print(f"backbone started from {source}")
