"""No annotated region becomes background in silence; validation on the training images is said."""

import json
from pathlib import Path

import pytest

from detr.importers import notes
from detr.importers.importer import import_via
from detr.importers.via.classes import ClassFlags
from tests.conftest import SHARED, RunScript, needs_shared
from tests.importers.via.test_images import boxes, remarks
from tests.importers.via.via_files import Drawn, rect, write_set
from utils import UserError

CAT = (rect(3, 3, 9, 9), {"what": "cat"})
DOG = (rect(20, 3, 9, 9), {"what": "dog"})
CUT = (rect(55, 3, 9, 9), {"what": "cat"})  # at the border
POINT = ({"name": "point", "cx": 5, "cy": 6}, {"what": "cat"})
UNUSABLE = {
    notes.POINT: POINT,
    notes.ZERO: (rect(30, 3, 0, 9), {"what": "cat"}),
    notes.OUTSIDE: (rect(300, 3, 9, 9), {"what": "cat"}),
    notes.UNLABELLED: (rect(30, 3, 9, 9), {"what": ""}),
}


def zoo(folder: Path, *more: tuple[dict, dict]) -> Path:
    """Four images with two cats each, the last with more regions."""
    names = [f"{number}.png" for number in range(4)]
    return write_set(folder, [Drawn(name, (60, 50), [CAT, CAT, *(more if name == "3.png" else ())]) for name in names])


@pytest.mark.parametrize("reason", UNUSABLE)
def test_an_image_with_a_region_that_makes_no_object_is_left_out_or_kept_as_told(reason: str, tmp_path: Path) -> None:
    folder, flags = zoo(tmp_path, UNUSABLE[reason], CUT), ClassFlags(skip_unlabelled=True)
    splits = import_via(folder, class_flags=flags)
    assert set(boxes(splits)) == {"0.png", "1.png", "2.png"}
    assert remarks(splits) == {reason: 1, notes.PARTIAL: 1}
    splits = import_via(folder, class_flags=flags, keep_partial=True)
    assert len(boxes(splits)["3.png"]) == 3
    assert remarks(splits) == {reason: 1, notes.PARTIAL_KEPT: 1, notes.CLIPPED: 1}


def test_what_is_cut_at_the_border_makes_an_object(tmp_path: Path) -> None:
    splits = import_via(zoo(tmp_path, CUT))
    assert len(boxes(splits)["3.png"]) == 3 and remarks(splits) == {notes.CLIPPED: 1}


def test_classes_that_are_not_chosen_are_background_on_purpose(tmp_path: Path) -> None:
    dog_point = POINT[0], {"what": "dog"}
    folder, flags = zoo(tmp_path, DOG, dog_point), ClassFlags(categories=("cat",))
    splits = import_via(folder, class_flags=flags)
    assert len(boxes(splits)["3.png"]) == 2 and remarks(splits) == {notes.OTHER.format("dog"): 2}
    with pytest.raises(KeyError):
        boxes(import_via(zoo(tmp_path, DOG, POINT), class_flags=flags))["3.png"]


def test_a_point_of_a_class_that_nothing_else_has_is_a_region_left_out(tmp_path: Path) -> None:
    splits = import_via(zoo(tmp_path, (POINT[0], {"what": "emu"})))
    assert "3.png" not in boxes(splits) and remarks(splits) == {notes.POINT: 1, notes.PARTIAL: 1}


def test_given_splits_leave_out_validation_images_too_and_the_report_counts_them(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    for split in ("train", "val"):
        zoo(tmp_path / "zoo" / split, POINT)
    assert run("prep", "--via", "zoo", "--weights", "none") == 0
    report = json.loads(Path("data/custom/report.json").read_text())
    for split in ("train", "val"):
        noted = {note["what"]: note["count"] for note in report["splits"][split]["notes"]}
        assert report["splits"][split]["images"] == 3 and noted == {notes.POINT: 1, notes.PARTIAL: 1}
        assert any(line.startswith(f"{split}: {notes.PARTIAL}: 1 (3.png") for line in report["warnings"])
    changed, look_at = capsys.readouterr().out.split("Look at:")
    assert "--keep_partial" in look_at and "--keep_partial" not in changed


@needs_shared
def test_an_image_whose_only_regions_have_no_class_is_not_one_without_objects() -> None:
    folder, flags = SHARED / "via_cases" / "d1", ClassFlags(skip_unlabelled=True)
    assert set(boxes(import_via(folder, class_flags=flags))) == {"b.jpg", "c.jpg"}
    kept = import_via(folder, class_flags=flags, keep_partial=True)
    assert sum(len(split.coco["images"]) for split in kept.values()) == 3


def test_where_all_are_partial_it_is_asked_and_with_points_alone_what_to_draw_is_said(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    write_set(tmp_path / "zoo", [Drawn(f"{n}.png", (60, 50), [CAT, POINT]) for n in range(3)])
    assert run("prep", "--via", "zoo", "--weights", "none") == 2
    assert capsys.readouterr().err.endswith("python prep.py --via zoo --weights none --keep_partial\n")
    assert run("prep", "--via", "zoo", "--weights", "none", "--keep_partial") == 0
    capsys.readouterr()
    write_set(tmp_path / "zoo", [Drawn(f"{n}.png", (60, 50), [POINT]) for n in range(3)])
    for flags in ((), ("--keep_partial",)):
        assert run("prep", "--via", "zoo", "--weights", "none", *flags) == 2
        error = capsys.readouterr().err
        assert "points, which have no box, skipped: 3 (0.png" in error and "a rectangle, polygon" in error
        assert "--keep_partial" not in error and error.count("\n") == 1


# ----------------------------------------------------------------------------------- validation on the training images


@pytest.mark.parametrize(("count", "flags"), [(1, ()), (5, ("--val_fraction", "0"))])
def test_one_image_or_a_share_of_0_is_validated_on_the_training_images_and_says_so(
    count: int, flags: tuple, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(tmp_path / "set", [Drawn(f"{n}.png", (60, 50), [CAT]) for n in range(count)])
    assert run("prep", "--via", folder, "--weights", "none", *flags) == 0
    assert "VALIDATION IS ON THE TRAINING IMAGES" in capsys.readouterr().out
    report = json.loads(Path("data/custom/report.json").read_text())
    assert report["validates_on_training"] is True and report["warnings"][0].startswith("VALIDATION")
    train, val = (Path(f"data/custom/annotations/custom_{split}.json").read_text() for split in ("train", "val"))
    assert train == val and len(json.loads(val)["images"]) == count
    assert len(list(Path("data/custom").glob("*2017/*"))) == 2 * count
    if flags:
        assert run("prep", "--via", folder, "--weights", "none") == 0
        assert json.loads(Path("data/custom/report.json").read_text())["validates_on_training"] is False


def test_a_split_of_which_no_image_is_left_is_an_error(tmp_path: Path) -> None:
    zoo(tmp_path / "train")
    write_set(tmp_path / "val", [Drawn("0.png", (60, 50), [CAT])])
    (tmp_path / "val" / "0.png").unlink()
    with pytest.raises(UserError, match=r"no image is left.*val/0.png: no such image"):
        import_via(tmp_path, skip_bad_images=True)
