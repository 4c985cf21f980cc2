"""One self-contained HTML file about one run or several: numbers, charts, and a gallery that answers to the mouse.

Everything that comes from outside (names of classes, files, runs) travels as JSON in a script element that is never
run, and the page's script writes it as text only. No torch; nothing is fetched when the page is opened.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from detr.data.images import read_rgb
from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.evaluation.error_analysis import ERROR_TYPES, NO_ERROR
from detr.report.curves import FIGURES, Panel, draw_panel, panels_of_everything
from detr.report.gallery import MOST_IMAGES, AttentionMaps, EvaluatedImages, busiest_queries, evenly_spaced, queries_of
from detr.report.image_figures import draw_query
from detr.report.metric_figures import draw_calibration, draw_f1, draw_precision, draw_run_confusion
from detr.report.runs import Run
from detr.report.svg import to_svg
from detr.report.tables import ERROR_NAMES

_MOST_BOXES = 100  # detections of an image, the best
_IMAGE_BYTES = 6_000_000  # of all images together; base64 makes a third more of them
_LARGEST_SIDE, _SMALLEST_SIDE = 1024, 240  # pixels of the longer side of an image


def build_page(
    runs: list[Run],
    metrics: dict[str, dict | None],
    evaluated: EvaluatedImages | None = None,
    attention: dict[int, AttentionMaps] | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> str:
    """Return the page.

    Args:
        runs: whose curves are shown.
        metrics: of `metrics.measure`, by the name of the run; None where they are not known.
        judged: the first run's validation images, for the gallery.
        looks: what its detector looks at, by the number of the image; may be empty.
        on_image: called after each image.

    Raises UserError when an image cannot be read.
    """
    measured = [(run.name, metrics[run.name]) for run in runs if metrics.get(run.name)]
    panels = [panel for panels in FIGURES.values() for panel in panels]
    charts = {
        "QUALITY": _quality_charts(measured),
        "TRAINING": _training_charts(runs, panels, is_small=False),
        "EVERYTHING": _training_charts(runs, panels_of_everything(runs), is_small=True),
        "QUERIES": _query_charts(list((attention or {}).values())),
        "CONFUSION": _confusion_charts(measured[:1] if runs and metrics.get(runs[0].name) else []),
    }
    data = {
        "runs": [
            {"name": run.name, "epochs": len(run.log), "metrics": _numbers(metrics.get(run.name))} for run in runs
        ],
        "coco": list(COCO_NUMBERS),
        "kinds": [
            {"name": ERROR_NAMES[kind].replace("\n", " "), "key": kind, "meaning": meaning}
            for kind, meaning in ERROR_TYPES.items()
        ],
        "gallery": None,
    }
    if evaluated and evaluated.images:
        threshold = metrics[runs[0].name]["threshold"]
        data["gallery"] = _gallery(evaluated, attention or {}, threshold, on_image)
    return _fill(json.dumps(_rounded(data), separators=(",", ":"), ensure_ascii=False), charts)


def _fill(data: str, charts: dict[str, str]) -> str:
    """Fill the template; the browser runs the one script that it is told of, by its hash."""
    parts = {
        "STYLE": _piece("page.css"),
        "SCRIPT": _piece("page.js") + _piece("gallery.js"),
        "DATA": data.replace("<", "\\u003c"),  # no </script> and no <!-- can occur
        **charts,
    }
    digest = hashlib.sha256(parts["SCRIPT"].encode()).digest()
    parts["HASH"] = base64.b64encode(digest).decode()
    return re.sub("@([A-Z]+)@", lambda name: parts[name[1]], _piece("page.html"))  # in one pass: parts stay as is


def _piece(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _rounded(value: object) -> object:
    """Return the same with floats of six digits, and None for what JSON does not have."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _numbers(metrics: dict | None) -> dict | None:
    """Return the metrics that the page shows."""
    if metrics is None:
        return None
    names = ("images", "objects", "coco", "interval", "threshold", "mistakes", "calibration")
    numbers = {name: metrics[name] for name in names}
    numbers["f1"] = metrics["overall"]["best"]
    numbers["classes"] = [
        {key: one[key] for key in ("name", "objects", "AP", "AP50", "AR", "best")} for one in metrics["classes"]
    ]
    return numbers


# -------------------------------------------------------------------------------------------------------------- charts


def _quality_charts(runs: list[tuple[str, dict]]) -> str:
    """Draw what depends on the threshold: precision against recall, F1, calibration."""
    draws = (
        partial(draw_precision, runs=runs, level=0),
        partial(draw_f1, runs=runs),
        partial(draw_calibration, runs=runs),
    )
    return "".join(to_svg(partial(_with_legend, draw=draw), 4.4, 3.4) for draw in draws if runs)


