"""Names that are spelt alike: what a person would take for a slip, and what not."""

import itertools
import time

import pytest

from detr.importers.class_names import similar_classes


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


def test_thousands_of_names_take_no_minutes() -> None:
    syllables = ["ba", "ko", "li", "mu", "ne", "ro", "si", "ta", "vu", "we"]
    names = ["".join(part) for part in itertools.product(syllables, repeat=4)]
    counts = {name: 500 if number % 10 == 0 else 5 for number, name in enumerate(names)}
    began = time.process_time()
    assert len(similar_classes(counts)) <= 1000
    assert time.process_time() - began < 30  # a second or two; without a limit a hundred
