"""The whole pipeline without a network and without a GPU: sample, weights, fine-tune, results."""

import json
import re
from pathlib import Path

import pytest
import torch

from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.models.weights import read_checkpoint
from detr.sample.things import SHAPE_CLASSES
from detr.training.flags import make_parser
from tests.conftest import RunScript

pytestmark = pytest.mark.long

FLAGS = ("--epochs", 3, "--eval_every", 3, "--scales", 224, 256, 288, "--max_size", 432, "--device", "cpu")
AP50 = 0.6  # three seeds have 0.77 to 0.84


@pytest.mark.parametrize("name", SHIPPED_WEIGHTS)
def test_shipped_weights_are_what_is_said_of_them(name: str) -> None:
    shipped = SHIPPED_WEIGHTS[name]
    checkpoint = read_checkpoint(shipped.path)
    assert shipped.path.stat().st_size < 10 * 2**20
    assert {value.dtype for value in checkpoint["model"].values()} == {torch.float16}
    said = make_parser("").parse_args([*shipped.flags, *shipped.outline_flags])
    assert (max(said.scales), said.max_size) == (shipped.scale, shipped.max_size)
    assert checkpoint["config"]["num_queries"] == shipped.num_queries
    names = {category["name"] for category in checkpoint["categories"]}
    assert names >= set(SHAPE_CLASSES) and "balloon" not in names


def test_the_sample_is_learnt_from_the_shipped_weights(run: RunScript, capsys: pytest.CaptureFixture) -> None:
    """By the very command that prep.py prints, for fewer epochs of smaller images."""
    assert run("prep", "--sample") == 0
    command = re.search(r"python main.py (.*) --epochs \d+", capsys.readouterr().out)[1]
    assert run("main", *command.split(), *FLAGS) == 0
    last = json.loads(Path("outputs/log.txt").read_text().splitlines()[-1])
    assert last["test_coco_eval_bbox"][1] > AP50
    assert run("results") == 0
    assert "AP50" in capsys.readouterr().out
    assert {"gallery.png", "average_precision.png", "report.html"} <= {
        path.name for path in Path("outputs/figures").iterdir()
    }
