"""A machine that says it has GPUs, for tests on a CPU: every line that only CUDA reaches runs, with real numbers.

Each storage carries the device that it would be on, from factories and copies on through every operation, forward and
backward. So it is an error here as there to mix devices, to read a GPU's tensor as an array, to name a GPU without its
index, or to read a copy before it has arrived; copies to the GPU and waits of the host for it are recorded with the
line that made them. What is not imitated: speed, memory, other kernels' rounding, and streams.

python tests/fake_gpu.py [--count 2] [--capability 7.5] main.py ...      a script on such a machine
"""

import argparse
import contextlib
import functools
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.utils._foreach_utils
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOST = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
aten = torch.ops.aten
MIXING = {aten.copy_.default, aten._foreach_copy_.default}  # operations whose inputs may be on several devices
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
WAITING = {  # operations that need a value, or the size of their result, on the host
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.repeat_interleave.Tensor,
}  # fmt: skip


class Copy(NamedTuple):
    """One copy from the host to a GPU."""

    line: str  # file:line of the project that made it
    is_pinned: bool
    non_blocking: bool


class FakeGpu(contextlib.AbstractContextManager):
    """Inside it, the machine has `count` GPUs of this compute capability.

    `copies` and `waits` (lines on which the host waited for a GPU) grow as the code runs.
    """

    def __init__(self, capability: tuple[int, int] = (8, 0), count: int = 1) -> None:
        self.capability, self.count = capability, count
        self.current = 0
        self.copies: list[Copy] = []
        self.waits: list[str] = []
        self.made_on: torch.device | None = None
        self.rng_was_restored = False
        self._warns = self._has_warned_of_itself = False
        self.was_set = False  # whether the process has chosen its current GPU
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "FakeGpu":
        with contextlib.ExitStack() as stack:
            for target, name, value in self._replacements():
                stack.enter_context(patch.object(target, name, value))
            stack.enter_context(_Storages(self))
            stack.enter_context(_Devices(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def inside(self, device: torch.device | None) -> Iterator[None]:
        """Give tensors that compiled code makes meanwhile this device: it sees the CPU, and makes them there."""
        before, self.made_on = self.made_on, device
        try:
            yield
        finally:
            self.made_on = before

    def _engine_run_backward(self, run: Callable, roots: tuple[Tensor, ...], *args: object, **kwargs: object) -> object:
        """The backward pass, whose Python asks for devices too."""
        device = device_of(roots[0])
        with _Devices(self), self.inside(None if device == HOST else device):
            return run(roots, *args, **kwargs)

    def wait(self) -> None:
        """Record that the host waits until everything is computed."""
        self.waits.append(_line())
        if self._warns:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=2)

    def _set_sync_debug_mode(self, mode: str) -> None:
        if not self._has_warned_of_itself:
            self._has_warned_of_itself = True
            warnings.warn("Synchronization debug mode does not yet detect all synchronizing operations", stacklevel=2)
        self._warns = mode == "warn"

    def index_of(self, device: object) -> int:
        """The number of a GPU as `torch.cuda.set_device` takes it: strict about its index."""
        if isinstance(device, int):
            device = torch.device("cuda", device)
        device = torch.device(device)
        if device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        if device.index >= self.count:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return device.index

    def _set_device(self, device: object) -> None:
        self.current, self.was_set = self.index_of(device), True

    def _is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self.capability >= (8, 0) or including_emulation

    def _set_rng_state_all(self, states: list[Tensor]) -> None:
        assert len(states) == self.count
        self.rng_was_restored = True

    def _properties(self, device: object = None) -> SimpleNamespace:
        major, minor = self.capability
        return SimpleNamespace(name="Fake GPU", major=major, minor=minor, total_memory=16 * 2**30)

    def _by_nccl(self, collective: Callable) -> Callable:
        """NCCL talks of the current GPU, which each process must have chosen, and of its tensors."""

        def call(*tensors: Tensor, **kwargs: object) -> object:
            on_gpu = [x for x in tensors if device_of(x) != HOST]
            assert self.was_set or not on_gpu, f"{_line()}: no torch.cuda.set_device before {collective.__name__}"
            assert all(device_of(x).index == self.current for x in on_gpu), f"{_line()}: another process's GPU"
            return collective(*tensors, **kwargs)

        return call

    def _replacements(self) -> Iterator[tuple[object, str, object]]:
        cuda = {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "set_device": self._set_device,
            "get_device_capability": lambda device=None: self.capability,
            "get_device_properties": self._properties,
            "is_bf16_supported": self._is_bf16_supported,
            "max_memory_allocated": lambda device=None: 123 * 2**20,
            "reset_peak_memory_stats": lambda device=None: None,
            "empty_cache": lambda: None,
            "set_sync_debug_mode": self._set_sync_debug_mode,
            "synchronize": lambda device=None: self.wait(),
            "get_rng_state_all": lambda: [torch.zeros(16, dtype=torch.uint8)] * self.count,
            "set_rng_state_all": self._set_rng_state_all,
        }
        yield from ((torch.cuda, name, value) for name, value in cuda.items())
        accelerator = {
            "is_available": lambda: True,
            "current_accelerator": lambda check_available=False: torch.device("cuda"),
            "current_device_index": lambda: self.current,
            "set_device_index": self._set_device,
            "current_stream": lambda device=None: SimpleNamespace(is_capturing=lambda: False),
        }
        yield from ((torch.accelerator, name, value) for name, value in accelerator.items())
        # The CPU's own of what takes the type of the device.
        yield from ((module, name, _on_cpu(getattr(module, name))) for module, name in _TAKE_A_DEVICE_TYPE)
        run = functools.partial(self._engine_run_backward, torch.autograd._engine_run_backward)
        yield torch.autograd, "_engine_run_backward", run
        yield dist, "is_nccl_available", lambda: True
        yield dist, "init_process_group", _with_gloo(dist.init_process_group)
        yield from ((dist, name, self._by_nccl(getattr(dist, name))) for name in ("all_reduce", "broadcast", "barrier"))
        yield torch.nn.parallel, "DistributedDataParallel", functools.partial(_Ddp, self)
        yield torch.Tensor, "pin_memory", _pin_memory
        for module in map(sys.modules.get, ("torch.optim.optimizer", "torch.nn.utils.clip_grad")):
            group = "_group_tensors_by_device_and_dtype"
            yield module, group, _grouped_by_fake_device(getattr(module, group))


_TAKE_A_DEVICE_TYPE = (
    (torch, "autocast"),
    (torch, "is_autocast_enabled"),
    (torch, "get_autocast_dtype"),
    (torch.amp, "GradScaler"),
)


class _Ddp(torch.nn.parallel.DistributedDataParallel):
    """DDP, whose compiled part makes buffers for the gradients."""

    def __init__(self, gpu: FakeGpu, module: torch.nn.Module, **kwargs: object) -> None:
        with gpu.inside(torch.device("cuda", gpu.current)):
            super().__init__(module, **kwargs)
        self.gpu = gpu

    def forward(self, *args: object) -> object:
        with self.gpu.inside(torch.device("cuda", self.gpu.current)):
            return super().forward(*args)


def _on_cpu(function: Callable) -> Callable:
    """The same, asked for the CPU; bfloat16 stands in for float16, in which CPUs are a hundred times slower."""

    def call(*args: object, **kwargs: object) -> object:
        return function(*(torch.bfloat16 if value is torch.float16 else _real(value) for value in args), **kwargs)

    return call


def _with_gloo(init_process_group: Callable) -> Callable:
    def init(backend: str, **kwargs: object) -> None:
        assert backend == "cpu:gloo,cuda:nccl", backend
        init_process_group("gloo", **kwargs)

    return init


def _grouped_by_fake_device(group: Callable) -> Callable:
    """The real one is compiled and sees the CPU: its keys are devices."""

    def grouped(tensors: list[list[Tensor]], with_indices: bool = False) -> dict:
        groups = group(tensors, with_indices)
        return {(device_of(value[0][0][0]), dtype): value for (_, dtype), value in groups.items()}

    return grouped


def _pin_memory(tensor: Tensor) -> Tensor:
    """Copy a tensor of the host into memory that is called pinned; also in the loader's thread, which has no modes."""
    if device_of(tensor) != HOST:
        raise RuntimeError("cannot pin a tensor of a GPU: only dense CPU tensors can be pinned")
    pinned = tensor.clone()
    _storage(pinned).is_fake_pinned = True
    return pinned


# ------------------------------------------------------------------------------------------------------ device marks


def device_of(tensor: Tensor) -> torch.device:
    """The device that a tensor would be on."""
    return getattr(_storage(tensor), "fake_device", tensor.device if tensor.is_meta else HOST)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def _mark(tensor: Tensor, device: torch.device) -> Tensor:
    if not tensor.is_meta:
        _storage(tensor).fake_device = device
    return tensor


def _real(device: object) -> object:
    """A device, or the name of one, with the CPU in place of a GPU; anything else as it is."""
    if isinstance(device, str) and device.startswith("cuda"):
        return "cpu"
    return HOST if isinstance(device, torch.device) and device.type == "cuda" else device


def _line() -> str:
    """The line of the project that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _tensors(values: tuple) -> Iterator[Tensor]:
    """The tensors among arguments, in lists of them too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


class _Storages(TorchDispatchMode):
    """Carries the marks from the inputs of every operation to its outputs, in the backward pass too."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        with torch._C.DisableTorchFunction():
            inputs = [x for x in _tensors((*args, *(kwargs or {}).values())) if not x.is_meta]
            # A GPU takes numbers from the host, and indices too, which it waits for.
            indices = {id(x) for x in inputs[1:] if func in INDEXING and x.dtype in (torch.int64, torch.bool)}
            apart = [x for x in inputs if device_of(x) != HOST or (x.dim() and id(x) not in indices)]
            devices = {device_of(x) for x in apart}
            if len(devices) > 1 and func not in MIXING and func.namespace == "aten":
                raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {devices}")
            waits = any(id(x) in indices and (x.dtype == torch.bool or device_of(x) == HOST) for x in inputs)
            if devices - {HOST} and (func in WAITING or waits):
                self.gpu.wait()
            known = {_storage(x)._cdata for x in inputs}
            out = func(*args, **(kwargs or {}))
            device = next(iter(devices - {HOST}), None) if inputs else self.gpu.made_on
            if device is not None and func not in MIXING:
                for x in _tensors((out,)):
                    if _storage(x)._cdata not in known:
                        _mark(x, device)
            return out


class _Devices(TorchFunctionMode):
    """Gives the GPU's answers where Python asks for devices, and makes the copies between them."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if func in (torch.device, torch._C._nn._parse_to):  # no more than names of devices
            return func(*args, **kwargs)
        if func in _ANSWERS:
            return _ANSWERS[func](tensor)
        if tensor is not None and device_of(tensor) != HOST:
            if func in (Tensor.numpy, Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if func is Tensor.tolist:
                self.gpu.wait()
        elif func in (Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.item, Tensor.__bool__, Tensor.__float__):
            arrives = getattr(_storage(tensor), "fake_arrives", -1)
            assert len(self.gpu.waits) > arrives, f"{_line()} reads a copy of the GPU's that is still under way"
        asked = self._asked(func, args, kwargs)
        on_gpu = (device_of(x) for x in _tensors(args) if device_of(x) != HOST)
        with self.gpu.inside(next(on_gpu, None)):
            out = func(*map(_real, args), **{name: _real(value) for name, value in kwargs.items()})
        if func is Tensor.__deepcopy__:  # copies the storage, by no operation
            return _mark(out, device_of(tensor))
        if asked is None or not isinstance(out, Tensor):
            return out
        if tensor is None:
            return _mark(out, asked)
        return self._copied(tensor, out, asked, bool(kwargs.get("non_blocking")))

    def _asked(self, func: Callable, args: tuple, kwargs: dict) -> torch.device | None:
        """The device that a call names; it must be there, and have an index."""
        if func is Tensor.cpu:
            return HOST
        if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
            return device_of(args[1])
        named = [kwargs.get("device"), *(args[1:2] if func is Tensor.to else ())]
        devices = [torch.device(x) for x in named if isinstance(x, str | torch.device)]
        if not devices or devices[0].type not in ("cuda", "cpu"):
            return None
        if devices[0].type == "cuda":
            assert devices[0].index is not None, f"{_line()}: a GPU without an index"
            self.gpu.index_of(devices[0])
        return devices[0]

    def _copied(self, source: Tensor, out: Tensor, asked: torch.device, non_blocking: bool) -> Tensor:
        """The result of a call that names a device, on that device: a copy where the source is on another."""
        if device_of(source) == asked:
            return out
        if _storage(out)._cdata == _storage(source)._cdata:
            out = out.clone()
        if asked != HOST:
            is_pinned = getattr(_storage(source), "is_fake_pinned", False)
            self.gpu.copies.append(Copy(_line(), is_pinned, non_blocking))
        elif non_blocking:
            _storage(out).fake_arrives = len(self.gpu.waits)
        else:
            self.gpu.wait()
        return _mark(out, asked)


_ANSWERS = {
    Tensor.device.__get__: device_of,
    Tensor.is_cuda.__get__: lambda tensor: device_of(tensor).type == "cuda",
    Tensor.is_cpu.__get__: lambda tensor: device_of(tensor) == HOST,
    Tensor.get_device: lambda tensor: -1 if (index := device_of(tensor).index) is None else index,
    Tensor.is_pinned: lambda tensor: getattr(_storage(tensor), "is_fake_pinned", False),
}


def main() -> None:
    """Run a script on such a machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--capability", default="8.0")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    major, minor = map(int, args.capability.split("."))
    sys.argv = args.command
    with FakeGpu((major, minor), args.count):
        runpy.run_path(args.command[0], run_name="__main__")


if __name__ == "__main__":
    main()
