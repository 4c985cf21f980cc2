"""Pictures of validation images: what is right and wrong in them, and what the detector looks at. No torch.

Shapes: Q queries, I images, h and w cells of an attention map.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from detr.images import read_rgb
from detr.report.curves import plain
from detr.report.matching import IGNORED, NOTHING
from detr.report.mistakes import DUPLICATE, KINDS, NO_MISTAKE
from detr.report.shown import Judged, Look, busiest_queries, queries_of, spread, worst_first
from detr.report.tables import MISTAKE_NAMES

_MOST_IMAGES, _COLUMNS = 12, 4
_MOST_ATTENDED, _QUERIES_OF_EACH, _POINTS_OF_EACH = 4, 3, 2
_QUERY_COLUMNS = 10
_SIDE = 640  # pixels of an image as it is drawn
_LARGE = 0.02  # of the image's area, from which on a box is not small
# How outcomes look, told apart by more than colour; the same on the page.
_STYLES = {
    "right": {"edgecolor": "#35d08a", "linewidth": 1.6, "linestyle": "-"},
    "wrong": {"edgecolor": "#ff8a2a", "linewidth": 1.8, "linestyle": (0, (4, 2))},
    "missed": {"edgecolor": "#5cb3ff", "linewidth": 1.6, "linestyle": (0, (1, 1.5)), "hatch": "////"},
    "annotated, found otherwise": {"edgecolor": "white", "linewidth": 1.0, "linestyle": "-"},
}
_PLAIN = {"edgecolor": "white", "linewidth": 1.4}
_MOST_TEXTS = 12  # boxes in an image of the gallery up to which each is named; more would hide it
_MOST_SMALL_TEXTS = 6  # in a smaller one
_TEXT_HEIGHT = 0.05  # of an image: with less room above a box its text goes inside
_TO_THE_LEFT = 2 / 3  # of an image's width: texts of boxes beyond it end with them instead of beginning there
_TEXT = {"color": "white", "fontsize": 7, "bbox": {"color": "#000000b0", "pad": 1, "linewidth": 0}}


def draw_gallery(judged: Judged, threshold: float, path: Path) -> None:
    """Save a PNG of validation images, from most mistakes to fewest, with the detections from a score on."""
    ranking, wrong = worst_first(judged, threshold), judged.wrong(threshold)
    numbers = ranking[spread(len(ranking), _MOST_IMAGES)].tolist()
    columns = min(_COLUMNS, len(numbers))
    figure, axes = plt.subplots(
        -(-len(numbers) // columns), columns, figsize=(4.2 * columns, 3.6 * -(-len(numbers) // columns) + 0.7),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis, number in zip(axes.flat, numbers, strict=False):
        _draw_judged(axis, judged, number, threshold)
        name = plain(judged.images[number]["file_name"])
        axis.set_title(f"{name}: {wrong[number]} {'mistake' if wrong[number] == 1 else 'mistakes'}", fontsize=9)
    for axis in axes.flat[len(numbers) :]:
        axis.remove()
    of_all = (
        "" if len(numbers) == len(judged.images) else f"{len(numbers)} of {len(judged.images)} images, evenly taken "
    )
    title = f"{of_all}from most mistakes to fewest; score from {threshold:.3f}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    shapes = [Patch(facecolor="none", label=name, **style) for name, style in _STYLES.items()]
    look = {"facecolor": "0.35", "edgecolor": "none", "labelcolor": "white"}  # the colours are made for photographs
    figure.legend(handles=shapes, loc="outside upper right", ncols=len(shapes), handlelength=3, **look)
    _save(figure, path)


def _draw_judged(axis: Axes, judged: Judged, number: int, threshold: float, most_texts: int = _MOST_TEXTS) -> None:
    """Draw an image with what is right, wrong and missed; nothing is named where that is more than `most_texts`."""
    matches, mistakes = judged.matches, judged.mistakes
    _show(axis, _read(judged, number))
    objects, found = judged.of_image(number, threshold)
    kinds = [MISTAKE_NAMES[kind].replace("\n", " ") for kind in KINDS]
    is_missed = judged.missed(threshold)[objects]
    missed, others = objects[is_missed], np.setdiff1d(objects[~is_missed], matches.matched[found])
    found = found[matches.outcome["all"][0, found] != IGNORED]
    is_named = len(missed) + len(found) <= most_texts
    for thing in others:
        _draw_box(axis, matches.objects.boxes_xywh[thing], _STYLES["annotated, found otherwise"])
    for thing in missed:
        text = f"missed: {matches.names[matches.objects.label[thing]]}"
        _draw_box(axis, matches.objects.boxes_xywh[thing], _STYLES["missed"], text if is_named else "")
    for one in found:
        kind = mistakes.kind[one]
        text = f"{matches.names[matches.found.label[one]]} {matches.found.score[one]:.2f}"
        is_right = kind == NO_MISTAKE
        text = text if is_right else f"{kinds[kind]}: {text}"
        style = _STYLES["right" if is_right else "wrong"]
        _draw_box(axis, matches.found.boxes_xywh[one], style, text if is_named else "")


def draw_attention(judged: Judged, looks: dict[int, Look], threshold: float, path: Path) -> None:
    """Save a PNG of a few images: where the queries of the best detections look, and where points look.

    Bright is what is attended to. Without detections from the threshold on it is those with the highest scores.
    """
    queries_of_image = {number: _best_queries(judged, number, look, threshold) for number, look in looks.items()}
    numbers = sorted(sorted(looks, key=lambda number: -len(queries_of_image[number]))[:_MOST_ATTENDED])
    columns = 1 + _QUERIES_OF_EACH + _POINTS_OF_EACH
    figure, axes = plt.subplots(
        len(numbers), columns, figsize=(3.1 * columns, 2.7 * len(numbers)), squeeze=False, layout="constrained"
    )
    for row, number in zip(axes, numbers, strict=True):
        look, photograph = looks[number], _read(judged, number)
        queries = queries_of_image[number] or np.argsort(-look.scores)[:_QUERIES_OF_EACH].tolist()
        _draw_judged(row[0], judged, number, threshold, _MOST_SMALL_TEXTS)
        row[0].set_title(plain(judged.images[number]["file_name"]), fontsize=8)
        for axis, query in zip(row[1:], queries, strict=False):
            _show(axis, photograph, look.cross[query])
            left, top, right, bottom = look.boxes_xyxy[query]
            _draw_box(axis, (left, top, right - left, bottom - top), _PLAIN)
            axis.set_title(f"query {query}, score {look.scores[query]:.2f}", fontsize=8)
        for axis, query in zip(row[1 + _QUERIES_OF_EACH :], queries, strict=False):
            _draw_point(axis, photograph, look, look.boxes_cxcywh[query, :2])
        for axis in row:
            if not axis.has_data():
                axis.remove()
    _save(figure, path)


def _best_queries(judged: Judged, number: int, look: Look, threshold: float) -> list[int]:
    """Those of the best detections of an image, one an object."""
    _, found = judged.of_image(number, threshold)
    found = found[judged.mistakes.kind[found] != DUPLICATE]
    boxes_xywh, scores = judged.matches.found.boxes_xywh[found], judged.matches.found.score[found]
    queries = dict.fromkeys(query for query in queries_of(boxes_xywh, scores, look) if query != NOTHING)
    return [*queries][:_QUERIES_OF_EACH]


def _draw_point(axis: Axes, photograph: Image.Image, look: Look, point_xy: np.ndarray) -> None:
    """Where the encoder looks from the cell of a point, in shares of the image."""
    if look.encoder is None:
        return
    height, width = look.encoder.shape[:2]
    column, row = (min(int(share * cells), cells - 1) for share, cells in zip(point_xy, (width, height), strict=True))
    _show(axis, photograph, look.encoder[row, column])
    x, y = (column + 0.5) / width * photograph.width, (row + 0.5) / height * photograph.height
    for size, colour in ((9, "black"), (7, "white")):
        axis.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.5)
    axis.set_title("the encoder, from the ring", fontsize=8)


def draw_queries(looks: list[Look], path: Path) -> None:
    """Save a PNG of where queries look: the box centres of each over all images (figure 7 of the paper).

    Those with the highest scores are shown; marks tell small boxes from wide and from tall ones.
    """
    queries = busiest_queries(looks)
    columns = min(_QUERY_COLUMNS, len(queries))
    rows = -(-len(queries) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns + 0.4, 1.65 * rows + 0.8), squeeze=False, layout="constrained"
    )
    shapes = {"small": ("o", "#009E73"), "large and wide": ("_", "#D55E00"), "large and tall": ("|", "#0072B2")}
    for axis, (query, boxes_cxcywh, scores) in zip(axes.flat, queries, strict=False):
        x, y, width, height = boxes_cxcywh.T
        is_small = width * height <= _LARGE
        masks = (is_small, ~is_small & (width > height), ~is_small & (width <= height))
        for mask, (marker, colour) in zip(masks, shapes.values(), strict=True):
            colours = [to_rgba(colour, 0.15 + 0.85 * float(score)) for score in scores[mask]]
            axis.scatter(x[mask], y[mask], s=8 if marker == "o" else 36, marker=marker, color=colours)
        axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"query {query}", fontsize=8)
        axis.spines[:].set_color("0.8")
    for axis in axes.flat[len(queries) :]:
        axis.remove()
    marks = [Line2D([], [], linestyle="", marker=m, color=c, label=name) for name, (m, c) in shapes.items()]
    figure.legend(handles=marks, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    title = f"box centres over {len(looks)} images; pale: low scores"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    _save(figure, path)


def _read(judged: Judged, number: int) -> Image.Image:
    return read_rgb(judged.folder / judged.images[number]["file_name"])


def _show(axis: Axes, photograph: Image.Image, attention: np.ndarray | None = None) -> None:
    """The photograph in its own pixels, darkened where a map (h, w) is low."""
    small = photograph.copy()
    small.thumbnail((_SIDE, _SIDE))
    extent = (0, photograph.width, photograph.height, 0)
    axis.imshow(small, extent=extent)
    if attention is not None:
        shade = np.zeros((*attention.shape, 4), dtype=np.float32)
        shade[..., 3] = 0.85 * (1 - (attention / max(attention.max(), 1e-12)) ** 0.7)
        axis.imshow(shade, extent=extent, interpolation="bilinear")
    axis.set_axis_off()


def _draw_box(axis: Axes, box_xywh: np.ndarray, style: dict, text: str = "") -> None:
    left, top, width, height = box_xywh
    axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="#000000a0", linewidth=3))
    axis.add_patch(Rectangle((left, top), width, height, fill=False, **style))
    if text:
        (_, right_end), (bottom_end, _) = axis.get_xlim(), axis.get_ylim()
        place = {"va": "top" if top < _TEXT_HEIGHT * bottom_end else "bottom", "ha": "left", "x": max(0, left)}
        if left + width / 2 > _TO_THE_LEFT * right_end:
            place |= {"ha": "right", "x": min(left + width, right_end)}
        axis.text(y=max(0, top), s=plain(text), clip_on=True, **place, **_TEXT)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
