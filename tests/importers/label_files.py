"""Folders with a label file per image in each format, made from one description, to compare what is read from them."""

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from detr.importers.splits import Split

Polygon = list[tuple[float, float]]


class Labelled(NamedTuple):
    """An image to be made, with its objects: class and polygon (four corners make a box) in upright pixels."""

    name: str
    size_wh: tuple[int, int]  # upright
    objects: list[tuple[str, Polygon]]
    orientation: int = 1


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def write_image(path: Path, size_wh: tuple[int, int], orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size_wh[::-1] if orientation in (5, 6, 7, 8) else size_wh, (90, 120, 60)).save(path, exif=exif)


def yolo_text(image: Labelled, names: list[str]) -> str:
    """17 digits, so that nothing is lost."""
    (width, height), lines = image.size_wh, []
    for name, points in image.objects:
        (left, top), (right, bottom) = points[0], points[2]
        if points == box(left, top, right, bottom):
            shares = (
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            )
        else:
            shares = [share for x, y in points for share in (x / width, y / height)]
        lines.append(" ".join(map(repr, (names.index(name), *shares))))
    return "\n".join(lines)


def voc_text(image: Labelled, size_wh: tuple[int, int] | None = None, head: str = "", more: str = "") -> str:
    width, height = size_wh or image.size_wh
    objects = ""
    for name, points in image.objects:
        margins = zip(("xmin", "ymin", "xmax", "ymax"), (*points[0], *points[2]), strict=True)
        inner = "".join(f"<{margin}>{value!r}</{margin}>" for margin, value in margins)
        objects += f"<object><name>{name}</name>{more}<bndbox>{inner}</bndbox></object>"
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{image.name}</filename>{head}{size}{objects}</annotation>"


def labelme_text(image: Labelled, size_wh: tuple[int, int] | None = None) -> str:
    width, height = size_wh or image.size_wh
    shapes = [
        {"label": name, "shape_type": "polygon", "points": points, "group_id": None, "flags": {}}
        for name, points in image.objects
    ]
    content = {"version": "5.5.0", "shapes": shapes, "imagePath": image.name, "imageData": "aGk="}
    return json.dumps(content | {"imageHeight": height, "imageWidth": width})


def write_flat(folder: Path, flag: str, images: list[Labelled], names: list[str]) -> Path:
    """Images and label files in one folder, as the format of the flag has them."""
    for image in images:
        write_image(folder / image.name, image.size_wh, image.orientation)
        label = folder / image.name
        if flag == "yolo":
            label.with_suffix(".txt").write_text(yolo_text(image, names), encoding="utf-8")
        elif flag == "voc":
            label.with_suffix(".xml").write_text(voc_text(image), encoding="utf-8")
        else:
            label.with_suffix(".json").write_text(labelme_text(image), encoding="utf-8")
    if flag == "yolo":
        (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return folder


def objects_of(splits: dict[str, Split]) -> dict[str, list[tuple[str, list[float]]]]:
    """Class and box (xywh) of every object, by image."""
    objects = {}
    for split in splits.values():
        classes = {category["id"]: category["name"] for category in split.coco["categories"]}
        files = {image["id"]: image["file_name"] for image in split.coco["images"]}
        objects |= {name: [] for name in files.values()}
        for annotation in split.coco["annotations"]:
            objects[files[annotation["image_id"]]].append((classes[annotation["category_id"]], annotation["bbox"]))
    return objects


def remarks_of(splits: dict[str, Split]) -> dict[str, list[str]]:
    remarks: dict[str, list[str]] = {}
    for split in splits.values():
        for category, places in split.notes.items():
            remarks.setdefault(category, []).extend(places)
    return remarks
