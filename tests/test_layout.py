"""The house rules: an import goes down the floors, never up and never in a circle; what should start at once does."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = ("prep", "main", "results")
# From the ground up. A file may import files of lower floors, and of its own room.
FLOORS = (
    ("utils",),
    ("detr.box_ops", "detr.structures", "detr.drawing"),
    ("detr.models",),
    ("detr.data",),
    ("detr.importers",),
    ("detr.evaluation",),
    ("detr.training",),
    ("detr.report",),
    ("detr.sample",),
    ("detr.detector",),
    ("detr.predict", "detr.export"),
    SCRIPTS,
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TORCH_FREE_ROOMS = ("utils", "detr.importers", "detr.evaluation", "detr.report", "detr.sample")
TORCH_FREE_FILES = (
    *(
        "detr.models.model_zoo",
        "detr.models.class_transfer",
        "detr.data.images",
        "detr.data.coco_json",
        "detr.data.folds",
        "detr.data.video",
    ),
    *("detr.training.flags", "detr.training.schedule", "detr.training.run_files", "detr.training.cpu_load"),
    *("detr.drawing", "detr.export.__main__", "detr.export.web_page", "detr.predict"),
)
FILES = sorted([*(ROOT / "detr").rglob("*.py"), *(ROOT / f"{name}.py" for name in (*SCRIPTS, "utils"))])
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports_of(path: Path, top_level: bool = False) -> set[str]:
    """Every module that a file imports, also inside functions unless only the top level is asked for."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(module: str) -> str:
    return next(room for room in FLOOR_OF if module == room or module.startswith(f"{room}."))


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if path.name != "__init__.py"])
def test_imports_go_down_the_floors(module: str) -> None:
    room = room_of(module)
    for imported in imports_of(MODULES[module]) & MODULES.keys() - {module, "detr"}:
        other = room_of(imported)
        assert (other == room and room not in SCRIPTS) or FLOOR_OF[other] < FLOOR_OF[room], (
            f"{module} imports {imported}"
        )
    if room in TORCH_FREE_ROOMS or module in TORCH_FREE_FILES:
        heavy = {"torch", "torchvision"} & {name.split(".")[0] for name in imports_of(MODULES[module])}
        assert not heavy, f"{module} imports {heavy}"


def test_no_imports_in_a_circle() -> None:
    remaining = {name: imports_of(path) & MODULES.keys() - {"detr", name} for name, path in MODULES.items()}
    while free := [name for name, imported in remaining.items() if not imported & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert not remaining, f"these import each other: {sorted(remaining)}"


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
    for path in FILES:
        assert path.name != "__init__.py" or path.read_text() == ""


def test_functions_are_short_and_args_stops_at_the_scripts() -> None:
    takes_args = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name} is over 50 lines"
                if "args" in [a.arg for a in node.args.args]:
                    takes_args.append((path, node.name))
                    assert path.parent == ROOT or path.name == "flags.py", f"{path.name}: {node.name} takes args"
    assert len(takes_args) <= 10
    assert len((ROOT / "main.py").read_text().splitlines()) <= 300


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("name", ["prep", "utils", "detr.importers.importer", "detr.sample.draw"])
def test_importing_stays_instant(name: str) -> None:
    assert imported_by(f"import {name}") == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_torch(script: str) -> None:
    run = f"import runpy; runpy.run_path('{script}.py', run_name='__main__')"
    assert imported_by(f"sys.argv = ['{script}.py', '--help']\ntry:\n    {run}\nexcept SystemExit:\n    pass") == []


def imported_by(code: str) -> list[str]:
    """Which of the packages that take seconds a program imports."""
    heavy = "print([m for m in ('torch', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{heavy}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])
