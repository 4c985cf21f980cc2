"""Training and validation: by a hash of the name, so that nothing moves, and repaired only where something is empty."""

import pytest

from detr.importers.splits import split_images
from utils import UserError

NAMES = [f"{number:05}.jpg" for number in range(2000)]
NONE = [set() for _ in NAMES]


def test_the_share_is_about_right_and_another_seed_gives_another_split() -> None:
    for fraction in (0.1, 0.2, 0.5):
        assert sum(split_images(NAMES, NONE, fraction, 0)) / len(NAMES) == pytest.approx(fraction, abs=0.03)
    assert split_images(NAMES, NONE, 0.2, 0) != split_images(NAMES, NONE, 0.2, 1)
    assert split_images(NAMES, NONE, 0.2, 1) == split_images(NAMES, NONE, 0.2, 1)


def test_images_that_are_added_move_none() -> None:
    classes = [{number % 3} for number in range(len(NAMES))]
    few = split_images(NAMES[::4], classes[::4], 0.2, 0)
    assert split_images(NAMES, classes, 0.2, 0)[::4] == few
    backwards = split_images(NAMES[::-1], classes[::-1], 0.2, 0)
    assert backwards[::-1] == split_images(NAMES, classes, 0.2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_rare_classes_are_on_both_sides_and_few_images_move(seed: int) -> None:
    classes = [{1} | ({2} if number in (7, 1500) else set()) for number in range(len(NAMES))]
    classes[3].add(3)
    plain = split_images(NAMES, NONE, 0.2, seed)
    in_val = split_images(NAMES, classes, 0.2, seed)
    assert in_val[7] != in_val[1500] and not in_val[3]
    assert sum(a != b for a, b in zip(plain, in_val, strict=True)) <= 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_neither_side_is_empty(count: int, seed: int) -> None:
    for classes in ([set()] * count, [{1}] * count, [{number} for number in range(count)]):
        for fraction in (0.01, 0.99):
            in_val = split_images(NAMES[:count], classes, fraction, seed)
            assert 0 < sum(in_val) < count


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(UserError, match="1 image cannot be divided"):
        split_images(["a.png"], [set()], 0.2, 0)


def test_many_classes_take_no_time() -> None:
    names = [f"{number}.jpg" for number in range(50_000)]
    in_val = split_images(names, [{number // 2, -1} for number in range(50_000)], 0.2, 0)
    assert all(in_val[number] != in_val[number + 1] for number in range(0, 50_000, 2))
