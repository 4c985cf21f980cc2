"""The COCO file that VIA exports: flat polygons, image ids as texts, categories listed once per image. No torch."""

from collections.abc import Iterator

from detr.importers.via.fields import file_name, listed_size, make_region
from detr.importers.via.record import AnnotatedImage, Region
from utils import UserError, quote

_PARTS = ("images", "annotations", "categories")
_CLASS = "category"  # the name given to the attribute that holds the class


def recognise(content: object) -> bool:
    """Return whether content is COCO: an object with three lists; that of categories may be missing."""
    is_coco = isinstance(content, dict) and {"images", "annotations"} <= content.keys()
    return is_coco and all(isinstance(content.get(part, []), list) for part in _PARTS)


def read(content: dict, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region. Raises UserError naming image and annotation.

    Without categories a region has no class where all have the same category id; else that id is its class.
    """
    for part in _PARTS:
        for number, entry in enumerate(content.get(part, [])):
            if not isinstance(entry, dict):
                raise UserError(f"{where}: {part}[{number}] is {quote(entry)}; an object is needed")
    names = _names(content.get("categories", []), where)
    ids = {str(entry["category_id"]) for entry in content["annotations"] if entry.get("category_id") is not None}
    if not names and len(ids) > 1:
        names = {number: number for number in ids}
    regions: dict[str, list[Region]] = {}
    file_names = {str(entry.get("id")): file_name(entry.get("file_name"), where) for entry in content["images"]}
    if len(file_names) < len(content["images"]):
        raise UserError(f"{where}: several images have the same id; each needs its own")
    for number, entry in enumerate(content["annotations"]):
        image_id = str(entry.get("image_id"))  # VIA writes "0" here and 0 in the list of images
        if image_id not in file_names:
            raise UserError(f"{where}: annotations[{number}] belongs to image {quote(image_id)}, which is not listed")
        place = f"{where}: {file_names[image_id]}, region {number}"
        category = str(entry.get("category_id"))
        if names and category not in names:
            raise UserError(f"{place} has the category {quote(category)}, which is not listed")
        region = make_region(number, _shape(entry, place), {_CLASS: names[category]} if names else {}, place)
        regions.setdefault(image_id, []).append(region)
    for entry in content["images"]:
        image_id, size = str(entry.get("id")), listed_size(entry.get("width"), entry.get("height"))
        yield AnnotatedImage(file_names[image_id], regions.get(image_id, []), size)


def _names(categories: list[dict], where: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for category in categories:
        number, name = str(category.get("id")), category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: category {quote(number)} has the name {quote(name)}; a text is needed")
        if names.setdefault(number, name) != name:
            raise UserError(f"{where}: category {quote(number)} is named {quote(names[number])} and {quote(name)}")
    return names


def _shape(entry: dict, where: str) -> dict:
    flat = entry.get("segmentation")
    if isinstance(flat, dict):
        raise UserError(f"{where} is a mask (RLE), which VIA does not write; accepted: a polygon. --coco reads masks")
    if isinstance(flat, list) and flat and isinstance(flat[0], list):
        if len(flat) > 1:
            raise UserError(f"{where} has {len(flat)} polygons; accepted: one, as VIA writes. --coco reads several")
        flat = flat[0]
    if isinstance(flat, list) and flat:
        return {"name": "polyline", "all_points_x": flat[::2], "all_points_y": flat[1::2]}
    box, point = entry.get("bbox"), entry.get("keypoints")
    if isinstance(box, list) and len(box) == 4:
        return {"name": "rect", **dict(zip(("x", "y", "width", "height"), box, strict=True))}
    if isinstance(point, list) and len(point) >= 2:
        return {"name": "point", "cx": point[0], "cy": point[1]}
    raise UserError(f"{where} has neither a polygon nor a box")
