"""Read a folder that is COCO already, in the layouts that tools write, checked and ready to be copied. No torch.

Our own and the official one (annotations/instances_train2017.json, train2017/), CVAT (annotations/instances_train.json,
images/train/), Roboflow (train/_annotations.coco.json beside its images), Label Studio (result.json, images/).
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path, PurePath, PureWindowsPath
from typing import NamedTuple
from urllib.parse import unquote

from detr.data.coco_json import keep_images, read_coco, refuse_images, size_problem
from detr.importers.coco_annotations import check_all_categories, choose_categories, clean, drop_roots, turn_upright
from detr.importers.label_folder import check_folder, split_named
from detr.importers.notes import BAD, ONE_SPLIT, Notes
from detr.importers.splits import Split, split_images, validates_on_training
from detr.importers.thumbnails import DecodedImage, decode_all, stacked
from detr.importers.via.find import is_file, name_key
from utils import UserError, is_line, printable, quote

ACCEPTED = (
    "accepted: annotations/instances_train*.json with instances_val*.json (or custom_*.json), "
    "train/_annotations.coco.json with valid/_annotations.coco.json, or one file for all images"
)
_FILE_NAME = re.compile(r"(?:instances|custom)_(.*)\.json", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"

UNUSED_FILE = "annotation files of neither train nor val, not used"
ROOT = "supercategory without objects among the categories, dropped"


class Source(NamedTuple):
    """One annotation file, and the folders where its images may lie, most likely one first."""

    file: Path
    places: list[str]  # below the folder of all images


def read_coco_folder(
    folder: Path,
    images: Path | None = None,
    *,
    categories: Sequence[str] = (),
    one_class: str | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    skip_bad_images: bool = False,
) -> dict[str, Split]:
    """Read a COCO folder as `train` and `val`, with ids from 1 and boxes inside their images.

    Args:
        folder: in one of the layouts.
        images: where the images lie, if not where the layout has them.
        categories: the classes to keep, in order (empty: all).
        one_class: the one class of all objects, whatever theirs is.
        val_fraction, seed: how to divide the images where one file lists them all.
        skip_bad_images: leave out images that cannot be used instead of stopping.

    Raises UserError for what is in no known layout, and one that lists all images that do not fit.
    """
    sources, unused = find_sources(folder)
    cocos = {name: read_coco(source.file) for name, source in sources.items()}
    notes = {name: Notes() for name in sources}
    first = notes[next(iter(sources))]
    first.add((UNUSED_FILE, file) for file in unused)
    if "all" in sources and sources["all"].file.parent != folder:
        first.add([(ONE_SPLIT, str(sources["all"].file.relative_to(folder)))])
    first.add((ROOT, category) for category in drop_roots(list(cocos.values())))
    check_all_categories({name: source.file for name, source in sources.items()}, cocos)
    splits, problems = {}, []
    for name, coco in cocos.items():
        choose_categories(coco, categories, one_class, notes[name])
        source = sources[name]
        if images:
            source = source._replace(places=[*source.places, "."])
        usable, own_problems = check_images(coco, source, images or folder, notes[name])
        problems += own_problems
        notes[name].add((BAD, problem) for problem in own_problems)
        if usable:
            origins, decoded = zip(*usable.values(), strict=True)
            splits[name] = Split(clean(coco, set(usable), notes[name]), list(origins), notes[name], stacked(decoded))
    if not skip_bad_images:
        total = sum(len(coco["images"]) for coco in cocos.values())
        refuse_images(problems, total, "--skip_bad_images leaves them out")
    if empty := [name for name in cocos if name not in splits]:
        raise UserError(f"{sources[empty[0]].file}: lists no images that can be used")
    _check_objects(folder, splits)
    return splits if len(splits) == 2 else divide(splits["all"], val_fraction, seed)


def _check_objects(folder: Path, splits: dict[str, Split]) -> None:
    if not any(split.coco["annotations"] for split in splits.values()):
        lines = "; ".join(line for split in splits.values() for line in split.notes.lines())
        raise UserError(f"{folder}: no object to learn from is left: {lines or 'there are no annotations'}")


def divide(whole: Split, val_fraction: float, seed: int) -> dict[str, Split]:
    """Return one split as two, by a hash of the file names; as the same two where it is not to be divided."""
    if validates_on_training(len(whole.origins), val_fraction):
        return {"train": whole, "val": whole._replace(notes=Notes())}
    images, classes = whole.coco["images"], {image["id"]: set() for image in whole.coco["images"]}
    for annotation in whole.coco["annotations"]:
        classes[annotation["image_id"]].add(annotation["category_id"])
    in_val = split_images([image["file_name"] for image in images], list(classes.values()), val_fraction, seed)
    splits = {}
    for name, side in (("train", False), ("val", True)):
        indices = [index for index, is_val in enumerate(in_val) if is_val is side]
        coco = keep_images(whole.coco, {images[index]["id"] for index in indices})
        notes = Notes() if side else whole.notes
        splits[name] = Split(coco, [whole.origins[index] for index in indices], notes, whole.thumbnails[indices])
    return splits


# ------------------------------------------------------------------------------------------------------ files, images


def find_sources(folder: Path) -> tuple[dict[str, Source], list[str]]:
    """Return the annotation files of "train" and "val", or the one of "all", and the names of those that are of no use.

    Raises UserError where that is not clear.
    """
    check_folder(folder, "--coco ")
    sources: dict[str, list[Source]] = {"train": [], "val": []}
    others = []
    for path in sorted({*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob(f"*/{_ROBOFLOW}")}):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: a link that leads out of {folder}; put the file itself there")
        named = _FILE_NAME.fullmatch(path.name) if path.parent.name == "annotations" else None
        subset = named[1] if named else path.parent.name if path.name == _ROBOFLOW else ""
        split = split_named(subset)
        if split in sources:
            places = [f"{split}2017", subset, f"images/{subset}", "images", "."] if named else [subset]
            sources[split].append(Source(path, places))
        else:
            others.append(path.relative_to(folder))
    listed = [source for candidates in sources.values() for source in candidates]
    if not listed and len(others) == 1:
        (file,) = others
        places = (f"images/{file.stem.removeprefix('instances_')}", "images", str(file.parent), ".")
        return {"all": Source(folder / file, list(dict.fromkeys(places)))}, []
    if len(listed) == 1 and all(map(_is_of_test, others)):
        return {"all": listed[0]._replace(places=[*listed[0].places, "."])}, list(map(str, others))
    for split, candidates in sources.items():
        if len(candidates) > 1:
            names = ", ".join(str(source.file.relative_to(folder)) for source in candidates)
            raise UserError(f"{folder}: several annotation files for {split}: {names}; leave one of them there")
        if not candidates:
            seen = f"; found {', '.join(map(str, others))}" if others else ""
            raise UserError(f"{folder}: no annotation file for {split}{seen}; {ACCEPTED}")
    unused = [str(path) for path in others if len(path.parts) > 1]
    return {split: source for split, (source,) in sources.items()}, unused


def _is_of_test(file: Path) -> bool:
    return "test" in (file.parent.name.lower(), file.stem.lower().partition("_")[2][:4])


def check_images(
    coco: dict, source: Source, folder: Path, notes: Notes
) -> tuple[dict[int, tuple[Path, DecodedImage]], list[str]]:
    """Return the images that can be used, file and look by image id, and sentences about the others.

    The names in `coco` become those to copy to: relative, with / between folders, and its annotations those of upright
    images. Nothing outside `folder` is accepted.
    """
    paths, problems = find_images(coco, source, folder)
    decoded, unreadable = decode_all(list(paths.values()))
    headers = {image_id: decoded[path].header for image_id, path in paths.items() if path in decoded}
    unturned = turn_upright(coco, headers, notes)
    listed_hw = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    usable = {}
    for image_id, path in paths.items():
        problem = unreadable.get(path) or unturned.get(image_id)
        if problem := problem or size_problem(path, decoded[path].header.size_hw, listed_hw[image_id]):
            problems.append(problem)
        else:
            usable[image_id] = path, decoded[path]
    return usable, problems


def find_images(coco: dict, source: Source, folder: Path) -> tuple[dict[int, Path], list[str]]:
    """Where each image lies, by its id, and sentences about those that are not to be found; sets their safe names."""
    inside, paths, problems, keyed = folder.resolve(), {}, [], cache(_keyed)
    taken: dict[str, dict] = {}  # name -> id and listed name of the first image that has it
    for image in coco["images"]:
        listed, candidates = image["file_name"], safe_names(image["file_name"])
        path, name = _find_image(candidates, [folder / place for place in source.places], keyed) or (None, listed)
        image["file_name"] = name
        if not candidates:
            problems.append(f"{source.file}: {quote(listed)} names no file, or is not one line")
        elif path is None:
            problems.append(f"{printable(listed)}: no such image in {folder} (looked into {', '.join(source.places)})")
        elif name in taken:
            problems.append(f"{source.file}: {printable(name)} is listed twice")
            if (first := taken[name])["listed"] != listed:  # in folders that are not here: which of them is it?
                problems[-1] += f", as {printable(first['listed'])} and as {printable(listed)}"
                paths.pop(first["id"], None)
        elif not path.resolve().is_relative_to(inside):
            problems.append(f"{path}: a link that leads out of {folder}; put the image itself there")
        else:
            paths[image["id"]] = path
        taken.setdefault(name, {"id": image["id"], "listed": listed})
    return paths, problems


def _find_image(
    names: list[str], places: list[Path], keyed: Callable[[Path], dict[str, list[Path]]]
) -> tuple[Path, str] | None:
    """Return the first file of these names, and its name below its place; one as it is written comes first."""
    candidates = [(place, name) for name in names for place in places]
    for place, name in candidates:
        if is_file(place / name):
            return place / name, name
    for place, name in candidates:
        alike = keyed((place / name).parent).get(name_key(PurePath(name).name), [])
        if len(alike) == 1 and is_file(alike[0]):
            return alike[0], PurePath(name).with_name(alike[0].name).as_posix()
    return None


def _keyed(folder: Path) -> dict[str, list[Path]]:
    """Return what is in a folder, if there is one, by what spellings of a name share."""
    paths = defaultdict(list)
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            paths[name_key(path.name)].append(path)
    return paths


def safe_names(file_name: str) -> list[str]:
    """Return the relative paths with / that an image's listed name may mean, likeliest first; none for what is no line.

    They are the name as it is, as Windows has it, and both decoded. Of what would lead out of the folder, as the paths
    of Label Studio's own machine do, the last part counts.
    """
    texts = filter(is_line, (file_name, unquote(file_name)))
    paths = [path for text in texts for path in (PurePath(text), PureWindowsPath(text))]  # the latter takes / and \\
    names = [path.name if path.anchor or ".." in path.parts else path.as_posix() for path in paths]
    return [name for name in dict.fromkeys(names) if name not in ("", ".", "..")]
