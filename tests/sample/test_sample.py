"""The drawn sample: the same on every run, outlined as by a person, imported by the ordinary path."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import prep
from detr.importers.via.clip import polygon_area
from detr.sample import clicks, draw, things
from detr.sample.canvas import Canvas, Piece, Pose, scattered
from detr.sample.clicks import box_xyxy, is_seen
from detr.sample.draw import BalloonScene, draw_balloon_scene, draw_set
from detr.sample.geometry import ellipse, rectangle
from detr.sample.shape_scene import draw_shape_scene
from detr.sample.surfaces import Light, dome, lathe
from tests.conftest import RunScript

SQUARE = [Piece(rectangle(-1, -1, 1, 1), (1, 0, 0))]


def filled(outline: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool of the pixels inside a polygon."""
    mask = Image.new("1", size_hw[::-1])
    ImageDraw.Draw(mask).polygon(np.asarray(outline).ravel().tolist(), fill=1)
    return np.array(mask)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


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
    overlaps, errors = [], []
    for scene in scenes:
        for outline, mask in zip(scene.outlines, scene.masks, strict=True):
            points = np.array(outline)
            clicked = (*points.min(0), *points.max(0))
            errors.append(np.abs(np.subtract(clicked, box_xyxy(mask, 3))).max())
            overlaps.append(iou(filled(points * 3 + 1, mask.shape), mask))
    assert np.median(errors) < 1.5 and np.mean(np.array(errors) <= 3) > 0.9, "pixels, but for crumbs left out"
    assert np.median(overlaps) > 0.93 and np.mean(np.array(overlaps) > 0.8) > 0.95


def test_no_balloon_is_left_without_an_outline(monkeypatch: pytest.MonkeyPatch) -> None:
    painted, compose = [], draw.compose

    def record(rng: np.random.Generator, count: int) -> Canvas:
        painted.append((compose(rng, count), count))
        return painted[-1][0]

    monkeypatch.setattr(draw, "compose", record)
    for index in range(12):
        scene = draw_balloon_scene(8, index)
        canvas, count = painted[-1]
        assert len(scene.outlines) == len(scene.masks) == len(canvas.areas) <= count
        nobody = canvas.visible(0)
        assert (np.logical_or.reduce([nobody, *scene.masks])).all(), "whatever is somebody's is outlined"
    assert np.mean([len(canvas.areas) == count for canvas, count in painted]) > 0.7


@pytest.mark.parametrize(
    ("rows", "columns", "seen"),
    [(30, 30, True), (10, 30, True), (8, 30, False), (30, 5, False), (30, 10, True), (0, 0, False)],
)
def test_what_a_person_would_outline(rows: int, columns: int, seen: bool) -> None:
    mask = np.zeros((80, 80), bool)
    mask[: 2 * rows, : 2 * columns] = True
    assert is_seen(mask, scale=2, whole_area=900, least_share=0.3) is seen


def test_a_hidden_balloon_has_its_scene_composed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def compose(rng: np.random.Generator, count: int) -> Canvas:
        counts.append(count)
        canvas, pose = Canvas((60, 60), 3), Pose(30, 30, 20)
        canvas.add([Piece(ellipse(1, 1), (1, 0, 0))], pose)
        if len(counts) < 3:
            canvas.paint([Piece(rectangle(-2, -2, 2, 0.6), (0, 0, 1))], pose)
        return canvas

    monkeypatch.setattr(draw, "compose", compose)
    assert len(draw_balloon_scene(0, 0).outlines) == 1 and len(counts) == 3
    assert len(set(counts)) == 1, "crowded scenes are not rarer because they are composed anew more often"


# --------------------------------------------------------------------------------------------------- canvas and clicks


def test_the_canvas_knows_what_is_seen() -> None:
    canvas = Canvas((40, 50), 2)
    canvas.add(SQUARE, Pose(10, 20, 8))
    assert box_xyxy(canvas.visible(1), 2) == pytest.approx((2, 12, 18, 28), abs=0.5)
    canvas.line(np.array(((0, 20), (50, 20))), (0, 0, 0), 1)
    whole = canvas.visible(1).sum()
    canvas.add(SQUARE, Pose(18, 20, 8))
    assert box_xyxy(canvas.visible(1), 2) == pytest.approx((2, 12, 10, 28), abs=0.5), "the line hides nothing"
    assert canvas.visible(1).sum() == pytest.approx(whole / 2, rel=0.05)
    canvas.add(SQUARE, Pose(-100, 5, 8))
    assert canvas.areas == pytest.approx([256] * 3, rel=0.15), "what is hidden or outside the picture counts too"
    assert not canvas.visible(3).any()


def test_a_hole_is_seen_through() -> None:
    canvas = Canvas((40, 40), 2)
    canvas.add([SQUARE[0]._replace(hole=rectangle(-0.5, -0.5, 0.5, 0.5))], Pose(20, 20, 16))
    assert canvas.areas == pytest.approx([32**2 - 16**2], rel=0.15)
    assert canvas.visible(1)[40, 12] and not canvas.visible(1)[40, 40]


def test_turning_a_ball_does_not_turn_its_light() -> None:
    pictures = []
    for angle in (0.0, 2.0):
        canvas = Canvas((60, 60), 2)
        canvas.light = Light(np.array((0.6, -0.48, 0.64)), np.full(3, 0.7), np.full(3, 0.3))
        canvas.paint([Piece(ellipse(1, 1, count=200), (0.8, 0.5, 0.2), dome, gloss=1.0)], Pose(30, 30, 25, angle))
        pictures.append(np.asarray(canvas.image, np.int16))
    assert np.abs(pictures[0] - pictures[1])[10:110, 10:110].mean() < 1
    assert pictures[0][40, 80].sum() > pictures[0][80, 40].sum() + 100, "bright where the light comes from"


