"""results.py as a user runs it, on whole and on damaged runs."""

import argparse
import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from detr.data.coco_json import to_rle
from detr.data.images import find_images
from detr.data.transforms import evaluation_params
from detr.data.video import read_frames, video_writer
from detr.detector import Detector
from detr.evaluation import coco_matching
from detr.evaluation.metrics import measure
from detr.models.detr import Detr, DetrConfig
from detr.models.weights import load_detector
from detr.predict import to_result
from detr.report.curves import draw_curves, panels_of_everything, smooth
from detr.report.detections import picture_names
from detr.report.gallery import EvaluatedImages
from detr.report.metric_figures import draw_confusion, draw_metrics
from detr.report.runs import Run, read_run
from detr.report.tables import class_table, headline_table
from detr.training.device import pick_precision
from tests.conftest import SHARED, TINY, RunScript, needs_shared
from utils import UserError

pytestmark = pytest.mark.long

CURVES = {"losses.png", "errors.png", "average_precision.png", "every_quantity.png"}
METRICS = {"metrics.json", "metrics.png", "confusion.png"}
IMAGES = {"gallery.png", "attention.png", "queries.png"}
PAGE = {"report.html"}


@pytest.fixture
def trained(coco_folder: Path, run: RunScript) -> Path:
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 1) == 0
    return Path("outputs")