def _with_legend(axis: Axes, draw: Callable[[Axes], object]) -> None:
    draw(axis)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, labelcolor="linecolor")


def _training_charts(runs: list[Run], panels: Sequence[Panel], is_small: bool) -> str:
    """Draw the curves of panels that have values."""

    def draw(axis: Axes, panel: Panel) -> None:
        handles = draw_panel(axis, panel, runs, is_small)
        if any(handles) and not is_small:
            axis.legend([*handles.values()], [*handles], fontsize=8)

    size = (2.6, 1.9) if is_small else (4.4, 3.0)
    logged = (
        panel for panel in panels if any(run.series(one.key, one.position)[0] for run in runs for one in panel.lines)
    )
    return "".join(to_svg(partial(draw, panel=panel), *size) for panel in logged)


def _query_charts(attention: list[AttentionMaps]) -> str:
    return "".join(to_svg(partial(draw_query, query=query), 1.5, 1.6) for query in busiest_queries(attention))


def _confusion_charts(runs: list[tuple[str, dict]]) -> str:
    """Draw the confusion matrix of the first run."""
    sides = [min(12.0, 2.4 + 0.55 * (len(metrics["classes"]) + 1)) for _, metrics in runs]
    charts = zip(runs, sides, strict=True)
    return "".join(to_svg(partial(draw_run_confusion, metrics=run[1]), side, side) for run, side in charts)


# ------------------------------------------------------------------------------------------------------------- gallery


def _gallery(
    evaluated: EvaluatedImages, attention: dict[int, AttentionMaps], threshold: float, on_image: Callable[[], object]
) -> dict:
    numbers = evenly_spaced(len(evaluated.images), MOST_IMAGES)
    images = []
    for number in numbers:
        images.append(_image(evaluated, number, attention.get(number), _IMAGE_BYTES // len(numbers)))
        on_image()
    return {"of": len(evaluated.images), "threshold": threshold, "classes": evaluated.matches.names, "images": images}


def _image(evaluated: EvaluatedImages, number: int, maps: AttentionMaps | None, budget: int) -> dict:
    """Return an image with its boxes in shares of its size, and what its queries look at."""
    image = read_rgb(evaluated.folder / evaluated.images[number]["file_name"])
    matches, errors = evaluated.matches, evaluated.errors
    objects, detections = evaluated.of_image(number)
    detections = detections[:_MOST_BOXES]
    place = {gt: position for position, gt in enumerate(objects.tolist())}
    queries = (
        list(queries_of(matches.detections.boxes_xywh[detections], matches.detections.score[detections], maps))
        if maps
        else []
    )
    scale = np.array([image.width, image.height] * 2)
    return {
        "name": evaluated.images[number]["file_name"],
        "width": image.width,
        "height": image.height,
        "jpeg": _jpeg(image, budget),
        "gt": [
            [int(matches.gt.label[one]), *(matches.gt.boxes_xywh[one] / scale).tolist(), int(crowd)]
            for one, crowd in zip(objects, matches.gt.crowd[objects], strict=True)
        ],
        "detections": [
            [
                int(matches.detections.label[one]),
                *(matches.detections.boxes_xywh[one] / scale).tolist(),
                float(matches.detections.score[one]),
                _kind(evaluated, one),
                place.get(int(matches.matched[one]), place.get(int(errors.about[one]), -1)),
                queries[position] if maps else -1,
            ]
            for position, one in enumerate(detections)
        ],
        "attention": maps
        and {
            "height": maps.cross.shape[1],
            "width": maps.cross.shape[2],
            "cross": _bytes(maps.cross),
            "encoder": None if maps.encoder is None else _bytes(maps.encoder.reshape(-1, *maps.encoder.shape[2:])),
        },
    }


def _kind(evaluated: EvaluatedImages, detection: int) -> int:
    """Into KINDS; -1 for a right one, -2 for one that does not count."""
    kind = int(evaluated.errors.kind[detection])
    return -2 if kind == NO_ERROR and evaluated.is_ignored(detection) else kind


def _jpeg(image: Image.Image, budget: int) -> str:
    """Return a JPEG file in base64, as large as the budget of bytes allows."""
    small, side = image.copy(), _LARGEST_SIDE
    while True:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        if file.tell() <= budget or side <= _SMALLEST_SIDE:
            return base64.b64encode(file.getvalue()).decode()
        # Bytes go with the area; the margin is for finer detail in smaller images.
        side = max(_SMALLEST_SIDE, int(0.95 * max(small.size) * (budget / file.tell()) ** 0.5))


def _bytes(maps: np.ndarray) -> str:
    """Return (M, h, w) maps in base64, a byte a value, 255 at the largest of each."""
    top = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    return base64.b64encode((maps / top * 255).round().astype(np.uint8).tobytes()).decode()
