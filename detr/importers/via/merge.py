"""Several annotation files, or several entries of one image, become one list of images that are there. No torch."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from detr.importers.notes import MERGED
from detr.importers.via.find import ImageFolder
from detr.importers.via.record import AnnotatedImage
from utils import UserError, pluralize, printable


class Source(NamedTuple):
    """What was read about the images of one folder, in whatever format."""

    prefix: str  # in front of its images' names in messages; sources with the same one are one split
    images: list[AnnotatedImage]
    folder: ImageFolder
    file: Path | None = None  # the annotation file, if it is a single one


class Labels(NamedTuple):
    """What annotations of one format say."""

    sources: list[Source]  # of train and val, or all with one prefix to be divided
    names: tuple[str, ...] = ()  # the classes in their order; empty where the format has none
    remarks: Sequence[tuple[str, str]] = ()  # category of the report, where


class LocatedImage(NamedTuple):
    """An image that is there, with the regions of all its entries."""

    image: AnnotatedImage
    path: Path
    real: Path  # with links followed
    source: Source  # where its regions come from


class Located(NamedTuple):
    """The images of one split: those that are there, each once, and those that are not."""

    images: list[LocatedImage]
    missing: dict[str, tuple[AnnotatedImage, str]]  # by name, with the reason
    remarks: list[tuple[str, str]]  # category of detr.importers.notes, where
    conflicts: list[tuple[str, Source, Source]]  # image with its numbers of regions, two sources that differ about it

    @property
    def annotated(self) -> list[AnnotatedImage]:
        """All images, also the missing ones."""
        return [*(located.image for located in self.images), *(image for image, _ in self.missing.values())]


def locate(sources: Iterable[Source]) -> Located:
    """Find the images of one split, and merge what several entries say about one.

    Entries of one source are parts of the image's annotation: it gets the regions of all, equal ones once. Of several
    sources, which may be exports of the same project, the first that has regions counts; if a later one has others
    that is a conflict.
    """
    images: dict[Path, LocatedImage] = {}
    missing: dict[str, tuple[AnnotatedImage, str]] = {}
    conflicts: list[tuple[str, Source, Source]] = []
    remarks: list[tuple[str, str]] = []
    for source in sources:
        remarks += chain.from_iterable(image.remarks for image in source.images)
        for real, (first, *more) in _entries(source, missing).items():
            if more:
                regions = {repr(region[:2]): region for entry in (first, *more) for region in entry.image.regions}
                first = first._replace(image=first.image._replace(regions=list(regions.values())))
                remarks += [(MERGED, first.image.file_name)] if first.image.regions else []
            known = images.get(real)
            if not known or not known.image.regions:
                images[real] = first
            elif first.image.regions and _shapes_of(first.image) != _shapes_of(known.image):
                one, other = len(known.image.regions), len(first.image.regions)
                counts = f"{pluralize(one, 'region')}{f' and {other}' if one != other else ' each, not the same'}"
                name = f"{printable(first.image.file_name)} ({counts})"
                conflicts.append((name, known.source, source))
    return Located(list(images.values()), missing, remarks, conflicts)


def _entries(source: Source, missing: dict[str, tuple[AnnotatedImage, str]]) -> dict[Path, list[LocatedImage]]:
    """Return the entries of each image of a source, by its real path; what is not there goes to `missing`."""
    entries: dict[Path, list[LocatedImage]] = {}
    for image in source.images:
        try:
            path, real = source.folder.find(image.file_name, image.listed_bytes)
        except UserError as error:
            missing.setdefault(source.prefix + image.file_name, (image, str(error)))
        else:
            entries.setdefault(real, []).append(LocatedImage(image, path, real, source))
    return entries


def _shapes_of(image: AnnotatedImage) -> list:
    return sorted([(round(x, 3), round(y, 3)) for x, y in region.points_xy] for region in image.regions)
