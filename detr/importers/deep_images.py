"""Images of more than 8 bits: one scale for all images of a dataset, and their 8-bit copies. No torch."""

import io
from pathlib import Path

from PIL import Image

from detr.data.images import White, read_depth, read_rgb, white_of
from detr.importers.splits import Split
from utils import UserError

_WHAT = {"I": "images of more than 8 bits", "F": "images of floating-point numbers"}


def choose_white(splits: dict[str, Split], given: int | None = None) -> None:
    """Choose what becomes white in images of more than 8 bits, the same in all of them.

    It is `given`, or follows from the largest value in any image (`white_of`). It is set in the `info` of the COCO
    dicts, for detectors to scale any later image alike, and noted. Without such images nothing is changed. Raises
    UserError where it is given then.
    """
    tops: dict[str, float] = {}
    deep_images = []  # split, name and kind of each
    for split in splits.values():
        for image, path in zip(split.coco["images"], split.origins, strict=True):
            if depth := read_depth(path):
                kind, top = depth
                tops[kind] = max(top, tops.get(kind, 0))
                deep_images.append((split, image["file_name"], kind))
    white = {kind: given or white_of(top, kind) for kind, top in tops.items()}
    if given and not white:
        raise UserError(f"--white {given}: no image has more than 8 bits; leave it out")
    for split in splits.values() if white else ():
        split.coco["info"] = {"white": white}
    for split, name, kind in deep_images:
        what = f"{_WHAT[kind]} copied with 8 bits, {white[kind]:,} as white in each of them (--white)"
        split.notes.add([(what, name)])


def eight_bit_copy(path: Path, white: White) -> bytes | None:
    """Return an image of more than 8 bits as a file of 8, in its own format if possible; None for any other image."""
    if not white or not read_depth(path):
        return None
    with Image.open(path) as image:
        kind = image.format if image.format in Image.SAVE else "PNG"
    copy = io.BytesIO()
    read_rgb(path, white=white).convert("L").save(copy, kind)
    return copy.getvalue()
