"""Detections in any images, drawn and as CSV. No torch."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from detr.drawing import color_of, draw_objects
from detr.evaluation.coco_matching import with_masks
from detr.report.outlines import outlines, tint_masks, to_polygons
from utils import atomic_path


def draw_results(image: Image.Image, results: Sequence[dict]) -> Image.Image:
    """Return an RGB image with boxes, names and scores of detections, and their masks where there are any."""
    masked = with_masks(results)
    colors = [color_of(result["category_id"]) for result in masked]
    tinted = tint_masks(image, [result["segmentation"] for result in masked], colors)
    drawn = []
    for result in results:
        polygons = [outline.ravel().tolist() for outline in outlines(result.get("segmentation"))]
        text, color = f"{result['category']} {result['score']:.2f}", color_of(result["category_id"])
        drawn.append(result | {"text": text, "color": color, "segmentation": polygons, "thin": bool(polygons)})
    return draw_objects(tinted, drawn)


def picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what the drawn images are called; a.jpg here and a.png there are two of them."""
    names: dict[Path, str] = {}
    for path in paths:
        name, number = path.stem, 1
        while name in names.values():
            number += 1
            name = f"{path.stem}_{number}"
        names[path] = name
    return names


def write_csv(path: Path, results: Sequence[dict]) -> None:
    """Write detections as CSV: the corner of each box, its width and its height in pixels.

    Where there are videos, the next columns have the frame, from 0, and its time in seconds; where there are masks, the
    last one has their polygons, as JSON: a list of x, y, x, y, ... for each piece.
    """
    columns = ["file", "category_id", "category", "score", "left", "top", "width", "height"]
    of_frames = [name for name in ("frame", "seconds") if any(name in result for result in results)]
    polygons = ["polygons"] if with_masks(results) else []
    # A file's name may not be UTF-8: its bytes are written as they are.
    options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with atomic_path(path) as temporary, temporary.open("w", **options) as file:
        rows = csv.writer(file)
        rows.writerow([*columns, *of_frames, *polygons])
        for r in results:
            row = [r["image_id"], r["category_id"], r["category"], r["score"], *r["bbox"]]
            row += [r.get(name, "") for name in of_frames]
            rows.writerow([*row, *(json.dumps(to_polygons(r.get("segmentation"))) for _ in polygons)])
