"""Data-parallel training in several processes (torchrun): ranks, collectives, DistributedDataParallel.

In a run of one process every function here does nothing and costs nothing.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils import UserError

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=30)  # for a process that says nothing: its evaluation may be the slower one


class World(NamedTuple):
    """Rank of this process, and how many there are."""

    rank: int = 0  # among all
    size: int = 1
    local_rank: int = 0  # among those of this machine: which of its GPUs to take

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0


SINGLE_PROCESS = World()


def init_process_group() -> World:
    """Join the process group that torchrun started; a single process where it was not used.

    Tensors on a GPU travel by NCCL where there is one, those of the host by gloo. Raises UserError where the others
    cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SINGLE_PROCESS
    if "LOCAL_RANK" not in os.environ:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and LOCAL_RANK is not set: start the processes of a run by "
            "torchrun, one torchrun per machine, or unset WORLD_SIZE for a run of one process"
        )
    try:
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()  # not on Windows
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this run could not find each other: {error}") from error
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))


@contextlib.contextmanager
def process_group(world: World) -> Iterator[None]:
    """Work inside it as one rank of several. Raises UserError where another rank has died meanwhile."""
    try:
        yield
    except RuntimeError as error:
        lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
        if world.size == 1 or not any(word in str(error) for word in lost):
            raise
        raise UserError(
            "another process of this run has ended or cannot be reached; its own message says why "
            f"({str(error).splitlines()[0]}). The last checkpoint is whole: resume with --resume auto"
        ) from error
    barrier()  # no rank leaves before all have finished
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all ranks are here."""
    if dist.is_initialized():
        dist.barrier()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the model to call in training: its gradients become the mean over all ranks.

    Freeze before wrapping: what needs no gradient is not waited for.
    """
    if not dist.is_initialized():
        return model
    device = next(model.parameters()).device
    # A 1x1 convolution's gradient has two sets of strides that mean the same: nothing is copied that need not be.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)  # torch 2.5 lacks its successor
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=bool(batch_norm_statistics(model)),
            gradient_as_bucket_view=True,
        )


def broadcast_batch_norm(model: nn.Module) -> None:
    """Give every rank the running statistics of rank 0's BatchNorm layers, so that all evaluate the same model."""
    if dist.is_initialized():
        for value in batch_norm_statistics(model):
            dist.broadcast(value, src=0)


def batch_norm_statistics(model: nn.Module) -> list[Tensor]:
    """Return running means and variances of the BatchNorm layers that are trained, each (C,)."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [value for layer in layers for value in (layer.running_mean, layer.running_var)]


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all ranks, on the tensor's own device; nothing waits for a GPU."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def first_on_each_machine(call: Callable[[], Result]) -> Result:
    """Call it in one process of each machine, then in the others: they find what the first one has downloaded.

    Raises UserError in every process where it does in the first of any machine.
    """
    if not dist.is_initialized():
        return call()
    is_first = os.environ["LOCAL_RANK"] == "0"
    result, messages = None, []
    try:
        result = call() if is_first else None
    except UserError as error:
        messages = [str(error)]
    for message in all_gather(messages):
        raise UserError(message)
    return result if is_first else call()


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank; all of them must ask."""
    return bool(all_reduce_sum(torch.tensor(float(flag))) > 0) if dist.is_initialized() else flag


def all_gather(values: list) -> list:
    """Return the lists of all ranks one behind the other, on every rank."""
    if not dist.is_initialized():
        return values
    lists: list[list] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(lists, values)
    return [value for one in lists for value in one]
