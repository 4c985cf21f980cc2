"""Located images -> converted ones -> the splits that they make. No torch."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from detr.importers.notes import BAD, MAKES_NO_OBJECT, PARTIAL, PARTIAL_KEPT, POINT, TO_LOOK_AT, TURNED, Notes
from detr.importers.splits import SPLITS, Split, split_images, validates_on_training
from detr.importers.thumbnails import decode_all, stacked
from detr.importers.via.classes import Classes
from detr.importers.via.frames import remarks_on_turns, turned
from detr.importers.via.merge import Located
from detr.importers.via.to_coco import ConvertedImage, convert, to_coco
from utils import UserError, printable


class Part(NamedTuple):
    """The images of one split, or all of those to divide."""

    images: list[ConvertedImage]
    bad: list[tuple[str, str]]  # name and reason of those that cannot be used
    remarks: list[tuple[str, str]]  # that are about none of the images: category of detr.importers.notes, where

    def is_all_partial(self) -> bool:
        """Return whether there are images with objects, all of them partial."""
        partial = [image.is_partial for image in self.images if image.annotations]
        return bool(partial) and all(partial)

    def settled(self, keep_partial: bool) -> "Part":
        """Return the part without its partial images unless these are to be kept, and with remarks about them."""
        partial = [image for image in self.images if image.is_partial]
        if keep_partial:
            return self._replace(remarks=[*self.remarks, *((PARTIAL_KEPT, image.file_name) for image in partial)])
        reasons = [remark for image in partial for remark in image.remarks if remark[0] in MAKES_NO_OBJECT]
        left_out = [(PARTIAL, image.file_name) for image in partial]
        images = [image for image in self.images if not image.is_partial]
        return self._replace(images=images, remarks=[*self.remarks, *left_out, *reasons])


def convert_part(located: Located, prefix: str, classes: Classes) -> Part:
    """Look at the images of one split, and convert those that can be used."""
    bad = [(name, reason) for name, (_, reason) in located.missing.items()]
    listed = {entry.path: entry.image for entry in located.images}
    names = _distinct_names(listed)
    decoded, unreadable = decode_all(listed)
    bad += [(prefix + listed[path].file_name, why.removeprefix(str(path))) for path, why in unreadable.items()]
    images = []
    turns = remarks_on_turns([listed[path] for path in decoded], [looked.header for looked in decoded.values()])
    for (path, looked), turn in zip(decoded.items(), turns, strict=True):
        image = turned(listed[path], looked.header) if turn == TURNED else listed[path]
        try:
            annotations, remarks = convert(image, looked.header.size_hw, classes)
        except UserError as error:
            bad.append((prefix + image.file_name, str(error)))
        else:
            remarks += [(turn, image.file_name)] if turn else []
            images.append(ConvertedImage(names[path], path, looked, annotations, remarks))
    return Part(images, bad, [*located.remarks, *((BAD, f"{printable(name)}{why}") for name, why in bad)])


def to_splits(parts: list[Part], classes: Classes, val_fraction: float, seed: int) -> dict[str, Split]:
    """Return `train` and `val`. Raises UserError where there is nothing to learn from."""
    if not all(part.images for part in parts) or not any(image.annotations for part in parts for image in part.images):
        lines = "; ".join(chain.from_iterable(_notes(part, without=TO_LOOK_AT).lines() for part in parts))
        instead = "; a rectangle, polygon, circle or ellipse around an object makes one" if POINT in lines else ""
        what = "object to learn from" if all(part.images for part in parts) else "image"
        raise UserError(f"no {what} is left: {lines or 'there are no regions'}{instead}")
    if len(parts) == 1 and not validates_on_training(len(parts[0].images), val_fraction):
        train, val = _divided(parts[0].images, val_fraction, seed)
        parts = [parts[0]._replace(images=train), parts[0]._replace(images=val, remarks=[])]
    splits = {name: _to_split(part, classes) for name, part in zip(SPLITS, parts, strict=False)}
    return splits if len(splits) == 2 else {**splits, "val": splits["train"]._replace(notes=Notes())}


def _to_split(part: Part, classes: Classes) -> Split:
    thumbnails = stacked(image.decoded for image in part.images)
    return Split(to_coco(part.images, classes), [image.path for image in part.images], _notes(part), thumbnails)


def _notes(part: Part, without: Collection[str] = ()) -> Notes:
    notes = Notes()
    notes.add(r for r in chain(part.remarks, *(image.remarks for image in part.images)) if r[0] not in without)
    return notes


def _distinct_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return what images are called in the one folder that they are copied to: namesakes by their folders too.

    On some systems a.jpg and A.jpg are the same file there.
    """
    names = {path: path.name for path in paths}
    for depth in range(1, max((len(path.parts) for path in names), default=0)):
        uses = Counter(name.casefold() for name in names.values())
        for path in [path for path, name in names.items() if uses[name.casefold()] > 1]:
            names[path] = "_".join(path.relative_to(path.anchor).parts[-depth - 1 :])
    return names


def _divided(images: list[ConvertedImage], val_fraction: float, seed: int) -> list[list[ConvertedImage]]:
    """Return images for training, and for validation."""
    classes = [{annotation["category_id"] for annotation in image.annotations} for image in images]
    in_val = split_images([image.file_name for image in images], classes, val_fraction, seed)
    return [[image for image, is_val in zip(images, in_val, strict=True) if is_val is side] for side in (False, True)]
