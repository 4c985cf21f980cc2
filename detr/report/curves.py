"""Curves of a run, or of several laid over each other. No torch; matplotlib without a display."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from detr.drawing import color_of, figure_text, save_figure
from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.report.runs import COCO_KEY, MASKS_KEY, Run

SPLITS = {"train_": ("train", "--"), "test_": ("validation", "-")}  # prefix of a key -> label, line style
_COLUMNS = 6
SMALLEST_SMOOTHED = 8  # points; fewer are drawn as they are
_LEGEND_INCHES = 0.45


class Line(NamedTuple):
    """One logged quantity."""

    key: str
    position: int = 0  # in a list


class Panel(NamedTuple):
    """One diagram: its title and what is in it."""

    title: str
    lines: tuple[Line, ...]
    is_share: bool = False  # values are from 0 to 1, and the best is named


def _both_splits(title: str, term: str) -> Panel:
    return Panel(title, tuple(Line(prefix + term) for prefix in SPLITS))


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
        Panel("AP (IoU 0.50 to 0.95)", (Line(COCO_KEY, 0), Line(MASKS_KEY, 0)), is_share=True),
        Panel("AP50 (IoU 0.50)", (Line(COCO_KEY, 1), Line(MASKS_KEY, 1)), is_share=True),
    ),
}
EVERYTHING = "every_quantity"


def panels_of_everything(runs: list[Run]) -> tuple[Panel, ...]:
    """Return a panel for every number that any of the runs has logged; training and validation share one."""
    panels: dict[str, dict[Line, None]] = {}  # title -> lines, in the order they are logged
    for key, value in (pair for run in runs for entry in run.log for pair in entry.items()):
        prefix = next((prefix for prefix in SPLITS if key.startswith(prefix)), "")
        title = key.removeprefix(prefix)
        if isinstance(value, list):
            is_coco = key in (COCO_KEY, MASKS_KEY)
            names = COCO_NUMBERS if is_coco else [f"{title} [{number}]" for number in range(len(value))]
            for number, name in enumerate(names):
                panels.setdefault(name, {})[Line(key, number)] = None
        elif isinstance(value, int | float) and key != "epoch":
            panels.setdefault(title, {})[Line(key)] = None
    return tuple(Panel(title, tuple(lines)) for title, lines in panels.items())


def draw_curves(runs: list[Run], name: str, path: Path) -> None:
    """Save one of `FIGURES`, or `EVERYTHING`, as a PNG; a run that lacks a quantity is left out of its panel."""
    panels = FIGURES.get(name) or panels_of_everything(runs)
    is_small = name == EVERYTHING
    columns = max(1, min(_COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    width, height = (columns * 2.5, rows * 1.7) if is_small else (columns * 4.6, rows * 3.6)
    height += _LEGEND_INCHES
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(rows, columns, squeeze=False)
    # Margins by hand: finding them takes longer than drawing does.
    edges = {"left": 0.55 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height}
    figure.subplots_adjust(**edges, top=1 - (_LEGEND_INCHES + 0.3) / height, wspace=0.3, hspace=0.45)
    handles: dict[str, Line2D] = {}
    for axis, panel in zip(axes.flat, panels, strict=False):
        handles |= draw_panel(axis, panel, runs, is_small)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    place = {"loc": "upper left", "bbox_to_anchor": (0.0, 1.0), "ncols": 8, "frameon": False, "fontsize": 9}
    runs_with_splits = {figure_text(run.name) for run in runs if f"{figure_text(run.name)}, validation" in handles}
    named = {label: handle for label, handle in handles.items() if label and label not in runs_with_splits}
    figure.legend([*named.values()], [*named], **place)
    save_figure(figure, path)


def draw_panel(axis: Axes, panel: Panel, runs: list[Run], is_small: bool = False) -> dict[str, Line2D]:
    """Draw one panel; return its lines by their names, for a legend.

    Colors tell runs apart, and the splits of a single run; dashes are training in any case.
    """
    handles = {}
    width_of_bell = max((len(run.log) for run in runs), default=0) / 40
    axis.set_title(figure_text(panel.title), fontsize=8 if is_small else 11)
    axis.tick_params(labelsize=7 if is_small else 9)
    for number, run in enumerate(runs):
        for line in panel.lines:
            epochs, values = run.series(*line)
            if not epochs:
                continue
            split, style = next((v for k, v in SPLITS.items() if line.key.startswith(k)), ("", "-"))
            is_mask = line.key == MASKS_KEY
            split, style = ("masks", "-.") if is_mask else (split, style)
            color = color_of(number if len(runs) > 1 else 2 * is_mask + (style == "--"))
            drawn = _draw_line(axis, epochs, values, style, color if split or len(runs) > 1 else "0.4", width_of_bell)
            handles[", ".join(filter(None, (figure_text(run.name) if len(runs) > 1 else "", split)))] = drawn
            if panel.is_share:
                best = int(np.argmax(values))
                axis.plot(epochs[best], values[best], "o", color=color, markersize=5)
                text = f"best {values[best]:.3f} in epoch {epochs[best]}" + (", masks" if is_mask else "")
                place = {"ha": "right", "color": color, "fontsize": 9, "transform": axis.transAxes}
                axis.text(0.98, 0.04 + 0.06 * (number + len(runs) * is_mask), text, **place)
    if panel.is_share:
        axis.set_ylim(-0.02, 1.02)
    if not handles:
        axis.text(0.5, 0.5, "no values", ha="center", va="center", color="0.5", transform=axis.transAxes)
        axis.set_axis_off()
        return {}
    axis.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)
    axis.yaxis.get_offset_text().set_fontsize(7)
    axis.locator_params(axis="y", nbins=4 if is_small else 7)
    axis.locator_params(axis="x", nbins=4 if is_small else 7, integer=True, min_n_ticks=1)  # no epoch 0.02
    if not is_small:
        axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return handles


def _draw_line(
    axis: Axes, epochs: list[int], values: list[float], style: str, color: str, width_of_bell: float
) -> Line2D:
    """Draw the values pale, and a smoothed line over them; few values as they are."""
    if len(values) < SMALLEST_SMOOTHED:
        marker = "o" if len(values) == 1 else None  # a single point has no line
        return axis.plot(epochs, values, style, color=color, marker=marker, linewidth=1.4)[0]
    axis.plot(epochs, values, color=color, linewidth=0.8, alpha=0.35)
    return axis.plot(epochs, smooth(np.array(values), width_of_bell), style, color=color, linewidth=1.6)[0]


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Means of (N,) values, weighted by a bell that falls to 0.6 `width` values to either side; they do not lag."""
    reach = min(int(np.ceil(3 * max(1.0, width))), (len(values) - 1) // 2)  # a longer bell would lengthen the result
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(1.0, width)) ** 2)
    return np.convolve(values, bell, "same") / np.convolve(np.ones(len(values)), bell, "same")
