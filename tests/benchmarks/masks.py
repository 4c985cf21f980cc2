"""What masks cost, side by side with `transformers`' DetrForSegmentation; prints one table.

.venv/bin/python -m tests.benchmarks.masks [--rounds 3] [--threads 1]

Two images of 640x864 with eight objects each, DETR-R50 in float32. Each side runs in a process of its own: peak memory
is what its steps add to what it holds with libraries and model.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from detr.models.cpu_kernels import tune_malloc
from tests.benchmarks.common import Ours, Peer, make_batch

ROWS = {
    "train step": ("step", {}),
    "train step of the mask head alone": ("step", {"frozen_detector": True}),
    "prediction": ("forward", {}),
    "prediction of boxes alone": ("forward", {"masks": False}),
}


def measure(side: str, method: str, config: dict, rounds: int, threads: int) -> tuple[float, float]:
    """Return the median seconds of a call, and the MiB that calls add to the process at their peak."""
    torch.set_num_threads(threads)
    if side == "ours":
        tune_malloc()  # as main.py does
    model = Ours(make_batch(), dropout=0.0, **{"masks": True} | config)
    if side == "peer":
        model = Peer(model)
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(1 + rounds):
        began = time.perf_counter()
        getattr(model, method)(None)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """A row as soon as both sides are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="calls that are timed, after one that is not")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {args.threads} threads\n")
    print("| what | ours | peer | time | memory |\n|---|---|---|---|---|", flush=True)
    for what, (method, config) in ROWS.items():
        sides = []
        for side in ("ours", "peer"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                sides.append(pool.submit(measure, side, method, config, args.rounds, args.threads).result())
        (ours, our_mib), (peer, peer_mib) = sides
        ratios = f"{ours / peer:.2f} x | {our_mib / peer_mib:.2f} x"
        print(f"| {what} | {ours:.1f} s, {our_mib:.0f} MiB | {peer:.1f} s, {peer_mib:.0f} MiB | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
