"""prep.py --coco: every layout gives one and the same folder, bad files are listed together, crowds stay crowds."""

import copy
import json
import random
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from pycocotools import mask

from detr.data.coco_json import read_coco
from detr.importers.coco import UNUSED_FILE, read_coco_folder, safe_names
from detr.importers.dataset_report import TrainingSizes, describe
from detr.importers.dataset_text import lines_of
from detr.importers.notes import ONE_SPLIT
from tests.conftest import RunScript
from utils import UserError

OURS = {"train": "annotations/custom_train.json", "val": "annotations/custom_val.json"}


def small_coco(split: str) -> dict:
    """3 images of which one has no objects; category ids with a gap, ids that do not begin at 1."""
    images = [{"id": 7 + n, "file_name": f"{split}{n}.png", "width": 60 + n, "height": 40} for n in range(3)]
    boxes = [(7, 2, [5, 5, 20, 10]), (7, 9, [30, 6.5, 20, 20]), (9, 9, [0, 0, 62, 40])]
    annotations = [
        {"id": 11 + n, "image_id": image, "category_id": category, "bbox": box, "area": 100, "segmentation": []}
        for n, (image, category, box) in enumerate(boxes)
    ]
    categories = [{"id": 2, "name": "cat", "supercategory": "pets"}, {"id": 9, "name": "dog"}]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def write_image(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (seed * 40 % 256, seed * 90 % 256, 90))
    x = 10 + 7 * seed % 40
    ImageDraw.Draw(image).rectangle((x, 5, x + 9, 30), "white")
    image.save(path)


LAYOUTS = {  # annotation files, and where each split's images lie
    "ours": (OURS, {"train": "train2017", "val": "val2017"}),
    "official": (
        {"train": "annotations/instances_train2017.json", "val": "annotations/instances_val2017.json"},
        {"train": "train2017", "val": "val2017"},
    ),
    "cvat": (
        {"train": "annotations/instances_Train.json", "val": "annotations/instances_Validation.json"},
        {"train": "images/Train", "val": "images/Validation"},
    ),
    "cvat, one folder": (
        {"train": "annotations/instances_train.json", "val": "annotations/instances_val.json"},
        {"train": "images", "val": "images"},
    ),
    "roboflow": (
        {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"},
        {"train": "train", "val": "valid"},
    ),
}


def write_layout(folder: Path, layout: str = "ours", **cocos: dict) -> Path:
    """A COCO folder in a layout; `cocos` replace the annotations of a split."""
    files, folders = LAYOUTS[layout]
    for split, file in files.items():
        coco = small_coco(split)
        for seed, image in enumerate(coco["images"]):
            write_image(folder / folders[split] / image["file_name"], (image["width"], 40), seed + 3 * (split == "val"))
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(cocos.get(split, coco)))
    return folder


def both(change: object) -> dict[str, dict]:
    """The small data set after `change(coco)` of each split."""
    cocos = {split: small_coco(split) for split in OURS}
    for coco in cocos.values():
        change(coco)
    return cocos


# -------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_folder(layout: str, tmp_path: Path, run: RunScript) -> None:
    write_layout(tmp_path / "in", layout)
    assert run("prep", "--coco", tmp_path / "in", "--weights", "none") == 0
    for split in OURS:
        wanted = small_coco(split)
        coco = read_coco(Path("data/custom") / OURS[split])
        assert coco["categories"] == [{"id": 2, "name": "cat"}, {"id": 9, "name": "dog"}]
        assert coco["images"] == wanted["images"]
        assert coco["annotations"] == [annotation | {"iscrowd": 0} for annotation in wanted["annotations"]]
        for image in wanted["images"]:
            copied = Path("data/custom") / f"{split}2017" / image["file_name"]
            assert copied.read_bytes() == (tmp_path / "in" / LAYOUTS[layout][1][split] / copied.name).read_bytes()
        assert json.loads(Path("data/custom/report.json").read_text())["splits"][split]["notes"] == []


