"""Pictures of validation images, from odd ones too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detr.report import image_figures
from detr.report.gallery import AttentionMaps, EvaluatedImages, evaluate_images
from detr.report.image_figures import draw_attention, draw_gallery, draw_queries

OBJECTS = [(1, 10, 10, 30, 30), (2, 10, 10, 30, 30), (2, 60, 20, 20, 40)]
FOUND = [(1, 10, 10, 30, 28, 0.9), (1, 70, 40, 20, 20, 0.8), (3, 0, 0, 10, 10, 0.3)]


def judged_in(folder: Path, results: list[tuple]) -> EvaluatedImages:
    names = ["_a$b$.png", "b.png", "c.png"]
    for name in names:
        Image.new("RGB", (96, 72), "teal").save(folder / name)
    truth = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names, 1)],
        "categories": [{"id": 1, "name": "_$x$"}],
        "annotations": [{"id": n, "image_id": i, "category_id": 1, "bbox": b} for n, (i, *b) in enumerate(OBJECTS, 1)],
    }
    return evaluate_images(
        truth, [{"image_id": i, "category_id": 1, "bbox": b, "score": s} for i, *b, s in results], folder
    )


def look_with(encoder: np.ndarray | None) -> AttentionMaps:
    boxes_xyxy = np.array([[10, 10, 40, 38], [0, 0, 5, 5]], dtype=float)
    return AttentionMaps(np.array([0.9, 0.0]), boxes_xyxy, np.ones((2, 4)), np.full((2, 2, 3), 1 / 6), encoder)


def test_how_wrong_images_are(tmp_path: Path) -> None:
    evaluated = judged_in(tmp_path, FOUND)
    assert evaluated.count_errors(0.5).tolist() == [1, 2, 0]
    assert evaluated.count_errors(0.1).tolist() == [1, 2, 1]
    assert evaluated.count_errors(0.95).tolist() == [1, 2, 0]  # all are missed, and nothing is found
    assert evaluated.count_errors(0.85).tolist() == [0, 2, 0]
    assert evaluated.of_image(0)[1].tolist() == [0, 1] and evaluated.of_image(2, 0.5)[1].tolist() == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("results", "encoder"), [(FOUND, np.full((2, 3, 2, 3), 1 / 6)), ([], None)])
def test_every_picture_is_drawn(results: list[tuple], encoder: np.ndarray | None, tmp_path: Path) -> None:
    evaluated, looks = judged_in(tmp_path, results), {0: look_with(encoder), 2: look_with(encoder)}
    draw_gallery(evaluated, 0.5, tmp_path / "gallery.png")
    draw_attention(evaluated, looks, 0.5, tmp_path / "attention.png")
    draw_queries([*looks.values()], tmp_path / "queries.png")
    for name in ("gallery", "attention", "queries"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 150, name


@pytest.mark.parametrize(("most_texts", "named"), [(2, True), (1, False)])
def test_crowded_images_are_drawn_without_names(tmp_path: Path, most_texts: int, named: bool) -> None:
    import matplotlib.pyplot as plt

    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40]}],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [50, 50, 30, 30], "score": 0.9}]
    figure, axis = plt.subplots()
    image_figures.draw_evaluated(axis, evaluate_images(truth, found, tmp_path), 0, 0.5, most_texts)
    places = {text.get_text(): text.get_verticalalignment() for text in axis.texts}
    plt.close(figure)
    above_or_inside = {"missed: cat": "top", "background: cat 0.90": "bottom"}
    assert places == (above_or_inside if named else {})


def test_an_object_that_is_found_badly_is_drawn_where_it_is(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    evaluated = judged_in(tmp_path, [(2, 10, 10, 30, 30, 0.9), (2, 62, 40, 20, 20, 0.8)])  # right; too low
    drawn = {}
    for number in range(3):
        figure, axis = plt.subplots()
        image_figures.draw_evaluated(axis, evaluated, number, 0.5)
        white = [patch for patch in axis.patches if patch.get_edgecolor() == (1.0, 1.0, 1.0, 1.0)]
        drawn[number] = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in white]
        plt.close(figure)
    assert drawn == {0: [], 1: [(60, 20, 20, 40)], 2: []}  # a missed one is drawn as such


@pytest.mark.filterwarnings("error", "ignore:__array__ implementation:DeprecationWarning")
def test_a_right_box_with_a_poor_mask_shows(tmp_path: Path) -> None:
    """Its outline lies over that of the object; around both there is a thin box. A missed object is hatched."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import PathPatch

    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    squares = [(0, 0, 40, 40), (50, 30, 50, 50)]
    polygons = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in squares]
    common = {"image_id": 1, "category_id": 1}
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {**common, "id": n, "bbox": box, "segmentation": [polygon]}
            for n, (box, polygon) in enumerate(zip(squares, polygons, strict=True), 1)
        ],
    }
    poor = np.zeros((80, 100), np.uint8, "F")
    poor[:10, :40] = poor[36:40, :40] = 1  # two pieces
    results = [{**common, "bbox": squares[0], "score": 0.9, "segmentation": coco_mask.encode(poor)}]
    evaluated = evaluate_images(truth, [*results, {**common, "bbox": squares[1], "score": 0.009}], tmp_path)
    figure, axis = plt.subplots()
    image_figures.draw_evaluated(axis, evaluated, 0, 0.5)
    shapes = [patch for patch in axis.patches if isinstance(patch, PathPatch)]
    boxes = [patch for patch in axis.patches if not isinstance(patch, PathPatch)]
    plt.close(figure)
    assert {text.get_text() for text in axis.texts} == {"missed: cat", "localization: cat 0.90"}
    assert len(shapes) == 3 * 3 and len(boxes) == 3  # fill, halo, line; of the object, the missed one, the detection
    assert all(box.get_linewidth() < 1 for box in boxes)
    assert [shape.get_hatch() for shape in shapes].count("////") == 1
    extents = [shape.get_path().get_extents().bounds for shape in shapes]
    assert extents.count((0, 0, 40, 40)) == 6 and extents.count((50, 30, 50, 50)) == 3
    draw_gallery(evaluated, 0.5, tmp_path / "gallery.png")
    draw_attention(evaluated, {0: look_with(None)}, 0.5, tmp_path / "attention.png")
