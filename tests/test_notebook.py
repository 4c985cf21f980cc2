"""The notebook, executed cell by cell on the sample."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

pytestmark = pytest.mark.long


def test_every_cell_runs_and_shows_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prep.py", "main.py", "results.py", "utils.py", "detr", "requirements.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "DETR_Finetuning.ipynb", as_version=4)
    (settings,) = (cell for cell in notebook.cells if cell.source.startswith("DATA, START ="))
    settings.source, replaced = re.subn(r"--epochs \d+", "--epochs 1", settings.source)
    assert replaced == 1
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown, printed = [], ""
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        shown.append(sum(bool({"image/png", "image/jpeg"} & output.get("data", {}).keys()) for output in outputs))
        printed += "".join(output.get("text", "") for output in outputs)
    assert "error:" not in printed and "Traceback" not in printed, printed
    assert "done: outputs/checkpoint_best.pth has AP" in printed
    assert sum(count > 0 for count in shown) == 3, "annotations, results, other photographs"
