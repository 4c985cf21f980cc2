"""What a train step costs as images, batches and query sets grow: time and memory, with the fitted growth.

.venv/bin/python -m tests.benchmarks.scaling [--rounds 2] [--output .github/scaling.png]
"""

import argparse
import multiprocessing
import resource
import statistics
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import nnls

from detr.drawing import COLORS
from detr.models.cpu_kernels import tune_malloc
from detr.training.device import pick_device, pick_precision
from tests.benchmarks.common import Ours, make_batch, seconds
from utils import atomic_path

SIDES = (320, 480, 640, 800, 1066, 1333)
BATCHES = (1, 2, 4, 8)
QUERIES = (100, 200, 300, 600, 900)


def cost(side: int, images: int, queries: int, rounds: int) -> tuple[float, float]:
    """Seconds and peak MiB (above the imports) of a step on square images, in the number format of `--amp auto`."""
    tune_malloc()  # as main.py does
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dtype = pick_precision("auto", pick_device("cpu")).dtype
    ours = Ours(make_batch(images, side, side), num_queries=queries)
    ours.step(dtype)
    times = [seconds(lambda: ours.step(dtype)) for _ in range(rounds)]
    return statistics.median(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def fitted(sizes: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What is fixed, grows with the size and with its square, none negative: (3,), by least relative squares."""
    terms = sizes[:, None] ** np.arange(3)
    return nnls(terms / costs[:, None], np.ones(len(sizes)))[0]


def formula(coefficients: np.ndarray) -> str:
    """The fit in words."""
    powers = ("", " n", " n²")
    return " + ".join(f"{c:.3g}{power}" for c, power in zip(coefficients, powers, strict=True) if c > 1e-6)


class Series(NamedTuple):
    """Steps that differ in one thing."""

    what: str  # that varies
    ticks: tuple[int, ...]
    counted: str  # what n is in the formula
    sizes: np.ndarray  # n of each step
    points: list[tuple[int, int, int]]  # image side, images and queries of each step


ALL_SERIES = (
    Series(
        "side of one square image, pixels", SIDES, "megapixels", np.square(SIDES) / 1e6, [(s, 1, 100) for s in SIDES]
    ),
    Series("images of 480x480", BATCHES, "images", np.array(BATCHES, float), [(480, n, 100) for n in BATCHES]),
    Series(
        "queries, 2 images of 480x480",
        QUERIES,
        "hundreds of queries",
        np.array(QUERIES) / 100,
        [(480, 2, n) for n in QUERIES],
    ),
)


def draw(measured: list[tuple[Series, np.ndarray]], output: Path) -> None:
    """Seconds and MiB, (N, 2) of each series, a column for each."""
    figure, axes = plt.subplots(2, len(measured), figsize=(4 * len(measured), 6), layout="constrained", squeeze=False)
    for column, (series, costs) in enumerate(measured):
        for row, title in enumerate(("seconds per step", "peak MiB")):
            axis, coefficients = axes[row, column], fitted(series.sizes, costs[:, row])
            many = np.linspace(series.sizes[0], series.sizes[-1], 200)
            axis.plot(many, many[:, None] ** np.arange(3) @ coefficients, "--", color="gray", lw=1)
            axis.plot(series.sizes, costs[:, row], "o", color=COLORS[row])
            axis.set_title(f"{title}: {formula(coefficients)}\n(n: {series.counted})", fontsize=9)
            axis.set_xlabel(series.what)
            axis.set_xticks(series.sizes, [str(tick) for tick in series.ticks], fontsize=8)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    plt.close(figure)


def main() -> None:
    """Measure, print and draw. Each point runs in a process of its own: peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(".github/scaling.png"))
    args = parser.parse_args()
    measured = []
    for series in ALL_SERIES:
        costs = []
        for point in series.points:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                costs.append(pool.apply(cost, (*point, args.rounds)))
            print(series.what, point, f"{costs[-1][0]:.2f} s, {costs[-1][1]:.0f} MiB", flush=True)
        measured.append((series, np.array(costs)))
    draw(measured, args.output)


if __name__ == "__main__":
    main()
