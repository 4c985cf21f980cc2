"""Runs that are killed, stopped, starved and spoilt: nothing is lost, and the user is told what to do."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

import main
import utils
from detr.training.run_files import locked_dir
from tests.conftest import ROOT, TINY, RunScript
from tests.test_main import SCRATCH, read_log, weights, without_accounts

pytestmark = pytest.mark.long

# Everything that has a state: dropout, average, live BatchNorm, query groups, a rate that changes with every step.
EVENTFUL = (
    *SCRATCH, "--batch_size", 1, "--save_every_steps", 1, "--resume", "auto", "--ema_decay", 0.9,
    "--query_groups", 2, "--lr_schedule", "cosine", "--warmup_steps", 3, "--color_jitter", 0.2, "--amp", "off",
)  # fmt: skip


def start(*arguments: object, **options: object) -> subprocess.Popen:
    """main.py in a process, and a process group, of its own."""
    command = [sys.executable, ROOT / "main.py", *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Read what the process prints up to the line that holds `text`."""
    while text not in (line := process.stdout.readline()):
        assert line, process.stderr.read()


def wait_for_save(process: subprocess.Popen, path: Path) -> None:
    """Wait until the process has replaced the file once more."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while (path.stat().st_mtime_ns if path.exists() else 0) == before:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_and_resume(kills: int) -> None:
    """Compare a run that was killed so many times with one that was not, bit for bit."""
    command = (*EVENTFUL, "--epochs", kills + 2)
    undisturbed = start(*command, "--output_dir", "whole")
    moments = random.Random(0)
    for _ in range(kills):  # each comes less than an epoch further
        process = start(*command, "--output_dir", "killed")
        wait_for(process, "parameters to train")
        for _ in range(moments.randrange(5)):
            wait_for_save(process, Path("killed/checkpoint.pth"))
        time.sleep(moments.uniform(0, 0.05))
        kill(process)
    _, error = undisturbed.communicate()
    assert undisturbed.returncode == 0, error
    last = start(*command, "--output_dir", "killed")
    output, error = last.communicate()
    assert last.returncode == 0, output + error
    whole, killed = weights("whole/checkpoint.pth"), weights("killed/checkpoint.pth")
    for part in ("model", "ema", "train_only"):
        assert all(torch.equal(whole[part][name], value) for name, value in killed[part].items())
    assert without_accounts(read_log("whole")) == without_accounts(read_log("killed"))
    assert Path("whole/predictions.json").read_text() == Path("killed/predictions.json").read_text()
    best = [weights(f"{folder}/checkpoint_best.pth")["model"] for folder in ("whole", "killed")]
    assert all(torch.equal(best[0][name], value) for name, value in best[1].items())
    leftovers = [path for path in Path("killed").iterdir() if ".part" in path.name]
    assert not leftovers, "what a killed run left half-written is cleared away by the next"


def test_three_kills_change_nothing(coco_folder: Path) -> None:
    kill_and_resume(3)


@pytest.mark.slow
def test_thirty_kills_change_nothing(coco_folder: Path) -> None:
    kill_and_resume(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_finishes_its_step_and_says_how_to_go_on(number: int, coco_folder: Path) -> None:
    command = (*SCRATCH, "--batch_size", 1, "--epochs", 300, "--resume", "auto", "--num_workers", 2)
    process = start(*command)
    wait_for(process, "epoch 2/300")
    os.killpg(process.pid, number)  # as a terminal does: the processes that load images get it too
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in error, error
    assert error.count("stopping after this step") == 1
    assert "outputs/checkpoint.pth is saved. To resume, run the same command with --resume auto" in error
    saved = weights("outputs/checkpoint.pth")
    assert saved["epoch"] >= 1 and len(read_log()) == saved["epoch"] + 1
    done = saved["epoch"] + 2
    again = start(*command[: command.index(300)], done, *command[command.index(300) + 1 :])
    output, error = again.communicate(timeout=60)
    assert again.returncode == 0 and [line["epoch"] for line in read_log()] == list(range(done)), output + error


def test_a_second_run_in_a_folder_that_is_in_use_is_refused(coco_folder: Path) -> None:
    first = start(*SCRATCH, "--epochs", 300, "--resume", "auto", "--num_workers", 2)
    wait_for(first, "epoch 2/300")
    _, error = start(*SCRATCH, "--epochs", 300, "--resume", "auto").communicate(timeout=60)
    assert error.startswith("error: outputs is in use") and error.count("\n") == 1
    assert first.poll() is None
    first.kill()  # alone: the processes that load its images live on for a moment, and keep nothing from anybody
    third = start(*SCRATCH, "--epochs", 300, "--resume", "auto")
    wait_for(third, "epoch")
    kill(third)
    first.communicate()


def test_a_stop_between_training_and_evaluation_leaves_only_the_evaluation(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*SCRATCH, "--epochs", 3, "--resume", "auto")

    def stopped(parts: main.Session, *_: object) -> None:
        raise utils.Stopped("", signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(main, "evaluate_one_epoch", stopped)
        assert run("main", *command) == 128 + signal.SIGTERM
    assert run("main", *command) == 0
    times_left = [line.endswith(" left") for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert times_left == [False, True, False], "what an evaluation takes does not tell how long an epoch takes"
    assert [line["epoch"] for line in read_log()] == [0, 1, 2]


def limit_files() -> None:
    """Let no file grow beyond 1 MiB: what a full disk does to a checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    before = Path("outputs/checkpoint.pth").read_bytes()
    process = start(*SCRATCH, "--epochs", 2, "--resume", "auto", preexec_fn=limit_files)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in error
    assert (
        "error: outputs/checkpoint" in error
        and "could not be written (File too large; " in error
        and "what was saved before is as it was" in error
    )
    assert Path("outputs/checkpoint.pth").read_bytes() == before
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 0
    assert [line["epoch"] for line in read_log()] == [0, 1]


