"""Augmentation and resizing (DETR, section 4 and appendix A.4): choose the parameters first, then resample once.

`AugmentParams` are the crop of the original image, the size it is resized to, a horizontal flip and color factors. The
paper's resize, crop, resize chain comes down to these too, so that every pixel is resampled only once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torchvision.transforms import functional

from utils import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST_SIDE = 32  # pixels: one cell of the feature map

# Before a crop the shorter side is scaled to one of these, then 384 to 600 pixels are cut: shares of the largest scale.
_CROP_RESIZE_SHARES = (400 / 800, 500 / 800, 600 / 800)
_CROP_MIN_SHARE, _CROP_MAX_SHARE = 384 / 800, 600 / 800

COLOR_OPS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)  # what color jitter changes


class AugmentParams(NamedTuple):
    """Crop, size, flip and colors of one image in one epoch."""

    crop_xyxy: tuple[float, float, float, float]  # in pixels of the original image
    size_hw: tuple[int, int]  # of the result
    hflip: bool
    color_factors: tuple[float, ...] = ()  # factors of `COLOR_OPS`, 1 changes nothing; empty for none of them

    @property
    def scale(self) -> float:
        """Pixels of the result per pixel of the original image, along the axis that keeps more."""
        left, top, right, bottom = self.crop_xyxy
        return max(self.size_hw[0] / (bottom - top), self.size_hw[1] / (right - left))


def fitted_size_hw(size_hw: tuple[int, int], shorter: int, longest: int | None = None) -> tuple[int, int]:
    """Return the size with the shorter side at `shorter` pixels, or less where the longer would exceed `longest`."""
    low, high = min(size_hw), max(size_hw)
    if longest is not None and high / low * shorter > longest:
        shorter = max(1, round(longest * low / high))
    longer = max(1, int(shorter * high / low))
    return (shorter, longer) if size_hw[0] <= size_hw[1] else (longer, shorter)


def check_sizes(scales: Sequence[int], max_size: int, flag: str = "--scales") -> None:
    """Raise UserError where no image can have these shorter sides and this longest side, in pixels.

    `flag` is the one that sets the shorter sides, for messages.
    """
    if min(scales) < SMALLEST_SIDE:
        raise UserError(f"{flag} {min(scales)}: a shorter side of at least {SMALLEST_SIDE} pixels is needed")
    if max_size < max(scales):
        raise UserError(f"--max_size {max_size} is below {flag} {max(scales)}: no image could be so large")


def evaluation_params(
    size_hw: tuple[int, int], rng: np.random.Generator | None, scale: int, max_size: int
) -> AugmentParams:
    """Take the whole image, its shorter side at `scale` pixels; draws no random numbers."""
    height, width = size_hw
    return AugmentParams((0, 0, width, height), fitted_size_hw(size_hw, scale, max_size), hflip=False)


def augment_params(
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    scales: list[int],
    max_size: int,
    augment: bool = True,
    color_jitter: float = 0.0,
) -> AugmentParams:
    """Draw parameters as in the paper: flipped half the time, cropped half the time, at a random scale.

    The crop sizes of the paper (384 to 600 pixels at 800) follow the largest of `scales`. Without `augment` the whole
    image is taken. Brightness, contrast and saturation are multiplied by up to 1 +- `color_jitter`.
    """
    height, width = size_hw
    hflip, crop_xyxy = augment and bool(rng.random() < 0.5), (0.0, 0.0, float(width), float(height))
    if augment and rng.random() < 0.5:
        crop_xyxy = _random_crop(size_hw, rng, max(scales))
    left, top, right, bottom = crop_xyxy
    cut_hw = (max(1, round(bottom - top)), max(1, round(right - left)))
    resized_hw, factors = fitted_size_hw(cut_hw, int(rng.choice(scales)), max_size), ()
    if color_jitter:
        factors = tuple(rng.uniform(max(0.0, 1 - color_jitter), 1 + color_jitter, len(COLOR_OPS)).tolist())
    return AugmentParams(crop_xyxy, resized_hw, hflip, factors)


def _random_crop(size_hw: tuple[int, int], rng: np.random.Generator, scale: int) -> tuple[float, float, float, float]:
    """Draw the crop of the paper, in pixels of the original image: resize, then cut a random rectangle."""
    resized_hw = fitted_size_hw(size_hw, max(1, round(scale * rng.choice(_CROP_RESIZE_SHARES))))
    least, most = max(1, round(scale * _CROP_MIN_SHARE)), max(1, round(scale * _CROP_MAX_SHARE))
    cut_hw = [int(rng.integers(min(least, side), min(most, side) + 1)) for side in resized_hw]
    top, left = (int(rng.integers(0, side - cut + 1)) for side, cut in zip(resized_hw, cut_hw, strict=True))
    to_y, to_x = (original / resized for original, resized in zip(size_hw, resized_hw, strict=True))
    return (left * to_x, top * to_y, (left + cut_hw[1]) * to_x, (top + cut_hw[0]) * to_y)


def resample(image: Image.Image, params: AugmentParams, original_size_hw: tuple[int, int]) -> Image.Image:
    """Crop, resize and flip an image.

    It may have been decoded smaller than `original_size_hw`, in whose pixels the crop is.
    """
    height, width = params.size_hw
    to_x, to_y = image.width / original_size_hw[1], image.height / original_size_hw[0]
    left, top, right, bottom = params.crop_xyxy
    crop = (left * to_x, top * to_y, min(right * to_x, image.width), min(bottom * to_y, image.height))
    resized = image.resize((width, height), Image.Resampling.BILINEAR, box=crop)
    return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if params.hflip else resized


def to_tensor(image: Image.Image, color_factors: tuple[float, ...] = ()) -> Tensor:
    """Color an RGB image, and return it as the network takes it: (3, H, W) float32, ImageNet-normalized."""
    for enhance, factor in zip(COLOR_OPS, color_factors, strict=False):
        image = enhance(image).enhance(factor)
    return functional.normalize(functional.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD, inplace=True)


def apply_to_points(points_xy: np.ndarray, params: AugmentParams) -> np.ndarray:
    """Crop, resize and flip points (N, 2) as the image is, from its pixels to those of the result; none is clipped."""
    left, top, right, bottom = params.crop_xyxy
    height, width = params.size_hw
    moved = (points_xy - (left, top)) * (width / (right - left), height / (bottom - top))
    return np.stack((width - moved[:, 0], moved[:, 1]), axis=1) if params.hflip else moved


def apply_to_boxes(boxes_xyxy: Tensor, params: AugmentParams) -> tuple[Tensor, Tensor]:
    """Crop, resize and flip boxes (T, 4) as the image is, and say which remain.

    Returns (T, 4) in pixels of the result, clipped to it, and (T,) bool, False where nothing of the box is left.
    """
    left, top, right, bottom = params.crop_xyxy
    height, width = params.size_hw
    corner = boxes_xyxy.new_tensor([left, top] * 2)
    scale = boxes_xyxy.new_tensor([width / (right - left), height / (bottom - top)] * 2)
    limit = boxes_xyxy.new_tensor([width, height] * 2)
    boxes_xyxy = torch.minimum(((boxes_xyxy - corner) * scale).clamp(min=0), limit)
    if params.hflip:
        boxes_xyxy[:, [0, 2]] = width - boxes_xyxy[:, [2, 0]]
    keep = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
    return boxes_xyxy, keep