@pytest.fixture
def no_diagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diagrams take seconds; tests of anything else do without."""

    def make(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr("results.draw_curves", lambda runs, name, path: make(path))
    monkeypatch.setattr("results.draw_metrics", lambda runs, path: make(path))
    monkeypatch.setattr("results.draw_confusion", lambda runs, path: make(path))
    for name in ("draw_gallery", "draw_attention"):
        monkeypatch.setattr(f"results.{name}", lambda *given: make(given[-1]))
    monkeypatch.setattr("results.draw_queries", lambda attention, path: make(path))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, no_diagrams: None) -> list[tuple[EvaluatedImages, float]]:
    """What every gallery would have been drawn from: the images and the threshold."""
    galleries: list = []

    def draw(evaluated: EvaluatedImages, threshold: float, path: Path) -> None:
        galleries.append((evaluated, threshold))

    monkeypatch.setattr("results.draw_gallery", draw)
    return galleries


def shown(gallery: tuple[EvaluatedImages, float]) -> list[list[np.ndarray]]:
    """The boxes that are drawn of each image."""
    evaluated, threshold = gallery
    found = [evaluated.of_image(number, threshold)[1] for number in range(len(evaluated.images))]
    return [[*evaluated.matches.detections.boxes_xywh[numbers]] for numbers in found]


def read_truth() -> dict:
    return json.loads(Path("data/custom/annotations/custom_val.json").read_text())


def test_one_epoch_gives_every_picture(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert run("results") == 0
    output = capsys.readouterr().out
    assert {path.name for path in (trained / "figures").iterdir()} == CURVES | METRICS | IMAGES | PAGE
    for path in (trained / "figures").iterdir():
        assert f"saved {path}" in output
        assert path.suffix != ".png" or min(Image.open(path).size) > 200
    predictions = json.loads((trained / "predictions.json").read_text())
    saved = json.loads((trained / "figures/metrics.json").read_text())
    metrics = json.loads(json.dumps(measure(read_truth(), predictions)))
    assert saved == {"runs": [{"name": "outputs", "metrics": metrics}]}
    ap = metrics["coco"]["AP"]
    assert read_run(trained).log[0]["test_coco_eval_bbox"][0] == pytest.approx(ap, abs=1e-9)
    assert "best F1" in output and "disc    3" in output


def test_predictions_show_what_passes_the_threshold(trained: Path, run: RunScript, drawn: list) -> None:
    assert run("results", "--threshold", 0) == 0
    assert run("results", "--threshold", 1) == 0
    everything, nothing = drawn
    assert [len(boxes) for boxes in shown(everything)] == [8, 8, 8]
    assert [len(boxes) for boxes in shown(nothing)] == [0, 0, 0]
    assert nothing[0].count_errors(1.01).tolist() == [1, 2, 0]  # what is missed


def test_detections_on_images_of_before_are_not_held_against_others(
    trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    path = Path("data/custom/annotations/custom_val.json")
    truth = read_truth()
    first, second, *others = truth["images"]
    first["id"], second["id"] = second["id"], first["id"]  # prep.py counts anew when photographs come in
    path.write_text(json.dumps(truth | {"images": [second, first, *others]}))
    assert run("results") == 0
    assert "no metrics: outputs was evaluated on other validation images than there are now (--checkpoint outputs/" in (
        capsys.readouterr().out
    )
    assert run("results", "--checkpoint", "outputs/checkpoint_best.pth", "--device", "cpu") == 0
    assert "no metrics" not in capsys.readouterr().out


@pytest.mark.parametrize("flags", [(), ("--checkpoint", "outputs/checkpoint_best.pth", "--device", "cpu")])
def test_classes_are_told_apart_by_name_when_ids_change(
    flags: tuple, trained: Path, run: RunScript, drawn: list, capsys: pytest.CaptureFixture
) -> None:
    """A class that is added in VIA later moves the ids of those behind it in the alphabet."""
    assert run("results", *flags) == 0
    before = json.loads((trained / "figures/metrics.json").read_text())["runs"][0]["metrics"]
    path, truth = Path("data/custom/annotations/custom_val.json"), read_truth()
    (disc,) = truth["categories"]
    added = {"id": disc["id"], "name": "apple"}
    annotations = [a | {"category_id": disc["id"] + 1} for a in truth["annotations"]]
    changed = truth | {"categories": [added, disc | {"id": disc["id"] + 1}], "annotations": annotations}
    path.write_text(json.dumps(changed))
    assert run("results", *flags) == 0
    apple, after = json.loads((trained / "figures/metrics.json").read_text())["runs"][0]["metrics"]["classes"]
    (was,) = before["classes"]
    assert (after["AP"], after["AP50"], apple["AP"]) == (was["AP"], was["AP50"], None)
    path.write_text(json.dumps(truth | {"categories": [disc | {"name": "ring"}]}))
    capsys.readouterr()
    assert run("results", *flags) == 2
    error = capsys.readouterr().err
    assert "'disc'" in error and "ring" in error and "--coco_path" in error


def test_detections_are_the_same_whatever_the_batch_and_the_script(
    coco_folder: Path, run: RunScript, no_diagrams: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of JPEGs of several sizes, twice as large as the network sees them: in training, --eval, results.py, Detector."""
    monkeypatch.setattr("detr.detector.pick_precision", lambda amp, device: pick_precision("off", device))
    path, folder = coco_folder / "annotations/custom_val.json", coco_folder / "val2017"
    sizes = [(320, 240), (300, 200), (320, 240), (240, 320), (280, 270), (640, 480)]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": w, "height": h} for n, (w, h) in enumerate(sizes, start=1)]
    for image in images:
        noise = Image.effect_noise((40, 30), 90).resize((image["width"], image["height"]))
        noise.save(folder / image["file_name"])
    box = {"category_id": 1, "bbox": [20, 20, 100, 100], "area": 10000, "iscrowd": 0, "segmentation": []}
    objects = [{**box, "id": image["id"], "image_id": image["id"]} for image in images]
    path.write_text(json.dumps(read_truth() | {"images": images, "annotations": objects}))
    command = ("main", *TINY, "--backbone_weights", "none", "--amp", "off")
    assert run(*command, "--epochs", 1, "--batch_size", 4) == 0
    recorded = detections_in(Path("outputs/predictions.json"))
    assert len(recorded) == 6 * 8
    logged = read_run(Path("outputs")).log[0]
    for flags in ((), ("--cache", "ram")):
        assert run(*command, *flags, "--eval", "--batch_size", 1) == 0
        assert detections_in(Path("outputs/predictions_checkpoint_best.json")) == same_as(recorded)
    checkpoint = Path("outputs/checkpoint_best.pth")
    assert run("results", "--checkpoint", checkpoint, "--device", "cpu") == 0
    figures = Path("outputs/figures")
    assert detections_in(figures / "predictions.json") == same_as(recorded)
    metrics = json.loads((figures / "metrics.json").read_text())["runs"][0]["metrics"]
    assert metrics["coco"]["AP"] == pytest.approx(logged["test_coco_eval_bbox"][0], abs=1e-6)
    assert run("results", "--images", folder / "*.jpg", "--threshold", 0, "--device", "cpu", "--batch_size", 3) == 0
    assert detections_in(figures / "images/predictions.json") == same_as(recorded)
    detector = Detector(checkpoint, "cpu")
    paths = [folder / image["file_name"] for image in images]
    for together in (detector(paths, 0), detector.detect(paths, 0), detector.detect([Image.open(p) for p in paths], 0)):
        found = [(n, d.score, *d.box_xyxy[:2]) for n, of_image in enumerate(together, start=1) for d in of_image]
        assert sorted(found) == same_as([row[:4] for row in recorded])


def detections_in(path: Path) -> list[tuple]:
    """(number of the image, score, left, top, width, height) each, sorted."""
    entries = json.loads(path.read_text())
    return sorted((int(Path(str(entry["image_id"])).stem), entry["score"], *entry["bbox"]) for entry in entries)


def same_as(rows: list[tuple]) -> list:
    """Float32 in another batch: scores within 1e-5, boxes within a hundredth of a pixel."""
    return [(number, pytest.approx(score, abs=1e-5), *map(near_pixel, box)) for number, score, *box in rows]


def near_pixel(value: float) -> object:
    return pytest.approx(value, abs=0.01)


