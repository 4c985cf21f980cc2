"""Figures of what `metrics.measure` returns, of one run or of several. No torch."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detr.drawing import color_of, save_figure, short_names
from detr.evaluation.error_analysis import ERROR_TYPES
from detr.report.tables import Named, class_names

_MOST_COLORED = 5  # classes; of more, each is a pale line
_MOST_CLASSES = 16  # rows of a confusion matrix
_MOST_BARS = 24


def draw_metrics(runs: Named, path: Path) -> None:
    """Save six diagrams as a PNG: classes of one run, or several runs laid over each other."""
    short = short_names(name for name, _ in runs)
    runs = [(short[name], metrics) for name, metrics in runs]
    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = figure.subplots(2, 3)
    draw_precision(axes[0, 0], runs, level=0)
    if len(runs) == 1:
        _draw_precision_by_iou(axes[0, 1], runs[0][1])
    else:
        draw_precision(axes[0, 1], runs, level=5)
    draw_f1(axes[0, 2], runs)
    _draw_classes(axes[1, 0], runs)
    _draw_errors(axes[1, 1], runs)
    draw_calibration(axes[1, 2], runs)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=9, frameon=False, labelcolor="linecolor")
    save_figure(figure, path)


def _unit_square(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))


def _lines(runs: Named) -> Iterator[tuple[dict, list[dict], dict, dict]]:
    """Yield the lines of a diagram: a run's metrics, the classes of a line, what was measured of these, and its look.

    Of one run each class has a line, pale and without a name where they are many, before all of them together.
    """
    for number, (name, metrics) in enumerate(runs):
        known = [one for one in metrics["classes"] if one["objects"]]
        short = short_names(one["name"] for one in metrics["classes"])
        look = {"color": color_of(number), "label": name}
        if len(runs) == 1:
            look = {"color": "black", "label": "all classes" if len(short) > 1 else "".join(short.values())}
            for place, one in enumerate(known if len(known) > 1 else ()):
                of_one = {"color": color_of(place), "linewidth": 1.6, "label": short[one["name"]]}
                if len(known) > _MOST_COLORED:
                    of_one = {"color": "0.75", "linewidth": 0.8}
                yield metrics, [one], one, of_one
        yield metrics, known, metrics["overall"], look | {"linewidth": 2.2}


def draw_precision(axis: Axes, runs: Named, level: int) -> None:
    """Precision against recall at an IoU."""
    iou = runs[0][1]["iou_thresholds"][level]
    _unit_square(axis, f"precision against recall (IoU {iou:.2f})", "recall", "precision")
    for metrics, classes, _, look in _lines(runs):
        _plot_precision(axis, metrics, classes, level, look)


def _draw_precision_by_iou(axis: Axes, metrics: dict) -> None:
    """Precision against recall at every IoU, the stricter the paler."""
    _unit_square(axis, "the same by IoU, mean of the classes", "recall", "precision")
    axis.set(xlim=(-0.01, 1.42), xticks=np.arange(6) / 5)  # room for the legend, which no curve leaves free
    known = [one for one in metrics["classes"] if one["objects"]]
    for level, iou in enumerate(metrics["iou_thresholds"]):
        look = {"color": matplotlib.colormaps["viridis"](level / 11), "label": f"IoU {iou:.2f}"}
        _plot_precision(axis, metrics, known, level, look)


def _plot_precision(axis: Axes, metrics: dict, classes: list[dict], level: int, look: dict) -> None:
    """Draw the mean of the classes, if there is any, without its end at 0, which recall never reaches."""
    if classes:
        precision = np.mean([one["precision_at_recall"][level] for one in classes], axis=0)
        named = {"label": f"{look['label']}  {precision.mean():.3f}"} if "label" in look else {}
        axis.plot(metrics["recalls"], np.where(precision > 0, precision, np.nan), **(look | named))


def draw_f1(axis: Axes, runs: Named) -> None:
    """F1 against the score threshold, the best marked."""
    _unit_square(axis, "F1 against score threshold (IoU 0.50; dot: the best)", "score threshold", "F1")
    for metrics, _, one, look in _lines(runs):
        best = one["best"]
        if best["threshold"] is None:
            continue
        if "label" in look:
            look |= {"label": f"{look['label']}  {best['f1']:.3f} at {best['threshold']:.2f}"}
            axis.plot(best["threshold"], best["f1"], "o", color=look["color"], markersize=6)
        axis.plot(metrics["thresholds"], one["f1"], **look)


def _draw_classes(axis: Axes, runs: Named) -> None:
    """AP of each class as bars, AP50 as dots; of many classes the worst and the best of the first run."""
    by_name = [{c["name"]: c for c in metrics["classes"]} for _, metrics in runs]
    names = sorted(
        (n for n in class_names(runs) if any(by.get(n, {}).get("AP") is not None for by in by_name)),
        key=lambda n: max(by[n]["AP"] or 0 for by in by_name if n in by),
    )
    title = "AP of each class (dot: AP50)"
    half = max(2, _MOST_BARS // len(runs) // 2)
    if len(names) > 2 * half:
        title = f"AP of the {half} worst and best of {len(names)} classes (dot: AP50)"
        names = names[:half] + names[-half:]
    height = 0.8 / len(runs)
    for number, ((name, _), by) in enumerate(zip(runs, by_name, strict=True)):
        ys = np.arange(len(names)) - (number - (len(runs) - 1) / 2) * height
        values = [[by.get(n, {}).get(key) for n in names] for key in ("AP", "AP50")]
        ap, ap50 = np.array(values, dtype=np.float64)  # NaN where a run has no such class
        color = color_of(number)
        axis.barh(ys, ap, height * 0.9, color=color, alpha=0.8, label=name if len(runs) > 1 else None)
        axis.plot(ap50, ys, "o", color=color, markersize=5)
        for y, value in zip(ys[~np.isnan(ap)], ap[~np.isnan(ap)], strict=True):
            place = {"ha": "right", "color": "white"} if value > 0.15 else {"ha": "left"}
            axis.text(value, y, f" {value:.3f} ", va="center", fontsize=8, **place)
    axis.set(title=title, xlim=(0, 1.03), yticks=range(len(names)), yticklabels=short_names(names).values())
    room = max(0.5, (4 - len(names)) / 2)  # a single class is no reason for a bar as high as the diagram
    axis.set_ylim(-room, len(names) - 1 + room)


def _draw_errors(axis: Axes, runs: Named) -> None:
    """Draw the number of errors of each type, and what AP50 would gain without them."""
    height = 0.8 / len(runs)
    most = max((m["count"] for _, metrics in runs for m in metrics["errors"].values()), default=0)
    for number, (name, metrics) in enumerate(runs):
        ys = np.arange(len(ERROR_TYPES)) + (number - (len(runs) - 1) / 2) * height
        kinds = [metrics["errors"][kind] for kind in ERROR_TYPES]
        label = f"{name}, from score {metrics['threshold']:.2f}" if len(runs) > 1 else None
        counts = [kind["count"] for kind in kinds]
        axis.barh(ys, counts, height * 0.9, color=color_of(number), alpha=0.8, label=label)
        for y, kind in zip(ys, kinds, strict=True):
            gain = "" if kind["ap50_gain"] is None else f"   {kind['ap50_gain']:+.3f}"
            axis.text(kind["count"], y, f" {kind['count']}{gain}", va="center", fontsize=8)
    threshold = f" from score {runs[0][1]['threshold']:.2f}" if len(runs) == 1 else ""
    axis.set(title=f"errors{threshold} (+: AP50 gained without them)", xlim=(0, max(1, most) * 1.35))
    axis.set_yticks(range(len(ERROR_TYPES)), [*ERROR_TYPES])
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.invert_yaxis()


def draw_calibration(axis: Axes, runs: Named) -> None:
    """Draw precision against the mean score; the area of a dot is how many detections there are."""
    _unit_square(axis, "calibration (IoU 0.50; below the line: overconfident)", "score", "precision")
    axis.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1)
    for number, (name, metrics) in enumerate(runs):
        bins = [b for b in metrics["calibration"]["bins"] if b["count"]]
        if not bins:
            continue
        counts = np.array([b["count"] for b in bins])
        scores, shares = [b["score"] for b in bins], [b["precision"] for b in bins]
        color = color_of(number)
        label = f"{name}: " if len(runs) > 1 else ""
        label += f"expected error {metrics['calibration']['expected_error']:.3f}"
        axis.plot(scores, shares, color=color, linewidth=1.2, label=label)
        axis.scatter(scores, shares, 12 + 160 * counts / counts.max(), color=color, alpha=0.7, linewidth=0)


def draw_confusion(runs: Named, path: Path) -> None:
    """Save a confusion matrix of each run, side by side, as a PNG."""
    size = min(_MOST_CLASSES, max(len(metrics["classes"]) for _, metrics in runs)) + 1
    side = 2.4 + 0.55 * size
    figure = Figure(figsize=(side * len(runs), side + 0.2), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)
    figure.get_layout_engine().set(h_pad=0.15)
    short = short_names(name for name, _ in runs)
    for axis, (name, metrics) in zip(axes[0], runs, strict=True):
        draw_run_confusion(axis, metrics)
        run = f"{short[name]}, " if len(runs) > 1 else ""
        axis.set_title(f"{run}score from {metrics['threshold']:.2f}, IoU 0.50", fontsize=10, pad=8)
    save_figure(figure, path)


def draw_run_confusion(axis: Axes, metrics: dict) -> None:
    """Draw the confusion matrix of one run."""
    names = list(short_names(c["name"] for c in metrics["classes"]).values())
    counts = np.array(metrics["confusion"])
    counts, names = _most_confused(counts, names)
    # What stands in the background's row matches no ground truth: its share is of the predictions.
    of = np.repeat(counts.sum(axis=1, keepdims=True), len(counts), axis=1)
    of[-1] = counts.sum(axis=0)
    shares = counts / np.maximum(of, 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            text = f"{count}\n{shares[row, column]:.0%}" if len(counts) <= 8 else f"{count}"
            color = "white" if shares[row, column] > 0.55 else "#101010"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    places = range(len(counts))
    axis.set_xticks(places, [*names, "background"], rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(places, [*names, "background"])
    axis.set(xlabel="predicted\n(last row: share of the column)", ylabel="ground truth (share of the row)")
    axis.axhline(len(names) - 0.5, color="0.4", linewidth=1)
    axis.axvline(len(names) - 0.5, color="0.4", linewidth=1)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _most_confused(counts: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Of many classes those that are most often wrong; the others, and what is mixed up among them, are summed up."""
    if len(names) <= _MOST_CLASSES:
        return counts, names
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong[:-1], kind="stable")[: _MOST_CLASSES - 1])
    group = np.full(len(counts), _MOST_CLASSES - 1)
    group[shown], group[-1] = np.arange(len(shown)), _MOST_CLASSES
    summed = np.zeros((_MOST_CLASSES + 1, _MOST_CLASSES + 1), dtype=counts.dtype)
    np.add.at(summed, (group[:, None], group[None]), counts)
    return summed, [*(names[i] for i in shown), f"{len(names) - len(shown)} others"]
