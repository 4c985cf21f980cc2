"""VIA -> COCO as a whole: the balloon file against the published converter, and folders as users have them."""

import json
from pathlib import Path

import pytest

from detr.importers.importer import import_via
from detr.importers.notes import UNNAMED
from detr.importers.via.clip import polygon_area
from detr.importers.via.reader import find_annotation_files, read_annotations
from tests.conftest import SHARED, RunScript, needs_shared, write_via
from utils import UserError


@needs_shared
def test_balloon_equals_the_published_recipe_but_for_ids_and_areas() -> None:
    for split, imported in import_via(SHARED / "balloon").items():
        coco, reference = (imported.coco, json.loads((SHARED / "reference_run" / f"via2coco_{split}.json").read_text()))
        assert (len(coco["images"]), len(coco["annotations"])) == {"train": (61, 255), "val": (13, 50)}[split]
        assert coco["categories"] == [{"id": 1, "name": "balloon"}]
        assert {what: len(places) for what, places in imported.notes.items()} == {
            UNNAMED.format("balloon"): len(coco["annotations"])
        }
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


def test_images_without_regions_stay(via_folder: Path) -> None:
    coco = import_via(via_folder)["val"].coco
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert {annotation["image_id"] for annotation in coco["annotations"]} == {1, 2}


def polygon(**changes: object) -> dict:
    shape = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]} | changes
    return {"filename": "a.png", "regions": {"7": {"shape_attributes": shape, "region_attributes": {}}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        *((empty, "is empty; accepted: VIA 1.x") for empty in ("", " \n", "{ }", [])),
        ({"a": {"filename": "a.png"}}, "not a VIA annotation file"),
        ({"a": {"filename": "", "regions": {}}}, "file name ''"),
        ({"a": {"filename": "a\n.png", "regions": {}}}, r"file name 'a\\n.png'"),
        ({"a": polygon(), "b": 3}, "the entry b has no filename"),
        ({"a": {"filename": "a.png", "regions": "none"}}, "a.png has the regions 'none'"),
        ({"a": polygon(name="star")}, "a.png, region 7 is a 'star'; accepted: polygon, polyline, rect, circle"),
        ({"a": polygon(name=["rect"])}, r"a.png, region 7 is a \['rect'\]; accepted"),
        ({"a": polygon(name="circle")}, "a.png, region 7 has cx = None; a finite number"),
        ({"a": polygon(all_points_x=[1, 2])}, "region 7 needs as many all_points_x as all_points_y"),
        ({"a": polygon(all_points_x=[1, "2", 3])}, "region 7 has a coordinate that is not a finite number"),
        ({"a": polygon(all_points_x=[], all_points_y=[])}, "region 7 is a polygon without points"),
        ({"a": {"filename": "a.png", "regions": {"7": {}}}}, "region 7 has no shape_attributes"),
        ({"a": {"filename": "a.png", "regions": [3]}}, "region 0 is 3; an object with shape_attributes"),
        ('{"a": {"filename": "a", "regions": [], "regions": []}}', "the key 'regions' is there twice"),
    ],
)
def test_what_cannot_be_read_is_named(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=rf"via.json.*{message}"):
        read_annotations(path)


def test_the_annotation_file_is_told_by_content(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_annotation_files(tmp_path / "train")
    with pytest.raises(UserError, match=r"expected an annotation file \(\*.json or \*.csv\), .* found none"):
        find_annotation_files(tmp_path)
    (tmp_path / "labels.json").write_text("{}")
    (tmp_path / "prices.csv").write_text("name,price\nball,3\n")
    with pytest.raises(UserError, match=r"found labels.json, prices.csv, which are no VIA files"):
        find_annotation_files(tmp_path)
    (tmp_path / "zoo.JSON").write_text(json.dumps({"a": polygon()}))
    assert [path.name for path in find_annotation_files(tmp_path)] == ["zoo.JSON"]
    (tmp_path / "all.csv").write_text("filename,region_shape_attributes,region_attributes\n")
    (tmp_path / "second.json").write_text(json.dumps([polygon()]))
    assert [path.name for path in find_annotation_files(tmp_path)] == ["second.json", "zoo.JSON", "all.csv"]


def test_a_file_a_folder_with_one_and_images_elsewhere_are_the_same(tmp_path: Path, run: RunScript) -> None:
    folder = write_via(tmp_path / "discs", 10)
    (tmp_path / "elsewhere").mkdir()
    (folder / "via_region_data.json").rename(tmp_path / "elsewhere" / "notes.txt")
    file = tmp_path / "elsewhere" / "notes.txt"
    made = []
    for arguments in (("--via", file, "--images", folder), ("--via", folder)):
        assert run("prep", *arguments, "--weights", "none", "--categories", "disc", "--coco_path", "out") == 0
        made.append({path.name: path.read_bytes() for path in Path("out").rglob("*.*")})
        (folder / "via.json").write_bytes(file.read_bytes())
    assert made[0] == made[1] and len(made[0]) == 10 + 4


def test_a_set_that_is_divided_keeps_every_image_once(tmp_path: Path) -> None:
    folder = write_via(tmp_path / "discs", 30)
    splits = import_via(folder)
    names = [image["file_name"] for split in splits.values() for image in split.coco["images"]]
    assert sorted(names) == sorted(path.name for path in folder.glob("*.png"))
    assert splits["train"].coco["categories"] == splits["val"].coco["categories"] == [{"id": 1, "name": "discs"}]
    for split in splits.values():
        assert [image["id"] for image in split.coco["images"]] == list(range(1, len(split.coco["images"]) + 1))
        assert [path.name for path in split.origins] == [image["file_name"] for image in split.coco["images"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--val_fraction", "1"), "--val_fraction 1.0: accepted: from 0 to less than 1"),
        (("--images", "nowhere"), "--images nowhere: no such folder"),
        (("--categories", "a,a"), "'a,a' has a repeated name"),
        *((("--categories", f"a,{odd}"), f"{odd!r} is not a short line of text") for odd in ("", "b\nc")),
        *((("--one_class", odd), f"{odd!r} is not a short line of text") for odd in ("", " ", "b\nc")),
        (("--unlabelled", ""), "'' is not a short line of text"),
        (("--via", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    arguments: tuple, message: str, via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("prep", "--via", via_folder, "--weights", "none", *arguments) == 2
    assert message in capsys.readouterr().err and not Path("data").exists()
