"""Everything that is in doubt or wrong is asked in one message, with the one command that goes through."""

import os
import shlex
from pathlib import Path

import pytest

from tests.conftest import SHARED, RunScript, needs_shared
from tests.importers.via.via_files import Drawn, rect, write_set

LEFT, RIGHT = rect(3, 3, 9, 9), rect(30, 3, 9, 9)


def ask(run: RunScript, capsys: pytest.CaptureFixture, *arguments: object) -> tuple[str, list[str]]:
    """The message of a prep.py that is refused, and the arguments of the command that it ends in."""
    assert run("prep", "--weights", "none", *arguments) == 2
    error = capsys.readouterr().err
    *_, heading, last = error.splitlines()
    assert heading == "This command goes through:" and last.startswith("  python prep.py ")
    return error, shlex.split(last)[2:]


def test_all_that_is_in_doubt_is_one_list_and_the_command_answers_it(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    images = [
        Drawn(f"{n}.png", (60, 50), [(LEFT, {"label": {"cat": True, "dog": n == 3}, "mood": "x" if n else ""})])
        for n in range(8)
    ]
    images[0].regions.append((RIGHT, {"label": ""}))
    folder = write_set(tmp_path / "my photos", images)
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    error, command = ask(run, capsys, "--via", folder)
    assert error.startswith("error: 4 things") and error.count("\n- ") == 4 and not Path("data").exists()
    for fact in (
        *("label (8), mood (7)", "0.png, region 1", "3.png, region 0", "--unlabelled NAME", "--checked each"),
        *("1.png: no such image", "2.png: the image is damaged", "2 of 8 images"),
    ):
        assert fact in error
    given = ["--weights", "none", "--via", str(folder)]
    assert command == [*given, "--attribute", "label", "--skip_unlabelled", "--checked", "first", "--skip_bad_images"]
    assert run("prep", *command) == 0
    output = capsys.readouterr().out
    assert "classes: cat\n" in output and "0.png" in output.partition("Look at:")[2]  # an object of it has no class


def test_one_doubt_is_one_sentence_and_what_no_flag_mends_has_no_command(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(
        tmp_path / "set", [Drawn(f"{n}.png", (60, 50), [(LEFT, {"a": "x", "b": "y"})]) for n in range(3)]
    )
    error, command = ask(run, capsys, "--via", folder)
    assert error.startswith("error: the class may be in any of the attributes a (3), b (3)") and "\n- " not in error
    assert run("prep", *command) == 0
    for path in folder.glob("*.png"):
        path.unlink()
    capsys.readouterr()
    assert run("prep", "--weights", "none", "--via", folder) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 3 things") and "no image is left" in error and "goes through" not in error


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ([{}, {}, {}, {"note": "dark"}], ["--one_class", "set"]),  # a stray attribute
        ([{}, {}, {}, {"note": "dark"}, {}, {"mood": "x y"}], ["--one_class", "set"]),
        ([{"color": "red", "label": "cat"}, {"color": "blue", "label": "dog"}], ["--attribute", "label"]),
        ([{"note": "dark", "sort": "cat"}, {"sort": "dog"}, {"sort": "cat"}], ["--attribute", "sort"]),
        ([{"name": ""}, {"name": ""}], ["--one_class", "set"]),
        ([{"name": "cat"}, {"name": "cat"}, {}], ["--skip_unlabelled"]),
        ([{"species": "0"}, {"species": "1"}, {"species": 1}], ["--attribute", "species"]),
        ([{"ripe": "no"}, {"ripe": "no"}], ["--attribute", "ripe"]),
        ([{"ripe": True}, {"ripe": False}, {}], ["--attribute", "ripe", "--skip_unlabelled"]),
        (
            [{"kind": "cat", "n": "7"}, {"kind": "dog", "n": "9"}, {"n": "8"}],
            ["--attribute", "kind", "--skip_unlabelled"],
        ),
    ],
)
def test_the_answer_tried_is_the_likely_one(
    values: list[dict], flags: list[str], tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    images = [Drawn(f"{n}.png", (60, 50), [(LEFT, value)]) for n, value in enumerate(values)]
    folder = write_set(tmp_path / "set", images)
    _, command = ask(run, capsys, "--via", folder)
    assert command == ["--weights", "none", "--via", str(folder), *flags] and run("prep", *command) == 0


def test_what_the_user_has_said_is_not_contradicted(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    images = [Drawn(f"{n}.png", (60, 50), [(LEFT, {"name": "cat"} if n > 3 else {"name": ""})]) for n in range(6)]
    folder = write_set(tmp_path / "set", images)
    _, command = ask(run, capsys, "--via", folder, "--attribute", "name")
    assert command[-3:] == ["--attribute", "name", "--skip_unlabelled"] and run("prep", *command) == 0
    assert run("prep", "--via", folder, "--weights", "none", "--unlabelled", "dog") == 0
    write_set(folder, [image._replace(regions=[(LEFT, {"name": ""})]) for image in images])
    capsys.readouterr()
    assert run("prep", "--via", folder, "--weights", "none", "--unlabelled", "dog") == 0
    assert "classes: dog\n" in capsys.readouterr().out


def test_the_class_named_after_the_folder_is_said_with_the_flag_that_changes_it(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    write_set(tmp_path / "discs", [Drawn(f"{n}.png", (60, 50), [(LEFT, {})]) for n in range(6)])
    assert run("prep", "--via", "discs", "--weights", "none") == 0
    output = capsys.readouterr().out
    assert "objects of class discs, named after the folder" in output and "--one_class" in output
    for flags in (("--one_class", "disc"), ("--categories", "disc")):
        assert run("prep", "--via", "discs", "--weights", "none", *flags) == 0
        output = capsys.readouterr().out
        assert "named after" not in output and "file_attributes" not in output


def test_a_folder_whose_name_is_not_utf_8_is_a_class_all_the_same(tmp_path: Path, run: RunScript) -> None:
    folder = write_set(tmp_path / os.fsdecode(b"caf\xe9"), [Drawn(f"{n}.png", (60, 50), [(LEFT, {})]) for n in (1, 2)])
    assert run("prep", "--via", folder, "--weights", "none") == 0
    assert '"name": "caf?"' in Path("data/custom/annotations/custom_val.json").read_text()


def test_classes_of_whole_images_are_not_read_and_that_is_said(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(tmp_path / "discs", [Drawn(f"{n}.png", (60, 50), [(LEFT, {})]) for n in range(6)])
    path = folder / "annotations.json"
    path.write_text(path.read_text().replace('"file_attributes": {}', '"file_attributes": {"species": "cat"}'))
    assert run("prep", "--via", folder, "--weights", "none") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "values in file_attributes, which are not read" in output and "(0.png: species = 'cat'; 1.png" in output


@needs_shared
@pytest.mark.parametrize(
    "folder", sorted(p.name for kind in ("via_cases", "via_samples") for p in (SHARED / kind).glob("*"))
)
def test_every_real_folder_goes_through_with_two_commands(
    folder: str, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    (path,) = (SHARED / kind / folder for kind in ("via_cases", "via_samples") if (SHARED / kind / folder).is_dir())
    if run("prep", "--weights", "none", "--via", path):
        *_, heading, last = capsys.readouterr().err.splitlines()
        assert heading == "This command goes through:" and run("prep", *shlex.split(last)[2:]) == 0
    assert Path("data/custom/report.json").exists()
