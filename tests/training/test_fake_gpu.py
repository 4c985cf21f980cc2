"""What only a GPU reaches, from the command line to the page, on a machine that says it has one (`fake_gpu.py`)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import main
from detr.detector import Detector
from detr.models.backbone import BACKBONES
from detr.models.cpu_kernels import fast_weight_gradient
from detr.models.criterion import SetCriterion
from detr.models.detr import Detr, DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.structures import Batch
from detr.training.device import pick_device, pick_precision
from detr.training.schedule import OptimConfig
from detr.training.trainer import Trainer
from tests.conftest import ROOT, TINY, RunScript
from tests.fake_gpu import FakeGpu, device_of
from tests.models.test_mask_head import with_masks
from tests.models.test_parity import make_batch
from tests.test_main import read_log, weights
from tests.training.test_distributed import torchrun
from utils import UserError

GPU = torch.device("cuda", 0)
T4, PASCAL, AMPERE = (7, 5), (6, 1), (8, 0)
FORMATS = {T4: "float16", PASCAL: "float32", AMPERE: "bfloat16"}
ON_GPU = TINY[: TINY.index("--num_workers")]


# ------------------------------------------------------------------------------------------------- the fake is strict


def test_the_fake_refuses_what_a_gpu_refuses() -> None:
    with FakeGpu(count=2) as gpu:
        host, on_gpu = torch.ones(3), torch.ones(3, device=GPU)
        assert (on_gpu.device, on_gpu.is_cuda, host.device.type) == (GPU, True, "cpu")
        assert (on_gpu * 2 + on_gpu.sum()).device == on_gpu.new_zeros(2).device == GPU
        for wrong in (lambda: on_gpu + host, lambda: on_gpu + on_gpu.to("cuda:1"), lambda: torch.cat((host, on_gpu))):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        assert (on_gpu + torch.tensor(1.0)).device == GPU  # a single number may be anywhere
        with pytest.raises(TypeError, match="numpy"):
            on_gpu.numpy()
        with pytest.raises(ValueError, match="specified index"):
            torch.cuda.set_device(torch.device("cuda"))
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.zeros(1, device="cuda:2")
        with pytest.raises(AssertionError, match="without an index"):
            host.to("cuda")
        assert gpu.waits == []
        early = on_gpu.sum().to("cpu", non_blocking=True)
        with pytest.raises(AssertionError, match="still under way"):
            bool(early)
        assert float(on_gpu.sum()) == 3 and bool(early) and len(gpu.waits) == 1
        assert on_gpu.tolist() == [1, 1, 1] and len(gpu.waits) == 2
        assert on_gpu[on_gpu > 0].shape == (3,) and len(gpu.waits) == 3  # the size of the result is on the GPU
        assert [(copy.is_pinned, copy.non_blocking) for copy in gpu.copies] == [(False, False)]
        host.pin_memory().to(GPU, non_blocking=True)
        assert gpu.copies[-1][1:] == (True, True)


def test_the_fake_sees_devices_mixed_in_a_backward_pass() -> None:
    class Forgets(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * torch.ones(3)

    with FakeGpu(), pytest.raises(RuntimeError, match="same device"):
        Forgets.apply(torch.ones(3, device=GPU, requires_grad=True)).sum().backward()


# ------------------------------------------------------------------------------------------------ devices and formats


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_device_has_an_index_and_nothing_of_the_process_is_changed(name: str) -> None:
    with FakeGpu(count=2) as gpu:
        assert pick_device(name) == GPU
        gpu.current = 1
        assert pick_device(name) == (GPU if name == "cuda:0" else torch.device("cuda", 1))
        assert not gpu.was_set and torch.get_float32_matmul_precision() == "highest"
        with pytest.raises(UserError, match=r"--device cuda:2: not available here .*invalid device ordinal"):
            pick_device("cuda:2")


@pytest.mark.parametrize(("capability", "name"), FORMATS.items())
def test_the_format_is_one_that_the_gpu_computes_in(
    capability: tuple[int, int], name: str, capsys: pytest.CaptureFixture
) -> None:
    with FakeGpu(capability):
        assert str(pick_precision("auto", GPU)) == name
        assert str(pick_precision("fp16", GPU)) == "float16"  # who asks for it gets it
        assert str(pick_precision("bf16", GPU)) == "bfloat16"
    assert ("emulates it" in capsys.readouterr().out) == (name != "bfloat16")


# ----------------------------------------------------------------------------------------------------------- the step


def make_training(
    backbone: str = "resnet18", batch_norm: str = "frozen", masks: bool = False, **recipe: object
) -> Trainer:
    """A small DETR on the GPU, ready to be trained."""
    torch.manual_seed(0)
    shape = {"hidden_dim": 32, "nheads": 8, "enc_layers": 1, "dec_layers": 2, "num_queries": 6}
    config = DetrConfig(3, backbone, batch_norm=batch_norm, masks=masks, **shape)
    model = Detr(config).to(GPU)
    model.add_query_groups(2, spread=1.0)
    criterion = SetCriterion(3, HungarianMatcher()).to(GPU)
    recipe = OptimConfig(**{"lr": 1e-3, "lr_backbone": 1e-3, "epochs": 10, "ema_decay": 0.9, **recipe})
    return Trainer(model, criterion, recipe, 4, pick_precision("auto", GPU))


def pinned_batch() -> Batch:
    return torch.utils.data._utils.pin_memory.pin_memory(with_masks(make_batch(3)), "cuda")


@pytest.mark.parametrize(
    ("capability", "batch_norm", "masks"),
    [
        pytest.param(T4, "frozen", False, id="T4"),
        pytest.param(T4, "frozen", True, id="T4-masks"),
        pytest.param(PASCAL, "frozen", False, id="Pascal"),
        pytest.param(PASCAL, "train", False, id="Pascal-train"),
        pytest.param(AMPERE, "frozen", False, id="Ampere"),
        pytest.param(AMPERE, "train", False, id="Ampere-train"),
    ],
)
def test_a_step_waits_for_the_gpu_once_a_batch_and_copies_without_waiting(
    capability: tuple[int, int], batch_norm: str, masks: bool
) -> None:
    with FakeGpu(capability) as gpu:
        training = make_training(batch_norm=batch_norm, masks=masks, accumulate=2)
        gpu.copies.clear()
        waits: list[int] = []
        log = training.train_epoch([pinned_batch() for _ in range(6)], lambda: waits.append(len(gpu.waits)))
        assert waits == [2, 4, 6], "two batches a step, each matched once"
        assert all(line.startswith("detr/models/matcher.py") for line in gpu.waits[:6])
        assert gpu.copies and all(copy.is_pinned and copy.non_blocking for copy in gpu.copies), gpu.copies
        moments = [value for state in training.optimizer.state.values() for value in state.values()]
        assert moments and {device_of(value) for value in moments} == {GPU}
        tensors = [*training.model.state_dict().values(), *training.detector.state_dict().values()]
        assert {device_of(value) for value in tensors} == {GPU}
        assert log["loss"] > 0 and ("loss_mask" in log) is masks
        state = training.state() | {"model": training.model.state_dict()}
        again = make_training(batch_norm=batch_norm, masks=masks, accumulate=2)
        again.load_state(state, Path("checkpoint.pth"))
        gpu.copies.clear()
        again.train_epoch([pinned_batch()] * 2)
        assert all(copy.is_pinned and copy.non_blocking for copy in gpu.copies), "also in the first step after a resume"


def test_a_step_without_objects_waits_no_more() -> None:
    with FakeGpu() as gpu:
        training = make_training()
        batch = pinned_batch()
        nothing = batch.targets._replace(
            labels=batch.targets.labels[:, :0], boxes_cxcywh=batch.targets.boxes_cxcywh[:, :0], counts=[0, 0]
        )
        gpu.copies.clear()
        waits: list[int] = []
        training.train_epoch([batch._replace(targets=nothing)] * 3, lambda: waits.append(len(gpu.waits)))
        assert waits == [1, 2, 3] and all(copy.is_pinned and copy.non_blocking for copy in gpu.copies)


def test_a_step_that_is_not_finite_is_left_out_on_a_gpu_too() -> None:
    with FakeGpu() as gpu:
        training = make_training(skip_nonfinite=1)
        reports: list[dict] = []
        training.on_nonfinite = reports.append
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        batch = pinned_batch()
        broken = batch._replace(images=batch.images * float("nan"))
        waits: list[int] = []
        training.train_epoch([broken], lambda: waits.append(len(gpu.waits)))
        assert [report["step"] for report in reports] == [1] and waits == [1]
        assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
        with pytest.raises(UserError, match=r"step 3, images \[1, 2\]: the loss is not finite"):
            training.train_epoch([batch, broken, batch])


@pytest.mark.parametrize("capability", FORMATS)
def test_heads_and_losses_are_in_float32(capability: tuple[int, int]) -> None:
    with FakeGpu(capability):
        training, batch = make_training(), pinned_batch().to(GPU)
        with training.precision.autocast():
            outputs = training.model(batch.images, batch.padding_mask)
            features = training.model.backbone[0](batch.images)[-1]
        assert (features.dtype == torch.float32) is (capability == PASCAL)
        assert outputs.logits.dtype == outputs.boxes_cxcywh.dtype == torch.float32
        assert training.criterion(outputs, batch.targets.repeated(2)).total.dtype == torch.float32


def test_what_is_written_out_for_a_cpu_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight gradients, depthwise convolutions in 16 bits, attention and dropout."""
    called: list[str] = []
    for name in ("scaled_dot_product_attention", "dropout"):
        function = getattr(F, name)
        monkeypatch.setattr(F, name, lambda *a, f=function, n=name, **k: called.append(n) or f(*a, **k))
    with FakeGpu(PASCAL):
        gradient, x = torch.ones(1, 128, 16, 16, device=GPU), torch.ones(1, 128, 32, 32, device=GPU)
        geometry = ((2, 2), (1, 1), (1, 1), 1)
        assert fast_weight_gradient(gradient, x, (3, 3), geometry) is None
        assert fast_weight_gradient(gradient.cpu(), x.cpu(), (3, 3), geometry) is not None
        make_training().train_epoch([pinned_batch()])
        assert set(called) == {"scaled_dot_product_attention", "dropout"}
    seen: list[torch.dtype] = []
    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *a, **k: seen.append(x.dtype) or conv2d(x, *a, **k))
    with FakeGpu(AMPERE):
        make_training("mobilenet_v3_small").train_epoch([pinned_batch()])
        assert set(seen) == {torch.bfloat16}


