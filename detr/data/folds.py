"""Both splits of a COCO folder as one set of images, and its division into folds for cross-validation. No torch."""

import hashlib
from pathlib import Path

from detr.data.coco_json import LAYOUTS, check_categories, check_images, find_val, fingerprint, keep_images, read_coco
from utils import UserError, pluralize


def name_share(name: str, seed: int = 0) -> float:
    """Return where in [0, 1) a hash of an image's name and a seed lies: images added later move none of the others."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def read_both_splits(folder: Path, layout: str) -> dict:
    """Return the training and validation images of a COCO folder as one COCO dict, with their subfolder in their names.

    Ids of the validation images and their annotations are moved behind those of training. A split that lists the same
    images is there once. Raises UserError where a file is missing or wrong, or the categories differ.
    """
    train_file, val_file, *folders = (folder / part for part in LAYOUTS[layout])
    train, val = read_coco(train_file), read_coco(val_file)
    check_categories(train_file, train, val_file, val)
    splits = [train] if fingerprint(train) == fingerprint(val) else [train, val]
    whole = train | {"images": [], "annotations": []}
    for coco, images in zip(splits, folders, strict=False):
        last_id = {part: max((entry["id"] for entry in whole[part]), default=0) for part in ("images", "annotations")}
        for image in coco["images"]:
            name = f"{images.name}/{image['file_name']}"
            whole["images"].append(image | {"id": image["id"] + last_id["images"], "file_name": name})
        for one in coco["annotations"]:
            ids = {"id": one["id"] + last_id["annotations"], "image_id": one["image_id"] + last_id["images"]}
            whole["annotations"].append(one | ids)
    return whole


def split_fold(coco: dict, fold: str) -> tuple[dict, dict]:
    """Return what a fold trains on and what it validates on, of `read_both_splits`; `2/5` is the second of five.

    The names are sorted by their hash and cut into parts of equal size; images of one name stay together. Raises
    UserError where there are fewer names than folds.
    """
    number, count = map(int, fold.split("/"))
    names = {image["id"]: image["file_name"].partition("/")[2] for image in coco["images"]}
    ordered = sorted(set(names.values()), key=name_share)
    if len(ordered) < count:
        raise UserError(f"--fold {fold}: there are only {pluralize(len(ordered), 'image')}; accepted: as many folds")
    fold_of = {name: place * count // len(ordered) + 1 for place, name in enumerate(ordered)}
    val_ids = {i for i, name in names.items() if fold_of[name] == number}
    return keep_images(coco, names.keys() - val_ids), keep_images(coco, val_ids)


def find_gt(coco_path: Path | None, config: dict) -> tuple[dict | None, Path]:
    """Return the validation annotations that a run was evaluated on and their images; None where they are not known.

    `config` is the run's; `coco_path` says where the COCO folder is now.
    """
    recorded = config.get("args", {})
    if not (coco_path or "coco_path" in recorded):
        return None, Path()
    folder, layout = coco_path or Path(recorded["coco_path"]), recorded.get("dataset_file", "custom")
    if fold := recorded.get("fold"):
        return split_fold(read_both_splits(folder, layout), fold)[1], folder
    path, image_folder = find_val(folder, layout)
    return read_coco(path), image_folder


def find_annotations(coco_path: Path | None, config: dict) -> tuple[dict, Path]:
    """Return the annotations of both splits of a run's COCO folder, and the folder; both arguments as in `find_gt`.

    Raises UserError where they are not known, or do not fit their images.
    """
    recorded = config.get("args", {})
    if not (coco_path or "coco_path" in recorded):
        raise UserError("the run does not say where its images are; --coco_path tells")
    folder = coco_path or Path(recorded["coco_path"])
    coco = read_both_splits(folder, recorded.get("dataset_file", "custom"))
    check_images(coco, folder)
    return coco, folder
