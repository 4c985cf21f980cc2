"""prep.py --yolo, --voc, --labelme: what was written is what is read, in every layout; a wrong flag names the right."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from detr.importers import notes
from detr.importers.formats import format_hint
from detr.importers.importer import READERS, import_labels
from detr.importers.label_folder import UNUSED_IMAGE, pair_key, split_of
from detr.importers.via.classes import ClassFlags
from detr.importers.yolo import UNUSED_NAME
from tests.conftest import RunScript
from tests.importers.label_files import (
    Labelled,
    box,
    labelme_text,
    objects_of,
    remarks_of,
    voc_text,
    write_flat,
    write_image,
    yolo_text,
)
from tests.importers.via.via_files import Drawn, rect, write_set
from utils import UserError

NAMES = ["zebra", "no", "traffic light"]
TWO = [Labelled(f"{name}.png", (60, 50), [("no", box(3, 4, 20, 30))]) for name in "ab"]


def random_images(rng: random.Random, are_boxes: bool) -> list[Labelled]:
    images = []
    for number in range(6):
        width, height = rng.randint(30, 400), rng.randint(30, 400)
        objects = []
        for _ in range(rng.randint(0, 30)):
            points = [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(rng.randint(3, 9))]
            xs, ys = zip(*points, strict=True)
            if are_boxes or rng.random() < 0.5:
                points = box(min(xs), min(ys), max(xs), max(ys))
            objects.append((rng.choice(NAMES), points))
        images.append(Labelled(f"im {number}.v2.png", (width, height), objects, rng.choice((1, 1, 3, 6, 8))))
    return images


@pytest.mark.parametrize("flag", READERS)
def test_what_is_written_is_read_back(flag: str, tmp_path: Path) -> None:
    for seed in range(5):
        images = random_images(random.Random(seed), are_boxes=flag == "voc")
        splits = import_labels(flag, write_flat(tmp_path / str(seed), flag, images, NAMES))
        objects = objects_of(splits)
        assert objects.keys() == {image.name for image in images}
        for image in images:
            assert [name for name, _ in objects[image.name]] == [name for name, _ in image.objects]
            for (_, points), (_, bbox) in zip(image.objects, objects[image.name], strict=True):
                (left, *_, right), (top, *_, bottom) = (sorted(values) for values in zip(*points, strict=True))
                assert bbox == pytest.approx([left, top, right - left, bottom - top], abs=1e-6)
        sizes = {i["file_name"]: (i["width"], i["height"]) for s in splits.values() for i in s.coco["images"]}
        assert sizes == {image.name: image.size_wh for image in images}


@pytest.mark.parametrize("flag", READERS)
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_turned_images_are_annotated_as_shown(flag: str, orientation: int, tmp_path: Path) -> None:
    image = Labelled("phone.jpg", (80, 50), [("no", box(60, 5, 78, 20))], orientation)
    splits = import_labels(flag, write_flat(tmp_path, flag, [image, TWO[0]], NAMES))
    assert objects_of(splits)["phone.jpg"] == [("no", pytest.approx([60, 5, 18, 15]))]


@pytest.mark.parametrize("flag", READERS)
def test_names_that_are_not_utf_8_are_to_be_changed(
    flag: str, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """As an old archive, unpacked on Linux, may have them."""
    folder, odd = write_flat(tmp_path / "in", flag, TWO, NAMES), os.fsdecode(b"caf\xe9")
    shutil.copytree(folder, tmp_path / "photos", ignore=lambda *_: ["a.png"])
    (tmp_path / "photos/b.png").rename(tmp_path / f"photos/{odd}.png")
    arguments = ("prep", f"--{flag}", folder, "--weights", "none")
    assert run(*arguments, "--background", tmp_path / "photos") == 2
    assert r"1 of 3 images cannot be used: 'caf\udce9.png': the name is not UTF-8; rename" in capsys.readouterr().err
    for path in sorted(folder.glob("a.*")):
        path.rename(path.with_stem(odd))
    assert run(*arguments) == 2 and not Path("data").exists()
    assert r"1 of 2 images cannot be used: 'caf\udce9.png': the name is not UTF-8; rename" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "as_text"), [("voc", voc_text), ("labelme", labelme_text)])
def test_files_that_list_the_stored_size_are_turned_upright(flag: str, as_text: object, tmp_path: Path) -> None:
    folder = write_flat(tmp_path, flag, TWO, NAMES)
    write_image(folder / "phone.jpg", (80, 50), 6)
    stored = Labelled("phone.jpg", (50, 80), [("no", box(5, 10, 20, 30))])
    (folder / f"phone.{'xml' if flag == 'voc' else 'json'}").write_text(as_text(stored))
    splits = import_labels(flag, folder)
    # EXIF 6: the stored top is the right edge, so that x = 80 - y and y = x.
    assert objects_of(splits)["phone.jpg"] == [("no", [50, 5, 20, 15])]
    assert remarks_of(splits)[notes.TURNED] == ["phone.jpg"]


# -------------------------------------------------------------------------------------------------------------- layouts

LAYOUTS = {  # folder of the images and of the label files of a split
    "Roboflow": ("{r}/images", "{r}/labels"),
    "Ultralytics": ("images/{s}", "labels/{s}"),
    "by split": ("{s}2017", "{s}2017"),
    "CVAT": ("obj_{s}_data", "obj_{s}_data"),
    "Train and Valid": ("{R}", "{R}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flag", READERS)
def test_splits_are_told_by_folders_and_test_is_not_used(flag: str, layout: str, tmp_path: Path) -> None:
    for split, wide in (("train", 40), ("val", 50), ("test", 60)):
        short = "valid" if split == "val" else split
        images, labels = (tmp_path / part.format(s=split, r=short, R=short.capitalize()) for part in LAYOUTS[layout])
        image = Labelled("same.png", (wide, 50), [("no", box(3, 4, wide - 9, 30))])
        write_image(images / image.name, image.size_wh)
        labels.mkdir(parents=True, exist_ok=True)
        texts = {"yolo": yolo_text(image, NAMES), "voc": voc_text(image), "labelme": labelme_text(image)}
        (labels / f"same.{ {'yolo': 'txt', 'voc': 'xml', 'labelme': 'json'}[flag] }").write_text(texts[flag])
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    splits = import_labels(flag, tmp_path)
    assert [split.coco["annotations"][0]["bbox"][2] for split in splits.values()] == pytest.approx([28, 38])
    assert [len(split.origins) for split in splits.values()] == [1, 1]
    (unused,) = remarks_of(splits)[UNUSED_IMAGE]
    assert "test" in unused.lower()


@pytest.mark.parametrize("flag", READERS)
def test_one_split_alone_is_divided_and_said(flag: str, tmp_path: Path) -> None:
    write_flat(tmp_path / "train", flag, TWO, NAMES)
    splits = import_labels(flag, tmp_path)
    assert [len(split.origins) for split in splits.values()] == [1, 1]
    assert remarks_of(splits)[notes.ONE_SPLIT] == ["train"]


def test_names_of_images_and_labels_are_paired() -> None:
    pairs = [
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("images/train/cam/a.b.jpg", "labels/train/cam/a.b.txt"),
        ("VOC2007/JPEGImages/a.jpg", "VOC2007/Annotations/a.xml"),
        ("e\u0301.jpg", "\u00e9.json"),
    ]
    assert all(pair_key(Path(image)) == pair_key(Path(label)) for image, label in pairs)
    assert pair_key(Path("cam1/a.jpg")) != pair_key(Path("cam2/a.txt"))
    assert [split_of(Path(path)) for path in ("Valid/a.jpg", "train.jpg", "training/a.jpg")] == ["val", "", ""]


# ---------------------------------------------------------------------------------------------- images, classes, flags


@pytest.mark.parametrize("flag", READERS)
def test_images_may_lie_elsewhere_and_missing_and_damaged_ones_are_named_together(
    flag: str, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    images = [*TWO, TWO[0]._replace(name="gone.png"), TWO[0]._replace(name="cut.png")]
    folder, photos = write_flat(tmp_path / "labels", flag, images, NAMES), tmp_path / "photos"
    photos.mkdir()
    for image in images:
        (folder / image.name).rename(photos / image.name)
    (photos / "gone.png").unlink()
    (photos / "cut.png").write_bytes((photos / "cut.png").read_bytes()[:60])
    arguments = ("prep", f"--{flag}", folder, "--images", photos, "--weights", "none")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "2 of 4 images cannot be used" in error and "gone." in error and "no such image" in error
    assert "cut.png: " in error and not Path("data").exists()
    assert run(*arguments, "--skip_bad_images") == 0
    assert {path.name for path in Path("data/custom").glob("*2017/*")} == {"a.png", "b.png"}
    assert run(*arguments[:3], "--images", tmp_path / "missing") == 2
    assert f"--images {tmp_path / 'missing'}: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("flag", READERS)
def test_class_flags_select_order_and_merge_classes(flag: str, tmp_path: Path) -> None:
    both = [("zebra", box(1, 1, 9, 9)), ("no", box(3, 4, 20, 30))]
    folder = write_flat(tmp_path, flag, [image._replace(objects=both) for image in TWO], NAMES)

    def classes(flags: ClassFlags) -> list[str]:
        return [
            category["name"] for category in import_labels(flag, folder, class_flags=flags)["val"].coco["categories"]
        ]

    assert classes(ClassFlags()) == (["zebra", "no"] if flag == "yolo" else ["no", "zebra"])
    assert classes(ClassFlags(categories=("no", "zebra"))) == ["no", "zebra"]
    assert classes(ClassFlags(categories=("zebra",))) == ["zebra"]
    assert classes(ClassFlags(one_class="thing")) == ["thing"]
    unused = remarks_of(import_labels(flag, folder)).get(UNUSED_NAME)
    assert unused == (["traffic light"] if flag == "yolo" else None)
    with pytest.raises(UserError, match=r"--categories names wolf, of which there is no region"):
        classes(ClassFlags(categories=("wolf",)))


@pytest.mark.parametrize(
    ("flag", "refused"),
    [
        *(("yolo", name) for name in ("attribute", "checked", "unlabelled", "skip_unlabelled")),
        *((flag, name) for flag in ("voc", "labelme") for name in ("attribute", "checked")),
    ],
)
def test_flags_without_a_meaning_are_refused(
    flag: str, refused: str, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    value = {"checked": ["first"], "skip_unlabelled": []}.get(refused, ["kind"])
    assert run("prep", f"--{flag}", "missing", f"--{refused}", *value) == 2
    error = capsys.readouterr().err
    assert f"--{flag} and --{refused}" in error and error.count("\n") == 1


@pytest.mark.parametrize("given", [*READERS, "via", "coco"])
@pytest.mark.parametrize("flag", [*READERS, "via", "coco"])
def test_the_message_about_a_wrong_flag_names_the_right_one(
    flag: str, given: str, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "set"
    if flag == "via":
        write_set(folder, [Drawn("a.png", (60, 50), [(rect(3, 3, 9, 9), {"what": "cat"})])])
    elif flag == "coco":
        write_image(folder / "train2017/a.png", (60, 50))
        (folder / "annotations").mkdir()
        (folder / "annotations/instances_train2017.json").write_text(
            '{"images": [], "annotations": [], "categories": []}'
        )
    else:
        write_flat(folder, flag, TWO, NAMES)
    code = run("prep", f"--{given}", folder, "--weights", "none")
    error = capsys.readouterr().err
    if given == flag:
        assert (code == 2) is (flag == "coco") and "It looks like" not in error
    else:
        assert code == 2 and error.endswith(f"It looks like {flag}: try --{flag} {folder}\n"), error
        assert error.count("\n") == 1


def test_a_single_file_of_another_format_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<?xml version="1.0"?>\n<annotation verified="yes"><filename>a.jpg</filename></annotation>'
    )
    assert format_hint("via", tmp_path / "a.xml") == f". It looks like voc: try --voc {tmp_path}"


def test_nothing_is_guessed_about_other_folders(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("one two three four five\n")
    (tmp_path / "list.txt").write_text("images/a.jpg\n")
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "a.xml").write_text("<html></html>")
    assert format_hint("via", tmp_path) == "" == format_hint("via", tmp_path / "missing")
