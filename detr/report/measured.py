"""Runs whose detections were compared with the ground truth, and the folds of a cross-validation as one. No torch."""

from pathlib import Path
from typing import NamedTuple

from detr.evaluation.coco_matching import Matches, match_results
from detr.evaluation.metrics import measure
from detr.report.runs import Run


class Measured(NamedTuple):
    """A run whose detections were compared with the ground truth."""

    gt: dict  # COCO
    image_folder: Path
    predictions: list[dict]  # COCO's results format
    matches: Matches
    metrics: dict  # of `detr.evaluation.metrics.measure`


def join_folds(
    runs: list[Run], measured: dict[str, Measured | None], threshold: float | None
) -> tuple[list[Run], dict[str, Measured | None]]:
    """Return runs and what was measured of them by name, behind all as one where they are the folds of one whole.

    Says so where they are folds of no whole.
    """
    folds = [run.config.get("args", {}).get("fold") for run in runs]
    parts = [part for part in measured.values() if part]
    if not (len(runs) > 1 and all(folds) and len(parts) == len(runs)):
        return runs, measured
    count = int(folds[0].partition("/")[2])
    if sorted(folds) != sorted(f"{number}/{count}" for number in range(1, count + 1)):
        print(f"not joined: a cross-validation is each of its folds once; these are {', '.join(folds)}")
        return runs, measured
    if len({part.image_folder.resolve() for part in parts}) > 1:
        print("not joined: these are folds of different COCO folders")
        return runs, measured
    gt = parts[0].gt | {key: [entry for part in parts for entry in part.gt[key]] for key in ("images", "annotations")}
    predictions = [result for part in parts for result in part.predictions]
    matches, _ = match_results(gt, predictions)
    whole = Measured(gt, parts[0].image_folder, predictions, matches, measure(gt, predictions, threshold, matches))
    name = f"{count} folds"
    return [Run(name, [], runs[0].config), *runs], {name: whole, **measured}
