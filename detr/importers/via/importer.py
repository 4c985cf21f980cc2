"""Any VIA annotation -> a COCO dict for training and one for validation, and what was changed on the way. No torch."""

import contextlib
import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from detr.importers.notes import BAD, TURNED, UNSURE, Notes
from detr.importers.splits import Split, split_images
from detr.importers.thumbnails import DecodedImage, decode_all, stacked
from detr.importers.via.classes import Classes, ClassFlags, find_classes
from detr.importers.via.find import ImageFolder, find_annotation_files
from detr.importers.via.frames import evidence, turned, usual_frame
from detr.importers.via.reader import read_annotations, read_merged
from detr.importers.via.record import AnnotatedImage
from detr.importers.via.to_coco import ConvertedImage, convert, to_coco
from utils import UserError, join_names, pluralize, printable

SPLITS = ("train", "val")


class Source(NamedTuple):
    """What was read about the images of one folder, in whatever format."""

    prefix: str  # in front of its images' names in messages
    images: list[AnnotatedImage]
    folder: ImageFolder


class _UsableImage(NamedTuple):
    image: AnnotatedImage
    path: Path
    decoded: DecodedImage


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for cycles, of which annotations have none: over millions of objects it takes as long as
    all the rest, and more than linearly.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
def import_via(
    path: Path,
    images: Path | None = None,
    *,
    class_flags: ClassFlags | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
    left_out: Path | None = None,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Split]:
    """Read annotations, hold them against their images, and divide them into `train` and `val`.

    Args:
        path: a folder with train/ and val/, each with images and annotation files; or an annotation file; or a folder
            with some. Several files of a folder are merged.
        images: folder of the images, if they are not beside the annotation file.
        class_flags: what the user said about the classes.
        val_fraction: share of the images for validation where `path` does not say.
        seed: of that division.
        skip_bad_images: leave out missing, damaged, resized and repeated images instead of stopping.
        left_out: a folder in which no image is looked for: that of earlier imports.
        on_image: called once per image looked at.

    Raises UserError for whatever the user has to put right; images are all looked at before one is complained about.
    """
    sources = _read_sources(path, images, left_out)
    implicit = (path if path.is_dir() else path.resolve().parent).resolve().name
    return import_sources(
        sources,
        implicit,
        class_flags=class_flags,
        val_fraction=val_fraction,
        seed=seed,
        skip_bad_images=skip_bad_images,
        on_image=on_image,
    )


