"""Folders with a label file per image: which files there are, which belong together, and to which split. No torch."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath, PureWindowsPath

from detr.data.images import has_image_suffix
from detr.importers.notes import ONE_SPLIT
from detr.importers.splits import SPLITS
from detr.importers.via.find import ImageFolder, files_below
from detr.importers.via.merge import Labels, Source
from detr.importers.via.record import AnnotatedImage
from utils import UserError, join_names

CLASS = "class"  # the name given to the attribute that holds the class of a region
UNUSED_IMAGE = "images of neither train nor val, not used"
_SPLIT = re.compile(r"(?:obj_)?(train|val|valid|validation|test)(?:20\d\d|_data)?", re.IGNORECASE)
_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_ROLES = {  # folders whose name says what kind of files they hold
    *("image", "images", "img", "imgs", "jpegimages", "label", "labels"),
    *("annotation", "annotations", "ann", "xml", "xmls", "json", "jsons"),
}


class LabelFolder:
    """A folder with label files and images.

    An image and its label file share their stem, and their folders but for those named after what they hold:
    train/images/a.jpg and train/labels/a.txt, images/train/a.jpg and labels/train/a.txt, JPEGImages/a.jpg and
    Annotations/a.xml, a.jpg and a.txt.
    """

    def __init__(self, root: Path, images: Path | None, left_out: Path | None) -> None:
        """List all files. Raises UserError for what is not a folder.

        Args: the folder; that of the images, if it is another one; a folder that is not searched.
        """
        check_folder(root)
        self.root = root
        self.files = visible_files(root, left_out)
        self.image_root = images or root
        self.images = ImageFolder(self.image_root, left_out)
        self.image_files = list(filter(has_image_suffix, visible_files(images, left_out) if images else self.files))
        self._images_of: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path in self.image_files:
            self._images_of[pair_key(path)].append(path)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return files relative to the folder, by suffix whatever its case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def images_of(self, label: PurePath) -> list[Path]:
        """Return the images that belong to a label file, going by names alone."""
        return self._images_of.get(pair_key(label), [])

    def image_of(self, label: PurePath, said: str) -> str:
        """Return the one image of a label file, empty where there is none; `said` is the name that the file gives it.

        Raises UserError where there are several, none of that name.
        """
        own = self.images_of(label)
        if len(own) > 1:
            own = [path for path in own if path.name == PureWindowsPath(said).name] or own
        if len(own) > 1:
            names = join_names(map(str, own))
            raise UserError(f"{self.root / label}: several images may be its own: {names}; keep one")
        return own[0].as_posix() if own else ""

    def labels(self, images: dict[str, list[AnnotatedImage]], remarks: Sequence[tuple[str, str]]) -> Labels:
        """Return a source for train and one for val, or a single one to divide, with `remarks` and those about that.

        `images` are those of "train", "val", "test" and of no split. Those of no split are for training and validation
        where there is no other, those of test only where there is nothing else.
        """
        used = [SPLITS] if all(images.get(name) for name in SPLITS) else [("train",), ("val",), ("",), ("test",)]
        names = next((names for names in used if any(images.get(name) for name in names)), ("",))
        unused = [image.file_name for name, listed in images.items() if name not in names for image in listed]
        own_remarks = [(UNUSED_IMAGE, name) for name in unused]
        if len(names) == 1 and names[0]:
            own_remarks.append((ONE_SPLIT, names[0]))
        prefixes = [f"{name}: " if len(names) > 1 else "" for name in names]
        sources = [Source(pre, images.get(name, []), self.images) for pre, name in zip(prefixes, names, strict=True)]
        return Labels(sources, remarks=[*own_remarks, *remarks])


def check_folder(path: Path, flag: str = "") -> None:
    """Raise UserError that begins with `flag` for what is not a folder."""
    if not path.is_dir():
        raise UserError(f"{flag}{path}: {'is a file; give its folder' if path.is_file() else 'no such folder'}")


def pair_key(path: PurePath) -> tuple[str, ...]:
    """Return what the names of an image and of its label file have in common."""
    folders = (part.lower() for part in path.parts[:-1])
    return (*(part for part in folders if part not in _ROLES), unicodedata.normalize("NFC", path.stem))


def split_named(name: str) -> str:
    """Return train, val or test where a name is that of a split; else an empty text."""
    match = _SPLIT.fullmatch(name)
    return _SPLIT_OF[match[1].lower()] if match else ""


def split_of(path: PurePath) -> str:
    """Return train, val or test where a folder on the way says so; else an empty text."""
    return next(filter(None, map(split_named, path.parts[:-1])), "")


def visible_files(root: Path, left_out: Path | None = None) -> list[Path]:
    """Return all files in a folder, relative to it, but for hidden ones and those in the folder to leave out."""
    return sorted(path.relative_to(root) for path in files_below(root, left_out) if path.name[0] != ".")
