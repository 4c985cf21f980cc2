"""Any image becomes the same pixels, whether it is given as a file, opened by Pillow, or as an array."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr.data.images import as_rgb, find_images, read_depth, read_rgb, white_of
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


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3)), None, b"x"]
)
def test_what_is_no_image_is_named(array: np.ndarray) -> None:
    with pytest.raises(UserError, match="accepted"):
        as_rgb(array)


def test_an_opened_image_that_is_damaged_is_named(tmp_path: Path) -> None:
    content = write("plain.png", tmp_path / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    with Image.open(tmp_path / "half.png") as image, pytest.raises(UserError, match=r"half.png: the image is damaged"):
        as_rgb(image)


def test_of_a_folder_all_kinds_of_images_are_taken_and_the_unreadable_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = [f"a.{suffix}" for suffix in ("jpg", "JPEG", "png", "webp", "tif", "TIFF", "jp2", "bmp", "gif", "ppm")]
    for name in (*names, "._a.jpg", "a.txt", "a.mp4", "a.json", "b.HEIC"):
        (tmp_path / name).touch()
    assert {path.name for path in find_images([str(tmp_path)])} == set(names)
    assert "b.HEIC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "top", "white"),
    [
        *(("I", 0, 255), ("I", 255, 255), ("I", 256, 511), ("I", 1023, 1023), ("I", 4000, 4095), ("I", 65535, 65535)),
        *(("F", 0.3, 1), ("F", 1.0, 1), ("F", 1.01, 3), ("F", 254.5, 255), ("F", 70000, 2**17 - 1)),
    ],
)
def test_white_is_the_largest_value_of_as_many_bits(kind: str, top: float, white: int) -> None:
    assert white_of(top, kind) == white


@pytest.mark.parametrize(
    ("kind", "dtype", "white"), [("I", np.uint16, 4095), ("I", np.int32, 4095), ("F", np.float32, 2)]
)
def test_images_of_more_than_8_bits_are_scaled_alike_by_one_white(
    kind: str, dtype: type, white: int, tmp_path: Path
) -> None:
    """A dark image stays darker than a bright one, whatever is the brightest pixel of each."""
    shares = {"dark": 0.2, "bright": 1.0, "beyond": 1.7}
    seen = {}
    for name, share in shares.items():
        path = tmp_path / f"{name}.tif"
        Image.fromarray(np.full((3, 4), share * white).astype(dtype)).save(path)
        assert read_depth(path) == (kind, pytest.approx(share * white, abs=1))
        seen[name] = int(np.asarray(read_rgb(path, white={kind: white})).max())
        with Image.open(path) as image:
            assert int(np.asarray(as_rgb(image, {kind: white})).max()) == seen[name]
    assert seen == {"dark": 51, "bright": 255, "beyond": 255}
    if dtype == np.uint16:
        assert np.asarray(as_rgb(np.full((3, 4), 819, np.uint16), {"I": 4095})).max() == 51


def test_fractions_are_not_black_and_what_is_no_number_is(tmp_path: Path) -> None:
    pixels = np.array([[0, 0.5, 1.0], [-3, np.nan, np.inf]], dtype=np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert np.asarray(read_rgb(tmp_path / "a.tif"))[..., 0].tolist() == [[0, 128, 255], [0, 0, 0]]
    assert read_depth(tmp_path / "a.tif") == ("F", 1.0) and read_depth(write("plain.png", tmp_path / "b.png")) is None
