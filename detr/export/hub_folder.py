"""A detector as a folder that Hugging Face's `transformers` loads, and its image processor with it."""

import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module

from detr.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from detr.detector import Detector
from detr.export.outputs import Outputs, Run, pad_normalized, to_outputs
from detr.models.backbone import MOBILENETS
from detr.models.detr import DetrConfig
from detr.models.huggingface import CONFIG, FIELDS, NO_CLASS, PREPROCESSOR, WEIGHTS, to_hub
from detr.structures import DetrOutput, MaskLogits
from utils import UserError


def write_folder(detector: Detector, folder: Path) -> None:
    """Write the detector into an empty folder: configuration, weights, and how images are prepared.

    Raises UserError where `transformers` has no network like this.
    """
    about = _to_config(detector)
    (folder / CONFIG).write_text(json.dumps(about, indent=2), encoding="utf-8")
    (folder / PREPROCESSOR).write_text(json.dumps(_to_preprocessor(detector), indent=2), encoding="utf-8")
    hub = to_hub(detector.model.state_dict(), detector.model.config.masks)
    save_file({name: value.contiguous() for name, value in hub.items()}, folder / WEIGHTS, metadata={"format": "pt"})


def _to_config(detector: Detector) -> dict:
    """Return their configuration of the same network."""
    ours = detector.model.config
    _check_expressible(ours)
    names = detector.label_map.names
    backbone = {"backbone": ours.backbone, "use_pretrained_backbone": False}
    if ours.stride == 16:
        layers = {"features_only": True, "out_indices": [1, 2, 3], "num_channels": 3}
        backbone = {"backbone_config": {"model_type": "timm_backbone", **backbone, **layers}}
    return {
        "architectures": ["DetrForSegmentation" if ours.masks else "DetrForObjectDetection"],
        "model_type": "detr",
        "dtype": "float32",
        "use_timm_backbone": ours.stride == 32,
        **backbone,
        **{theirs: getattr(ours, name) for name, theirs in FIELDS.items()},
        "decoder_attention_heads": ours.nheads,
        "decoder_ffn_dim": ours.dim_feedforward,
        "id2label": {str(label): names.get(label, NO_CLASS) for label in range(ours.num_classes)},
        "label2id": {name: label for label, name in names.items()},
    }


def _check_expressible(config: DetrConfig) -> None:
    """Raise UserError where `transformers` has no DETR of this architecture."""
    for is_so, what in (
        (config.pre_norm, "pre-norm layers"),
        # Its DETR puts a frozen norm in the place of timm's, which has the activation in it.
        (config.backbone in MOBILENETS, f"a {config.backbone}, whose activations it would leave out"),
        (config.masks and config.stride == 16, "a mask head on a backbone that ends at stride 16"),
    ):
        if is_so:
            raise UserError(f"--to huggingface: transformers has no DETR with {what}; --to onnx takes any detector")


def _to_preprocessor(detector: Detector) -> dict:
    """Return the settings of `DetrImageProcessor`."""
    shorter, longest = detector.resolution["scale"], detector.resolution["max_size"]
    return {
        "image_processor_type": "DetrImageProcessor",
        "format": "coco_detection",
        "do_resize": True,
        "size": {"shortest_edge": shorter, "longest_edge": longest},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "do_pad": True,
    }


def hub_runner(folder: Path, labels: list[int]) -> Run:
    """Return a function that runs what `transformers` loads from a folder."""
    model = load_folder(folder)

    def run(images: list[Image.Image]) -> Outputs:
        pixels, padding_mask = pad_normalized(images)
        return list(to_outputs(run_hub(model, pixels, padding_mask), labels, padding_mask))

    return run


def load_folder(folder: Path) -> Module:
    """Return the network as `transformers` loads it. Raises UserError where it finds a weight missing or left over."""
    architecture = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["architectures"][0]
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    model, report = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    transformers.logging.set_verbosity(verbosity)
    if wrong := sorted(report["missing_keys"]) + sorted(report["unexpected_keys"]):
        raise UserError(f"transformers {transformers.__version__} has another DETR than this: {wrong[0]} has no match")
    return model.eval()


@torch.inference_mode()
def run_hub(model: Module, images: Tensor, padding_mask: Tensor) -> DetrOutput:
    """Return what the network of `transformers` predicts for a batch; every query has its mask, in order."""
    theirs, nothing = model(images, pixel_mask=(~padding_mask).long()), torch.empty(0)
    masks = MaskLogits(theirs.pred_masks.flatten(0, 1), nothing, nothing) if "pred_masks" in theirs else None
    return DetrOutput(theirs.logits[None], theirs.pred_boxes[None], masks)
