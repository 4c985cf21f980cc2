"""Metrics as a person reads them in a terminal: one column a run."""

from collections.abc import Sequence

from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.evaluation.error_analysis import ERROR_TYPES

Named = list[tuple[str, dict]]  # (name of a run, its metrics)


def headline_table(runs: Named) -> str:
    """Return the numbers of each run, side by side."""
    counted, errors = ("images", "objects", "detections"), [f"  {kind}" for kind in ERROR_TYPES]
    columns = [["", *counted, *COCO_NUMBERS, "best F1", "calibration error", "errors", *errors]]
    for name, metrics in runs:
        column = [name, *(f"{metrics[key]:,}" for key in counted), *(_coco(metrics, key) for key in COCO_NUMBERS)]
        column += [_best(metrics["overall"]["best"]), number(metrics["calibration"]["expected_error"])]
        column += [f"at score {metrics['threshold']:.3f}"]
        columns.append(column + [_error(metrics["errors"][kind]) for kind in ERROR_TYPES])
    interval = runs[0][1]["interval"]
    note = (
        f"in brackets: {interval['level']:.0%} of {interval['resamples']} resamples of the images; behind errors: "
        "what AP50, which is over all scores, would gain without them"
    )
    if any(metrics["iou_type"] == "segm" for _, metrics in runs):
        note += "; where boxes are named, all other numbers are of masks"
    return f"{aligned([*zip(*columns, strict=True)])}\n{note}"


def class_table(runs: Named) -> str:
    """Return the numbers of every class: of one run all there are, of several their AP side by side."""
    by_name = [{c["name"]: c for c in metrics["classes"]} for _, metrics in runs]
    if len(runs) > 1:
        rows = [["AP of", *(name for name, _ in runs)]]
        rows += [[name, *(number(by.get(name, {}).get("AP")) for by in by_name)] for name in class_names(runs)]
        return aligned(rows)
    rows = [["class", "objects", "AP", "AP50", "AR", "best F1"]]
    for one in runs[0][1]["classes"]:
        numbers = [number(one[key]) for key in ("AP", "AP50", "AR")]
        rows.append([one["name"], f"{one['objects']:,}", *numbers, _best(one["best"])])
    return aligned(rows)


def class_names(runs: Named) -> list[str]:
    """Return the classes of all runs, each once."""
    return list(dict.fromkeys(c["name"] for _, metrics in runs for c in metrics["classes"]))


def number(value: float | None) -> str:
    """Return a number with three digits, a dash where it is not defined."""
    return "-" if value is None else f"{value:.3f}"


def _coco(metrics: dict, key: str) -> str:
    ends = metrics["interval"].get(key)
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    boxes = f", boxes {number(metrics['coco_boxes'][key])}" if metrics["iou_type"] == "segm" else ""
    return number(metrics["coco"][key]) + interval + boxes


def _best(best: dict) -> str:
    return "-" if best["threshold"] is None else f"{best['f1']:.3f} at score {best['threshold']:.3f}"


def _error(error: dict) -> str:
    gain = error["ap50_gain"]
    return f"{error['count']:,}" + ("" if gain is None else f" ({gain:+.3f})")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table, whose columns are as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
