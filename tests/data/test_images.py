"""Any image becomes the same pixels, whether it is given as a file, opened by Pillow, or as an array."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr.data.images import as_rgb, read_rgb
from utils import UserError

RNG = np.random.default_rng(0)
GRADIENT = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)


def write(kind: str, path: Path) -> Path:
    rgb = Image.fromarray(np.stack([GRADIENT, GRADIENT.T.copy().reshape(40, 60), 255 - GRADIENT], axis=-1))
    if kind == "turned.jpg":
        exif = rgb.getexif()
        exif[0x0112] = 6
        rgb.save(path, exif=exif)
    elif kind == "16bit.png":
        Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(path)
    elif kind == "transparent.png":
        rgb.putalpha(Image.fromarray(GRADIENT))
        rgb.save(path)
    elif kind == "palette.gif":
        rgb.convert("P").save(path)
    elif kind == "cmyk.jpg":
        rgb.convert("CMYK").save(path)
    else:
        rgb.save(path)
    return path


@pytest.mark.parametrize("kind", ["plain.png", "turned.jpg", "16bit.png", "transparent.png", "palette.gif", "cmyk.jpg"])
def test_an_opened_image_is_the_same_as_its_file(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path / kind)
    as_file = np.asarray(read_rgb(path))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(as_rgb(image)), as_file)
    np.testing.assert_array_equal(np.asarray(as_rgb(str(path))), as_file)
    np.testing.assert_array_equal(np.asarray(as_rgb(as_file)), as_file)


def test_arrays_of_16_bits_are_scaled_like_files(tmp_path: Path) -> None:
    array = GRADIENT.astype(np.uint16) * 257
    np.testing.assert_array_equal(
        np.asarray(as_rgb(array)), np.asarray(read_rgb(write("16bit.png", tmp_path / "a.png")))
    )


@pytest.mark.parametrize("array", [np.zeros(3, np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_image_is_named(array: np.ndarray) -> None:
    with pytest.raises(UserError, match="accepted"):
        as_rgb(array)
