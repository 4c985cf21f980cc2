"""Two processes on a CPU are one run: same gradients, same evaluation, one writer."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from detr.data.dataset import CocoDetection, LabelMap
from detr.data.sampler import AspectRatioBatchSampler, SameSizeBatchSampler
from detr.models.detr import Detr, DetrConfig
from tests.conftest import ROOT, TINY, RunScript
from tests.test_main import read_log, weights
from utils import UserError

pytestmark = pytest.mark.long

SMALL = DetrConfig(
    2, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, dim_feedforward=64, num_queries=8
)
SAME_GRADIENTS = (
    "--resume", "start.pth", "--dropout", 0, "--lr", 0, "--lr_backbone", 0.0, "--no_augment", "--amp", "off",
    "--epochs", 1, "--clip_max_norm", 0, *TINY[TINY.index("--scales") :],
)  # fmt: skip


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COCO folder of noise with images of one size, so that nothing is padded: 5 to train on, 3 to evaluate on."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        folder = Path(f"data/custom/{split}2017")
        folder.mkdir(parents=True)
        coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}
        for number in range(1, count + 1):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            coco["images"].append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
            for _ in range(number):  # the classes' and boxes' normalizers differ from image to image
                box = [*rng.integers(0, 30, 2).tolist(), *rng.integers(5, 30, 2).tolist()]
                entry = {"id": len(coco["annotations"]) + 1, "image_id": number, "category_id": number % 2 + 1}
                coco["annotations"].append(entry | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        path = Path(f"data/custom/annotations/custom_{split}.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco))
    torch.manual_seed(0)
    torch.save({"model": Detr(SMALL).state_dict(), "config": SMALL.__dict__}, "start.pth")
    return tmp_path


def torchrun(processes: int, *arguments: object, script: Path = ROOT / "main.py", wait: bool = True) -> tuple:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes, script]
    process = subprocess.Popen(
        list(map(str, [*command, *arguments])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    if not wait:
        return process
    output, error = process.communicate(timeout=120)
    return process.returncode, output, error


def test_two_processes_equal_one(coco: Path, run: RunScript) -> None:
    """Gradients (their running mean, as the learning rate is 0), the log and the detections; accumulating too."""
    assert run("main", *SAME_GRADIENTS, "--batch_size", 4, "--output_dir", "one") == 0
    code, output, error = torchrun(2, *SAME_GRADIENTS, "--batch_size", 2, "--output_dir", "two")
    assert code == 0, error
    assert "Warning" not in error, error
    assert output.count("epoch 1/1") == 1 and output.count("parameters to train") == 1
    code, _, error = torchrun(2, *SAME_GRADIENTS, "--batch_size", 1, "--accumulate", 2, "--output_dir", "four")
    assert code == 0, error
    assert run("main", *SAME_GRADIENTS, "--batch_size", 2, "--accumulate", 2, "--output_dir", "half") == 0
    one = weights("one/checkpoint.pth")["optimizer"]["state"]
    for name in ("two", "four", "half"):
        other = weights(f"{name}/checkpoint.pth")["optimizer"]["state"]
        assert one.keys() == other.keys() and len(one) > 50
        a, b = (torch.cat([state["exp_avg"].flatten() for state in states.values()]) for states in (one, other))
        assert (a - b).norm() < 1e-4 * a.norm() and a.norm() > 0
        for key, value in read_log("one")[0].items():
            if key.startswith(("train_", "test_coco")):
                assert read_log(name)[0][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    # Losses of an evaluation are means over its batches, so that these have to be the same.
    assert read_log("two")[0]["test_loss"] == pytest.approx(read_log("half")[0]["test_loss"], rel=1e-5)
    for name in ("two", "four"):
        predictions = [json.loads(Path(f"{folder}/predictions.json").read_text()) for folder in ("one", name)]
        assert [p["image_id"] for p in predictions[0]] == [p["image_id"] for p in predictions[1]]
        scores = [[p["score"] for p in found] for found in predictions]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5) and len(scores[0]) == 3 * 8


def test_two_processes_go_on_after_a_stop(coco: Path) -> None:
    command = (*SAME_GRADIENTS[2:], "--weights", "start.pth", "--resume", "auto", "--batch_size", 1, "--epochs", 500)
    process = torchrun(2, *command, wait=False)
    while "epoch 2/500" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    os.kill(process.pid, signal.SIGTERM)  # torchrun passes it on
    _, error = process.communicate(timeout=60)
    assert "outputs/checkpoint.pth is saved. To resume, run the same command with --resume auto" in error
    saved = weights("outputs/checkpoint.pth")
    assert len(saved["rng"]) == 2 and not torch.equal(saved["rng"][0]["torch"], saved["rng"][1]["torch"])
    done = saved["epoch"] + 2
    code, _, error = torchrun(2, *command[:-1], done)
    assert code == 0 and [line["epoch"] for line in read_log()] == list(range(done)), error


def test_a_process_that_dies_ends_the_run_with_a_message(coco: Path) -> None:
    script = coco / "dies.py"
    script.write_text(
        "import os, main, utils\n"
        "from detr.training.meters import MetricLogger\n"
        "update, calls = MetricLogger.update, []\n"
        "def die(*inputs):\n"
        "    calls.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(calls) == 2:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return update(*inputs)\n"
        "MetricLogger.update = die\n"
        "utils.run_script(main.main)\n"
    )
    began = time.monotonic()
    code, _, error = torchrun(2, *SAME_GRADIENTS, "--batch_size", 1, script=script)
    assert code != 0 and time.monotonic() - began < 60
    assert "error: another process of this run has ended or cannot be reached" in error


def images_of(count: int) -> CocoDetection:
    coco = {
        "images": [{"id": n, "file_name": f"{n}", "width": 8 + n % 7, "height": 9} for n in range(1, count + 1)],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }

    def view(size_hw: tuple[int, int], _: np.random.Generator) -> object:
        from detr.data.transforms import AugmentParams

        return AugmentParams((0, 0, *size_hw[::-1]), size_hw, False)

    return CocoDetection(coco, Path("images"), LabelMap(coco["categories"]), view, 0)


@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate", "processes"), [(40, 2, 3, 2), (7, 1, 1, 3), (3, 4, 2, 2)]
)
def test_the_processes_share_out_the_same_updates(count: int, batch_size: int, accumulate: int, processes: int) -> None:
    images = images_of(count)
    alone = AspectRatioBatchSampler(images, batch_size * accumulate * processes, seed=1)
    shares = [AspectRatioBatchSampler(images, batch_size, 1, accumulate, rank, processes) for rank in range(processes)]
    for epoch in range(3):
        alone.set_epoch(epoch)
        for share in shares:
            share.set_epoch(alone.epoch)
        assert all(len(list(share)) == len(share) for share in shares)
        batches = [list(share) for share in shares]
        for number, whole in enumerate(alone):
            mine = slice(number * accumulate, (number + 1) * accumulate)
            split = [key for own in batches for batch in own[mine] for key in batch]
            assert sorted(split) == sorted(whole) and all(own[mine] for own in batches)
        assert all(len(batch) <= batch_size for own in batches for batch in own)
        for share in shares:
            share.set_epoch(alone.epoch, first_step=1)
            assert list(share) == batches[share.rank][accumulate:]
    evaluated = [
        key for rank in range(processes) for b in SameSizeBatchSampler(images, 2, rank, processes) for key in b
    ]
    assert sorted(evaluated) == [(0, index) for index in range(count)]


def test_too_few_images_for_the_processes() -> None:
    with pytest.raises(UserError, match="images: 2 images are too few to share among 3 processes"):
        AspectRatioBatchSampler(images_of(2), 1, 0, world_size=3)


def test_processes_without_a_local_rank_are_told_of_torchrun(
    coco: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As a scheduler starts them that is not torchrun."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert run("main") == 2
    error = capsys.readouterr().err
    assert "LOCAL_RANK is not set" in error and "torchrun" in error and error.count("\n") == 1


FETCHES = """
import torchvision, main, utils
object.__setattr__(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value, "url", {url!r})
utils.run_script(main.main)
"""


def test_weights_are_downloaded_once_for_all_processes(
    coco: Path, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of ImageNet, by a library that prints while it downloads; and where that fails, every process ends."""
    state = io.BytesIO()
    torch.save(torchvision.models.resnet18().state_dict(), state)
    server.content = state.getvalue()
    name = f"resnet18-{hashlib.sha256(server.content).hexdigest()[:8]}.pth"
    monkeypatch.setenv("TORCH_HOME", str(coco / "cache"))
    script = coco / "fetches.py"
    script.write_text(FETCHES.format(url=f"http://127.0.0.1:{server.server_port}/good/{name}"))
    command = (*TINY, "--epochs", 1, "--batch_size", 1)
    code, output, error = torchrun(2, *command, script=script)
    assert code == 0 and "backbone started from imagenet" in output, error
    assert server.requests == [f"/good/{name}"]
    script.write_text(FETCHES.format(url=f"http://127.0.0.1:{server.server_port}/gone/{name[:-4]}x.pth"))
    began = time.monotonic()
    code, _, error = torchrun(2, *command, "--output_dir", "other", script=script)
    assert code != 0 and time.monotonic() - began < 60 and len(server.requests) == 2
    assert "error: the ImageNet weights of resnet18 could not be downloaded" in error


def test_all_processes_evaluate_the_same_statistics(coco: Path, run: RunScript) -> None:
    """Live BatchNorm estimates on each process's own images; the file has the first process's, which all must use."""
    command = (*TINY, "--backbone_weights", "none", "--ema_decay", 0, "--epochs", 1, "--batch_size", 2, "--amp", "off")
    code, _, error = torchrun(2, *command)
    assert code == 0, error
    path = Path("outputs/predictions.json")
    shared = [(p["image_id"], p["score"]) for p in json.loads(path.read_text())]
    path.unlink()
    assert run("main", "--eval", "--batch_size", 2, "--amp", "off", *TINY[-4:]) == 0
    alone = [(p["image_id"], p["score"]) for p in json.loads(path.read_text())]
    assert len(alone) == 24 and np.array(shared) == pytest.approx(np.array(alone), abs=1e-5)
