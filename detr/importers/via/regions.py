"""What the formats that VIA itself reads back have in common: an entry per image, `shape_attributes` per region.

VIA 1.x keeps an image's regions in a dict, 2.x in a list; files by other tools mix the two. No torch.
"""

from detr.importers.via.record import AnnotatedImage, Region
from detr.importers.via.shapes import to_polygon
from utils import UserError, is_line, printable, quote


def read_image(entry: object, where: str) -> AnnotatedImage:
    """One image with `filename` and `regions`. Raises UserError that begins with `where` and names image and region."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: found {quote(entry)} in place of an image with filename and regions")
    name = file_name(entry.get("filename"), where)
    regions = entry.get("regions")
    if regions is None or isinstance(regions, list):
        regions = dict(enumerate(regions or ()))
    if not isinstance(regions, dict):
        raise UserError(f"{where}: {name} has the regions {quote(regions)}; accepted: a list, or an object")
    found = [_read(key, region, f"{where}: {name}") for key, region in regions.items()]
    return AnnotatedImage(name, found, listed_bytes=file_size(entry.get("size")))


def file_name(name: object, where: str) -> str:
    """Return the name of an image, if it is one. Raises UserError."""
    if not isinstance(name, str) or not is_line(name):
        raise UserError(f"{where}: an image has the file name {quote(name)}; a non-empty line of text is needed")
    return name


def file_size(size: object) -> int | None:
    """Return the size of an image's file in bytes, None where VIA has not noted any."""
    digits = str(size).strip()
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None


def _read(key: object, region: object, where: str) -> Region:
    where = f"{where}, region {printable(str(key))}"
    if not isinstance(region, dict):
        raise UserError(f"{where} is {quote(region)}; an object with shape_attributes is needed")
    return make_region(key, region.get("shape_attributes"), region.get("region_attributes"), where)


def make_region(key: object, shape: object, attributes: object, where: str) -> Region:
    """Return a region from VIA's two dicts. Raises UserError that begins with `where`."""
    if attributes is not None and attributes != [] and not isinstance(attributes, dict):
        raise UserError(f"{where} has the region_attributes {quote(attributes)}; an object is needed")
    return Region(to_polygon(shape, where), attributes or {}, printable(str(key)))
