"""A fine-tuned detector for any photograph, from its file alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from detr.attention import attention_maps
from detr.checkpoint import load_detector
from detr.data import LabelMap, pad_images
from detr.device import pick_device, pick_precision
from detr.images import read_rgb
from detr.postprocess import postprocess
from detr.transforms import apply_to_image, evaluation_view


class Detection(NamedTuple):
    """One object that was found."""

    category: str
    category_id: int  # as in the training annotations
    score: float  # in [0, 1]
    box_xyxy: tuple[float, float, float, float]  # in pixels of the photograph, upright


class Look(NamedTuple):
    """What a detector looks at in a photograph: Q queries, whatever their score, and maps that sum to 1."""

    scores: Tensor  # (Q,) in [0, 1]
    boxes_xyxy: Tensor  # (Q, 4) in pixels of the photograph, upright
    boxes_cxcywh: Tensor  # (Q, 4) in [0, 1]
    cross: Tensor  # (Q, h, w) where each query looks in the last decoder layer
    encoder: Tensor | None  # (h, w, h, w) where each point looks in the last encoder layer, if there is any


class Detector:
    """Finds objects in photographs: `Detector("outputs/checkpoint_best.pth")("photo.jpg")`.

    Args:
        checkpoint: a file that main.py wrote; it says what the classes are and at which size it was evaluated.
        device: auto, cuda, mps or cpu.
        amp: number format, one of `device.AMP_CHOICES`.
        categories: COCO's, of the annotations it was trained on, for files that do not name their classes: those of the
            reference's code.

    Raises UserError when the file is not a fine-tuned detector.
    """

    def __init__(
        self, checkpoint: str | Path, device: str = "auto", amp: str = "auto", categories: list[dict] | None = None
    ) -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(amp, self.device)
        saved = load_detector(Path(checkpoint), categories)
        self.model, self.resolution = saved.model.to(self.device), saved.resolution
        self.label_map = LabelMap(saved.categories, saved.raw_ids)
        self._names = {category["id"]: category["name"] for category in saved.categories}

    def __call__(self, photograph: str | Path | Image.Image, threshold: float = 0.5) -> list[Detection]:
        """Objects with at least this score, best first. Raises UserError when the photograph cannot be read."""
        return self.detect([photograph], threshold)[0]

    @torch.inference_mode()
    def detect(self, photographs: Sequence[str | Path | Image.Image], threshold: float = 0.5) -> list[list[Detection]]:
        """The same for several photographs at once; they are padded to the largest, so let them be of similar shape."""
        pixels, padding_mask, sizes_hw = self._prepare(photographs)
        with self.precision.autocast():
            outputs = self.model(pixels, padding_mask)
        found = postprocess(outputs, sizes_hw)
        return [self._kept(*fields, threshold) for fields in zip(*(field.tolist() for field in found), strict=True)]

    @torch.inference_mode()
    def look(self, photograph: str | Path | Image.Image) -> Look:
        """What the detector looks at in a photograph. Raises UserError when it cannot be read."""
        pixels, padding_mask, sizes_hw = self._prepare([photograph])
        outputs, cross, encoder = attention_maps(self.model, pixels, padding_mask)
        found = postprocess(outputs, sizes_hw)
        return Look(found.scores[0], found.boxes_xyxy[0], outputs.boxes_cxcywh[-1, 0], cross, encoder)

    def _prepare(self, photographs: Sequence[str | Path | Image.Image]) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """The padded batch (B, 3, H, W), its mask (B, H, W) and the sizes of the photographs in pixels."""
        images = [p.convert("RGB") if isinstance(p, Image.Image) else read_rgb(Path(p)) for p in photographs]
        sizes_hw = [(image.height, image.width) for image in images]
        pixels, padding_mask = pad_images(
            [
                apply_to_image(image, evaluation_view(size_hw, None, **self.resolution), size_hw)
                for image, size_hw in zip(images, sizes_hw, strict=True)
            ]
        )
        return pixels.to(self.device), padding_mask.to(self.device), sizes_hw

    def _kept(
        self, scores: list[float], labels: list[int], boxes_xyxy: list[list[float]], threshold: float
    ) -> list[Detection]:
        detections = []
        for score, label, box in zip(scores, labels, boxes_xyxy, strict=True):
            category_id = self.label_map.to_category_id(label)
            if score >= threshold and category_id is not None:
                detections.append(Detection(self._names[category_id], category_id, score, tuple(box)))
        return sorted(detections, key=lambda detection: -detection.score)
