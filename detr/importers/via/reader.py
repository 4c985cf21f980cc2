"""Find VIA's annotation files, tell their formats by their content, and read them into neutral records. No torch."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from detr.importers.splits import SPLITS
from detr.importers.via import annotations, coco_export, project3, table, table3
from detr.importers.via.find import ImageFolder
from detr.importers.via.merge import Labels, Source
from detr.importers.via.record import AnnotatedImage
from utils import UserError, join_names, parse_json

# Each has `recognise(content)` and `read(content, where)`; content is parsed JSON, or the text of what is not JSON.
FORMATS: tuple[ModuleType, ...] = (annotations, project3, coco_export, table, table3)
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
    if not text.strip() or not content:
        raise UserError(f"{path}: is empty; accepted: {ACCEPTED}")
    if known is None:
        raise UserError(f"{path}: not a VIA annotation file that is supported; accepted: {ACCEPTED}")
    if encoding != "utf-8-sig":
        print(f"{path}: read as {encoding}, as it is not UTF-8")
    return list(known.read(content, str(path)))


def find_annotation_files(folder: Path) -> list[Path]:
    """Return the annotation files of a folder, told by content, JSON first. Raises UserError when there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected train/ and val/, each with images and a VIA file")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    candidates = [path for path in files if path.suffix.lower() in (".json", ".csv")]
    # Of a single one its reader says best what is wrong, if anything is.
    annotation_files = candidates if len(candidates) == 1 else [path for path in candidates if format_of(parse(path))]
    if not annotation_files:
        names = join_names(path.name for path in candidates) or "none"
        raise UserError(
            f"{folder}: expected an annotation file (*.json or *.csv), or train/ and val/ with one in each, "
            f"found {names}{', which are no VIA files' if candidates else ''}"
        )
    for path in annotation_files:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link that leads out of the folder; name the file itself")
    return sorted(annotation_files, key=lambda path: (path.suffix.lower() != ".json", path.name))


def read_via(paths: Path | Sequence[Path], images: Path | None, left_out: Path | None) -> Labels:
    """Read a folder with train/ and val/, each with images and annotation files; or such files, and folders with some.

    Args: these paths; the folder of the images, if it is another one; a folder that is not searched. Raises UserError.
    """
    paths = [paths] if isinstance(paths, Path) else paths
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; accepted: an annotation file, or a folder with one")
    given = [path for path in paths if all((path / name).is_dir() for name in SPLITS)]
    if not given:
        return Labels(_sources_of(paths, "", images, left_out))
    if len(paths) > 1:
        raise UserError(f"{given[0]} has train/ and val/: name it alone, or files that are divided")
    sources = []
    for name in SPLITS:
        own = images / name if images and (images / name).is_dir() else images
        sources += _sources_of([given[0] / name], f"{name}/", own, left_out)
    return Labels(sources)


def _sources_of(paths: Sequence[Path], prefix: str, images: Path | None, left_out: Path | None) -> list[Source]:
    """Return a source for each annotation file of one split: these files, and those in these folders."""
    files: dict[Path, tuple[Path, Path]] = {}  # the file itself -> as it was named, and the folder of its images
    for path in paths:
        for file in [path] if path.is_file() else find_annotation_files(path):
            files.setdefault(file.resolve(), (file, images or (path.parent if path.is_file() else path)))
    folders = {root: ImageFolder(root, left_out) for _, root in files.values()}
    json_first = sorted(files.values(), key=lambda found: found[0].suffix.lower() != ".json")
    return [Source(prefix, read_annotations(file), folders[root], file) for file, root in json_first]
