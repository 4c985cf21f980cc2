"""How fast we are, side by side with `transformers`' DETR in one run; prints one table.

.venv/bin/python -m tests.benchmarks.speed [--rounds 5] [--coco_path data/custom]
"""

import argparse
import contextlib
import io
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from detr.models.cpu_kernels import fast_weight_gradient, scaled_dot_product_attention, tune_malloc
from tests.benchmarks.common import BF16, Ours, OwnProcess, Peer, in_turn, make_batch, ratio, seconds

rows: list[tuple[str, str, str, str]] = []


def report(what: str, ours: str, other: str, comparison: str) -> None:
    """Print a row at once, and keep it for the table."""
    rows.append((what, ours, other, comparison))
    print(" | ".join(rows[-1]), flush=True)


def compare_networks(rounds: int) -> None:
    """Train step, forward and frozen-backbone step, ours and the peer's, float32 and bfloat16."""
    # Without dropout, as the peer drops in fewer places than we and the reference do; ours is timed with it as well.
    sides = {"ours": ("ours", {}), "peer": ("peer", {})}
    frozen = {side: (side, {"frozen_backbone": True}) for side in ("ours", "peer")}
    for what, method, timed in (
        ("train step", "step", {**sides, "ours with dropout 0.1": ("ours", {"dropout": 0.1})}),
        ("forward", "forward", sides),
        ("train step, frozen backbone", "step", frozen),
    ):
        with contextlib.ExitStack() as stack:
            calls = {}
            for name, dtype in (("float32", None), ("bfloat16", BF16)):
                for side, (kind, config) in timed.items():
                    process = stack.enter_context(OwnProcess(kind, **{"dropout": 0.0, **config}))
                    calls[f"{side} {name}"] = partial(process, method, dtype)
            times = in_turn(calls, rounds, warm_up=4, before_each=1)  # memory allocators take some steps to settle
        for side in [side for side in timed if side != "peer"]:
            for mine, theirs in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")):
                a, b = times[f"{side} {mine}"], times[f"peer {theirs}"]
                report(
                    f"{what}{side.removeprefix('ours')}, R50, 2 x 640x864, {mine} against {theirs}",
                    f"{statistics.median(a):.2f} s",
                    f"{statistics.median(b):.2f} s",
                    f"{ratio(a, b):.2f} x",
                )


def compare_losses(rounds: int) -> None:
    """Matching and losses of all decoder layers, forward and backward, on given outputs."""
    ours = Ours(make_batch(objects=20))
    peer = Peer(ours)
    with torch.no_grad():
        outputs = ours.model(ours.batch.images, ours.batch.padding_mask)
    logits, boxes = (part.clone().requires_grad_() for part in outputs[:2])

    def run_ours() -> None:
        ours.criterion(type(outputs)(logits, boxes), ours.batch.targets).total.backward()

    def run_peer() -> None:
        loss, *_ = peer.model.loss_function(
            logits[-1], peer.labels, logits.device, boxes[-1], peer.model.config, logits, boxes
        )
        loss.backward()

    times = in_turn({"ours": run_ours, "peer": run_peer}, 10 * rounds)
    mine, theirs = (statistics.median(times[side]) * 1000 for side in ("ours", "peer"))
    comparison = f"{ratio(times['ours'], times['peer']):.2f} x"
    report("matching and losses, 6 layers, 2 x 20 objects", f"{mine:.1f} ms", f"{theirs:.1f} ms", comparison)


def compare_weight_gradients(rounds: int) -> None:
    """Gradients of the weights of ResNet-50's convolutions, by `fast_weight_gradient` and by PyTorch."""
    maps = ((128, 80, 108), (256, 40, 54), (512, 20, 27))  # channels, height and width behind a stage's first 3x3
    for what, layers in (
        ("float32, 3x3, stride 1: 128, 256, 512 channels", [(c, c, h, w, 3, 1) for c, h, w in maps]),
        ("float32, 3x3, stride 2: 128, 256, 512 channels", [(c, c, h, w, 3, 2) for c, h, w in maps]),
        (
            "bfloat16, 1x1, last stage",
            [(512, 2048, 20, 27, 1, 1), (2048, 512, 20, 27, 1, 1), (1024, 2048, 20, 27, 1, 2)],
        ),
    ):
        dtype = BF16 if what.startswith("bfloat16") else torch.float32
        report_parts(f"weight gradients, {what}, together", time_weight_gradients, (layers, dtype, rounds))


