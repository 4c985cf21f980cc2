"""What the GPU of this machine makes of the project, in one table; sized for 6 minutes, and without a network.

make gpu                                                     with .venv
make gpu GPU_PYTHON=python3                                  with an interpreter that has everything already
.venv/bin/python -m tests.gpu_check --device cpu --quick     a dry run without a GPU, on a small network

A row with a bound fails where it is broken, a part that cannot be run is a row too, and either ends in exit code 1.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from detr.models.criterion import SetCriterion
from detr.models.detr import DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.structures import Batch
from detr.training.device import Precision, pick_device, pick_precision
from tests.benchmarks.common import CLASSES, Ours, Peer, in_turn, make_batch, ratio
from tests.peer import make_model

ROOT = Path(__file__).resolve().parents[1]
FORMATS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
AMP = {"float32": "off", "bfloat16": "bf16", "float16": "fp16"}
# Largest differences from float32 on a CPU: of logits, boxes in [0, 1], the loss and the gradient (both relative). TF32
# keeps 10 bits of a product's inputs, as float16 does, bfloat16 7; a gradient passes some 70 layers.
TOLERANCES = {
    "float32": (1e-3, 1e-4, 1e-4, 1e-2),
    "float32, convolutions in TF32": (0.05, 5e-3, 5e-3, 0.1),
    "bfloat16": (0.1, 0.01, 0.01, 0.2),  # on a CPU: 0.013, 0.0005, 0.0002, 0.034
    "float16": (0.05, 5e-3, 5e-3, 0.1),
}
SAMPLE_EPOCHS, SAMPLE_AP = 12, (0.544, 0.682)  # 0.594 to 0.632 on a CPU over five seeds, and 0.05 beyond
KINDS = {  # kind of operation -> what its name in the profile holds; the first that fits
    "convolutions": "conv",
    "attention": "attention",
    "optimizer": "adam|foreach|amp_",
    "matrix products": "mm|linear|matmul",
}


class Check:
    """The machine to check, how thoroughly, and the rows of the table so far."""

    def __init__(self, device: torch.device, quick: bool, folder: Path) -> None:
        self.device, self.quick, self.folder = device, quick, folder
        self.rows: list[dict] = []
        small = {"backbone": "resnet18", "enc_layers": 1, "dec_layers": 2}
        self.network = small if quick else {}
        self.name = "small DETR" if quick else "DETR-R50"
        self.size_hw = (64, 96) if quick else (640, 864)  # a balloon photograph in training

    @property
    def formats(self) -> dict[str, torch.dtype | None]:
        """The number formats to check: what is emulated takes minutes, float16 on a CPU and bfloat16 before Ampere."""
        has_bfloat16 = not self.on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
        emulated = {"bfloat16": not has_bfloat16, "float16": not self.on_gpu}
        return {name: dtype for name, dtype in FORMATS.items() if not emulated.get(name)}

    @property
    def on_gpu(self) -> bool:
        """Whether what is checked is a GPU."""
        return self.device.type == "cuda"

    def row(self, what: str, figure: str, bound: str = "", ok: bool = True) -> None:
        """Add a row to the table, and print it at once."""
        self.rows.append({"what": what, "figure": figure, "bound": bound, "ok": ok})
        print(f"{what} | {figure} | {bound} | {'' if ok else 'FAILED'}", flush=True)

    def within(self, what: str, value: float, limit: float) -> None:
        """Add a row for a value that has a largest one."""
        self.row(what, f"{value:.2g}", f"at most {limit:g}", value <= limit)

    def run(self, *command: object, processes: int = 1) -> str:
        """Run a script of the project in the check's folder; returns what it prints.

        Raises RuntimeError where it fails.
        """
        done = subprocess.run(
            self.command(*command, processes=processes),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}")
        return done.stdout

    def command(self, script: str, *arguments: object, processes: int = 1) -> list[str]:
        """The command line of a script of the project."""
        several = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)
        return list(map(str, (sys.executable, *(several if processes > 1 else ()), ROOT / script, *arguments)))

    def train(self, *arguments: object) -> tuple:
        """The command that fine-tunes the shipped weights on the drawn sample; later arguments win."""
        shipped = SHIPPED_WEIGHTS["detr-small"]
        start = ("--weights", shipped.path, "--resume", "auto", "--num_workers", 2)
        return ("main.py", *start, *shipped.flags, "--device", self.device.type, *arguments)


# ------------------------------------------------------------------------------------------------------------ the parts


def machine(check: Check) -> None:
    """What it is, and the number format that it is given."""
    check.row("PyTorch", torch.__version__)
    check.row("--amp auto takes", str(pick_precision("auto", check.device)))
    if check.on_gpu:
        properties = torch.cuda.get_device_properties(check.device)
        check.row("GPU", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        check.row("compute capability", f"{properties.major}.{properties.minor}")
        check.row("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        heads = torch.get_float32_matmul_precision()
        check.row("matrix products of float32 heads", heads, "highest: no TF32", heads == "highest")


def outputs_and_gradient(
    model: torch.nn.Module, batch: Batch, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, boxes, the loss and the gradient of all parameters as one vector, on the host."""
    device = next(model.parameters()).device
    criterion = SetCriterion(CLASSES, HungarianMatcher()).to(device)
    moved = batch.to(device)
    model.zero_grad()
    with Precision(device.type, dtype).autocast():
        outputs = model(moved.images, moved.padding_mask)
    loss = criterion(outputs, moved.targets).total
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return tuple(x.detach().float().cpu() for x in (outputs.logits[-1], outputs.boxes_cxcywh[-1], loss, gradient))


