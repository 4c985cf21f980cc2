"""Figures of validation images: true positives, errors, and what the detector attends to. No torch.

Shapes: Q queries, I images, h and w cells of an attention map.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path as Curve
from PIL import Image

from detr.data.images import read_rgb
from detr.drawing import figure_text, save_figure
from detr.evaluation.coco_matching import IGNORED, UNMATCHED
from detr.evaluation.error_analysis import DUPLICATE, ERROR_TYPES, NO_ERROR
from detr.report.gallery import AttentionMaps, EvaluatedImages, busiest_queries, evenly_spaced, queries_of
from detr.report.outlines import outlines
from utils import pluralize

_MOST_IMAGES, _COLUMNS = 12, 4
_MOST_ATTENDED, _QUERIES_OF_EACH, _POINTS_OF_EACH = 4, 3, 2
_QUERY_COLUMNS = 10
_SIDE = 640  # pixels of an image as it is drawn
_LARGE = 0.02  # of the image's area, from which on a box is not small
# How outcomes look, told apart by more than color; the same on the page.
_STYLES = {
    "true positive": {"edgecolor": "#35d08a", "linewidth": 1.6, "linestyle": "-"},
    "false positive": {"edgecolor": "#ff8a2a", "linewidth": 1.8, "linestyle": (0, (4, 2))},
    "missed": {"edgecolor": "#5cb3ff", "linewidth": 1.6, "linestyle": (0, (1, 1.5)), "hatch": "////"},
    "other ground truth": {"edgecolor": "white", "linewidth": 1.0, "linestyle": "-"},
}
_QUERY_MARKS = {"small": ("o", "#009E73"), "large and wide": ("_", "#D55E00"), "large and tall": ("|", "#0072B2")}
_PLAIN = {"edgecolor": "white", "linewidth": 1.4}
_OPACITY = 0.22  # of a mask
_BOX_WIDTH = 0.7  # of the line around a mask's box
_MOST_TEXTS = 12  # boxes in an image of the gallery up to which each is named; more would hide it
_MOST_SMALL_TEXTS = 6  # in a smaller one
_TEXT_HEIGHT = 0.05  # of an image: with less room above a box its text goes inside
_TO_THE_LEFT = 2 / 3  # of an image's width: texts of boxes beyond it end with them instead of beginning there
_TEXT = {"color": "white", "fontsize": 7, "bbox": {"color": "#000000b0", "pad": 1, "linewidth": 0}}


def draw_gallery(evaluated: EvaluatedImages, threshold: float, path: Path) -> None:
    """Save a PNG of validation images, from most errors to fewest, with the detections from a score on."""
    errors = evaluated.count_errors(threshold)
    ranking = np.argsort(-errors, kind="stable")
    numbers = ranking[evenly_spaced(len(ranking), _MOST_IMAGES)].tolist()
    columns = min(_COLUMNS, len(numbers))
    figure = Figure(figsize=(4.2 * columns, 3.6 * -(-len(numbers) // columns) + 0.7), layout="constrained")
    axes = figure.subplots(-(-len(numbers) // columns), columns, squeeze=False)
    for axis, number in zip(axes.flat, numbers, strict=False):
        draw_evaluated(axis, evaluated, number, threshold)
        name = figure_text(evaluated.images[number]["file_name"])
        axis.set_title(f"{name}: {pluralize(int(errors[number]), 'error')}", fontsize=9)
    for axis in axes.flat[len(numbers) :]:
        axis.remove()
    title = f"from most errors to fewest; score from {threshold:.3f}"
    if len(numbers) < len(evaluated.images):
        title = f"{len(numbers)} of {len(evaluated.images)} images, evenly sampled {title}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    shapes = [Patch(facecolor="none", label=name, **style) for name, style in _STYLES.items()]
    maps = {"facecolor": "0.35", "edgecolor": "none", "labelcolor": "white"}  # the colors are made for images
    figure.legend(handles=shapes, loc="outside upper right", ncols=len(shapes), handlelength=3, **maps)
    save_figure(figure, path)


def draw_evaluated(
    axis: Axes, evaluated: EvaluatedImages, number: int, threshold: float, most_texts: int = _MOST_TEXTS
) -> None:
    """Draw an image with its detections and missed objects; more than `most_texts` of them get no text."""
    matches, errors = evaluated.matches, evaluated.errors
    _show(axis, _read(evaluated, number))
    objects, detections = evaluated.of_image(number, threshold)
    kinds = [*ERROR_TYPES]
    is_missed = evaluated.missed(threshold)[objects]
    missed, others = objects[is_missed], np.setdiff1d(objects[~is_missed], matches.matched[detections])
    detections = detections[matches.outcome["all"][0, detections] != IGNORED]
    is_named = len(missed) + len(detections) <= most_texts
    for row in others:
        _draw_box(axis, matches.gt.boxes_xywh[row], _STYLES["other ground truth"], matches.gt.masks[row])
    for row in missed:
        text = f"missed: {matches.names[matches.gt.label[row]]}"
        missed_box = matches.gt.boxes_xywh[row], _STYLES["missed"], matches.gt.masks[row]
        _draw_box(axis, *missed_box, text if is_named else "")
    for one in detections:
        kind = errors.kind[one]
        text = f"{matches.names[matches.detections.label[one]]} {matches.detections.score[one]:.2f}"
        is_tp = kind == NO_ERROR
        text = text if is_tp else f"{kinds[kind]}: {text}"
        style = _STYLES["true positive" if is_tp else "false positive"]
        box_xywh, rle = matches.detections.boxes_xywh[one], matches.detections.masks[one]
        _draw_box(axis, box_xywh, style, rle, text if is_named else "")


def draw_attention(
    evaluated: EvaluatedImages, attention: dict[int, AttentionMaps], threshold: float, path: Path
) -> None:
    """Save a PNG of a few images: where the queries of the best detections look, and where points look.

    Bright is what is attended to. Without detections from the threshold on it is those with the highest scores.
    """
    queries_of_image = {number: _best_queries(evaluated, number, maps, threshold) for number, maps in attention.items()}
    numbers = sorted(sorted(attention, key=lambda number: -len(queries_of_image[number]))[:_MOST_ATTENDED])
    columns = 1 + _QUERIES_OF_EACH + _POINTS_OF_EACH
    figure = Figure(figsize=(3.1 * columns, 2.7 * len(numbers)), layout="constrained")
    axes = figure.subplots(len(numbers), columns, squeeze=False)
    for row, number in zip(axes, numbers, strict=True):
        maps, image = attention[number], _read(evaluated, number)
        detections = queries_of_image[number]
        queries = [*detections] or np.argsort(-maps.scores)[:_QUERIES_OF_EACH].tolist()
        draw_evaluated(row[0], evaluated, number, threshold, _MOST_SMALL_TEXTS)
        row[0].set_title(figure_text(evaluated.images[number]["file_name"]), fontsize=8)
        for axis, query in zip(row[1:], queries, strict=False):
            _show(axis, image, maps.cross[query])
            left, top, right, bottom = maps.boxes_xyxy[query]
            rle = evaluated.matches.detections.masks[detections[query]] if detections else None
            _draw_box(axis, (left, top, right - left, bottom - top), _PLAIN, rle, opacity=0)
            axis.set_title(f"query {query}, score {maps.scores[query]:.2f}", fontsize=8)
        for axis, query in zip(row[1 + _QUERIES_OF_EACH :], queries, strict=False):
            _draw_point(axis, image, maps, maps.boxes_cxcywh[query, :2])
        for axis in row:
            if not axis.has_data():
                axis.remove()
    save_figure(figure, path)


def _best_queries(evaluated: EvaluatedImages, number: int, maps: AttentionMaps, threshold: float) -> dict[int, int]:
    """Return those of the best detections of an image, one an object -> the detection."""
    _, detections = evaluated.of_image(number, threshold)
    detections = detections[evaluated.errors.kind[detections] != DUPLICATE]
    own, queries = evaluated.matches.detections, {}
    of_detections = queries_of(own.boxes_xywh[detections], own.score[detections], maps)
    for query, detection in zip(of_detections, detections.tolist(), strict=True):
        if query != UNMATCHED:
            queries.setdefault(query, detection)
    return dict(itertools.islice(queries.items(), _QUERIES_OF_EACH))


def _draw_point(axis: Axes, image: Image.Image, maps: AttentionMaps, point_xy: np.ndarray) -> None:
    """Where the encoder looks from the cell of a point, in shares of the image."""
    if maps.encoder is None:
        return
    height, width = maps.encoder.shape[:2]
    column, row = (min(int(share * cells), cells - 1) for share, cells in zip(point_xy, (width, height), strict=True))
    _show(axis, image, maps.encoder[row, column])
    x, y = (column + 0.5) / width * image.width, (row + 0.5) / height * image.height
    for size, color in ((9, "black"), (7, "white")):
        axis.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.5)
    axis.set_title("the encoder, from the ring", fontsize=8)


def draw_queries(attention: list[AttentionMaps], path: Path) -> None:
    """Save a PNG of where queries look: the box centres of each over all images (figure 7 of the paper).

    Those with the highest scores are shown; marks tell small boxes from wide and from tall ones.
    """
    queries = busiest_queries(attention)
    columns = min(_QUERY_COLUMNS, len(queries))
    rows = -(-len(queries) // columns)
    figure = Figure(figsize=(1.5 * columns + 0.4, 1.65 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (number, predictions) in zip(axes.flat, queries.items(), strict=False):
        draw_query(axis, number, predictions)
    for axis in axes.flat[len(queries) :]:
        axis.remove()
    marks = [Line2D([], [], linestyle="", marker=m, color=c, label=name) for name, (m, c) in _QUERY_MARKS.items()]
    figure.legend(handles=marks, loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    title = f"box centres over {len(attention)} images; pale: low scores"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save_figure(figure, path)


def draw_query(axis: Axes, number: int, predictions: np.ndarray) -> None:
    """Draw the box centers of a query, and its scores, in I images: (I, 5), the boxes_cxcywh first."""
    x, y, width, height, scores = predictions.T
    is_small = width * height <= _LARGE
    masks = (is_small, ~is_small & (width > height), ~is_small & (width <= height))
    for mask, (marker, color) in zip(masks, _QUERY_MARKS.values(), strict=True):
        colors = [to_rgba(color, 0.15 + 0.85 * float(score)) for score in scores[mask]]
        axis.scatter(x[mask], y[mask], s=8 if marker == "o" else 36, marker=marker, color=colors)
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    axis.set_title(f"query {number}", fontsize=8)
    axis.spines[:].set_color("0.8")


def _read(evaluated: EvaluatedImages, number: int) -> Image.Image:
    return read_rgb(evaluated.folder / evaluated.images[number]["file_name"])


def _show(axis: Axes, image: Image.Image, attention: np.ndarray | None = None) -> None:
    """Draw the image in its own pixels, darkened where a map (h, w) is low."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    extent = (0, image.width, image.height, 0)
    axis.imshow(small, extent=extent)
    if attention is not None:
        shade = np.zeros((*attention.shape, 4), dtype=np.float32)
        shade[..., 3] = 0.85 * (1 - (attention / max(attention.max(), 1e-12)) ** 0.7)
        axis.imshow(shade, extent=extent, interpolation="bilinear")
    axis.set_axis_off()


