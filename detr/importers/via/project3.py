"""VIA 3.x project (JSON) of images: files, views of them, and `metadata` that marks regions in a view. No torch."""

from collections.abc import Iterator

from detr.importers.notes import VIDEOS
from detr.importers.via.clip import box_of
from detr.importers.via.fields import LIMIT, NUMBERS, as_dict, file_name, make_region, name_options
from detr.importers.via.record import AnnotatedImage, Region
from utils import UserError, is_number, join_names, pluralize, printable, quote

IMAGE, VIDEO = 2, 4  # `type` of a file; 8 is sound
_SHAPES = {  # `xy` is [shape id, numbers ...]; 5 is a line of two points
    1: "point",
    2: "rect",
    3: "circle",
    4: "ellipse",
    5: "polyline",
    6: "polyline",
    7: "polygon",
    8: "extreme rectangle",
    9: "extreme circle",  # four points, one on each side; three points on it
}


def recognise(content: object) -> bool:
    """Return whether content is a VIA 3.x project."""
    return isinstance(content, dict) and all(isinstance(content.get(part), dict) for part in ("metadata", "file"))


def read(content: dict, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region; videos and sounds are left out, with a remark on the first image.

    Raises UserError naming image and entry.
    """
    names, others = _files(content["file"], where)
    options = _options(content.get("attribute"))
    regions: dict[str, list[Region]] = {key: [] for key in names if key not in others}
    for key, entry in content["metadata"].items():
        if not isinstance(entry, dict):
            raise UserError(f"{where}: entry {printable(key)} is {quote(entry)}; an object is needed")
        files = _files_of(entry, content.get("view"))
        if own := others.keys() & files:
            others |= {file: others[file] + 1 for file in own}
            continue
        if entry.get("z"):
            raise UserError(f"{where}: entry {printable(key)} marks a time ({quote(entry['z'])}); accepted: images")
        if not entry.get("xy"):
            continue  # says something about the file as a whole
        if len(files) != 1 or files[0] not in names:
            view = quote(entry.get("vid"))
            raise UserError(f"{where}: entry {printable(key)} belongs to view {view}, which is not of one listed file")
        place = f"{where}: {names[files[0]]}, region {printable(key)}"
        regions[files[0]].append(make_region(key, _shape(entry["xy"], place), _values(entry, options), place))
    remarks = tuple((VIDEOS, f"{printable(names[key])}, {pluralize(n, 'annotation')}") for key, n in others.items())
    for key, found in regions.items():
        yield AnnotatedImage(names[key], found, remarks=remarks)
        remarks = ()


def _files(files: dict, where: str) -> tuple[dict[str, str], dict[str, int]]:
    """Return the name of each file by its key, and 0 by the key of each video and sound."""
    names, others = {}, {}
    for key, entry in files.items():
        if not isinstance(entry, dict):
            raise UserError(f"{where}: file {printable(key)} is {quote(entry)}; an object is needed")
        names[key] = file_name(entry.get("fname"), where)
        if entry.get("type", IMAGE) != IMAGE:
            others[key] = 0
    if others and len(others) == len(names):
        raise UserError(f"{where}: lists only videos or sounds ({join_names(names.values(), 3)}); accepted: images")
    return names, others


def _files_of(entry: dict, views: object) -> list[str]:
    """Return the keys of the files that an entry's view shows."""
    view = str(entry.get("vid"))
    shown = as_dict(as_dict(views).get(view)).get("fid_list")
    return list(map(str, shown)) if isinstance(shown, list) else [view]


def _shape(xy: object, where: str) -> dict:
    kind = xy[0] if isinstance(xy, list) else None
    if not is_number(kind, LIMIT) or kind not in _SHAPES:
        accepted = ", ".join(f"{number} {name}" for number, name in _SHAPES.items())
        raise UserError(f"{where} has xy = {quote(xy)}; accepted: a list that begins with a shape id ({accepted})")
    name = _SHAPES[kind]
    keys = NUMBERS.get(name, ())
    if kind in (8, 9):
        points = [*zip(xy[1::2], xy[2::2], strict=False)]
        if len(xy) != (9 if kind == 8 else 7) or not all(is_number(value, LIMIT) for value in xy):
            raise UserError(f"{where} is an {name} with xy = {quote(xy)}; {12 - kind} points are needed")
        if kind == 9:
            return _circle_through(points, where)
        left, top, right, bottom = box_of(points)
        return {"name": "rect", "x": left, "y": top, "width": right - left, "height": bottom - top}
    if not keys:
        return {"name": name, "all_points_x": xy[1::2], "all_points_y": xy[2::2]}
    if len(xy) - 1 != len(keys):
        raise UserError(f"{where} is a {name} with {len(xy) - 1} numbers; {', '.join(keys)} are needed")
    return {"name": name, **dict(zip(keys, xy[1:], strict=True))}


def _circle_through(points_xy: list[tuple[float, float]], where: str) -> dict:
    """The circle through three points: its center is as far from each of them. Raises UserError for three in a line."""
    (ax, ay), (bx, by), (cx, cy) = points_xy
    twice_area = 2 * ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    if not twice_area:
        raise UserError(f"{where} is an extreme circle whose three points lie on a line")
    b, c = (bx - ax) ** 2 + (by - ay) ** 2, (cx - ax) ** 2 + (cy - ay) ** 2
    x, y = ((cy - ay) * b - (by - ay) * c) / twice_area, ((bx - ax) * c - (cx - ax) * b) / twice_area
    return {"name": "circle", "cx": ax + x, "cy": ay + y, "r": (x * x + y * y) ** 0.5}


def _options(attributes: object) -> dict[str, tuple[str, dict[str, str]]]:
    names_and_options = {}
    for key, attribute in as_dict(attributes).items():
        # The first CSV exports give no more than names.
        definition = {"aname": attribute} if isinstance(attribute, str) else as_dict(attribute)
        name, options = definition.get("aname"), as_dict(definition.get("options"))
        names_and_options[key] = name if isinstance(name, str) and name.strip() else key, options
    return names_and_options


def _values(entry: dict, options: dict[str, tuple[str, dict[str, str]]]) -> dict[str, object]:
    values = {}
    for key, value in as_dict(entry.get("av")).items():
        name, known = options.get(key, (key, {}))
        values[name] = name_options(value, known)
    return values
