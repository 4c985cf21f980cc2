"""LabelMe: every shape, images named in every way, and what is wrong with a file."""

import json
import re
from pathlib import Path

import pytest

from detr.importers import notes
from detr.importers.importer import import_labels
from detr.importers.labelme import OTHER_JSON
from tests.importers.label_files import Labelled, box, labelme_text, objects_of, remarks_of, write_flat, write_image
from utils import UserError

A, B = (Labelled(f"{name}.png", (60, 50), [("cat", box(3, 4, 20, 30))]) for name in "ab")


def write(folder: Path, shapes: list, **fields: object) -> Path:
    """a.png with these shapes, and b.png with one cat."""
    write_flat(folder, "labelme", [A, B], [])
    content = json.loads((folder / "a.json").read_text()) | {"shapes": shapes} | fields
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def shape(kind: str | None, points: list, label: object = "cat", **fields: object) -> dict:
    return {"label": label, "shape_type": kind, "points": points, "flags": {}, **fields}


@pytest.mark.parametrize(
    ("kind", "points", "bbox"),
    [
        ("polygon", [[3, 4], [20, 4], [10.5, 30]], [3, 4, 17, 26]),
        (None, [[3, 4], [20, 4], [10.5, 30]], [3, 4, 17, 26]),  # before version 4
        ("rectangle", [[20, 4], [3, 30]], [3, 4, 17, 26]),
        ("rectangle", [[3, 4], [20, 4], [20, 30], [3, 30]], [3, 4, 17, 26]),
        ("circle", [[20, 20], [23, 24]], [15, 15, 10, 10]),
        ("line", [[3, 4], [20, 30]], [3, 4, 17, 26]),
        ("linestrip", [[3, 4], [20, 4], [20, 30]], [3, 4, 17, 26]),
        ("mask", [[3, 4], [20, 30]], [3, 4, 17, 26]),
        ("rotation", [[10, 4], [20, 14], [10, 24], [0, 14]], [0, 4, 20, 20]),
    ],
)
def test_every_shape_has_its_box(kind: str | None, points: list, bbox: list, tmp_path: Path) -> None:
    splits = import_labels("labelme", write(tmp_path, [shape(kind, points, mask="aGk=")]))
    assert objects_of(splits)["a.png"] == [("cat", pytest.approx(bbox))]


def test_points_have_no_box(tmp_path: Path) -> None:
    folder = write(
        tmp_path, [shape("point", [[3, 4]]), shape("points", [[3, 4], [9, 9]]), shape("line", [[1, 1], [9, 9]])]
    )
    splits = import_labels("labelme", folder, keep_partial=True)
    assert [bbox for _, bbox in objects_of(splits)["a.png"]] == [[1, 1, 8, 8]]
    assert remarks_of(splits)[notes.POINT] == ["a.png, region 0", "a.png, region 1"]


@pytest.mark.parametrize(
    "listed", ["../photos/a.png", "..\\photos\\a.png", "C:\\me\\a.png", "/me/a.png", "old name.png"]
)
def test_the_image_is_the_one_it_names_or_the_one_of_its_own_name(listed: str, tmp_path: Path) -> None:
    write_flat(tmp_path, "labelme", [A, B], [])
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.png").rename(tmp_path / f"photos/{name}.png")
        (tmp_path / f"{name}.json").rename(tmp_path / f"labels/{name}.json")
    if listed == "old name.png":
        (tmp_path / "photos").rename(tmp_path / "images")
    (tmp_path / "labels/a.json").write_text(labelme_text(A._replace(name=listed)))
    assert objects_of(import_labels("labelme", tmp_path)).keys() == {"a.png", "b.png"}


