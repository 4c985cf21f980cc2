"""Metrics from files: equal to pycocotools, to slow double loops and to cases that can be counted by hand."""

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detr.data.coco_json import iou_xywh, to_rle
from detr.evaluation.bootstrap import resampled_ap
from detr.evaluation.calibration import THRESHOLDS
from detr.evaluation.coco_matching import BACKGROUND_IOU, check_results, match_all
from detr.evaluation.coco_metrics import curves
from detr.evaluation.metrics import measure
from detr.training.evaluate import twelve_coco_numbers
from tests.conftest import SHARED, needs_shared
from utils import UserError

OF_PYCOCOTOOLS = "ignore:__array__ implementation:DeprecationWarning"  # its decode, on NumPy 2
pytestmark = pytest.mark.filterwarnings("error", OF_PYCOCOTOOLS)

COCO_NAMES = [
    "AP",
    "AP50",
    "AP75",
    "AP small",
    "AP medium",
    "AP large",
    "AR 1",
    "AR 10",
    "AR 100",
    "AR small",
    "AR medium",
    "AR large",
]


def make_coco(boxes: list[tuple], images: int = 2, classes: int = 2, crowds: tuple[int, ...] = ()) -> dict:
    """(image, class, x, y, width, height) each; `crowds` are positions among them."""
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 400, "height": 400} for n in range(1, images + 1)],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)],
        "annotations": [
            {"id": n + 1, "image_id": image, "category_id": label, "bbox": box, "iscrowd": int(n in crowds)}
            for n, (image, label, *box) in enumerate(boxes)
        ],
    }


def make_results(boxes: list[tuple]) -> list[dict]:
    """(image, class, score, x, y, width, height) each."""
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, score, *box in boxes]


def random_set(seed: int, images: int = 12, tied: bool = False, packed: int = 120) -> tuple[dict, list[dict]]:
    """Unsorted ids with holes, crowds, areas below the box's, a class and images without objects, an image of `packed`
    objects of a class; where `tied`, boxes and scores on a grid, so that many are equal.
    """
    rng = np.random.default_rng(seed)
    image_ids, category_ids = rng.permutation(np.arange(3, 3 + 2 * images, 2)).tolist(), [11, 4, 7, 5]
    annotations, results = [], []
    for image_id in image_ids[1:]:
        for _ in range(rng.integers(0, 7)):
            box = [*rng.uniform(0, 200, 2), *rng.uniform(8, 140, 2)]
            box = np.round(box, -1 if tied else 2).tolist()
            area = box[2] * box[3] * rng.choice([1, 0.6])
            entry = {"image_id": image_id, "category_id": int(rng.choice(category_ids[:3])), "bbox": box, "area": area}
            annotations.append({**entry, "id": len(annotations) + 1, "iscrowd": int(rng.random() < 0.15)})
            for _ in range(40 if rng.random() < 0.1 else rng.integers(0, 5)):
                noisy = (np.array(box) + rng.normal(0, 12, 4)).round(-1 if tied else 2).clip(0)
                label = entry["category_id"] if rng.random() < 0.8 else int(rng.choice(category_ids))
                score = float(rng.random().__round__(1 if tied else 9))
                results.append({"image_id": image_id, "category_id": label, "bbox": noisy.tolist(), "score": score})
    for number in range(130):  # beyond what AP and AR count
        entry = {"image_id": image_ids[1], "category_id": 4, "bbox": [number % 13 * 30, number // 13 * 35, 25, 30]}
        results.append({**entry, "score": float(rng.random().__round__(1 if tied else 9))})
        if number < packed:
            near = [value + float(rng.integers(0, 9)) for value in entry["bbox"]]
            annotations.append({**entry, "bbox": near, "area": 750, "id": len(annotations) + 1, "iscrowd": 0})
    coco = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 400} for i in image_ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
        "annotations": annotations,
    }
    return coco, [results[i] for i in rng.permutation(len(results))]


def pycocotools_on(coco: dict, results: list[dict], iou_type: str = "bbox") -> object:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(coco))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), iou_type)
        evaluation.params.maxDets = [1, 10, 100, 10**6]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def as_results(coco: dict) -> list[dict]:
    return [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1.0} for a in coco["annotations"]]


