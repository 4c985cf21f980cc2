"""The page's charts: matplotlib's SVG, whose colors the style sheet sets for a dark or a light page. No torch."""

import io
import re
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detr.drawing import COLORS
from detr.report.curves import Panel, draw_panel
from detr.report.gallery import AttentionMaps, busiest_queries
from detr.report.image_figures import draw_query
from detr.report.metric_figures import draw_calibration, draw_f1, draw_precision, draw_run_confusion
from detr.report.runs import Run

# Colors as matplotlib writes them -> those of page.css.
_CSS_COLORS = {color.lower(): f"var(--run{number})" for number, color in enumerate(COLORS)} | {
    "#000000": "var(--text)",
    "#b0b0b0": "var(--line)",  # grids
}


def to_svg(draw: Callable[[Axes], object], width: float, height: float) -> str:
    """Return what `draw` puts into axes as an SVG element of `width` x `height` inches, to stand inside HTML.

    Names of classes and runs are text in it, never markup: matplotlib escapes them.
    """
    style = {
        "svg.fonttype": "none",  # text stays text
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.framealpha": 0,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axis = figure.subplots()
        draw(axis)
        axis.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda color: _CSS_COLORS.get(color[0], color[0]), svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", svg)
    # Ids that nothing refers to would stand in the page several times; matplotlib makes the others at random.
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))
    svg = re.sub(r' id="([\w-]+)"', lambda i: i[0] if i[1] in used else "", svg)
    return svg.replace("<svg ", '<svg class="chart" role="img" ', 1)


def quality_charts(runs: list[tuple[str, dict]]) -> str:
    """Draw what depends on the threshold: precision against recall, F1, calibration."""

    def draw(axis: Axes, what: Callable[..., None]) -> None:
        """Draw one of them, with a grid and a legend."""
        what(axis, runs=runs)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, labelcolor="linecolor")

    draws = (partial(draw_precision, level=0), draw_f1, draw_calibration)
    return "".join(to_svg(partial(draw, what=what), 4.4, 3.4) for what in draws if runs)


def training_charts(runs: list[Run], panels: Sequence[Panel], is_small: bool) -> str:
    """Draw the curves of panels that have values."""

    def draw(axis: Axes, panel: Panel) -> None:
        """Draw a panel; large ones have a legend."""
        handles = draw_panel(axis, panel, runs, is_small)
        if any(handles) and not is_small:
            axis.legend([*handles.values()], [*handles], fontsize=8)

    size = (2.6, 1.9) if is_small else (4.4, 3.0)
    logged = (panel for panel in panels if any(run.series(*line)[0] for run in runs for line in panel.lines))
    return "".join(to_svg(partial(draw, panel=panel), *size) for panel in logged)


def query_charts(attention: list[AttentionMaps]) -> str:
    """Draw the box centers of the busiest queries."""
    queries = busiest_queries(attention).items()
    return "".join(to_svg(partial(draw_query, number=number, predictions=seen), 1.5, 1.6) for number, seen in queries)


def confusion_chart(metrics: dict | None) -> str:
    """Draw the confusion matrix of a run; nothing where its metrics are not known."""
    if not metrics:
        return ""
    side = min(12.0, 2.4 + 0.55 * (len(metrics["classes"]) + 1))
    return to_svg(partial(draw_run_confusion, metrics=metrics), side, side)
