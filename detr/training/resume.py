"""Where a run begins: at a checkpoint to resume, at weights to fine-tune, or at a pre-trained backbone."""

import contextlib
import dataclasses
import urllib.parse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

import utils
from detr.data.coco_json import check_white
from detr.data.dataset import Data, LabelMap
from detr.data.transforms import check_sizes
from detr.models.class_transfer import ClassRows, match_classes
from detr.models.detr import Detr, DetrConfig
from detr.models.model_zoo import PUBLIC_WEIGHTS
from detr.models.weights import (
    CLASS_HEAD,
    best_weights,
    has_class_head,
    has_mask_head,
    imagenet_weights,
    load_backbone_weights,
    load_weights,
    plain_state,
    read_backbone_weights,
    read_checkpoint,
    read_config,
)
from detr.training.distributed import all_gather, first_on_each_machine
from detr.training.flags import MAX_SIZE, SCALES
from detr.training.run_files import BEST, CONFIG, LAST
from utils import UserError

# What the rows of the published class heads stand for: COCO's category ids, with holes; the last row is "no object".
# Those of stuff, behind the others in the panoptic files, have no objects to outline and are left out.
PUBLIC_ROWS = (91, 250)  # without "no object": of the detectors, and of the panoptic files
_COCO_NAMES = enumerate(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
PUBLIC_CLASSES = {row: name for row, name in _COCO_NAMES if name not in ("__background__", "N/A")}
_START_FLAGS = ("resume", "overwrite")  # say how a run is begun, not what it is


class ResumeState(NamedTuple):
    """Where a run begins."""

    path: Path | None = None  # None: nothing but the backbone's weights
    checkpoint: dict | None = None
    resumes: bool = False  # the file is a run to resume, not only weights to start from

    def resumes_in_place(self, folder: Path) -> bool:
        """Return whether the run to resume is the one in `folder`."""
        return self.resumes and self.path.parent.resolve() == folder.resolve()

    @property
    def args(self) -> dict:
        """The command line that the checkpoint was made with; empty where it does not say."""
        args = (self.checkpoint or {}).get("args", {})
        return args if isinstance(args, dict) else vars(args)  # the reference saves a Namespace

    @property
    def unnamed_classes(self) -> int | None:
        """Return the number of classes where the file has a class head and does not say what they are called."""
        if self.checkpoint is None or "categories" in self.checkpoint or not has_class_head(self.checkpoint):
            return None
        return len(self.checkpoint["model"]["class_embed.bias"]) - 1

    @property
    def has_masks(self) -> bool:
        """Return whether the file has a mask head."""
        return self.checkpoint is not None and has_mask_head(self.checkpoint["model"])

    def changed_flags(self, flags: dict) -> list[tuple[str, object, object]]:
        """Return name, value now and value then of the flags that a resumed run was given differently."""
        both = [(name, value, self.args.get(name)) for name, value in flags.items() if name not in _START_FLAGS]
        return [(name, now, then) for name, now, then in both if None not in (now, then) and now != then]


def find_start(
    folder: Path, resume: str | None, weights: Path | None, backbone: str | None, overwrite: bool, evaluate: bool
) -> ResumeState:
    """Return what --resume, --weights, --backbone_weights, --overwrite and --eval mean together for a run in `folder`.

    Raises UserError when they contradict each other, when the file cannot be read, or when ranks find different ones.
    """
    path = _path_of(folder, resume, weights, overwrite, evaluate)
    checkpoint = _read(path, folder) if path else {}
    if backbone and path and not evaluate and "optimizer" not in checkpoint:
        raise UserError(f"--backbone_weights and {path}: that file holds a backbone already")
    if "optimizer" in checkpoint and "rng" not in checkpoint and not evaluate:
        print(f"{path}: from the reference code; its weights are a start, its optimizer's state is of no use here")
    # A random state (rng) is only in files to resume from. With --resume auto the file of --weights may be this run's
    # own checkpoint: it counts which of the two flags the path came from, so the objects are compared, not the paths.
    start = ResumeState(path, checkpoint or None, "rng" in checkpoint and path is not weights and not evaluate)
    if overwrite and start.resumes_in_place(folder):
        raise UserError(f"--resume {resume} and --overwrite: the run in {folder} is resumed, or deleted; leave one out")
    if len(set(all_gather([(start.resumes, checkpoint.get("epoch"))]))) > 1:
        raise UserError("the processes of this run find different checkpoints: --output_dir has to be the same folder")
    return start


def _read(path: Path, folder: Path) -> dict:
    try:
        return read_checkpoint(path)
    except UserError as error:
        best = folder / BEST
        if not utils.is_same_file(path, folder / LAST) or not best.exists():
            raise
        raise UserError(f"{error}. The best weights can start a new run: --resume {best} --output_dir NEW") from error


def _path_of(folder: Path, resume: str | None, weights: Path | None, overwrite: bool, evaluate: bool) -> Path | None:
    if resume == "auto":
        has_run = (folder / LAST).exists()
        if not (has_run or evaluate):
            print(f"{folder / LAST} is not there: no run to resume")
        path = folder / LAST if has_run and not overwrite else weights
    elif resume and weights:
        raise UserError("--resume FILE and --weights FILE: one of them; --resume auto goes with --weights")
    elif resume:
        is_url = resume.startswith(("http://", "https://"))
        path = first_on_each_machine(partial(_downloaded, resume)) if is_url else Path(resume)
    else:
        path = weights
    if evaluate and path is None:
        path = folder / BEST
        if not path.exists():
            raise UserError(f"--eval needs a checkpoint: {path} is not there; name one with --resume")
    return path


def _downloaded(url: str) -> Path:
    path = Path(Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name)
    if not path.name:
        raise UserError(f"--resume {url}: names no file; accepted: the address of a weights file")
    prefixes = {weights.file_name: weights.sha256_prefix for weights in PUBLIC_WEIGHTS.values()}
    if not utils.download(url, path, prefixes.get(path.name, "")):
        print(f"{path} is there already: {url} is not downloaded again")
    return path


def finished_reason(start: ResumeState, epochs: int, patience: int) -> str:
    """Return why the run to resume has nothing left to train; empty where it has."""
    if not start.resumes:
        return ""
    done, best = start.checkpoint["epoch"] + 1, start.checkpoint["best"]
    what = f"{start.path} has done {utils.pluralize(done, 'epoch')}"
    if done >= epochs:
        return f"{what} and --epochs asks for {epochs}: nothing is left to train"
    if start.checkpoint["out_of_patience"] and 0 < patience <= done - 1 - best["epoch"]:
        return f"{what}, the best was epoch {best['epoch'] + 1}: --patience {patience} is used up"
    return ""


def choose_sizes(start: ResumeState, scales: list[int] | None, max_size: int | None) -> tuple[list[int], int]:
    """Return --scales and --max_size, in pixels: as given, else those of the resumed run, else what the file to start
    from was trained at, else the paper's. Raises UserError where no image can have them.
    """
    trained_at = (start.checkpoint or {}).get("resolution", {})
    before = start.args if start.resumes else {}
    scales = scales or before.get("scales") or ([trained_at["scale"]] if trained_at else list(SCALES))
    max_size = max_size or before.get("max_size") or trained_at.get("max_size", MAX_SIZE)
    check_sizes(scales, max_size)
    return scales, max_size


def check_class_map(start: ResumeState, class_map: list[tuple[str, str]] | None, evaluate: bool) -> None:
    """Raise UserError where --class_map is given and there is no class head to take rows from."""
    if class_map is None:
        return
    if evaluate:
        raise UserError("--class_map and --eval: class rows are taken over when a run starts, not when it is evaluated")
    if start.checkpoint is None:
        raise UserError("--class_map needs weights with a class head to start from: name them with --resume FILE")
    if start.resumes:
        # The command that began the run may be given again: after a disconnect nobody should have to edit it.
        if class_map != start.args.get("class_map"):
            raise UserError(f"--class_map: {start.path} is a run to resume; its class rows were chosen at its start")
    elif not has_class_head(start.checkpoint):
        raise UserError(
            f"--class_map: {start.path} has no class head to take rows from; start from the whole file, which "
            "prep.py leaves beside the stripped one"
        )


def check_fold(start: ResumeState, fold: str | None, coco_path: Path, evaluate: bool) -> None:
    """Raise UserError where another --fold would have a detector evaluated on images that it is trained on."""
    if not (start.resumes or evaluate):
        return
    recorded = start.args or _args_beside(start.path)
    if evaluate and not utils.is_same_file(str(recorded.get("coco_path")), coco_path):
        return  # on other images any detector may be evaluated
    before = recorded.get("fold")
    if before != fold:
        then, now = (f"--fold {one}" if one else "no --fold" for one in (before, fold))
        raise UserError(f"{start.path}: was trained with {then}; with {now} it would be evaluated on training images")


def _args_beside(path: Path) -> dict:
    """Return the command line in the config.json of the run that a file lies in; empty where there is none."""
    with contextlib.suppress(UserError):  # it may be anybody's
        config = utils.read_json(path.parent / CONFIG)
        if isinstance(config, dict) and isinstance(config.get("args"), dict):
            return config["args"]
    return {}


# --------------------------------------------------------------------------------------------------------------- model


def new_model(data: Data, architecture: dict, backbone_weights: str, freeze_backbone: bool) -> Detr:
    """Return a network that is pre-trained in its backbone only, or nowhere.

    `architecture` has the fields of `DetrConfig` that the command line sets; `backbone_weights` is `imagenet`, `none`
    or a file. Raises UserError where the file has other weights, or there are none for a frozen BatchNorm.
    """
    if backbone_weights == "none":
        architecture = {"batch_norm": "train"} | architecture
    model = Detr(DetrConfig(data.num_classes, **architecture))
    name = model.config.backbone
    if backbone_weights == "imagenet":
        load_backbone_weights(model, first_on_each_machine(partial(imagenet_weights, name)), backbone_weights)
    elif backbone_weights != "none":
        load_backbone_weights(model, read_backbone_weights(Path(backbone_weights), name), backbone_weights)
    elif model.config.batch_norm == "frozen":
        raise UserError("--batch_norm frozen needs a pre-trained backbone, and --backbone_weights is none")
    elif freeze_backbone:
        print("random backbone, which stays random: it is frozen")
    else:
        print("random backbone: nothing is frozen, BatchNorm is trained")
    return model


def model_from_file(
    start: ResumeState,
    data: Data,
    architecture: dict,
    num_classes: int | None,
    class_map: list[tuple[str, str]],
    evaluate: bool,
    knows_classes: bool,
) -> Detr:
    """Return the network of the file to start from; what was loaded is printed.

    Args:
        start: the file to resume, to fine-tune or to evaluate.
        architecture: fields of `DetrConfig` that the command line sets; the others are those of the file.
        num_classes: K where the command line sets it.
        class_map: (name in the file, name in the data) of classes that start from each other.
        knows_classes: no row of the class head may be fresh, as it is not trained.

    Raises UserError where architecture, data and file contradict each other.
    """
    path, checkpoint, fine_tunes = start.path, start.checkpoint, not (evaluate or start.resumes)
    config = read_config(path, checkpoint)
    own_queries = config["num_queries"]
    if fine_tunes:  # more queries than the file has start as copies of its own; a mask head may come or go
        num_queries = max(own_queries, architecture.get("num_queries", 0))
        config |= {"num_queries": num_queries, "masks": architecture.get("masks", False)}
    free_to_change = {"dropout", "batch_norm", "mask_box_weight"}  # no part of what the file is
    for name in architecture.keys() & config.keys() - free_to_change:
        if architecture[name] != config[name]:
            raise UserError(f"--{name} {architecture[name]} contradicts {path}, which has {config[name]}; leave it out")
    model_classes = data.num_classes if fine_tunes else config.get("num_classes", data.num_classes)
    model = Detr(DetrConfig(**(config | architecture | {"num_classes": model_classes})))
    weights = checkpoint["model"] if start.resumes else best_weights(checkpoint)
    if (more := config["num_queries"] - own_queries) > 0:
        weights = weights | {"query_embed.weight": _more_queries(weights["query_embed.weight"], more)}
        print(f"{path}: its {own_queries} queries, and {more} that start near copies of them")
    class_rows = _choose_class_rows(start, data, class_map) if fine_tunes else None
    report = load_weights(model, weights, path, class_rows)
    if not fine_tunes:
        check_white(checkpoint.get("white", {}), data.val_coco, path)
    same_classes = checkpoint.get("categories", data.label_map.categories) == data.label_map.categories
    if not fine_tunes and (report.fresh or not same_classes or num_classes not in (None, model_classes)):
        raise UserError(
            f"{path}: its class head is not for the categories of these annotations, {data.label_map}; if those are "
            "new, take another --output_dir to train for them, or --coco_path to name the folder of before"
        )
    if knows_classes and (set(CLASS_HEAD) & set(report.fresh) or (class_rows and class_rows.fresh)):
        raise UserError(f"--frozen_weights {path}: does not know the classes {data.label_map}, which it cannot learn")
    print(f"{path}: {report}")
    return model


def _more_queries(embedding: torch.Tensor, more: int) -> torch.Tensor:
    """Append copies to a query embedding (Q, D), with noise: without it they would always detect what the first do."""
    copies = embedding[torch.arange(more) % len(embedding)]
    return torch.cat((embedding, copies + 0.1 * embedding.std() * torch.randn_like(copies)))


def _choose_class_rows(start: ResumeState, data: Data, class_map: list[tuple[str, str]]) -> ClassRows | None:
    """Return which rows of the file's class head to start from; None where it has none, or all of them as they are."""
    checkpoint = start.checkpoint
    if not has_class_head(checkpoint):
        return None
    num_classes = len(checkpoint["model"]["class_embed.bias"]) - 1
    if "categories" in checkpoint:
        file_names = LabelMap(checkpoint["categories"], checkpoint.get("raw_ids", False)).names
    else:
        file_names = PUBLIC_CLASSES if num_classes in PUBLIC_ROWS else {}
    # A file that does not name its classes is trusted where their number is right.
    if not class_map and num_classes == data.num_classes and file_names in ({}, data.label_map.names):
        return None
    class_rows = match_classes(file_names, data.label_map.names, class_map, start.path, num_classes)
    fresh = class_rows.fresh
    # A run of the reference code has learnt these classes, under its category ids: not to be thrown away in silence.
    if fresh and not class_map and "optimizer" in checkpoint and "categories" not in checkpoint:
        name, category_id = class_rows.names[fresh[0]], data.label_map.to_category_id(fresh[0])
        raise UserError(
            f"{start.path}: does not name its {num_classes} classes; in a run of the reference code they are numbered "
            f"by category id. --class_map {category_id}={name!r} would start {name!r} from row {category_id}; "
            f"python prep.py --weights {start.path} strips the class head, so that all classes start fresh"
        )
    return class_rows


def add_query_groups(model: Detr, start: ResumeState, groups: int) -> None:
    """Add the groups of queries to train side by side: those of the run to resume, or new ones."""
    # Near the queries that are trained already; random ones are as good as any other.
    model.add_query_groups(groups, spread=0.1 if start.checkpoint else 1.0)
    if start.resumes:
        saved, own = start.checkpoint["train_only"], plain_state(model)[1]
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(f"{start.path}: was trained with another number of --query_groups than {groups}")
        model.load_state_dict(saved, strict=False)


def architecture_of(flags: dict) -> dict:
    """Return those of a command line's values that are fields of `DetrConfig`, where they are set."""
    fields = {field.name for field in dataclasses.fields(DetrConfig)} - {"num_classes"}
    return {name: flags[name] for name in sorted(fields) if flags[name] is not None}
