"""Read any image upright, as 8-bit RGB. No torch."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils import UserError, join_names, quote

MAX_PIXELS = 178_956_970  # beyond that Pillow refuses a file as a decompression bomb
# Pillow has a name for these, and does not read them itself.
_NO_IMAGES = {".eps", ".ps", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr", ".fit", ".fits"}
_UNREAD = {".heic", ".heif", ".jxl", ".dng", ".cr2", ".nef", ".arw"}  # images that Pillow does not read
_EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
# As PIL.ImageOps.exif_transpose turns them, which would first decode all of a PNG to look for EXIF data behind it.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What becomes white in images of more than 8 bits: of integers ("I") and of floating-point numbers ("F").
White = dict[str, int]


class Header(NamedTuple):
    """What the head of an image file says."""

    size_hw: tuple[int, int]  # upright
    orientation: int  # EXIF's: 1 where the pixels are stored upright, up to 8


def read_header(path: Path) -> Header:
    """Return upright size and orientation. Raises UserError for what is not an image."""
    with _opened(path) as image:
        orientation = _orientation(image)
        return Header(image.size if orientation in SIDEWAYS else image.size[::-1], orientation)


def read_size_hw(path: Path) -> tuple[int, int]:
    """Return upright height and width in pixels, from the file's header. Raises UserError for what is not an image."""
    return read_header(path).size_hw


def read_rgb(path: Path, scale: float = 1.0, white: White | None = None) -> Image.Image:
    """Read the whole image, turned upright as a viewer shows it, in 8-bit RGB.

    Grayscale, palette, CMYK and deeper files are converted; transparent pixels become white. With a `scale` below 1 a
    JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least this share of it, which is much faster.
    Of more than 8 bits 0 and less becomes black, `white` of its dataset white, or `white_of` the image itself.
    Raises UserError for missing, truncated or unreadable files, and for more than `MAX_PIXELS`.
    """
    with _opened(path) as image:
        return _decoded(image, scale, white)


def read_depth(path: Path) -> tuple[str, float] | None:
    """Return of an image of more than 8 bits its kind, a key of `White`, and its largest value; None for all others.

    Raises UserError where it cannot be read.
    """
    with _opened(path) as image:
        kind = _deep_kind(image)
        return (kind, float(_finite(image).max(initial=0))) if kind else None


def white_of(top: float, kind: str) -> int:
    """Return what becomes white where `top` is the largest value: the largest of its number of bits, at least 8.

    Floating-point numbers up to 1 are taken as shares of white, and larger ones may have any number of bits.
    """
    if kind == "F" and top <= 1:
        return 1
    bits = max(ceil(top).bit_length(), 8 if kind == "I" else 1)
    return 2**bits - 1


def as_rgb(image: str | Path | Image.Image | np.ndarray, white: White | None = None) -> Image.Image:
    """Return any image as `read_rgb` returns a file: a path, a Pillow image, an array (H, W), (H, W, 3) or (H, W, 4).

    Arrays are gray, RGB or RGBA, in that order of channels (not OpenCV's BGR), of 8 or 16 bits. Raises UserError for
    what is not an image.
    """
    if isinstance(image, str | Path):
        return read_rgb(Path(image), white=white)
    if isinstance(image, np.ndarray):
        if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))) or 0 in image.shape:
            raise UserError(f"an array of shape {image.shape} is no image; accepted: (H, W), (H, W, 3) or (H, W, 4)")
        if image.dtype != np.uint8 and not (image.dtype == np.uint16 and image.ndim == 2):
            raise UserError(f"an array of {image.dtype} is no image; accepted: uint8, and uint16 of shape (H, W)")
        return _to_rgb(Image.fromarray(image), white)
    if not isinstance(image, Image.Image):  # None, where OpenCV has not found the file
        raise UserError(f"{quote(image)} is no image; accepted: a path, a Pillow image or an array")
    with _refused(Path(getattr(image, "filename", "") or "the image"), "the image is damaged"):
        return _decoded(image, 1.0, white)


def _decoded(image: Image.Image, scale: float, white: White | None) -> Image.Image:
    turn = TURNS.get(_orientation(image))
    if scale < 1:
        image.draft(image.mode, (ceil(image.width * scale), ceil(image.height * scale)))
    image.load()
    return _to_rgb(image if turn is None else image.transpose(turn), white)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8, of an image whose pixels have not been decoded."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode all pixels, some 10 ms, in case that EXIF data lie behind them
    orientation = image.getexif().get(_EXIF_ORIENTATION)
    return orientation if orientation in TURNS else 1


@functools.cache
def _image_suffixes() -> set[str]:
    Image.init()
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN} - _NO_IMAGES


def has_image_suffix(path: Path) -> bool:
    """Return whether a file's name ends as those of images that Pillow reads do."""
    return path.suffix.lower() in _image_suffixes()


def find_images(patterns: Sequence[str], flag: str = "--images") -> list[Path]:
    """Return the images among files, folders (not what is in folders in them) and globs, each once.

    A file that is named may have any suffix; of what a folder or a glob holds, what Pillow reads is taken, without
    hidden files. Raises UserError that begins with `flag` for what is neither, and when there are none.
    """
    paths: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            paths.append(path)
            continue
        files = sorted(file for file in (path.iterdir() if path.is_dir() else _globbed(path)) if file.name[0] != ".")
        if not files and not path.is_dir():
            raise UserError(f"{flag} {pattern}: no such file or folder, and as a glob nothing fits it")
        paths += [file for file in files if has_image_suffix(file) and file.is_file()]
        if unread := [str(file) for file in files if file.suffix.lower() in _UNREAD - _image_suffixes()]:
            print(f"left out, as Pillow does not read them: {join_names(unread, 5)}")
    if not paths:
        accepted = "what Pillow reads, such as .jpg, .png, .tif or .webp"
        raise UserError(f"{flag} {', '.join(patterns)}: no images; accepted: {accepted}")
    return list(dict.fromkeys(paths))


def _globbed(pattern: Path) -> list[Path]:
    try:
        return [*Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))]
    except ValueError:  # no glob at all: `**.jpg`, say
        return []


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file whose pixels are not decoded yet. Raises UserError where it is none, or is damaged."""
    with _refused(path, "the image cannot be read"):
        image = Image.open(path)
        if image.format == "EPS":  # a program, which Pillow would hand to Ghostscript
            raise UnidentifiedImageError
    with image, _refused(path, "the image is damaged"):
        yield image


@contextlib.contextmanager
def _refused(path: Path, what: str) -> Iterator[None]:
    """Turn whatever error a decoder meets a damaged or hostile file with into a UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: more than {MAX_PIXELS:,} pixels; make the image smaller") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: {what} ({reason})") from error


def _deep_kind(image: Image.Image) -> str:
    """Return the kind of an image of more than 8 bits, a key of `White`; empty for all others."""
    return "F" if image.mode == "F" else "I" if image.mode.startswith("I") else ""


def _to_rgb(image: Image.Image, white: White | None) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB; images of 12 or 16 bits and of floating-point numbers are scaled."""
    if kind := _deep_kind(image):
        gray = _finite(image)
        full_scale = (white or {}).get(kind) or white_of(gray.max(initial=0), kind)
        return Image.fromarray((gray.clip(0, full_scale) * (255 / full_scale)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _finite(image: Image.Image) -> np.ndarray:
    """Return the pixels of a gray image, (H, W) float64, with 0 for infinities and NaN."""
    return np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