def test_images_that_are_not_to_be_divided_are_validated_on_too(tmp_path: Path, run: RunScript) -> None:
    coco = small_coco("train")
    for seed, image in enumerate(coco["images"]):
        write_image(tmp_path / "in" / "images" / image["file_name"], (image["width"], 40), seed)
    (tmp_path / "in" / "result.json").write_text(json.dumps(coco))
    assert run("prep", "--coco", tmp_path / "in", "--weights", "none", "--val_fraction", "0") == 0
    train, val = (read_coco(Path("data/custom") / OURS[split]) for split in OURS)
    assert train == val and len(val["images"]) == 3
    assert json.loads(Path("data/custom/report.json").read_text())["validates_on_training"] is True
    assert run("prep", "--coco", tmp_path / "in", "--weights", "none", "--keep_partial") == 2


def test_what_was_prepared_can_be_prepared_again_in_place(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    from detr.data.dataset import load_folder
    from tests.data.test_dataset import evaluation_params

    write_layout(tmp_path / "in")
    assert run("prep", "--coco", tmp_path / "in", "--weights", "none") == 0
    made = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    assert run("prep", "--coco", "data/custom", "--weights", "none") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == made
    assert "--num_classes 2" in capsys.readouterr().out
    assert load_folder(Path("data/custom"), "custom", evaluation_params, evaluation_params, 0).num_classes == 2


def test_roboflow_s_category_0_is_dropped_where_it_is_not_used(tmp_path: Path) -> None:
    def add_category_0(coco: dict) -> None:
        coco["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})

    cocos = both(add_category_0)
    write_layout(tmp_path / "in", "roboflow", **cocos)
    shutil.copytree(tmp_path / "in/valid", tmp_path / "in/test")
    splits = read_coco_folder(tmp_path / "in")
    assert [category["id"] for category in splits["val"].coco["categories"]] == [2, 9]
    assert splits["train"].notes == {
        "annotation files of neither train nor val, not used": ["test/_annotations.coco.json"],
        "supercategory without objects among the categories, dropped": ["pets"],
    }
    assert splits["val"].notes == {}
    cocos["val"]["annotations"][0]["category_id"] = 0
    write_layout(tmp_path / "used", "roboflow", **cocos)
    splits = read_coco_folder(tmp_path / "used")
    assert splits["train"].coco["categories"] == [
        {"id": n, "name": w} for n, w in ((1, "pets"), (2, "cat"), (3, "dog"))
    ]
    assert splits["val"].coco["annotations"][0]["category_id"] == 1
    assert splits["train"].coco["annotations"][0]["category_id"] == 2


def test_supercategories_without_objects_are_dropped_whatever_their_id(tmp_path: Path) -> None:
    def add_root(coco: dict) -> None:
        coco["categories"] += [
            {"id": 40, "name": "pets", "supercategory": "none"},
            {"id": 41, "name": "horse", "supercategory": "pets"},  # no object, but a class
        ]

    splits = read_coco_folder(write_layout(tmp_path / "in", **both(add_root)))
    assert [category["name"] for category in splits["train"].coco["categories"]] == ["cat", "dog", "horse"]
    cocos = both(add_root)
    cocos["val"]["annotations"][0]["category_id"] = 40
    splits = read_coco_folder(write_layout(tmp_path / "used", **cocos))
    assert [category["name"] for category in splits["train"].coco["categories"]] == ["cat", "dog", "pets", "horse"]


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (["test/_annotations.coco.json"], "test/_annotations.coco.json"),
        (["train/_annotations.coco.json", "test/_annotations.coco.json"], "train/_annotations.coco.json"),
        (["annotations/instances_val2017.json"], "annotations/instances_val2017.json"),
        (["annotations/custom_train.json", "annotations/custom_test.json"], "annotations/custom_train.json"),
    ],
)
def test_one_split_alone_is_divided_and_said(names: list[str], used: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(small_coco("train" if name == used else "val")))
    images = tmp_path / (Path(used).parent.name if "_annotations" in used else ".")
    for seed, image in enumerate(small_coco("train")["images"]):
        write_image(images / image["file_name"], (60 + seed, 40), 0)
    splits = read_coco_folder(tmp_path)
    assert sorted(path.name for split in splits.values() for path in split.origins) == [
        f"train{n}.png" for n in range(3)
    ]
    assert splits["train"].notes[ONE_SPLIT] == [used]
    unused = splits["train"].notes.get(UNUSED_FILE, [])
    assert [*unused, used] == sorted(names)


