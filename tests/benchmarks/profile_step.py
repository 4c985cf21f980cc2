"""Where the time of one train step goes: a picture of its parts, float32 and bfloat16.

.venv/bin/python -m tests.benchmarks.profile_step [--rounds 5] [--output .github/profile.png]
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from detr.drawing import COLORS
from detr.models.cpu_kernels import tune_malloc
from tests.benchmarks.common import BF16, CLIP, Ours, make_batch, precision
from utils import atomic_path


def step_in_parts(ours: Ours, dtype: torch.dtype | None) -> dict[str, float]:
    """Seconds of each part of a step, in their order; hooks tell when the features and their gradient come."""
    model, batch, optimizer = ours.model.train(), ours.batch, ours.training.optimizer
    marks = [("", time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    def watch(_module: torch.nn.Module, _inputs: tuple, maps: list[torch.Tensor]) -> None:
        mark("backbone, forward")
        maps[-1].register_hook(lambda _gradient: mark("transformer, backward"))

    optimizer.zero_grad(set_to_none=True)
    hook = model.backbone[0].register_forward_hook(watch)
    with precision(dtype).autocast():
        outputs = model(batch.images, batch.padding_mask)
    hook.remove()
    mark("transformer, forward")
    loss = ours.criterion(outputs, batch.targets).total
    mark("matching and losses")
    loss.backward()
    mark("backbone, backward")
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    mark("clipping and AdamW")
    return {name: at - before for (_, before), (name, at) in itertools.pairwise(marks)}


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(".github/profile.png"))
    args = parser.parse_args()
    tune_malloc()  # as main.py does
    ours = Ours(make_batch())
    formats = {"float32": None, "bfloat16": BF16}
    parts: dict[str, dict[str, float]] = {}
    for name, dtype in formats.items():
        rounds = [step_in_parts(ours, dtype) for _ in range(args.rounds + 3)][3:]
        parts[name] = {part: statistics.median(r[part] for r in rounds) for part in rounds[0]}
        print(name, {part: f"{value:.3f} s" for part, value in parts[name].items()})

    figure, axis = plt.subplots(figsize=(9, 2.4), layout="constrained")
    for number, part in enumerate(parts["float32"]):
        lefts = [sum(list(parts[name].values())[:number]) for name in formats]
        axis.barh(list(formats), [parts[name][part] for name in formats], left=lefts, label=part, color=COLORS[number])
    axis.invert_yaxis()
    axis.set_xlabel("seconds per step: DETR-R50, 2 images of 640x864")
    figure.legend(ncols=3, fontsize=8, loc="outside upper center", frameon=False)
    with atomic_path(args.output) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


if __name__ == "__main__":
    main()
