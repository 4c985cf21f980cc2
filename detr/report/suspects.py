"""Annotations that are probably wrong as a table, as a page, and as a VIA project to correct. No torch."""

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path

from detr.data.coco_json import segmentation_problem, to_rle
from detr.data.images import read_rgb
from detr.evaluation.review import KINDS, Suspect
from detr.report.gallery import MOST_IMAGES
from detr.report.page import fill_report, outlines_in_units, picture
from detr.report.tables import aligned
from detr.report.via_project import names_in_project, to_region, write_via_project
from utils import pluralize, printable

_WORDS = {  # of page.html
    "ABOUT": "annotations to review",
    "TP": "detected there",
    "FP": "suspicious annotation",
    "MISSED": "missing annotation",
    "GT": "other annotation",
    "WORST": "most suspicious",
    "BEST": "least suspicious",
}


def suspects_table(suspects: Sequence[Suspect], coco: dict) -> str:
    """Return one line for each suspect: how suspicious, what, where, and what was detected there."""
    images, classes = _by_id(coco)
    rows = [["suspicion", "what", "image", "annotation", "x, y, width, height", "class", "detected"]]
    for one in suspects:
        box = ", ".join(f"{value:.0f}" for value in one.bbox)
        annotated = [str(one.annotation["id"]), box, classes[one.annotation["category_id"]]] if one.annotation else []
        detected = f"{classes[one.result['category_id']]} {one.result['score']:.2f}" if one.result else "-"
        what = [f"{one.suspicion:.2f}", one.kind, printable(images[one.image_id]["file_name"])]
        rows.append([*what, *(annotated or ["-", box, "-"]), detected])
    return "\n".join([aligned(rows), *(f"{kind}: {meaning}" for kind, meaning in KINDS.items())])


def build_review(suspects: Sequence[Suspect], coco: dict, folder: Path) -> str:
    """Return the report's page with the images of suspects, the most suspicious first, and a filter by their kinds.

    It has `MOST_IMAGES` at most. Raises UserError when an image, which is in `folder`, cannot be read.
    """
    images, classes = _by_id(coco)
    by_image = defaultdict(list)
    for rank, one in enumerate(suspects, start=1):
        by_image[one.image_id].append((rank, one))
    shown, pictures = [images[number] for number in by_image][:MOST_IMAGES], []
    for image in shown:
        boxes = _boxes(by_image[image["id"]], _annotations_with_masks(coco, image))
        drawn = picture(read_rgb(folder / image["file_name"]), image["file_name"], len(shown))
        pictures.append(drawn | {"entries": _entries(boxes, image, [*classes])})
    data = {
        "review": "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items()),
        "detector": "",
        "kinds": [*KINDS],
        "gallery": {"of": len(by_image), "threshold": 0.0, "classes": [*classes.values()], "images": pictures},
    }
    counts = f"{pluralize(len(suspects), 'suspect')} in {len(by_image)} of {pluralize(len(images), 'image')}"
    return fill_report(data, _WORDS | {"TITLE": escape(folder.resolve().name), "SUBTITLE": counts})


def _annotations_with_masks(coco: dict, image: dict) -> dict[int, dict]:
    """Return the annotations of an image by their ids, each with a mask (RLE), or None where it has no outline."""
    size_hw = (image["height"], image["width"])
    annotations = {one["id"]: one for one in coco["annotations"] if one["image_id"] == image["id"]}
    for number, one in annotations.items():
        mask = one.get("segmentation")
        rle = None if segmentation_problem(mask, size_hw) else to_rle(mask, size_hw)
        annotations[number] = one | {"segmentation": rle}
    return annotations


def _boxes(suspects: Sequence[tuple[int, Suspect]], annotations: dict[int, dict]) -> list[tuple[dict, dict, dict]]:
    """Return the boxes of an image: suspects by rank, each before the detection that tells, and all other annotations.

    Each is an annotation or a result, the one that it is compared with (or itself), and what gallery.js says about it.
    """
    boxes, others = [], dict(annotations)
    for rank, one in suspects:
        what = f"{rank}. {one.kind}"
        note = f"{what}: {KINDS[one.kind]}; suspicion {one.suspicion:.2f}"
        about = {"status": "missed", "rank": rank, "kind": [*KINDS].index(one.kind), "detail": what, "note": note}
        if one.annotation:
            annotation = others.pop(one.annotation["id"])
            boxes.append((annotation, one.result or annotation, about | {"status": "fp", "score": None}))
            about |= {"status": "tp", "detail": "detected", "note": ""}
        if one.result:
            boxes.append((one.result, one.annotation or one.result, about | {"score": one.result["score"]}))
    about = {"status": "gt", "kind": -2, "score": None, "detail": "annotated"}
    return boxes + [(annotation, annotation, about) for annotation in others.values()]


def _entries(boxes: Sequence[tuple[dict, dict, dict]], image: dict, category_ids: list[int]) -> list[dict]:
    """Return `_boxes` of an image as gallery.js draws them: in shares of its sides, classes as positions in the ids."""
    size_wh = (image["width"], image["height"])
    drawn = outlines_in_units([entry.get("segmentation") for entry, _, _ in boxes], size_wh)
    return [
        about
        | {
            "label": category_ids.index(entry["category_id"]),
            "other": category_ids.index(compared["category_id"]),
            "box": [value / side for value, side in zip(entry["bbox"], size_wh * 2, strict=True)],
            "outlines": lines[0] if lines else None,
        }
        for (entry, compared, about), lines in zip(boxes, drawn, strict=True)
    ]


def write_review(file: Path, suspects: Sequence[Suspect], coco: dict, folder: Path) -> None:
    """Write the whole set as a VIA project, the most suspicious images first, each suspect with a note.

    What is missing is there as a region; it is to be deleted where the detector is wrong. Raises UserError as
    `names_in_project` does.
    """
    images, classes = _by_id(coco)
    notes = {one.annotation["id"]: f"{one.kind}: {KINDS[one.kind]}" for one in suspects if one.annotation}
    regions: dict[int, list[dict]] = defaultdict(list)
    missing = [(one.result, f"missing: {KINDS['missing']}") for one in suspects if not one.annotation]
    for entry, note in [*missing, *((one, notes.get(one["id"], "")) for one in coco["annotations"])]:
        image = images[entry["image_id"]]
        size_wh = (image["width"], image["height"])
        regions[image["id"]].append(to_region(entry, classes[entry["category_id"]], size_wh, note))
    in_order = dict.fromkeys([*(one.image_id for one in suspects), *images])
    by_path = {folder / images[number]["file_name"]: regions[number] for number in in_order}
    write_via_project(file, by_path, names_in_project(file, [*by_path]), [*classes.values()])


def _by_id(coco: dict) -> tuple[dict[int, dict], dict[int, str]]:
    """Return the images and the names of the classes by their ids."""
    images, categories = ({entry["id"]: entry for entry in coco[part]} for part in ("images", "categories"))
    return images, {number: category["name"] for number, category in categories.items()}