# ---------------------------------------------------------------------------------------------------- what COCO defines


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed: int, tied: bool) -> None:
    coco, results = random_set(seed, tied=tied)
    theirs, ours = pycocotools_on(coco, results), measure(coco, results)
    assert list(ours["coco"]) == COCO_NAMES
    values = [-1 if value is None else value for value in ours["coco"].values()]
    assert values == pytest.approx(theirs.stats.tolist(), abs=1e-9, rel=0)
    assert values == twelve_coco_numbers(coco, results)
    for number, of_class in enumerate(ours["classes"]):
        precision, recall = theirs.eval["precision"][:, :, number, 0, 2], theirs.eval["recall"][:, number, 0, 2]
        if of_class["objects"] == 0:
            assert (precision == -1).all()
            assert of_class["AP"] is of_class["AP50"] is of_class["AR"] is of_class["precision_at_recall"] is None
            continue
        without_limit = theirs.eval["precision"][:, :, number, 0, 3]
        np.testing.assert_allclose(of_class["precision_at_recall"], without_limit, atol=1e-9, rtol=0)
        found = [of_class[name] for name in ("AP", "AP50", "AR")]
        assert found == pytest.approx([precision.mean(), precision[0].mean(), recall.mean()], abs=1e-9, rel=0)


@needs_shared
def test_equals_pycocotools_on_real_boxes() -> None:
    coco = json.loads((SHARED / "bccd/annotations/custom_val.json").read_text())
    rng = np.random.default_rng(0)
    results = [
        {**entry, "bbox": (np.array(entry["bbox"]) * rng.normal(1, 0.06, 4)).tolist(), "score": rng.random()}
        for entry in as_results(coco) * 2
    ]
    theirs = [None if value == -1 else value for value in pycocotools_on(coco, results).stats.tolist()]
    assert list(measure(coco, results)["coco"].values()) == pytest.approx(theirs, abs=1e-9, rel=0)


