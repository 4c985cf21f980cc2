"""VIA 1.x and 2.x annotations (CSV): a line per region, one without a region per image that has none. No torch."""

import csv
import io
import re
from collections.abc import Iterator

from detr.importers.via.fields import file_name, file_size, make_region
from detr.importers.via.record import AnnotatedImage
from utils import UserError, parse_json, printable, quote

_SHAPE, _ATTRIBUTES = "region_shape_attributes", "region_attributes"


def recognise(content: object) -> bool:
    """Return whether content is the text of a VIA CSV file, going by its first line."""
    return isinstance(content, str) and {"filename", _SHAPE} <= set(_header(content)[0])


def read(content: str, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region. Raises UserError naming line, image and region."""
    header, separator = _header(content)
    images: dict[tuple[str, str], AnnotatedImage] = {}
    for number, row in read_rows(content, separator, where):
        extra = len(row) - len(header)
        if extra > 0 and header[0] == "filename":  # VIA puts no quotes around a file name with a comma
            row[: extra + 1] = [separator.join(row[: extra + 1])]
        if len(row) != len(header):
            raise UserError(f"{where}: line {number} has {len(row)} cells; the first line names {len(header)}")
        cells = dict(zip(header, row, strict=True))
        name = file_name(cells["filename"], f"{where}: line {number}")
        size = cells.get("file_size", "")  # VIA, too, takes it as part of an image's name
        image = images.setdefault((name, size), AnnotatedImage(name, [], listed_bytes=file_size(size)))
        key = cells.get("region_id", "").strip() or str(len(image.regions))
        place = f"{where}: {name}, region {printable(key)}"
        shape = read_cell(cells[_SHAPE], f"{place} (line {number})")
        if shape:
            attributes = read_cell(cells.get(_ATTRIBUTES, ""), f"{place} (line {number})")
            image.regions.append(make_region(key, shape, attributes, place))
    yield from images.values()


def _header(content: str) -> tuple[list[str], str]:
    return split_header(content.lstrip().partition("\n")[0].strip().lstrip("#"))


def split_header(line: str) -> tuple[list[str], str]:
    """Return the names of the columns, and what is between them."""
    separator = next((mark for mark in ",;\t" if mark in line), ",")  # a spreadsheet may have exchanged it
    return [name.strip().strip('"') for name in line.split(separator)], separator


def read_rows(content: str, separator: str, where: str, first_line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line behind the first that is not empty. Raises UserError for a broken one."""
    limit = csv.field_size_limit(2**31 - 1)  # a polygon of a hundred thousand points is one cell
    lines = csv.reader(io.StringIO(content.lstrip(), newline=""), delimiter=separator, strict=True)
    try:
        next(lines)
        for row in lines:
            if any(cell.strip() for cell in row):
                yield first_line - 1 + lines.line_num, row
    except csv.Error as error:
        raise UserError(f"{where}: line {first_line - 1 + lines.line_num} is not whole ({error})") from error
    finally:
        csv.field_size_limit(limit)


def read_cell(text: str, where: str) -> object:
    """Return what a cell says in JSON, an empty dict where it is empty. Raises UserError that begins with `where`."""
    if text.strip() in ("", "undefined"):
        return {}
    try:
        return parse_json(text, where)
    except UserError:
        if "undefined" not in text:
            raise UserError(f"{where} has the cell {quote(text)}, which is not JSON") from None
        return parse_json(re.sub(r":\s*undefined\b", ":null", text), where)  # VIA writes it so