def padded_batch(check: Check) -> Batch:
    """Two images, the second one smaller."""
    height, width = check.size_hw
    batch = make_batch(height=height, width=width)
    batch.images[1, :, height * 3 // 4 :] = 0
    batch.padding_mask[1, height * 3 // 4 :] = True
    return batch


def parity(check: Check) -> None:
    """The same weights and images here and on the CPU."""
    batch = padded_batch(check)
    model = make_model(DetrConfig(CLASSES, dropout=0.0, **check.network))
    expected = outputs_and_gradient(model, batch, None)
    model.to(check.device)
    for name, tolerances in TOLERANCES.items():
        if name.partition(",")[0] not in check.formats:
            continue
        torch.backends.cudnn.allow_tf32 = name != "float32"
        try:
            found = outputs_and_gradient(model, batch, FORMATS[name.partition(",")[0]])
        finally:
            torch.backends.cudnn.allow_tf32 = True
        errors = [float((a - b).abs().max()) for a, b in zip(found[:2], expected[:2], strict=True)]
        errors += [float((a - b).norm() / b.norm()) for a, b in zip(found[2:], expected[2:], strict=True)]
        for what, error, limit in zip(("logits", "boxes", "loss", "gradient"), errors, tolerances, strict=True):
            relative = ", relative" if what in ("loss", "gradient") else ""
            check.within(f"{check.name}, {name}, from float32 on a CPU: {what}{relative}", error, limit)


def waits_of(step: Callable[[], object]) -> int:
    """How often the host waits for the GPU in a step, as PyTorch's own check counts."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in seen)  # its first call warns of itself


def shares_of(step: Callable[[], object], on_gpu: bool) -> dict[str, float]:
    """Kind of operation -> its share of the time that the device computes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    spent = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in profiled.key_averages():
        if event.key.startswith("aten::"):
            kind = next((kind for kind, names in KINDS.items() if re.search(names, event.key)), "other")
            spent[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    return {kind: value / total for kind, value in spent.items()}


def steps(check: Check) -> None:
    """A training step: time, memory, waits and where the time goes, beside `transformers`' DETR in turn."""
    height, width = check.size_hw
    for images in (2,) if check.quick else (2, 8):
        ours = Ours(make_batch(images, height, width), device=str(check.device), **check.network)
        peer = make_peer_of(ours, check)
        for name, dtype in check.formats.items():
            if name == "float16":  # without a scaler the peer's gradients are not to be used, only timed
                ours.training.scaler = torch.amp.GradScaler(check.device.type)
            what = f"train step, {check.name}, {images} x {height}x{width}, {name}"
            rounds = 1 if check.quick else 8
            calls = {"ours": partial(ours.step, dtype)} | ({"peer": partial(peer.step, dtype)} if peer else {})
            times = in_turn(calls, rounds, warm_up=1 if check.quick else 3)
            mine = statistics.median(times["ours"])
            check.row(what, f"{mine * 1000:.1f} ms, {images / mine:.1f} images/s")
            if peer:
                theirs = statistics.median(times["peer"])
                check.row(f"{what}: beside the peer", f"{ratio(*times.values()):.2f} x its {theirs * 1000:.1f} ms")
            if check.on_gpu:
                check.row(f"{what}: peak memory", peak_memories(calls))
                more, fewer = (waits_of(partial(train, ours, dtype, count)) for count in (4, 2))
                check.within(f"{what}: waits of the host for the GPU, each step", (more - fewer) / 2, 1)
        for name, dtype in check.formats.items():
            shares = shares_of(partial(ours.step, dtype), check.on_gpu)
            where = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
            check.row(f"where the time goes, {images} images, {name}", where)


def make_peer_of(ours: Ours, check: Check) -> Peer | None:
    """`transformers`' DETR; without a version that has the names of `tests.peer` our steps are timed alone."""
    try:
        return Peer(ours)
    except (ImportError, AttributeError, KeyError, RuntimeError) as error:
        check.row("the peer, DETR of `transformers`", f"not run: {' '.join(str(error).split())[:100]}")
        return None


def train(ours: Ours, dtype: torch.dtype | None, count: int) -> None:
    """So many steps of one epoch."""
    ours.training.precision = Precision(ours.batch.images.device.type, dtype)
    ours.training.train_epoch([ours.batch] * count)


def peak_memories(calls: dict[str, Callable[[], object]]) -> str:
    """The most memory that PyTorch held in each side's step, both models included."""
    peaks = {}
    for side, call in calls.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call()
        peaks[side] = torch.cuda.max_memory_allocated() / 2**20
    return ", ".join(f"{side} {peak:.0f} MiB" for side, peak in peaks.items())


def prepare(check: Check) -> None:
    """The drawn sample, once."""
    if not (check.folder / "data/custom").is_dir():
        check.run("prep.py", "--sample")


def data(check: Check) -> None:
    """Images per second of the loader alone, with the two processes of a Colab machine and balloon-sized images."""
    from detr.data.dataset import load_folder
    from detr.data.loader import make_loader
    from detr.data.sampler import AspectRatioBatchSampler
    from detr.data.transforms import augment_params, evaluation_params

    prepare(check)
    view = partial(augment_params, scales=list(range(480, 801, 32)), max_size=1333)
    images = load_folder(
        check.folder / "data/custom", "custom", view, partial(evaluation_params, scale=800, max_size=1333), 0
    ).train
    loader = make_loader(images, AspectRatioBatchSampler(images, 2, seed=0), 2, pin_memory=check.on_gpu)
    for _ in range(1 if check.quick else 2):  # the first pass starts the processes
        began = time.perf_counter()
        count = sum(len(batch.images) for batch in loader)
        rate = count / (time.perf_counter() - began)
    check.row("loader alone, 2 processes, images of 480 to 800 pixels", f"{rate:.1f} images/s")


def sample(check: Check, name: str) -> None:
    """The drawn sample, trained and evaluated in a number format, and the share of the time that waits for images."""
    if name not in check.formats:
        check.row(f"the sample, {name}", "not run: it is emulated here")
        return
    prepare(check)
    epochs = 1 if check.quick else SAMPLE_EPOCHS
    began = time.perf_counter()
    check.run(*check.train("--epochs", epochs, "--amp", AMP[name], "--output_dir", f"sample_{name}"))
    seconds = time.perf_counter() - began
    log = [json.loads(line) for line in (check.folder / f"sample_{name}/log.txt").read_text().splitlines()]
    ap, (low, high) = log[-1]["test_coco_eval_bbox"][0], SAMPLE_AP
    bound = "" if check.quick else f"{low} to {high}"
    what = f"the sample, {epochs} epochs, {name}"
    check.row(f"{what}: AP, wall time", f"{ap:.3f}, {seconds:.0f} s", bound, check.quick or low <= ap <= high)
    waiting = sum(line["seconds_data"] for line in log) / sum(line["seconds_train"] for line in log)
    rate = statistics.median(line["images_per_second"] for line in log)
    check.row(f"{what}: training", f"{rate:.1f} images/s, {waiting:.0%} of it waiting for images")


def resume(check: Check) -> None:
    """A run that is killed inside an epoch ends as one that was not."""
    prepare(check)
    epochs = 2 if check.quick else 4
    arguments = check.train("--epochs", epochs, "--output_dir", "killed", "--save_every_steps", 2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        check.command(*arguments), cwd=check.folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    check.run(*arguments)
    log = [json.loads(line)["epoch"] for line in (check.folder / "killed/log.txt").read_text().splitlines()]
    check.row("resumed after SIGKILL: epochs in the log", str(log), f"0 to {epochs - 1}", log == list(range(epochs)))


def page(check: Check) -> None:
    """results.py to the page, and on any image."""
    runs = sorted(check.folder.glob("sample_*"))
    if not runs:
        sample(check, "float32")
        runs = sorted(check.folder.glob("sample_*"))
    began = time.perf_counter()
    check.run("results.py", "--log", runs[0].name, "--device", check.device.type)
    size = (runs[0] / "figures/report.html").stat().st_size
    check.row("results.py", f"page of {size / 2**20:.1f} MiB, {time.perf_counter() - began:.0f} s")
    printed = check.run(
        "results.py", "--log", runs[0].name, "--images", "data/custom/val2017", "--device", check.device.type
    )
    check.row("results.py --images", printed.strip().splitlines()[-1].partition(";")[0])


def processes(check: Check) -> None:
    """One run on two GPUs, where they are."""
    if check.on_gpu and torch.cuda.device_count() < 2:
        check.row("two GPUs", "not run: this machine has one")
        return
    prepare(check)
    flags = ("--epochs", 1, "--batch_size", 4, "--output_dir", "two")
    check.run(*check.train(*flags), processes=2)
    log = json.loads((check.folder / "two/log.txt").read_text().splitlines()[-1])
    check.row("two processes, one epoch", f"loss {log['train_loss']:.3f}, {log['images_per_second']:.1f} images/s")


# The cheap and the important first: a cut-off then costs the least.
PARTS: dict[str, Callable[[Check], None]] = {
    "machine": machine,
    "parity": parity,
    "sample_bfloat16": partial(sample, name="bfloat16"),
    "sample_float16": partial(sample, name="float16"),
    "steps": steps,
    "data": data,
    "resume": resume,
    "page": page,
    "sample_float32": partial(sample, name="float32"),
    "processes": processes,
}


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | figure | bound | |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['what']} | {row['figure']} | {row['bound']} | {'' if row['ok'] else 'FAILED'} |")
    return "\n".join(lines)


def main() -> None:
    """Every part that is asked for, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small network and one epoch: does every part run?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="file for the rows")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    check = Check(pick_device(args.device), args.quick, folder)
    began = time.perf_counter()
    try:
        for name in args.parts:
            try:
                PARTS[name](check)
            except Exception as error:
                traceback.print_exc()
                check.row(name, f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}", "runs", ok=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{table(check.rows)}\n\n{time.perf_counter() - began:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(check.rows, indent=1))
    sys.exit(0 if all(row["ok"] for row in check.rows) else 1)


if __name__ == "__main__":
    main()
