"""Detections in files: how unlike what is annotated an image is, what a Detector takes, odd names."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr.detector import Detector
from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.predict import novelty
from detr.report.detections import write_csv
from utils import UserError


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    """Two pictures of one texture, one of another, and what is no image."""
    rng, size = np.random.default_rng(0), (96, 128)
    stripes = np.broadcast_to(np.arange(size[1]) // 8 % 2 * 200, size)
    pictures = {"stripes": stripes, "paler": stripes * 0.9 + 20, "noise": rng.integers(0, 256, size)}
    for name, gray in pictures.items():
        Image.fromarray(np.asarray(gray, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return {name: tmp_path / f"{name}.png" for name in (*pictures, "broken")}


def test_what_looks_like_nothing_annotated_is_most_unlike(images: dict[str, Path]) -> None:
    detector = Detector(SHIPPED_WEIGHTS["detr-small"].path, device="cpu", amp="off")
    new = [images[name] for name in ("stripes", "paler", "noise")]
    same, paler, noise = novelty(detector, new, [images["broken"], images["stripes"]]).values()
    assert same == pytest.approx(0, abs=1e-5) and 0 < paler < 0.5 * noise and noise <= 1
    assert novelty(detector, [images["noise"]], [*new]) == {images["noise"]: pytest.approx(0, abs=1e-5)}
    assert novelty(detector, new, [images["broken"]]) == novelty(detector, new, []) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [({"amp": "bf17"}, "bf17.*bf16"), ({"scale": 0}, "--scale 0"), ({"max_size": 20}, "--max_size 20")],
)
def test_what_a_detector_does_not_take_is_said(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Detector(SHIPPED_WEIGHTS["detr-small"].path, device="cpu", **given)


def test_a_name_that_is_not_utf8_keeps_its_bytes(tmp_path: Path) -> None:
    result = {"image_id": os.fsdecode(b"caf\xe9.jpg"), "category_id": 1, "category": "cup", "score": 0.5}
    write_csv(tmp_path / "a.csv", [result | {"bbox": [1, 2, 3, 4]}])
    assert b"\ncaf\xe9.jpg,1,cup,0.5,1,2,3,4" in (tmp_path / "a.csv").read_bytes()
