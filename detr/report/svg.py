"""matplotlib's SVG for the page, whose style sheet gives it the colors of a dark or a light page. No torch."""

import hashlib
import io
import re
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils import COLORS

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
    # Several drawings share a document, in which an id may stand once; most are never referred to.
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg))
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r' id="([\w-]+)"', lambda i: f' id="{prefix}{i[1]}"' if i[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
    return svg.replace("<svg ", '<svg class="chart" role="img" ', 1)
