"""LabelMe annotations (a JSON file per image) -> neutral records. No torch."""

import math
import posixpath
from pathlib import Path

from detr.importers.label_folder import CLASS, LabelFolder, split_of
from detr.importers.via.fields import corners, file_name, listed_size, to_polygon
from detr.importers.via.merge import Labels
from detr.importers.via.reader import parse
from detr.importers.via.record import AnnotatedImage, Point, Region
from utils import UserError, pluralize, quote

OTHER_JSON = "JSON files that are no LabelMe annotations, not used"
# As polygons, whose box is that of all their points: an open line is taken for an outline, as VIA's polylines are.
_OUTLINES = ("polygon", "line", "linestrip", "rotation", "quadrilateral")
_BOXES = ("rectangle", "mask")  # a mask's points are the corners of its box
_POINTS = ("point", "points")


def recognise(content: object) -> bool:
    """Return whether content is a LabelMe file: an object with shapes."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(path: Path, images: Path | None = None, left_out: Path | None = None) -> Labels:
    """Read the annotations of a folder, flat or with train/ and val/.

    Args: the folder; that of the images, if it is another one; a folder that is not searched. Raises UserError.
    """
    folder = LabelFolder(path, images, left_out)
    by_split: dict[str, list[AnnotatedImage]] = {}
    remarks = []
    for label in folder.with_suffix(".json"):
        content = parse(path / label)
        if recognise(content):
            by_split.setdefault(split_of(label), []).append(_read(content, label, folder))
        else:
            remarks.append((OTHER_JSON, str(label)))
    if not by_split:
        raise UserError(f"{path}: no LabelMe annotations (*.json with shapes)")
    return folder.labels(by_split, remarks)


def _read(content: dict, label: Path, folder: LabelFolder) -> AnnotatedImage:
    where = str(folder.root / label)
    regions = []
    for number, shape in enumerate(content["shapes"]):
        place = f"{where}, shape {number}"
        if not isinstance(shape, dict):
            raise UserError(f"{place} is {quote(shape)}; an object is needed")
        group = "" if shape.get("group_id") is None else f"group {shape['group_id']}"
        regions.append(Region(_polygon(shape, place), {CLASS: shape.get("label")}, str(number), group))
    size = listed_size(content.get("imageWidth"), content.get("imageHeight"))
    return AnnotatedImage(_image_name(content.get("imagePath"), label, folder), regions, size)


def _image_name(listed: object, label: Path, folder: LabelFolder) -> str:
    """Return the image that a file names, or the one of the file's own name where there is no such image."""
    listed = file_name(listed, str(folder.root / label))
    relative = posixpath.normpath(posixpath.join(label.parent.as_posix(), listed.replace("\\", "/")))
    if not relative.startswith(("../", "/")) and Path(relative) in folder.images_of(Path(relative)):
        return relative
    return folder.image_of(label, listed) or posixpath.basename(relative)


def _polygon(shape: dict, where: str) -> list[Point]:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise UserError(f"{where} has the points {quote(points)}; a list of [x, y] is needed")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    polygon = to_polygon({"name": "polygon", "all_points_x": xs, "all_points_y": ys}, where)  # checks the numbers
    if kind in _OUTLINES or (kind in _BOXES and len(points) == 4):
        return polygon
    if kind in _POINTS:
        return polygon[:1]
    if kind in _BOXES and len(points) == 2:
        return corners(min(xs), min(ys), max(xs), max(ys))
    if kind == "circle" and len(points) == 2:  # the center, and a point on the circle
        radius = math.dist(*polygon)
        return to_polygon({"name": "circle", "cx": xs[0], "cy": ys[0], "r": radius}, where)
    boxes, others = (", ".join(kinds) for kinds in (_BOXES, (*_OUTLINES, *_POINTS)))
    accepted = f"{others}; {boxes} of 2 or 4 points; circle of 2"
    raise UserError(f"{where} is a {quote(kind)} of {pluralize(len(points), 'point')}; accepted: {accepted}")
