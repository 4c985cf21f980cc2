"""The load that main.py leaves cores to."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from detr.training.cpu_load import CpuLoad, count_cpus


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells how busy its CPUs are")
def test_the_load_is_that_of_other_processes() -> None:
    """All cores are busy, in part with this process, which does not count."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count_cpus())]
    time.sleep(0.3)
    try:
        load, began, own = CpuLoad(), time.monotonic(), time.process_time()
        while time.monotonic() - began < 1.5:
            pass
        own_share = (time.process_time() - own) / (time.monotonic() - began)
        assert 0.3 < load.cores() < count_cpus() - own_share + 0.15
    finally:
        for other in others:
            other.kill()
            other.wait()
