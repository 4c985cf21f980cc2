"""The way back: what was detected becomes a VIA project, and what is corrected there is trained on."""

import json
import re
from functools import reduce
from html import unescape
from math import nan
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from detr.data.coco_json import to_rle
from detr.evaluation.calibration import calibrated, expected_errors
from detr.importers.importer import import_via
from detr.importers.via.clip import polygon_area
from detr.importers.via.record import DETECTED, DETECTED_CLASS, DETECTED_NOTE
from detr.report.via_project import Detected, names_in_project, to_region, write_detections
from tests.conftest import SHARED, TINY, RunScript, needs_shared
from tests.importers.via.via_files import FORMATS, Drawn, as_v2, rect, write_images, write_set
from utils import UserError

ODD_NAME = "sub/ä b#1 %20 'x' \"y\" 猫.png"
BOX = {"category": "cat", "bbox": [10.26, 20.0, 30.0, 40.0], "score": 0.9}


def write(folder: Path, detected: dict[str, list[dict]], classes: tuple[str, ...] = ("cat", "dog"), **more) -> dict:
    """The project of results in images of 100x80 pixels."""
    write_images(folder, [Drawn(name, (100, 80), []) for name in detected])
    images = {
        folder / name: Detected((100, 80), results, [result["score"] for result in results])
        for name, results in detected.items()
    }
    write_detections(folder / "new.json", images, classes, **({"threshold": 0.5, "bins": []} | more))
    return json.loads((folder / "new.json").read_text())


def test_nothing_detected_is_a_project_too(tmp_path: Path) -> None:
    assert write(tmp_path / "none", {})["_via_image_id_list"] == []
    (entry,) = write(tmp_path / "one", {"a.png": []})["_via_img_metadata"].values()
    assert entry["regions"] == [] and entry["filename"] == "a.png"


def structure(value: object) -> object:
    """The keys and types of a value from JSON; lists and numbers are not looked into."""
    if isinstance(value, dict):
        return {key: structure(inner) for key, inner in value.items()}
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def real_projects() -> list[dict]:
    contents = [json.loads(path.read_text()) for path in sorted((SHARED / "via_samples").rglob("*.json"))]
    return [content for content in contents if isinstance(content, dict) and "_via_img_metadata" in content]


@needs_shared
def test_the_file_is_built_as_those_that_via_saves(tmp_path: Path) -> None:
    ours = write(tmp_path, {"a.png": [BOX], ODD_NAME: [BOX | {"category": "dog"}]})
    theirs = real_projects()
    assert theirs
    for one in theirs:
        hold_against_via(one)
    for one in (*theirs, ours):
        assert one.keys() == ours.keys() and structure(one["_via_settings"]) == structure(ours["_via_settings"])
        assert one["_via_data_format_version"] == ours["_via_data_format_version"]
        assert one["_via_image_id_list"] == [*one["_via_img_metadata"]]
        assert one["_via_attributes"].keys() == {"region", "file"}
        definitions = one["_via_attributes"]["region"]
        for definition in definitions.values():
            more = {"options", "default_options"} if definition["type"] == "dropdown" else {"default_value"}
            assert definition.keys() == {"type", "description", *more}
        for key, entry in one["_via_img_metadata"].items():
            assert entry.keys() == {"filename", "size", "regions", "file_attributes"}
            assert key == f"{entry['filename']}{entry['size']}"
            for region in entry["regions"]:
                assert region.keys() == {"shape_attributes", "region_attributes"}
                for name, value in region["region_attributes"].items():
                    assert isinstance(value, str) and value in definitions[name].get("options", {value: ""})


