"""Which attribute holds the class: found where there is no doubt, asked for where there is."""

import json
import re
from pathlib import Path

import pytest

from detr.importers.importer import import_via
from detr.importers.questions import Undecided
from detr.importers.via.classes import ClassFlags, find_classes
from detr.importers.via.record import AnnotatedImage, Region
from tests.conftest import RunScript
from tests.importers.via.via_files import Drawn, rect, write_set
from utils import UserError


def classes(*attributes: dict, implicit: str = "folder", **flags: object) -> list[list[str]]:
    """The categories, and then the classes of each region."""
    regions = [Region([(0, 0), (9, 0), (9, 9)], values, str(i)) for i, values in enumerate(attributes)]
    found, questions = find_classes([AnnotatedImage("a.png", regions)], ClassFlags(**flags), implicit)
    if questions:
        raise Undecided(questions)
    return [list(found.ids), *(found.of(region)[0] for region in regions)]


def refused(*attributes: dict, **flags: object) -> str:
    with pytest.raises(UserError) as caught:
        classes(*attributes, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_class_where_nothing_is_filled_in() -> None:
    assert classes() == [["folder"]]
    assert classes({}, {}) == [["folder"]] * 3
    assert classes({}, categories=("coin",)) == [["coin"]] * 2
    assert "several classes" in refused({}, categories=("a", "b"))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (({"name": " cat "}, {"name": "dog"}), ["cat", "dog"]),
        (({"label": 3}, {"label": "12"}), ["3", "12"]),
        (({"Object Class": {"cat": True}}, {"Object Class": {"dog": "true", "cat": "false"}}), ["cat", "dog"]),
        (({"type": ["cat"]}, {"type": ["dog"]}), ["cat", "dog"]),
        (({"name": "", "kind": "cat"}, {"name": None, "kind": "dog"}), ["cat", "dog"]),
        (({"pug": "1"}, {"corgi": "1"}), ["pug", "corgi"]),
        (({"pug": "1"}, {"pug": "1"}), ["pug", "pug"]),
        (({"pug": "1", "corgi": "0"}, {"pug": "0", "corgi": "1"}), ["pug", "corgi"]),
        (({"pug": "pug"}, {"corgi": True}), ["pug", "corgi"]),
        (({"class_id": "1"}, {"class_id": "1"}), ["1", "1"]),
        (({"name": "क्\u200dष"},), ["क्\u200dष"]),  # a joiner of letters
        (({"names": "β  matrix\n"}, {"names": "β matrix"}), ["β matrix", "β matrix"]),
    ],
)
def test_the_class_is_found(attributes: tuple, expected: list[str]) -> None:
    names, *found = classes(*attributes)
    assert names == sorted(set(expected)) and found == [[name] for name in expected]


def test_two_attributes_are_shown_with_counts_and_the_flag() -> None:
    both = ({"kind": "a", "color": "red"}, {"kind": "b", "color": ""})
    message = refused(*both)
    assert "kind (2), color (1)" in message and "kind = a, b; color = red" in message and "--attribute" in message
    assert classes(*both, attribute="kind") == [["a", "b"], ["a"], ["b"]]
    assert "there are kind (2), color (1)" in refused(*both, attribute="size")
    many = {f"attribute {i}": "x y" for i in range(400)}
    assert len(refused(many)) < 500 and "and 390 more" in refused(many)


def test_every_region_can_be_of_one_class_whatever_it_says() -> None:
    some = ({"kind": "a", "note": "x"}, {"kind": ""}, {})
    assert classes(*some, one_class="coin") == [["coin"]] * 4
    assert "--one_class" in refused({"kind": "a"}, {"kind": ""}) and "--one_class" in refused({"kind": ""})
    assert "--one_class" in refused({"kind": "a", "note": "x y"})
    assert classes({"kind": "b"}, {"kind": ""}, {}, unlabelled="a") == [["a", "b"], ["b"], ["a"], ["a"]]


