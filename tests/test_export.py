"""The same detector elsewhere: what other programs compute from an export, and what is refused."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr.detector import Detector
from detr.export import Comparison, check
from detr.models.detr import DetrConfig
from detr.models.weights import detector_state, load_detector, read_checkpoint
from tests.conftest import RunScript
from tests.peer import make_model
from utils import UserError

TINY = DetrConfig(3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, num_queries=7,
                  dim_feedforward=48)  # fmt: skip
MASKS = dataclasses.replace(TINY, masks=True, nheads=8, num_classes=4)
CATEGORIES = [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "größe"}]
SIZES_HW = [(64, 96), (33, 120), (128, 77)]

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime", "onnxscript"))), reason="onnxruntime is not installed"
)


def save(config: DetrConfig, path: Path = Path("own.pth"), **other: object) -> Path:
    state = detector_state(make_model(config), CATEGORIES, {"scale": 64, "max_size": 128}, {"AP": 0.5, "epoch": 0})
    torch.save(state | other, path)
    return path


def random_images(sizes_hw: list[tuple[int, int]] = SIZES_HW) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)) for size_hw in sizes_hw]


def padded_batch(size_hw: tuple[int, int], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized images and their padding mask; each but the first is a little smaller."""
    images = torch.randn(batch, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    padding_mask = torch.zeros(batch, *size_hw, dtype=torch.bool)
    for row in range(batch):
        padding_mask[row, size_hw[0] - 9 * row :] = padding_mask[row, :, size_hw[1] - 20 * row :] = True
    return images.masked_fill(padding_mask[:, None], 0.0), padding_mask


# --------------------------------------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("precision", "differences", "ap", "accepted"),
    [
        ("fp32", {"scores": 1e-6, "boxes_xyxy": 1e-6}, {}, True),
        ("fp32", {"scores": 0.12, "boxes_xyxy": 1e-6}, {"AP": (0.5, 0.5)}, False),
        ("fp32", {"scores": 1e-6, "boxes_xyxy": math.nan}, {}, False),
        ("fp16", {"scores": 0.02}, {"AP": (0.5, 0.492)}, True),
        ("fp16", {"scores": 1e-6}, {"AP": (0.5, 0.488)}, False),
        ("int8", {"scores": 1e-6}, {"AP": (0.5, 0.5), "mask AP": (0.5, 0.4)}, False),
        ("int8", {"scores": 1e-6}, {}, False),
    ],
)
def test_only_the_same_detector_is_kept(precision: str, differences: dict, ap: dict, accepted: bool) -> None:
    comparison = Comparison(3, differences, ap)
    if accepted:
        check(comparison, precision, Path("x.onnx"))
    else:
        with pytest.raises(UserError, match=r"x\.onnx was not written|needs annotated images"):
            check(comparison, precision, Path("x.onnx"))


