"""Annotations that are probably wrong as a table, as a picture, and as a VIA project to correct. No torch."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import utils
from detr.data.images import read_rgb
from detr.evaluation.review import KINDS, Suspect
from detr.report.tables import aligned
from detr.report.via_project import names_in_project, to_region, write_via_project

_TILE, _COLUMNS, _MOST_TILES = 320, 4, 20  # pixels, tiles of the picture
_MARGIN = 0.75  # around a suspect, as a share of its longer side
_SUSPECT, _OTHER, _DETECTED = "#D55E00", "#0072B2", "#009E73"


def suspects_table(suspects: Sequence[Suspect], coco: dict) -> str:
    """Return one line for each suspect: how suspicious, what, where, and what was detected there."""
    names, classes = _names(coco)
    rows = [["suspicion", "what", "image", "annotation", "x, y, width, height", "class", "detected"]]
    for one in suspects:
        box = ", ".join(f"{value:.0f}" for value in one.bbox)
        annotated = [str(one.annotation["id"]), box, classes[one.annotation["category_id"]]] if one.annotation else []
        detected = f"{classes[one.result['category_id']]} {one.result['score']:.2f}" if one.result else "-"
        what = [f"{one.suspicion:.2f}", one.kind, utils.printable(names[one.image_id])]
        rows.append([*what, *(annotated or ["-", box, "-"]), detected])
    return "\n".join([aligned(rows), *(f"{kind}: {meaning}" for kind, meaning in KINDS.items())])


def draw_suspects(suspects: Sequence[Suspect], coco: dict, folder: Path, path: Path) -> None:
    """Save a picture of the first suspects: their surroundings, with other annotations and the detection that tells."""
    names, classes = _names(coco)
    shown = suspects[:_MOST_TILES]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_TILE * min(_COLUMNS, len(shown)), _TILE * rows), "white")
    for place, one in enumerate(shown):
        image = read_rgb(folder / names[one.image_id])
        left, top, width, height = one.bbox
        reach = max(width, height, 16) * (0.5 + _MARGIN)
        x, y = left + width / 2 - reach, top + height / 2 - reach
        crop = image.crop(tuple(round(value) for value in (x, y, x + 2 * reach, y + 2 * reach)))
        drawn = [
            {"bbox": other["bbox"], "text": "", "color": _OTHER}
            for other in coco["annotations"]
            if other["image_id"] == one.image_id and other is not one.annotation
        ]
        if one.annotation and one.result:
            drawn.append({"bbox": one.result["bbox"], "text": "", "color": _DETECTED})
        entry = one.annotation or one.result
        text = f"{place + 1} {one.kind} {classes[entry['category_id']]}"
        drawn.append({"bbox": one.bbox, "text": text, "color": _SUSPECT})
        scale = (_TILE - 4) / (2 * reach)
        moved = [entry | {"bbox": [entry["bbox"][0] - x, entry["bbox"][1] - y, *entry["bbox"][2:]]} for entry in drawn]
        tile = utils.draw_objects(crop.resize((_TILE - 4, _TILE - 4)), moved, scale)
        sheet.paste(tile, (_TILE * (place % _COLUMNS), _TILE * (place // _COLUMNS)))
    utils.save_image(sheet, path)


def write_review(file: Path, suspects: Sequence[Suspect], coco: dict, folder: Path) -> None:
    """Write the whole set as a VIA project, the most suspicious images first, each suspect with a note.

    What is missing is there as a region; it is to be deleted where the detector is wrong. Raises UserError as
    `names_in_project` does.
    """
    names, classes = _names(coco)
    notes = {one.annotation["id"]: f"{one.kind}: {KINDS[one.kind]}" for one in suspects if one.annotation}
    regions: dict[int, list[dict]] = defaultdict(list)
    images = {image["id"]: image for image in coco["images"]}
    missing = [(one.result, f"missing: {KINDS['missing']}") for one in suspects if not one.annotation]
    for entry, note in [*missing, *((one, notes.get(one["id"], "")) for one in coco["annotations"])]:
        image = images[entry["image_id"]]
        size_wh = (image["width"], image["height"])
        regions[image["id"]].append(to_region(entry, classes[entry["category_id"]], size_wh, note))
    in_order = dict.fromkeys([*(one.image_id for one in suspects), *names])
    paths = {number: folder / names[number] for number in in_order}
    by_path = {path: regions[number] for number, path in paths.items()}
    write_via_project(file, by_path, names_in_project(file, [*by_path]), [*classes.values()])


def _names(coco: dict) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of images and of classes by their ids."""
    return (
        {image["id"]: image["file_name"] for image in coco["images"]},
        {category["id"]: category["name"] for category in coco["categories"]},
    )
