"""One self-contained HTML file about one run or several: numbers, charts, and a gallery that answers to the mouse.

Everything that comes from outside (names of classes, files, runs) is escaped, or travels as JSON in a script element
that is never run, and the page's script writes it as text only. No torch; nothing is fetched when the page is opened.
"""

import base64
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from detr.data.images import read_rgb
from detr.evaluation.coco_matching import IGNORED
from detr.evaluation.error_analysis import ERROR_TYPES
from detr.report import page_charts, page_tables
from detr.report.curves import FIGURES, panels_of_everything
from detr.report.gallery import MOST_IMAGES, AttentionMaps, EvaluatedImages, evenly_spaced, queries_of
from detr.report.outlines import outlines
from detr.report.runs import Run
from utils import Progress

_MOST_BOXES = 100  # detections of an image, the best
_MOST_POINTS, _LEAST_OF_A_MASK, _MOST_OF_A_MASK = 2000, 8, 120  # of the outlines in an image; each takes some 8 bytes
_OUTLINE_UNITS = 1000  # outlines are whole numbers of these parts of the image's sides
_IMAGE_BYTES = 6_000_000  # of all images together; base64 makes a third more of them
_LARGEST_SIDE, _SMALLEST_SIDE = 1024, 240  # pixels of the longer side of an image
_WORDS = {  # of page.html
    "ABOUT": "detection results",
    "TP": "true positive",
    "FP": "false positive",
    "MISSED": "missed",
    "GT": "other ground truth",
    "WORST": "most errors",
    "BEST": "fewest errors",
}


def build_page(
    runs: list[Run],
    metrics: dict[str, dict | None],
    evaluated: EvaluatedImages | None = None,
    attention: dict[int, AttentionMaps] | None = None,
) -> str:
    """Return the page.

    Args:
        runs: whose curves are shown.
        metrics: of `metrics.measure`, by the name of the run; None where they are not known.
        evaluated: the first run's validation images, for the gallery.
        attention: what its detector attends to, by the number of the image; may be empty.

    Raises UserError when an image cannot be read.
    """
    measured = [(run.name, metrics[run.name]) for run in runs if metrics.get(run.name)]
    panels = [panel for panels in FIGURES.values() for panel in panels]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"
    parts = _WORDS | {
        "TITLE": escape(title),
        "SUBTITLE": escape(page_tables.subtitle(runs, metrics)),
        "HEADLINE": page_tables.headline(runs, metrics),
        "COCO": page_tables.coco_table(measured),
        "ERRORS": page_tables.error_table(runs, measured),
        "CLASSES": page_tables.class_table(measured),
        "CONFUSION": page_charts.confusion_chart(metrics.get(runs[0].name)),
        "QUALITY": page_charts.quality_charts(measured),
        "QUERIES": page_charts.query_charts(list((attention or {}).values())),
        "TRAINING": page_charts.training_charts(runs, panels, is_small=False),
        "EVERYTHING": page_charts.training_charts(runs, panels_of_everything(runs), is_small=True),
    }
    data = {"review": "", "detector": runs[0].name if len(runs) > 1 else "", "kinds": [*ERROR_TYPES], "gallery": None}
    if evaluated and evaluated.images:
        threshold = metrics[runs[0].name]["threshold"]
        data["gallery"] = _gallery(evaluated, attention or {}, threshold)
    return fill_report(data, parts)


def fill_report(data: dict, parts: dict[str, str]) -> str:
    """Return page.html with `data`, which gallery.js reads, and HTML by the names in it: title, subtitle and sections,
    of which empty ones are hidden, and words of the legend and the order (`_WORDS`).
    """
    rounded = json.loads(  # six digits are enough, and JSON has no NaN
        json.dumps(data), parse_float=lambda digits: float(f"{float(digits):.6g}"), parse_constant=lambda name: None
    )
    return fill_template("page.html", ("page.js", "gallery.js"), rounded, defaultdict(str, parts))


