"""results.py as a user runs it, on whole and on damaged runs."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from detr.detector import Detector
from detr.errors import UserError
from detr.report.runs import read_run
from tests.conftest import SHARED, TINY, RunScript, needs_shared

CURVES = {"losses.png", "errors.png", "average_precision.png"}


@pytest.fixture
def trained(coco_folder: Path, run: RunScript) -> Path:
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 1) == 0
    return Path("outputs")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The cells of every grid that would have been saved."""
    grids: list = []
    monkeypatch.setattr("utils.save_grid", lambda cells, columns, path: grids.append(cells))
    return grids


def test_one_epoch_gives_every_picture(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert run("results") == 0
    output = capsys.readouterr().out
    assert {path.name for path in (trained / "figures").iterdir()} == CURVES | {"predictions.png"}
    for path in (trained / "figures").iterdir():
        assert f"saved {path}" in output
        assert min(Image.open(path).size) > 300


def test_predictions_show_what_passes_the_threshold(trained: Path, run: RunScript, drawn: list) -> None:
    assert run("results", "--threshold", 0) == 0
    assert run("results", "--threshold", 1.01) == 0
    everything, nothing = drawn
    assert [len(objects) for _, _, objects in everything] == [1, 8, 2, 8, 0, 8]
    assert [len(objects) for _, _, objects in nothing] == [1, 0, 2, 0, 0, 0]
    assert everything[0][2][0]["text"] == "disc" and everything[1][2][0]["text"].startswith("disc 0.")


def test_a_checkpoint_finds_what_the_run_recorded(trained: Path, run: RunScript, drawn: list) -> None:
    """The detector alone, image by image, against the batches of the evaluation: padding moves features a little."""
    assert run("results", "--threshold", 0) == 0
    assert run("results", "--threshold", 0, "--checkpoint", trained / "checkpoint_best.pth", "--device", "cpu") == 0
    recorded, detected = ([sorted(o["box_xyxy"] for o in objects) for _, _, objects in cells] for cells in drawn)
    for a, b in zip(recorded, detected, strict=True):
        assert [pytest.approx(box, abs=8) for box in a] == b


def test_any_photograph(trained: Path, run: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("L", (50, 30)).save(tmp_path / "gray.png")
    assert run("results", "--images", "gray.png", "discs/val", "--threshold", 0, "--device", "cpu") == 0
    assert "32 objects in 4 photographs" in capsys.readouterr().out
    assert Image.open("outputs/figures/images/gray.png").size == (50, 30)
    found = json.loads(Path("outputs/figures/images/detections.json").read_text())
    assert found[0]["image_id"] == "gray.png" and found[0]["category"] == "disc"
    assert run("results", "--images", "gray.png", "gray.png", "--device", "cpu") == 0
    assert {"gray.png", "gray_2.png"} <= {path.name for path in Path("outputs/figures/images").iterdir()}
    assert run("results", "--images", "nothing.jpg") == 2
    assert run("results", "--images", "data/custom/annotations") == 2
    assert "no photographs; accepted: .jpg" in capsys.readouterr().err


def test_the_detector_in_three_lines(trained: Path) -> None:
    detector = Detector(trained / "checkpoint_best.pth", device="cpu")
    found = detector("discs/val/disc00.png", threshold=0)
    assert len(found) == 8 and found == sorted(found, key=lambda d: -d.score)
    assert found[0].category == "disc" and found[0].category_id == 1 and len(found[0].box_xyxy) == 4
    assert detector(Image.open("discs/val/disc00.png"), threshold=0) == found
    assert detector("discs/val/disc00.png", threshold=1.01) == []


def test_several_runs_are_laid_over_each_other(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(trained, "second")
    assert run("results", "--log", "outputs", "second") == 0
    assert "second: best AP" in capsys.readouterr().out


@needs_shared
def test_the_references_own_log(run: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "reference").mkdir()
    shutil.copy(SHARED / "reference_run/log.txt", tmp_path / "reference")
    assert run("results", "--log", "reference") == 0
    output = capsys.readouterr().out
    assert "reference: best AP 0.583" in output and "last AP 0.473, 100 epochs" in output
    assert "the run does not say where its images are" in output
    assert {path.name for path in Path("reference/figures").iterdir()} == CURVES


def test_logs_that_are_cut_short_or_odd(run: RunScript, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    entries = [{"epoch": 0, "train_loss": 2.0, "test_coco_eval_bbox": []}, {"epoch": 1, "train_loss": float("nan")}]
    (folder / "log.txt").write_text("".join(json.dumps(e) + "\n" for e in entries) + '{"epoch": 2, "trai')
    assert run("results", "--log", "odd") == 0
    odd = read_run(folder)
    assert len(odd.log) == 2 and odd.series("train_loss") == ([0], [2.0])
    assert odd.series("test_coco_eval_bbox") == odd.series("absent") == ([], [])
    (folder / "log.txt").write_text("")
    assert run("results", "--log", "odd") == 0
    (folder / "log.txt").write_text("?\n{}\n")
    with pytest.raises(UserError, match=r"log.txt: line 1 is not a JSON object"):
        read_run(folder)


def test_what_is_missing_is_named(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("results", "--log", "gone") == 2
    assert "gone/log.txt: no such file" in capsys.readouterr().err
    (trained / "predictions.json").unlink()
    assert run("results") == 0
    assert "outputs has no predictions.json" in capsys.readouterr().out
    shutil.rmtree("data")
    assert run("results") == 2
    assert "--coco_path says where the COCO folder is now" in capsys.readouterr().err