def test_surfaces_against_their_formulas() -> None:
    y, x = np.mgrid[-0.6:0.6:9j, -0.6:0.6:9j].astype(np.float32)
    assert np.allclose(dome(ellipse(1, 1, count=400), x, y), (x, y), atol=1e-3), "a ball"
    assert np.allclose(dome(ellipse(1, 1, 5, 7, count=400), x + 5, y + 7), (x, y), atol=1e-3), "anywhere"
    across, down = lathe(rectangle(-0.8, -1, 0.8, 1), x, y)
    assert np.allclose(across, x / 0.8, atol=1e-3) and not down.any(), "a cylinder"
    ring = np.hypot(*dome(ellipse(1, 1, count=400), np.array([[0.5, 0.75, 1.0]]), np.zeros((1, 3)), inner=0.5))
    assert ring[0] == pytest.approx([0.97, 0, 0.97], abs=0.02), "a ring faces the viewer in the middle of its width"


def test_scattered_poses_hardly_overlap() -> None:
    rng = np.random.default_rng(0)
    poses = scattered(rng, 9, lambda: Pose(*rng.uniform(0, 100, 2), 10.0))
    gaps = [np.hypot(a.x - b.x, a.y - b.y) for a in poses for b in poses if a is not b]
    assert len(poses) == 9 and min(gaps) > 0.6 * 20
    assert len(scattered(rng, 50, lambda: Pose(*rng.uniform(0, 100, 2), 40.0))) < 10, "there is no room for more"
    assert scattered(rng, 0, lambda: Pose(0, 0, 1)) == []


@pytest.mark.parametrize(
    "outline",
    [
        ellipse(30, 45, 60, 60, count=200),
        rectangle(20, 30, 100, 70),
        rectangle(0, 0, 40, 119),  # cut by the border
        np.array(((20, 20), (100, 20), (100, 50), (60, 50), (60, 100), (20, 100))),
    ],
    ids=["egg", "box", "border", "corner"],
)
@pytest.mark.parametrize("scale", [1, 3])
def test_clicks_follow_a_shape(outline: np.ndarray, scale: int) -> None:
    mask = filled(outline * scale, (120 * scale, 120 * scale))
    clicked = clicks.click(mask, scale, np.random.default_rng(0))
    assert clicks.MIN_POINTS <= len(clicked) <= clicks.MAX_POINTS
    assert iou(filled(np.array(clicked), (120, 120)), mask[::scale, ::scale]) > 0.93


def test_a_thing_behind_a_post_gets_one_outline_across_it_and_crumbs_are_left_out() -> None:
    mask = np.zeros((120, 120), bool)
    mask[30:90, 20:100] = True
    mask[:, 50:60] = False
    mask[5, 5] = True
    outline = np.array(clicks.click(mask, 1, np.random.default_rng(0)))
    assert np.abs(np.concatenate([outline.min(0), outline.max(0)]) - (20, 30, 100, 90)).max() <= 2
    assert iou(filled(outline, mask.shape), filled(rectangle(20, 30, 99, 89), mask.shape)) > 0.93


def test_a_hole_is_outlined_over() -> None:
    mask = filled(ellipse(40, 40, 60, 60), (120, 120))
    with_hole = mask & ~filled(ellipse(20, 20, 60, 60), (120, 120))
    outlines = [clicks.click(seen, 1, np.random.default_rng(0)) for seen in (mask, with_hole)]
    assert outlines[0] == outlines[1]


# -------------------------------------------------------------------------------------------------------- shape scenes


def test_shape_scenes_are_the_same_on_every_call_and_labelled() -> None:
    labels = []
    for index in range(24):
        scene = draw_shape_scene(1, index)
        width, height = scene.image.size
        assert min(width, height) >= 256 and max(width, height) <= 352
        assert scene.boxes_xyxy.shape == (len(scene.labels), 4) and scene.boxes_xyxy.dtype == np.float32
        sides = scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2]
        assert (scene.boxes_xyxy >= 0).all() and (scene.boxes_xyxy[:, 2:] <= (width, height)).all()
        assert (sides >= 6).all()
        labels += scene.labels.tolist()
    assert set(labels) <= set(range(len(things.SHAPE_CLASSES))) and len(set(labels)) > 6
    assert "balloon" not in things.SHAPE_CLASSES and len(things.SHAPE_CLASSES) == len(things.SHAPES) == 8
    again = draw_shape_scene(1, 23)
    assert again.image.tobytes() == scene.image.tobytes() and (again.boxes_xyxy == scene.boxes_xyxy).all()
    assert draw_shape_scene(2, 23).image.tobytes() != scene.image.tobytes()


@pytest.mark.parametrize("label", range(len(things.SHAPES)), ids=things.SHAPE_CLASSES)
def test_every_class_fits_its_frame(label: int) -> None:
    for seed in range(5):
        canvas = Canvas((100, 100), 2)
        canvas.add(things.SHAPES[label](np.random.default_rng(seed)), Pose(50, 50, 40))
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
    assert "detr/sample/detr-small.pth --num_classes 1" in output and "classes: balloon" in output
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