def hold_against_via(project: dict) -> None:
    """Assert what VIA 2.0.11 takes for granted: it checks next to nothing, and stops where something is otherwise."""
    settings, entries, attributes = (project[f"_via_{key}"] for key in ("settings", "img_metadata", "attributes"))
    for name, group in settings.items():  # it has no other groups to put settings into
        known = {"ui": {"image", "image_grid"}, "core": {"filepath"}, "project": set()}[name]
        assert {key for key, value in group.items() if isinstance(value, dict)} <= known
    marks = {"__via_region_id__", "__via_default_region_color__", *attributes["region"]}
    assert settings["ui"]["image"]["region_label"] in marks and settings["ui"]["image"]["region_color"] in marks
    assert sorted(project["_via_image_id_list"]) == sorted(entries)  # it looks each up
    assert attributes.keys() == {"region", "file"}  # it has a button for each
    for name, attribute in attributes["region"].items():
        assert "__" not in name and attribute["type"] in ("text", "dropdown")  # it joins names and rows by __
        if attribute["type"] == "dropdown":
            assert attribute["default_options"].keys() <= attribute["options"].keys()
            for option, html in attribute["options"].items():  # it shows an option without a text as it is
                assert "<" not in (html or option) and unescape(html or option) == option
    for entry in entries.values():
        assert {"filename", "size", "file_attributes"} <= entry.keys()  # it drops others
        for region in entry["regions"]:
            assert all(isinstance(value, str) for value in region["region_attributes"].values())  # it shortens labels
            shape = region["shape_attributes"]
            keys = {"rect": ("x", "y", "width", "height"), "polygon": ("all_points_x", "all_points_y")}[shape["name"]]
            numbers = np.array([shape[key] for key in keys])
            assert numbers.dtype.kind in "if" and np.isfinite(numbers).all() and len(numbers.T) > 2
        name, folder = entry["filename"], settings["core"]["default_filepath"]
        assert not name.startswith(("http://", "https://", "www."))  # these are not looked for in the folder
        assert not re.search("%(?![0-9A-Fa-f]{2})", name)  # it lists names decoded, and none where one fails
        url = urlsplit((folder + name).replace("#", "%23", 1))
        assert not folder or (url.scheme, url.query, url.fragment) == ("file", "", "")
        assert not folder or Path(unquote(url.path)).is_file()


POLYGON = {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}
BREAKS = [
    ("_via_settings/window", {}), ("_via_settings/core/more", {}), ("_via_settings/core/default_filepath", "file:///"),
    ("_via_settings/ui/image/region_label", "kind"), ("_via_image_id_list", ["b.png7"]), ("_via_attributes/more", {}),
    ("_via_attributes/region/a__b", {"type": "text"}), ("_via_attributes/region/a", {"type": "dropdown"}),
    ("_via_attributes/region/detected_class/options", {"<cat>": ""}), ("_via_img_metadata/ID", {"filename": "a.png"}),
    *((f"_via_img_metadata/ID/{key}", value) for key, value in [
        ("filename", "www.a.png"), ("filename", "50%.png"), ("regions", None), ("regions/0/shape_attributes", POLYGON),
        ("regions/0/shape_attributes/name", "box"), ("regions/0/shape_attributes/x", nan),
        ("regions/0/shape_attributes/x", "1"), ("regions/0/region_attributes/detected_score", 0.9),
    ]),
]  # fmt: skip


def test_via_opens_the_file(tmp_path: Path) -> None:
    names = ["a.png", "www.a.png", ODD_NAME, "50%.png", "what?.png", "a#1#2.png"]
    detected = [BOX, BOX | {"category": "<5 & >2", "segmentation": [[1.0, 1, 9, 1, 9, 9]]}]
    project = write(tmp_path / "50% #1? ä", dict.fromkeys(names, detected), ("<5 & >2", "cat"))
    hold_against_via(project)
    for place, value in BREAKS:
        broken = json.loads(json.dumps(project))
        *way, last = place.replace("ID", project["_via_image_id_list"][0]).split("/")
        reduce(lambda inner, key: inner[int(key) if key.isdigit() else key], way, broken)[last] = value
        with pytest.raises((AssertionError, KeyError, TypeError)):
            hold_against_via(broken)


def test_uncertain_images_come_first(tmp_path: Path) -> None:
    of = lambda *scores: [BOX | {"score": score} for score in scores]  # noqa: E731
    detected = {"sure.png": of(0.99), "none.png": [], "two.png": of(0.8, 0.6), "half.png": of(0.55), "same.png": []}
    order = [entry["filename"] for entry in write(tmp_path / "a", detected)["_via_img_metadata"].values()]
    assert order == ["two.png", "half.png", "sure.png", "none.png", "same.png"]
    best = write(tmp_path / "b", detected, limit=2)
    assert [entry["filename"] for entry in best["_via_img_metadata"].values()] == order[:2]
    novelties = {tmp_path / "c" / name: share for name, share in zip(detected, (0.1, 0.3, 0.0, 0.9, 0.4), strict=True)}
    ranked = write(tmp_path / "c", detected, novelties=novelties)[
        "_via_img_metadata"
    ].values()  # 0.01, 0, 0.6, 0.45, 0 errors
    assert [entry["filename"] for entry in ranked] == ["two.png", "half.png", "same.png", "none.png", "sure.png"]
    notes = [
        region["region_attributes"][DETECTED_NOTE] for entry in best["_via_img_metadata"].values()
        for region in entry["regions"]
    ]  # fmt: skip
    assert notes == ["", "right in 60% of cases", "right in 55% of cases"]


