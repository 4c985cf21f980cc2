"""What a review of annotations suspects: what was spoilt on purpose, and nothing where all is well."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from detr.data.folds import read_both_splits
from detr.detector import Detector
from detr.evaluation.calibration import MIN_SCORE
from detr.evaluation.review import KINDS, Suspect, find_suspects
from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.predict import detect_annotated
from detr.report.suspects import suspects_table
from tests.conftest import TINY, RunScript
from tests.label_noise import Spoilt, spoil

CLASSES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
A, B = [10.0, 10.0, 30.0, 30.0], [60.0, 10.0, 30.0, 40.0]


def make_coco(*objects: tuple, **more) -> dict:
    """One image of 100x80 pixels with (category_id, bbox) each."""
    entries = [{"id": n, "image_id": 5, "category_id": c, "bbox": [*box]} for n, (c, box) in enumerate(objects, 1)]
    image = {"id": 5, "file_name": "a.png", "width": 100, "height": 80}
    return {"images": [image], "annotations": [one | more for one in entries], "categories": CLASSES}


def result(category_id: int, bbox: list[float], score: float) -> dict:
    return {"image_id": 5, "category_id": category_id, "bbox": bbox, "score": score}


def told(coco: dict, results: list[dict]) -> list[tuple]:
    return [(one.kind, round(one.suspicion, 3), one.bbox) for one in find_suspects(coco, results)]


def test_nothing_is_suspicious_in_nothing() -> None:
    assert told(make_coco(), []) == []
    assert told(make_coco() | {"images": []}, []) == []


def test_a_perfect_set_is_hardly_suspicious() -> None:
    coco = make_coco((3, A), (7, B))
    assert told(coco, [result(3, A, 1.0), result(7, B, 1.0), result(3, A, 0.3)]) == [
        *(("spurious", 0.0, A), ("spurious", 0.0, B))
    ]


@pytest.mark.parametrize(
    ("objects", "results", "first"),
    [
        ([(3, A)], [result(3, A, 0.9), result(7, B, 0.8)], ("missing", 0.8, B)),
        ([(3, A), (3, B)], [result(3, A, 0.9), result(3, B, 0.2)], ("spurious", 0.6, B)),  # 0.8 x 0.75, see below
        ([(3, A), (3, B)], [result(3, A, 0.9)], ("spurious", 0.7, B)),
        ([(3, A)], [result(7, A, 0.9)], ("class", 0.9, A)),
        ([(3, A)], [result(7, A, 0.4), result(3, A, 0.6)], ("spurious", 0.32, A)),
        ([(3, A)], [result(3, [22.0, 16.0, 30.0, 30.0], 0.9)], ("loose", 0.5, A)),  # IoU 0.32
        ([(3, A)], [result(3, [16.0, 10.0, 30.0, 30.0], 0.9)], ("loose", 0.32, A)),  # IoU 0.67
    ],
)
def test_each_kind_of_error(objects: list, results: list, first: tuple) -> None:
    assert told(make_coco(*objects), results)[0] == first


def test_what_is_overlooked_anyway_is_less_suspicious() -> None:
    """The others in the image count, and the class as three more: (sum of the others + 3 x class) / (others + 3)."""
    boxes = [[10.0 * n, 10.0 * n, 9.0, 9.0] for n in range(5)]
    coco = make_coco(*((3, box) for box in boxes))
    for found in range(5):  # the last one never is
        suspicion = [one[1] for one in told(coco, [result(3, box, 1.0) for box in boxes[:found]]) if one[2] == boxes[4]]
        assert suspicion == [pytest.approx((found + 3 * (found + 1) / 6) / (4 + 3), abs=1e-3)]
    other = {"id": 6, "image_id": 6, "category_id": 3, "bbox": A}
    more = coco | {
        "images": [*coco["images"], coco["images"][0] | {"id": 6}],
        "annotations": [*coco["annotations"], other],
    }
    suspects = find_suspects(more, [result(3, box, 1.0) for box in boxes])
    assert suspects[0].image_id == 6 and suspects[0].suspicion == pytest.approx(6 / 7)  # its class alone


def test_one_thing_is_told_once() -> None:
    """Two queries on what is missing, two on what does not fit."""
    shifted = [[22.0, 16.0, 30.0, 30.0], [23.0, 16.0, 30.0, 30.0]]
    results = [result(3, box, score) for box, score in zip([B, B, *shifted], (0.9, 0.7, 0.9, 0.8), strict=True)]
    assert [kind for kind, suspicion, _ in told(make_coco((3, A)), results) if suspicion > 0.1] == ["missing", "loose"]


def test_a_box_between_two_objects_is_no_object() -> None:
    left, between, right = [10.0, 10.0, 30.0, 30.0], [25.0, 10.0, 30.0, 30.0], [40.0, 10.0, 30.0, 30.0]
    coco, sure = make_coco((3, left), (3, right)), [result(3, left, 1.0), result(3, right, 1.0)]
    assert told(coco, [*sure, result(3, between, 0.9)])[0] == ("missing", 0.24, between)
    assert told(make_coco((3, left)), [*sure[:1], result(3, between, 0.9)])[0] == ("missing", 0.84, between)  # a crowd


def test_crowd_regions_are_not_suspicious() -> None:
    assert told(make_coco((3, [0.0, 0.0, 100.0, 80.0]), iscrowd=1), [result(3, A, 0.9)]) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_detector_finds_all_that_was_spoilt(seed: int) -> None:
    rng, boxes = np.random.default_rng(seed), []
    for column, row in itertools.product(range(5), range(4)):
        boxes.append((int(rng.choice([3, 7])), [20.0 * column + 3, 20.0 * row + 3, *rng.uniform(10, 14, 2).tolist()]))
    clean = make_coco(*boxes)
    spoilt_coco, spoilt = spoil(clean, 0.4, seed)
    results = [result(a["category_id"], a["bbox"], 0.9) for a in clean["annotations"]]
    found = found_among(find_suspects(spoilt_coco, results)[: len(spoilt)], spoilt)
    assert {one.kind for one in spoilt} == KINDS.keys()
    assert all(found)


def found_among(suspects: list[Suspect], spoilt: list[Spoilt]) -> list[bool]:
    """Whether each of what was spoilt is among suspects: the annotation, or a box on what is missing."""

    def fits(one: Suspect, error: Spoilt) -> bool:
        if one.image_id != error.image_id or (error.kind == "missing") is not (one.annotation is None):
            return False
        corners = [np.array([x, y, x + w, y + h]) for x, y, w, h in (one.bbox, error.bbox)]
        off = np.abs(corners[0] - corners[1]).max()
        return off <= (0.3 * max(error.bbox[2:]) if error.kind == "missing" else 0)

    return [any(fits(one, error) for one in suspects) for error in spoilt]


def test_suspects_are_listed() -> None:
    coco = make_coco((3, A), (3, B))
    suspects = find_suspects(coco, [result(3, A, 0.9), result(7, [60.0, 55.0, 20.0, 20.0], 0.8)])
    lines = [line.split() for line in suspects_table(suspects, coco).splitlines()]
    assert lines[1] == ["0.80", "missing", "a.png", "-", "60,", "55,", "20,", "20", "-", "dog", "0.80"]
    assert lines[2] == ["0.70", "spurious", "a.png", "2", "60,", "10,", "30,", "40", "cat", "-"]
    assert suspects_table([], coco).startswith("suspicion")


@pytest.mark.long
def test_a_review_goes_to_via_and_back(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 1) == 0
    review = coco_folder / "review.json"
    command = ("results", "--review", "--device", "cpu")
    assert run(*command, "--images", "discs/val") == 2 and run(*command, "--via", "elsewhere/review.json") == 2
    assert "not below the folder" in capsys.readouterr().err
    assert run(*command, "--limit", 3, "--via", review) == 0
    output = capsys.readouterr().out
    assert len([line for line in output.splitlines() if "disc0" in line]) == 3 and f"saved {review}" in output
    page = Path("outputs/figures/review.html").read_text(encoding="utf-8")
    assert "3 suspects in" in page and "train2017/disc0" in page
    regions = [
        region["region_attributes"] for entry in json.loads(review.read_text())["_via_img_metadata"].values()
        for region in entry["regions"]
    ]  # fmt: skip
    notes = [attributes["detected_note"] for attributes in regions]
    assert sum(map(bool, notes)) == 3
    missing = sum(note.startswith("missing") for note in notes)
    assert run("prep", "--via", review, "--weights", "none", "--coco_path", "corrected") == 0
    counts = {}
    for folder in (coco_folder, Path("corrected")):
        cocos = [json.loads((folder / f"annotations/custom_{split}.json").read_text()) for split in ("train", "val")]
        counts[folder] = [sum(len(coco[part]) for coco in cocos) for part in ("images", "annotations")]
    assert counts[Path("corrected")] == np.add(counts[coco_folder], (0, missing)).tolist()
    assert run(*command, "--log", "outputs", "outputs") == 2
    assert "they have to be all folds of one cross-validation" in capsys.readouterr().err


@pytest.mark.slow
def test_most_of_what_was_spoilt_is_suspected_first(run: RunScript) -> None:
    """A twentieth of the drawn sample's objects, with a detector that has learnt the spoilt annotations."""
    assert run("prep", "--sample") == 0
    folder, spoilt, images = Path("data/custom"), [], 0
    for seed, split in enumerate(("train", "val"), start=10):
        path = folder / f"annotations/custom_{split}.json"
        coco, errors = spoil(json.loads(path.read_text()), 0.05, seed)
        path.write_text(json.dumps(coco))
        spoilt += [error._replace(image_id=error.image_id + images) for error in errors]  # as `read_both_splits` counts
        images += len(coco["images"])
    small = SHIPPED_WEIGHTS["detr-small"]
    size = ("--scales", 256, "--max_size", 384, "--epochs", 20, "--device", "cpu", "--num_workers", 0)
    assert run("main", "--weights", small.path, *small.flags, *size) == 0
    coco, best = read_both_splits(folder, "custom"), Path("outputs/checkpoint_best.pth")
    suspects = find_suspects(coco, detect_annotated(Detector(best, "cpu"), coco, folder, best, MIN_SCORE))
    counts = [sum(found_among(suspects[: times * len(spoilt)], spoilt)) for times in (1, 2)]
    print(f"of {len(spoilt)}, {counts[0]} are among as many suspects, {counts[1]} among twice as many")
    assert counts[0] >= 0.7 * len(spoilt) and counts[1] >= 0.8 * len(spoilt)
