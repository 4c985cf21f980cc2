"""Cross-validation: every image is validated on once, by a detector that has not seen it."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from detr.data.folds import name_share, read_both_splits, split_fold
from detr.importers.splits import split_images
from tests.conftest import TINY, RunScript
from utils import UserError


def write_splits(folder: Path, names: dict[str, list[str]], categories: list[dict] | None = None) -> Path:
    """A COCO folder without images, with an object in each."""
    (folder / "annotations").mkdir(parents=True)
    for split, of_split in names.items():
        images = [{"id": n, "file_name": name, "width": 9, "height": 9} for n, name in enumerate(of_split, 1)]
        objects = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 1, 2, 2]} for n in range(1, len(images) + 1)]
        coco = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        if split == "val" and categories:
            coco["categories"] = categories
        (folder / f"annotations/custom_{split}.json").write_text(json.dumps(coco))
    return folder


def test_both_splits_are_one_set(tmp_path: Path) -> None:
    whole = read_both_splits(write_splits(tmp_path, {"train": ["a.png", "b/c.png"], "val": ["a.png"]}), "custom")
    assert [(i["id"], i["file_name"]) for i in whole["images"]] == [
        *((1, "train2017/a.png"), (2, "train2017/b/c.png"), (3, "val2017/a.png"))
    ]
    assert [(a["id"], a["image_id"], a["bbox"][0]) for a in whole["annotations"]] == [(1, 1, 1), (2, 2, 2), (3, 3, 1)]


def test_images_that_are_validated_on_as_well_are_there_once(tmp_path: Path) -> None:
    whole = read_both_splits(write_splits(tmp_path, {"train": ["a.png", "b.png"], "val": ["a.png", "b.png"]}), "custom")
    assert len(whole["images"]) == len(whole["annotations"]) == 2


def test_other_categories_are_refused(tmp_path: Path) -> None:
    folder = write_splits(tmp_path, {"train": ["a.png"], "val": ["b.png"]}, [{"id": 1, "name": "dog"}])
    with pytest.raises(UserError, match=r"custom_val\.json: its categories differ from those of .*custom_train\.json"):
        read_both_splits(folder, "custom")


@pytest.mark.parametrize("count", [2, 5, 13])
def test_each_image_is_in_one_fold(count: int, tmp_path: Path) -> None:
    names = {"train": [f"{n}.png" for n in range(37)], "val": [f"{n}.png" for n in range(30, 50)]}  # some of one name
    whole, sizes, fold_of = read_both_splits(write_splits(tmp_path, names), "custom"), Counter(), {}
    for number in range(1, count + 1):
        train, val = split_fold(whole, f"{number}/{count}")
        ids = [{image["id"] for image in part["images"]} for part in (train, val)]
        assert not ids[0] & ids[1] and ids[0] | ids[1] == {image["id"] for image in whole["images"]}
        for part, of_part in zip((train, val), ids, strict=True):
            assert {a["image_id"] for a in part["annotations"]} == of_part  # each image has an object
        for image in val["images"]:
            name = Path(image["file_name"]).name
            assert fold_of.setdefault(name, number) == number
            sizes[number] += 1
    assert sizes.total() == 57 and len(fold_of) == 50
    assert sorted(fold_of, key=lambda name: (fold_of[name], name_share(name))) == sorted(fold_of, key=name_share)


def test_the_hash_is_that_of_the_split(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(60)]
    in_val = split_images(names, [{1}] * len(names), 0.2, seed=0)
    assert [name for name, is_val in zip(names, in_val, strict=True) if is_val] == [
        name for name in names if name_share(name) < 0.2
    ]


def test_more_folds_than_images_are_refused(tmp_path: Path) -> None:
    whole = read_both_splits(write_splits(tmp_path, {"train": ["a.png"], "val": ["a.png", "b.png"]}), "custom")
    assert len(split_fold(whole, "2/2")[1]["images"]) in (1, 2)
    with pytest.raises(UserError, match=r"--fold 1/3: there are only 2 images; accepted: as many folds"):
        split_fold(whole, "1/3")


@pytest.mark.long
def test_folds_are_measured_as_one(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    command = ("main", *TINY, "--backbone_weights", "none")
    for number in (1, 2):
        assert run(*command, "--epochs", 1, "--fold", f"{number}/2", "--output_dir", f"fold{number}") == 0
    again = (*command, "--epochs", 2, "--output_dir", "fold1", "--resume", "auto")
    evaluated = ("main", "--device", "cpu", "--eval", "--output_dir", "fold1")
    for flags, now in (((), "no --fold"), (("--fold", "2/2"), "--fold 2/2")):
        for script in (again, evaluated):
            capsys.readouterr()
            assert run(*script, *flags) == 2
            assert f"was trained with --fold 1/2; with {now} it would be" in capsys.readouterr().err
    assert run(*evaluated, "--fold", "1/2") == 0
    copied = coco_folder / "elsewhere"  # of other images any fold may be evaluated on
    shutil.copytree("data/custom", copied)
    assert run(*evaluated, "--coco_path", copied) == 0
    assert run(*command, "--fold", "3/2") == run(*command, "--fold", "1") == 2
    capsys.readouterr()
    assert run("results", "--log", "fold1", "fold2", "--coco_path", coco_folder) == 0
    saved = {one["name"]: one["metrics"] for one in json.loads(Path("fold1/figures/metrics.json").read_text())["runs"]}
    assert [*saved] == ["2 folds", "fold1", "fold2"]
    whole = saved["2 folds"]
    for key in ("images", "objects", "detections"):
        assert whole[key] == saved["fold1"][key] + saved["fold2"][key]
    assert whole["images"] == 9 and len(whole["interval"]["AP"]) == 2
    assert not Path("fold1/figures/attention.png").exists() and Path("fold1/figures/report.html").exists()
    capsys.readouterr()
    assert run("results", "--review", "--log", "fold1", "fold2", "--via", coco_folder / "review.json") == 0
    output = capsys.readouterr().out
    assert "train2017/disc" in output and "val2017/disc" in output and (coco_folder / "review.json").exists()
    assert Path("fold1/figures/review.html").exists()
    Path("fold2/config.json").write_text(Path("fold2/config.json").read_text().replace("2/2", "1/2"))
    Path("fold2/predictions.json").write_text(Path("fold1/predictions.json").read_text())
    config = json.loads(Path("fold1/config.json").read_text())["validation_images"]
    other = json.loads(Path("fold2/config.json").read_text()) | {"validation_images": config}
    Path("fold2/config.json").write_text(json.dumps(other))
    capsys.readouterr()
    assert run("results", "--log", "fold1", "fold2") == 0
    assert "not joined: a cross-validation is each of its folds once; these are 1/2, 1/2" in capsys.readouterr().out
