"""One self-contained HTML file about one run or several: numbers, curves, and a gallery that answers to the mouse.

Everything that comes from outside (names of classes, files, runs) travels as JSON in a script element that is never
run, and the page's script writes it as text only. No torch; nothing is fetched when the page is opened.
"""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from detr.data.images import read_rgb
from detr.evaluation.coco_metrics import COCO_NUMBERS
from detr.evaluation.error_analysis import ERROR_TYPES, NO_ERROR
from detr.report.curves import FIGURES, SMALLEST_SMOOTHED, SPLITS, Panel, panels_of_everything, smooth
from detr.report.gallery import MOST_IMAGES, AttentionMaps, EvaluatedImages, busiest_queries, evenly_spaced, queries_of
from detr.report.runs import Run
from detr.report.tables import ERROR_NAMES

_MOST_BOXES = 100  # detections of an image, the best
_IMAGE_BYTES = 6_000_000  # of all images together; base64 makes a third more of them
_LARGEST_SIDE, _SMALLEST_SIDE = 1024, 240  # pixels of the longer side of an image
_MOST_POINTS = 500  # of a curve
_MOST_CONFUSED = 16  # classes in a confusion matrix that can still be read


def build_page(
    runs: list[Run],
    metrics: dict[str, dict | None],
    evaluated: EvaluatedImages | None = None,
    attention: dict[int, AttentionMaps] | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> str:
    """The page.

    Args:
        runs: whose curves are shown.
        metrics: of `metrics.measure`, by the name of the run; None where they are not known.
        judged: the first run's validation images, for the gallery.
        looks: what its detector looks at, by the number of the image; may be empty.
        on_image: called after each image.

    Raises UserError when an image cannot be read.
    """
    data = {
        "runs": [
            {"name": run.name, "epochs": len(run.log), "metrics": _numbers(metrics.get(run.name))} for run in runs
        ],
        "coco": list(COCO_NUMBERS),
        "kinds": [
            {"name": ERROR_NAMES[kind].replace("\n", " "), "key": kind, "meaning": meaning}
            for kind, meaning in ERROR_TYPES.items()
        ],
        "panels": [_curves(panel, runs) for panels in FIGURES.values() for panel in panels],
        "everything": [_curves(panel, runs) for panel in panels_of_everything(runs)],
        "gallery": None,
    }
    if evaluated and evaluated.images:
        threshold = metrics[runs[0].name]["threshold"]
        data["gallery"] = _gallery(evaluated, attention or {}, threshold, on_image)
    return _fill(json.dumps(_rounded(data), separators=(",", ":"), ensure_ascii=False))


def _fill(data: str) -> str:
    """The template with its parts in place; the browser runs the one script that it is told of, by its hash."""
    parts = {
        "STYLE": _piece("page.css"),
        "SCRIPT": _piece("page.js") + _piece("gallery.js"),
        "DATA": data.replace("<", "\\u003c"),  # no </script> and no <!-- can occur
    }
    digest = hashlib.sha256(parts["SCRIPT"].encode()).digest()
    parts["HASH"] = base64.b64encode(digest).decode()
    return re.sub(
        "@([A-Z]+)@", lambda detections: parts[detections[1]], _piece("page.html")
    )  # in one pass: parts stay as is


def _piece(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _rounded(value: object) -> object:
    """The same with floats of six digits, and None for what JSON does not have."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _numbers(metrics: dict | None) -> dict | None:
    """Of all metrics those that the page shows."""
    if metrics is None:
        return None
    names = (
        *("images", "objects", "coco", "interval", "overall", "threshold", "thresholds", "recalls"),
        *("mistakes", "calibration"),
    )
    numbers = {name: metrics[name] for name in names}
    numbers["confusion"] = metrics["confusion"] if len(metrics["classes"]) <= _MOST_CONFUSED else None
    numbers["classes"] = [
        {
            **{key: one[key] for key in ("name", "objects", "AP", "AP50", "AR", "best")},
            "precision": one["precision_at_recall"] and one["precision_at_recall"][0],
        }
        for one in metrics["classes"]
    ]
    return numbers


def _curves(panel: Panel, runs: list[Run]) -> dict:
    """What is drawn in a diagram: values as logged, and smoothed where there are enough."""
    width_of_bell = max((len(run.log) for run in runs), default=0) / 40
    lines = []
    for number, run in enumerate(runs):
        for line in panel.lines:
            epochs, values = run.series(line.key, line.position)
            split = next((label for prefix, (label, _) in SPLITS.items() if line.key.startswith(prefix)), "")
            points = evenly_spaced(len(values), _MOST_POINTS)
            smoothed = smooth(np.array(values), width_of_bell) if len(values) >= SMALLEST_SMOOTHED else None
            if values:
                lines.append(
                    {
                        "run": number,
                        "split": split,
                        "x": [epochs[point] for point in points],
                        "y": [values[point] for point in points],
                        "smooth": None if smoothed is None else smoothed[points].tolist(),
                    }
                )
    return {"title": panel.title, "share": panel.is_share, "lines": lines}


# ------------------------------------------------------------------------------------------------------------- gallery


def _gallery(
    evaluated: EvaluatedImages, attention: dict[int, AttentionMaps], threshold: float, on_image: Callable[[], object]
) -> dict:
    numbers = evenly_spaced(len(evaluated.images), MOST_IMAGES)
    images = []
    for number in numbers:
        images.append(_image(evaluated, number, attention.get(number), _IMAGE_BYTES // len(numbers)))
        on_image()
    return {
        "of": len(evaluated.images),
        "threshold": threshold,
        "classes": evaluated.matches.names,
        "images": images,
        "queries": [
            {"query": query, "boxes": boxes_cxcywh.tolist(), "scores": scores.tolist()}
            for query, boxes_cxcywh, scores in busiest_queries(list(attention.values()))
        ],
    }


def _image(evaluated: EvaluatedImages, number: int, maps: AttentionMaps | None, budget: int) -> dict:
    """An image with its boxes in shares of its size, and what its queries look at."""
    photograph = read_rgb(evaluated.folder / evaluated.images[number]["file_name"])
    matches, errors = evaluated.matches, evaluated.errors
    objects, detections = evaluated.of_image(number)
    detections = detections[:_MOST_BOXES]
    place = {gt: position for position, gt in enumerate(objects.tolist())}
    queries = (
        list(queries_of(matches.detections.boxes_xywh[detections], matches.detections.score[detections], maps))
        if maps
        else []
    )
    scale = np.array([photograph.width, photograph.height] * 2)
    return {
        "name": evaluated.images[number]["file_name"],
        "width": photograph.width,
        "height": photograph.height,
        "jpeg": _jpeg(photograph, budget),
        "objects": [
            [int(matches.gt.label[one]), *(matches.gt.boxes_xywh[one] / scale).tolist(), int(crowd)]
            for one, crowd in zip(objects, matches.gt.crowd[objects], strict=True)
        ],
        "found": [
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


def _jpeg(photograph: Image.Image, budget: int) -> str:
    """In base64, as large as the budget of bytes allows."""
    small, side = photograph.copy(), _LARGEST_SIDE
    while True:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=80)
        if file.tell() <= budget or side <= _SMALLEST_SIDE:
            return base64.b64encode(file.getvalue()).decode()
        # Bytes go with the area; the margin is for finer detail in smaller images.
        side = max(_SMALLEST_SIDE, int(0.95 * max(small.size) * (budget / file.tell()) ** 0.5))


def _bytes(maps: np.ndarray) -> str:
    """(M, h, w) maps in base64, a byte a value, 255 at the largest of each."""
    top = np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    return base64.b64encode((maps / top * 255).round().astype(np.uint8).tobytes()).decode()
