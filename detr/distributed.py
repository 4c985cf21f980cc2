"""One run in several processes (torchrun): who is who, and the few things that they tell each other.

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

from detr.errors import UserError

Result = TypeVar("Result")
TIMEOUT = timedelta(minutes=30)  # for a process that says nothing: its evaluation may be the slower one


class Processes(NamedTuple):
    """Which of the run's processes this is."""

    rank: int = 0  # among all
    count: int = 1
    local_rank: int = 0  # among those of this machine: which of its GPUs to take

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0


ALONE = Processes()


def join() -> Processes:
    """Meet the other processes that torchrun started; alone where it was not used.

    Tensors on a GPU travel by NCCL where there is one, those of the host by gloo. Raises UserError where the others
    cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
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
    return Processes(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))


@contextlib.contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Work inside it as one of several processes. Raises UserError where another one has died meanwhile."""
    try:
        yield
    except RuntimeError as error:
        lost = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
        if processes.count == 1 or not any(word in str(error) for word in lost):
            raise
        raise UserError(
            "another process of this run has ended or cannot be reached; its own message says why "
            f"({str(error).splitlines()[0]}). The last checkpoint is whole: go on with --resume auto"
        ) from error
    wait()  # nobody hangs up while another one still listens
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def wrap(model: nn.Module) -> nn.Module:
    """The model to call in training: its gradients become the mean over all processes.

    Freeze before wrapping: what needs no gradient is not waited for.
    """
    if not dist.is_initialized():
        return model
    device = next(model.parameters()).device
    # A 1x1 convolution's gradient has two sets of strides that mean the same: nothing is copied that need not be.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*broadcast_buffers", FutureWarning
        )  # its successor is younger than torch 2.5
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=bool(live_statistics(model)),
            gradient_as_bucket_view=True,
        )


def share_statistics(model: nn.Module) -> None:
    """Give every process the first one's running statistics of live BatchNorm, so that all evaluate the same model."""
    if dist.is_initialized():
        for value in live_statistics(model):
            dist.broadcast(value, src=0)


def live_statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances of a model's live BatchNorm layers, each (C,)."""
    live = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [value for module in live for value in (module.running_mean, module.running_var)]


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, on the tensor's own device; nothing waits for a GPU."""
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
    for message in gathered(messages):
        raise UserError(message)
    return result if is_first else call()


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all of them must ask."""
    return bool(summed(torch.tensor(float(flag))) > 0) if dist.is_initialized() else flag


def gathered(values: list) -> list:
    """The lists of all processes one behind the other, in every process."""
    if not dist.is_initialized():
        return values
    lists: list[list] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(lists, values)
    return [value for one in lists for value in one]
