"""Detections and annotations as a VIA 2 project, to be corrected in VIA and read back by prep.py. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detr.data.video import is_video
from detr.evaluation.calibration import calibrated, expected_errors
from detr.importers.via.clip import polygon_area
from detr.importers.via.record import DETECTED_CLASS, DETECTED_NOTE, DETECTED_SCORE
from detr.report.outlines import outlines
from utils import UserError, is_line, quote, write_json

# As many points as a person can move: outlines pass a mask's border by a pixel, or more where that takes more points.
_SURE = 0.75  # detections that are right less often are to be checked
_TOLERANCE, _MOST_POINTS = 1.0, 40
_ESCAPES = str.maketrans({letter: f"%{ord(letter):02X}" for letter in "%?#"})  # as VIA's list of images decodes them
_SETTINGS = {  # what VIA 2 saves of its window; the class is written on each region
    "annotation_editor_height": 25,
    "annotation_editor_fontsize": 0.8,
    "leftsidebar_width": 18,
    "image_grid": {
        "img_height": 80,
        "rshape_fill": "none",
        "rshape_fill_opacity": 0.3,
        "rshape_stroke": "yellow",
        "rshape_stroke_width": 2,
        "show_region_shape": True,
        "show_image_policy": "all",
    },
    "image": {
        "region_label": DETECTED_CLASS,
        "region_color": DETECTED_CLASS,
        "region_label_font": "10px Sans",
        "on_image_annotation_editor_placement": "NEAR_REGION",
    },
}


def names_in_project(file: Path, images: Sequence[Path]) -> dict[Path, str]:
    """Return what a project calls images: where they lie, seen from its folder, as a part of an address.

    Raises UserError where the file is there already or VIA would not offer it, or an image lies elsewhere or has a name
    that is no text: prep.py would not find it.
    """
    if file.suffix.lower() != ".json":
        raise UserError(f"--via {file}: VIA opens *.json; accepted: a name such as {file.name}.json")
    if file.exists():
        raise UserError(f"--via {file}: is there already and may hold corrections; give another name, or delete it")
    folder, names = file.parent.resolve(), {}
    for image in images:
        if is_video(image):
            raise UserError(f"--via {file}: {image} is a video; accepted: images, as VIA 2 knows nothing else")
        path = image.parent.resolve() / image.name
        if not path.is_relative_to(folder):
            raise UserError(
                f"--via {file}: {image} is not below the folder of that file, where VIA and prep.py look for images; "
                f"accepted: a file in a folder that holds all of them, such as {image.parent / file.name}"
            )
        names[image] = path.relative_to(folder).as_posix()
        if not is_line(names[image]):
            raise UserError(f"{quote(str(image))}: the name is no line of text, which VIA needs; rename the image")
        names[image] = names[image].translate(_ESCAPES)
        if names[image].startswith("www."):
            names[image] = f"./{names[image]}"  # VIA would look for it on the web
    return names


class Detected(NamedTuple):
    """What was detected in an image."""

    size_wh: tuple[int, int]
    results: list[dict]  # COCO's, with `category`, the name
    scores: list[float]  # also of what is too faint to be a result


def write_detections(
    file: Path,
    detected: dict[Path, Detected],
    categories: Sequence[str],
    threshold: float,
    bins: list[dict],
    limit: int | None = None,
    novelties: Mapping[Path, float] | None = None,
) -> int:
    """Write detections as a project, the images first whose correction teaches most.

    These are the ones in which most errors are to be expected; of as many, rounded, those that are least like any
    annotated image.

    Args:
        file: of the project.
        detected: of each image; of equal images, the first stay first.
        categories: names of the detector's classes.
        threshold: the least score of a result.
        bins: of `calibration.calibration`, where it is known; detections that are right less often than `_SURE` get a
            note.
        limit: the most images (None: all).
        novelties: `predict.novelty` of each image, where it is known.

    Returns the number of images. Raises UserError as `names_in_project` does.
    """
    errors = {path: expected_errors(one.scores, threshold, bins) for path, one in detected.items()}
    ranks = {path: (round(count), novelties[path] if novelties else 0, count) for path, count in errors.items()}
    regions = {}
    for path in sorted(ranks, key=ranks.get, reverse=True)[:limit]:
        results = detected[path].results
        right = calibrated(np.array([result["score"] for result in results]), bins)
        notes = ["" if share >= _SURE else f"right in {share:.0%} of cases" for share in right]
        regions[path] = [
            to_region(result, result["category"], detected[path].size_wh, note)
            for result, note in zip(results, notes, strict=True)
        ]
    write_via_project(file, regions, names_in_project(file, [*regions]), categories)
    return len(regions)


def to_region(entry: dict, category: str, size_wh: tuple[int, int], note: str = "") -> dict:
    """Return an annotation of COCO or a result as a region of VIA: its outline where it has one, else its box, clipped
    to an image of this size in pixels. The score of a result is kept; `note` says what is to be checked about it.
    """
    points = _outline(entry.get("segmentation")).round(1)
    if len(points) > 2:
        shape = {"name": "polygon", "all_points_x": points[:, 0].tolist(), "all_points_y": points[:, 1].tolist()}
    else:
        left, top, width, height = entry["bbox"]
        left, top, right, bottom = np.clip([left, top, left + width, top + height], 0, np.tile(size_wh, 2)).tolist()
        x, y, width, height = (round(value, 1) for value in (left, top, right - left, bottom - top))
        shape = {"name": "rect", "x": x, "y": y, "width": width, "height": height}
    score = f"{entry['score']:.2f}" if "score" in entry else ""
    attributes = {DETECTED_CLASS: category, DETECTED_SCORE: score, DETECTED_NOTE: note}
    return {"shape_attributes": shape, "region_attributes": attributes}


def _outline(segmentation: dict | list | None) -> np.ndarray:
    """Return (N, 2) points: the outline of a mask's largest piece, or all polygons, joined by lines there and back."""
    if not isinstance(segmentation, list):
        pieces = outlines(segmentation, _TOLERANCE, _MOST_POINTS)
        return max(pieces, key=lambda points: polygon_area(points.tolist()), default=np.zeros((0, 2)))
    first, *others = [np.reshape(polygon, (-1, 2)) for polygon in segmentation] or [np.zeros((0, 2))]
    joined = [part for other in others for part in (first[:1], other, other[:1])]
    return np.concatenate([first, *joined])


