"""From the painted canvas to a photograph of it. No torch."""

import io

import numpy as np
from PIL import Image, ImageFilter

from detr.sample.canvas import Canvas


def photograph(canvas: Canvas, rng: np.random.Generator) -> Image.Image:
    """The canvas at its final size with a lens's falloff and blur, a white balance slightly off, and sensor noise."""
    image = canvas.image.reduce(canvas.scale)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.25, 0.7)))
    pixels = np.asarray(image, np.float32)
    gain = (rng.uniform(0.96, 1.14) * rng.normal(1, 0.025, 3)).astype(np.float32)
    down = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None, None]
    across = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None, :, None]
    falloff = 1 - np.float32(rng.uniform(0, 0.13)) * (down**2 + across**2)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0.5, 4.0))
    return Image.fromarray((pixels * (gain * falloff) + noise).clip(0, 255).astype(np.uint8))


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """Return the bytes of a JPEG file."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return file.getvalue()


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the image as it comes back from a JPEG file."""
    return Image.open(io.BytesIO(to_jpeg(image, quality))).convert("RGB")
