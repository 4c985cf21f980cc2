"""The tests turn red where they should: each fault of `mutations.py` in a copy of the project, and its test."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.mutations import MUTATIONS, ON_A_GPU, Mutation

CODE = ("prep.py", "main.py", "results.py", "utils.py", "pyproject.toml", "detr", "tests")


def run_tests(folder: Path, *tests: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-m", "slow or not slow", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's code, to be spoilt."""
    folder = tmp_path_factory.mktemp("mutated") / "project"
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    return folder


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_list_is_that_of_the_code(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.before) == 1
    file, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_there_are_enough_of_a_gpu() -> None:
    assert len(ON_A_GPU) >= 10


@pytest.mark.slow
def test_without_a_fault_each_test_passes(copy: Path) -> None:
    done = run_tests(copy, *dict.fromkeys(mutation.test for mutation in MUTATIONS))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_turns_its_test_red(mutation: Mutation, copy: Path) -> None:
    path = copy / mutation.file
    whole = path.read_text()
    try:
        path.write_text(whole.replace(mutation.before, mutation.after))
        done = run_tests(copy, mutation.test)
    finally:
        path.write_text(whole)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error during collection" not in done.stdout