def fill_template(template: str, scripts: Sequence[str], data: dict, parts: dict[str, str]) -> str:
    """Return a page of this folder; the browser runs the one script that it is told of, by its hash.

    Args:
        template: an HTML file with names in capitals between at signs.
        scripts: JavaScript files, which become one script.
        data: what they find in the element `data`.
        parts: HTML by those names, besides STYLE, SCRIPT, DATA and HASH.
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    parts |= {
        "STYLE": _piece("page.css"),
        "SCRIPT": "".join(map(_piece, scripts)),
        "DATA": text.replace("<", "\\u003c"),  # no </script> and no <!-- can occur
    }
    digest = hashlib.sha256(parts["SCRIPT"].encode()).digest()
    parts["HASH"] = base64.b64encode(digest).decode()
    return re.sub("@([A-Z]+)@", lambda name: parts[name[1]], _piece(template))  # in one pass: parts stay as is


def _piece(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- gallery


def _gallery(evaluated: EvaluatedImages, attention: dict[int, AttentionMaps], threshold: float) -> dict:
    numbers, images = evenly_spaced(len(evaluated.images), MOST_IMAGES), []
    with Progress(len(numbers), "report") as bar:
        for number in numbers:
            images.append(_image(evaluated, number, attention.get(number), len(numbers)))
            bar.update()
    return {"of": len(evaluated.images), "threshold": threshold, "classes": evaluated.matches.names, "images": images}


def _image(evaluated: EvaluatedImages, number: int, maps: AttentionMaps | None, images: int) -> dict:
    """Return one of so many images with its boxes in shares of its size, and what its queries look at."""
    image = read_rgb(evaluated.folder / evaluated.images[number]["file_name"])
    matches, errors = evaluated.matches, evaluated.errors
    objects, detections = evaluated.of_image(number)
    detections = detections[:_MOST_BOXES]
    place = {gt: position for position, gt in enumerate(objects.tolist())}
    boxes_xywh, scores = matches.detections.boxes_xywh[detections], matches.detections.score[detections]
    queries = [*queries_of(boxes_xywh, scores, maps)] if maps else [-1] * len(detections)
    kinds = np.where(matches.outcome["all"][0] == IGNORED, -2, errors.kind)  # into `kinds` of the page; -1 is right
    scale = np.array([image.width, image.height] * 2)
    masks = [*(matches.gt.masks[one] for one in objects), *(matches.detections.masks[one] for one in detections)]
    drawn = outlines_in_units(masks, image.size)
    gt_outlines, outlines_of_detections = drawn[: len(objects)], drawn[len(objects) :]
    return picture(image, evaluated.images[number]["file_name"], images) | {
        "gt": [
            [int(matches.gt.label[one]), *(matches.gt.boxes_xywh[one] / scale).tolist(), int(crowd), *mask]
            for one, crowd, mask in zip(objects, matches.gt.crowd[objects], gt_outlines, strict=True)
        ],
        "detections": [
            [
                int(matches.detections.label[one]),
                *(matches.detections.boxes_xywh[one] / scale).tolist(),
                float(matches.detections.score[one]),
                int(kinds[one]),
                place.get(int(matches.matched[one]), place.get(int(errors.gt[one]), -1)),
                query,
                *mask,
            ]
            for one, query, mask in zip(detections, queries, outlines_of_detections, strict=True)
        ],
        "attention": maps
        and {
            "height": maps.cross.shape[1],
            "width": maps.cross.shape[2],
            "cross": _bytes(maps.cross),
            "encoder": None if maps.encoder is None else _bytes(maps.encoder.reshape(-1, *maps.encoder.shape[2:])),
        },
    }


def picture(image: Image.Image, name: str, images: int) -> dict:
    """Return what gallery.js needs to show an image, one of so many that share the page's bytes."""
    return {"name": name, "width": image.width, "height": image.height, "jpeg": _jpeg(image, _IMAGE_BYTES // images)}


def outlines_in_units(masks: Sequence[dict | None], size_wh: tuple[int, int]) -> list[list]:
    """Return, for each mask (RLE) of an image, a list of its outlines in a list, which is empty where there is none.

    An outline is x, y, x, y, ... in `_OUTLINE_UNITS` of the image's sides.
    """
    most = int(np.clip(_MOST_POINTS // max(1, len(masks)), _LEAST_OF_A_MASK, _MOST_OF_A_MASK))
    tolerance = max(0.5, max(size_wh) / _OUTLINE_UNITS)
    return [
        [[(line / size_wh * _OUTLINE_UNITS).round().astype(int).ravel().tolist() for line in lines]] if rle else []
        for rle, lines in ((rle, outlines(rle, tolerance, most)) for rle in masks)
    ]


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
