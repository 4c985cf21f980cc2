"""Import one annotation file with many images: the time and peak memory of `prep.py`, and of the reading alone.

.venv/bin/python -m tests.benchmarks.importing [images ...]     (default: 10000 20000; each has 10 regions)
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from detr.importers.importer import import_via

REGIONS = 10
SHAPES = (
    {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 4},
    {"name": "polygon", "all_points_x": [1, 6, 7, 5, 2], "all_points_y": [1, 2, 5, 7, 6]},
    {"name": "rect", "x": 3, "y": 3, "width": 9, "height": 2},  # leaves the image
    {"name": "polygon", "all_points_x": [0, 8, 8, 0, 0], "all_points_y": [0, 0, 8, 8, 0]},
    {"name": "point", "cx": 3, "cy": 4},
)


def write(folder: Path, count: int) -> None:
    """A folder with `count` images and one annotation file."""
    entries = {}
    for number in range(count):
        name = f"{number:06}.png"
        Image.new("L", (8, 8), number % 256).save(folder / name)
        entries[f"{name}70"] = {
            "filename": name,
            "size": 70,
            "regions": [
                {
                    "shape_attributes": SHAPES[i % len(SHAPES)],
                    "region_attributes": {"class": f"class {(number + i) % 7}"},
                }
                for i in range(REGIONS)
            ],
            "file_attributes": {},
        }
    (folder / "via.json").write_text(json.dumps(entries))


def measured(*command: str) -> tuple[float, float]:
    """Seconds and peak MiB of a command."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return time.monotonic() - begin, int(done.stdout) / 1024


def main() -> None:
    """Measure."""
    for count in map(int, sys.argv[1:] or ("10000", "20000")):
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "set", Path(folder) / "coco"
            source.mkdir()
            write(source, count)
            whole = (sys.executable, "prep.py", "--via", str(source), "--coco_path", str(output), "--weights", "none")
            whole += ("--keep_partial",)  # each image has points
            for what, command in (
                ("read", (sys.executable, "-m", "tests.benchmarks.importing", "--read", str(source))),
                ("first prep.py", whole),
                ("second prep.py", whole),
            ):
                seconds, peak = measured(*command)
                print(
                    f"{count:,} images, {count * REGIONS:,} regions, {what}: {seconds:.1f} s, {peak:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        gc.disable()  # as prep.py does
        import_via(Path(sys.argv[2]), keep_partial=True)
    else:
        main()
