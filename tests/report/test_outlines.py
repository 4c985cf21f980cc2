"""Outlines of masks: turned back into masks they are the same, whatever the mask."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detr.report.outlines import color_splash, outlines, tint_masks, to_polygons

HEIGHT, WIDTH = 60, 80


def rle_of(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def disc(x: float, y: float, radius: float) -> np.ndarray:
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    return (across - x) ** 2 + (down - y) ** 2 <= radius**2


def box(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


MASKS = {
    "disc": disc(40, 30, 20),
    "small": box(30, 20, 6, 7),
    "thin": box(30, 20, 41, 1),
    "slanted": np.abs(np.subtract.outer(np.arange(HEIGHT), 0.5 * np.arange(WIDTH))) < 1,
    "two pieces": disc(15, 20, 10) | disc(60, 40, 8),
    "touching corners": box(10, 10, 8, 8) | box(18, 18, 8, 8),
    "hole": disc(40, 30, 20) & ~disc(35, 28, 8),
    "three holes": disc(40, 30, 28) & ~disc(30, 20, 5) & ~disc(50, 20, 5) & ~disc(42, 40, 7),
    "piece in a hole": (disc(40, 30, 25) & ~disc(40, 30, 18)) | disc(40, 30, 8),
    "left and top border": disc(0, 0, 25),
    "right and bottom border": disc(WIDTH, HEIGHT, 25),
    "whole image": box(0, 0, WIDTH, HEIGHT),
    "frame": ~box(2, 2, WIDTH - 4, HEIGHT - 4),
    "noise": np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5,
}


def blobs(count: int) -> Iterator[np.ndarray]:
    """Noise without its high frequencies, from some level on."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
        smooth = np.fft.rfft2(rng.normal(size=(HEIGHT, WIDTH))) * np.exp(-((frequency * rng.uniform(4, 30)) ** 2))
        field = np.fft.irfft2(smooth, (HEIGHT, WIDTH))
        yield field > np.quantile(field, rng.uniform(0.3, 0.98))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def assert_same(mask: np.ndarray) -> None:
    rle = rle_of(mask)
    whole = coco_mask.merge(coco_mask.frPyObjects(to_polygons(rle), HEIGHT, WIDTH))
    assert iou(coco_mask.decode(whole).astype(bool), mask) >= 0.98
    even_odd = np.zeros_like(mask)
    for outline in outlines(rle):
        assert len(outline) > 2 and outline.min() >= 0 and (outline.max(axis=0) <= (WIDTH, HEIGHT)).all()
        assert (outline[0] != outline[-1]).any()
        even_odd ^= coco_mask.decode(coco_mask.frPyObjects([outline.ravel().tolist()], HEIGHT, WIDTH)[0]).astype(bool)
    assert iou(even_odd, mask) >= 0.98


def test_nothing_has_no_outline() -> None:
    empty = rle_of(np.zeros((HEIGHT, WIDTH)))
    assert outlines(None) == outlines(empty) == to_polygons(None) == to_polygons(empty) == []


@pytest.mark.parametrize("name", MASKS)
def test_turned_back_into_a_mask_it_is_the_same(name: str) -> None:
    assert_same(MASKS[name])


def test_masks_of_any_form() -> None:
    for mask in blobs(12):
        assert mask.sum() > 40
        assert_same(mask)


def test_pieces_and_holes_are_told_apart() -> None:
    rle = rle_of(MASKS["three holes"] | disc(3, 3, 3))
    signed = [np.sum(o[:, 0] * np.roll(o[:, 1], -1) - o[:, 1] * np.roll(o[:, 0], -1)) / 2 for o in outlines(rle)]
    assert sorted(np.sign(signed)) == [-1, -1, -1, 1, 1] and len(to_polygons(rle)) == 2
    assert sum(signed) == pytest.approx(coco_mask.area(rle), rel=0.02)
    (square,) = outlines(rle_of(box(0, 0, WIDTH, HEIGHT)))
    assert (square.min(axis=0) <= 0.5).all() and (square.max(axis=0) >= (WIDTH - 0.5, HEIGHT - 0.5)).all()


def test_points_are_few() -> None:
    assert sum(map(len, outlines(rle_of(disc(40, 30, 25))))) < 80
    for name, mask in MASKS.items():
        few = outlines(rle_of(mask), 1.0, most_points=12)
        assert 0 < sum(map(len, few)) <= 12, name
    assert len(outlines(rle_of(np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2), 1.0, most_points=12)) == 1


def test_pictures_of_masks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image, mask, other = Image.fromarray(pixels), disc(20, 20, 15), disc(60, 60, 15)
    splash = np.asarray(color_splash(image, [rle_of(mask), rle_of(other)]))
    assert (splash[mask | other] == pixels[mask | other]).all()
    gray = np.asarray(image.convert("L"))
    assert (splash[~(mask | other)] == gray[~(mask | other)][:, None]).all()
    assert (np.asarray(color_splash(image, [])) == gray[..., None]).all()
    tinted = np.asarray(tint_masks(image, [rle_of(mask)], ["#ff0000"]))
    assert (tinted[~mask] == pixels[~mask]).all() and (tinted[mask][:, 0] >= pixels[mask][:, 0]).all()
    assert (tinted[mask][:, 1:] <= pixels[mask][:, 1:]).all()
    assert (np.asarray(tint_masks(image, [], [])) == pixels).all()
