"""Scenes from photographs, on a COCO folder in which every object has a color of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from detr.sample import shape_set
from detr.sample.canvas import Canvas
from detr.sample.clicks import box_xyxy
from detr.sample.photo_objects import PhotoObjects
from detr.sample.shape_scene import draw_shape_scene
from detr.sample.things import SHAPE_CLASSES

GREEN, YELLOW, CYAN, RED, BLUE = (0, 200, 0), (220, 220, 0), (0, 200, 220), (230, 0, 0), (0, 0, 230)
# Category, color, polygon. The fourth category of a folder is held out by shape_set.
HEXAGON = ((90, 40), (150, 40), (180, 80), (150, 120), (90, 120), (60, 80))
OBJECTS = {
    "green.png": [("apple", GREEN, HEXAGON)],
    "border.png": [("bear", YELLOW, ((0, 50), (80, 50), (40, 130)))],  # cut by the photograph's border
    "small.png": [("apple", GREEN, ((100, 100), (110, 100), (110, 115), (100, 115)))],
    "hidden.png": [
        ("dog", RED, ((20, 30), (70, 30), (70, 90), (20, 90))),
        ("cup", CYAN, ((180, 20), (225, 160), (160, 150))),
    ],
    "crowd.png": [("bear", BLUE, ((30, 60), (200, 60), (200, 110), (30, 110)))],
}
CATEGORIES = ("apple", "bear", "cup", "dog")
LABELS = {"apple": 0, "bear": 1, "cup": 2}


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    coco: dict = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, start=1)]
    for image_id, (file_name, objects) in enumerate(OBJECTS.items(), start=7):
        photo = Image.new("RGB", (240, 180), (128, 128, 128))
        coco["images"].append({"id": image_id, "file_name": file_name, "width": 240, "height": 180})
        for name, color, polygon in objects:
            ImageDraw.Draw(photo).polygon(polygon, fill=color)
            (left, top), (right, bottom) = np.min(polygon, 0).tolist(), np.max(polygon, 0).tolist()
            crowd = file_name == "crowd.png"
            annotation = {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": CATEGORIES.index(name) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": {"size": [180, 240], "counts": []} if crowd else [np.ravel(polygon).tolist()],
                "iscrowd": int(crowd),
            }
            coco["annotations"].append(annotation)
        photo.save(tmp_path / "train2017" / file_name)
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(coco))
    return tmp_path


@pytest.fixture
def photos(coco_folder: Path) -> PhotoObjects:
    annotations = coco_folder / "annotations" / "instances_train2017.json"
    return PhotoObjects(annotations, coco_folder / "train2017", LABELS, held_out=["dog"])


def has_color(image: Image.Image, color: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    """Return (H, W) bool: where an image is about of a color."""
    return (np.abs(np.asarray(image.convert("RGB"), np.int16) - color) < tolerance).all(-1)


def test_boxes_of_a_crop_are_those_of_what_is_seen_in_it(photos: PhotoObjects) -> None:
    color_of = {0: GREEN, 1: YELLOW, 2: CYAN}
    checked, mirrored = set(), set()
    for seed in range(120):
        image, objects = photos.crop(np.random.default_rng(seed), (150, 200))
        assert image.size == (200, 150)
        canvas = Canvas((150, 200), 1)
        canvas.fill(image, [one.polygons for one in objects])
        for owner, one in enumerate(objects, start=1):
            seen, owned = has_color(image, color_of[one.label]), canvas.visible(owner)
            if min(seen.sum(), owned.sum()) > 300:  # not a sliver of blurred edge
                assert np.abs(np.subtract(box_xyxy(seen, 1), box_xyxy(owned, 1))).max() <= 2.5, "pixels"
                assert (seen & owned).sum() > 0.8 * (seen | owned).sum()
                checked.add(one.label)
                polygon = one.polygons[0]
                mirrored.add(bool(polygon[0, 0] > polygon[1, 0]))
    assert checked == {0, 1, 2} and mirrored == {True, False}


def test_a_crop_names_every_object_that_it_shows(photos: PhotoObjects) -> None:
    for seed in range(60):
        image, objects = photos.crop(np.random.default_rng(seed), (150, 200))
        for label, color in ((0, GREEN), (1, YELLOW), (2, CYAN)):
            if has_color(image, color).sum() > 40:
                assert label in [one.label for one in objects]


def test_what_is_held_out_is_never_seen(photos: PhotoObjects) -> None:
    shows_cup = 0
    for seed in range(200):
        image, _ = photos.crop(np.random.default_rng(seed), (120, 120))
        assert has_color(image, RED).sum() <= 120, "a column at most"  # of a box that ends where the crop begins
        assert has_color(image, BLUE).sum() <= 120, "a crowd, of which nobody knows how many objects it is"
        shows_cup += bool(has_color(image, CYAN).any())
        cutout, label = photos.cutout(np.random.default_rng(seed), 60)
        assert label in LABELS.values() and not has_color(cutout, RED).any() and not has_color(cutout, BLUE).any()
    assert shows_cup, "another part of the photograph with a held-out object is used"


def test_no_crop_where_held_out_objects_leave_none(coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    coco = json.loads(path.read_text())
    for annotation in coco["annotations"]:
        annotation |= {"category_id": 4, "bbox": [0, 0, 240, 180]}
    path.write_text(json.dumps(coco))
    photos = PhotoObjects(path, coco_folder / "train2017", LABELS, held_out=["dog"])
    assert photos.crop(np.random.default_rng(0), (100, 100)) is None


def test_cutouts_are_whole_large_objects(photos: PhotoObjects) -> None:
    labels = set()
    for seed in range(60):
        cutout, label = photos.cutout(np.random.default_rng(seed), 80)
        labels.add(label)
        alpha = np.asarray(cutout.getchannel("A"))
        left, top, right, bottom = box_xyxy(alpha > 127, 1)
        assert 50 < max(right - left, bottom - top) < 130 and alpha.min() == 0
        inside = np.asarray(cutout.convert("RGB"), np.float32)[alpha == 255]
        red, green, blue = inside.mean(0)
        assert green > 1.5 * red and (blue > 1.5 * red) == (label == 2), "its own pixels only"
    assert labels == {0, 2}, "the bear is cut by the border"


def test_scenes_from_photographs_are_the_same_on_every_call(photos: PhotoObjects) -> None:
    labels = []
    for index in range(12):
        scene, again = (draw_shape_scene(1, index, photos) for _ in range(2))
        assert scene.image.tobytes() == again.image.tobytes() and (scene.boxes_xyxy == again.boxes_xyxy).all()
        assert (scene.boxes_xyxy[:, 2:] <= scene.image.size).all() and (scene.boxes_xyxy >= 0).all()
        assert len(scene.boxes_xyxy) == len(scene.labels)
        labels += scene.labels.tolist()
    assert {0, 2} <= set(labels)


def test_a_set_with_photographs(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--train", "4", "--val", "2"]
    monkeypatch.setattr("sys.argv", ["shape_set", str(coco_folder), str(tmp_path / "shapes"), *flags])
    shape_set.main()
    names = []
    for split, count in (("val", 2), ("train", 4)):
        coco = json.loads((tmp_path / "shapes" / "annotations" / f"custom_{split}.json").read_text())
        classes = [category["name"] for category in coco["categories"]]
        assert classes == [*SHAPE_CLASSES, "apple", "bear"], "a cup is a cup, and dogs are held out"
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        assert len(sizes) == count
        for image in coco["images"]:
            path = tmp_path / "shapes" / f"{split}2017" / image["file_name"]
            assert Image.open(path).size == sizes[image["id"]]
            names.append(image["file_name"])
        assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
        for annotation in coco["annotations"]:
            left, top, wide, high = annotation["bbox"]
            width, height = sizes[annotation["image_id"]]
            assert min(left, top) >= 0 and left + wide <= width and top + high <= height
            mask = coco_mask.decode(annotation["segmentation"])
            rows, columns = np.nonzero(mask)
            assert mask.shape == (height, width) and annotation["area"] == mask.sum()
            assert abs(rows.min() - top) <= 1 and abs(columns.max() + 1 - left - wide) <= 1
            assert 1 <= annotation["category_id"] <= len(classes)
    assert len(set(names)) == 6, "no scene is in both splits"
