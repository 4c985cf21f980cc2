"""VIA 3.x annotations (CSV): comments with the attributes and the header, then a line per region. No torch.

It is turned into the project that it was exported from, without the files that have no annotations.
"""

import mimetypes
import re
from collections.abc import Iterator

from detr.importers.via import project3
from detr.importers.via.fields import as_dict
from detr.importers.via.record import AnnotatedImage
from detr.importers.via.table import read_cell, read_rows, split_header
from utils import UserError, parse_json, printable

_HEADER = re.compile(r'^"?# *CSV_HEADER *= *(.*)', re.MULTILINE)
_ATTRIBUTES = re.compile(r'^"?# *ATTRIBUTES? *= *(.*)', re.MULTILINE)
_JSON_CELLS = {"file_list": "files", "temporal_coordinates": "z", "spatial_coordinates": "xy", "metadata": "av"}


def recognise(content: object) -> bool:
    """Return whether content is the text of a VIA 3 CSV file with regions."""
    header = _HEADER.search(content) if isinstance(content, str) else None
    return bool(header and "spatial_coordinates" in header[1])


def read(content: str, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region; videos are left out. Raises UserError naming line, image and region."""
    header = _HEADER.search(content)
    names, separator = split_header(header[1])
    while not names[-1]:
        names.pop()  # a spreadsheet makes all lines as long as the longest
    if missing := {"metadata_id", *_JSON_CELLS} - set(names):
        raise UserError(f"{where}: the line CSV_HEADER names no {', '.join(sorted(missing))}")
    project = {"attribute": _attributes(content, separator, where), "file": {}, "view": {}, "metadata": {}}
    first_line = content.count("\n", 0, header.start()) + 1
    for number, row in read_rows(content[header.start() :], separator, where, first_line):
        if len(row) < len(names) or any(row[len(names) :]):
            raise UserError(f"{where}: line {number} has {len(row)} cells; the line CSV_HEADER names {len(names)}")
        cells = dict(zip(names, row, strict=False))
        _add_entry(project, cells, f"{where}: line {number}")
    yield from project3.read(project, where)


def _attributes(content: str, separator: str, where: str) -> dict:
    line = _ATTRIBUTES.search(content)
    try:
        return as_dict(parse_json(line[1].strip().rstrip(separator), where)) if line else {}
    except UserError as error:
        raise UserError(
            f"{where}: the line ATTRIBUTE, which names the classes, is not JSON; was the file saved by a spreadsheet? "
            "Export it from VIA again"
        ) from error


def _add_entry(project: dict, cells: dict[str, str], where: str) -> None:
    """Add a line of the table to the project. Raises UserError that begins with `where`."""
    key = cells["metadata_id"]
    entry = {name: read_cell(cells[cell], f"{where}, {cell}") for cell, name in _JSON_CELLS.items()}
    files = entry.pop("files")
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise UserError(f"{where}: its file_list is not a list of names")
    if key in project["metadata"]:
        raise UserError(f"{where}: the metadata_id {printable(key)} is there twice")
    for name in files:
        kind = (mimetypes.guess_type(name)[0] or "").partition("/")[0]
        file = project["file"].setdefault(name, {"fname": name, "type": project3.IMAGE})
        if entry["z"] or kind in ("video", "audio"):
            file["type"] = project3.VIDEO
    project["view"][cells["file_list"]] = {"fid_list": files}
    project["metadata"][key] = entry | {"vid": cells["file_list"]}
