"""Draw scenes to pre-train small detectors on, as a COCO folder: drawn things, and photographs' objects. No torch.

python -m detr.sample.shape_set coco data/scenes
"""

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

import utils
from detr.sample.canvas import to_jpeg
from detr.sample.photo_objects import PhotoObjects
from detr.sample.shape_scene import draw_shape_scene
from detr.sample.things import SHAPE_CLASSES


def draw_split(seed: int, first: int, count: int, folder: Path, names: list[str], photos: PhotoObjects) -> dict:
    """Draw scenes `first` to `first + count - 1` of a seed into `folder`; returns their COCO annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    coco: dict = {"images": [], "annotations": [], "categories": categories}
    with ProcessPoolExecutor() as pool:
        draw = partial(_draw_one, seed, folder, photos)
        for image, annotations in pool.map(draw, range(first, first + count), chunksize=50):
            coco["images"].append(image)
            for annotation in annotations:
                coco["annotations"].append({"id": len(coco["annotations"]) + 1} | annotation)
    return coco


def _draw_one(seed: int, folder: Path, photos: PhotoObjects, index: int) -> tuple[dict, list[dict]]:
    """Draw one scene and save it; returns its image and its annotations, which have no ids yet, as COCO has them."""
    scene = draw_shape_scene(seed, index, photos)
    name, (width, height) = f"shapes{index:06}.jpg", scene.image.size
    (folder / name).write_bytes(to_jpeg(scene.image))
    annotations = []
    for label, mask, box in zip(scene.labels.tolist(), scene.masks, scene.boxes_xyxy.tolist(), strict=True):
        runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        outline = {"segmentation": runs | {"counts": runs["counts"].decode()}, "area": int(mask.sum()), "iscrowd": 0}
        bbox = [*box[:2], box[2] - box[0], box[3] - box[1]]
        annotations.append({"image_id": index + 1, "category_id": label + 1, "bbox": bbox} | outline)
    return {"id": index + 1, "file_name": name, "width": width, "height": height}, annotations


def load_photos(coco_folder: Path) -> tuple[PhotoObjects, list[str]]:
    """Return the photographs of a COCO folder in the official layout, and the names of all classes in label order.

    Classes that are not drawn too are taken by their supercategories: of most there are too few objects to learn them.
    Every fourth class is held out, for fine-tuning trials on classes that were never seen.
    """
    annotations = coco_folder / "annotations" / "instances_train2017.json"
    listed = sorted(json.loads(annotations.read_text(encoding="utf-8"))["categories"], key=lambda one: one["id"])
    held_out = [category["name"] for category in listed[3::4]]
    group_of = {
        name: name if name in SHAPE_CLASSES else category.get("supercategory", name)
        for category in listed
        if (name := category["name"]) not in held_out
    }
    names = list(dict.fromkeys([*SHAPE_CLASSES, *group_of.values()]))
    labels = {name: names.index(group) for name, group in group_of.items()}
    return PhotoObjects(annotations, coco_folder / "train2017", labels, held_out), names


def main() -> None:
    """Draw both splits."""
    parser = utils.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="COCO folder (official layout) of photographs")
    parser.add_argument("folder", type=Path, help="the COCO folder to write")
    parser.add_argument("--train", type=int, default=20_000, help="scenes to train on (%(default)s)")
    parser.add_argument("--val", type=int, default=400, help="scenes to evaluate on (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="other scenes with each (%(default)s)")
    args = parser.parse_args()
    photos, names = load_photos(args.photos)
    for split, first, count in (("val", 0, args.val), ("train", args.val, args.train)):
        coco = draw_split(args.seed, first, count, args.folder / f"{split}2017", names, photos)
        path = args.folder / "annotations" / f"custom_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco), encoding="utf-8")
        print(f"{path}: {count} scenes, {len(coco['annotations'])} objects")


if __name__ == "__main__":
    main()
