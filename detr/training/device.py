"""What the machine offers: which device, and in which number format it computes fastest."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import torch

from detr.structures import Batch
from detr.training.cpu_load import CpuLoad, count_cpus
from detr.training.distributed import SINGLE_PROCESS, World
from detr.training.flags import AMP_CHOICES
from utils import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None


def pick_device(name: str, world: World = SINGLE_PROCESS) -> torch.device:
    """Return the device called `name`, on CUDA always with an index.

    `auto` takes CUDA, then MPS, then the CPU. CUDA without an index is the current GPU; of several processes on a
    machine each takes a GPU of its own. Nothing of the process is changed. Raises UserError when it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if name == "cuda":
            name = f"cuda:{world.local_rank if world.size > 1 else torch.cuda.current_device()}"
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        why = "no such device; accepted: auto, cuda, cuda:1, mps, cpu" if why.startswith("Expected one of") else why
        raise UserError(f"--device {name}: not available here ({why})") from error
    return device


def limit_threads(load: CpuLoad, resumed_threads: int | None = None) -> None:
    """Use fewer threads where other processes keep the CPU busy: OpenMP's threads wait for one another actively, and
    one that has to share its core slows all down tenfold. A user's OMP_NUM_THREADS wins.

    A resumed run keeps its number, on which the last bits of its results depend.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    most = torch.get_num_threads()
    if resumed_threads:
        threads, why = min(most, resumed_threads), "as when this run began"
    else:
        threads = max(1, min(most, count_cpus() - round(load.cores())))
        why = "other processes keep the CPU busy"
    if threads < most:
        print(f"{threads} of {most} threads: {why} (OMP_NUM_THREADS sets another number)")
    torch.set_num_threads(threads)


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory that this process has held: of the GPU where it computes on one, otherwise of the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextlib.contextmanager
def explain_oom(where: str, batches: list[Batch]) -> Iterator[None]:
    """Turn the device's or the host's out-of-memory error into a UserError that says what would fit."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        largest = max(batches, key=lambda batch: batch.images.numel())
        count, _, height, width = largest.images.shape
        raise UserError(
            f"{where}: out of memory; its largest batch is {count} x {width}x{height} pixels, images "
            f"{largest.targets.image_ids} ({str(error).splitlines()[0]}). Less memory: a smaller --batch_size "
            "(--accumulate makes up for it), smaller --scales and --max_size, --freeze backbone, 16 bits (--amp), no "
            "--masks"
        ) from error


# What CUDA, cuBLAS, cuDNN without room for its workspace, MPS, and the host on Linux and on Windows say.
_OUT_OF_MEMORY = (
    "out of memory", "alloc_failed", "unable to find an engine", "unable to find a valid cudnn algorithm",
    "can't allocate memory", "not enough memory",
)  # fmt: skip


class Precision(NamedTuple):
    """The number format of the network's forward and backward pass; heads, matching and losses stay in float32."""

    device_type: str
    dtype: torch.dtype | None  # None: float32 throughout

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the network is to run."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    def __str__(self) -> str:
        return {None: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}[self.dtype]


def pick_precision(amp: str, device: torch.device) -> Precision:
    """Return the format for one of `flags.AMP_CHOICES`; `auto` is a 16-bit one where the device has it natively.

    Raises UserError for another, and for float16 where it would spoil the weights.
    """
    if amp not in AMP_CHOICES:
        raise UserError(f"--amp {amp}: accepted are {', '.join(AMP_CHOICES)}")
    if amp == "auto":
        amp = _native_format(device)
    elif amp == "bf16" and device.type == "cuda" and (native := _native_format(device)) != "bf16":
        print(f"--amp bf16: this GPU emulates it, slowly; --amp auto would take {native}")
    if amp == "fp16" and device.type == "mps":
        raise UserError("--amp fp16: not on mps, whose optimizer does not leave out infinite gradients; accepted: off")
    return Precision(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp])


def _native_format(device: torch.device) -> str:
    if device.type == "cuda":
        # By default is_bf16_supported() counts emulation, with which older cards are slower than in float16.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        # Before Volta there are no tensor cores, and most cards compute float16 at 1/64 of float32's rate.
        return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "off"
    return "bf16" if device.type == "cpu" and _cpu_has_bfloat16() else "off"


def _cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); Linux only, elsewhere False."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
