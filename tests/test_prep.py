"""prep.py as a user runs it."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

import prep
import utils
from detr.drawing import color_of
from detr.models.detr import Detr, DetrConfig
from tests.conftest import ROOT, TINY, RunScript

SMALL = DetrConfig(91, backbone="resnet18", hidden_dim=32, nheads=8, enc_layers=1, dec_layers=2, num_queries=5)


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_does_nothing_twice(via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    arguments = ("prep", "--via", via_folder, "--weights", "none")
    assert run(*arguments) == 0
    output = capsys.readouterr().out
    assert "train: 6 images, 6 objects" in output and "val: 3 images, 3 objects" in output
    assert "python main.py --dataset_file custom --coco_path data/custom --output_dir outputs --num_classes 1" in output
    made = stamps(Path("data"))
    assert {path.name for path in made} >= {"custom_train.json", "custom_val.json", "report.json", "report.png"}
    assert len(made) == 4 + 9
    assert run(*arguments) == 0
    assert stamps(Path("data")) == made


def test_the_class_is_named_after_the_folder_or_as_told(via_folder: Path, run: RunScript) -> None:
    for extra, name in (([], "discs"), (["--categories", "coin"], "coin")):
        assert run("prep", "--via", via_folder, "--weights", "none", *extra) == 0
        coco = json.loads(Path("data/custom/annotations/custom_val.json").read_text())
        assert coco["categories"] == [{"id": 1, "name": name}]


def test_nothing_is_written_when_a_split_is_wrong(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    (via_folder / "val" / "disc01.png").unlink()
    assert run("prep", "--via", via_folder, "--weights", "none") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "disc01.png: no such image" in error
    assert not Path("data").exists()


def test_weights_are_stripped_once(via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    torch.save({"model": Detr(SMALL).state_dict()}, "mine.pth")
    arguments = ("prep", "--via", via_folder, "--weights", "mine.pth")
    assert run(*arguments) == 0
    assert "--resume mine_no-class-head.pth --num_classes 1" in capsys.readouterr().out
    before = stamps(Path())
    assert run(*arguments) == 0
    assert stamps(Path()) == before
    stripped = torch.load("mine_no-class-head.pth", weights_only=True)
    assert stripped["config"]["backbone"] == "resnet18" and "class_embed.bias" not in stripped["model"]


def test_unknown_weights_are_refused_before_any_work(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("prep", "--via", via_folder, "--weights", "detr-r51") == 2
    assert (
        "accepted: detr-r50, detr-r50-dc5, detr-r101, detr-r101-dc5, detr-r50-panoptic, detr-r50-dc5-panoptic, "
        "detr-r101-panoptic, detr-small, none, or a file" in capsys.readouterr().err
    )
    assert not Path("data").exists()


def test_public_weights_are_fetched_checked_and_stripped(
    via_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fake_download(url: str, path: Path, sha256_prefix: str, otherwise: str) -> bool:
        asked.append((url, str(path), sha256_prefix))
        torch.save({"model": Detr(SMALL).state_dict()}, path)
        return True

    monkeypatch.setattr(utils, "download", fake_download)
    for _ in range(2):
        assert run("prep", "--via", via_folder, "--weights", "detr-r50-dc5") == 0
    name = "detr-r50-dc5-f0fb7ef5.pth"
    assert asked == [(f"https://dl.fbaipublicfiles.com/detr/{name}", name, "f0fb7ef5")]
    assert torch.load("detr-r50-dc5_no-class-head.pth", weights_only=True)["config"]["dilation"] is True


def balloon_zip(via_folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for path in via_folder.rglob("*"):
            file.write(path, Path("balloon") / path.relative_to(via_folder))
        file.writestr("__MACOSX/balloon/._train", b"")
    return packed.getvalue()


def test_the_balloon_photographs_are_fetched_and_unpacked_once(
    via_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fake_download(url: str, path: Path, otherwise: str) -> bool:
        fetched.append(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(balloon_zip(via_folder))
        return True

    monkeypatch.setattr(utils, "download", fake_download)
    for _ in range(2):
        assert run("prep", "--weights", "none") == 0
    assert fetched == [prep.BALLOON_URL]
    assert sorted(path.name for path in Path("data").iterdir()) == ["balloon", "balloon_dataset.zip", "custom"]
    coco = json.loads(Path("data/custom/annotations/custom_train.json").read_text())
    assert coco["categories"][0]["name"] == "balloon" and len(coco["images"]) == 6


def test_the_next_command_is_quoted_for_the_shell_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed() -> str:
        return prep.next_command(Path("my data"), "none", {"categories": [{"name": "cat"}], "annotations": []})

    assert "--coco_path 'my data' --output_dir" in printed()
    monkeypatch.setattr(utils, "os", SimpleNamespace(name="nt"))
    assert '--coco_path "my data" --output_dir' in printed()


@pytest.mark.parametrize(
    ("weights", "segmentation", "masks"),
    [("detr-r50-panoptic", [[0, 0, 9, 0, 9, 9]], True), ("detr-r50-panoptic", [], False),
     ("detr-r50", [[0, 0, 9, 0, 9, 9]], False)],
)  # fmt: skip
def test_masks_are_trained_where_weights_and_annotations_have_them(
    weights: str, segmentation: list, masks: bool
) -> None:
    coco = {"categories": [{"name": "cat"}], "annotations": [{"segmentation": segmentation}]}
    assert prep.next_command(Path("data"), weights, coco).endswith("--masks") is masks


def test_without_a_network_the_way_without_one_is_named(
    via_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prep, "BALLOON_URL", "http://127.0.0.1:9/balloon.zip")
    monkeypatch.setattr(prep, "PUBLIC_URL", "http://127.0.0.1:9/")
    assert run("prep") == 2
    assert capsys.readouterr().err.endswith("; python prep.py --sample needs no network\n")
    assert run("prep", "--via", via_folder) == 2
    assert capsys.readouterr().err.endswith("; --weights detr-small is small and needs no network\n")


@pytest.mark.parametrize("content", [b"<html>", b""])
def test_a_damaged_zip_leaves_no_folder(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(prep.UserError, match=r"a.zip: not a whole zip file"):
        prep.unpack(tmp_path / "a.zip", "balloon/", tmp_path / "balloon")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_cannot_escape_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("balloon/a.txt", "good")
        file.writestr("balloon/../../evil.txt", "bad")
    prep.unpack(tmp_path / "a.zip", "balloon/", tmp_path / "in" / "balloon")
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path.parent / "evil.txt").exists()
    assert (tmp_path / "in/balloon/a.txt").read_text() == "good"


def test_the_picture_shows_outlines(coco_folder: Path) -> None:
    with Image.open(coco_folder / "report.png") as picture:
        samples = np.asarray(picture.convert("RGB").crop((0, 0, picture.width, picture.height // 2))).astype(int)
    assert (abs(samples - ImageColor.getrgb(color_of(1))).sum(-1) < 30).sum() > 100


def test_images_of_another_dataset_are_not_taken_for_the_same(
    coco_folder: Path, via_folder: Path, run: RunScript
) -> None:
    """Equal names, sizes and times: only the content tells them apart."""
    origin = via_folder / "train" / "disc00.png"
    before, times = origin.read_bytes(), origin.stat()
    with Image.open(origin) as image:
        pixels = np.asarray(image.convert("RGB")).copy()
    for shade in range(256):  # a picture whose file is as long
        pixels[0, 0] = shade, (shade * 7) % 256, 3
        Image.fromarray(pixels).save(origin)
        if origin.stat().st_size == len(before) and origin.read_bytes() != before:
            break
    os.utime(origin, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run("prep", "--via", via_folder, "--weights", "none", "--categories", "disc") == 0
    assert (coco_folder / "train2017" / "disc00.png").read_bytes() == origin.read_bytes()


@pytest.mark.parametrize("same", [".", "../in", "link"])
def test_what_is_imported_is_never_overwritten(
    same: str, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """A folder that is input and output: nothing is written, unless it would stay as it is."""
    folder = coco_folder.rename("in")
    Path("link").symlink_to("in")
    output = folder / same if same[0] == "." else same
    arguments = ("prep", "--coco", folder, "--coco_path", output, "--weights", "none")
    assert run(*arguments) == 0
    Image.fromarray(np.full((72, 96), 4000, np.uint16)).save(folder / "train2017" / "disc00.png")
    before = stamps(folder)
    capsys.readouterr()
    for flags in ((), ("--one_class", "x")):
        assert run(*arguments, *flags) == 2
        error = capsys.readouterr().err
        assert "custom_train.json is imported, and would be overwritten" in error
        assert "--coco_path" in error and error.count("\n") == 1 and stamps(folder) == before
    assert run("prep", "--coco", folder, "--coco_path", folder / "out", "--weights", "none") == 0


def test_output_around_the_images_or_into_their_folder(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    for coco_path in (".", via_folder, via_folder / "data"):
        for _ in range(2):
            assert run("prep", "--via", via_folder, "--coco_path", coco_path, "--weights", "none") == 0
    Path("set").mkdir()
    images = (via_folder / "train").rename("set/train2017")
    file = (images / "via_region_data.json").rename("set/via.json")
    Image.fromarray(np.full((72, 96), 4000, np.uint16)).save(images / "disc00.png")
    before = stamps(Path("set"))
    arguments = ("--via", file, "--images", images, "--coco_path", "set", "--weights", "none", "--val_fraction", 0)
    assert run("prep", *arguments) == 2 and stamps(Path("set")) == before
    assert "set/train2017/disc00.png is imported, and would be overwritten" in capsys.readouterr().err


def test_deep_images_are_scaled_by_one_rule_for_the_whole_dataset(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """Images of 12 bits in files of 16, and of fractions, neither black nor each as bright as it can be."""
    for split, number, top in (("train", 0, 255), ("train", 1, 256), ("val", 0, 4000)):
        Image.fromarray(np.full((72, 96 + 8 * number), top, np.uint16)).save(via_folder / split / f"disc0{number}.png")
    Image.fromarray(np.full((72, 112), 0.4, np.float32)).save(via_folder / "train" / "disc02.png", "TIFF")
    arguments = ("prep", "--via", via_folder, "--weights", "none", "--categories", "disc")
    for flags, white in (((), {"I": 4095, "F": 1}), (("--white", 8000), {"I": 8000, "F": 8000})):
        assert run(*arguments, *flags) == 0
        output = capsys.readouterr().out
        assert f"{white['I']:,} as white" in output and "disc00.png" in output
        for name, kind, top in (
            *(("train2017/disc00.png", "I", 255), ("train2017/disc01.png", "I", 256)),
            *(("val2017/disc00.png", "I", 4000), ("train2017/disc02.png", "F", 0.4)),
        ):
            with Image.open(f"data/custom/{name}") as image:
                assert (
                    image.mode == "L" and image.getextrema() == (pytest.approx(255 * top / white[kind], abs=0.5),) * 2
                )
        coco = json.loads(Path("data/custom/annotations/custom_val.json").read_text())
        assert coco["info"] == {"white": white}
    before = stamps(Path("data"))
    assert run(*arguments, "--white", 8000) == 0 and stamps(Path("data")) == before
    report = json.loads(Path("data/custom/report.json").read_text())
    assert [note["count"] for note in report["splits"]["train"]["notes"] if "8 bits" in note["what"]] == [2, 1]


def test_the_scale_of_deep_images_is_of_no_use_without_any(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("prep", "--via", via_folder, "--weights", "none", "--white", 4095) == 2
    assert "--white 4095" in capsys.readouterr().err and not Path("data").exists()


def test_the_weights_of_a_run_are_those_of_its_detector(coco_folder: Path, run: RunScript) -> None:
    """The EMA, where there is one, is what was evaluated."""
    start = (*TINY, "--backbone_weights", "none", "--epochs", 1, "--lr", 1e-2)
    assert run("main", *start, "--ema_decay", 0.9) == 0
    assert run("prep", "--via", "discs", "--categories", "disc", "--weights", "outputs/checkpoint.pth") == 0
    stripped = torch.load("outputs/checkpoint_no-class-head.pth", weights_only=True)["model"]
    saved = torch.load("outputs/checkpoint.pth", weights_only=True)
    name = "transformer.decoder.norm.weight"
    assert torch.equal(stripped[name], saved["ema"][name]) and not torch.equal(saved["ema"][name], saved["model"][name])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--coco", "in", "--attribute", "kind"), "--attribute"),
        (("--coco", "in", "--background", "photos"), "--background"),
        (("--one_class", "a", "--categories", "a,b"), "--categories"),
        (("--unlabelled", "a", "--skip_unlabelled"), "--unlabelled"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(
    flags: tuple, named: str, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    via = () if "--coco" in flags else ("--via", "missing")
    assert run("prep", *flags, *via) == 2
    error = capsys.readouterr().err
    assert flags[0] in error and named in error and error.count("\n") == 1


def test_a_console_that_cannot_print_a_class_gets_other_letters(via_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "prep.py"), "--via", str(via_folder), "--weights", "none"]
    done = subprocess.run(
        [*command, "--one_class", "воздушный шар"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"classes: ?" in done.stdout
    coco = json.loads((tmp_path / "data/custom/annotations/custom_val.json").read_text(encoding="utf-8"))
    assert [category["name"] for category in coco["categories"]] == ["воздушный шар"]