def random_masks(seed: int) -> tuple[dict, list[dict]]:
    """Discs that are cut, as polygons, crowds as runs (RLE), detections of some of them with masks and boxes, a few
    with boxes alone, one whose mask is empty.
    """
    rng, images = np.random.default_rng(seed), 8
    sizes_hw = rng.integers(150, 260, (images, 2)).tolist()
    annotations, results = [], []
    for number, (height, width) in enumerate(sizes_hw, start=1):
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        for n in range(rng.integers(0, 6)):
            x, y, radius, turn = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(6, 90), rng.uniform(0, 6)
            angles = turn + np.linspace(0, rng.uniform(3, 6), 12)
            polygon = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).clip(0)
            rle = to_rle([polygon.ravel().tolist()], (height, width))
            mask, is_crowd = coco_mask.decode(rle), n == 4
            runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2)), append=mask.size)
            counts = [0] * int(mask[0, 0]) + runs.tolist()
            box, label = coco_mask.toBbox(rle).tolist(), int(rng.integers(1, 3))
            common = {"image_id": number, "category_id": label, "bbox": box}
            segmentation = {"size": [height, width], "counts": counts} if is_crowd else [polygon.ravel().tolist()]
            own = {"id": len(annotations) + 1, "area": float(mask.sum()), "iscrowd": int(is_crowd)}
            annotations.append({**common, **own, "segmentation": segmentation})
            for _ in range(rng.integers(0, 4)):
                distance = np.hypot(across - x - rng.normal(0, radius / 8), down - y)
                moved = distance < radius * rng.uniform(0.5, 1)
                found = coco_mask.encode(np.asfortranarray((moved | mask.astype(bool)).astype(np.uint8)))
                found["counts"] = found["counts"].decode()
                box = coco_mask.toBbox(found).tolist()
                results.append({**common, "bbox": box, "score": float(rng.random()), "segmentation": found})
            results.append({**common, "score": float(rng.random() / 100)})
    empty = {"size": sizes_hw[0], "counts": coco_mask.encode(np.zeros(sizes_hw[0], np.uint8, "F"))["counts"].decode()}
    results.append({"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5, "segmentation": empty})
    coco = make_coco([], images)
    for image, (height, width) in zip(coco["images"], sizes_hw, strict=True):
        image |= {"height": height, "width": width}
    return coco | {"annotations": annotations}, results


@pytest.mark.parametrize("seed", range(3))
def test_masks_equal_pycocotools(seed: int) -> None:
    coco, results = random_masks(seed)
    checked = check_results(results, coco, Path("p.json"))
    masked = [{k: v for k, v in result.items() if k != "bbox"} for result in results if "segmentation" in result]
    ours = measure(coco, checked)
    assert ours["iou_type"] == "segm" and ours["detections"] == len(masked) < len(results)
    for name, theirs in (
        ("coco", pycocotools_on(coco, masked, "segm")),
        ("coco_boxes", pycocotools_on(coco, [{**r, "segmentation": []} for r in results])),
    ):
        expected = [None if value == -1 else value for value in theirs.stats.tolist()]
        assert [*ours[name].values()] == pytest.approx(expected, abs=1e-9, rel=0), name
    assert ours["coco"]["AP"] != ours["coco_boxes"]["AP"]


def test_masks_are_measured_where_annotations_and_detections_have_them() -> None:
    coco, results = random_masks(0)
    boxes = [{k: v for k, v in result.items() if k != "segmentation"} for result in results]
    of_boxes = measure(coco, boxes)
    assert of_boxes["iou_type"] == "bbox" and "coco_boxes" not in of_boxes
    assert measure(coco, [])["iou_type"] == measure(EMPTY, [])["iou_type"] == "bbox"
    first, *others = coco["annotations"]
    for segmentation in ([], None, [[1, 2]], {"size": [1, 1], "counts": "01"}):
        broken = coco | {"annotations": [first | {"segmentation": segmentation}, *others]}
        assert measure(broken, results) == of_boxes
    nothing_there = measure(coco | {"annotations": []}, results)
    assert nothing_there["iou_type"] == "segm" and nothing_there["coco"]["AP"] is None
    assert nothing_there["errors"]["background"]["count"] > 0


def test_overlaps_are_those_of_every_pair_of_an_image() -> None:
    matches = match_all(*random_set(0))
    gt, detections, pairs = matches.gt, matches.detections, matches.pairs
    detection, row = np.nonzero(detections.image[:, None] == gt.image)
    boxes_xywh, gt_xywh = detections.boxes_xywh[detection], gt.boxes_xywh[row]
    iou = iou_xywh(boxes_xywh, gt_xywh)
    # Of I / (A + B - I), the share I / A.
    inside = iou / (1 + iou) * (1 + gt_xywh[:, 2:].prod(axis=1) / boxes_xywh[:, 2:].prod(axis=1).clip(1e-9))
    iou = np.where(gt.crowd[row], inside, iou)  # of a crowd region the share of the detection counts
    expected = {(d, g): i for d, g, i in zip(detection, row, iou, strict=True) if i >= BACKGROUND_IOU}
    assert {(d, g): i for d, g, i in zip(*pairs, strict=True)} == pytest.approx(expected, rel=1e-12)
    assert len(expected) == len(pairs.iou) > 100 and gt.crowd[pairs.gt].any()


# ------------------------------------------------------------------------------------------------ perfect, and nothing


def test_ground_truth_fed_back_is_perfect_everywhere() -> None:
    coco, _ = random_set(1, packed=50)
    coco["annotations"] += [{**a, "id": 1000 + a["id"]} for a in coco["annotations"][:3]]  # the same boxes once more
    twin = dict(coco["annotations"][0])
    coco["annotations"].append({**twin, "id": 2000, "category_id": 7 if twin["category_id"] != 7 else 4})
    metrics = measure(coco, as_results(coco))
    assert [v for name, v in metrics["coco"].items() if name not in ("AR 1", "AR 10") and v is not None] != []
    assert {v for name, v in metrics["coco"].items() if name not in ("AR 1", "AR 10")} <= {1.0, None}
    assert metrics["interval"]["AP"] == metrics["interval"]["AP50"] == [1.0, 1.0]
    perfect = {"threshold": 0.5, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert metrics["overall"]["best"] == perfect
    for of_class in metrics["classes"]:
        if of_class["objects"]:
            assert of_class["AP"] == of_class["AP50"] == of_class["AR"] == 1.0 and of_class["best"] == perfect
            assert set(np.ravel(of_class["precision_at_recall"])) == {1.0}
    table = np.array(metrics["confusion"])
    assert table.trace() == table.sum() == metrics["objects"] > 0
    assert [(kind["count"], kind["ap50_gain"]) for kind in metrics["errors"].values()] == [(0, 0.0)] * 6
    assert metrics["calibration"]["expected_error"] == 0.0


EMPTY = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}


def test_nothing_found_nothing_annotated_nothing_at_all() -> None:
    coco = make_coco([(1, 1, 10, 10, 50, 50)])
    results = make_results([(1, 1, 0.9, 10, 10, 50, 50), (2, 2, 0.8, 0, 0, 9, 9)])
    unfound, unannotated = measure(coco, []), measure({**coco, "annotations": []}, results)
    for metrics in (unfound, unannotated, measure(EMPTY, [])):
        json.dumps(metrics, allow_nan=False)
        assert metrics["threshold"] == 0.5 and set(metrics["overall"]["best"].values()) == {None}
    assert unfound["coco"]["AP"] == 0.0 and unfound["interval"]["AP"] == [0.0, 0.0]
    assert unfound["classes"][0]["AR"] == 0.0 and unfound["classes"][1]["AR"] is None
    assert unfound["overall"]["f1"] == [0.0] * 101 and unfound["overall"]["precision"] == [None] * 101
    assert unfound["errors"]["missed"]["count"] == 1 and unfound["errors"]["missed"]["ap50_gain"] == 1.0
    assert unfound["calibration"]["expected_error"] is None and unfound["confusion"][0] == [0, 0, 1]
    assert set(unannotated["coco"].values()) == {None} and unannotated["interval"]["AP50"] is None
    assert unannotated["overall"]["f1"] == unannotated["overall"]["recall"] == [None] * 101
    assert unannotated["errors"]["background"] | {"meaning": ""} == {"count": 2, "ap50_gain": None, "meaning": ""}
    assert unannotated["calibration"]["expected_error"] == pytest.approx(0.85)
    assert unannotated["confusion"][2] == [1, 1, 0]


# ------------------------------------------------------------------------------------------------ more than 100 objects


def test_more_than_100_objects_of_a_class_in_an_image_are_all_counted() -> None:
    """AP and AR keep COCO's limit: of 200 objects in each image the best 100 detections count."""
    boxes = [(image, 1, 20 * (n % 20), 20 * (n // 20), 18, 18) for image in (1, 2, 3) for n in range(200)]
    coco = make_coco(boxes, images=3, classes=1)
    results = make_results([(image, label, 0.9, *box) for image, label, *box in boxes])
    metrics = measure(coco, results)
    assert metrics["overall"]["best"] == {"threshold": 0.45, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert metrics["confusion"] == [[600, 0], [0, 0]]
    assert not any(kind["count"] for kind in metrics["errors"].values())
    assert set(np.ravel(metrics["classes"][0]["precision_at_recall"])) == {1.0}
    assert sum(b["count"] for b in metrics["calibration"]["bins"]) == 600
    assert metrics["coco"]["AR 100"] == metrics["classes"][0]["AR"] == 0.5
    assert metrics["coco"]["AP"] == metrics["classes"][0]["AP"] == pytest.approx(51 / 101)
    assert metrics["interval"]["AP"] == pytest.approx([51 / 101, 51 / 101])


# --------------------------------------------------------------------------------------------------- thresholds, scores


def slow_matches(coco: dict, results: list[dict], threshold: float) -> dict[int, dict]:
    """Index of each kept detection -> the annotation it finds at IoU 0.5; absent where none, ignored ones removed."""
    found, taken = {}, set()
    kept = [i for i, r in enumerate(results) if r["score"] >= threshold]
    for i in sorted(kept, key=lambda i: -results[i]["score"]):
        same = [a for a in coco["annotations"] if all(a[k] == results[i][k] for k in ("image_id", "category_id"))]
        near = [(iou(results[i]["bbox"], a["bbox"]), a) for a in same if not a["iscrowd"] and a["id"] not in taken]
        best, annotation = max(near, key=lambda pair: pair[0], default=(0, None))
        if best >= 0.5:
            found[i] = annotation
            taken.add(annotation["id"])
        elif any(a["iscrowd"] and share(results[i]["bbox"], a["bbox"]) >= 0.5 for a in same):
            kept.remove(i)
    return {i: found.get(i) for i in kept}


def common(a: list, b: list) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def iou(a: list, b: list) -> float:
    return common(a, b) / (a[2] * a[3] + b[2] * b[3] - common(a, b)) if common(a, b) else 0


def share(a: list, b: list) -> float:
    return common(a, b) / (a[2] * a[3]) if common(a, b) else 0


@pytest.mark.parametrize("seed", range(3))
def test_f1_is_what_a_slow_count_gives_and_the_best_is_the_best(seed: int) -> None:
    coco, results = random_set(seed)
    objects = sum(not a["iscrowd"] for a in coco["annotations"])

    def slow_f1(threshold: float) -> float:
        matches = slow_matches(coco, results, threshold)
        return 2 * sum(a is not None for a in matches.values()) / (len(matches) + objects)

    overall = measure(coco, results)["overall"]
    for threshold in (0, 17, 50, 83, 100):
        assert overall["f1"][threshold] == pytest.approx(slow_f1(threshold / 100))
    best = overall["best"]
    some = [slow_f1(r["score"]) for r in results[::6]]
    assert max(some) - 1e-9 <= best["f1"] == pytest.approx(slow_f1(best["threshold"]))
    matches = slow_matches(coco, results, best["threshold"])
    right = sum(a is not None for a in matches.values())
    assert (best["precision"], best["recall"]) == pytest.approx((right / len(matches), right / objects))


def test_equal_scores_stand_or_fall_together() -> None:
    coco = make_coco([(1, 1, 10, 10, 50, 50), (1, 1, 100, 10, 50, 50)])
    boxes = [(1, 1, 0.7, 10, 10, 50, 50), (1, 1, 0.7, 300, 300, 50, 50), (1, 1, 0.2, 100, 10, 50, 50)]
    best = measure(coco, make_results(boxes))["overall"]["best"]
    assert best == {"threshold": pytest.approx(0.1), "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": 0.8}
    best = measure(coco, make_results(boxes[:2]))["overall"]["best"]
    assert best["threshold"] == 0.35 and best["f1"] == 0.5


def test_calibration_by_hand() -> None:
    coco = make_coco([(1, 1, 10, 10, 50, 50), (1, 1, 200, 10, 50, 50), (2, 1, 0, 0, 99, 99)], crowds=(2,))
    scores = [(1, 1, 0.95, 10, 10, 50, 50), (1, 1, 0.91, 99, 99, 9, 9), (1, 1, 1.0, 200, 10, 50, 50)]
    ignored = [(2, 1, 0.5, 10, 10, 20, 20)]
    calibration = measure(coco, make_results(scores + ignored))["calibration"]
    assert [b["count"] for b in calibration["bins"]] == [0] * 9 + [3]
    last = calibration["bins"][9]
    assert (last["score"], last["precision"]) == (pytest.approx(2.86 / 3), pytest.approx(2 / 3))
    assert calibration["expected_error"] == pytest.approx(0.86 / 3)


def test_thresholds_and_curves_fit_together() -> None:
    coco, results = random_set(2)
    metrics = measure(coco, results)
    assert metrics["thresholds"] == THRESHOLDS.tolist() and len(metrics["overall"]["f1"]) == 101
    assert [c["id"] for c in metrics["classes"]] == sorted(c["id"] for c in coco["categories"])
    json.dumps(metrics, allow_nan=False)
    assert measure(coco, results, threshold=0.25)["threshold"] == 0.25


# ------------------------------------------------------------------------------------------------------------- mistakes

SCENE = [(1, 1, 0, 0, 100, 100), (1, 2, 200, 0, 100, 100), (1, 1, 0, 200, 100, 100), (2, 2, 0, 0, 100, 100)]
# Each is one mistake more than detections that find everything: what it is, and the entry of the confusion matrix.
ONE_MISTAKE = {
    "duplicate": ((1, 1, 0.99, 0, 0, 100, 90), (2, 0)),
    "classification": ((1, 1, 0.99, 200, 0, 100, 90), (2, 0)),
    "localization": ((1, 1, 0.99, 0, 60, 100, 100), (2, 0)),
    "both": ((1, 1, 0.99, 200, 60, 100, 100), (2, 0)),
    "background": ((2, 1, 0.99, 300, 300, 50, 50), (2, 0)),
}


@pytest.mark.parametrize("kind", ONE_MISTAKE)
def test_one_mistake_of_each_kind(kind: str) -> None:
    coco = make_coco(SCENE)
    wrong, (row, column) = ONE_MISTAKE[kind]
    perfect = [(image, label, 1.0 if kind == "duplicate" else 0.9, *box) for image, label, *box in SCENE]
    metrics = measure(coco, make_results([*perfect, wrong]), threshold=0.5)
    counts = {name: mistake["count"] for name, mistake in metrics["errors"].items() if mistake["count"]}
    assert counts == {kind: 1}
    assert metrics["confusion"][row][column] == 1 and np.trace(metrics["confusion"]) == 4
    gains = {name: mistake["ap50_gain"] for name, mistake in metrics["errors"].items()}
    assert gains.pop(kind) == pytest.approx(1 - metrics["coco"]["AP50"]) and set(gains.values()) == {0.0}


def test_a_better_class_or_box_finds_the_object_and_a_missed_one_is_taken_out() -> None:
    coco = make_coco(SCENE)
    found = [(1, 1, 0.9, 0, 0, 100, 100), (1, 1, 0.8, 200, 0, 100, 100), (1, 1, 0.7, 0, 260, 100, 100)]
    metrics = measure(coco, make_results(found), threshold=0.5)
    counts = {name: mistake["count"] for name, mistake in metrics["errors"].items() if mistake["count"]}
    assert counts == {"classification": 1, "localization": 1, "missed": 1}
    assert metrics["confusion"] == [[1, 0, 1], [1, 0, 1], [1, 0, 0]]
    # One of two objects of class 1 is found: 51 of 101 recall points. Class 2: none of two.
    half = 51 / 101
    assert metrics["coco"]["AP50"] == pytest.approx(half / 2)
    gains = {name: mistake["ap50_gain"] for name, mistake in metrics["errors"].items()}
    assert gains["classification"] == pytest.approx(half / 2)  # class 2 finds one of its two
    assert gains["localization"] == pytest.approx((half + 50 / 101 * 2 / 3 - half) / 2)  # right, after a wrong one
    assert gains["missed"] == pytest.approx(0)  # class 2 still finds none of the one that is left
    assert gains["duplicate"] == gains["both"] == gains["background"] == 0.0


def test_a_class_of_which_all_is_missed_gains_everything() -> None:
    metrics = measure(make_coco(SCENE), make_results([(1, 1, 0.9, *SCENE[0][2:]), (1, 1, 0.9, *SCENE[2][2:])]))
    assert metrics["coco"]["AP50"] == 0.5 and metrics["errors"]["missed"]["ap50_gain"] == 0.5


def test_mistakes_below_the_threshold_do_not_count_but_leave_objects_missed() -> None:
    coco = make_coco(SCENE)
    found = [(1, 1, 0.9, 0, 0, 100, 100), (1, 1, 0.2, 200, 0, 100, 100), (1, 1, 0.1, 0, 200, 100, 100)]
    errors = measure(coco, make_results(found), threshold=0.5)["errors"]
    assert {name: mistake["count"] for name, mistake in errors.items() if mistake["count"]} == {"missed": 3}


def test_crowds_count_neither_as_objects_nor_as_mistakes() -> None:
    coco = make_coco([*SCENE, (2, 1, 200, 200, 200, 200)], crowds=(4,))
    inside = [(2, 1, score, 210 + 40 * n, 220, 30, 30) for n, score in enumerate((0.9, 0.8, 0.7))]
    metrics = measure(coco, make_results([*inside, *[(i, c, 0.5, *box) for i, c, *box in SCENE]]))
    assert metrics["objects"] == 4 and metrics["coco"]["AP"] == 1.0 and metrics["overall"]["best"]["f1"] == 1.0
    assert np.array(metrics["confusion"]).sum() == 4
    assert not any(mistake["count"] for mistake in metrics["errors"].values())
    assert sum(b["count"] for b in metrics["calibration"]["bins"]) == 4
    # What overlaps a crowd region of another class touches nothing that is to be found.
    other = measure(coco, make_results([(2, 2, 0.9, 200, 200, 190, 190)]))["errors"]
    assert other["background"]["count"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_mistakes_are_what_slow_counts_give(seed: int) -> None:
    coco, results = random_set(seed)
    ids = sorted(c["id"] for c in coco["categories"])
    metrics = measure(coco, results, threshold=0.3)
    matches = slow_matches(coco, results, 0.3)
    counts = {name: mistake["count"] for name, mistake in metrics["errors"].items()}
    assert counts == slow_mistakes(coco, results, matches)
    assert metrics["confusion"] == slow_confusion(coco, results, matches, ids)


def slow_mistakes(coco: dict, results: list[dict], matches: dict[int, dict | None]) -> dict[str, int]:
    counts = dict.fromkeys(("duplicate", "classification", "localization", "both", "background", "missed"), 0)
    explained = {a["id"] for a in matches.values() if a}
    for i in (i for i, a in matches.items() if a is None):
        around = [a for a in coco["annotations"] if a["image_id"] == results[i]["image_id"] and not a["iscrowd"]]
        best = {True: (0.0, None), False: (0.0, None)}
        for a in around:
            is_same = a["category_id"] == results[i]["category_id"]
            best[is_same] = max(best[is_same], (iou(results[i]["bbox"], a["bbox"]), a["id"]), key=lambda b: b[0])
        (same, same_id), (other, other_id) = best[True], best[False]
        if same >= 0.5:
            counts["duplicate"] += 1
        elif other >= 0.5:
            counts["classification"] += 1
            explained.add(other_id)
        elif same >= 0.1:
            counts["localization"] += 1
            explained.add(same_id)
        else:
            counts["both" if other >= 0.1 else "background"] += 1
    counts["missed"] = sum(not a["iscrowd"] and a["id"] not in explained for a in coco["annotations"])
    return counts


def slow_confusion(coco: dict, results: list[dict], matches: dict[int, dict | None], ids: list[int]) -> list[list[int]]:
    table = [[0] * (len(ids) + 1) for _ in range(len(ids) + 1)]
    taken = {a["id"] for a in matches.values() if a}
    for i, annotation in sorted(matches.items(), key=lambda pair: -results[pair[0]]["score"]):
        if annotation is None:
            free = [a for a in coco["annotations"] if not a["iscrowd"] and a["id"] not in taken]
            near = [(iou(results[i]["bbox"], a["bbox"]), a) for a in free if a["image_id"] == results[i]["image_id"]]
            best, annotation = max(near, key=lambda pair: pair[0], default=(0, None))
            annotation = annotation if best >= 0.5 else None
            taken |= {annotation["id"]} if annotation else set()
        row = ids.index(annotation["category_id"]) if annotation else len(ids)
        table[row][ids.index(results[i]["category_id"])] += 1
    for a in coco["annotations"]:
        if not a["iscrowd"] and a["id"] not in taken:
            table[ids.index(a["category_id"])][-1] += 1
    return table


# ------------------------------------------------------------------------------------------------------------ bootstrap


def test_a_resample_is_pycocotools_on_copies_of_the_images() -> None:
    coco, results = random_set(5)
    matches = match_all(coco, results)
    times_drawn = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 3).astype(np.int32)
    for ap, times in zip(resampled_ap(matches, times_drawn), times_drawn, strict=True):
        image_ids = sorted(image["id"] for image in coco["images"])
        copies = [(i, 1000 * i + n) for i, count in zip(image_ids, times, strict=True) for n in range(count)]
        drawn = {
            "images": [{"id": new} for _, new in copies],
            "categories": coco["categories"],
            "annotations": [
                {**a, "image_id": new} for old, new in copies for a in coco["annotations"] if a["image_id"] == old
            ],
        }
        for number, annotation in enumerate(drawn["annotations"], start=1):
            annotation["id"] = number
        found = [{**r, "image_id": new} for old, new in copies for r in results if r["image_id"] == old]
        theirs = pycocotools_on(drawn, found).eval["precision"][..., 0, 2].mean(axis=1).T
        np.testing.assert_allclose(np.nan_to_num(ap, nan=-1), theirs, atol=1e-9, rtol=0)


def test_each_image_once_is_ap_itself_and_the_interval_is_the_same_each_time() -> None:
    coco, results = random_set(6)
    matches = match_all(coco, results)
    once = resampled_ap(matches, np.ones((1, 12), dtype=np.int32))[0]
    np.testing.assert_allclose(once, curves(matches).precision.mean(axis=2).T, atol=1e-12)
    first, second = measure(coco, results), measure(coco, results)
    assert first["interval"] == second["interval"]
    low, high = first["interval"]["AP"]
    assert 0 <= low < first["coco"]["AP"] < high <= 1


def test_the_interval_is_as_wide_as_ap_moves_between_sets_of_images() -> None:
    sets = [random_set(seed, images=40) for seed in range(30)]
    measured = [measure(coco, results) for coco, results in sets]
    moved = np.std([metrics["coco"]["AP50"] for metrics in measured])
    half_width = np.mean([(high - low) / 2 / 1.96 for low, high in (m["interval"]["AP50"] for m in measured)])
    assert moved / 2 < half_width < moved * 2


# --------------------------------------------------------------------------------------------------------- wrong files


def test_results_that_do_not_fit_are_named() -> None:
    coco = make_coco(SCENE)
    good = make_results([(1, 1, 0.5, 0, 0, 9, 9)])
    assert check_results(good, coco, Path("p.json")) == good
    wrong = {
        "p.json: not detections": {},
        r"entry 1 is not a detection; image_id, category_id, bbox of four numbers": [*good, {"image_id": 1}],
        "entry 0 is not a detection": [3],
        "entry 0 has image_id 7, which the annotations do not list": [{**good[0], "image_id": 7}],
        "entry 0 has category_id 9, which": [{**good[0], "category_id": 9}],
        "and score 1.5; four finite numbers and a score between 0 and 1": [{**good[0], "score": 1.5}],
        "entry 0 has bbox .*nan": [{**good[0], "bbox": [1, 2, 3, math.nan]}],
        r"entry 0 has bbox \[1, 2\]": [{**good[0], "bbox": [1, 2]}],
    }
    runs = coco_mask.encode(np.asfortranarray(np.eye(400, dtype=np.uint8)))
    mask = runs | {"counts": runs["counts"].decode()}
    (checked,) = check_results([{**good[0], "segmentation": mask}], coco, Path("p.json"))
    assert coco_mask.area(checked["segmentation"]) == 400
    counts = r"entry 0 has a mask \(RLE\) whose counts are no runs that fill its image"
    for broken in ("", "zz", mask["counts"][:-1], "\ud800", "PPPPPPPPPPP0", None, 5, [400.0], [-1, 160001], ["1"]):
        with pytest.raises(UserError, match=counts):
            check_results([{**good[0], "segmentation": mask | {"counts": broken}}], coco, Path("p.json"))
    wrong |= {
        r"entry 0 has a mask \(RLE\) of another size, \[400, 9\], than its image, \[400, 400\]": [
            {**good[0], "segmentation": mask | {"size": [400, 9]}}
        ],
        r"entry 0 has a polygon that is none": [{**good[0], "segmentation": "mask"}],
        r"entry 0 has a polygon that is none \(\[1, 1e\+": [{**good[0], "segmentation": [[1, 1e300] * 3]}],
    }
    for message, results in wrong.items():
        with pytest.raises(UserError, match=message):
            check_results(results, coco, Path("p.json"))