def compare_attention(rounds: int) -> None:
    """Attention of one encoder layer in bfloat16, forward and backward, by `attend` and by PyTorch."""
    for dropout in (0.0, 0.1):
        what = f"attention in bfloat16, 2 x 540 tokens, 8 heads, dropout {dropout:g}, with gradients"
        report_parts(what, time_attention, (dropout, rounds))


def report_parts(what: str, measure: Callable[..., dict[str, list[float]]], arguments: tuple) -> None:
    """A row of milliseconds from `measure`, run in a process that keeps its memory as main.py does."""
    with multiprocessing.get_context("spawn").Pool(1, tune_malloc) as pool:
        times = pool.apply(measure, arguments)
    mine, theirs = (statistics.median(times[side]) * 1000 for side in ("ours", "PyTorch"))
    comparison = f"{ratio(times['ours'], times['PyTorch']):.2f} x"
    report(what, f"{mine:.0f} ms", f"{theirs:.0f} ms by PyTorch", comparison)


def time_weight_gradients(
    layers: list[tuple[int, int, int, int, int, int]], dtype: torch.dtype, rounds: int
) -> dict[str, list[float]]:
    """Times of convolutions of 2 images; each is channels in and out, output height and width, kernel and stride."""
    calls = []
    for channels, out, height, width, kernel, stride in layers:
        shapes = (
            (2, out, height, width),
            (2, channels, height * stride, width * stride),
            (out, channels, kernel, kernel),
        )
        tensors = [torch.randn(shape).to(dtype, memory_format=torch.channels_last) for shape in shapes]
        calls.append((*tensors, ((stride, stride), (kernel // 2, kernel // 2), (1, 1), 1)))

    def run_ours() -> None:
        for gradient, x, weight, geometry in calls:
            fast_weight_gradient(gradient, x, weight.shape[2:], geometry)

    def run_pytorch() -> None:
        for gradient, x, weight, geometry in calls:
            torch.ops.aten.convolution_backward(
                gradient, x, weight, None, *geometry[:3], False, (0, 0), 1, (False, True, False)
            )

    return in_turn({"ours": run_ours, "PyTorch": run_pytorch}, 4 * rounds, warm_up=2)


def time_attention(dropout: float, rounds: int) -> dict[str, list[float]]:
    """Times for the feature maps of 2 images of 640x864."""
    flat = [torch.randn(2, 540, 256).bfloat16() for _ in range(3)]
    inputs = [x.unflatten(-1, (8, 32)).transpose(1, 2).requires_grad_() for x in flat]
    mask = torch.ones(2, 1, 1, 540, dtype=torch.bool)
    towards = torch.ones_like(inputs[0])
    sides = {"ours": scaled_dot_product_attention, "PyTorch": F.scaled_dot_product_attention}

    def run(side: str) -> None:
        torch.autograd.grad(sides[side](*inputs, mask, dropout), inputs, towards)

    return in_turn({side: partial(run, side) for side in sides}, 4 * rounds, warm_up=2)


def compare_memory() -> None:
    """Peak memory of float32 steps, each side in a process of its own, above what it holds with its model built."""
    peaks = {}
    for side in ("ours", "peer"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[side] = pool.apply(peak_memory_mib, (side,))
    report(
        "peak memory of float32 train steps (weights, gradients, AdamW state, activations)",
        f"{peaks['ours']:.0f} MiB",
        f"{peaks['peer']:.0f} MiB",
        f"{peaks['ours'] / peaks['peer']:.2f} x",
    )


def peak_memory_mib(side: str) -> float:
    """Growth of this process from its imports to the peak of three train steps."""
    import transformers  # noqa: F401  # both sides hold the same libraries

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = Ours(make_batch(), dropout=0.0)
    if side == "peer":
        model = Peer(model)  # ours is freed: only its weights were needed
    for _ in range(3):
        model.step(None)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def compare_loading(coco_path: Path) -> None:
    """Padding and images per second of the training loader: one by one and whole, against grouped and reduced."""
    import detr.data.dataset
    from detr.data.dataset import load_folder
    from detr.data.images import read_rgb
    from detr.data.loader import make_loader
    from detr.data.sampler import AspectRatioBatchSampler
    from detr.data.transforms import augment_params, evaluation_params

    view = partial(augment_params, scales=list(range(480, 801, 32)), max_size=1333)
    images = load_folder(coco_path, "custom", view, partial(evaluation_params, scale=800, max_size=1333), 0).train
    wasted, rates = {}, {}
    for name, grouped in (("before", False), ("after", True)):
        batches = AspectRatioBatchSampler(images, 2, seed=0)
        if not grouped:
            batches._similar = lambda pool: np.split(pool, len(pool) // 2)
        sizes = []
        for epoch in range(10):
            batches.set_epoch(epoch)
            sizes += [np.array([images.augment_params(key).size_hw for key in batch]) for batch in batches]
        wasted[name] = 1 - sum(s.prod(1).sum() for s in sizes) / sum(len(s) * s.max(0).prod() for s in sizes)
        detr.data.dataset.read_rgb = read_rgb if grouped else lambda path, scale: read_rgb(path)
        for workers in (1, 2):
            loader = make_loader(images, batches, workers, pin_memory=False)
            list(loader)  # starts the workers
            count = len(batches) * 2
            rates[name, workers] = count / seconds(lambda loader=loader: sum(1 for _ in loader))
    report("padded share of the pixels, batches of 2", f"{wasted['after']:.1%}", f"{wasted['before']:.1%}", "before")
    for workers in (1, 2):
        after, before = rates["after", workers], rates["before", workers]
        what = f"training images loaded per second, {workers} worker{'s' * (workers > 1)}"
        report(what, f"{after:.1f}", f"{before:.1f} before", f"{after / before:.2f} x")


def compare_metrics() -> None:
    """COCO's metrics of 5,000 images, 80 classes, 100 detections an image; ours against pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from detr.training.evaluate import twelve_coco_numbers
    from tests.benchmarks.metrics import make_set

    coco, results = make_set(5000, 80)
    found = {}

    def run_pycocotools() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = coco
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        found["theirs"] = evaluation.stats

    ours = seconds(lambda: found.update(ours=twelve_coco_numbers(coco, results)))
    theirs = seconds(run_pycocotools)
    difference = np.abs(np.array(found["ours"]) - found["theirs"]).max()
    comparison = f"{ours / theirs:.2f} x (largest difference {difference:.0e})"
    report("COCO metrics of 5,000 images against pycocotools", f"{ours:.1f} s", f"{theirs:.1f} s", comparison)


def time_start_up(rounds: int) -> None:
    """`--help` of each script."""
    for script in ("prep", "main", "results"):
        command = [sys.executable, f"{script}.py", "--help"]
        times = in_turn({"": partial(subprocess.run, command, capture_output=True, check=True)}, rounds)
        report(f"python {script}.py --help", f"{statistics.median(times['']):.2f} s", "", "")


def main() -> None:
    """Everything, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--coco_path", type=Path, default=Path("data/custom"))
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    time_start_up(args.rounds)
    compare_losses(args.rounds)
    compare_weight_gradients(args.rounds)
    compare_attention(args.rounds)
    compare_memory()
    compare_networks(args.rounds)
    if args.coco_path.is_dir():
        compare_loading(args.coco_path)
    compare_metrics()
    print("\n| what | ours | other | ratio |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
