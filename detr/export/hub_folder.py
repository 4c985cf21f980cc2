"""A detector as a folder that Hugging Face's `transformers` loads, and its image processor with it."""

import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from detr.detector import Detector
from detr.export.outputs import Inference, Outputs, pad_normalized, to_outputs
from detr.models.backbone import MOBILENETS
from detr.models.detr import DetrConfig
from detr.models.huggingface import CONFIG, FIELDS, NO_CLASS, WEIGHTS, to_hub
from detr.structures import DetrOutput, MaskLogits
from utils import UserError


def write_folder(detector: Detector, folder: Path) -> None:
    """Write the detector into an empty folder: configuration, weights, and how images are prepared.

    Raises UserError where `transformers` has no network like this.
    """
    about = _to_config(detector)
    (folder / CONFIG).write_text(json.dumps(about, indent=2), encoding="utf-8")
    size = {"shortest_edge": detector.resolution["scale"], "longest_edge": detector.resolution["max_size"]}
    transformers.DetrImageProcessor(size=size).save_pretrained(folder)  # all else is by default as in training
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


def hub_runner(folder: Path, labels: list[int]) -> Inference:
    """Return a function that runs a folder in `transformers`. Raises UserError where a weight has no match there."""
    architecture = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["architectures"][0]
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    model, report = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    transformers.logging.set_verbosity(verbosity)
    if wrong := sorted(report["missing_keys"]) + sorted(report["unexpected_keys"]):
        raise UserError(f"transformers {transformers.__version__} has another DETR than this: {wrong[0]} has no match")
    model.eval()

    @torch.inference_mode()
    def run(images: list[Image.Image]) -> Outputs:
        """Return `OUTPUTS` of images, padded and normalized as in training."""
        pixels, padding_mask = pad_normalized(images)
        theirs, nothing = model(pixels, pixel_mask=(~padding_mask).long()), torch.empty(0)
        masks = MaskLogits(theirs.pred_masks.flatten(0, 1), nothing, nothing) if "pred_masks" in theirs else None
        outputs = DetrOutput(theirs.logits[None], theirs.pred_boxes[None], masks)  # every query has its mask, in order
        return list(to_outputs(outputs, labels, padding_mask))

    return run