def test_a_file_may_have_another_name_than_its_image(tmp_path: Path) -> None:
    """As LabelMe itself, which goes by imagePath."""
    folder = write_flat(tmp_path, "labelme", [A, B], [])
    (folder / "a.json").write_text(labelme_text(A._replace(name="b.png", objects=[("dog", box(1, 1, 9, 9))])))
    (folder / "b.json").write_text(labelme_text(A))
    assert objects_of(import_labels("labelme", folder)) == {
        "a.png": [("cat", [3, 4, 17, 26])],
        "b.png": [("dog", [1, 1, 8, 8])],
    }


def test_other_json_is_not_used_and_an_image_in_the_file_alone_is_missing(tmp_path: Path) -> None:
    folder = write_flat(tmp_path, "labelme", [A, B], [])
    (folder / "notes.json").write_text('{"version": 1}')
    write_image(folder / "c.png", (60, 50))
    splits = import_labels("labelme", folder)
    assert remarks_of(splits) == {OTHER_JSON: ["notes.json"], notes.UNLISTED: [f"{folder.name}/c.png"]}
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images cannot be used: b.png: no such image"):
        import_labels("labelme", folder)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([7], "shape 0 is 7; an object is needed"),
        ([shape("polygon", [[1, 2], [3]])], "shape 0 has the points [[1, 2], [3]]; a list of [x, y]"),
        ([shape("polygon", [])], "shape 0 is a polygon without points"),
        ([shape("polygon", [[1, 2], [3, "x"], [5, 6]])], "shape 0 has a coordinate that is not a finite number"),
        ([shape("circle", [[1, 2]])], "shape 0 is a 'circle' of 1 point; accepted: polygon"),
        (
            [shape("rectangle", [[1, 2]])],
            "shape 0 is a 'rectangle' of 1 point; accepted: polygon, line, linestrip, "
            "rotation, quadrilateral, point, points; rectangle, mask of 2 or 4 points; circle of 2",
        ),
        ([shape("rectangle", [[1, 2], [3, 4], [5, 6]])], "shape 0 is a 'rectangle' of 3 points"),
        ([shape("cuboid", [[1, 2], [3, 4]])], "shape 0 is a 'cuboid' of 2 points; accepted: polygon"),
        ([shape(["x"], [[1, 2], [3, 4]])], "shape 0 is a ['x'] of 2 points"),
    ],
)
def test_what_is_wrong_with_a_shape_is_said(shapes: list, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, shapes)
    with pytest.raises(UserError, match=re.escape(f"{folder / 'a.json'}, {message}")):
        import_labels("labelme", folder)


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.json: an image has the file name 7"):
        import_labels("labelme", write(tmp_path / "a", [], imagePath=7))
    folder = write(tmp_path / "b", [])
    (folder / "a.json").write_text('{"shapes": [')
    with pytest.raises(UserError, match=r"a.json: not JSON"):
        import_labels("labelme", folder)
    for label in (None, " "):
        with pytest.raises(UserError, match="1 region without a value for class"):
            import_labels("labelme", write(tmp_path / f"c{label}", [shape("line", [[1, 1], [9, 9]], label)]))


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    """As LabelMe's own converter to COCO has it: what something in front cuts in two is one object."""
    left, right, other = ([[x, 5], [x + 5, 5], [x + 5, 15], [x, 15]] for x in (5, 30, 40))
    shapes = [
        shape("polygon", left, group_id=1),
        shape("polygon", other),
        shape("polygon", right, group_id=1),
        shape("polygon", right, "dog", group_id=1),
        shape("polygon", left, group_id=0),
    ]
    folder = write(tmp_path, shapes)
    splits = import_labels("labelme", folder)
    assert objects_of(splits)["a.png"] == [
        ("cat", [5, 5, 30, 10]),
        ("cat", [40, 5, 5, 10]),
        ("dog", [30, 5, 5, 10]),
        ("cat", [5, 5, 5, 10]),
    ]
    (one,) = [a for s in splits.values() for a in s.coco["annotations"] if a["bbox"] == [5, 5, 30, 10]]
    assert one["area"] == 100 and len(one["segmentation"]) == 2
