"""VIA 1.x and 2.x annotations (JSON): a dict, or a list, of images. No torch."""

from collections.abc import Iterator

from detr.importers.via.fields import file_name, file_size, make_region
from detr.importers.via.record import AnnotatedImage
from utils import UserError, printable, quote


def recognise(content: object) -> bool:
    """Return whether content is VIA annotations: some of its values have both `filename` and `regions`."""
    entries = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return any(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries)


def read(content: dict | list, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region, and empty `content` on the way. Raises UserError naming image and region."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    for key in list(content):
        entry = content.pop(key)  # both as parsed and as read, a million regions would take twice the memory
        if not isinstance(entry, dict) or "filename" not in entry:
            raise UserError(f"{where}: the entry {printable(str(key))} has no filename")
        yield _read_image(entry, where)


def _read_image(entry: dict, where: str) -> AnnotatedImage:
    name, regions = file_name(entry["filename"], where), entry.get("regions")
    if regions is None or isinstance(regions, list):  # 1.x has a dict of regions
        regions = dict(enumerate(regions or ()))
    if not isinstance(regions, dict):
        raise UserError(f"{where}: {name} has the regions {quote(regions)}; accepted: a list, or an object")
    made = []
    for key, region in regions.items():
        place = f"{where}: {name}, region {printable(str(key))}"
        if not isinstance(region, dict):
            raise UserError(f"{place} is {quote(region)}; an object with shape_attributes is needed")
        made.append(make_region(key, region.get("shape_attributes"), region.get("region_attributes"), place))
    return AnnotatedImage(name, made, listed_bytes=file_size(entry.get("size")))
