"""Every format that VIA writes gives the same data set, told by content; the real samples have the right counts."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detr.importers.importer import import_via
from detr.importers.via.classes import ClassFlags
from detr.importers.via.clip import box_of
from detr.importers.via.reader import read_annotations
from tests.conftest import SHARED, needs_shared
from tests.importers.via.via_files import FORMATS, Drawn, as_csv, as_project, as_v2, as_v3, as_v3_csv, rect, write_set
from utils import UserError

SAMPLES = SHARED / "via_samples"

# file: images, regions, of these points, objects that the import makes of them, what to say for that
REAL = {
    "v1-tesla/via_region_data.json": (2, 6, 0, 6, {}),
    "v1-unit-tests/unit_test_annotation1.csv": (3, 12, 5, 5, {"skip_unlabelled": True}),
    "v1-unit-tests/unit_test_annotation2.json": (3, 12, 5, 5, {"skip_unlabelled": True}),
    "v2-all-shapes/via_region_data.json": (4, 42, 0, 42, {}),
    "v2-all-shapes/via_region_data.csv": (4, 25, 0, 25, {}),  # saved before the second half of the strawberries
    "v2-cats-zero-regions/via_project.json": (4, 2, 0, 2, {}),
    "v2-json-csv-coco-receipts/via_export_json.json": (6, 18, 0, 18, {}),
    "v2-json-csv-coco-receipts/via_export_csv.csv": (6, 18, 0, 18, {}),
    "v2-json-csv-coco-receipts/via_export_coco.json": (6, 18, 0, 18, {}),
    "v2-project-cartruck/via_region_data.json": (6, 6, 0, 6, {}),
    "v2-project-cartruck/via_region_data_json.json": (6, 6, 0, 6, {}),
    "v3-ava-persons/via_project_test.json": (4, 6, 0, 6, {"checked": "first"}),
    "v3-ava-persons/org_img_proposal.json": (4, 8, 0, 8, {}),
}


def objects(path: Path, **flags: object) -> list[tuple]:
    """Every object of both splits: image, class, box, outlines."""
    found = []
    for split in import_via(path, class_flags=ClassFlags(**flags), keep_partial=True).values():
        images = {image["id"]: image["file_name"] for image in split.coco["images"]}
        names = {category["id"]: category["name"] for category in split.coco["categories"]}
        for a in split.coco["annotations"]:
            found.append((images[a["image_id"]], names[a["category_id"]], a["bbox"], a["segmentation"]))
    return sorted(found)


@needs_shared
def test_every_real_file_is_listed_here() -> None:
    files = [path for pattern in ("*/*.json", "*/*.csv") for path in SAMPLES.glob(pattern)]
    assert {str(path.relative_to(SAMPLES)) for path in files} == set(REAL)


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_right_counts(name: str) -> None:
    images, regions, points, expected, flags = REAL[name]
    read = read_annotations(SAMPLES / name)
    assert (len(read), sum(len(image.regions) for image in read)) == (images, regions)
    assert sum(len(region.points_xy) == 1 for image in read for region in image.regions) == points
    splits = import_via(SAMPLES / name, class_flags=ClassFlags(**flags), keep_partial=True).values()
    assert sum(len(split.coco["images"]) for split in splits) == images
    assert sum(len(split.coco["annotations"]) for split in splits) == expected


@needs_shared
def test_two_files_that_say_the_same_are_one() -> None:
    folder = SAMPLES / "v2-project-cartruck"
    one, both = objects(folder / "via_region_data.json"), objects(folder)
    assert one == both


@needs_shared
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v1-unit-tests/unit_test_annotation1.csv", "2 regions without a value for name .*--skip_unlabelled"),
        ("v3-ava-persons/via_project_test.json", "4 regions with several values for person .*--checked first"),
        ("v3-ava-persons", "org_img_.*json and .*via_project_test.json differ about .*060.jpg .3 regions and 2"),
    ],
)
def test_real_files_that_leave_a_question_ask_it(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_via(SAMPLES / name)


@needs_shared
def test_three_exports_of_the_receipts_are_one_data_set() -> None:
    folder = SAMPLES / "v2-json-csv-coco-receipts"
    read = [objects(folder / f"via_export_{name}") for name in ("json.json", "csv.csv", "coco.json")]
    assert read[0] == read[1] == read[2] and len(read[0]) == 18
    assert Counter(name for _, name, *_ in read[0]) == {"Date": 6, "Header": 6, "Total": 6}


numbers = st.integers(0, 60) | st.floats(0, 60).map(lambda value: round(value, 3))
sizes = st.integers(1, 40) | st.floats(0.5, 40).map(lambda value: round(value, 3))
shapes = st.one_of(
    st.builds(rect, numbers, numbers, sizes, sizes),
    st.builds(lambda cx, cy, r: {"name": "circle", "cx": cx, "cy": cy, "r": r}, numbers, numbers, sizes),
    st.builds(
        lambda cx, cy, rx, ry, theta: {"name": "ellipse", "cx": cx, "cy": cy, "rx": rx, "ry": ry, "theta": theta},
        *(numbers, numbers, sizes, sizes, st.floats(-7, 7)),
    ),
    st.lists(st.tuples(numbers, numbers), min_size=3, max_size=9, unique=True).flatmap(
        lambda points: st.sampled_from(["polygon", "polyline"]).map(
            lambda name: {"name": name, "all_points_x": [p[0] for p in points], "all_points_y": [p[1] for p in points]}
        )
    ),
    st.builds(lambda cx, cy: {"name": "point", "cx": cx, "cy": cy}, numbers, numbers),
)
texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(lambda t: t != "undefined")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(shapes, texts), max_size=5), min_size=2, max_size=4), st.booleans())
def test_any_project_is_the_same_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, regions: list[list[tuple[dict, str]]], are_boxes: bool
) -> None:
    folder = tmp_path_factory.mktemp("set")
    wrap = (lambda text: {text: True}) if are_boxes else (lambda text: text)
    images = [
        Drawn(f"ä {number}, b.png", (64, 64), [(shape, {"Sorte": wrap(text)}) for shape, text in found])
        for number, found in enumerate(regions)
    ]
    write_set(folder, images)
    read = []
    for name, as_text in FORMATS.items():
        path = folder / f"{name}.txt"
        path.write_text(as_text(images), encoding="utf-8")
        try:
            read.append(objects(path))
        except UserError as error:  # nothing but points, or all outside: then in every format
            read.append(str(error).removeprefix(str(path)))
    assert all(found == read[0] for found in read)


FIVE = [
    Drawn("a.png", (90, 90), [(rect(5, 6, 20, 30), {"what": "cat"}), ({"name": "point", "cx": 9, "cy": 9}, {})]),
    Drawn("b.png", (90, 90), [({"name": "circle", "cx": 40, "cy": 40, "r": 12.5}, {"what": "dog"})]),
    Drawn("c.png", (90, 90), [({"name": "ellipse", "cx": 40, "cy": 40, "rx": 9, "ry": 20}, {"what": "dog"})]),
    Drawn(
        "d.png",
        (90, 90),
        [({"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 2, 9]}, {"what": "cat"})],
    ),
    Drawn("e.png", (90, 90), []),
]


def test_a_via_3_project_is_the_same_as_a_via_2_one(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "two", FIVE)
    expected = objects(folder)
    for options in (None, {"0": "cat", "7": "dog"}):
        (folder / "annotations.json").write_text(as_v3(FIVE, options))
        assert objects(folder) == expected and len(expected) == 4


def test_the_csv_of_a_via_3_project_is_the_same(tmp_path: Path) -> None:
    images = [image for image in FIVE if image.regions]  # it lists no others
    folder = write_set(tmp_path / "two", images)
    expected = objects(folder)
    project = json.loads(as_v3(images, {"0": "cat", "7": "dog"}))
    good = as_v3_csv(project)
    first = good.replace(json.dumps(project["attribute"]), '{"1": "what"}')  # of early versions: names without options
    first = first.replace("ATTRIBUTE", "ATTRIBUTES").replace('""0""', '""cat""').replace('""7""', '""dog""')
    resaved = good.replace("# CSV_HEADER", '"# CSV_HEADER').replace("metadata_id,", 'metadata_id",').replace(
        "spatial_coordinates,metadata", "spatial_coordinates,metadata,,"
    )  # fmt: skip
    for text in (good, as_v3_csv(project, ";"), as_v3_csv(project, "\t"), first, resaved, good.replace("\n", "\r\n")):
        (folder / "annotations.json").write_text(text, encoding="utf-8", newline="")
        assert objects(folder) == expected and len(expected) == 4, text


def test_a_video_among_the_images_of_a_via_3_project_is_left_out_and_counted(tmp_path: Path) -> None:
    project = json.loads(as_v3(FIVE))
    folder = write_set(tmp_path / "mixed", FIVE)
    expected = objects(folder)
    project["file"]["9"] = {"fid": "9", "fname": "clip.mp4", "type": 4, "loc": 1, "src": ""}
    project["view"]["9"] = {"fid_list": ["9"]}
    for number, (z, xy) in enumerate((([1.5], [2, 1, 1, 5, 5]), ([2, 3.5], []), ([], []))):
        project["metadata"][f"9_{number}"] = {"vid": "9", "flg": 0, "z": z, "xy": xy, "av": {"1": "cat"}}
    for text in (json.dumps(project), as_v3_csv(project)):
        (folder / "annotations.json").write_text(text)
        splits = import_via(folder)
        assert objects(folder) == expected
        notes = [places for split in splits.values() for what, places in split.notes.items() if "video" in what]
        assert notes == [["clip.mp4, 3 annotations"]]


def test_a_broken_via_3_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = as_v3_csv(json.loads(as_v3(FIVE[:2])))
    for bad, message in (
        (good.replace("CSV_HEADER = metadata_id,", "CSV_HEADER = "), "CSV_HEADER names no metadata_id"),
        (good.replace('# ATTRIBUTE = {"1"', '"# ATTRIBUTE = {""1""'), "ATTRIBUTE.*VIA"),
        (good + "1_x,3\n", r"line 12 has 2 cells; .* 6"),
        (good + '1_x,"[""a.png', "line 12 is not whole"),
        (good + '1_x,"[1]",0,[],"[2,1,1,5,5]",{}\n', "line 12: its file_list"),
        (good + '1_x,"[""a.png""]",0,[],"[2,1,1",{}\n', "line 12, spatial_coordinates has the cell .* not JSON"),
        (good + good.splitlines()[-1] + "\n", "line 12: the metadata_id .* twice"),
    ):
        path.write_text(bad)
        with pytest.raises(UserError, match=rf"a.csv: .*{message}"):
            read_annotations(path)


def test_via_3_lines_and_several_checked_boxes(tmp_path: Path) -> None:
    project = json.loads(as_v3(FIVE[:2], {"0": "cat", "1": "dog, small"}))
    project["metadata"]["1_0"] |= {"xy": [5, 3, 4, 30.5, 50], "av": {"1": "1,0"}}
    write_set(tmp_path, FIVE[:2], lambda _: json.dumps(project))
    with pytest.raises(UserError, match="1 region with several values for what"):
        import_via(tmp_path)
    assert [found[:3] for found in objects(tmp_path, checked="each")] == [
        ("a.png", "cat", [3, 4, 27.5, 46]),
        ("a.png", "dog, small", [3, 4, 27.5, 46]),
        ("b.png", "dog", [27.5, 27.5, 25, 25]),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": {"1": {"fname": "a.mp4", "type": 4}}}, r"only videos or sounds \(a.mp4\)"),
        ({"metadata": {"m": {"vid": "1", "xy": [2, 1, 1, 5, 5], "z": [3.5]}}}, r"entry m marks a time \(\[3.5\]\)"),
        (
            {"metadata": {"m": {"vid": "1", "xy": [10, 1, 1, 5, 5]}}},
            r"region m has xy = .* accepted: .*\(1 point, 2 rect",
        ),
        ({"metadata": {"m": {"vid": "1", "xy": [2, 1, 1]}}}, "region m is a rect with 2 numbers"),
        ({"metadata": {"m": {"vid": "1", "xy": [8, 1, 1, 5, 5]}}}, "extreme rectangle .* 4 points are needed"),
        ({"metadata": {"m": {"vid": "1", "xy": [9, 1, 1, 5, 5, 9, 9]}}}, "three points lie on a line"),
        ({"metadata": {"m": {"vid": "9", "xy": [2, 1, 1, 5, 5]}}}, "entry m belongs to view '9'"),
    ],
)
def test_what_a_via_3_project_cannot_be_used_for_is_named(change: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "project.json"
    path.write_text(json.dumps(json.loads(as_v3(FIVE[:1])) | change))
    with pytest.raises(UserError, match=message):
        read_annotations(path)


def test_via_3_extreme_shapes_have_the_box_of_their_points(tmp_path: Path) -> None:
    path = tmp_path / "project.json"
    metadata = {
        "m": {"vid": "1", "xy": [8, 30, 20, 60, 50, 40, 90, 10, 60]},
        "n": {"vid": "1", "xy": [9, 10, 50, 40, 20, 70, 50]},
    }
    path.write_text(json.dumps(json.loads(as_v3(FIVE[:1])) | {"metadata": metadata}))
    (image,) = read_annotations(path)
    boxes = [box_of(region.points_xy) for region in image.regions]
    assert boxes == [(10, 20, 60, 90), pytest.approx((10, 20, 70, 80))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_csv_file_may_be_in_the_encoding_of_a_spreadsheet(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shape = '"{""name"":""rect"",""x"":1,""y"":2,""width"":3,""height"":4}"'
    head = "filename,region_shape_attributes,region_attributes"
    (tmp_path / "a.csv").write_text(f"{head}\nété.jpg,{shape},{{}}\n", encoding=encoding)
    (image,) = read_annotations(tmp_path / "a.csv")
    assert image.file_name == "été.jpg"
    assert (encoding in capsys.readouterr().out) is not encoding.startswith("utf-8")


def test_a_project_with_numbered_options_is_read_with_their_descriptions(tmp_path: Path) -> None:
    images = [
        Drawn("a.png", (9, 9), [(rect(1, 1, 4, 4), {"what": "1"})]),
        Drawn("b.png", (9, 9), [(rect(1, 1, 4, 4), {"what": {"2": True}})]),
    ]
    for options, names in (
        ({"1": "cat", "2": "dog"}, ["cat", "dog"]),
        ({"1": "", "2": "dog"}, ["1", "2"]),
        ({"1": "cat", "2": "dog", "x": "none"}, ["1", "2"]),
    ):
        attributes = {"what": {"type": "radio", "options": options}}
        write_set(tmp_path, images, lambda images, attributes=attributes: as_project(images, attributes))
        assert [found[1] for found in objects(tmp_path)] == names


def test_csv_as_spreadsheets_and_via_write_it(tmp_path: Path) -> None:
    images = [Drawn("a, b.png", (60, 60), [(rect(1, 2, 30, 40), {"what": "cat"})]), Drawn("c.png", (60, 60), [])]
    expected = objects(write_set(tmp_path, images))
    good = as_csv(images)
    unquoted = good.replace('"a, b.png"', "a, b.png")  # VIA puts no quotes there
    undefined = good.replace('""cat""}', '""cat"",""mood"":undefined}').replace('"{}","{}"', "undefined,undefined")
    for text in (unquoted, as_csv(images, separator=";"), undefined, "\ufeff" + good, good.replace("\r\n", "\n\n")):
        (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
        assert objects(tmp_path) == expected, text


def test_a_broken_line_of_a_csv_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = as_csv(FIVE)
    for bad, message in (
        (good + "x.png,3\n", "line 8 has 2 cells; the first line names 7"),
        (good + 'x.png,7,"{}",1,0,"{""', "line 8 is not whole"),
        (good.replace('""x"": 5', '""x"": five'), "a.png, region 0 .line 2. has the cell .* which is not JSON"),
    ):
        path.write_text(bad)
        with pytest.raises(UserError, match=rf"a.csv: {message}"):
            read_annotations(path)


def test_regions_and_attributes_may_be_missing_or_null(tmp_path: Path) -> None:
    entries = json.loads(as_v2(FIVE))
    entries["e.png7"] |= {"regions": None, "file_attributes": None, "size": -1}
    del entries["b.png7"]["size"], entries["b.png7"]["regions"][0]["region_attributes"]
    entries["c.png7"]["regions"] = {"0": entries["c.png7"]["regions"][0] | {"region_attributes": None}}
    write_set(tmp_path, FIVE, lambda _: json.dumps(list(entries.values())))
    assert len(objects(tmp_path, skip_unlabelled=True)) == 2


def test_vias_coco_export_without_categories_is_of_one_class(tmp_path: Path) -> None:
    """VIA lists no category where no attribute was defined; annotations then name one that is not there, or none."""
    for number in range(2):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number}.png")
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(2)],
        "categories": [],
        "annotations": [
            {"id": 0, "image_id": "0", "segmentation": [1, 1, 9, 1, 9, 8]},
            {"id": 1, "image_id": "1", "segmentation": [2, 2, 9, 2, 9, 8], "category_id": 1},
        ],
    }
    (tmp_path / "via.json").write_text(json.dumps(coco))
    for flags, name in ((ClassFlags(), tmp_path.name), (ClassFlags(categories=("ship",)), "ship")):
        for split in import_via(tmp_path, class_flags=flags).values():
            assert split.coco["categories"] == [{"id": 1, "name": name}]
            assert len(split.coco["annotations"]) == 1
