"""A loader of 100,000 annotated images: start-up time, and the memory of each process as epochs go by. Linux only.

.venv/bin/python -m tests.benchmarks.loading [--images 100000] [--workers 2]
"""

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from detr.data.dataset import load_folder
from detr.data.loader import make_loader
from detr.data.sampler import AspectRatioBatchSampler
from detr.data.transforms import augment_params, evaluation_params
from detr.models.cpu_kernels import tune_malloc

OBJECTS = 10  # of each image
BATCHES = 500  # looked at in each epoch


def write_folder(folder: Path, images: int) -> None:
    """A COCO folder whose images are links to one file; the validation set is one of them."""
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    photograph = folder / "photograph.jpg"
    Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(photograph)
    for split, count in (("train", images), ("val", 1)):
        (folder / f"{split}2017").mkdir()
        listed, annotations = [], []
        boxes = rng.integers(1, 60, (count, OBJECTS, 4)).tolist()
        for number in range(1, count + 1):
            name = f"{number:012}.jpg"
            # A file has at most 65,000 links on common file systems.
            target = photograph if number % 50000 else photograph.with_name(f"{split}{number}.jpg")
            if not target.exists():
                target.write_bytes(photograph.read_bytes())
                photograph = target
            os.link(target, folder / f"{split}2017" / name)
            listed.append({"id": number, "file_name": name, "width": 128, "height": 96})
            for box in boxes[number - 1]:
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box}
                annotations.append({**annotation, "area": box[2] * box[3], "iscrowd": 0})
        coco = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (folder / f"annotations/custom_{split}.json").write_text(json.dumps(coco))


def memory_mib(pid: int | str, key: str) -> float:
    """A line of /proc/PID/smaps_rollup: `Rss` is all that a process sees, `Private_Dirty` is its alone."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    tune_malloc()  # as main.py does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, args.images)
        before, began = memory_mib("self", "Rss"), time.perf_counter()
        view = partial(augment_params, scales=[96], max_size=128)
        train = load_folder(folder, "custom", view, partial(evaluation_params, scale=96, max_size=128), 0).train
        seconds = time.perf_counter() - began
        print(f"{args.images:,} images, {args.images * OBJECTS:,} objects: read and checked in {seconds:.1f} s")
        print(f"main process: {memory_mib('self', 'Rss') - before:.0f} MiB more than before")
        keys = AspectRatioBatchSampler(train, 2, seed=0)
        loader = make_loader(train, keys, args.workers, pin_memory=False)
        for epoch in range(4):
            keys.set_epoch(epoch)
            began = time.perf_counter()
            batches = iter(loader)
            next(batches)
            first = time.perf_counter() - began
            for _ in range(BATCHES):
                next(batches)
            workers = [f"{memory_mib(w.pid, 'Private_Dirty'):.0f}" for w in batches._workers]
            print(f"epoch {keys.epoch + 1}: first batch after {first:.2f} s; MiB of its own: {', '.join(workers)}")


if __name__ == "__main__":
    main()