def test_regions_without_a_value_are_an_error_or_left_out() -> None:
    regions = ({"name": "cat"}, {"name": " "}, {}, {"name": "undefined"})
    message = refused(*regions)
    assert message.startswith("3 regions without a value for name (such as a.png, region 1; a.png, region 2;")
    assert "--skip_unlabelled" in message
    assert classes(*regions, skip_unlabelled=True) == [["cat"], ["cat"], [], [], []]
    assert "1 region without a value" in refused({"name": "cat"}, {"name": {"dog": False}})
    assert "the attributes of all regions are empty: name (0)" in refused({"name": ""})
    assert classes({"name": ""}, categories=("cat",)) == [["cat"], ["cat"]]
    assert "nothing is left" in refused({"name": ""}, attribute="name", skip_unlabelled=True)


def test_yes_and_no_are_classes_or_as_told() -> None:
    regions = ({"species": "0"}, {"species": "1"})
    assert refused(*regions).startswith("the attribute species has the values 0, 1: --attribute species makes each")
    assert classes(*regions, attribute="species") == [["0", "1"], ["0"], ["1"]]
    assert classes(*regions, skip_unlabelled=True) == [["species"], [], ["species"]]
    assert classes(*regions, unlabelled="other") == [["other", "species"], ["other"], ["species"]]


def test_several_checked_boxes_need_a_meaning() -> None:
    regions = ({"what": {"sit": True, "talk": True}}, {"what": {"sit": True}})
    assert "1 region with several values for what (such as a.png, region 0); --checked first" in refused(*regions)
    assert classes(*regions, checked="first") == [["sit"], ["sit"], ["sit"]]
    assert classes(*regions, checked="each") == [["sit", "talk"], ["sit", "talk"], ["sit"]]
    assert "several values in any attribute" in refused({"pug": "1", "corgi": "1"})


def test_categories_fix_order_and_subset_and_unknown_ones_are_named(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    values = [("cat", "zebra", "dog"), ("cat", "dog"), ("cat", "zebra"), ("dog", "zebra")]
    images = [
        Drawn(f"{i}.png", (60, 60), [(rect(3, 3, 9, 9), {"name": value}) for value in found])
        for i, found in enumerate(values)
    ]
    folder = write_set(tmp_path / "zoo", images)
    assert run("prep", "--via", folder, "--weights", "none", "--categories", "zebra, cat") == 0
    output = capsys.readouterr().out
    assert "classes: zebra, cat" in output
    left_out = [int(count) for count in re.findall(r"regions of class dog left out \(--categories\): (\d+) ", output)]
    assert sum(left_out) == 3
    coco = json.loads(Path("data/custom/annotations/custom_train.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "zebra"}, {"id": 2, "name": "cat"}]
    assert run("prep", "--via", folder, "--weights", "none", "--categories", "zebra,cat,bird") == 2
    assert "names bird, of which there is no region; there are cat (3)" in capsys.readouterr().err


def test_points_need_no_class(tmp_path: Path) -> None:
    point = {"name": "point", "cx": 3, "cy": 3}
    regions = [(rect(3, 3, 9, 9), {"name": "cat"}), (point, {}), (point, {"other": "dog"})]
    images = [Drawn("a.png", (60, 60), regions), Drawn("b.png", (60, 60), regions)]
    splits = import_via(write_set(tmp_path, images), keep_partial=True)
    assert splits["train"].coco["categories"] == [{"id": 1, "name": "cat"}]


def test_both_splits_share_one_list(tmp_path: Path) -> None:
    for split, value in (("val", "b"), ("train", "a")):
        write_set(tmp_path / split, [Drawn("1.png", (60, 60), [(rect(3, 3, 9, 9), {"kind": value})])])
    splits = import_via(tmp_path)
    assert splits["train"].coco["categories"] == splits["val"].coco["categories"]
    assert [split.coco["annotations"][0]["category_id"] for split in splits.values()] == [1, 2]


def test_a_class_name_is_short_and_can_be_printed() -> None:
    assert "the class 'a\\x00b' for name is not a short line" in refused({"name": "a\0b"})
    assert len(refused({"name": "x" * 10_000})) < 300