def write_via_project(
    file: Path, regions: dict[Path, list[dict]], names: dict[Path, str], categories: Sequence[str]
) -> None:
    """Write images with their regions (`to_region`), in this order, as a project that VIA 2 opens.

    VIA shows the images where it is opened as a file of the same machine; elsewhere its setting "Default Path" is to be
    changed to their folder.
    """
    entries = {}
    for path, of_image in regions.items():
        size = path.stat().st_size
        entry = {"filename": names[path], "size": size, "regions": of_image, "file_attributes": {}}
        entries[f"{names[path]}{size}"] = entry
    default = {categories[0]: True} if len(categories) == 1 else {}  # of the regions that are drawn in VIA
    shown = {name: name.replace("<", "&lt;") for name in categories}  # HTML to VIA, and the names in its COCO export
    options = {"options": shown, "default_options": default}
    text = {"type": "text", "default_value": ""}
    attributes = {
        DETECTED_CLASS: {"type": "dropdown", "description": "the class", **options},
        DETECTED_SCORE: {"description": "the detector's score, 0 to 1; not read back", **text},
        DETECTED_NOTE: {"description": "what to check; not read back", **text},
    }
    folder = (file.parent.resolve() / "_").as_uri().removesuffix("_")  # VIA puts names behind it: an address
    core = {"buffer_size": 18, "filepath": {}, "default_filepath": folder}
    project = {
        "_via_settings": {"ui": _SETTINGS, "core": core, "project": {"name": file.stem}},
        "_via_img_metadata": entries,
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": [*entries],
    }
    write_json(file, project)
