"""Names that are spelt alike: what a person would take for a slip, and what not."""

import time

import pytest

from detr.report.class_names import similar_classes


def test_no_names_and_one() -> None:
    assert similar_classes({}) == []
    assert similar_classes({"balloon": 0, "Balloon": 5}) == []  # a class without objects is another complaint


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        ("Balloon", "balloon"), ("traffic-light", "traffic light"), ("traffic_light", "TrafficLight"),
        ("cafe", "café"), ("\uff22\uff2f\uff38", "box"), ("car", "Car"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("counts", [(1, 2), (200, 204)])
def test_case_accents_and_punctuation_are_alike_however_many_there_are(
    rare: str, common: str, counts: tuple[int, int]
) -> None:
    assert similar_classes({rare: counts[0], "person": 50, common: counts[1]}) == [(rare, common)]


@pytest.mark.parametrize(
    ("rare", "common"), [("baloon", "balloon"), ("ballon", "balloon"), ("trucks", "truck"), ("Perosn", "person")]
)
def test_a_letter_or_two_are_a_slip_where_one_is_rare_and_one_common(rare: str, common: str) -> None:
    assert similar_classes({common: 90, rare: 9}) == [(rare, common)]
    assert similar_classes({common: 89, rare: 9}) == []
    assert similar_classes({common: 5000, rare: 10}) == []


def test_what_is_no_slip() -> None:
    assert (
        similar_classes({"pose 1": 1, "pose 2": 500, "RBC": 500, "WBC": 3, "Platelets": 3, "cat": 400, "car": 2}) == []
    )
    assert similar_classes({"+": 3, "-": 300, "猫": 2, "狗": 200}) == []


def test_each_is_named_once_with_the_commonest() -> None:
    counts = {"balloon": 300, "Balloon": 4, "BALLOON": 2, "baloon": 1, "balloons": 200}
    assert similar_classes(counts) == [("Balloon", "balloon"), ("BALLOON", "balloon"), ("baloon", "balloon")]


@pytest.mark.slow
def test_a_thousand_classes_take_seconds_at_most() -> None:
    names = {f"{a}{b} of the {c}": 5 if c == "hill" else 500 for a in "abcdefghij" for b in "klmnopqrst" for c in
             ("hill", "dale", "valley", "mountain", "shore")}  # fmt: skip
    began = time.monotonic()
    similar_classes(names)
    assert time.monotonic() - began < 20
