"""Which class is which by its name: what counts as the same, what never does, and what is left to the user."""

from pathlib import Path

import pytest

from detr.models.class_transfer import match_classes
from detr.training.resume import PUBLIC_CLASSES
from utils import UserError

PATH = Path("w.pth")


def rows(file_names: list[str], names: list[str], *class_map: tuple[str, str]) -> dict[str, str]:
    """Class of the dataset -> class of the file whose row it starts from, by position where names repeat."""
    found = match_classes(dict(enumerate(file_names, 1)), dict(enumerate(names)), list(class_map), PATH)
    return {names[label]: file_names[row - 1] for label, row in found.row_of_label.items()}


def test_public_classes_are_under_their_category_ids() -> None:
    rows = {1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 90: "toothbrush"}
    assert rows.items() <= PUBLIC_CLASSES.items() and len(PUBLIC_CLASSES) == 80


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"), ("cat", "CATS"), ("traffic light", "Traffic_Lights"), ("traffic light", "traffic-light"),
        ("hot dog", " hot  dogs "), ("person", "persons"), ("person", "PERSON"), ("sheep", "Sheep"),
        ("balloon", "balloons"), ("tie", "ties"), ("monkey", "monkeys"), ("giraffe", "giraffes"), ("skis", "ski"),
        ("scissors", "scissor"), ("glove", "gloves"),
    ],
)  # fmt: skip
def test_case_separators_and_plurals_do_not_matter(one: str, other: str) -> None:
    assert rows([one], [other]) == {other: one}
    assert rows([other], [one]) == {one: other}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bus", "bush"), ("bus", "bu"), ("glass", "glas"), ("gas", "ga"),
        ("cafe", "caves"), ("safe", "saves"), ("car", "cart"), ("car", "cares"), ("car", "scar"), ("cat", "cattle"),
        ("dog", "hot dog"), ("dog", "hot dogs"), ("bear", "teddy bear"), ("person", "personal"), ("glass", "glasss"),
        ("princes", "princess"), ("stop sign", "stopsign"), ("stop sign", "stops sign"), ("iphone 5", "iphone 5s"),
        ("type a", "type as"), ("1", "1s"), ("axe", "axis"), ("kite", "kit"), ("sky", "skis"),
        ("hair drier", "hair dryer"), ("person", "people"),
        ("knife", "knives"), ("bus", "buses"), ("motorcycle", "motorbike"), ("-", "_"), ("", " "), ("x", "xes"),
    ],
)  # fmt: skip
def test_names_that_are_only_alike_never_match(one: str, other: str) -> None:
    assert rows([one], [other]) == {} == rows([other], [one])


def test_holes_of_coco_match_nothing() -> None:
    names = ["N/A", "", "__background__", "no object", "12", "None", "hole"]
    assert match_classes(PUBLIC_CLASSES, dict(enumerate(names)), [], PATH).row_of_label == {}


@pytest.mark.parametrize(
    ("file_names", "names", "found"),
    [
        (["person"], ["persons", "person"], {"person": "person"}),
        (["persons", "person"], ["Person"], {"Person": "person"}),
        (["mice", "mouse"], ["mouse", "mice"], {"mouse": "mouse", "mice": "mice"}),
        (["cat"], ["Cat", "cat"], {"cat": "cat"}),
        (["cat"], ["Cat", "CAT"], {}),
        (["cat"], ["Cat", "CAT", "cats"], {}),
        (["Cat", "CAT", "cats"], ["cat"], {}),
        (["person"], ["persons", "Persons"], {}),
        (["persons", "Persons"], ["person"], {}),
        (["cat", "cat"], ["cat"], {}),
        (["cat"], ["cat", "cat"], {}),
        (["cat", "cat"], ["cats"], {}),
        (["Knife", "knifes"], ["knife"], {"knife": "Knife"}),
        ([], ["cat"], {}),
    ],
)
def test_the_closest_spelling_wins_and_ties_are_not_guessed(file_names: list, names: list, found: dict) -> None:
    assert rows(file_names, names) == found
    assert rows(file_names[::-1], names[::-1]) == found


def test_what_is_asked_for_wins_over_names() -> None:
    assert rows(["cat", "dog"], ["cat", "dog"], ("dog", "cat")) == {"cat": "dog"}  # dog's own row is given away
    assert rows(["cat", "dog"], ["cat", "dog"], ("dog", "cat"), ("cat", "dog")) == {"cat": "dog", "dog": "cat"}
    assert rows(["Person"], ["walker", "rider"], ("persons", "Walkers"), ("person", "rider")) == {
        "walker": "Person",
        "rider": "Person",
    }
    assert rows(["person", "cat"], ["pedestrian", "person", "cats"], ("person", "pedestrian")) == {
        "pedestrian": "person",
        "cats": "cat",
    }


@pytest.mark.parametrize(
    ("file_names", "names", "pair", "message"),
    [
        (
            ["dog", "cow", "cat"],
            ["a"],
            ("cta", "a"),
            r"--class_map cta=a: w.pth has no class 'cta', .* it has: cat, .*dog",
        ),
        (["cat"], ["puppy", "kitten"], ("cat", "kiten"), "the dataset has no class 'kiten', .* it has: kitten, puppy"),
        (["cat", "Cat"], ["a"], ("CAT", "a"), "w.pth has no class 'CAT', or more than one; it has: "),
        (["cat"], ["a", "a"], ("cat", "a"), "the dataset has no class 'a', or more than one; it has: a, a"),
        ([], ["a"], ("cat", "a"), "w.pth does not say what its classes are called"),
    ],
)
def test_a_class_map_of_unknown_names_is_refused(file_names: list, names: list, pair: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(file_names, names, pair)


def test_the_report_is_one_readable_line() -> None:
    names = {0: "pedestrian", 1: "cats", 2: "balloon", 3: "dog"}
    assert str(match_classes(PUBLIC_CLASSES, names, [("person", "pedestrian")], PATH)) == (
        "class rows taken over: person -> pedestrian, cat -> cats, dog, no object; mean of all rows: balloon"
    )
    assert str(match_classes(PUBLIC_CLASSES, {0: "dog"}, [], PATH)) == "class rows taken over: dog, no object"
    assert (
        str(match_classes({}, {0: "a", 1: "b"}, [], PATH)) == "class rows taken over: no object; mean of all rows: a, b"
    )
