"""Detections in files: how unlike what is annotated an image is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr.detector import Detector
from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.predict import novelty


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
