"""Read any photograph upright, as 8-bit RGB. No torch."""

from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from detr.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def read_size_hw(path: Path) -> tuple[int, int]:
    """Upright height and width in pixels, from the file's header. Raises UserError for what is not an image."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS else (height, width)


def read_rgb(path: Path, scale: float = 1.0) -> Image.Image:
    """The whole photograph, turned upright as a viewer shows it, in 8-bit RGB.

    Grayscale, palette, CMYK and 16-bit files are converted; transparent pixels become white. With a `scale` below 1 a
    JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least this share of it, which is much faster.
    Raises UserError for missing, truncated or unreadable files.
    """
    with _opened(path) as image:
        try:
            if scale < 1:
                image.draft(image.mode, (ceil(image.width * scale), ceil(image.height * scale)))
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path}: the image is damaged ({error})") from error


def find_photographs(patterns: list[str]) -> list[Path]:
    """The photographs among files, folders (not what is in folders in them) and globs, each once.

    A file that is named may have any suffix; of what a folder or a glob holds, those of photographs are taken. Raises
    UserError for what is neither, and when there are none.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            found.append(path)
            continue
        files = sorted(path.iterdir() if path.is_dir() else _globbed(path))
        if not files and not path.is_dir():
            raise UserError(f"--images {pattern}: no such file or folder, and as a glob nothing fits it")
        found += [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"--images {', '.join(patterns)}: no photographs; accepted: {', '.join(SUFFIXES)}")
    return list(dict.fromkeys(found))


def _globbed(pattern: Path) -> list[Path]:
    try:
        return [*Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))]
    except ValueError:  # no glob at all: `**.jpg`, say
        return []


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that Pillow can read") from error
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read ({error.strerror or error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(gray: np.ndarray) -> np.ndarray:
    """(H, W) of 16 or 32 bits -> uint8. Files of more than 8 bits are taken as 16-bit unless they go beyond."""
    gray = gray.astype(np.float64)
    top = gray.max(initial=0)
    full_scale = 255 if top <= 255 else 65535 if top <= 65535 else top
    return (gray.clip(0) * (255 / full_scale)).round().astype(np.uint8)