def test_classes_are_chosen_or_made_one(tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    folder = write_layout(tmp_path / "in")
    whole = read_coco_folder(folder)
    for names, one in ((("dog",), None), (("dog", "cat"), None), ((), "pet")):
        for split, part in read_coco_folder(folder, categories=names, one_class=one).items():
            before, coco = whole[split].coco, part.coco
            assert [c["name"] for c in coco["categories"]] == list(names) or [one]
            assert len(coco["images"]) == len(before["images"])
            old = {c["id"]: c["name"] for c in before["categories"]}
            new = {c["id"]: c["name"] for c in coco["categories"]}
            expected = [(a["bbox"], one or old[a["category_id"]]) for a in before["annotations"]]
            expected = [pair for pair in expected if one or pair[1] in names]
            assert [(a["bbox"], new[a["category_id"]]) for a in coco["annotations"]] == expected
    assert run("prep", "--coco", folder, "--weights", "none", "--categories", "cow") == 2
    error = capsys.readouterr().err
    assert "cow" in error and "cat, dog" in error
    assert run("prep", "--coco", folder, "--weights", "none", "--attribute", "name") == 2
    assert "--attribute" in capsys.readouterr().err


def test_images_may_lie_in_a_folder_of_their_own(tmp_path: Path, run: RunScript) -> None:
    folder = write_layout(tmp_path / "in")
    (tmp_path / "photos").mkdir()
    for split in ("train", "val"):
        (folder / f"{split}2017").rename(tmp_path / "photos" / f"{split}2017")
    assert run("prep", "--coco", folder, "--weights", "none") == 2
    assert run("prep", "--coco", folder, "--images", tmp_path / "photos", "--weights", "none") == 0
    assert run("prep", "--coco", folder, "--images", tmp_path / "gone", "--weights", "none") == 2


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize(("listed", "annotated"), list(product(("stored", "upright"), repeat=2)))
def test_annotations_of_turned_images_fit_the_upright_ones(
    listed: str, annotated: str, orientation: int, tmp_path: Path
) -> None:
    """A bright bar in a dark image: wherever its box and polygon were listed, they end up around its upright pixels."""
    stored = np.zeros((40, 100), np.uint8)
    stored[10:20, 50:95] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = tmp_path / "in"
    cocos = {}
    for split in ("train", "val"):
        (folder / f"{split}2017").mkdir(parents=True)
        path = folder / f"{split}2017" / "a.png"
        Image.fromarray(stored).save(path, exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        pixels = stored if annotated == "stored" else upright
        y, x = np.nonzero(pixels)
        left, top, right, bottom = (float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
        box = [left, top, right - left, bottom - top]
        polygon = [left, top, right, top, right, bottom]
        height, width = (stored if listed == "stored" else upright).shape
        rle = mask.encode(np.asfortranarray(pixels > 0).astype(np.uint8))
        packed = {"size": rle["size"], "counts": rle["counts"].decode()}
        cocos[split] = {
            "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
            "categories": [{"id": 1, "name": "bar"}],
            "annotations": [
                {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "segmentation": segmentation}
                for n, segmentation in enumerate(([polygon], packed), start=1)
            ],
        }
    splits = read_coco_folder(write_files(folder, cocos))
    for split in splits.values():
        (image,), (first, second) = split.coco["images"], split.coco["annotations"]
        assert (image["height"], image["width"]) == upright.shape
        y, x = np.nonzero(upright)
        assert first["bbox"] == second["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        xs, ys = first["segmentation"][0][::2], first["segmentation"][0][1::2]
        assert (min(xs), min(ys), max(xs), max(ys)) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        rle = second["segmentation"]
        rle = mask.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle
        np.testing.assert_array_equal(mask.decode(rle) > 0, upright > 0)
        assert ("regions turned upright" in " ".join(split.notes)) == (annotated == "stored")


def write_files(folder: Path, cocos: dict[str, dict]) -> Path:
    (folder / "annotations").mkdir(parents=True)
    for split, coco in cocos.items():
        (folder / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return folder


def test_what_is_white_in_deep_images_is_kept(tmp_path: Path) -> None:
    splits = read_coco_folder(write_layout(tmp_path / "in", **both(lambda c: c.update(info={"white": {"I": 4095}}))))
    assert all(split.coco["info"] == {"white": {"I": 4095}} for split in splits.values())
    assert all("info" not in split.coco for split in read_coco_folder(write_layout(tmp_path / "plain")).values())


def test_ids_start_at_1_where_they_did_not(tmp_path: Path) -> None:
    def from_0(coco: dict) -> None:
        for image in coco["images"]:
            image["id"] -= 7
        for annotation in coco["annotations"]:
            annotation["id"] -= 11
            annotation["image_id"] -= 7

    splits = read_coco_folder(write_layout(tmp_path / "in", **both(from_0)))
    coco = splits["train"].coco
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in coco["annotations"]] == [
        (1, 1, 2),
        (2, 1, 9),
        (3, 3, 9),
    ]


def test_folders_that_are_in_no_layout_are_refused(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "in"
    refusals = [
        (lambda: None, f"--coco {folder}: no such folder"),
        (lambda: folder.write_text("{}"), f"--coco {folder}: is a file; give its folder"),
        (
            lambda: folder.unlink() or folder.mkdir(),
            f"{folder}: no annotation file for train; accepted: annotations/instances_train*.json with",
        ),
        (
            lambda: [(folder / name).write_text("{}") for name in ("result.json", "b.json")],
            f"{folder}: no annotation file for train; found b.json, result.json; accepted: ",
        ),
        (lambda: write_layout(folder) and (folder / OURS["val"]).unlink(), "no annotation file for val"),
        (
            lambda: write_layout(folder, "official"),
            "custom_train.json, annotations/instances_train2017.json; leave one",
        ),
    ]
    for prepare, message in refusals:
        prepare()
        assert run("prep", "--coco", folder, "--weights", "none") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not Path("data").exists()
    assert run("prep", "--coco", folder, "--sample") == 2
    assert "error: --sample and --coco each name the images to use" in capsys.readouterr().err


def test_splits_with_other_classes_or_without_images_are_refused(tmp_path: Path) -> None:
    other = small_coco("val") | {"categories": [{"id": 2, "name": "cat"}, {"id": 9, "name": "wolf"}]}
    with pytest.raises(UserError, match=r"custom_val.json: its categories differ from those of .*custom_train.json"):
        read_coco_folder(write_layout(tmp_path / "a", val=other))
    empty = small_coco("val") | {"images": [], "annotations": []}
    with pytest.raises(UserError, match=r"custom_val.json: lists no images"):
        read_coco_folder(write_layout(tmp_path / "b", val=empty))
    twins = both(lambda coco: coco["categories"].append({"id": 11, "name": "cat"}))
    with pytest.raises(UserError, match=r"several categories are named 'cat'"):
        read_coco_folder(write_layout(tmp_path / "c", **twins))
    odd = both(lambda coco: coco["categories"].append({"id": 11, "name": "a\nb"}))
    with pytest.raises(UserError, match=r"a category is named 'a\\nb'; a name on one line"):
        read_coco_folder(write_layout(tmp_path / "d", **odd))


def test_without_an_object_there_is_nothing_to_learn(tmp_path: Path) -> None:
    def empty(coco: dict) -> None:
        coco["annotations"] = []

    folder = write_layout(tmp_path / "in", **both(empty))
    with pytest.raises(UserError, match=r"in: no object to learn from is left: there are no annotations"):
        read_coco_folder(folder)
    outside = both(lambda coco: [annotation.update(bbox=[99, 0, 5, 5]) for annotation in coco["annotations"]])
    with pytest.raises(UserError, match=r"in: no object to learn from is left: boxes without area or outside"):
        read_coco_folder(write_layout(folder, **outside))


def test_a_category_is_above_others_only_where_one_says_so(tmp_path: Path) -> None:
    def add_unused(coco: dict) -> None:
        coco["categories"] += [{"id": 0, "name": "fox"}, {"id": 40, "name": "person", "supercategory": "person"}]
        coco["categories"] += [{"id": 41, "name": "cat", "supercategory": "none"}]  # a project named as its class
        coco["categories"][0]["supercategory"] = "cat"

    split = read_coco_folder(write_layout(tmp_path / "in", **both(add_unused)))["train"]
    assert {category["name"] for category in split.coco["categories"]} == {"cat", "dog", "fox", "person"}


# --------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        ("images/1/a.jpg", ["images/1/a.jpg"]),
        ("images\\1\\a.jpg", ["images\\1\\a.jpg", "images/1/a.jpg"]),
        ("./a%20b.jpg", ["a%20b.jpg", "a b.jpg"]),
        ("x:1.jpg", ["x:1.jpg", "1.jpg"]),
        ("/data/upload/1/a.jpg", ["a.jpg"]),
        *((hostile, ["a.jpg"]) for hostile in ("../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "//host/share/a.jpg")),
        ("x\\..\\a.jpg", ["x\\..\\a.jpg", "a.jpg"]),
        ("%2e%2e/a.jpg", ["%2e%2e/a.jpg", "a.jpg"]),
        ("a%0a.jpg", ["a%0a.jpg"]),
        *((odd, []) for odd in ("a\0.jpg", "a\n.jpg", "a\x1b[2J.jpg", ".", "..", "x/..", "/")),
    ],
)
def test_names_never_lead_out_of_the_folder(listed: str, names: list[str]) -> None:
    assert safe_names(listed) == names


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("b.png", "b.PNG"),
        ("0-my%20photo.png", "0-my photo.png"),
        ("/data/upload/1/x.png", "x.png"),
        ("../../label-studio/data/media/upload/1/my%20x.png", "my x.PNG"),
        ("x:train1.png", "x:train1.png"),
    ],
)
@pytest.mark.parametrize("place", ["images", "."])
def test_images_are_found_by_other_spellings(listed: str, there: str, place: str, tmp_path: Path) -> None:
    coco = small_coco("train")
    for seed, image in enumerate(coco["images"]):
        write_image(tmp_path / "in" / place / (image["file_name"] if seed else there), (60 + seed, 40), seed)
    coco["images"][0]["file_name"] = listed
    (tmp_path / "in/result.json").write_text(json.dumps(coco))
    split = read_coco_folder(tmp_path / "in", val_fraction=0)["train"]
    assert split.origins[0] == tmp_path / "in" / place / there and split.coco["images"][0]["file_name"] == there
    twin = coco["images"][0] | {"id": 99, "file_name": there}
    (tmp_path / "in/result.json").write_text(json.dumps(coco | {"images": [*coco["images"], twin]}))
    with pytest.raises(UserError, match=r" is listed twice"):
        read_coco_folder(tmp_path / "in", val_fraction=0)


def test_of_two_folders_that_are_not_here_neither_image_is_taken(tmp_path: Path) -> None:
    coco, folder = small_coco("train"), tmp_path / "in"
    for seed, image in enumerate(coco["images"]):
        write_image(folder / image["file_name"], (60 + seed, 40), seed)
    name = coco["images"][0]["file_name"]
    coco["images"][0]["file_name"] = f"/d/a/{name}"
    coco["images"].append(coco["images"][0] | {"id": 99, "file_name": f"/d/b/{name}"})
    (folder / "result.json").write_text(json.dumps(coco))
    with pytest.raises(UserError, match=rf"{name} is listed twice, as /d/a/{name} and as /d/b/{name}"):
        read_coco_folder(folder, val_fraction=0)
    split = read_coco_folder(folder, val_fraction=0, skip_bad_images=True)["train"]
    assert name not in {image["file_name"] for image in split.coco["images"]}


def test_images_in_subfolders_keep_them(tmp_path: Path, run: RunScript) -> None:
    def move(coco: dict) -> None:
        coco["images"][0]["file_name"] = "day 1\\" + coco["images"][0]["file_name"]

    folder = write_layout(tmp_path / "in", "cvat, one folder", **both(move))
    (folder / "images/day 1").mkdir()
    (folder / "images/train0.png").rename(folder / "images/day 1/train0.png")
    (folder / "images/val0.png").rename(folder / "images/day 1/val0.png")
    assert run("prep", "--coco", folder, "--weights", "none") == 0
    assert Path("data/custom/train2017/day 1/train0.png").is_file()
    assert read_coco(Path("data/custom") / OURS["train"])["images"][0]["file_name"] == "day 1/train0.png"


def test_all_images_that_do_not_fit_are_listed_at_once(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    train, val = small_coco("train"), small_coco("val")
    extra = [("../out.png", 60), ("train0.png", 60), ("link.png", 60), ("x" * 300, 60), ("turned.jpg", 40)]
    for number, (name, width) in enumerate(extra):
        train["images"].append({"id": 100 + number, "file_name": name, "width": width, "height": 100 - width})
    folder = write_layout(tmp_path / "in", train=train, val=val)
    write_image(tmp_path / "out.png", (60, 40), 0)
    (folder / "train2017/link.png").symlink_to(tmp_path / "out.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (41, 60)).save(folder / "train2017/turned.jpg", exif=exif)  # upright it is 60 wide, 41 high
    (folder / "train2017/train1.png").unlink()
    cut = folder / "val2017/val0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    (folder / "val2017/val1.png").write_text("not an image")
    write_image(folder / "val2017/val2.png", (50, 40), 0)
    assert run("prep", "--coco", folder, "--weights", "none") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 9 of 11 images do not fit:\n") and error.count("\n") == 11, error
    assert error.endswith("--skip_bad_images leaves them out\n")
    for message in (
        f"../out.png: no such image in {folder}",
        f"train1.png: no such image in {folder} (looked into train2017, train, images/train, images, .)",
        "custom_train.json: train0.png is listed twice",
        f"train2017/link.png: a link that leads out of {folder}",
        "xxx': no such image",
        "turned.jpg: the file has 60x41 pixels, the annotations say 40x60",
        "val0.png: the image is damaged",
        "val1.png: not an image",
        "val2.png: the file has 50x40 pixels, the annotations say 62x40",
    ):
        assert message in error, error
    assert not Path("data").exists()


# -------------------------------------------------------------------------------------------------------- boxes, crowds


def test_boxes_are_clipped_dropped_and_counted(tmp_path: Path) -> None:
    train = small_coco("train")
    boxes = [
        [-5, 5, 20, 10],
        [50, 30, 10.3, 10],
        [50, 30, 30, 30],
        [70, 0, 5, 5],
        [5, 5, 0, 9],
        [9, 9, -3, 4],
        [1e11] * 4,
    ]
    train["annotations"] = [
        {"id": n, "image_id": 7, "category_id": 2, "bbox": box, "area": 90, "segmentation": segmentation}
        for n, (box, segmentation) in enumerate(
            zip(boxes, ([[1, 1, 5, 1, 5, 5]], [1, 1, 5, 1, 5, 5], [[1, 1]], [], [], [], []), strict=True), start=1
        )
    ]
    del train["annotations"][1]["area"]
    train["annotations"][0] |= {"area": 0}
    folder = write_layout(tmp_path / "in", train=train)
    splits = read_coco_folder(folder)
    kept = splits["train"].coco["annotations"]
    assert [a["bbox"] for a in kept] == [[0, 5, 15, 10], [50, 30, 10, 10], [50, 30, 10, 10]]
    assert [a["area"] for a in kept] == [150, 100, 90]
    assert [a["segmentation"] for a in kept] == [[[1, 1, 5, 1, 5, 5]], [[1, 1, 5, 1, 5, 5]], []]
    assert splits["train"].notes == {
        "boxes clipped to the image": ["train0.png, annotation 1", "train0.png, annotation 3"],
        "segmentations that are neither polygons nor masks, left out": ["train0.png, annotation 3"],
        "boxes without area or outside the image dropped": [
            f"train0.png, annotation {number}" for number in (4, 5, 6, 7)
        ],
    }
    assert lines_of(describe(splits, TrainingSizes((480,), 1333, 100)))


def test_masks_that_do_not_fill_their_image_are_left_out_and_named(tmp_path: Path) -> None:
    train = small_coco("train")
    for annotation, counts in zip(train["annotations"], ([100, 50, 2250], [100, 50, 9], [0]), strict=True):
        annotation["segmentation"] = {"size": [40, 60 if annotation["image_id"] == 7 else 99], "counts": counts}
    train_split = read_coco_folder(write_layout(tmp_path / "in", train=train))["train"]
    whole = train["annotations"][0]["segmentation"]
    assert [a["segmentation"] for a in train_split.coco["annotations"]] == [whole, [], []]
    places = ["train0.png, annotation 12", "train2.png, annotation 13"]
    assert train_split.notes == {"segmentations that are neither polygons nor masks, left out": places}


def test_crowds_count_in_evaluation_and_are_skipped_in_training(tmp_path: Path, run: RunScript) -> None:
    from detr.data.dataset import load_folder
    from detr.training.evaluate import twelve_coco_numbers
    from tests.data.test_dataset import evaluation_params

    def add_crowd(coco: dict) -> None:
        counts = [0, 10 * 40, 60 * 40 - 10 * 40]  # columns: the left ten
        mask = {"size": [40, 60], "counts": counts}
        crowd = {"id": 50, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 40], "area": 400, "iscrowd": 1}
        coco["annotations"].append(crowd | {"segmentation": mask})
        coco["annotations"].append(
            crowd | {"id": 51, "image_id": 8, "segmentation": {"size": [40, 61], "counts": "0T1"}}
        )

    assert run("prep", "--coco", write_layout(tmp_path / "in", **both(add_crowd)), "--weights", "none") == 0
    report = json.loads(Path("data/custom/report.json").read_text())
    assert report["splits"]["val"]["objects"] == 3 and report["splits"]["val"]["crowd_regions"] == 2
    data = load_folder(Path("data/custom"), "custom", evaluation_params, evaluation_params, 0)
    for images in (data.train, data.val):
        assert [len(images.target(index)[0]) for index in range(3)] == [2, 0, 1]
    assert data.val_coco["annotations"][3]["segmentation"]["counts"] == [0, 400, 2000]
    real = [a for a in data.val_coco["annotations"] if not a["iscrowd"]]
    found = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for a in real]
    inside_the_crowd = {"image_id": 7, "category_id": 2, "bbox": [1, 3, 8, 30], "score": 0.9}
    assert twelve_coco_numbers(data.val_coco, [*found, inside_the_crowd])[0] == 1.0
    assert twelve_coco_numbers(data.val_coco, [*found, inside_the_crowd | {"bbox": [45, 3, 8, 30]}])[0] < 1.0


def test_a_crowd_is_said_with_0_or_1_and_an_area_that_is_null_is_none(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    for value in ("0", "false", 2, []):
        write_layout(tmp_path / "in", **both(lambda coco, v=value: coco["annotations"][1].update(iscrowd=v)))
        assert run("prep", "--coco", "in", "--weights", "none") == 2
        assert f"custom_train.json: annotation 12 has iscrowd {value!r}; accepted: 0 or 1\n" in capsys.readouterr().err
    changed = both(lambda coco: coco["annotations"][1].update(iscrowd=True, area=None))
    annotation = read_coco_folder(write_layout(tmp_path / "in", **changed))["train"].coco["annotations"][1]
    assert annotation["iscrowd"] == 1 and annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]


# -------------------------------------------------------------------------------------------------------------- hostile

VALUES = [None, -1, 0, 1.5, 10**400, float("nan"), "", "x", "../x", [], {}, [[[]]], True, [1] * 4, "9" * 300]


def mutated(value: object, rng: random.Random) -> object:
    """The value with one part of it, somewhere, replaced, removed or repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        replaced = [] if rng.random() < 0.1 else [mutated(value[place], rng)] * rng.choice((1, 1, 1, 2))
        return [*value[:place], *replaced, *value[place + 1 :]]
    return copy.deepcopy(rng.choice(VALUES))


def test_mutated_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    folder, read = write_layout(tmp_path / "in"), 0
    for seed in range(300):
        rng = random.Random(seed)
        (folder / OURS["train"]).write_text(json.dumps(mutated(small_coco("train"), rng)))
        try:
            splits = read_coco_folder(folder)
        except UserError:
            continue
        lines_of(describe(splits, TrainingSizes((480, 800), 1333, 100)))
        read += 1
    assert 30 < read < 270


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"images": [' + "9" * 5000 + "]}", "\ud800".encode("utf-8", "replace").decode()]
)
def test_deep_and_huge_files_are_refused(text: str, tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "in")
    (folder / OURS["train"]).write_text(text)
    with pytest.raises(UserError, match=r"custom_train.json: not JSON"):
        read_coco_folder(folder)
