"""How the C library (glibc; elsewhere nothing happens) treats freed memory. The settings are mallopt(3)'s. No torch.

By default it hands every large block back to the system, and each training step on a CPU then spends up to a third of
its time on having the same pages cleared and mapped again.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8


def tune_malloc() -> None:
    """Keep freed memory for the next tensor; for a process whose model runs on the CPU."""
    # One heap for all threads: what the backward thread frees, the forward pass finds.
    _mallopt({_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def restore_malloc() -> None:
    """Undo `tune_malloc` in a process forked from one that called it: what it frees goes back to the system."""
    # The thresholds are where glibc's own adjustment ends; naming any of them has switched that off.
    _mallopt({_M_ARENA_MAX: 0, _M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * 2**20, _M_TRIM_THRESHOLD: 64 * 2**20})


def _mallopt(settings: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in settings.items():
            mallopt(parameter, value)
