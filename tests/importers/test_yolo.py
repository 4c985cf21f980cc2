"""YOLO: data.yaml as people have it, lines as tools write them, and what is wrong with either."""

import re
from pathlib import Path

import pytest

from detr.importers import notes
from detr.importers.importer import import_labels
from detr.importers.yolo import NOT_HERE
from tests.importers.label_files import Labelled, box, objects_of, remarks_of, write_flat, write_image, yolo_text
from utils import UserError

IMAGE = Labelled("a.png", (100, 50), [("cat", box(10, 10, 30, 40))])
LINE = "1 0.2 0.5 0.2 0.6"
BOX = pytest.approx([10, 10, 20, 30])


def write(folder: Path, labels: dict[str, str], names: str = "names: [dog, cat]") -> Path:
    """Images a.png, b.png, ... with these label files."""
    (folder / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(names, encoding="utf-8")
    for name, text in labels.items():
        write_image(folder / f"images/{name}.png", (100, 50))
        (folder / "labels").mkdir(exist_ok=True)
        (folder / f"labels/{name}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        "names: [dog, cat]",
        "names: ['dog', \"cat\"]  # two\nnc: 2",
        "names:\n- dog\n- cat\n",
        "names:\n  0: dog\n  1: cat\n",
        "nc: 2\nnames: {1: cat, 0: dog}\nkpt_shape_: [2, 3]",
        "names:\n  10: wolf\n  1: cat\n",
    ],
)
def test_class_names_are_a_list_or_a_dict(names: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": LINE}, names)
    assert objects_of(import_labels("yolo", folder))["a.png"] == [("cat", BOX)]
    assert objects_of(import_labels("yolo", folder / "data.yaml"))["b.png"] == [("cat", BOX)]


def test_names_that_yaml_takes_for_something_else_stay_texts(tmp_path: Path) -> None:
    names = ["no", "1.0", "2020-01-01", "null", "~"]
    folder = write(
        tmp_path, {"a": "\n".join(f"{n}{LINE[1:]}" for n in range(5)), "b": LINE}, f"names: [{', '.join(names)}]"
    )
    splits = import_labels("yolo", folder)
    assert [category["name"] for category in splits["train"].coco["categories"]] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: [dog, dog]", "data.yaml: several classes are named 'dog'"),
        ("names: [dog, [cat]]", "data.yaml: the class names are "),
        ("names: {a: dog}", "data.yaml: the class names are "),
        ("names: []", "data.yaml: the class names are "),
        ("names: [dog, ", "data.yaml: not YAML ("),
        ("nc: 2", "one data.yaml or classes.txt must name the classes; found none"),
    ],
)
def test_odd_class_names_are_refused(names: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        import_labels("yolo", write(tmp_path, {"a": LINE, "b": LINE}, names))


def test_of_several_lists_of_names_one_must_be_named(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": LINE})
    (folder / "other.yaml").write_text("names: [x, y]")
    assert objects_of(import_labels("yolo", folder))["a.png"] == [("cat", BOX)]  # data.yaml comes first
    assert objects_of(import_labels("yolo", folder / "other.yaml"))["a.png"] == [("y", BOX)]
    (folder / "data.yaml").rename(folder / "mine.yaml")
    with pytest.raises(UserError, match=r"several files name classes: .*mine.yaml, .*other.yaml"):
        import_labels("yolo", folder)


# --------------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("keys", "train", "val"),
    [
        ("train: one\nval: two", {"a"}, {"b"}),
        ("path: .\ntrain: [one, three]\nval: [two]", {"a", "c"}, {"b"}),
        ("path: /content/set\ntrain: one/\nval: ./two", {"a"}, {"b"}),
        ("train: ../one\nval: ../two", {"a"}, {"b"}),  # Roboflow
        ("train: listed.txt\nval: two", {"c", "b"}, {"b"}),
    ],
)
def test_splits_are_what_data_yaml_says(keys: str, train: set, val: set, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name, place in (("a", "one"), ("b", "two"), ("c", "three")):
        write_flat(folder / place, "yolo", [IMAGE._replace(name=f"{name}.png")], ["dog", "cat"])
    (folder / "data.yaml").write_text(f"{keys}\nnames: [dog, cat]\n")
    (folder / "listed.txt").write_text("./three/c.png\n\n/home/somebody/two/b.png\n")
    splits = import_labels("yolo", folder)
    assert [{path.stem for path in split.origins} for split in splits.values()] == [train, val]
    assert all(objects == [("cat", BOX)] for objects in objects_of(splits).values())


@pytest.mark.parametrize("val", ["images", ""])
def test_one_folder_for_both_splits_or_for_one_is_divided(val: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": LINE}, f"train: images\nval: {val}\nnames: [dog, cat]")
    splits = import_labels("yolo", folder)
    assert [len(split.origins) for split in splits.values()] == [1, 1]
    assert notes.ONE_SPLIT in remarks_of(splits)


def test_data_yaml_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "outside/x.png", (100, 50))
    keys = f"path: {tmp_path}\ntrain: outside\nval: ../outside\nnames: [dog, cat]"
    splits = import_labels("yolo", write(tmp_path / "set", {"a": LINE, "b": LINE}, keys))
    assert {path.name for split in splits.values() for path in split.origins} == {"a.png", "b.png"}
    assert remarks_of(splits)[NOT_HERE] == ["train: outside"]


# --------------------------------------------------------------------------------------------------------------- labels


def test_boxes_polygons_and_poses(tmp_path: Path) -> None:
    lines = f"{LINE}\n\n0 0.1 0.2 0.5 0.2 0.3 0.8\r\n"
    objects = objects_of(import_labels("yolo", write(tmp_path / "a", {"a": lines, "b": LINE})))
    assert objects["a.png"] == [("cat", BOX), ("dog", pytest.approx([10, 10, 40, 30]))]
    pose = write(
        tmp_path / "b", {"a": f"{LINE} 0.1 0.1 2 0.3 0.3 1", "b": LINE}, "names: [dog, cat]\nkpt_shape: [2, 3]"
    )
    assert objects_of(import_labels("yolo", pose))["a.png"] == [("cat", BOX)]


def test_an_image_without_a_label_file_or_with_an_empty_one_has_no_objects(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": "", "c": LINE})
    (folder / "labels/c.txt").unlink()
    assert objects_of(import_labels("yolo", folder)) == {"a.png": [("cat", BOX)], "b.png": [], "c.png": []}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.1 0.1 0.1 0.1", "class 2 has no name; there are names for 0 to 1"),
        ("-1 0.1 0.1 0.1 0.1", "class -1 has no name"),
        ("0.5 0.1 0.1 0.1 0.1", "class 0.5 has no name"),
        ("0 0.1 0.1", "3 numbers; accepted: class cx cy w h"),
        ("0", "1 number; accepted"),
        ("0 0.1 0.1 0.1 0.1 0.9", "6 numbers; accepted"),
        ("0 0.1 0.1 0.5 0.1 0.3", "6 numbers; accepted"),
        ("0 10 10 30 40", "has 10; shares of the image's width and height are needed"),
        ("0 nan 0.1 0.1 0.1", "has nan; shares"),
        ("0 0.5 0.5 -0.1 0.1", "a box of -0.1 x 0.1"),
        ("cat 0.1 0.1 0.1 0.1", "'cat 0.1 0.1 0.1 0.1' is not a row of numbers"),
    ],
)
def test_lines_that_are_wrong_are_named(line: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": f"{LINE}\n\n{line}\n", "b": LINE})
    with pytest.raises(UserError, match=re.escape(f"{folder / 'labels/a.txt'}, line 3: {message}")):
        import_labels("yolo", folder)


def test_a_label_file_without_its_image_is_a_missing_image_and_other_texts_are_not(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": LINE})
    (folder / "README.dataset.txt").write_text("Exported by somebody\n")
    (folder / "labels/notes.txt").write_text("")
    import_labels("yolo", folder)
    (folder / "labels/orphan.txt").write_text(LINE)
    with pytest.raises(UserError, match=r"1 of 3 images cannot be used: labels/orphan.\*: no such image"):
        import_labels("yolo", folder)
    splits = import_labels("yolo", folder, skip_bad_images=True)
    assert len(objects_of(splits)) == 2


def test_boxes_that_rounding_puts_over_the_edge_are_not_remarked_and_others_are_clipped(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": "1 0.999 0.5 0.0021 1.00003", "b": "0 0.95 0.5 0.2 0.2"})
    splits = import_labels("yolo", folder)
    objects = objects_of(splits)
    assert objects["a.png"] == [("cat", pytest.approx([99.795, 0, 0.205, 50]))]
    assert objects["b.png"] == [("dog", pytest.approx([85, 20, 15, 10]))]
    assert remarks_of(splits)[notes.CLIPPED] == ["images/b.png, region line 1"]


def test_two_label_files_of_one_image_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {"a": LINE, "b": LINE})
    (folder / "a.txt").write_text(yolo_text(IMAGE, ["dog", "cat"]))
    with pytest.raises(UserError, match=r"a.txt and labels/a.txt both belong to one image"):
        import_labels("yolo", folder)