QUICK = ("resnet50", "resnext50_32x4d", "mobilenet_v3_small", "mobilenet_v3_large")


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BACKBONES]
)
def test_every_backbone_takes_a_step_on_one_device(backbone: str) -> None:
    """In float16 where the scaler, and in bfloat16 where the fused optimizer leaves steps out."""
    for capability in (T4, AMPERE):
        with FakeGpu(capability):
            assert make_training(backbone).train_epoch([pinned_batch()])["loss"] > 0


# ----------------------------------------------------------------------------------------- command line to the page


@pytest.fixture
def start(coco_folder: Path) -> Path:
    """A weights file with the public layout and frozen BatchNorm."""
    torch.manual_seed(0)
    config = {"backbone": "resnet18", "hidden_dim": 32, "enc_layers": 1, "dec_layers": 2, "num_queries": 8}
    torch.save({"model": Detr(DetrConfig(91, **config)).state_dict()}, "public.pth")
    return Path("public.pth")


MACHINES = {
    "T4": (T4, ("--backbone_weights", "none", "--accumulate", 2, "--batch_size", 1), ON_GPU),
    "Pascal": (PASCAL, ("--weights", "public.pth", "--freeze", "backbone"), ON_GPU[-4:]),
    "Ampere": (AMPERE, ("--weights", "public.pth", "--query_groups", 2, "--cache", "ram", "--masks"), ON_GPU[-4:]),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.long
def test_from_the_command_line_to_the_page(
    machine: str, start: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability, flags, shape = MACHINES[machine]
    tuned: list[str] = []
    monkeypatch.setattr(main, "tune_malloc", lambda: tuned.append("tuned"))
    for user in ("detr.training.trainer", "detr.detector"):
        monkeypatch.setattr(f"{user}.trim_malloc", lambda *most_kept: tuned.append("trimmed"))
    monkeypatch.setattr("detr.models.cpu_kernels.share_malloc", lambda: tuned.append("shared"))
    command = ("main", *shape, *flags, "--resume", "auto", "--ema_decay", 0.9, "--num_workers", 1)
    with FakeGpu(capability) as gpu:
        assert run(*command, "--epochs", 1) == 0
        assert f"cuda:0, {FORMATS[capability]}; epochs 1 to 1" in capsys.readouterr().out and gpu.was_set
        assert read_log()[0]["peak_memory_mib"] == 123  # the GPU's
        batches = [copy for copy in gpu.copies if copy.line.startswith("detr/structures.py")]
        assert batches and all(copy.is_pinned and copy.non_blocking for copy in batches)
        assert len(weights("outputs/checkpoint.pth")["rng"][0]["cuda"]) == 1
        assert run(*command, "--epochs", 2) == 0 and len(read_log()) == 2 and gpu.rng_was_restored
        assert run("main", "--eval", "--device", "cuda", "--num_workers", 1) == 0
        gpu.was_set = False
        assert run("results") == 0
        assert Path("outputs/figures/report.html").stat().st_size > 10_000
        assert "attention.png" in capsys.readouterr().out
        in_via = ("--via", "data/custom/val2017/via.json")  # compared with the annotated images
        assert run("results", "--images", "data/custom/val2017", "--threshold", 0, *in_via) == 0
        assert "images to correct" in capsys.readouterr().out
        assert len(json.loads(Path("outputs/figures/images/predictions.json").read_text())) > 0
        assert not gpu.was_set, "a detector changes nothing of the process"
    assert torch.get_float32_matmul_precision() == "highest" and tuned == []
    assert run("results", "--images", "data/custom/val2017/disc00.png", "--device", "cpu") == 0
    assert tuned == ["shared", "trimmed"]
    on_cpu = Detector("outputs/checkpoint_best.pth", "cpu", "off")("data/custom/val2017/disc00.png", threshold=0)
    with FakeGpu(capability):
        on_gpu = Detector("outputs/checkpoint_best.pth", "auto", "off")("data/custom/val2017/disc00.png", threshold=0)
    assert [d.score for d in on_gpu] == pytest.approx([d.score for d in on_cpu], abs=1e-4)


def test_malloc_is_tuned_where_the_model_runs_on_the_cpu_and_not_in_its_loaders(
    coco_folder: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[str] = []
    monkeypatch.setattr(main, "tune_malloc", lambda: tuned.append("main"))
    monkeypatch.setattr("detr.training.trainer.trim_malloc", lambda: tuned.append("step"))
    monkeypatch.setattr("detr.data.loader.restore_malloc", lambda: Path("restored").touch())
    assert run("main", *ON_GPU, "--backbone_weights", "none", "--epochs", 1, "--num_workers", 1) == 0
    assert tuned[0] == "main" and {*tuned[1:]} == {"step"} and Path("restored").exists()


KEEPS_OR_RETURNS = """
import os
from pathlib import Path
import numpy as np
from detr.models.cpu_kernels import restore_malloc, trim_malloc, tune_malloc

def resident_mib(blocks=64):
    blocks = [np.ones(2**17) for _ in range(blocks)]  # 1 MiB each
    del blocks
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

resident_mib()
before = resident_mib()
tune_malloc()
print(resident_mib() - before, flush=True)
for most_kept in (0.9, 0.0):
    trim_malloc(most_kept)
    print(resident_mib(blocks=0) - before, flush=True)
resident_mib()
if os.fork():
    os.wait()
else:
    restore_malloc()
    print(resident_mib() - before, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_tuned_malloc_keeps_what_is_freed_until_it_is_too_much_and_a_forked_process_can_undo_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEEPS_OR_RETURNS], capture_output=True, text=True, cwd=ROOT, check=True
    )
    tuned, little, trimmed, restored = map(float, done.stdout.split())
    assert min(tuned, little) > 50 > 20 > max(trimmed, restored)


@pytest.mark.long
def test_two_gpus_are_one_run(start: Path) -> None:
    """Each process with the GPU of its local rank, resumed once; collectives refuse the other process's GPU."""
    for epochs in (1, 2):
        code, output, error = torchrun(
            2, "--count", 2, ROOT / "main.py", *ON_GPU[-4:], "--weights", "public.pth", "--resume", "auto",
            "--num_workers", 0, "--batch_size", 1, "--epochs", epochs, "--ema_decay", 0.9,
            script=ROOT / "tests" / "fake_gpu.py",
        )  # fmt: skip
        assert code == 0, error
        assert f"cuda:0, bfloat16; epochs {epochs} to {epochs}" in output and output.count("parameters to train") == 1
    assert len(read_log()) == 2 and len(weights("outputs/checkpoint.pth")["rng"]) == 2


@pytest.mark.long
def test_more_processes_than_gpus_are_named(start: Path) -> None:
    code, _, error = torchrun(
        2, "--count", 1, ROOT / "main.py", "--weights", "public.pth", script=ROOT / "tests" / "fake_gpu.py"
    )
    assert code != 0 and "--device cuda:1: not available here (CUDA error: invalid device ordinal)" in error
