"""What a train step costs as images, batches and query sets grow: time and memory, with the fitted growth.

.venv/bin/python -m tests.benchmarks.scaling [--rounds 2] [--output .github/scaling.png]
"""

import argparse
import multiprocessing
import resource
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from detr.device import keep_freed_memory, pick_device, pick_precision
from tests.benchmarks.common import Ours, make_batch, seconds
from utils import COLOURS, atomic_path

SIDES = (320, 480, 640, 800, 1066, 1333)
BATCHES = (1, 2, 4, 8)
QUERIES = (100, 200, 300, 600, 900)


def cost(side: int, images: int, queries: int, rounds: int) -> tuple[float, float]:
    """Seconds and peak MiB (above the imports) of a step on square images, in the number format of `--amp auto`."""
    keep_freed_memory()  # as main.py does
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dtype = pick_precision("auto", pick_device("cpu")).dtype
    ours = Ours(make_batch(images, side, side), num_queries=queries)
    ours.step(dtype)
    times = [seconds(lambda: ours.step(dtype)) for _ in range(rounds)]
    return statistics.median(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def growth(sizes: tuple[int, ...], costs: list[float]) -> float:
    """The exponent of the fitted power law: the slope in a log-log diagram."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    """Measure, print and draw. Each point runs in a process of its own: peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(".github/scaling.png"))
    args = parser.parse_args()
    series = {
        "image side (pixels), 1 image": (SIDES, [(side, 1, 100) for side in SIDES]),
        "images of 480x480": (BATCHES, [(480, count, 100) for count in BATCHES]),
        "queries, 2 images of 480x480": (QUERIES, [(480, 2, count) for count in QUERIES]),
    }
    figure, axes = plt.subplots(2, len(series), figsize=(4 * len(series), 5.6), layout="constrained")
    for column, (title, (sizes, points)) in enumerate(series.items()):
        measured = []
        for point in points:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured.append(pool.apply(cost, (*point, args.rounds)))
            print(title, point, f"{measured[-1][0]:.2f} s, {measured[-1][1]:.0f} MiB", flush=True)
        for row, (what, unit) in enumerate((("time", "seconds per step"), ("memory", "peak MiB"))):
            axis, values = axes[row, column], [pair[row] for pair in measured]
            axis.loglog(sizes, values, "o-", color=COLOURS[row])
            axis.set_title(f"{what} ~ n^{growth(sizes, values):.2f}", fontsize=10)
            axis.set(xlabel=title, ylabel=unit)
            axis.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    with atomic_path(args.output) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


if __name__ == "__main__":
    main()
