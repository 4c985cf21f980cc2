"""VIA -> COCO: the real balloon file against the published recipe's converter, and files that are refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from detr.errors import UserError
from detr.via.reader import find_annotation_file, read_annotations
from detr.via.record import Region
from detr.via.to_coco import class_names, class_of, polygon_area, to_coco
from tests.conftest import SHARED, needs_shared, write_via


@needs_shared
@pytest.mark.parametrize(("split", "images", "objects"), [("train", 61, 255), ("val", 13, 50)])
def test_balloon_equals_the_published_recipe_but_for_ids_and_areas(split: str, images: int, objects: int) -> None:
    folder = SHARED / "balloon" / split
    coco = to_coco(read_annotations(find_annotation_file(folder)), folder, ["balloon"], "balloon")
    reference = json.loads((SHARED / "reference_run" / f"via2coco_{split}.json").read_text())
    assert (len(coco["images"]), len(coco["annotations"])) == (images, objects)
    assert coco["categories"] == [{"id": 1, "name": "balloon"}]
    for ours, theirs in zip(coco["images"], reference["images"], strict=True):
        assert all(ours[key] == theirs[key] for key in ("file_name", "width", "height"))
        assert ours["id"] == theirs["id"] + 1
    for ours, theirs in zip(coco["annotations"], reference["annotations"], strict=True):
        assert ours["bbox"] == theirs["bbox"] and ours["segmentation"] == theirs["segmentation"]
        assert (ours["id"], ours["image_id"]) == (theirs["id"] + 1, theirs["image_id"] + 1)
        xs, ys = ours["segmentation"][0][::2], ours["segmentation"][0][1::2]
        shoelace = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
        assert ours["area"] == abs(shoelace) / 2


def test_areas_of_known_polygons() -> None:
    square = [(0, 0), (4, 0), (4, 4), (0, 4)]
    assert polygon_area(square) == polygon_area(square[::-1]) == 16
    assert polygon_area([(0, 0), (4, 0), (0, 3)]) == 6
    assert polygon_area([*square, (0, 0)]) == 16  # VIA files repeat the first point, or do not


def test_images_without_regions_stay(tmp_path: Path) -> None:
    folder = write_via(tmp_path / "train", 3)
    coco = to_coco(read_annotations(find_annotation_file(folder)), folder, ["disc"], "disc")
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert {annotation["image_id"] for annotation in coco["annotations"]} == {1, 2}


def test_classes_come_from_the_one_attribute_or_the_folder() -> None:
    assert class_names([[]], "folder") == ["folder"]
    assert class_of(Region([], {}), "folder") == "folder"
    assert class_of(Region([], {"name": " cat "}), "folder") == "cat"
    with pytest.raises(UserError, match="name = ''"):
        class_of(Region([], {"name": ""}), "folder")


def test_named_classes_are_shared_by_both_splits(tmp_path: Path) -> None:
    splits = [
        read_annotations(find_annotation_file(write_via(tmp_path / name, 1, attribute={"kind": name})))
        for name in ("val", "train")
    ]
    assert class_names(splits, "folder") == ["train", "val"]
    both = write_via(tmp_path / "both", 1, attribute={"kind": "a", "colour": "b"})
    with pytest.raises(UserError, match=r"kind \(1\), colour \(1\)"):
        class_names([read_annotations(find_annotation_file(both))], "folder")


def polygon(**changes: object) -> dict:
    shape = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]} | changes
    return {"filename": "a.png", "regions": {"7": {"shape_attributes": shape, "region_attributes": {}}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ([], "not a VIA annotation file"),
        ({}, "not a VIA annotation file"),
        ({"a": {"filename": "a.png", "regions": []}}, "not a VIA annotation file"),
        ({"a": {"filename": "", "regions": {}}}, "file name ''"),
        ({"a": polygon(name="circle")}, "a.png, region 7 is a 'circle'; accepted: 'polygon'"),
        ({"a": polygon(all_points_x=[1, 2])}, "region 7 needs as many all_points_x as all_points_y"),
        ({"a": polygon(all_points_x=[1, "2", 3])}, "region 7 has a coordinate that is not a finite number"),
        ({"a": polygon(all_points_x=[1, 1, 1], all_points_y=[1, 1, 2])}, "2 different points"),
        ({"a": {"filename": "a.png", "regions": {"7": {}}}}, "region 7 has no shape_attributes"),
    ],
)
def test_what_cannot_be_read_is_named(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=rf"via.json.*{message}"):
        read_annotations(path)


def test_folders_and_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_annotation_file(tmp_path / "train")
    with pytest.raises(UserError, match=r"expected one annotation file \(\*.json\), found none"):
        find_annotation_file(tmp_path)
    (tmp_path / "via.json").write_text(json.dumps({"a": polygon()}))
    images = read_annotations(find_annotation_file(tmp_path))
    with pytest.raises(UserError, match=r"a.png: no such image"):
        to_coco(images, tmp_path, ["x"], "x")
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a.png is annotated twice"):
        to_coco(images * 2, tmp_path, ["x"], "x")
    with pytest.raises(UserError, match="leads out of the folder"):
        to_coco([images[0]._replace(file_name="../a.png")], tmp_path, ["x"], "x")
    (tmp_path / "second.json").write_text("{}")
    with pytest.raises(UserError, match=r"found second.json, via.json"):
        find_annotation_file(tmp_path)
