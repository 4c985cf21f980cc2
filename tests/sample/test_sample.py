"""The drawn sample: the same on every run, outlined as by a person, imported by the ordinary path."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import prep
from detr.importers.via.clip import polygon_area
from detr.sample import clicks, things
from detr.sample.balloons import Balloon
from detr.sample.canvas import Canvas, Piece, Pose, silhouette_area
from detr.sample.draw import BalloonScene, draw_balloon_scene, draw_set, is_seen
from detr.sample.geometry import ellipse, rectangle
from detr.sample.shape_scene import box_xyxy, draw_shape_scene
from detr.sample.surfaces import Light
from tests.conftest import RunScript

SHEET = Light(np.array((0, 0, 1.0)), np.zeros(3), np.ones(3))


@pytest.fixture(scope="module")
def scenes() -> list[BalloonScene]:
    return [draw_balloon_scene(7, index) for index in range(16)]


# ------------------------------------------------------------------------------------------------------ balloon scenes


def test_a_set_is_the_same_on_every_run_and_another_seed_is_another_set() -> None:
    first = list(draw_set(3, 5, 2))
    assert first == list(draw_set(3, 5, 2))
    assert first[1:] == list(draw_set(3, 6, 1)), "a scene depends on its own number alone"
    other = list(draw_set(4, 5, 2))
    assert all(a[1] != b[1] for a, b in zip(first, other, strict=True))


def test_sizes_and_counts_vary_within_their_limits(scenes: list[BalloonScene]) -> None:
    sides = [side for scene in scenes for side in scene.image.size]
    assert min(sides) >= 224 and max(sides) <= 288 and len(set(sides)) > 8
    assert {scene.image.width > scene.image.height for scene in scenes} == {True, False}
    counts = {len(scene.outlines) for scene in scenes}
    assert max(counts) <= 7 and len(counts) > 3


def test_outlines_are_whole_points_inside_the_image_and_have_an_area(scenes: list[BalloonScene]) -> None:
    for scene in scenes:
        for outline in scene.outlines:
            assert clicks.MIN_POINTS <= len(outline) <= clicks.MAX_POINTS
            assert all(isinstance(value, int) for point in outline for value in point)
            assert all(0 <= x < scene.image.width and 0 <= y < scene.image.height for x, y in outline)
            assert polygon_area(outline) > 20


def test_outlines_agree_with_what_is_seen(scenes: list[BalloonScene]) -> None:
    overlaps = []
    for scene in scenes:
        for outline, mask in zip(scene.outlines, scene.masks, strict=True):
            points = np.array(outline)
            clicked = (*points.min(0), *points.max(0))
            assert np.abs(np.subtract(clicked, box_xyxy(mask, 3))).max() <= 3, "pixels"
            filled = Image.new("1", mask.shape[::-1])
            ImageDraw.Draw(filled).polygon((points * 3 + 1).ravel().tolist(), fill=1)
            overlaps.append((np.array(filled) & mask).sum() / (np.array(filled) | mask).sum())
    assert np.median(overlaps) > 0.93 and np.mean(np.array(overlaps) > 0.8) > 0.95


@pytest.mark.parametrize(
    ("rows", "columns", "seen"),
    [(30, 30, True), (10, 30, True), (8, 30, False), (30, 5, False), (30, 10, True), (0, 0, False)],
)
def test_what_a_person_would_outline(rows: int, columns: int, seen: bool) -> None:
    mask = np.zeros((80, 80), bool)
    mask[: 2 * rows, : 2 * columns] = True
    assert is_seen(mask, scale=2, whole_area=900, least_share=0.3) is seen


def test_a_hidden_balloon_has_its_scene_composed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def compose(rng: np.random.Generator) -> tuple[Canvas, list[Balloon]]:
        tried.append(rng)
        canvas, pose = Canvas((60, 60), 3), Pose(30, 30, 20)
        disc = [Piece(ellipse(1, 1), (1, 0, 0))]
        canvas.paint(disc, pose, SHEET, owner=1)
        if len(tried) < 3:
            canvas.paint([Piece(rectangle(-2, -2, 2, 0.6), (0, 0, 1))], pose, SHEET)
        return canvas, [Balloon(disc, pose, None, (1, 1, 1))]

    monkeypatch.setattr("detr.sample.draw.compose", compose)
    assert len(draw_balloon_scene(0, 0).outlines) == 1 and len(tried) == 3


# --------------------------------------------------------------------------------------------------- canvas and clicks


def test_the_canvas_knows_what_is_seen() -> None:
    canvas, square = Canvas((40, 50), 2), [Piece(rectangle(-1, -1, 1, 1), (1, 0, 0))]
    canvas.paint(square, Pose(10, 20, 8), SHEET, owner=1)
    assert box_xyxy(canvas.visible(1), 2) == pytest.approx((2, 12, 18, 28), abs=0.5)
    canvas.line(np.array(((0, 20), (50, 20))), (0, 0, 0), 1)
    canvas.paint(square, Pose(10, 20, 2), SHEET, owner=None)
    whole = canvas.visible(1).sum()
    canvas.paint(square, Pose(18, 20, 8), SHEET, owner=2)
    assert box_xyxy(canvas.visible(1), 2) == pytest.approx((2, 12, 10, 28), abs=0.5), "the line hides nothing"
    assert canvas.visible(1).sum() == pytest.approx(whole / 2, rel=0.05)
    assert silhouette_area(square, Pose(-100, 5, 8)) == pytest.approx(256, rel=0.15), "outside the picture too"


def test_a_thing_behind_a_post_gets_one_outline_across_it() -> None:
    mask = np.zeros((120, 120), bool)
    mask[30:90, 20:100] = True
    mask[:, 50:60] = False
    mask[5, 5] = True
    cleaned = clicks.without_crumbs(mask)
    assert not cleaned[5, 5] and cleaned.sum() == mask.sum() - 1
    outline = np.array(clicks.click(cleaned, 1, np.random.default_rng(0)))
    assert np.abs(np.concatenate([outline.min(0), outline.max(0)]) - (20, 30, 100, 90)).max() <= 2


def test_a_border_follows_the_corners_of_pixels() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:4] = True
    mask[2, 2] = False
    border = clicks.outline_of(mask)
    assert border.min(0).tolist() == [2, 1] and border.max(0).tolist() == [4, 4]
    assert np.abs(np.diff(border, axis=0, append=border[:1])).sum(1).tolist() == [1] * len(border)


# -------------------------------------------------------------------------------------------------------- shape scenes


def test_shape_scenes_are_the_same_on_every_call_and_labelled() -> None:
    labels = []
    for index in range(24):
        scene = draw_shape_scene(1, index)
        width, height = scene.image.size
        assert min(width, height) >= 192 and max(width, height) <= 288
        assert scene.boxes_xyxy.shape == (len(scene.labels), 4) and scene.boxes_xyxy.dtype == np.float32
        sides = scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2]
        assert (scene.boxes_xyxy >= 0).all() and (scene.boxes_xyxy[:, 2:] <= (width, height)).all()
        assert (sides >= 6).all()
        labels += scene.labels.tolist()
    assert set(labels) <= set(range(len(things.SHAPE_CLASSES))) and len(set(labels)) > 8
    assert "balloon" not in things.SHAPE_CLASSES and len(things.SHAPE_CLASSES) == 12
    again = draw_shape_scene(1, 23)
    assert again.image.tobytes() == scene.image.tobytes() and (again.boxes_xyxy == scene.boxes_xyxy).all()
    assert draw_shape_scene(2, 23).image.tobytes() != scene.image.tobytes()
    assert draw_shape_scene(1, 0, sides=(192, 192)).image.size == (192, 192)


@pytest.mark.parametrize("name", things.SHAPE_CLASSES)
def test_every_class_fits_its_frame(name: str) -> None:
    draw = dict(things.SHAPES)[name]
    for seed in range(5):
        canvas = Canvas((100, 100), 2)
        canvas.paint(draw(np.random.default_rng(seed)), Pose(50, 50, 40), SHEET, owner=1)
        left, top, right, bottom = box_xyxy(canvas.visible(1), 2)
        assert min(left, top) > 1 and max(right, bottom) < 99
        assert max(right - left, bottom - top) > 50, "about two units long"


# ------------------------------------------------------------------------------------------------------------- prep.py


def test_prep_draws_and_imports_the_sample(
    run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert prep.SAMPLE_COUNTS == {"train": 80, "val": 40}
    monkeypatch.setattr(prep, "SAMPLE_COUNTS", {"train": 4, "val": 3})
    assert run("prep", "--sample") == 0
    output = capsys.readouterr().out
    assert "--resume detr-tiny_no-class-head.pth --num_classes 1" in output and "classes: balloon" in output
    for split, count in (("train", 4), ("val", 3)):
        via = json.loads(Path(f"data/sample_via/{split}/via_region_data.json").read_text())
        coco = json.loads(Path(f"data/custom/annotations/custom_{split}.json").read_text())
        regions = sum(len(entry["regions"]) for entry in via.values())
        assert len(via) == len(coco["images"]) == count and len(coco["annotations"]) == regions
        assert re.search(rf"{split}: {count} images, {regions} objects", output)
        for key, entry in via.items():
            size = Path(f"data/sample_via/{split}", entry["filename"]).stat().st_size
            assert entry["size"] == size and key == f"{entry['filename']}{size}"
    assert len(list(Path("data/custom").glob("*2017/*.jpg"))) == 7
    before = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.*")}
    assert run("prep", "--sample") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*.*")} == before


def test_sample_and_via_contradict_each_other(via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("prep", "--sample", "--via", via_folder) == 2
    error = capsys.readouterr().err
    assert "give one of them" in error and error.count("\n") == 1 and not Path("data").exists()
