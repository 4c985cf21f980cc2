"""A fine-tuned detector for any image, from its file alone."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from detr.data.dataset import LabelMap
from detr.data.images import as_rgb
from detr.data.loader import pad_images
from detr.data.sampler import same_size_batches
from detr.data.transforms import check_sizes, evaluation_params, resample, to_tensor
from detr.models.attention_maps import attention_maps
from detr.models.cpu_kernels import trim_malloc
from detr.models.postprocess import average_boxes, masks_to_rle, postprocess, scoring_queries
from detr.models.weights import load_detector
from detr.report.gallery import AttentionMaps
from detr.training.device import pick_device, pick_precision

_SMALL_COPY = {"scale": 224, "max_size": 448}  # pixels: as backbones were pre-trained
AnyImage = str | Path | Image.Image | np.ndarray


class Detection(NamedTuple):
    """One detected object."""

    category: str
    category_id: int  # as in the training annotations
    score: float  # in [0, 1]
    box_xyxy: tuple[float, float, float, float]  # in pixels of the image, upright
    segmentation: dict | None = None  # of a detector with a mask head: RLE over the image

    @property
    def mask(self) -> np.ndarray | None:
        """The mask, (H, W) bool over the upright image, made anew at each call; None without a mask head."""
        return None if self.segmentation is None else coco_mask.decode(self.segmentation).astype(bool)


class Detector:
    """Detects objects in images: `Detector("outputs/checkpoint_best.pth")("one.jpg")`.

    Args:
        checkpoint: a file that main.py wrote; it says what the classes are and at which size it was evaluated.
        device: auto, cuda, mps or cpu.
        amp: number format, one of `flags.AMP_CHOICES`.
        categories: COCO's, of the annotations it was trained on, for files that do not name their classes: those of the
            reference's code.
        scale, max_size: shorter side of the images and their longest side, in pixels (None: as it was evaluated).

    Raises UserError when the file is not a fine-tuned detector.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        amp: str = "auto",
        categories: list[dict] | None = None,
        scale: int | None = None,
        max_size: int | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(amp, self.device)
        saved = load_detector(Path(checkpoint), categories)
        self.model, self.white = saved.model.to(self.device), saved.white
        given = {"scale": scale, "max_size": max_size}
        self.resolution = saved.resolution | {name: value for name, value in given.items() if value is not None}
        check_sizes([self.resolution["scale"]], self.resolution["max_size"], "--scale")
        self.label_map = LabelMap(saved.categories, saved.raw_ids)

    def __call__(
        self, image: AnyImage | Sequence[AnyImage], threshold: float = 0.5
    ) -> list[Detection] | list[list[Detection]]:
        """Return the detections from this score on, best first; of a list of images, a list of them.

        An image is a path, a Pillow image (turned upright as its EXIF data say), or an array as `images.as_rgb` takes
        it: gray, RGB or RGBA. Raises UserError when an image cannot be read.
        """
        if isinstance(image, list | tuple):
            return [self.detect([one], threshold)[0] for one in image]  # one image in memory at a time
        return self.detect([image], threshold)[0]

    @torch.inference_mode()
    def detect(self, images: Sequence[AnyImage], threshold: float = 0.5) -> list[list[Detection]]:
        """Return the same for several images at once: those of equal size go through the network together."""
        pixels, sizes_hw = self._prepare(images)
        detections: list[list[Detection]] = [[] for _ in pixels]
        for batch in same_size_batches([image.shape[1:] for image in pixels], len(pixels)):
            original_hw, rles = [sizes_hw[index] for index in batch], {}
            select_queries = functools.partial(scoring_queries, threshold=threshold)
            with self.precision.autocast():
                outputs = self.model(*self._batch([pixels[index] for index in batch]), select_queries)
            if outputs.masks is not None:
                size_hw = tuple(pixels[batch[0]].shape[1:])
                rles = masks_to_rle(outputs.masks, [size_hw] * len(batch), size_hw, original_hw)
            averaged = average_boxes(postprocess(outputs, original_hw), rles, self.model.config.mask_box_weight)
            for row, (index, *of_image) in enumerate(zip(batch, *map(Tensor.tolist, averaged), strict=True)):
                for query, (score, label, box) in enumerate(zip(*of_image, strict=True)):
                    category_id = self.label_map.to_category_id(label)
                    if score >= threshold and category_id is not None:
                        what = self.label_map.names[label], category_id, score, tuple(box), rles.get((row, query))
                        detections[index].append(Detection(*what))
                detections[index].sort(key=lambda detection: -detection.score)
        if self.device.type == "cpu":  # images of other sizes come next: what is kept would grow with each
            trim_malloc(0)
        return detections

    @torch.inference_mode()
    def attention(self, image: AnyImage) -> AttentionMaps:
        """Return what all queries predict and attend to in an image. Raises UserError when it cannot be read."""
        pixels, sizes_hw = self._prepare([image])
        outputs, cross, encoder = attention_maps(self.model, *self._batch(pixels))
        detections = postprocess(outputs, sizes_hw)
        tensors = detections.scores[0], detections.boxes_xyxy[0], outputs.boxes_cxcywh[-1, 0], cross, encoder
        return AttentionMaps(*(None if tensor is None else tensor.cpu().numpy() for tensor in tensors))

    @torch.inference_mode()
    def embed(self, image: AnyImage) -> np.ndarray:
        """Return (C,), of length 1: the pooled features of the backbone, of a small copy of an image.

        The more alike two images are, the closer to 1 the product of theirs. Raises UserError when it cannot be read.
        """
        (pixels,), _ = self._prepare([image], _SMALL_COPY)
        with self.precision.autocast():
            features = self.model.backbone[0](pixels[None].to(self.device))[-1]
        mean = features.float().mean(dim=(0, 2, 3))
        return (mean / mean.norm().clamp(min=1e-6)).cpu().numpy()

    def _prepare(
        self, images: Sequence[AnyImage], resolution: dict[str, int] | None = None
    ) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """Return what the network sees of each image, (3, H, W), and the sizes of the images in pixels."""
        rgb = [as_rgb(image, self.white) for image in images]
        sizes_hw = [(image.height, image.width) for image in rgb]
        pixels = [
            to_tensor(resample(image, evaluation_params(size_hw, None, **(resolution or self.resolution)), size_hw))
            for image, size_hw in zip(rgb, sizes_hw, strict=True)
        ]
        return pixels, sizes_hw

    def _batch(self, pixels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return images of equal size as a batch (B, 3, H, W) with its padding mask, on the device."""
        images, padding_mask = pad_images(pixels)
        return images.to(self.device), padding_mask.to(self.device)
