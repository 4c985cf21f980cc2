"""How busy the CPU is with other processes. No torch: the measurement runs while that is imported."""

import os
import time
from pathlib import Path


class CpuLoad:
    """How busy other processes keep this process's CPUs, from the making of the object on (Linux; elsewhere 0)."""

    def __init__(self) -> None:
        self._began, self._others = time.monotonic(), _seconds_of_others()

    def cores(self) -> float:
        """Return the mean number of cores that are busy with other processes."""
        seconds = time.monotonic() - self._began
        return (_seconds_of_others() - self._others) / seconds if seconds > 0.1 else 0.0  # a moment tells nothing


def count_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds_of_others() -> float:
    """CPU time so far that other processes took of the CPUs that this one may use, in seconds."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return 0.0
    columns = [line.split() for line in lines]
    # user, nice, system, then idle and waiting for drives, which are not busy, then interrupts (proc_stat(5))
    ticks = sum(sum(map(int, (*line[1:4], *line[6:8]))) for line in columns if line and line[0] in own)
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2])