def test_a_checkpoint_needs_no_run_to_be_measured(
    trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    """On a test set of another folder, with one annotation file, and pictures where nothing was."""
    assert run("results") == 0
    expected = json.loads((trained / "figures/metrics.json").read_text())["runs"][0]["metrics"]["coco"]
    shutil.move(trained / "checkpoint_best.pth", "mine.pth")
    shutil.rmtree(trained)
    shutil.move("data/custom", "test_set")
    Path("test_set/annotations/custom_train.json").unlink()
    command = ("results", "--checkpoint", "mine.pth", "--device", "cpu", "--coco_path", "test_set")
    capsys.readouterr()
    assert run(*command) == 0
    assert "epochs" not in capsys.readouterr().out
    measured = json.loads((trained / "figures/metrics.json").read_text())["runs"][0]["metrics"]["coco"]
    assert measured["AP50"] == pytest.approx(expected["AP50"], abs=0.05)
    assert (trained / "figures/report.html").exists()
    assert run(*command, "--log", "outputs", "other") == 2
    assert "other/log.txt: no such file" in capsys.readouterr().err


def test_any_photograph(trained: Path, run: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("L", (50, 30)).save(tmp_path / "gray.png")
    assert run("results", "--images", "gray.png", "discs/val", "--threshold", 0, "--device", "cpu") == 0
    assert "32 objects in 4 images" in capsys.readouterr().out
    where = Path("outputs/figures/images")
    assert Image.open(where / "gray.jpg").size == (50, 30)
    found = json.loads((where / "predictions.json").read_text())
    assert [entry["image_id"] for entry in found[::8]] == ["gray.png", *(f"discs/val/disc0{n}.png" for n in range(3))]
    with (where / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [entry["image_id"] for entry in found]
    assert [float(rows[0][key]) for key in ("left", "top", "width", "height")] == found[0]["bbox"]
    assert rows[0]["category"] == found[0]["category"] == "disc" and float(rows[0]["score"]) == found[0]["score"]
    assert run("results", "--images", "nothing.jpg") == 2
    assert "no such file or folder, and as a glob nothing fits it" in capsys.readouterr().err
    assert run("results", "--images", "data/custom/annotations") == 2
    assert "no images; accepted: what Pillow reads" in capsys.readouterr().err
    assert run("results", "--images", "gray.png", "--batch_size", 0) == 2


def test_masks_from_training_to_every_picture(
    coco_folder: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *TINY, "--nheads", 8, "--masks", "--backbone_weights", "none", "--epochs", 1) == 0
    figures, truth = Path("outputs/figures"), read_truth()
    right = [{k: a[k] for k in ("image_id", "category_id", "bbox", "segmentation")} for a in truth["annotations"]]
    Path("outputs/predictions.json").write_text(json.dumps([one | {"score": 0.8} for one in right]))
    capsys.readouterr()
    assert run("results", "--splash") == 0
    assert "AP 1.000 (1.000 to 1.000), boxes 1.000" in " ".join(capsys.readouterr().out.split())
    assert {path.stem for path in (figures / "splash").iterdir()} == {"disc00", "disc01", "disc02"}
    pixels = np.asarray(Image.open(figures / "splash/disc01.png"))
    is_colored = (pixels != pixels[..., :1]).any(axis=-1)
    mask = np.zeros_like(is_colored)
    for one in right:
        if one["image_id"] == truth["images"][1]["id"]:
            mask |= coco_mask.decode(to_rle(one["segmentation"], mask.shape)).astype(bool)
    assert (is_colored == mask).all()
    command = ("results", "--images", "discs/val", "--threshold", 0, "--device", "cpu")
    assert run(*command, "--splash") == 0
    found = json.loads((figures / "images/predictions.json").read_text())
    assert {"disc00", "disc01", "disc02"} <= {path.stem for path in (figures / "images").glob("*.jpg")}
    with (figures / "images/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for entry, row in zip(found, rows, strict=True):
        if "segmentation" not in entry:
            assert row["polygons"] == "[]"
        elif coco_mask.area(entry["segmentation"]) > 40:
            back = coco_mask.merge(coco_mask.frPyObjects(json.loads(row["polygons"]), *entry["segmentation"]["size"]))
            assert coco_mask.iou([back], [entry["segmentation"]], [0])[0, 0] >= 0.98


def test_what_keeps_masks_from_being_measured_is_said(
    trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, truth, matched = Path("data/custom/annotations/custom_val.json"), read_truth(), []
    match = coco_matching.match_all
    monkeypatch.setattr(coco_matching, "match_all", lambda *given: matched.append(given[2]) or match(*given))
    (trained / "predictions.json").write_text(json.dumps([one | {"score": 0.8} for one in truth["annotations"]]))
    assert run("results", "--splash") == 0
    assert "boxes are measured" not in capsys.readouterr().out
    assert matched == ["segm"]  # once, for metrics and pictures
    first, *others = truth["annotations"]
    path.write_text(json.dumps(truth | {"annotations": [first | {"segmentation": []}, *others]}))
    assert run("results") == 0
    said = "outputs: boxes are measured, and no masks: annotation 1, of disc00.png, has no outline"
    assert said in capsys.readouterr().out
    path.write_text(json.dumps(truth))
    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in truth["annotations"]]
    (trained / "predictions.json").write_text(json.dumps([box | {"score": 0.8} for box in boxes]))
    config = json.loads((trained / "config.json").read_text())
    assert run("results") == 0 and "boxes are measured" not in capsys.readouterr().out
    (trained / "config.json").write_text(json.dumps(config | {"config": config["config"] | {"masks": True}}))
    assert run("results") == 0
    assert "boxes are measured, and no masks: no detection has a mask" in capsys.readouterr().out


def test_splash_of_an_image_that_was_resized(
    trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    truth = read_truth()
    (trained / "predictions.json").write_text(json.dumps([one | {"score": 0.8} for one in truth["annotations"]]))
    Image.new("RGB", (50, 40)).save("data/custom/val2017/disc01.png")
    assert run("results", "--splash") == 2
    assert "disc01.png: the file has 50x40 pixels, the annotations say 104x80" in capsys.readouterr().err
    assert not (trained / "figures/splash").exists()


def test_splash_needs_masks(trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture) -> None:
    for flags in ((), ("--images", "discs/val", "--device", "cpu")):
        capsys.readouterr()
        assert run("results", "--splash", *flags) == 2
        assert "--splash needs a detector that was trained with --masks" in capsys.readouterr().err
    assert not (trained / "figures/splash").exists()


def test_a_damaged_image_does_not_stop_the_others(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    folder = Path("mixed")
    shutil.copytree("discs/val", folder)
    (folder / "._disc00.png").write_bytes(b"a resource fork of macOS")
    (folder / "truncated.png").write_bytes((folder / "disc00.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    Image.new("RGB", (40, 30)).save(folder / "a.tga")
    capsys.readouterr()
    assert run("results", "--images", folder, "--threshold", 0, "--device", "cpu") == 2
    captured = capsys.readouterr()
    assert "32 objects in 4 images" in captured.out
    assert "2 of 6 files" in captured.err and "truncated.png" in captured.err and "empty.jpg" in captured.err
    assert {path.stem for path in (trained / "figures/images").glob("*.jpg")} == {"disc00", "disc01", "disc02", "a"}


def test_a_video_is_a_row_of_images(
    trained: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with video_writer(Path("clip.mp4")) as write:
        for number in range(3):
            write(Image.open(f"discs/val/disc0{number}.png").convert("RGB"), number / 10)
    where, command = Path("outputs/figures/images"), ("results", "--threshold", 0, "--device", "cpu", "--batch_size", 2)
    assert run(*command, "--images", "clip.mp4", "discs/val/disc00.png") == 0
    assert "32 objects in 2 files" in capsys.readouterr().out
    found = json.loads((where / "predictions.json").read_text())
    assert [(one["frame"], one["seconds"]) for one in found[:24:8]] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert found[0]["image_id"] == "clip.mp4" and "frame" not in found[-1]
    detector = Detector(trained / "checkpoint_best.pth", device="cpu")
    for frame, drawn in zip(read_frames(Path("clip.mp4")), read_frames(where / "clip.mp4"), strict=True):
        boxes_xywh = [one["bbox"] for one in found if one.get("frame") == frame.number]
        alone = [to_result(0, detection)["bbox"] for detection in detector(frame.image, threshold=0)]
        np.testing.assert_allclose(boxes_xywh, alone, atol=0.05)
        assert drawn.seconds == frame.seconds and drawn.image.size == frame.image.size
    with (where / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows[::8]] == ["0", "1", "2", ""]
    Path("cut.mp4").write_bytes(Path("clip.mp4").read_bytes()[:900])
    assert run(*command, "--images", "cut.mp4", "discs/val/disc00.png") == 2
    said = capsys.readouterr()
    assert "8 objects in 1 file," in said.out and "1 of 2 files could not be read: cut.mp4: not a video" in said.err
    assert not (where / "cut.mp4").exists()
    assert run(*command, "--images", "clip.mp4", "--via", "new.json") == 2
    assert "clip.mp4 is a video" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(*command, "--images", "clip.mp4") == 2
    assert "pip install av" in capsys.readouterr().err


def test_photographs_are_found_by_globs_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.jpg", "a/2.PNG", "a/notes.txt", "a/b/1.png", "[odd].jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    names = lambda *patterns: [str(path) for path in find_images([*patterns])]  # noqa: E731
    assert names("a") == names("a/*") == ["a/1.jpg", "a/2.PNG"]
    assert names("a/**/*.png", "a/1.jpg", "a") == ["a/b/1.png", "a/1.jpg", "a/2.PNG"]
    assert names(f"{tmp_path}/a/?.jpg") == [f"{tmp_path}/a/1.jpg"]
    assert names("[odd].jpg", "a/notes.txt") == ["[odd].jpg", "a/notes.txt"]  # files that are named
    for pattern in ("b", "*.gif", "**.jpg", "a/*.txt"):
        with pytest.raises(UserError, match=r"nothing fits|no images"):
            find_images([pattern])
    assert [*picture_names([Path(n) for n in ("a.jpg", "a.png", "a_2.jpg", "b/a.jpg")]).values()] == [
        *("a", "a_2", "a_2_2", "a_3")
    ]


def test_the_detector_in_three_lines(trained: Path) -> None:
    detector = Detector(trained / "checkpoint_best.pth", device="cpu")
    found = detector("discs/val/disc00.png", threshold=0)
    assert len(found) == 8 and found == sorted(found, key=lambda d: -d.score)
    assert found[0].category == "disc" and found[0].category_id == 1 and len(found[0].box_xyxy) == 4
    assert detector(Image.open("discs/val/disc00.png"), threshold=0) == found
    array = np.asarray(Image.open("discs/val/disc00.png").convert("RGB"))
    assert detector(array, threshold=0) == found and detector([], threshold=0) == []
    assert detector([array, "discs/val/disc00.png"], threshold=0) == [found, found]
    with pytest.raises(UserError, match=r"\(2, 2, 5\)"):
        detector(np.zeros((2, 2, 5), dtype=np.uint8))
    assert detector("discs/val/disc00.png", threshold=1.01) == []


def test_deep_images_look_alike_in_training_and_to_every_detector(
    via_folder: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    """The scale of 12-bit images is the dataset's, known to the checkpoint; a single image would tell another."""
    for number, path in enumerate(sorted(via_folder.rglob("*.png"))):
        with Image.open(path) as image:
            gray = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(gray * (30 if number else 5)).save(path)
    arguments = ("prep", "--via", via_folder, "--weights", "none", "--categories", "disc")
    assert run(*arguments) == 0
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 1) == 0
    detector = Detector("outputs/checkpoint_best.pth", device="cpu", amp="off")
    raw, copy = via_folder / "train/disc00.png", Path("data/custom/train2017/disc00.png")
    with Image.open(raw) as image:
        assert image.getextrema()[1] < 1024  # which alone would make 1023 white
        as_array = np.array(image)
        assert detector(raw, 0) == detector(copy, 0) == detector(image, 0) == detector(as_array, 0)
    drawn = []
    for path in (raw, copy):
        assert run("results", "--images", path, "--threshold", 0, "--device", "cpu") == 0
        found = json.loads(Path("outputs/figures/images/predictions.json").read_text())
        drawn.append([entry["bbox"] for entry in found])
    assert drawn[0] == drawn[1]
    assert run(*arguments, "--white", 2000, "--coco_path", "test_set") == 0
    capsys.readouterr()
    checkpoint = ("--checkpoint", "outputs/checkpoint_best.pth", "--device", "cpu")
    for command in (("main", "--eval", "--num_workers", 0, "--device", "cpu"), ("results", *checkpoint)):
        assert run(*command, "--coco_path", "test_set") == 2
        error = capsys.readouterr().err
        assert "4,095" in error and "2,000" in error and "prep.py --white 4095" in error


def test_300_queries_from_a_file_of_100_for_120_objects_in_an_image(
    coco_folder: Path, run: RunScript, no_diagrams: None
) -> None:
    """Through training, checkpoint, --eval, results.py and the detector: no object is beyond reach, none left out."""
    config = {"hidden_dim": 32, "nheads": 4, "enc_layers": 1, "dec_layers": 2, "dim_feedforward": 32}
    torch.save({"model": Detr(DetrConfig(91, backbone="resnet18", **config)).state_dict()}, "public.pth")
    assert run("prep", "--coco", coco_folder, "--weights", "public.pth", "--coco_path", "data/many") == 0
    for split in ("train", "val"):
        path = Path(f"data/many/annotations/custom_{split}.json")
        coco = json.loads(path.read_text())
        boxes = [[8.0 * (n % 12), 7.0 * (n // 12), 6.0, 6.0] for n in range(120)]
        one = {"image_id": coco["images"][0]["id"], "category_id": 1, "area": 36.0, "iscrowd": 0, "segmentation": []}
        coco["annotations"] = [{**one, "id": n, "bbox": box} for n, box in enumerate(boxes, start=1)]
        path.write_text(json.dumps(coco))
    command = ("--coco_path", "data/many", "--num_workers", 0, "--device", "cpu")
    size = ("--scales", 64, "--max_size", 96, "--nheads", 4, "--num_queries", 300)
    assert run("main", *command, *size, "--weights", "public_no-class-head.pth", "--epochs", 1) == 0
    detector = Detector("outputs/checkpoint_best.pth", "cpu")
    assert detector.model.config.num_queries == 300
    logged = json.loads(Path("outputs/predictions.json").read_text())
    assert len(logged) == 3 * 300
    assert run("main", *command, "--eval") == 0
    assert json.loads(Path("outputs/predictions_checkpoint_best.json").read_text()) == logged
    for flags in ((), ("--checkpoint", "outputs/checkpoint_best.pth", "--device", "cpu")):
        assert run("results", *flags) == 0
        metrics = json.loads(Path("outputs/figures/metrics.json").read_text())["runs"][0]["metrics"]
        assert (metrics["detections"], metrics["objects"]) == (900, 120)
        assert sum(b["count"] for b in metrics["calibration"]["bins"]) == 900
        assert sum(metrics["confusion"][0]) == 120
    assert run("results", "--images", "data/many/val2017", "--threshold", 0) == 0
    assert len(json.loads(Path("outputs/figures/images/predictions.json").read_text())) == 900


def test_several_runs_are_laid_over_each_other(trained: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(trained, "second")
    perfect = [{**annotation, "score": 1.0} for annotation in read_truth()["annotations"]]
    Path("second/predictions.json").write_text(json.dumps(perfect))
    shutil.copytree(trained, "third/outputs")
    Path("third/outputs/predictions.json").unlink()
    assert run("results", "--log", "outputs", "second", "third/outputs") == 0
    output = capsys.readouterr().out
    assert "second: best AP" in output and "no metrics: third/outputs has no predictions.json" in output
    table = [line.split() for line in output.splitlines()]
    assert ["AP", "of", "outputs", "second"] in table
    assert next(row for row in table if row[:1] == ["disc"])[-1] == "1.000"
    saved = json.loads(Path("outputs/figures/metrics.json").read_text())["runs"]
    assert [entry["name"] for entry in saved] == ["outputs", "second", "third/outputs"]
    assert saved[1]["metrics"]["coco"]["AP"] == 1.0 and saved[2]["metrics"] is None


def test_the_best_threshold_is_used_everywhere(
    trained: Path, run: RunScript, drawn: list, capsys: pytest.CaptureFixture
) -> None:
    objects = read_truth()["annotations"]
    found = [{**a, "score": 0.4} for a in objects] + [{**a, "bbox": [0, 0, 3, 3], "score": 0.2} for a in objects]
    (trained / "predictions.json").write_text(json.dumps(found))
    assert run("results", "--images", "discs/val", "--device", "cpu") == 0
    assert "score from 0.5 (outputs/figures/metrics.json knows no better one);" in capsys.readouterr().out
    assert run("results") == 0
    assert "1.000 at score 0.300" in capsys.readouterr().out
    assert [len(boxes) for boxes in shown(drawn[0])] == [1, 2, 0]
    assert run("results", "--images", "discs/val", "--device", "cpu") == 0
    assert "score from 0.3 (best F1 in outputs/figures/metrics.json);" in capsys.readouterr().out
    later = Path("outputs/figures/metrics.json").stat().st_mtime + 60
    os.utime(trained / "checkpoint_best.pth", (later, later))
    assert run("results", "--images", "discs/val", "--device", "cpu", "--threshold", 0.2) == 0
    assert "score from 0.2 (--threshold);" in capsys.readouterr().out
    assert run("results", "--images", "discs/val", "--device", "cpu") == 0
    assert "metrics.json, which is older than outputs/checkpoint_best.pth);" in capsys.readouterr().out
    assert run("results", "--threshold", "0.1") == 0
    assert ["errors", "at", "score", "0.100"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [len(boxes) for boxes in shown(drawn[1])] == [2, 4, 0]
    assert run("results", "--threshold", "best") == 2
    assert run("results", "--threshold", "7") == 2


@needs_shared
def test_the_references_own_log(run: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "reference").mkdir()
    shutil.copy(SHARED / "reference_run/log.txt", tmp_path / "reference")
    assert run("results", "--log", "reference") == 0
    output = capsys.readouterr().out
    assert "reference: best AP 0.583" in output and "last AP 0.473, 100 epochs" in output
    assert "does not say where its images are (--coco_path tells) and has no predictions.json (--checkpoint" in output
    assert {path.name for path in Path("reference/figures").iterdir()} == CURVES | PAGE


def test_the_references_own_checkpoint(
    coco_folder: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its labels are category ids, its classes nameless, its arguments a Namespace."""
    monkeypatch.setattr("detr.models.weights.REFERENCE_RESOLUTION", {"scale": 64, "max_size": 96})
    config = DetrConfig(
        num_classes=2, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=1, dim_feedforward=32,
        num_queries=5,
    )  # fmt: skip
    namespace = argparse.Namespace(nheads=4, dilation=False, backbone="resnet18")
    torch.save({"model": Detr(config).state_dict(), "args": namespace, "epoch": 0}, "reference.pth")
    Path("reference").mkdir()
    Path("reference/log.txt").write_text('{"epoch": 0, "train_loss": 1.0}\n')
    command = ("results", "--log", "reference", "--checkpoint", "reference.pth", "--device", "cpu")
    assert run(*command) == 0
    assert "no metrics: reference does not say where its images are (--coco_path tells)\n" in capsys.readouterr().out
    assert run(*command, "--coco_path", coco_folder, "--threshold", 0) == 0
    files = CURVES | METRICS | IMAGES | PAGE | {"predictions.json"}
    assert {path.name for path in Path("reference/figures").iterdir()} == files
    found = json.loads(Path("reference/figures/predictions.json").read_text())
    assert {entry["category_id"] for entry in found} <= {1} and {entry["image_id"] for entry in found} <= {1, 2, 3}
    assert run(*command, "--images", "discs/val") == 2
    assert "does not say what its classes are called, as main.py's" in capsys.readouterr().err
    sizes = []
    monkeypatch.setattr(
        "detr.detector.evaluation_params",
        lambda size_hw, rng, **size: sizes.append(size) or evaluation_params(size_hw, rng, **size),
    )
    any_image = (*command, "--images", "discs/val", "--coco_path", coco_folder)
    for flags, size in (((), (64, 96)), (("--scale", 48, "--max_size", 80), (48, 80))):
        sizes.clear()
        assert run(*any_image, *flags) == 0 and {(s["scale"], s["max_size"]) for s in sizes} == {size}
    assert run(*any_image, "--scale", 128) == 2 and "96" in capsys.readouterr().err
    assert run("results", "--log", "reference", "--scale", 48) == 2


@pytest.mark.parametrize(
    ("ids", "classes", "raw"),
    [([1], 2, True), ([0], 1, True), ([1], 1, False), ([3, 7], 2, False), ([1, 90], 91, True)],
)
def test_what_the_labels_of_a_nameless_checkpoint_mean(ids: list[int], classes: int, raw: bool, tmp_path: Path) -> None:
    config = {"backbone": "resnet18", "hidden_dim": 32, "enc_layers": 1, "dec_layers": 1, "dim_feedforward": 32}
    path = tmp_path / "reference.pth"
    torch.save({"model": Detr(DetrConfig(num_classes=classes, **config)).state_dict()}, path)
    categories = [{"id": i, "name": str(i)} for i in ids]
    assert load_detector(path, categories).raw_ids is raw
    with pytest.raises(UserError, match=rf"has {classes} classes, the annotations have 3, with ids up to 99"):
        load_detector(path, [{"id": i, "name": str(i)} for i in (97, 98, 99)])


def test_logs_that_are_cut_short_or_odd(run: RunScript, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    entries = [{"epoch": 0, "train_loss": 2.0, "test_coco_eval_bbox": []}, {"epoch": 1, "train_loss": float("nan")}]
    (folder / "log.txt").write_text("".join(json.dumps(e) + "\n" for e in entries) + '{"epoch": 2, "trai')
    assert run("results", "--log", "odd") == 0
    odd = read_run(folder)
    assert len(odd.log) == 2 and odd.series("train_loss") == ([1], [2.0])
    assert odd.series("test_coco_eval_bbox") == odd.series("absent") == ([], [])
    (folder / "log.txt").write_text('{"epoch": 5, "test_coco_eval_bbox": [0.5], "note": "hi", "parts": {"a": 1}}\n')
    assert run("results", "--log", "odd") == 0
    assert "odd: best AP 0.500, last AP 0.500, 1 epochs" in capsys.readouterr().out
    (folder / "log.txt").write_text("")
    assert run("results", "--log", "odd") == 0
    (folder / "log.txt").write_text("?\n{}\n")
    with pytest.raises(UserError, match=r"log.txt: line 1 is not a JSON object"):
        read_run(folder)


def test_what_is_missing_is_named(
    trained: Path, run: RunScript, no_diagrams: None, capsys: pytest.CaptureFixture
) -> None:
    assert run("results", "--log", "gone") == 2
    assert "gone/log.txt: no such file" in capsys.readouterr().err
    (trained / "checkpoint_best.pth").write_bytes(b"damaged")
    assert run("results") == 0
    assert "no attention maps: outputs/checkpoint_best.pth: " in capsys.readouterr().out
    (trained / "checkpoint_best.pth").unlink()
    assert run("results") == 0
    assert "no attention maps: there is no outputs/checkpoint_best.pth" in capsys.readouterr().out
    (trained / "predictions.json").unlink()
    assert run("results") == 0
    assert "outputs has no predictions.json" in capsys.readouterr().out
    shutil.rmtree("data")
    assert run("results") == 2
    assert "--coco_path says where the COCO folder is now" in capsys.readouterr().err


def test_every_logged_number_has_a_panel() -> None:
    log = [
        {"epoch": 0, "train_loss": 1, "test_loss": 2, "test_coco_eval_bbox": [0.1] * 12, "seconds": 3.0, "note": "x"}
    ]
    panels = panels_of_everything([Run("a", log, {}), Run("b", [{"epoch": 0, "only_here": 1, "two": [1, 2]}], {})])
    assert [panel.title for panel in panels[:3]] == ["loss", "AP", "AP50"] and len(panels) == 1 + 12 + 4
    assert [line.key for line in panels[0].lines] == ["train_loss", "test_loss"]
    assert [panel.title for panel in panels[-4:]] == ["seconds", "only_here", "two [0]", "two [1]"]


@needs_shared
def test_every_quantity_of_the_reference_is_drawn() -> None:
    run = read_run(SHARED / "reference_run")
    drawn = {line.key for panel in panels_of_everything([run]) for line in panel.lines}
    assert drawn == set(run.log[0]) - {"epoch"} and len(drawn) == 93


@pytest.mark.filterwarnings("error")
def test_runs_of_different_length_with_gaps_and_odd_names(tmp_path: Path) -> None:
    long = [{"epoch": e, "train_loss": 1 / (e + 1), "test_coco_eval_bbox": [e / 100, -1.0]} for e in range(50)]
    gaps = [{"epoch": e, "train_loss": float("nan") if e % 2 else 0.5} for e in range(0, 30, 3)]
    runs = [Run("_a$b$", long, {}), Run("b", gaps, {}), Run("empty", [], {})]
    for name in ("losses", "average_precision", "every_quantity"):
        draw_curves(runs, name, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 150


def test_smoothing_keeps_what_is_level_and_does_not_lag() -> None:
    for length in (8, 9, 30):
        assert smooth(np.full(length, 2.5), 5) == pytest.approx(np.full(length, 2.5))
    line = np.arange(100.0)
    assert smooth(line, 0.2)[10:-10] == pytest.approx(line[10:-10])
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise, 10).std() < noise.std() / 3


def test_diagrams_show_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [(1, 0, 0, 50, 50), (1, 200, 0, 50, 50), (2, 0, 200, 50, 50)]
    truth = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 400, "height": 400}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": c, "bbox": b} for n, (c, *b) in enumerate(boxes, 1)],
    }
    found = [{**truth["annotations"][n], "bbox": [*boxes[n][1:3], 50, 40], "score": 0.9} for n in (0, 2)]
    metrics, figures = measure(truth, found), []
    monkeypatch.setattr("detr.report.metric_figures.save_figure", lambda figure, path: figures.append(figure))
    draw_metrics([("run", metrics)], Path())
    draw_confusion([("run", metrics)], Path())
    precision, _, f1, classes, errors, calibration = figures[0].axes
    by_name = {c["name"]: c for c in metrics["classes"]}
    order = [label.get_text() for label in classes.get_yticklabels()]
    assert [bar.get_width() for bar in classes.patches] == [by_name[name]["AP"] for name in order]
    assert list(classes.lines[0].get_xdata()) == [by_name[name]["AP50"] for name in order]
    assert by_name["a"]["AP"] != by_name["a"]["AP50"]
    names = [label.get_text().replace("\n", " ") for label in errors.get_yticklabels()]
    assert {name: bar.get_width() for name, bar in zip(names, errors.patches, strict=True)}["missed"] == 1
    assert list(f1.lines[-1].get_ydata()) == metrics["overall"]["f1"]
    assert precision.lines[0].get_label() == f"a  {by_name['a']['AP50']:.3f}"
    assert calibration.lines[1].get_label() == f"expected error {metrics['calibration']['expected_error']:.3f}"
    assert [text.get_text() for text in figures[1].axes[0].texts] == ["1\n50%", "1\n50%", "1\n100%"]


def test_what_is_written_beside_one_class_is_on_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}
    images = [{"id": 1, "file_name": "1.jpg", "width": 400, "height": 400}]
    truth = {"images": images, "categories": [{"id": 1, "name": "balloon"}], "annotations": [box]}
    figures: list = []
    monkeypatch.setattr("detr.report.metric_figures.save_figure", lambda figure, path: figures.append(figure))
    draw_confusion([("run", measure(truth, [box | {"score": 0.9}]))], Path())
    (figure,) = figures
    figure.draw_without_rendering()
    (axis,) = figure.axes
    for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width and extent.y0 >= 0 and extent.y1 <= figure.bbox.height


def test_long_names_that_share_beginning_and_end_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"Streptococcus_pneumoniae_{letter}_on_blood_agar" for letter in "ABC"]
    gt = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 99, "height": 99}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [{"id": n, "image_id": 1, "category_id": n, "bbox": [20 * n, 1, 9, 9]} for n in (1, 2, 3)],
    }
    metrics, figures = measure(gt, [box | {"score": 0.9} for box in gt["annotations"]]), []
    monkeypatch.setattr("detr.report.metric_figures.save_figure", lambda figure, path: figures.append(figure))
    draw_metrics([("run", metrics)], Path())
    draw_confusion([("run", metrics)], Path())
    precision, _, f1, classes, *_ = figures[0].axes
    confusion = figures[1].axes[0]
    for texts in (
        [line.get_label() for line in precision.lines[:3]],
        [line.get_label() for line in f1.lines if "Strepto" in line.get_label()],
        [label.get_text() for label in classes.get_yticklabels()],
        [label.get_text() for label in confusion.get_xticklabels()],
    ):
        assert len({text for text in texts if "Strepto" in text}) == 3


@pytest.mark.filterwarnings("error")
def test_metrics_of_anything_are_drawn_and_written(tmp_path: Path) -> None:
    classes = [{"id": n, "name": name} for n, name in enumerate(("_a", "$b", "x" * 50, *"cdefghijklmnopqrstuvwxyz"), 1)]
    image = {"id": 1, "file_name": "1.jpg", "width": 99, "height": 99}
    boxes = [{"id": c["id"], "image_id": 1, "category_id": c["id"], "bbox": [1, 1, 50, 50]} for c in classes]
    found = [{**box, "score": 0.9 - 0.02 * number} for number, box in enumerate(boxes[:20])]
    one = {"images": [image], "categories": classes[:1], "annotations": boxes[:1]}
    many = {**one, "categories": classes, "annotations": boxes[2:]}
    measured = {
        "nothing_found": measure(one, []),
        "nothing_there": measure({**one, "annotations": []}, found[:1]),
        "$many": measure(many, found),
    }
    for names in (["nothing_found"], ["nothing_there"], ["$many"], list(measured)):
        runs = [(name, measured[name]) for name in names]
        draw_metrics(runs, tmp_path / "metrics.png")
        draw_confusion(runs, tmp_path / "confusion.png")
        text = headline_table(runs) + class_table(runs)
        assert "nan" not in text.lower() and all(name in text for name in names)
