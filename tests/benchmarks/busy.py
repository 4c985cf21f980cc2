"""Training beside other busy processes: images per second of the drawn sample, by the number of threads.

.venv/bin/python -m tests.benchmarks.busy [--rounds 3]      after prep.py --sample; 4 minutes and more
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from detr.models.model_zoo import SHIPPED_WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
COMPANIONS = {
    "quiet": "",
    "beside a busy loop": "while True: pass",
    "beside another PyTorch process": "import torch\nx = torch.randn(1500, 1500)\nwhile True: x @ x",
}
WAYS = {"one thread": {"OMP_NUM_THREADS": "1"}, "chosen by main.py": {}}


@contextlib.contextmanager
def companion(code: str) -> Iterator[None]:
    """Another process that runs this code meanwhile, if any."""
    process = subprocess.Popen([sys.executable, "-c", code]) if code else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def images_per_second(environment: dict[str, str], coco_path: Path) -> float:
    """Of the second epoch of a run of main.py with these environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        shipped = SHIPPED_WEIGHTS["detr-small"]
        flags = [
            *shipped.flags,
            "--weights",
            shipped.path,
            "--eval_every",
            "9",
            "--output_dir",
            folder,
            "--epochs",
            "2",
        ]
        command = [sys.executable, ROOT / "main.py", "--coco_path", coco_path, *flags]
        subprocess.run(list(map(str, command)), env=os.environ | environment, capture_output=True, check=True)
        return json.loads((Path(folder) / "log.txt").read_text().splitlines()[-1])["images_per_second"]


def main() -> None:
    """Every number of threads beside every companion, in turn; the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--coco_path", type=Path, default=Path("data/custom"))
    args = parser.parse_args()
    ways = {f"{os.cpu_count()} threads": {"OMP_NUM_THREADS": str(os.cpu_count())}} | WAYS
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.rounds):
        for beside, code in COMPANIONS.items():
            with companion(code):
                for way, environment in ways.items():
                    rate = images_per_second(environment, args.coco_path)
                    rates.setdefault((beside, way), []).append(rate)
                    print(f"{beside}, {way}: {rate:.1f} images/s", flush=True)
    print(f"\n| images/s | {' | '.join(ways)} |\n|---{'|---' * len(ways)}|")
    for beside in COMPANIONS:
        print(f"| {beside} | {' | '.join(f'{statistics.median(rates[beside, way]):.1f}' for way in ways)} |")


if __name__ == "__main__":
    main()
