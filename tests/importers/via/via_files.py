"""Annotation files of every format, made from one description, to compare what is read from them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Drawn(NamedTuple):
    """An image to be made, with its regions: (shape_attributes, region_attributes) each."""

    name: str
    size_wh: tuple[int, int]
    regions: list[tuple[dict, dict]]


def rect(x: float, y: float, width: float, height: float) -> dict:
    return {"name": "rect", "x": x, "y": y, "width": width, "height": height}


def write_images(folder: Path, images: list[Drawn]) -> Path:
    for image in images:
        path = folder / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image.size_wh, (90, 120, 60)).save(path)
    return folder


def write_set(folder: Path, images: list[Drawn], as_text: Callable[[list[Drawn]], str] | None = None) -> Path:
    """A folder with images and an annotation file, of format 2.x if none is given."""
    write_images(folder, images)
    (folder / "annotations.json").write_text((as_text or as_v2)(images), encoding="utf-8")
    return folder


def _entries(images: list[Drawn], make_regions: Callable[[list[dict]], object], **more: object) -> dict:
    entries = {}
    for image in images:
        regions = [{"shape_attributes": shape, "region_attributes": values} for shape, values in image.regions]
        entry = {"filename": image.name, "size": 7, "regions": make_regions(regions), "file_attributes": {}}
        entries[f"{image.name}7"] = entry | more
    return entries


def as_v1(images: list[Drawn]) -> str:
    keyed = _entries(images, lambda regions: {str(i): r for i, r in enumerate(regions)}, fileref="", base64_img_data="")
    return json.dumps(keyed)


def as_v2(images: list[Drawn]) -> str:
    return json.dumps(_entries(images, list))


def as_project(images: list[Drawn], attributes: dict | None = None) -> str:
    entries = _entries(images, list)
    project = {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {"region": attributes or {}}}
    return json.dumps(project | {"_via_data_format_version": "2.0.10", "_via_image_id_list": list(entries)})


def as_csv(images: list[Drawn], first: str = "filename", separator: str = ",") -> str:
    out = io.StringIO()
    table = csv.writer(out, delimiter=separator)
    more = ("file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes", "region_attributes")
    table.writerow([first, *more])
    for image in images:
        count = len(image.regions)
        for number, (shape, values) in enumerate(image.regions):
            table.writerow([image.name, 7, "{}", count, number, json.dumps(shape), json.dumps(values)])
        if not count:
            table.writerow([image.name, 7, "{}", 0, 0, "{}", "{}"])
    return out.getvalue()


SHAPE_IDS = {"point": 1, "rect": 2, "circle": 3, "ellipse": 4, "polyline": 6, "polygon": 7}


def as_v3(images: list[Drawn], options: dict | None = None) -> str:
    """A VIA 3 project with one attribute, `what`; of its values, those in `options` are written as their ids."""
    ids = {name: number for number, name in (options or {}).items()}
    files, views, metadata = {}, {}, {}
    for number, image in enumerate(images, start=1):
        fid = str(number)
        files[fid] = {"fid": fid, "fname": image.name, "type": 2, "loc": 1, "src": ""}
        views[fid] = {"fid_list": [fid]}
        metadata[f"{fid}_file"] = {"vid": fid, "flg": 0, "z": [], "xy": [], "av": {}}
        for index, (shape, values) in enumerate(image.regions):
            if "all_points_x" in shape:
                numbers = [v for point in zip(shape["all_points_x"], shape["all_points_y"], strict=True) for v in point]
            else:
                numbers = [value for key, value in shape.items() if key not in ("name", "theta")]
            value = values.get("what", "")
            entry = {"vid": fid, "flg": 0, "z": [], "xy": [SHAPE_IDS[shape["name"]], *numbers]}
            metadata[f"{fid}_{index}"] = entry | {"av": {"1": ids.get(value, value)} if value else {}}
    attribute = {"1": {"aname": "what", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options or {}}}
    project = {"project": {"vid_list": list(views)}, "config": {}, "attribute": attribute, "file": files}
    return json.dumps(project | {"metadata": metadata, "view": views})


def as_v3_csv(project: dict, separator: str = ",") -> str:
    """The CSV that VIA 3 exports of a project."""
    out = io.StringIO()
    table = csv.writer(out, delimiter=separator)
    for key, entry in project["metadata"].items():
        files = [project["file"][fid]["fname"] for fid in project["view"][entry["vid"]]["fid_list"]]
        texts = [json.dumps(value) for value in (files, entry["z"], entry["xy"], entry["av"])]
        table.writerow([key, texts[0], entry["flg"], *texts[1:]])
    names = ("metadata_id", "file_list", "flags", "temporal_coordinates", "spatial_coordinates", "metadata")
    return "\n".join(
        (
            "# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)",
            "# Notes:",
            '# - metadata of {""1"":""3""} indicates attribute with id "1" set to an attribute option with id "3"',
            '# SHAPE_ID = {"POINT":1,"RECTANGLE":2,"CIRCLE":3,"ELLIPSE":4}',
            f"# ATTRIBUTE = {json.dumps(project['attribute'])}",
            f"# CSV_HEADER = {separator.join(names)}",
            out.getvalue(),
        )
    )


FORMATS = {
    "1.x": as_v1,
    "2.x": as_v2,
    "project": as_project,
    "CSV": as_csv,
    "1.x CSV": lambda i: as_csv(i, "#filename"),
}
