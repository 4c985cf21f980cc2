"""What the formats of VIA have in common: names and sizes of image files, and regions of two dicts. No torch."""

from detr.importers.via.record import Region
from detr.importers.via.shapes import LIMIT, to_polygon
from utils import UserError, is_line, is_number, printable, quote


def file_name(name: object, where: str) -> str:
    """Return the name of an image, if it is one. Raises UserError."""
    if not isinstance(name, str) or not is_line(name):
        raise UserError(f"{where}: an image has the file name {quote(name)}; a non-empty line of text is needed")
    return name


def file_size(size: object) -> int | None:
    """Return the size of an image's file in bytes, None where VIA has not noted any."""
    digits = str(size).strip()
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None


def listed_size(width: object, height: object) -> tuple[int, int] | None:
    """Return the size of an image as a file lists it, None where it is none."""
    return (width, height) if all(is_number(side, LIMIT) and side > 0 for side in (width, height)) else None


def make_region(key: object, shape: object, attributes: object, where: str) -> Region:
    """Return a region from VIA's two dicts. Raises UserError that begins with `where`."""
    if attributes is not None and attributes != [] and not isinstance(attributes, dict):
        raise UserError(f"{where} has the region_attributes {quote(attributes)}; an object is needed")
    return Region(to_polygon(shape, where), attributes or {}, printable(str(key)))
