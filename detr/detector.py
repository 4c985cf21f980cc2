"""A fine-tuned detector for any photograph, from its file alone."""

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from detr.checkpoint import load_detector
from detr.data import LabelMap
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

    @torch.inference_mode()
    def __call__(self, photograph: str | Path | Image.Image, threshold: float = 0.5) -> list[Detection]:
        """Objects with at least this score, best first. Raises UserError when the photograph cannot be read."""
        image = photograph.convert("RGB") if isinstance(photograph, Image.Image) else read_rgb(Path(photograph))
        size_hw = (image.height, image.width)
        pixels = apply_to_image(image, evaluation_view(size_hw, None, **self.resolution), size_hw)[None].to(self.device)
        padding_mask = torch.zeros(pixels[:, 0].shape, dtype=torch.bool, device=self.device)
        with self.precision.autocast():
            outputs = self.model(pixels, padding_mask)
        found = postprocess(outputs, [size_hw])
        detections = []
        for score, label, box in zip(*(field[0].tolist() for field in found), strict=True):
            category_id = self.label_map.to_category_id(label)
            if score >= threshold and category_id is not None:
                detections.append(Detection(self._names[category_id], category_id, score, tuple(box)))
        return sorted(detections, key=lambda detection: -detection.score)
