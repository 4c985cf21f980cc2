"""Detections in photographs, ours and those of `transformers`' pipeline with the same weights; prints one table.

.venv/bin/python -m tests.benchmarks.predicting [--photos ../shared/balloon/train] [--most 60]

Ours also draws the best ten detections of each photograph and saves the picture, as results.py --images does. Each side
runs in a process of its own; counted are the photographs, not the loading, and all memory of the process.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from detr.data.images import find_images
from detr.detector import Detector
from detr.export.hub_folder import write_folder
from detr.models.detr import DetrConfig
from tests.peer import make_model

SMALL = {"backbone": "resnet18", "hidden_dim": 128, "enc_layers": 3, "dec_layers": 4, "dim_feedforward": 512}
ROWS = {  # the network, and how large it sees the shorter and the longer side of an image
    "DETR-R50, 800 pixels": ({}, {"scale": 800, "max_size": 1333}),
    "DETR with ResNet-18, width 128, 384 pixels": (SMALL, {"scale": 384, "max_size": 576}),
}


def save_detector(config: dict, resolution: dict[str, int], path: Path) -> None:
    """Save a detector with random weights, as main.py does."""
    model = make_model(DetrConfig(91, **config))
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 91)]
    saved = {"model": model.state_dict(), "config": asdict(model.config), "categories": categories, "raw_ids": True}
    torch.save(saved | {"resolution": resolution}, path)


def measure(side: str, file: Path, paths: list[Path], folder: Path) -> tuple[float, float]:
    """Return seconds per photograph, and the process's peak memory in MiB."""
    if side == "ours":
        from detr.models.cpu_kernels import share_malloc
        from detr.predict import Predictor

        share_malloc()  # as results.py does
        detector = Detector(file, device="cpu")
        threshold = sorted((one.score for one in detector(paths[0], 0.0)), reverse=True)[10]
        run = lambda some: Predictor(detector, 1, threshold, threshold)(some, folder)  # noqa: E731
    else:
        from transformers import pipeline

        detect = pipeline("object-detection", model=str(file.with_suffix("")), device="cpu")
        run = lambda some: [detect(str(path), threshold=0.0) for path in some]  # noqa: E731
    run(paths[:2])
    began = time.perf_counter()
    run(paths)
    each = (time.perf_counter() - began) / len(paths)
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return each, int(status["VmHWM"].split()[0]) / 1024  # of this process alone, where getrusage's is also its parent's


def main() -> None:
    """A row as soon as both sides are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="../shared/balloon/train")
    parser.add_argument("--most", type=int, default=60)
    args = parser.parse_args()
    paths = find_images([args.photos])[: args.most]
    print(f"{len(paths)} photographs, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| network | ours, a photograph | pipeline | time | memory |\n|---|---|---|---|---|", flush=True)
    for what, (config, resolution) in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "detector.pth"
            save_detector(config, resolution, file)
            file.with_suffix("").mkdir()
            write_folder(Detector(file, device="cpu"), file.with_suffix(""))
            sides = []
            for side in ("ours", "pipeline"):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    sides.append(pool.submit(measure, side, file, paths, Path(folder) / "pictures").result())
        (ours, our_mib), (peer, peer_mib) = sides
        ratios = f"{ours / peer:.2f} x | {our_mib / peer_mib:.2f} x"
        print(f"| {what} | {ours:.2f} s, {our_mib:.0f} MiB | {peer:.2f} s, {peer_mib:.0f} MiB | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
