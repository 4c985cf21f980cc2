"""The house rules of imports: data flows one way, and what should start at once imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = ("prep", "main", "results")

# Room -> what it may import of the project; "structures", "errors" and "boxes" are open to all of detr/.
OPEN = {"errors"}
TENSORS = OPEN | {"structures", "boxes"}
NETWORK = TENSORS | {"backbone", "position", "transformer"}
ALLOWED = {
    "errors": set(),
    "malloc": set(),
    "cpu_load": set(),
    "images": OPEN,
    "public_weights": set(),
    "class_rows": OPEN,
    "annotations": OPEN | {"images"},
    "structures": set(),
    "boxes": set(),
    "via": OPEN | {"images", "imported", "thumbnails", "via"},
    "sample": OPEN | {"via", "images", "sample"},
    "thumbnails": OPEN | {"images"},
    "imported": set(),
    "coco_input": OPEN | {"annotations", "imported", "thumbnails", "via"},
    "fonts": set(),
    "report": OPEN | {"report", "images", "imported", "fonts"},
    "transforms": TENSORS,
    "sampler": TENSORS | {"transforms"},
    "data": TENSORS | {"annotations", "images", "malloc", "transforms", "sampler"},
    "weight_gradient": TENSORS,
    "backbone": TENSORS | {"weight_gradient"},
    "position": TENSORS,
    "dropout": TENSORS,
    "attend": TENSORS | {"dropout"},
    "transformer": TENSORS | {"attend", "dropout"},
    "model": NETWORK,
    "matcher": TENSORS,
    "criterion": TENSORS | {"matcher"},
    "postprocess": TENSORS,
    "checkpoint": TENSORS | {"distributed", "model", "backbone", "public_weights", "class_rows"},
    "shrink": {"checkpoint"},
    "pretrain_backbone": TENSORS | {"backbone", "data", "malloc", "sampler", "transforms"},
    "distributed": OPEN,
    "device": TENSORS | {"distributed"},
    "schedule": OPEN,
    "flags": OPEN | {"public_weights", "schedule"},
    "averaging": OPEN | {"criterion", "distributed"},
    "engine": TENSORS | {"model", "criterion", "checkpoint", "device", "distributed", "schedule", "averaging"},
    "evaluate": TENSORS | {"model", "criterion", "postprocess", "data", "device", "distributed", "averaging", "report"},
    "attention": NETWORK | {"model"},
    "detector": TENSORS | {"attention", "images", "transforms", "data", "postprocess", "checkpoint", "device"},
}
TORCH_FREE = (
    "annotations",
    "class_rows",
    "coco_input",
    "cpu_load",
    "errors",
    "flags",
    "fonts",
    "images",
    "imported",
    "malloc",
    "public_weights",
    "report",
    "sample",
    "schedule",
    "thumbnails",
    "via",
)


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("detr.")}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "detr").parts[0].removesuffix(".py")


FILES = [path for path in sorted((ROOT / "detr").rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_the_plan_allows(path: Path) -> None:
    imported = imports_of(path)
    assert not imported & {*SCRIPTS, "utils"}, "detr/ never imports a script or utils"
    extra = rooms_of(path) - ALLOWED[room(path)]
    assert not extra, f"{room(path)} may not import {extra}"
    if room(path) in TORCH_FREE:
        assert not [name for name in imported if name.split(".")[0] in ("torch", "torchvision")]


def test_scripts_do_not_import_each_other_and_utils_has_no_domain() -> None:
    for script in SCRIPTS:
        assert not imports_of(ROOT / f"{script}.py") & (set(SCRIPTS) - {script})
    assert rooms_of(ROOT / "utils.py") <= {"errors", "fonts"}


def test_packages_are_empty() -> None:
    for path in (ROOT / "detr").rglob("__init__.py"):
        assert path.read_text() == ""


@pytest.mark.parametrize(
    "name",
    [
        *(*SCRIPTS, "utils", "detr.importers.via.importer", "detr.sample.draw"),
        *("detr.report.runs", "detr.evaluation.metrics", "detr.importers.dataset_figure"),
    ],
)
def test_importing_stays_instant(name: str) -> None:
    code = f"import sys, {name}; print([m for m in ('torch', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_function_is_long_and_args_stops_at_the_scripts() -> None:
    for path in [*FILES, *(ROOT / f"{name}.py" for name in (*SCRIPTS, "utils"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name} is over 60 lines"
                if path in FILES:
                    assert "args" not in [a.arg for a in node.args.args], f"{path.name}: {node.name} takes args"
