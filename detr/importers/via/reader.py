"""Tell an annotation file's format by its content, and read it into neutral records. No torch."""

from pathlib import Path
from types import ModuleType

from detr.importers.via import annotations, coco_export, project, project3, table, table3
from detr.importers.via.record import AnnotatedImage
from utils import UserError, parse_json

# Each has `recognise(content)` and `read(content, where)`; content is parsed JSON, or the text of what is not JSON.
FORMATS: tuple[ModuleType, ...] = (project, project3, coco_export, annotations, table, table3)
ACCEPTED = "VIA 1.x and 2.x annotations (JSON, CSV), VIA 2.x and 3.x projects, VIA 3.x CSV, VIA's COCO export"


def parse(path: Path) -> object:
    """Return the content of a file: Python values where it is JSON, else its text. Raises UserError naming the file."""
    return _parse_text(_decode(path)[0], path)


def _parse_text(text: str, path: Path) -> object:
    return parse_json(text, str(path)) if text.lstrip()[:1] in ("{", "[") else text


def _decode(path: Path) -> tuple[str, str]:
    """Return a file's text and its encoding: UTF-8 as VIA writes it, or a spreadsheet's UTF-16 or Windows code page."""
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not JSON or CSV (no text in UTF-8, UTF-16 or cp1252: {error})") from error
    if "\0" in text:
        raise UserError(f"{path}: not JSON or CSV (it is no text)")
    return text, encoding


def format_of(content: object) -> ModuleType | None:
    """Return the format that recognises a content."""
    return next((known for known in FORMATS if known.recognise(content)), None)


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """Read an annotation file. Raises UserError naming the file when it is in no format that we know."""
    text, encoding = _decode(path)
    content = _parse_text(text, path)
    known = format_of(content)
    if known is None:
        raise UserError(f"{path}: not a VIA annotation file that is supported; accepted: {ACCEPTED}")
    if encoding != "utf-8-sig":
        print(f"{path}: read as {encoding}, as it is not UTF-8")
    return list(known.read(content, str(path)))
