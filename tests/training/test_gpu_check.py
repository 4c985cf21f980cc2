"""`make gpu` without a GPU: its bounds can break, and what it does on one runs on a machine that says it has one."""

import json
from pathlib import Path

import pytest
import torch

from tests import gpu_check
from tests.fake_gpu import FakeGpu

pytestmark = pytest.mark.long


def make_check(tmp_path: Path, device: str = "cpu") -> gpu_check.Check:
    return gpu_check.Check(torch.device(device), quick=True, folder=tmp_path)


def test_a_broken_bound_is_seen_in_the_table(tmp_path: Path) -> None:
    check = make_check(tmp_path)
    check.within("a", 0.5, 1)
    check.within("b", 2, 1)
    check.within("c", float("nan"), 1)
    assert [row["ok"] for row in check.rows] == [True, False, False]
    lines = gpu_check.table(check.rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["", "FAILED", "FAILED"]
    assert lines[3] == "| b | 2 | at most 1 | FAILED |"


def test_parity_fails_for_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = make_check(tmp_path)
    run = gpu_check.outputs_and_gradient
    calls: list[None] = []

    def drifting(model: torch.nn.Module, *arguments: object) -> tuple:
        calls.append(None)
        if len(calls) == 2:
            model.class_embed.bias.data[0] += 0.1
        return run(model, *arguments)

    monkeypatch.setattr(gpu_check, "outputs_and_gradient", drifting)
    gpu_check.parity(check)
    failed = [row["what"] for row in check.rows if not row["ok"]]
    assert any("logits" in what for what in failed) and any("loss" in what for what in failed)


def test_a_part_that_breaks_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(check: gpu_check.Check) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_check.PARTS, "parity", broken)
    parts = ("--parts", "parity", "machine")
    command = ["gpu_check", "--device", "cpu", "--quick", *parts, "--json", str(tmp_path / "rows")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        gpu_check.main()
    rows = json.loads((tmp_path / "rows").read_text())
    assert end.value.code == 1 and [row["ok"] for row in rows] == [False, True, True]
    assert "| parity | RuntimeError: no such kernel | runs | FAILED |" in capsys.readouterr().out


def test_what_it_does_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "shares_of", lambda step, on_gpu: step() or {"convolutions": 1.0})  # CUDA's profiler
    monkeypatch.setattr(gpu_check, "FORMATS", {"float32": None, "float16": torch.float16})
    with FakeGpu():
        check = make_check(tmp_path, "cuda:0")
        for part in (gpu_check.machine, gpu_check.parity, gpu_check.steps, gpu_check.processes):
            part(check)
    assert all(row["ok"] for row in check.rows), check.rows
    figures = {row["what"]: row["figure"] for row in check.rows}
    waits = [figure for what, figure in figures.items() if "waits of the host" in what]
    assert waits == ["1"] * 2 and figures["compute capability"] == "8.0"


def test_without_a_fitting_transformers_ours_is_timed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ours: object) -> None:
        raise RuntimeError("Missing key(s) in state_dict")

    monkeypatch.setattr(gpu_check, "Peer", refuse)
    monkeypatch.setattr(gpu_check, "shares_of", lambda step, on_gpu: {"convolutions": 1.0})
    check = make_check(tmp_path)
    gpu_check.steps(check)
    whats = [row["what"] for row in check.rows]
    assert "Missing key(s)" in check.rows[0]["figure"] and not any("beside the peer" in what for what in whats)
    assert sum(what.startswith("train step") for what in whats) == 2


@pytest.mark.parametrize(("capability", "has_bfloat16"), [((7, 5), False), ((8, 0), True)])
def test_emulated_formats_are_left_out(capability: tuple[int, int], has_bfloat16: bool, tmp_path: Path) -> None:
    with FakeGpu(capability):
        assert ("bfloat16" in make_check(tmp_path, "cuda:0").formats) == has_bfloat16