def test_a_disk_without_room_is_named_before_training(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30 - 2**20, 2**20))
    assert run("main", *SCRATCH, "--epochs", 1) == 2
    error = capsys.readouterr().err
    assert "error: outputs: the run's checkpoints will need" in error and "MiB, and 1 MiB are free there" in error
    assert not Path("outputs/log.txt").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named_before_training(coco_folder: Path, run: RunScript) -> None:
    Path("outputs").mkdir(mode=0o500)
    assert run("main", *SCRATCH, "--epochs", 1) == 2


def test_an_output_folder_that_is_a_file_is_named(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    Path("outputs").write_text("")
    assert run("main", *SCRATCH, "--epochs", 1) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: outputs: is a file") and "--output_dir" in error


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_spoils_after_the_start_is_named(
    workers: int, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detr.data import dataset as data

    check = data.check_images

    def check_and_spoil(coco: dict, folder: Path) -> None:
        check(coco, folder)
        if folder.name == "train2017":
            path = folder / "disc03.png"
            path.write_bytes(path.read_bytes()[:200])

    monkeypatch.setattr(data, "check_images", check_and_spoil)
    assert run("main", *SCRATCH, "--epochs", 1, "--num_workers", workers) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data/custom/train2017/disc03.png: ") and error.count("\n") == 1


WAITING = "data.read_rgb = lambda *_: os.kill(os.getpid(), 9)"
COMPUTING = (
    "import time, detr.training.ema as ema, multiprocessing\n"
    "update = ema.ModelEma.update\n"
    "def kill(*inputs):\n"
    "    os.kill(multiprocessing.active_children()[0].pid, 9)\n"
    "    time.sleep(1)\n"
    "    return update(*inputs)\n"
    "ema.ModelEma.update = kill"
)


@pytest.mark.parametrize("meanwhile", [WAITING, COMPUTING], ids=["waiting", "computing"])
def test_a_loader_process_that_dies_is_named(meanwhile: str, coco_folder: Path) -> None:
    """Whatever the main process is doing when it hears of it."""
    code = f"import os, sys, detr.data.dataset as data, main, utils\n{meanwhile}\nutils.run_script(main.main)"
    command = [sys.executable, "-c", code, *map(str, SCRATCH), "--epochs", "1", "--num_workers", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: a process that loads images has died (DataLoader worker (pid" in done.stderr
    assert "--num_workers" in done.stderr


def test_a_stop_that_reaches_every_process_is_saved(coco_folder: Path) -> None:
    """Some schedulers, and a machine that shuts down, signal the processes that load images too."""
    process = start(*SCRATCH, "--batch_size", 1, "--epochs", 300, "--num_workers", 2)
    wait_for(process, "epoch 2/300")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in error, error
    assert "outputs/checkpoint.pth is saved" in error and weights("outputs/checkpoint.pth")["epoch"] >= 0


@pytest.mark.slow
def test_processes_that_are_spawned_load_the_same(coco_folder: Path) -> None:
    """As on macOS and Windows."""
    logs = {}
    for method in ("fork", "spawn"):
        code = (
            "import multiprocessing, sys, main, utils\n"
            "if __name__ == '__main__':\n"
            f"    multiprocessing.set_start_method('{method}')\n"
            "    utils.run_script(main.main)"
        )
        Path(f"{method}.py").write_text(code)
        command = [sys.executable, f"{method}.py", *map(str, SCRATCH), "--epochs", "1", "--num_workers", "2"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--output_dir", method], capture_output=True, text=True, env=env, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        logs[method] = without_accounts(read_log(method))
    assert logs["fork"] == logs["spawn"]


def test_steps_that_are_not_finite_leave_a_report(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detr.data import dataset as data

    apply = data.to_tensor
    monkeypatch.setattr(data, "to_tensor", lambda image, factors: apply(image, factors) * float("nan"))
    assert run("main", *SCRATCH, "--epochs", 1, "--skip_nonfinite", 1) == 2
    captured = capsys.readouterr()
    for step in (1, 2):
        path = Path(f"outputs/nonfinite_epoch1_step{step}.json")
        assert f"step {step} is not finite and was left out; its batch is in {path}" in captured.out
        report = json.loads(path.read_text())
        assert report["losses"]["loss"] == "nan" and len(report["images"]) == 2
    assert "epoch 1/1, step 2, images [" in captured.err and not Path("outputs/checkpoint.pth").exists()


def test_patience_ends_a_run_and_is_remembered(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    command = ("main", *SCRATCH, "--epochs", 50, "--lr", 0, "--lr_backbone", 0, "--patience", 2, "--resume", "auto")
    command = (*command, "--ema_decay", 0, "--batch_norm", "train", "--save_every", 10)
    assert run(*command) == 0
    best = weights("outputs/checkpoint.pth")["best"]["epoch"]
    assert len(read_log()) == best + 3 < 50
    assert "stopping: no better AP in 2 epochs" in capsys.readouterr().out
    assert run(*command) == 0
    assert f"the best was epoch {best + 1}: --patience 2 is used up" in capsys.readouterr().out


def test_evaluating_the_best_file_gives_the_logs_numbers(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """Also where the average of the weights is what was evaluated."""
    assert run("main", *TINY, "--backbone_weights", "none", "--epochs", 3, "--ema_decay", 0.5, "--lr", 1e-3) == 0
    best = weights("outputs/checkpoint_best.pth")["best"]
    logged = read_log()[best["epoch"]]["test_coco_eval_bbox"]
    capsys.readouterr()
    assert run("main", "--eval", "--device", "cpu", "--num_workers", 0) == 0
    shown = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("A")]
    assert shown == pytest.approx(logged, abs=5e-5)
    Path("outputs/predictions.json").write_text("of the best detector")
    assert run("main", "--eval", "--resume", "outputs/checkpoint.pth", "--device", "cpu", "--num_workers", 0) == 0
    assert Path("outputs/predictions.json").read_text() == "of the best detector"
    assert json.loads(Path("outputs/predictions_checkpoint.json").read_text())


def test_a_best_detector_that_is_younger_than_the_checkpoint_is_kept(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    best = weights("outputs/checkpoint_best.pth") | {"best": {"AP": 0.9, "epoch": 1}}
    torch.save(best, "outputs/checkpoint_best.pth")  # as of epoch 2, which --save_every 3 did not save
    assert run("main", *SCRATCH, "--epochs", 3, "--resume", "auto") == 0
    assert weights("outputs/checkpoint_best.pth")["best"]["AP"] == 0.9
    assert weights("outputs/checkpoint.pth")["best"]["AP"] == 0.9


def test_a_stop_request_is_noted_once_and_obeyed_at_once_the_second_time() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), utils.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # torchrun passes on what its processes got already
        assert stop.signal == signal.SIGTERM
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_predictions_are_never_those_of_another_detector(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A kill at any write of a better detector leaves its predictions, or none; the resumed run writes them."""
    command = ("main", *SCRATCH, "--epochs", 3, "--resume", "auto")
    aps = iter([0.1, 0.2, 0.3, 0.2, 0.3])  # every epoch is better
    evaluate = main.evaluate_one_epoch

    def better(*arguments: object) -> tuple[dict, list[dict]]:
        log, detections = evaluate(*arguments)
        ap = next(aps)
        log["test_coco_eval_bbox"][0] = ap
        return log, [{**detection, "score": ap} for detection in detections]

    monkeypatch.setattr(main, "evaluate_one_epoch", better)
    write_json = utils.write_json

    def killed(path: Path, value: object, **options: object) -> bool:
        if path.name == "predictions.json" and value and value[0]["score"] == 0.2:
            raise SystemExit(128 + signal.SIGKILL)
        return write_json(path, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "write_json", killed)
        assert run(*command) == 128 + signal.SIGKILL
    assert weights("outputs/checkpoint_best.pth")["best"]["AP"] == 0.2
    assert not Path("outputs/predictions.json").exists()
    capsys.readouterr()
    assert run("results") == 0
    assert "no metrics: outputs has no predictions.json (--checkpoint makes them)" in capsys.readouterr().out
    next(aps)
    assert run(*command) == 0
    assert weights("outputs/checkpoint_best.pth")["best"]["AP"] == 0.3
    assert {p["score"] for p in json.loads(Path("outputs/predictions.json").read_text())} == {0.3}


def test_a_resumed_run_writes_the_predictions_that_a_kill_left_out(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("main", *SCRATCH, "--epochs", 1, "--resume", "auto", "--save_every_steps", 1)

    def killed(path: Path, value: object, **options: object) -> bool:
        if path.name == "predictions.json":
            raise SystemExit(128 + signal.SIGKILL)
        return write_json(path, value, **options)

    write_json = utils.write_json
    with monkeypatch.context() as patch:
        patch.setattr(utils, "write_json", killed)
        assert run(*command) == 128 + signal.SIGKILL
    assert Path("outputs/checkpoint_best.pth").exists() and not Path("outputs/predictions.json").exists()
    assert run(*command) == 0 and Path("outputs/predictions.json").exists()


def test_evaluating_other_weights_leaves_no_predictions_of_the_run(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--output_dir", "first") == 0
    shutil.copy("first/checkpoint_best.pth", "other.pth")
    assert run("main", "--eval", "--resume", "other.pth", *TINY[-8:]) == 0
    assert [path.name for path in Path("outputs").iterdir()] == ["predictions_other.json"]
    Path("first/predictions.json").unlink()
    again = ("main", "--eval", "--output_dir", "first", "--num_workers", 0, "--device", "cpu")
    shutil.copytree(coco_folder, "other")
    shutil.copy("other/val2017/disc00.png", "other/val2017/disc02.png")
    annotations = Path("other/annotations/custom_val.json")
    coco = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(coco | {"images": coco["images"][:2], "annotations": []}))
    assert run(*again, "--scales", 48) == 0 and not Path("first/predictions.json").exists()
    assert run(*again, "--coco_path", "other") == 0 and not Path("first/predictions.json").exists()
    assert run(*again) == 0 and Path("first/predictions.json").exists()


NO_OBJECTS = (*SCRATCH, "--epochs", 4, "--resume", "auto", "--patience", 2, "--lr", 1e-3)


def test_without_objects_to_validate_on_the_lowest_loss_is_kept(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = coco_folder / "annotations/custom_val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    losses = iter([3.0, 2.0, 2.5, 2.5])
    evaluate = main.evaluate_one_epoch

    def planned(*arguments: object) -> tuple[dict, list[dict]]:
        log, detections = evaluate(*arguments)
        return log | {"test_loss": next(losses)}, detections

    monkeypatch.setattr(main, "evaluate_one_epoch", planned)
    assert run("main", *NO_OBJECTS, "--epochs", 1) == 0
    output = capsys.readouterr().out
    assert output.count("AP is not defined, and the weights of the lowest validation loss are kept") == 1
    assert "AP not defined (best so far)" in output and "-1" not in output
    assert "checkpoint_best.pth has the lowest validation loss, 3.000" in output
    assert run("main", *NO_OBJECTS) == 0
    output = capsys.readouterr().out
    assert "stopping: no lower validation loss in 2 epochs" in output
    assert "checkpoint_best.pth has the lowest validation loss, 2.000" in output
    assert weights("outputs/checkpoint_best.pth")["best"] == {"AP": -1, "epoch": 1, "loss": 2.0}
    assert run("results") == 0 and Path("outputs/figures/report.html").exists()
    assert "outputs: 4 epochs, AP not defined" in capsys.readouterr().out


def test_an_epoch_of_skipped_steps_leaves_a_log_that_is_json(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from detr.data import dataset as data

    apply = data.to_tensor

    def spoilt(image: object, color_factors: tuple[float, ...]) -> torch.Tensor:
        pixels = apply(image, color_factors)
        return pixels * float("nan") if training else pixels

    training = True
    monkeypatch.setattr(data, "to_tensor", spoilt)
    evaluate = main.evaluate_one_epoch

    def whole(*arguments: object) -> tuple[dict, list[dict]]:
        nonlocal training
        training = False
        return evaluate(*arguments)

    monkeypatch.setattr(main, "evaluate_one_epoch", whole)
    command = ("main", *SCRATCH, "--epochs", 1, "--skip_nonfinite", 100, "--ema_decay", 0, "--tensorboard")
    assert run(*command) == 0

    def no_json(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    (line,) = Path("outputs/log.txt").read_text().splitlines()
    log = json.loads(line, parse_constant=no_json)
    assert log["train_loss"] is None and log["test_loss"] > 0
    assert run("results") == 0 and Path("outputs/figures/losses.png").exists()


def hang(seconds: float) -> str:
    """Code that runs main.py on a drive that does not answer."""
    return (
        "import sys, time, detr.data.dataset as data, main, utils\n"
        "data.read_rgb = lambda *_: time.sleep(1000)\n"
        f"utils.StopRequest.PATIENCE_S = {seconds}\n"
        "utils.run_script(main.main)"
    )


def test_a_run_that_waits_for_ever_can_be_stopped(coco_folder: Path) -> None:
    command = [sys.executable, "-c", hang(0.5), *map(str, SCRATCH), "--epochs", "1", "--num_workers", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(process, "parameters to train")
    time.sleep(0.5)
    process.terminate()
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in error, error
    assert "outputs/checkpoint.pth is saved" in error and weights("outputs/checkpoint.pth")["epoch"] == -1


@pytest.mark.parametrize("error", [RuntimeError("unable to allocate shared memory(shm)"), OSError(28, "No space left")])
def test_a_batch_that_finds_no_shared_memory_is_named(
    error: Exception, coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(_: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # the loader's processes are forked from this one
    assert run("main", *SCRATCH, "--epochs", 1, "--num_workers", 1) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: no shared memory for a batch of images (") and message.count("\n") == 1
    assert "--num_workers 0" in message and "--shm-size" in message


def test_a_small_shared_memory_is_named(coco_folder: Path) -> None:
    """Docker's default is 64 MiB; here there is 1."""
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted")
    large = ("--scales", 480, "--max_size", 640, "--num_workers", 1, "--batch_size", 4, "--epochs", 1)
    script = f'{mount} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, ROOT / "main.py", *SCRATCH, *large]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "--num_workers 0" in done.stderr and "--shm-size" in done.stderr


def test_the_stop_request_restores_what_it_replaced() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with utils.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM and signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


OWN = """
import sys, time
from pathlib import Path
from detr.training.run_files import locked_dir
from utils import UserError
try:
    with locked_dir(Path(sys.argv[1])):
        print("owner", flush=True)
        sys.stdin.readline()
except UserError:
    print("refused", flush=True)
"""


def test_a_folder_has_one_owner_also_where_its_lock_is_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner deletes the lock file after it was opened here, and before it is locked."""
    import fcntl

    lockf, opened = fcntl.lockf, []

    def late(file: object, flags: int) -> None:
        if not opened:
            opened.append(file)
            (tmp_path / ".lock").unlink()
        lockf(file, flags)

    monkeypatch.setattr(fcntl, "lockf", late)
    with locked_dir(tmp_path):
        command = [sys.executable, "-c", OWN, str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, input="", env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
        )
        assert done.stdout == "refused\n"
    assert not (tmp_path / ".lock").exists()