# --------------------------------------------------------------------------------------------------------- hugging face


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        dataclasses.replace(TINY, stride=16),
        MASKS,
        pytest.param(DetrConfig(91), marks=pytest.mark.long),
        pytest.param(DetrConfig(3, dilation=True), marks=pytest.mark.long),
        pytest.param(DetrConfig(3, masks=True), marks=pytest.mark.long),
    ],
    ids=["tiny", "stride-16", "masks", "r50", "dc5", "r50-masks"],
)
def test_transformers_loads_the_same_detector(
    config: DetrConfig, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    path = save(config)
    assert run("detr.export", path, "--to", "huggingface", "hub") == 0
    assert "hub: largest differences from PyTorch on 3 images" in capsys.readouterr().out
    auto = transformers.AutoModelForImageSegmentation if config.masks else transformers.AutoModelForObjectDetection
    peer = auto.from_pretrained("hub").eval()
    assert type(peer).__name__ == ("DetrForSegmentation" if config.masks else "DetrForObjectDetection")
    detr = load_detector(path).model
    for size_hw, batch in (((96, 128), 1), ((70, 101), 3)):
        images, padding_mask = padded_batch(size_hw, batch)
        with torch.no_grad():
            theirs, ours = peer(images, pixel_mask=~padding_mask), detr(images, padding_mask)
        torch.testing.assert_close(theirs.logits, ours.logits[-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs.pred_boxes, ours.boxes_cxcywh[-1], atol=1e-5, rtol=0)
    back, ours = load_detector(Path("hub")), detr.state_dict()
    assert back.model.config == dataclasses.replace(detr.config, masks=config.masks)
    assert all(torch.equal(value, ours[key]) for key, value in back.model.state_dict().items())
    assert [c["name"] for c in back.categories] == [c["name"] for c in CATEGORIES]
    assert back.resolution == {"scale": 64, "max_size": 128}


def test_the_pipeline_of_transformers_names_the_classes(run: RunScript) -> None:
    transformers = pytest.importorskip("transformers")
    assert run("detr.export", save(TINY), "--to", "huggingface", "hub") == 0
    image = random_images()[0]
    theirs = transformers.pipeline("object-detection", model="hub")(image, threshold=0.0)
    ours = Detector("own.pth", device="cpu", amp="off")(image, threshold=0.0)
    assert {d["label"] for d in theirs} <= {"cat", "dog", "größe"}
    best = max(theirs, key=lambda d: d["score"])
    assert (best["label"], best["score"]) == (ours[0].category, pytest.approx(ours[0].score, abs=1e-3))
    assert [*best["box"].values()] == pytest.approx(ours[0].box_xyxy, abs=1.5)


def test_rows_without_a_class_come_back_as_such(run: RunScript) -> None:
    path = save(dataclasses.replace(TINY, num_classes=91), raw_ids=True)
    assert run("detr.export", path, "--to", "huggingface", "hub") == 0
    back = read_checkpoint(Path("hub"))
    assert (back["categories"], back["raw_ids"]) == (CATEGORIES, True)
    assert json.loads(Path("hub/config.json").read_text())["id2label"]["0"] == "N/A"


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (dataclasses.replace(TINY, backbone="mobilenet_v3_small", stride=16), "a mobilenet_v3_small"),
        (dataclasses.replace(TINY, pre_norm=True), "pre-norm layers"),
        (dataclasses.replace(MASKS, stride=16), "a mask head on a backbone that ends at stride 16"),
    ],
)
def test_what_transformers_lacks_is_said(
    config: DetrConfig, what: str, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detr.export", save(config), "--to", "huggingface", "hub") == 2
    assert f"transformers has no DETR with {what}" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["own.pth"]


def test_a_folder_that_is_there_is_kept(run: RunScript, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hub").mkdir()
    assert run("detr.export", save(TINY), "--to", "huggingface", "hub") == 2
    assert capsys.readouterr().err == "error: hub is there already; accepted: the name of a new folder\n"
    assert not list(Path("hub").iterdir())


@pytest.mark.parametrize(("to", "packages"), [("onnx", "onnx onnxruntime onnxscript"), ("huggingface", "safetensors")])
def test_missing_packages_are_named(
    to: str, packages: str, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages.split() else real(name))
    assert run("detr.export", save(TINY), "--to", to) == 2
    assert capsys.readouterr().err.endswith(f"needs what is not installed: pip install {packages}\n")
    assert sorted(path.name for path in Path().iterdir()) == ["own.pth"]


# ----------------------------------------------------------------------------------------------------- and back again


HEADS_AND_WIDTH = {"attention_heads": 8, "ffn_dim": 48}


def published_folder(path: Path) -> None:
    """What `transformers` itself writes, as the published DETRs are kept."""
    transformers = pytest.importorskip("transformers")
    names = {0: "N/A", 1: "person", 2: "N/A", 3: "disc"}
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 7}
    sizes |= {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in HEADS_AND_WIDTH.items()}
    theirs = transformers.DetrConfig(use_pretrained_backbone=False, backbone="resnet18", id2label=names, **sizes)
    torch.manual_seed(0)
    transformers.DetrForObjectDetection(theirs).save_pretrained(path)


@pytest.mark.parametrize("flags", [["--resume", "hub"], ["--resume", "auto", "--weights", "hub"]])
def test_a_published_folder_starts_a_fine_tuning(
    flags: list[str], coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    published_folder(Path("hub"))
    small = ["--scales", "64", "--max_size", "96", "--num_workers", "0", "--device", "cpu", "--epochs", "1"]
    assert run("main", *flags, *small) == 0
    printed = capsys.readouterr().out
    assert "class rows taken over: disc, no object" in printed
    assert Detector("outputs/checkpoint_best.pth").model.config.backbone == "resnet18"


def test_masks_are_learnt_on_a_published_folder(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    published_folder(Path("hub"))
    small = ["--scales", "64", "--max_size", "96", "--num_workers", "0", "--device", "cpu", "--epochs", "1"]
    assert run("main", "--masks", "--frozen_weights", "hub", *small) == 0
    assert "starting fresh: the mask head" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda hub: (hub / "model.safetensors").unlink(), "hub: has no model.safetensors; accepted: the folder with"),
        (lambda hub: (hub / "model.safetensors").write_bytes(b"x" * 40), "hub/model.safetensors: cannot be read"),
        (lambda hub: (hub / "config.json").write_text("{"), "hub/config.json: not JSON"),
        (lambda hub: edit(hub, model_type="yolos"), "hub/config.json: a model of the type 'yolos'; accepted: detr"),
        (lambda hub: edit(hub, decoder_layers=3), "hub/model.safetensors: does not fit its config.json: model.decoder"),
        (lambda hub: edit(hub, backbone_config={"model_type": "resnet"}), "its backbone is 'resnet'; accepted: a Res"),
        (lambda hub: edit(hub, d_model="wide"), "hub/config.json: d_model is 'wide'"),
        (lambda hub: edit(hub, d_model=64), "hub: the weights do not fit a DETR with resnet18: has shape"),
        (
            lambda hub: edit(hub, decoder_attention_heads=8),
            "hub/config.json: decoder_attention_heads is 8; accepted: 4",
        ),
    ],
)
def test_other_folders_are_refused_by_name(damage, message: str, run: RunScript) -> None:
    published_folder(Path("hub"))
    damage(Path("hub"))
    with pytest.raises(UserError) as caught:
        load_detector(Path("hub"))
    assert message in str(caught.value)


def edit(hub: Path, **values: object) -> None:
    path = hub / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
