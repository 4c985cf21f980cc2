"""DETR as Hugging Face's `transformers` keeps it: the names of the weights, the configuration, and a folder of both.

The names are those of the published folders (`facebook/detr-resnet-50`): `transformers` reads them in every version.
"""

import dataclasses
import re
from pathlib import Path

import torch
from torch import Tensor

from detr.models.detr import Detr, DetrConfig
from utils import UserError, check_packages, quote, read_json

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
_PREFIXES = {
    "backbone.0.body.": "model.backbone.conv_encoder.model.",
    "backbone.1.row_embed.": "model.position_embedding.row_embeddings.",
    "backbone.1.col_embed.": "model.position_embedding.column_embeddings.",
    "input_proj.": "model.input_projection.",
    "query_embed.": "model.query_position_embeddings.",
    "transformer.decoder.norm.": "model.decoder.layernorm.",
    "transformer.": "model.",
    "class_embed.": "class_labels_classifier.",
    "bbox_embed.": "bbox_predictor.",
}
_LAYER_PARTS = {  # of a layer's names; the last norm of both kinds of layer has one name
    "linear": "fc",
    "multihead_attn": "encoder_attn",
    "norm1": "self_attn_layer_norm",
    "norm2": {"encoder": "final_layer_norm", "decoder": "encoder_attn_layer_norm"},
    "norm3": "final_layer_norm",
}
FIELDS = {  # of DetrConfig -> of their configuration
    "num_queries": "num_queries",
    "hidden_dim": "d_model",
    "enc_layers": "encoder_layers",
    "dec_layers": "decoder_layers",
    "nheads": "encoder_attention_heads",
    "dim_feedforward": "encoder_ffn_dim",
    "dropout": "dropout",
    "position_embedding": "position_embedding_type",
    "dilation": "dilation",
}
NO_CLASS = "N/A"  # what the published folders call rows that stand for nothing


def hub_names(key: str, masks: bool) -> list[str]:
    """Return what a key of `Detr` is called there: one name, or three of a projection that is in one piece here."""
    if masks and key.startswith(("bbox_attention.", "mask_head.")):
        return [key]
    prefix = next(prefix for prefix in _PREFIXES if key.startswith(prefix))
    name = _PREFIXES[prefix] + key[len(prefix) :]
    if match := re.match(r"model\.(encoder|decoder)\.layers\.", name):
        for part, theirs in _LAYER_PARTS.items():
            name = name.replace(f".{part}", f".{theirs if isinstance(theirs, str) else theirs[match[1]]}")
    name = f"detr.{name}" if masks else name
    packed = re.fullmatch(r"(.*\.)in_proj_(weight|bias)", name)
    return [f"{packed[1]}{part}_proj.{packed[2]}" for part in "qkv"] if packed else [name]


def to_hub(model: dict[str, Tensor], masks: bool) -> dict[str, Tensor]:
    """Return a state dict of `Detr` under the names of `hub_names`."""
    hub = {}
    for key, value in model.items():
        names = hub_names(key, masks)
        hub |= zip(names, value.chunk(len(names)), strict=True)
    return hub


def is_hub_folder(path: Path) -> bool:
    """Return whether a path is a folder of `transformers`, and not that of a run."""
    return path.is_dir() and "model_type" in (read_json(path / CONFIG) or {})


def read_folder(path: Path) -> dict:
    """Read a DETR of `transformers` as a checkpoint with `model`, `config` and, where it names them, `categories`.

    Raises UserError where the folder is incomplete, or holds another network.
    """
    theirs = read_json(path / CONFIG)
    config = _config_of(path / CONFIG, theirs)
    check_packages(f"{path}: reading it", ("safetensors",))
    import safetensors.torch

    try:
        hub = safetensors.torch.load_file(path / WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(f"{path}: has no {WEIGHTS}; accepted: the folder with it and its {CONFIG}") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path / WEIGHTS}: cannot be read; it is truncated or damaged ({error})") from error
    with torch.device("meta"):
        own = Detr(DetrConfig(**config)).state_dict()
    names = {key: hub_names(key, config["masks"]) for key in own}
    known = [name for parts in names.values() for name in parts]
    wrong = [f"{name} is missing" for name in known if name not in hub]
    left_over = hub.keys() - set(known)
    wrong += [f"{name} has no place" for name in sorted(left_over) if not name.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(f"{path / WEIGHTS}: does not fit its {CONFIG}: {wrong[0]}")
    model = {key: torch.cat([hub[name] for name in parts]) for key, parts in names.items()}
    about = _categories_of(theirs) | _resolution_of(read_json(path / PREPROCESSOR) or {})
    return {"model": model, "config": config} | about


def _config_of(path: Path, theirs: dict) -> dict:
    """Return the keywords of `DetrConfig`."""
    if theirs["model_type"] != "detr":
        raise UserError(f"{path}: a model of the type {quote(theirs['model_type'])}; accepted: detr")
    about = theirs.get("backbone_config") or {}
    backbone = about.get("backbone") if about else theirs.get("backbone")
    if backbone is None or not backbone.startswith(("resnet", "resnext", "wide_resnet")):
        kind = backbone or about.get("model_type")
        raise UserError(f"{path}: its backbone is {quote(kind)}; accepted: a ResNet of timm, as in the published DETRs")
    config = {ours: theirs[name] for ours, name in FIELDS.items() if name in theirs}
    defaults = {field.name: field.default for field in dataclasses.fields(DetrConfig)}
    for ours, value in config.items():
        if type(value) is not type(defaults[ours]) and not (ours == "dropout" and value == 0):
            raise UserError(f"{path}: {FIELDS[ours]} is {quote(value)}; accepted: such as {defaults[ours]!r}")
    needed = {"decoder_attention_heads": theirs.get("encoder_attention_heads", 8), "activation_function": "relu"}
    for name, accepted in needed.items():
        if theirs.get(name, accepted) != accepted:
            raise UserError(f"{path}: {name} is {quote(theirs[name])}; accepted: {quote(accepted)}")
    config["dilation"] = config.get("dilation", False) or about.get("output_stride") == 16
    stride = 32 if about.get("out_indices", [4])[-1] in (4, -1) else 16
    masks = "DetrForSegmentation" in (theirs.get("architectures") or ())
    num_classes = len(theirs["id2label"]) if "id2label" in theirs else theirs.get("num_labels", 2)
    return config | {"num_classes": num_classes, "backbone": backbone, "stride": stride, "masks": masks}


def _categories_of(theirs: dict) -> dict:
    """Return `categories` and `raw_ids` of a checkpoint; nothing where the classes are only numbered."""
    names = {int(label): name for label, name in theirs.get("id2label", {}).items()}
    named = {label: name for label, name in names.items() if name != NO_CLASS}
    if not named or all(re.fullmatch(r"LABEL_\d+", name) for name in named.values()):
        return {}
    has_holes = len(named) < len(names)  # as COCO's ids
    categories = [{"id": label if has_holes else label + 1, "name": name} for label, name in sorted(named.items())]
    return {"categories": categories, "raw_ids": has_holes}


def _resolution_of(preprocessor: dict) -> dict:
    """Return `resolution` of a checkpoint where it is not that of the published DETRs, which is what runs start at."""
    size = preprocessor.get("size", {})
    if not isinstance(size, dict) or size.get("shortest_edge", 800) == 800:
        return {}
    return {"resolution": {"scale": size["shortest_edge"], "max_size": size.get("longest_edge", 1333)}}
