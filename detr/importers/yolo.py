"""YOLO labels (a text file per image, data.yaml or classes.txt beside them) -> neutral records. No torch.

A line is `class cx cy w h` for a box, `class x1 y1 x2 y2 x3 y3 ...` for a polygon, as shares of width and height of the
image as it is shown (upright).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from detr.data.images import read_size_hw
from detr.importers.label_folder import CLASS, LabelFolder, pair_key, split_of
from detr.importers.splits import SPLITS
from detr.importers.via.fields import corners
from detr.importers.via.merge import Labels
from detr.importers.via.record import AnnotatedImage, Point, Region
from utils import UserError, is_line, join_names, pluralize, quote

NOT_HERE = "paths in data.yaml that are not in the folder, splits told by the names of folders instead"
UNUSED_NAME = "classes without objects, dropped"
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_SLACK = 0.5  # pixels: written with few digits, a box at the image's edge goes beyond it by as much
_FARTHEST = 2.0  # a share beyond it is a number of pixels


def read_yolo(path: Path, images: Path | None = None, left_out: Path | None = None) -> Labels:
    """Read the labels of a folder; an image without a label file has no objects.

    Args: the folder, or its data.yaml; that of the images, if it is another one; a folder that is not searched. Raises
    UserError naming file and line.
    """
    folder = LabelFolder(path.parent if path.is_file() else path, images, left_out)
    config_path = path if path.is_file() else _find_config(folder)
    config = _read_yaml(config_path) if config_path else {}
    names = _names(config, config_path, folder)
    labels: dict[tuple[str, ...], Path] = {}
    for label in folder.with_suffix(".txt"):
        if labels.setdefault(pair_key(label), label) != label and folder.images_of(label):
            raise UserError(f"{folder.root}: {labels[pair_key(label)]} and {label} both belong to one image; keep one")
    listed, not_here = _listed_splits(config, config_path, folder)
    for path in () if listed else folder.image_files:
        listed.setdefault(split_of(path), []).append(path.as_posix())
    by_split: dict[str, list[AnnotatedImage]] = {}
    for split, image_names in listed.items():
        by_split[split] = [_read_image(name, folder, labels, names, "kpt_shape" in config) for name in image_names]
    for label in labels.values():
        if not folder.images_of(label) and looks_like_labels(folder.root / label):
            by_split.setdefault(split_of(label), []).append(AnnotatedImage(f"{label.with_suffix('').as_posix()}.*", []))
    read = folder.labels(by_split, not_here)
    used = {region.attributes[CLASS] for source in read.sources for image in source.images for region in image.regions}
    unused = [(UNUSED_NAME, name) for name in names.values() if name not in used]
    used_names = tuple(name for name in names.values() if name in used)
    return read._replace(names=used_names, remarks=[*read.remarks, *unused])


# ---------------------------------------------------------------------------------------------------------- class names


def _find_config(folder: LabelFolder) -> Path | None:
    """Return data.yaml, or the one YAML file with names. Raises UserError where there are several."""
    paths = [folder.root / path for path in folder.with_suffix(".yaml", ".yml")]
    with_names = [path for path in paths if "names" in _read_yaml(path)]
    with_names = [path for path in with_names if path == folder.root / "data.yaml"] or with_names
    if len(with_names) > 1:
        names = join_names(map(str, with_names))
        raise UserError(f"{folder.root}: several files name classes: {names}; --yolo with one tells which counts")
    return with_names[0] if with_names else None


def _read_yaml(path: Path) -> dict:
    try:
        # The base loader leaves every scalar a text: a class named `no` is neither false nor 1.0 a number.
        content = yaml.load(_read_text(path), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    return content if isinstance(content, dict) else {}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text in UTF-8 ({error})") from error


def _names(config: dict, config_path: Path | None, folder: LabelFolder) -> dict[int, str]:
    """Return class id -> name. Raises UserError where there are no names, or odd ones."""
    names, where = config.get("names"), config_path
    if names is None:
        lists = {
            path: tuple(line.strip() for line in _read_text(folder.root / path).rstrip().splitlines())
            for path in folder.files
            if path.name in _NAME_FILES
        }
        if len(set(lists.values())) != 1:
            found = f"several that differ: {join_names(map(str, lists))}" if lists else "none"
            raise UserError(f"{folder.root}: one data.yaml or classes.txt must name the classes; found {found}")
        where, names = next((folder.root / path, list(names)) for path, names in lists.items())
    entries = list(names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ())
    if not entries or not all(
        isinstance(name, str) and is_line(name) and str(key).isdecimal() for key, name in entries
    ):
        raise UserError(f"{where}: the class names are {quote(names)}; accepted: a list of names, or `0: name`, ...")
    entries = dict(sorted((int(key), " ".join(name.split())) for key, name in entries))
    if repeated := [name for name, count in Counter(entries.values()).items() if count > 1]:
        raise UserError(f"{where}: several classes are named {quote(repeated[0])}; each needs a name of its own")
    return entries


# --------------------------------------------------------------------------------------------------------------- splits


def _listed_splits(
    config: dict, config_path: Path | None, folder: LabelFolder
) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Return the images that data.yaml names for each split; none, and a remark, where what it says is not to be found.

    Its paths are those of the machine that wrote it more often than not.
    """
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        entries = config.get(split) or []  # `val:` with nothing behind it is an empty text
        for entry in map(str, [entries] if isinstance(entries, str) else entries):
            place = _find_place(entry, (config_path.parent / str(config.get("path", "")), config_path.parent), folder)
            if place is None:
                return {}, [(NOT_HERE, f"{split}: {entry}")]
            splits.setdefault(split, []).extend(_images_in(place, folder))
    if splits.get("val") == splits.get("train"):
        splits.pop("val", None)
    return splits, []


