"""VIA 1.x and 2.x annotations (JSON): a dict, or a list, of images. No torch."""

from collections.abc import Iterator

from detr.importers.via.record import AnnotatedImage
from detr.importers.via.regions import read_image
from utils import UserError, printable


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
        yield read_image(entry, where)
