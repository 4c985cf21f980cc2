"""A detector as one ONNX file, for onnxruntime: any image size, any number of images at once.

    session = onnxruntime.InferenceSession("checkpoint_best.onnx")
    categories = json.loads(session.get_modelmeta().custom_metadata_map["categories"])
    pixels = np.asarray(image)  # RGB, resized: `scale` and `max_size` of the metadata are its sides as trained
    sizes_hw = np.array([pixels.shape[:2]])
    scores, boxes = session.run(None, {"images": pixels[None], "sizes_hw": sizes_hw})[:2]

Inputs: `images`, uint8 (B, H, W, 3), as image libraries decode them; smaller ones begin in the upper left corner, and
what lies beyond them is not read. `sizes_hw`, int64 (B, 2), is the height and the width of each. The graph normalizes.
Outputs: `scores` (B, Q, K) in [0, 1] of the classes in `categories`; `boxes_xyxy` (B, Q, 4) in [0, 1] of each image's
own width and height; `masks` (B, Q, H/4, W/4) of a detector with a mask head, above 0 inside an object.

Shapes: B images, H and W size of the largest, Q queries, K classes.
"""

import contextlib
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from torch import Tensor, nn

from detr.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from detr.detector import Detector
from detr.export.outputs import OUTPUTS, Inference, Outputs, every_query, to_outputs
from detr.models.detr import Detr
from utils import UserError

_OLDEST_TORCH = (2, 6)  # the first whose exporter keeps image sizes and batches open
_EXAMPLE_HW = ((96, 160), (96, 128), (64, 160))  # of the images that the graph is recorded with


class OnnxDetr(nn.Module):
    """What the file computes: a DETR from pixels to scores and boxes."""

    def __init__(self, detr: Detr, labels: list[int]) -> None:
        super().__init__()
        self.detr, self.labels = detr, labels
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, H, W, 3), uint8, and the sizes in them (B, 2) to `OUTPUTS`."""
        rows, columns = torch.arange(images.shape[1]), torch.arange(images.shape[2])
        padding_mask = (rows[:, None] >= sizes_hw[:, 0, None, None]) | (columns >= sizes_hw[:, 1, None, None])
        normalized = (images.float() / 255 - self.mean) / self.std
        normalized = normalized.masked_fill(padding_mask[..., None], 0.0).permute(0, 3, 1, 2)
        outputs = self.detr(normalized, padding_mask, every_query)
        return to_outputs(outputs, self.labels, padding_mask, self.detr.config.mask_box_weight)


def pad_pixels(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return images (H, W, 3), uint8, as the two inputs of the file; the padding is not black, as it is not read."""
    sizes_hw = torch.tensor([image.shape[:2] for image in images])
    padded = torch.full((len(images), *sizes_hw.amax(0).tolist(), 3), 255, dtype=torch.uint8)
    for row, image in enumerate(images):
        padded[row, : image.shape[0], : image.shape[1]] = image
    return padded, sizes_hw


def write_onnx(detector: Detector, path: Path, precision: str) -> None:
    """Write the detector, on the CPU, as an ONNX file. What it computes is not yet compared with anything.

    `precision` is fp32, fp16 or int8. Raises UserError where PyTorch is too old or cannot do it.
    """
    with contextlib.ExitStack() as quiet:  # keeps back what the exporter and the quantizer say about their own insides
        quiet.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        program = _recorded(detector)
        program.save(path, external_data=False)
        model = _fold_constants(path)
        if precision == "fp16":
            from onnxruntime.transformers.float16 import convert_float_to_float16  # changes sys.path: only if needed

            model = convert_float_to_float16(model, keep_io_types=True)
        elif precision == "int8":
            # With the convolutions detr-small's boxes moved by a third of the image, at four times the time.
            kinds = {"op_types_to_quantize": ["MatMul", "Gemm"], "per_channel": True, "weight_type": QuantType.QInt8}
            quantize_dynamic(model, path, **kinds)
            model = onnx.load(path)
    _describe(model, detector, precision)
    onnx.save(model, path)


def onnx_runner(path: Path) -> Inference:
    """Return a function that runs an ONNX file on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: list[Image.Image]) -> Outputs:
        """Return `OUTPUTS` of images, which the graph normalizes."""
        pixels, sizes_hw = pad_pixels([torch.from_numpy(np.array(image)) for image in images])
        outputs = session.run(None, {"images": pixels.numpy(), "sizes_hw": sizes_hw.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


def _recorded(detector: Detector) -> "torch.onnx.ONNXProgram":
    """Return the exporter's program, with open image sizes and batch."""
    if torch.__version__ < _OLDEST_TORCH:
        raise UserError(
            f"--to onnx needs PyTorch {'.'.join(map(str, _OLDEST_TORCH))} or later, this is {torch.__version__}: the "
            "exporter of older ones writes files that compute something else"
        )
    module = OnnxDetr(detector.model, sorted(detector.label_map.names)).eval().requires_grad_(False)
    example = pad_pixels([torch.zeros(*size_hw, 3, dtype=torch.uint8) for size_hw in _EXAMPLE_HW])
    batch = torch.export.Dim("batch")
    sizes = {0: batch, 1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
    try:
        return torch.onnx.export(
            module,
            example,
            input_names=["images", "sizes_hw"],
            output_names=OUTPUTS[: 2 + detector.model.config.masks],
            dynamic_shapes=(sizes, {0: batch}),
            dynamo=True,  # the other exporter says nothing and scores are off by 0.2
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(f"PyTorch {torch.__version__} could not write this detector as ONNX: {reason}") from error


def _fold_constants(path: Path) -> onnx.ModelProto:
    """Return a file with all computed that does not depend on the image, such as BatchNorm's part of convolutions."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # ONNX's own operators only
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    kept = [opset for opset in model.opset_import if not opset.domain]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _describe(model: onnx.ModelProto, detector: Detector, precision: str) -> None:
    """Put into the file what its user has to know, as JSON."""
    labels = detector.label_map
    categories = [{"id": labels.to_category_id(label), "name": labels.names[label]} for label in sorted(labels.names)]
    about = {"categories": categories, **detector.resolution, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    about |= {"white": detector.white, "precision": precision}
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