def _find_place(entry: str, bases: tuple[Path, ...], folder: LabelFolder) -> Path | None:
    """Return the file or folder that an entry of data.yaml means, if it lies in the folders that were given."""
    given = folder.root.resolve(), folder.image_root.resolve()
    names = entry, entry.removeprefix("../")  # Roboflow writes one level too many
    places = ((base / name).resolve() for base in (*bases, folder.image_root) for name in names)
    return next((place for place in places if place.exists() and any(map(place.is_relative_to, given))), None)


def _images_in(place: Path, folder: LabelFolder) -> list[str]:
    if place.is_file():  # a list of images
        return [line.strip() for line in _read_text(place).splitlines() if line.strip()]
    root = folder.image_root.resolve()
    return [path.as_posix() for path in folder.image_files if (root / path).is_relative_to(place)]


# --------------------------------------------------------------------------------------------------------------- labels


def _read_image(
    name: str, folder: LabelFolder, labels: dict[tuple[str, ...], Path], names: dict[int, str], is_pose: bool
) -> AnnotatedImage:
    """Return an image with its objects; one that cannot be read without any: it is complained about later."""
    try:
        path = folder.images.find(name)[0]
        height, width = read_size_hw(path)
    except UserError:
        return AnnotatedImage(name, [])
    label = labels.get(pair_key(path.relative_to(folder.image_root)))
    regions = []
    for number, words in _rows(folder.root / label) if label else ():
        class_id, points = _parse_row(words, f"{folder.root / label}, line {number}", names, is_pose)
        pixels = [(_snapped(x * width, width), _snapped(y * height, height)) for x, y in points]
        regions.append(Region(pixels, {CLASS: names[class_id]}, f"line {number}"))
    return AnnotatedImage(name, regions)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def _parse_row(words: list[str], where: str, names: dict[int, str], is_pose: bool) -> tuple[int, list[Point]]:
    """Return the class and the polygon of an object, in shares of the image. Raises UserError."""
    try:
        class_id, *shares = map(float, words)
    except ValueError as error:
        raise UserError(f"{where}: {quote(' '.join(words))} is not a row of numbers") from error
    if class_id not in names:
        raise UserError(f"{where}: class {words[0]} has no name; there are names for {min(names)} to {max(names)}")
    if is_pose:
        shares = shares[:4]  # keypoints follow
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise UserError(
            f"{where}: {pluralize(len(words), 'number')}; accepted: class cx cy w h for a box, class x1 y1 x2 y2 x3 y3 "
            "... for a polygon"
        )
    if odd := [value for value in shares if not -_FARTHEST <= value <= _FARTHEST]:
        raise UserError(f"{where}: has {odd[0]:g}; shares of the image's width and height are needed, from 0 to 1")
    if len(shares) > 4:
        return int(class_id), list(zip(shares[::2], shares[1::2], strict=True))
    cx, cy, width, height = shares
    if width < 0 or height < 0:
        raise UserError(f"{where}: a box of {width:g} x {height:g}; its sides cannot be negative")
    return int(class_id), corners(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)


def _snapped(value: float, side: int) -> float:
    """Return a coordinate, on the image's edge where it is just beyond it."""
    inside = min(max(value, 0), side)
    return inside if abs(value - inside) <= _SLACK else value


def looks_like_labels(path: Path) -> bool:
    """Return whether a text file begins with a row of labels, and not as a list of images or a read-me does."""
    _, words = next(_rows(path), (0, []))
    try:
        return len([float(word) for word in words]) >= 5
    except ValueError:
        return False