def _draw_box(
    axis: Axes,
    box_xywh: Sequence[float],
    style: dict,
    rle: dict | None = None,
    text: str = "",
    opacity: float = _OPACITY,
) -> None:
    """Draw a box; where there is a mask (RLE), its outline and a light fill in that style, and a thin box around it."""
    left, top, width, height = box_xywh
    shape = partial(Rectangle, (left, top), width, height)
    if pieces := outlines(rle):
        axis.add_patch(shape(fill=False, edgecolor=style["edgecolor"], linewidth=_BOX_WIDTH))
        curves = (Curve(np.concatenate([outline, outline[:1]]), closed=True) for outline in pieces)
        shape = partial(PathPatch, Curve.make_compound_path(*curves))
        axis.add_patch(shape(facecolor=to_rgba(style["edgecolor"], opacity), edgecolor="none"))
    axis.add_patch(shape(fill=False, edgecolor="#000000a0", linewidth=3))
    axis.add_patch(shape(fill=False, **style))
    if text:
        (_, right_end), (bottom_end, _) = axis.get_xlim(), axis.get_ylim()
        place = {"va": "top" if top < _TEXT_HEIGHT * bottom_end else "bottom", "ha": "left", "x": max(0, left)}
        if left + width / 2 > _TO_THE_LEFT * right_end:
            place |= {"ha": "right", "x": min(left + width, right_end)}
        axis.text(y=max(0, top), s=figure_text(text), clip_on=True, **place, **_TEXT)
