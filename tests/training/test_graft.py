"""A transformer on another backbone: what is kept, what is copied, what is fresh, and that it trains."""

from pathlib import Path

import pytest
import torch
import torchvision

from detr.models.detr import Detr, DetrConfig
from detr.training.graft import graft
from tests.conftest import TINY, RunScript
from utils import UserError

SHAPE = {"hidden_dim": 32, "nheads": 4, "enc_layers": 1, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 8}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A detector on a ResNet-18, and a MobileNetV2 as torchvision saves it."""
    torch.manual_seed(3)
    detr = Detr(DetrConfig(1, backbone="resnet18", stride=16, **SHAPE))
    config = {"num_classes": 1, "backbone": "resnet18", "stride": 16, "batch_norm": "frozen", **SHAPE}
    about = {"categories": [{"id": 1, "name": "disc"}], "raw_ids": False, "resolution": {"scale": 64, "max_size": 96}}
    torch.save({"model": detr.state_dict(), "config": config} | about, tmp_path / "detr.pth")
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), tmp_path / "mobilenet.pth")
    return tmp_path / "detr.pth", tmp_path / "mobilenet.pth"


def test_the_transformer_is_kept_and_its_last_layer_repeated(files: tuple[Path, Path]) -> None:
    source, backbone = files
    before, grafted = torch.load(source), graft(source, "mobilenet_v2", backbone, 4)
    after, classifier = grafted["model"], torch.load(backbone)
    assert grafted["config"]["dec_layers"] == 4 and grafted["config"]["backbone"] == "mobilenet_v2"
    for key, value in after.items():
        if key.startswith("backbone.0.body."):
            assert torch.equal(value, classifier[key.removeprefix("backbone.0.body.")])
        elif "decoder.layers.2." in key or "decoder.layers.3." in key:
            last = key.replace("layers.2.", "layers.1.").replace("layers.3.", "layers.1.")
            assert torch.equal(value, before["model"][last])
        elif not key.startswith("input_proj."):
            assert torch.equal(value, before["model"][key])
    assert after["input_proj.weight"].shape == (32, 96, 1, 1)
    with pytest.raises(UserError, match="--dec_layers 1"):
        graft(source, "mobilenet_v2", backbone, 1)
    with pytest.raises(UserError, match=r"detr\.pth"):
        graft(source, "mobilenet_v2", source, 2)


def test_what_was_grafted_trains(files: tuple[Path, Path], coco_folder: Path, run: RunScript) -> None:
    torch.save(graft(files[0], "mobilenet_v2", files[1], 3), "grafted.pth")
    assert run("main", *TINY[-8:], "--weights", "grafted.pth", "--epochs", 1) == 0
    trained = torch.load("outputs/checkpoint.pth", weights_only=True)
    assert trained["config"]["backbone"] == "mobilenet_v2" and trained["config"]["dec_layers"] == 3
