"""Downloads against a local server (good, wrong, truncated, slow and missing files), atomic files, drawing."""

import fcntl
import hashlib
import io
import os
import pty
import struct
import termios
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import utils
from detr import drawing
from tests.conftest import CONTENT, RunScript
from utils import UserError

SHA256 = hashlib.sha256(CONTENT).hexdigest()


def url(server: ThreadingHTTPServer, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


@pytest.mark.parametrize("name", ["good", "unsized"])
def test_a_good_file_arrives_once(name: str, server: ThreadingHTTPServer, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.bin"
    assert utils.download(url(server, name), path, SHA256[:8]) is True
    assert path.read_bytes() == CONTENT
    assert utils.download(url(server, name), path, SHA256[:8]) is False
    assert len(server.requests) == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "prefix", "reason"),
    [
        ("truncated", "", "1,000 of 1,048,576 bytes"),
        ("missing", "", "Not Found"),
        ("good", "badc0de", "should begin with badc0de"),
        ("stalled", "", "timed out"),
    ],
)
def test_a_failed_download_leaves_nothing_and_can_be_repeated(
    name: str, prefix: str, reason: str, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    with pytest.raises(UserError, match=reason) as failure:
        utils.download(url(server, name), path, prefix, timeout_s=0.5)
    assert url(server, name) in str(failure.value) and f"save it as {path}" in str(failure.value)
    assert list(tmp_path.iterdir()) == []
    assert utils.download(url(server, "good"), path, SHA256[:8]) is True
    assert path.read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: utils.Progress, *args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(utils.Progress, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        utils.download(url(server, "good"), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded .*refused"):
        utils.download("http://127.0.0.1:9/file.bin", tmp_path / "file.bin")


def test_a_file_that_lies_there_with_another_hash_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"file.bin: its SHA-256 does not begin with .*; delete the file"):
        utils.download("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", SHA256[:8])


def test_atomic_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert utils.write_json(path, {"a": 1}) is True
    before = path.stat().st_mtime_ns
    time.sleep(0.01)
    assert utils.write_json(path, {"a": 1}) is False and path.stat().st_mtime_ns == before
    with pytest.raises(ZeroDivisionError), utils.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == '{"a": 1}' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["é" * 125 + ".json", "a." + "b" * 253])
def test_a_file_may_have_the_longest_name_there_is(name: str, tmp_path: Path) -> None:
    assert utils.write_changed(tmp_path / name, b"1") and (tmp_path / name).read_bytes() == b"1"
    with utils.atomic_path(tmp_path / name) as temporary:
        other = tmp_path / f"c{name[1:]}"
        assert utils.write_changed(other, b"2") and temporary.suffix == Path(name).suffix[:16]
        temporary.write_bytes(b"3")
        (tmp_path / ".kept").touch()
        utils.clear_unfinished(tmp_path)
        assert not temporary.exists() and len(list(tmp_path.iterdir())) == 3
        temporary.write_bytes(b"3")
    assert (tmp_path / name).read_bytes() == b"3"


def test_mistakes_end_in_one_sentence_and_code_2(capsys: pytest.CaptureFixture) -> None:
    def fail(error: Exception):
        def main() -> None:
            raise error

        return main

    for error, message in (
        (UserError("a.json: wrong"), "error: a.json: wrong\n"),
        (PermissionError(13, "Permission denied", "out/x"), "error: out/x: Permission denied\n"),
    ):
        with pytest.raises(SystemExit) as stop:
            utils.run_script(fail(error))
        assert stop.value.code == 2 and capsys.readouterr().err == message
    with pytest.raises(KeyError):  # a defect of ours keeps its traceback
        utils.run_script(fail(KeyError("x")))


def test_progress_says_little_where_nobody_watches(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils.Progress, "LINE_EVERY_S", 0.0)
    with utils.Progress(3, "epoch 1") as bar:
        bar.update(text=lambda: "loss 2.5")
    assert capsys.readouterr().err == "epoch 1: 1 of 3 loss 2.5\n"
    monkeypatch.undo()
    with utils.Progress(3, "epoch 1") as bar:
        bar.update(text=lambda: pytest.fail("text was made for nobody"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rows_columns", [(0, 0), (24, 80)])
def test_progress_on_a_terminal_that_may_not_say_how_large_it_is(
    rows_columns: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Colab's `!` is 0 x 0."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *rows_columns, 0, 0))
    os.set_blocking(ours, False)
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with utils.Progress(3, "epoch 1"):
            pass
        shown = (screen.read(1000) or b"").decode()
    assert "epoch 1" in shown and "0/3" in shown


def test_progress_on_what_stands_in_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()  # has no file number
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    with utils.Progress(3, "epoch 1"):
        pass
    assert "epoch 1" in screen.getvalue()


def test_boxes_are_drawn_where_they_are() -> None:
    objects = [{"bbox": (40, 60, 120, 80), "text": "disc 0.93", "color": drawing.color_of(1)}]
    image = Image.new("RGB", (200, 200), "black")
    drawn = np.asarray(drawing.draw_objects(image, objects))
    color = np.array([int(drawing.color_of(1)[i : i + 2], 16) for i in (1, 3, 5)])
    painted = (drawn == color).all(-1)
    assert painted[100, 38:43].any() and painted[138:143, 100].any()
    assert not painted[80:130, 50:150].any() and not painted[150:, :].any()
    assert not np.asarray(image).any(), "the picture itself stays as it is"


def test_short_names_stay_different() -> None:
    beginning, end = "Streptococcus_pneumoniae_colony_", "_on_blood_agar_plate"
    names = [f"{beginning}{letter}{end}" for letter in "ABC"] + ["cat", f"{beginning}A", f"{beginning}B"]
    shown = drawing.short_names(names)
    assert list(shown) == names and len(set(shown.values())) == len(names)
    assert shown["cat"] == "cat" and len(shown[f"{beginning}A"]) == 22
    assert all(len(shown[name]) < len(name) or "_A_" in name or name == "cat" for name in names[3:])
    assert drawing.short_names([]) == {} and drawing.short_names(["_x$"]) == {"_x$": r" _x\$"}


# ------------------------------------------------------------------------------------------------------------- fonts


def drawn(font: ImageFont.FreeTypeFont, text: str) -> bytes:
    image = Image.new("L", (40, 40))
    ImageDraw.Draw(image).text((5, 5), text, 255, font)
    return image.tobytes()


@pytest.mark.parametrize("letter", "aéßłøğЖΩع")
def test_letters_of_europe_and_the_near_east(letter: str) -> None:
    font = drawing.load_font(20, letter)
    assert drawn(font, letter) not in (drawn(font, "\ufffe"), drawn(font, ""))


def test_letters_of_east_asia() -> None:
    font = drawing.load_font(20, "a 气球")
    if font.getname()[0] == "DejaVu Sans":
        pytest.skip(f"none of {', '.join(drawing.EAST_ASIAN)} on this machine")
    assert drawn(font, "气") not in (drawn(font, "\ufffe"), drawn(font, ""))


def test_an_unknown_letter_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "EAST_ASIAN", ())
    assert drawing.load_font(20, "气").getname()[0] == "DejaVu Sans"


def test_a_thread_computes_the_next_items_meanwhile() -> None:
    assert [*utils.map_in_thread(str, [])] == []
    assert [*utils.map_in_thread(str, range(5), 2)] == ["0", "1", "2", "3", "4"]
    done: list[int] = []
    results = utils.map_in_thread(done.append, range(4))
    next(results)
    for _ in range(500):  # by itself
        if done == [0, 1]:
            break
        time.sleep(0.01)
    assert done == [0, 1]


def test_an_error_of_an_item_comes_in_its_turn() -> None:
    made: list[int] = []
    results = utils.map_in_thread(lambda n: 1 / n, (made.append(n) or n for n in (1, 0, 2, 3, 4)), 2)
    assert next(results) == 1 and made == [1, 0, 2]  # two more than it gave
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("prep", ("--vai", "x"), "unrecognized arguments: --vai x; did you mean --via?"),
        ("main", ("--num-classes=1",), "unrecognized arguments: --num-classes=1; did you mean --num_classes?"),
        ("main", ("--epochs", 0), "argument --epochs: 0 is not 1 or more"),
        ("results", ("--qqq",), "unrecognized arguments: --qqq"),
        ("results", ("--image", "x"), "unrecognized arguments: --image x; did you mean --images?"),
    ],
)
def test_a_misspelt_flag_is_one_sentence(
    script: str, words: tuple, said: str, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run(script, *words) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
