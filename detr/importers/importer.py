"""Any annotations -> a COCO dict for training and one for validation, and what was changed on the way. No torch."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from detr.data.images import find_images, has_image_suffix
from detr.importers.labelme import read_labelme
from detr.importers.notes import MAKES_NO_OBJECT, UNLISTED
from detr.importers.questions import Question, Undecided
from detr.importers.splits import Split
from detr.importers.via.classes import ClassFlags, find_classes
from detr.importers.via.find import ImageFolder
from detr.importers.via.merge import Located, Source, locate
from detr.importers.via.parts import Part, convert_part, to_splits
from detr.importers.via.reader import read_via
from detr.importers.via.record import AnnotatedImage
from detr.importers.voc import read_voc
from detr.importers.yolo import read_yolo
from utils import UserError, join_names, pluralize, printable

READERS = {"yolo": read_yolo, "voc": read_voc, "labelme": read_labelme}


def import_labels(
    kind: str,
    paths: Path | Sequence[Path],
    images: Path | None = None,
    *,
    class_flags: ClassFlags | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
    keep_partial: bool = False,
    background: Sequence[Path] = (),
    left_out: Path | None = None,
) -> dict[str, Split]:
    """Read annotations, hold them against their images, and divide them into `train` and `val`.

    Args:
        kind: `via`, or a key of `READERS`.
        paths: what the reader of that format takes.
        images: folder of the images, if they are not beside the annotations.
        class_flags: what the user said about the classes.
        val_fraction: share of the images for validation where no split is given; 0 to validate on the training
            images, as with a single image.
        seed: of that division.
        skip_bad_images: leave out missing, damaged and resized images instead of stopping.
        keep_partial: keep images some of whose regions make no object.
        background: images that show no object, and folders of them; for training where splits are given.
        left_out: a folder in which no image is looked for: that of earlier imports.

    Raises UserError for whatever the user has to put right; images are all looked at before one is complained about.
    """
    labels = {"via": read_via, **READERS}[kind](paths, images, left_out)
    first = paths if isinstance(paths, Path) else paths[0]
    folder = (first if first.is_dir() else first.resolve().parent).resolve().name
    folder = folder.encode(errors="replace").decode()  # the class where there is no other
    if not any(source.images for source in labels.sources):
        raise UserError(f"{folder}: the annotations list no image")
    flags = class_flags or ClassFlags()
    if not flags.categories:
        flags = replace(flags, categories=labels.names)
    sources = [*labels.sources, *_background_sources(background, labels.sources[0].prefix)]
    splits = _import_sources(sources, folder, flags, val_fraction, seed, skip_bad_images, keep_partial)
    splits["train"].notes.add(labels.remarks)
    return splits


import_via = partial(import_labels, "via")


def _import_sources(
    sources: list[Source],
    implicit: str,
    flags: ClassFlags,
    val_fraction: float,
    seed: int,
    skip_bad_images: bool,
    keep_partial: bool,
) -> dict[str, Split]:
    """Return `train` and `val`: sources of one split have the same prefix; where all have, they are divided.

    `implicit` is the class where no region has an attribute.
    """
    prefixes = list(dict.fromkeys(source.prefix for source in sources))
    located, questions = _located(sources, prefixes)
    all_images = chain.from_iterable(part.annotated for part in located)
    classes, about_classes = find_classes(all_images, flags, implicit)
    questions += about_classes
    parts = [convert_part(part, prefix, classes) for part, prefix in zip(located, prefixes, strict=True)]
    parts[0].remarks.extend((UNLISTED, name) for name in _unlisted_images(located))
    if any(part.bad for part in parts) and not skip_bad_images:
        questions.append(_about_bad_images(parts, sum(len(part.annotated) for part in located)))
    if not keep_partial and any(part.is_all_partial() for part in parts):
        questions.append(_about_partial_images(parts))
        keep_partial = True
    try:
        splits = to_splits([part.settled(keep_partial) for part in parts], classes, val_fraction, seed)
    except UserError as error:
        raise Undecided([*questions, Question(f"{implicit}: {error}")]) from error
    if questions:
        raise Undecided(questions)
    return splits


def _background_sources(background: Sequence[Path], prefix: str) -> list[Source]:
    """Return images without objects, as if an annotation file listed them."""
    files = find_images([*map(str, background)], "--background") if background else []
    names: dict[Path, list[AnnotatedImage]] = defaultdict(list)
    for file in files:
        names[file.parent].append(AnnotatedImage(file.name, []))
    return [Source(prefix, images, ImageFolder(folder)) for folder, images in names.items()]


def _located(sources: list[Source], prefixes: list[str]) -> tuple[list[Located], list[Question]]:
    """Return the images of each split, without those of files that differ from larger ones, and the question which."""
    images_of: dict[tuple[Path | None, Path | None], list[str]] = defaultdict(list)
    while True:
        located = [locate(source for source in sources if source.prefix == prefix) for prefix in prefixes]
        conflicts = [conflict for part in located for conflict in part.conflicts]
        if not conflicts:
            break
        for image, one, other in conflicts:
            images_of[one.file, other.file].append(image)
        losers = {id(min(other, one, key=_region_count)) for _, one, other in conflicts}
        sources = [source for source in sources if id(source) not in losers]
    files = [str(source.file) for source in sources if source.file]
    text = "; ".join(f"{one} and {other} differ about {join_names(names)}" for (one, other), names in images_of.items())
    return located, [
        Question(f"{text}: keep one of them", ("--via", *files) if prefixes == [""] else ())
    ] if text else []


def _region_count(source: Source) -> int:
    return sum(len(image.regions) for image in source.images)


def _unlisted_images(located: list[Located]) -> list[str]:
    """Return the images that lie beside listed ones and are not listed, with their folder."""
    listed = {entry.real for part in located for entry in part.images}
    folders = dict.fromkeys(path.parent for path in listed)
    beside = [path for folder in folders for path in sorted(folder.iterdir()) if has_image_suffix(path)]
    others = [path for path in beside if path not in listed and path.name[0] != "." and not path.is_symlink()]
    return [f"{path.parent.name}/{path.name}" for path in others if path.is_file()]


def _about_partial_images(parts: list[Part]) -> Question:
    images = [image for part in parts for image in part.images if image.is_partial]
    kinds = Counter(kind for image in images for kind, _ in image.remarks if kind in MAKES_NO_OBJECT)
    found = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    return Question(
        f"no image with objects is annotated as a whole ({found}; such as {printable(images[0].file_name)}), and what "
        "has no box would be learnt as background; complete the regions, or --keep_partial keeps these images",
        ("--keep_partial",),
    )


def _about_bad_images(parts: list[Part], total: int) -> Question:
    """Return one line about all images that cannot be used, those with the same reason together."""
    names, bad = defaultdict(list), [problem for part in parts for problem in part.bad]
    for name, reason in bad:
        names[reason].append(name)
    groups = [f"{join_names(found, 20)}{reason}" for reason, found in names.items()]
    more = f"; and {len(groups) - 20} more reasons" if len(groups) > 20 else ""
    return Question(
        f"{len(bad)} of {pluralize(total, 'image')} cannot be used: {'; '.join(groups[:20])}{more}. "
        "Put them right, or --skip_bad_images leaves them out",
        ("--skip_bad_images",),
    )
