"""Every metric of a large validation set: seconds and peak memory. Linux only.

.venv/bin/python -m tests.benchmarks.metrics [--images 5000] [--classes 80]
"""

import argparse
import resource
import time

import numpy as np

from detr.evaluation.metrics import measure

OBJECTS, DETECTIONS = 7, 100  # of each image


def make_set(images: int, classes: int) -> tuple[dict, list[dict]]:
    """A random ground truth, and detections of which a part is near it: noise, wrong classes, duplicates, junk."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images + 1):
        boxes = np.concatenate((rng.uniform(0, 400, (OBJECTS, 2)), rng.uniform(10, 200, (OBJECTS, 2))), axis=1)
        labels = rng.integers(1, classes + 1, OBJECTS)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box}
            annotations.append({**entry, "area": box[2] * box[3], "iscrowd": int(rng.random() < 0.01)})
        near = rng.integers(0, OBJECTS, DETECTIONS)
        detections = boxes[near] + rng.normal(0, 0.1, (DETECTIONS, 4)) * boxes[near][:, [2, 3, 2, 3]]
        found_labels = np.where(rng.random(DETECTIONS) < 0.3, labels[near], rng.integers(1, classes + 1, DETECTIONS))
        scores = rng.random(DETECTIONS)
        results += [
            {"image_id": image, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(detections.tolist(), found_labels.tolist(), scores.tolist(), strict=True)
        ]
    listed = [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 640} for n in range(1, images + 1)]
    categories = [{"id": n, "name": str(n)} for n in range(1, classes + 1)]
    return {"images": listed, "annotations": annotations, "categories": categories}, results


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    args = parser.parse_args()
    coco, results = make_set(args.images, args.classes)
    began = time.perf_counter()
    metrics = measure(coco, results)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    low, high = metrics["interval"]["AP"]
    print(
        f"{args.images:,} images, {args.classes} classes, {len(results):,} detections: {seconds:.1f} s, {peak:.2f} GiB"
    )
    print(f"AP {metrics['coco']['AP']:.4f}, {metrics['interval']['resamples']} resamples: {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
