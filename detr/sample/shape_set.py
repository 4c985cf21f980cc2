"""Draw the set of scenes that the tiny weights were pre-trained on, as a COCO folder. No torch.

python -m detr.sample.shape_set data/shapes         20,000 + 400 scenes of twelve classes, 230 MB
"""

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from detr.sample.camera import to_jpeg
from detr.sample.photo_objects import PhotoObjects
from detr.sample.shape_scene import ShapeScene, draw_shape_scene
from detr.sample.things import SHAPE_CLASSES

SEED = 1
SIDES = (192, 256)  # pixels
_JPEG_QUALITY = 90
_SCENES_PER_TASK = 50


def draw_split(seed: int, first: int, count: int, folder: Path, names: list[str], photos: PhotoObjects | None) -> dict:
    """Draw scenes `first` to `first + count - 1` of a seed into `folder`; returns their COCO annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    coco: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(
            partial(_draw_one, seed, folder, photos), range(first, first + count), chunksize=_SCENES_PER_TASK
        )
        for image_id, (image, scene_annotations) in enumerate(drawn, start=1):
            coco["images"].append({"id": image_id} | image)
            for annotation in scene_annotations:
                number = len(coco["annotations"]) + 1
                coco["annotations"].append({"id": number, "image_id": image_id, "iscrowd": 0} | annotation)
    return coco


def _draw_one(seed: int, folder: Path, photos: PhotoObjects | None, index: int) -> tuple[dict, list[dict]]:
    """Draw one scene and save it; returns what COCO says about it, but for ids."""
    scene = draw_shape_scene(seed, index, SIDES, photos)
    name = f"shapes{index:06}.jpg"
    (folder / name).write_bytes(to_jpeg(scene.image, _JPEG_QUALITY))
    return {"file_name": name, "width": scene.image.width, "height": scene.image.height}, list(_annotations(scene))


def _annotations(scene: ShapeScene) -> Iterator[dict]:
    for (left, top, right, bottom), label in zip(scene.boxes_xyxy.tolist(), scene.labels.tolist(), strict=True):
        bbox_xywh = [left, top, right - left, bottom - top]
        yield {"category_id": label + 1, "bbox": bbox_xywh, "area": bbox_xywh[2] * bbox_xywh[3]}


def main() -> None:
    """Draw both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the COCO folder to write")
    parser.add_argument("--train", type=int, default=20_000, help="scenes to train on (%(default)s)")
    parser.add_argument("--val", type=int, default=400, help="scenes to evaluate on (%(default)s)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="COCO folder (official layout) of photographs")
    args = parser.parse_args()
    names, photos = list(SHAPE_CLASSES), None
    if args.photos:
        annotations = args.photos / "annotations" / "instances_train2017.json"
        coco = json.loads(annotations.read_text(encoding="utf-8"))
        listed = [category["name"] for category in sorted(coco["categories"], key=lambda category: category["id"])]
        held_out = listed[3::4]  # for fine-tuning trials on classes that were never seen
        names += [name for name in listed if name not in names and name not in held_out]
        labels = {name: label for label, name in enumerate(names)}
        photos = PhotoObjects(annotations, args.photos / "train2017", labels, held_out)
    first = 0
    for split, count in {"val": args.val, "train": args.train}.items():
        coco = draw_split(SEED, first, count, args.folder / f"{split}2017", names, photos)
        path = args.folder / "annotations" / f"custom_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco), encoding="utf-8")
        print(f"{path}: {count} scenes, {len(coco['annotations'])} objects, {os.cpu_count()} processes")
        first += count


if __name__ == "__main__":
    main()