@_uncollected()
def import_sources(
    sources: list[Source],
    implicit: str,
    *,
    class_flags: ClassFlags | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> dict[str, Split]:
    """Hold annotations of any format against their images, and divide them into `train` and `val`.

    Args:
        sources: one for each split, or a single one to divide.
        implicit: the class where no region has an attribute.
        class_flags, val_fraction, seed, skip_bad_images, on_image: as of `import_via`.

    Raises UserError for whatever the user has to put right; images are all looked at before one is complained about.
    """
    if not any(source.images for source in sources):
        raise UserError(f"{implicit}: the annotations list no image")
    classes = find_classes(
        (image for source in sources for image in source.images), class_flags or ClassFlags(), implicit
    )
    converted, bad = [], []
    for source in sources:
        good, problems = _convert_source(source, classes, on_image)
        converted.append(good)
        bad.append(problems)
    if any(bad) and not skip_bad_images:
        raise UserError(_complaint(list(chain(*bad)), sum(len(source.images) for source in sources)))
    if len(sources) == 1:
        converted, bad = _divided(converted[0], val_fraction, seed), [bad[0], []]
    splits = {
        name: _to_split(part, problems, classes) for name, part, problems in zip(SPLITS, converted, bad, strict=True)
    }
    if not any(split.coco["annotations"] for split in splits.values()):
        lines = chain(*(split.notes.lines() for split in splits.values()))
        raise UserError(f"{implicit}: no object is left to learn from: {'; '.join(lines) or 'there are no regions'}")
    return splits


def _to_split(images: list[ConvertedImage], problems: list[tuple[str, str]], classes: Classes) -> Split:
    notes = Notes()
    notes.add(chain.from_iterable(image.remarks for image in images))
    notes.add((BAD, f"{printable(image)}{reason}") for image, reason in problems)
    thumbnails = stacked(image.decoded for image in images)
    return Split(to_coco(images, classes), [image.path for image in images], notes, thumbnails)


def _read_sources(path: Path, images: Path | None, left_out: Path | None) -> list[Source]:
    """Return one source for each split, or a single one to divide."""
    if images and not images.is_dir():
        raise UserError(f"--images {images}: no such folder")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; accepted: an annotation file, or a folder with one")
    if path.is_file():
        return [Source("", read_annotations(path), ImageFolder(images or path.parent, left_out))]
    if not all((path / name).is_dir() for name in SPLITS):
        return [Source("", read_merged(find_annotation_files(path)), ImageFolder(images or path, left_out))]
    sources = []
    for name in SPLITS:
        own = images / name if images and (images / name).is_dir() else images
        annotations = read_merged(find_annotation_files(path / name))
        sources.append(Source(f"{name}/", annotations, ImageFolder(own or path / name, left_out)))
    return sources


def _convert_source(
    source: Source, classes: Classes, on_image: Callable[[], None]
) -> tuple[list[ConvertedImage], list[tuple[str, str]]]:
    """Return the images that can be used; of the others name and reason."""
    located, bad = _located(source)
    names = _distinct_names([path for _, path in located])
    found = []
    for (image, path), decoded in zip(located, decode_all([path for _, path in located], on_image), strict=True):
        if isinstance(decoded, UserError):
            bad.append((source.prefix + image.file_name, str(decoded).removeprefix(str(path))))
        else:
            found.append(_UsableImage(image, path, decoded))
    converted = []
    for (image, path, decoded), remarks in _upright(found):
        height, width = decoded.header.size_hw
        try:
            done = convert(image, path, width, height, classes)
        except UserError as error:
            bad.append((source.prefix + image.file_name, str(error)))
        else:
            done.remarks.extend(remarks)
            converted.append(done._replace(file_name=names[path], decoded=decoded))
    return converted, bad


def _located(source: Source) -> tuple[list[tuple[AnnotatedImage, Path]], list[tuple[str, str]]]:
    """Return the images that are there, once; of the others name and reason."""
    located, bad = [], []
    origins: set[Path] = set()
    for image in source.images:
        try:
            path, real = source.folder.find(image.file_name)
            if real in origins:
                raise UserError(": annotated twice")
            origins.add(real)
            located.append((image, path))
        except UserError as error:
            bad.append((source.prefix + image.file_name, str(error)))
    return located, bad


def _distinct_names(paths: list[Path]) -> dict[Path, str]:
    """Return what images are called in the one folder that they are copied to: namesakes by their folders too.

    On some systems a.jpg and A.jpg are the same file there.
    """
    names = {path: path.name for path in paths}
    for depth in range(1, max((len(path.parts) for path in paths), default=0)):
        uses = Counter(name.casefold() for name in names.values())
        for path in [path for path, name in names.items() if uses[name.casefold()] > 1]:
            names[path] = "_".join(path.parts[-depth - 1 :])
    return names


def _upright(found: list[_UsableImage]) -> Iterator[tuple[_UsableImage, list[tuple[str, str]]]]:
    """Yield images with their regions in the upright frame, and remarks.

    Regions that fit the stored pixels only were drawn there. Those that fit both ways round are taken to be drawn as
    the others of their file were, and upright where these differ.
    """
    frames = [evidence(image, decoded.header.orientation, *decoded.header.size_hw[::-1]) for image, _, decoded in found]
    some_stored, usual = "stored" in frames, usual_frame(frames)
    for (image, path, decoded), own in zip(found, frames, strict=True):
        header, frame = decoded.header, own or usual
        remarks = []
        if header.orientation > 1 and frame == "stored":
            image = turned(image, header.orientation, *header.size_hw[::-1])
            remarks = [(TURNED, image.file_name)]
        elif header.orientation > 1 and not own and some_stored:
            remarks = [(UNSURE, image.file_name)]
        yield _UsableImage(image, path, decoded), remarks


def _divided(images: list[ConvertedImage], val_fraction: float, seed: int) -> list[list[ConvertedImage]]:
    """Return images for training, and for validation."""
    classes = [{annotation["category_id"] for annotation in image.annotations} for image in images]
    in_val = split_images([image.file_name for image in images], classes, val_fraction, seed)
    return [[image for image, is_val in zip(images, in_val, strict=True) if is_val is side] for side in (False, True)]


def _complaint(bad: list[tuple[str, str]], total: int) -> str:
    """Return one line about all images that cannot be used, those with the same reason together."""
    names = defaultdict(list)
    for name, reason in bad:
        names[reason].append(name)
    groups = [f"{join_names(found, 20)}{reason}" for reason, found in names.items()]
    more = f"; and {len(groups) - 20} more reasons" if len(groups) > 20 else ""
    return (
        f"{len(bad)} of {pluralize(total, 'image')} cannot be used: {'; '.join(groups[:20])}{more}. "
        "Put them right, or --skip_bad_images leaves them out"
    )