def test_errors_are_expected_by_what_scores_were_worth() -> None:
    assert expected_errors([], 0.5, []) == 0
    assert expected_errors([0.9, 0.6, 0.3, 0.04], 0.5, []) == pytest.approx(0.1 + 0.4 + 0.3)  # 0.04: too faint
    assert expected_errors([0.04], 0.03, []) == pytest.approx(0.96)
    bins = [{"count": 9, "score": 0.2, "precision": 0.6}, {"count": 0, "score": None, "precision": None}]
    bins.append({"count": 9, "score": 0.4, "precision": 1.0})
    assert calibrated(np.array([0.1, 0.3, 0.9]), bins).tolist() == pytest.approx([0.6, 0.8, 1.0])
    assert expected_errors([0.9, 0.3, 0.2], 0.25, bins) == pytest.approx(0 + 0.2 + 0.6)
    assert calibrated(np.zeros(0), bins).tolist() == calibrated(np.zeros(0), []).tolist() == []


def test_boxes_end_at_the_image() -> None:
    region = to_region(BOX | {"bbox": [-3.0, 70.0, 20.0, 30.0]}, "cat", (100, 80), "look")
    assert region["shape_attributes"] == rect(0.0, 70.0, 17.0, 10.0)
    assert region["region_attributes"] == dict(zip(DETECTED, ("cat", "0.90", "look"), strict=True))
    assert to_region({"bbox": [0, 0, 9, 9]}, "cat", (100, 80))["region_attributes"] == dict(
        zip(DETECTED, ("cat", "", ""), strict=True)
    )


def polygon_of(segmentation: dict | list) -> list[tuple[float, float]]:
    shape = to_region(BOX | {"segmentation": segmentation}, "cat", (200, 150))["shape_attributes"]
    assert shape["name"] == "polygon"
    return list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))


def test_masks_become_polygons_that_a_person_can_edit() -> None:
    image = Image.new("L", (200, 150))
    ImageDraw.Draw(image).ellipse((20, 20, 120, 100), 1)
    ImageDraw.Draw(image).ellipse((60, 50, 64, 54), 0)  # a hole
    ImageDraw.Draw(image).rectangle((150, 100, 160, 110), 1)  # a crumb
    mask = coco_mask.encode(np.asfortranarray(np.asarray(image)))
    points = polygon_of(mask)
    assert 8 < len(points) <= 40
    back = to_rle([[value for point in points for value in point]], (150, 200))
    ellipse = Image.new("L", (200, 150))
    ImageDraw.Draw(ellipse).ellipse((20, 20, 120, 100), 1)
    assert coco_mask.iou([back], [coco_mask.encode(np.asfortranarray(np.asarray(ellipse)))], [0])[0, 0] > 0.97


def test_an_annotation_of_several_pieces_stays_one_object() -> None:
    square, other = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0], [50.0, 50.0, 90.0, 50.0, 90.0, 60.0, 50.0, 60.0]
    points = polygon_of([square, other])
    assert polygon_area(points) == 400 + 400
    assert min(points) == (10, 10) and max(points) == (90, 60)
    assert polygon_of([square]) == [(10, 10), (30, 10), (30, 30), (10, 30)]


def test_what_prep_would_not_find_is_refused(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "old.json").write_text("{}")
    image = tmp_path / "elsewhere" / "a.png"
    with pytest.raises(UserError, match=r"old\.json: is there already and may hold corrections"):
        names_in_project(tmp_path / "old.json", [])
    with pytest.raises(UserError, match=r"--via new: VIA opens \*\.json; accepted: a name such as new\.json"):
        names_in_project(Path("new"), [])
    with pytest.raises(UserError, match=r"a\.png is not below the folder .* such as .*elsewhere/via\.json"):
        names_in_project(tmp_path / "new/via.json", [image])
    assert names_in_project(tmp_path / "new/../via.json", [image]) == {image: "elsewhere/a.png"}
    with pytest.raises(UserError, match=r"'.*b\\udcff\.png': the name is no line of text"):
        names_in_project(tmp_path / "via.json", [tmp_path / "b\udcff.png"])


# ------------------------------------------------------------------------------------------------------- and back again


