"""Small things that many tests start from: drawn photographs with VIA outlines, and the scripts run in-process."""

import importlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # main.py chooses by the load of the machine otherwise

import pytest
from PIL import Image, ImageDraw

import utils

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # real data beside a development checkout; never part of it

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real balloon data is not beside this checkout")

# A DETR that trains in a second an epoch on a laptop.
TINY = [
    *("--backbone", "resnet18", "--stride", "16", "--hidden_dim", "32", "--nheads", "4"),
    *("--enc_layers", "1", "--dec_layers", "2"),
    *("--dim_feedforward", "64", "--num_queries", "8", "--scales", "64", "--max_size", "96"),
    *("--num_workers", "0", "--device", "cpu"),
]


def write_via(folder: Path, count: int, seed: int = 0, attribute: dict | None = None) -> Path:
    """A VIA 1.x folder with `count` images of discs, every third one without any; returns the folder."""
    folder.mkdir(parents=True)
    entries = {}
    for number in range(count):
        width, height = 96 + 8 * (number % 3), 72 + 8 * (number % 2)
        image = Image.new("RGB", (width, height), (40, 60, 90))
        regions = {}
        for key in range(0 if number % 3 == 2 else 1 + number % 2):
            x, y, radius = 20 + 30 * key + seed, 25 + 10 * key, 9 + 2 * key + number % 4
            ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), (220, 60, 40))
            angles = [2 * math.pi * step / 12 for step in range(12)]
            shape = {
                "name": "polygon",
                "all_points_x": [round(x + radius * math.cos(angle)) for angle in angles],
                "all_points_y": [round(y + radius * math.sin(angle)) for angle in angles],
            }
            regions[str(key)] = {"shape_attributes": shape, "region_attributes": attribute or {}}
        name = f"disc{number:02}.png"
        image.save(folder / name)
        entries[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    (folder / "via_region_data.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def via_folder(tmp_path: Path) -> Path:
    """A folder with train/ (6 images) and val/ (3 images) as prep.py --via takes it."""
    return write_discs(tmp_path / "discs")


def write_discs(folder: Path) -> Path:
    """What `via_folder` is."""
    write_via(folder / "train", 6)
    write_via(folder / "val", 3, seed=5)
    return folder


CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(BaseHTTPRequestHandler):
    """/good, /truncated (ends early), /stalled (goes silent), /unsized (no length), with any names behind; else 404."""

    requests: list[str]

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        kind = self.path.split("/")[1]
        if kind not in ("good", "truncated", "stalled", "unsized"):
            self.send_error(404)
            return
        content = self.server.content
        self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if kind in ("good", "unsized") else content[:1000])
        if kind == "stalled":
            self.server.released.wait(10)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.requests, server.released, server.content = [], threading.Event(), CONTENT
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


RunScript = Callable[..., int]


def run_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunScript:
    """A function that runs a script's main in this process and in `folder`, and returns its exit code."""
    monkeypatch.chdir(folder)

    def run_script(name: str, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            utils.run_script(importlib.import_module(name).main)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run_script


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunScript:
    """`run("prep", "--via", folder)`: a script's main in-process, in an empty working folder; returns its exit code."""
    return run_in(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/custom, made from what `via_folder` is by prep.py, once for all tests of a process."""
    folder = tmp_path_factory.mktemp("imported")
    write_discs(folder / "discs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = run_in(folder, monkeypatch)
        assert run("prep", "--via", "discs", "--weights", "none", "--categories", "disc") == 0
    return folder / "data/custom"


@pytest.fixture
def coco_folder(via_folder: Path, imported: Path, run: RunScript) -> Path:
    """data/custom in the working folder, made from `via_folder` by prep.py."""
    return Path(shutil.copytree(imported, "data/custom"))
