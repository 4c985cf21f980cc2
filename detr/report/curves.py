"""Curves of a run, or of several laid over each other. No torch; matplotlib without a display."""

from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from detr.report.runs import Run


class Panel(NamedTuple):
    """One diagram: its title and the logged keys in it, each with a line style."""

    title: str
    lines: tuple[tuple[str, int, str, str], ...]  # (key, position in a list, label, line style)


def _both_splits(title: str, term: str) -> Panel:
    return Panel(title, ((f"train_{term}", 0, "train", "--"), (f"test_{term}", 0, "validation", "-")))


FIGURES = {
    "losses": (
        _both_splits("total loss", "loss"),
        _both_splits("classification loss", "loss_ce"),
        _both_splits("box loss (L1)", "loss_bbox"),
        _both_splits("box loss (GIoU)", "loss_giou"),
    ),
    "errors": (
        _both_splits("class error (%)", "class_error"),
        _both_splits("cardinality error (objects)", "cardinality_error_unscaled"),
    ),
    "average_precision": (
        Panel("AP (IoU 0.50 to 0.95)", (("test_coco_eval_bbox", 0, "validation", "-"),)),
        Panel("AP50 (IoU 0.50)", (("test_coco_eval_bbox", 1, "validation", "-"),)),
    ),
}


def draw_curves(runs: list[Run], name: str, path: Path, colours: tuple[str, ...]) -> None:
    """Save one of `FIGURES` as a PNG; a run that lacks a quantity is left out of its panel."""
    panels = FIGURES[name]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False, layout="constrained")
    for axis, panel in zip(axes[0], panels, strict=True):
        for number, run in enumerate(runs):
            for key, position, label, style in panel.lines:
                epochs, values = run.series(key, position)
                marker = "o" if len(epochs) == 1 else None  # a single point has no line
                text = f"{run.name}, {label}" if len(runs) > 1 else label
                if epochs:
                    colour = colours[number % len(colours)]
                    axis.plot(epochs, values, style, color=colour, label=text, marker=marker, linewidth=1.4)
        axis.set(title=panel.title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # no epoch 0.02
        axis.grid(alpha=0.3)
        if name == "average_precision":
            axis.set_ylim(-0.02, 1.02)
        if axis.has_data():
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