def classes_of(paths: list[Path], **flags) -> dict[str, list[str]]:
    """The classes of each image's objects as prep.py reads them."""
    coco = import_via(paths, val_fraction=0, **flags)["train"].coco
    names = {category["id"]: category["name"] for category in coco["categories"]}
    return {
        image["file_name"]: [names[a["category_id"]] for a in coco["annotations"] if a["image_id"] == image["id"]]
        for image in coco["images"]
    }


def test_the_detected_class_is_read_and_nothing_asked(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": [BOX, BOX | {"category": "dog", "score": 0.1}], "b.png": [BOX]})
    assert classes_of([tmp_path / "new.json"]) == {"a.png": ["cat", "dog"], "b.png": ["cat"]}


@pytest.mark.parametrize("as_text", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("attributes", [{"kind": "cow"}, {"detected_class": "cow"}, {"cow": "1"}])
def test_older_annotations_keep_their_own_attribute(attributes: dict, as_text: object, tmp_path: Path) -> None:
    write_set(tmp_path / "old", [Drawn("c.png", (90, 70), [(rect(5, 5, 30, 30), attributes)])], as_text)
    write(tmp_path / "new", {"a.png": [BOX]})
    files = [tmp_path / "old", tmp_path / "new/new.json"]
    assert classes_of(files) == {"c.png": ["cow"], "a.png": ["cat"]}


def test_older_annotations_without_attributes_are_of_the_class_that_was_learnt(tmp_path: Path) -> None:
    write_set(tmp_path / "cow", [Drawn("c.png", (90, 70), [(rect(5, 5, 30, 30), {})])])
    write(tmp_path / "new", {"a.png": [BOX | {"category": "cow"}]}, ("cow",))
    files = [tmp_path / "cow", tmp_path / "new/new.json"]
    assert classes_of(files) == {"c.png": ["cow"], "a.png": ["cow"]}
    content = json.loads((tmp_path / "new/new.json").read_text())
    (entry,) = content["_via_img_metadata"].values()
    entry["regions"][0]["region_attributes"][DETECTED_CLASS] = "calf"
    (tmp_path / "new/new.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"1 region without a value for detected_class"):
        classes_of(files)


@pytest.mark.long
def test_detections_corrected_in_via_are_the_next_annotations(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """From VIA to a detector, to its detections, to VIA, and back: the same boxes to half a pixel."""
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 1) == 0
    Path("disc").mkdir()
    (old,) = [Drawn("old.png", (90, 70), [(rect(5, 5, 30, 30), {})])]
    write_set(Path("disc"), [old], as_v2)
    names = ["a.png", "deep/er/a.png", ODD_NAME]
    write_images(Path("new"), [Drawn(name, (100 + 8 * n, 80), []) for n, name in enumerate(names)])
    folders = ["new", "new/deep/er", "new/sub"]
    command = ("results", "--images", *folders, "--device", "cpu")
    assert run(*command, "--limit", 2) == run("results", "--via", "new/via.json") == 2
    assert run(*command, "--via", "elsewhere/via.json") == 2
    assert not Path("outputs/figures/images").exists()  # said before any work
    capsys.readouterr()
    assert run(*command, "--via", "new/via.json", "--threshold", 0) == 0
    said = capsys.readouterr().out
    assert "saved new/via.json: 3 images to correct; then python prep.py --via OLD new/via.json" in said
    assert "not compared" not in said
    assert run(*command, "--via", "new/via.json", "--threshold", 0) == 2
    assert "may hold corrections" in capsys.readouterr().err
    assert run("prep", "--via", "disc", "new/via.json", "--weights", "none", "--coco_path", "next") == 0
    boxes: dict[str, list] = {}
    for split in ("train", "val"):
        coco = json.loads(Path(f"next/annotations/custom_{split}.json").read_text())
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        for a in coco["annotations"]:
            left, top, width, height = a["bbox"]
            boxes.setdefault(sizes[a["image_id"]], []).append([left, top, left + width, top + height])
    assert len(boxes.pop((90, 70))) == 1
    detected = json.loads(Path("outputs/figures/images/predictions.json").read_text())
    for number, name in enumerate(names):
        size = (100 + 8 * number, 80)
        expected = []
        for result in (one for one in detected if one["image_id"] == f"new/{name}"):
            left, top, width, height = result["bbox"]
            expected.append(np.clip([left, top, left + width, top + height], 0, [*size, *size]))
        assert len(expected) == 8
        assert np.abs(np.array(sorted(boxes[size])) - sorted(map(list, expected))).max() <= 0.5
