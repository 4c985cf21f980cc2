"""main.py as a user runs it: start, continue, refuse, evaluate."""

import argparse
import json
import shutil
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import main
from detr.data.dataset import CocoDetection
from detr.models.detr import Detr, DetrConfig
from detr.training.flags import make_parser, parse_arguments
from detr.training.resume import PUBLIC_CLASSES, ResumeState, choose_sizes
from detr.training.run_files import RUN_FILES, TENSORBOARD
from tests.conftest import SHARED, TINY, RunScript, needs_shared, write_via
from utils import UserError

SCRATCH = (*TINY, "--backbone_weights", "none")

# Defaults of the reference's main.py for box detection, but for those that DESIGN improves.
REFERENCE_DEFAULTS = {
    "lr": 1e-4, "lr_backbone": 1e-5, "batch_size": 2, "weight_decay": 1e-4, "epochs": 300, "lr_drop": 200,
    "clip_max_norm": 0.1, "set_cost_class": 1, "set_cost_bbox": 5, "set_cost_giou": 2, "bbox_loss_coef": 5,
    "giou_loss_coef": 2, "mask_loss_coef": 1, "dice_loss_coef": 1, "frozen_weights": None,
    "eos_coef": 0.1, "seed": 42, "start_epoch": 0, "eval": False, "num_workers": 2,
    "aux_loss": True,
}  # fmt: skip
REFERENCE_ARCHITECTURE = {
    "backbone": "resnet50", "dilation": False, "position_embedding": "sine", "enc_layers": 6, "dec_layers": 6,
    "dim_feedforward": 2048, "hidden_dim": 256, "dropout": 0.1, "nheads": 8, "num_queries": 100, "pre_norm": False,
}  # fmt: skip


ACCOUNTS = ("seconds", "images_per_second", "peak_memory")


def read_log(folder: str = "outputs") -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "log.txt").read_text().splitlines()]


def weights(name: str) -> dict:
    return torch.load(name, weights_only=True)


def test_flags_keep_the_references_defaults_and_meanings() -> None:
    args = vars(parse_arguments("", []))
    assert {name: args[name] for name in REFERENCE_DEFAULTS} == REFERENCE_DEFAULTS
    assert {name: args[name] for name in REFERENCE_ARCHITECTURE} == dict.fromkeys(REFERENCE_ARCHITECTURE)
    config = DetrConfig(91)
    assert {name: getattr(config, name) for name in REFERENCE_ARCHITECTURE} == REFERENCE_ARCHITECTURE
    assert parse_arguments("", ["--epochs", "100"]).lr_drop == 67
    assert parse_arguments("", ["--epochs", "100", "--lr_drop", "200"]).lr_drop == 200
    assert parse_arguments("", ["--no_aux_loss"]).aux_loss is False


def test_every_flag_has_help(capsys: pytest.CaptureFixture, run: RunScript) -> None:
    assert [action.dest for action in make_parser("")._actions if not action.help] == []
    assert run("main", "--help") == 0
    output = capsys.readouterr().out
    assert "torchvision ResNet" in output and "mobilenet_v3_small" in output and "--stride {16,32}" in output


def test_a_run_leaves_everything_behind(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *SCRATCH, "--num_classes", 1, "--epochs", 2) == 0
    output = capsys.readouterr().out
    assert "nothing is frozen, BatchNorm is trained" in output and "epoch 2/2" in output
    assert {path.name for path in Path("outputs").iterdir()} == set(RUN_FILES) - {TENSORBOARD}
    log = read_log()
    assert [entry["epoch"] for entry in log] == [0, 1]
    assert [entry["train_lr"] for entry in log] == pytest.approx([1e-4, 1e-5])  # 2/3 of 2 epochs: drops after one
    config = json.loads(Path("outputs/config.json").read_text())
    assert config["categories"] == [{"id": 1, "name": "disc"}] and config["args"]["coco_path"] == "data/custom"
    assert config["config"]["num_classes"] == 1 and config["n_parameters"] == log[0]["n_parameters"]
    predictions = json.loads(Path("outputs/predictions.json").read_text())
    assert len(predictions) == 3 * 8 and set(predictions[0]) == {"image_id", "category_id", "bbox", "score"}


@needs_shared
def test_the_log_has_every_key_of_the_reference(coco_folder: Path, run: RunScript) -> None:
    shape = [*SCRATCH, "--dec_layers", "6", "--epochs", "1"]
    assert run("main", *shape) == 0
    reference = json.loads((SHARED / "reference_run/log.txt").read_text().splitlines()[0])
    ours = read_log()[0]
    assert not reference.keys() - ours.keys()
    assert [key for key in ours if key in reference][:4] == list(reference)[:4]
    assert len(ours["test_coco_eval_bbox"]) == 12
    for key in ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_ce_3"):
        weight = {"loss_bbox": 5, "loss_giou": 2}.get(key, 1)
        if key != "loss":
            assert ours[f"train_{key}"] == pytest.approx(weight * ours[f"train_{key}_unscaled"])


def without_accounts(log: list[dict]) -> list[dict]:
    """The log without what depends on the machine's mood."""
    return [{key: value for key, value in line.items() if not key.startswith(ACCOUNTS)} for line in log]


def test_a_continued_run_is_bit_identical(coco_folder: Path, run: RunScript) -> None:
    """Three epochs in one go, and the same with a new process's state after each epoch."""
    command = ("main", *SCRATCH, "--resume", "auto", "--epochs", 3, "--lr_drop", 2)
    assert run(*command, "--output_dir", "whole") == 0
    for epochs in (1, 2, 3):
        torch.manual_seed(epochs)  # what happened before must not matter
        assert run(*command[:-4], "--epochs", epochs, "--lr_drop", 2, "--output_dir", "parts") == 0
    whole, parts = weights("whole/checkpoint.pth"), weights("parts/checkpoint.pth")
    assert all(torch.equal(whole["model"][key], value) for key, value in parts["model"].items())
    for a, b in zip(whole["optimizer"]["state"].values(), parts["optimizer"]["state"].values(), strict=True):
        assert torch.equal(a["exp_avg_sq"], b["exp_avg_sq"])
    assert without_accounts(read_log("whole")) == without_accounts(read_log("parts"))
    assert Path("whole/predictions.json").read_text() == Path("parts/predictions.json").read_text()


def test_a_finished_run_says_so(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    before = Path("outputs/checkpoint.pth").stat().st_mtime_ns
    capsys.readouterr()
    assert run("main", *SCRATCH, "--epochs", 1, "--resume", "auto") == 0
    assert "has done 1 epoch and --epochs asks for 1: nothing is left to train" in capsys.readouterr().out
    assert Path("outputs/checkpoint.pth").stat().st_mtime_ns == before and len(read_log()) == 1


def test_a_used_folder_is_refused_and_overwritten_on_demand(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 2) == 0
    assert run("main", *SCRATCH, "--epochs", 1) == 2
    assert (
        "outputs holds a run already (checkpoint.pth, checkpoint_best.pth, log.txt, predictions.json): resume it with"
        in capsys.readouterr().err
    )
    assert len(read_log()) == 2
    Path("outputs/checkpoint.pth").unlink()
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 2
    assert "): checkpoint.pth, to resume from, is gone, take another --output_dir" in capsys.readouterr().err
    assert run("main", *SCRATCH, "--epochs", 1, "--overwrite") == 0
    assert len(read_log()) == 1
    assert capsys.readouterr().out.endswith("; next: python results.py\n")
    assert run("main", "--resume", "outputs") == 2
    assert "error: outputs: is a folder; the weights of a run are its checkpoint_best.pth" in capsys.readouterr().err
    assert run("main", *SCRATCH, "--epochs", 1, "--resume", "auto", "--output_dir", "my run") == 0
    output = capsys.readouterr().out
    assert "my run/checkpoint.pth is not there: no run to resume" in output
    assert output.endswith("; next: python results.py --log 'my run'\n")


def test_the_log_is_cut_to_the_checkpoint(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    with Path("outputs/log.txt").open("a") as file:  # as a crash after logging epoch 1, while logging epoch 2
        file.write(json.dumps({"epoch": 1, "train_loss": 0}) + '\n{"epoch": 2, "tr')
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 0
    assert [entry["epoch"] for entry in read_log()] == [0, 1] and read_log()[1]["train_loss"] > 0


def test_eval_repeats_the_logged_numbers(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    made = Path("outputs/predictions.json").read_text()
    Path("outputs/predictions.json").unlink()
    capsys.readouterr()
    assert run("main", "--eval", *TINY[-8:]) == 0
    output = capsys.readouterr().out
    for name, value in zip(("AP ", "AP50 ", "AR large "), (0, 1, 11), strict=True):
        assert f"{name:10} {read_log()[0]['test_coco_eval_bbox'][value]:.4f}" in output
    assert Path("outputs/predictions.json").read_text() == made
    capsys.readouterr()
    assert run("main", "--eval", "--num_workers", 0, "--device", "cpu") == 0  # the file knows its image size
    assert Path("outputs/predictions.json").read_text() == made
    # However many images are evaluated at once: in a batch are images of one size, and none is padded.
    detections = []
    for batch_size in (1, 3):
        assert (
            run("main", "--eval", "--num_workers", 0, "--device", "cpu", "--amp", "off", "--batch_size", batch_size)
            == 0
        )
        detections.append(json.loads(Path("outputs/predictions.json").read_text()))
    for one, other in zip(*detections, strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    # A test set has one annotation file, whatever it is called: it is what is evaluated on.
    shutil.copytree(coco_folder, "test_set")
    shutil.rmtree("test_set/train2017")
    for has, missing in (("val", "train"), ("train", "val")):
        Path(f"test_set/annotations/custom_{missing}.json").unlink(missing_ok=True)
        capsys.readouterr()
        assert run("main", "--eval", "--coco_path", "test_set", "--num_workers", 0, "--device", "cpu") == 0
        assert f"AP50       {read_log()[0]['test_coco_eval_bbox'][1]:.4f}" in capsys.readouterr().out
        Path(f"test_set/annotations/custom_{has}.json").rename(f"test_set/annotations/custom_{missing}.json")
        Path(f"test_set/{has}2017").rename(f"test_set/{missing}2017")
        assert run("main", *SCRATCH, "--coco_path", "test_set", "--output_dir", "new") == 2  # but not to train on
        assert "no such file" in capsys.readouterr().err


def test_a_run_that_stopped_before_its_first_checkpoint_starts_again(coco_folder: Path, run: RunScript) -> None:
    Path("outputs").mkdir()
    Path("outputs/log.txt").write_text('{"epoch": 0, "train_loss": 1}\n')
    assert run("main", *SCRATCH, "--epochs", 1) == 2
    assert run("main", *SCRATCH, "--epochs", 1, "--resume", "auto") == 0
    assert len(read_log()) == 1 and read_log()[0]["train_loss"] > 1


@pytest.mark.long
def test_fine_tuning_from_public_weights(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    """A file with the public layout through strip, start and fine-tune; every flag that contradicts it is an error."""
    torch.manual_seed(0)
    original = Detr(DetrConfig(91, backbone="resnet18", hidden_dim=32, enc_layers=1, dec_layers=2, num_queries=8))
    torch.save({"model": original.state_dict()}, "public.pth")
    assert run("prep", "--via", "discs", "--weights", "public.pth") == 0
    start = ("main", "--resume", "public_no-class-head.pth", *TINY[-8:])
    assert run(*start, "--num_classes", 1, "--epochs", 1, "--lr", 0, "--lr_backbone", 0, "--weight_decay", 0) == 0
    output = capsys.readouterr().out
    assert "tensors loaded; starting fresh: class_embed.weight, class_embed.bias" in output
    trained = weights("outputs/checkpoint_best.pth")["model"]
    assert all(torch.equal(trained[key], value) for key, value in original.state_dict().items() if "class" not in key)
    assert trained["class_embed.bias"].shape == (2,)
    assert run(*start, "--output_dir", "o2", "--hidden_dim", 64) == 2
    assert "--hidden_dim 64 contradicts public_no-class-head.pth, which has 32" in capsys.readouterr().err
    assert run(*start, "--output_dir", "o2", "--epochs", 1, "--dropout", 0, "--hidden_dim", 32) == 0
    assert run(*start, "--output_dir", "o3", "--backbone_weights", "none") == 2
    assert "holds a backbone already" in capsys.readouterr().err


def test_a_mobilenet_at_stride_16_trains_goes_on_and_is_adopted(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    shape = ("--backbone", "mobilenet_v3_small", "--stride", 16)
    assert run("main", *SCRATCH, *shape, "--epochs", 1) == 0
    saved = weights("outputs/checkpoint_best.pth")
    assert saved["config"]["stride"] == 16 and saved["config"]["backbone"] == "mobilenet_v3_small"
    assert saved["model"]["input_proj.weight"].shape == (32, 48, 1, 1)
    assert run("main", "--resume", "auto", "--epochs", 2, *TINY[-8:]) == 0
    assert run("main", "--eval", *TINY[-8:]) == 0
    capsys.readouterr()
    for flags, message in (
        (("--stride", 32), "--stride 32 contradicts"),
        (("--backbone", "resnet18"), "--backbone resnet18 contradicts"),
        (("--dilation",), "--dilation True contradicts"),
    ):
        start = ("main", "--weights", "outputs/checkpoint_best.pth", "--output_dir", "new", *TINY[-8:])
        assert run(*start, *flags) == 2
        assert message in capsys.readouterr().err
    assert run("main", *SCRATCH, *shape, "--dilation", "--output_dir", "new") == 2
    assert "--dilation (DC5) and --stride 16: one of them" in capsys.readouterr().err


@pytest.mark.long
def test_resume_auto_starts_from_weights_once(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    torch.save({"model": Detr(DetrConfig(4, backbone="resnet18", hidden_dim=32, dec_layers=2)).state_dict()}, "w.pth")
    command = ("main", "--resume", "auto", "--weights", "w.pth", *TINY[-8:])
    assert run(*command, "--epochs", 1) == 0
    assert (
        "class rows taken over: no object; mean of all rows: disc\n" in capsys.readouterr().out
    )  # 4 classes without names
    assert run(*command, "--epochs", 2) == 0
    assert "outputs/checkpoint.pth: " in capsys.readouterr().out and len(read_log()) == 2
    assert run("main", "--resume", "w.pth", "--weights", "w.pth") == 2


def rename_classes(coco_folder: Path, *names: str) -> None:
    """The same photographs with these classes; the first one has all objects."""
    for split in ("train", "val"):
        path = coco_folder / f"annotations/custom_{split}.json"
        coco = json.loads(path.read_text())
        coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        path.write_text(json.dumps(coco))


FROZEN = ("--epochs", 1, "--lr", 0, "--lr_backbone", 0, "--weight_decay", 0, *TINY[-8:])


@pytest.fixture
def public_head(coco_folder: Path) -> dict:
    """The class head of a file with the public layout, public.pth in the working folder."""
    torch.manual_seed(0)
    original = Detr(DetrConfig(91, backbone="resnet18", hidden_dim=32, enc_layers=1, dec_layers=2, num_queries=8))
    state = original.state_dict()
    torch.save({"model": state}, "public.pth")
    return {key: value for key, value in state.items() if "class_embed" in key}


@pytest.mark.long
def test_class_rows_are_taken_over_by_name(
    coco_folder: Path, public_head: dict, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """From a public file, then from the detector that came of it, on the same classes and on others."""
    rename_classes(coco_folder, "pedestrian", "Cats", "balloon")
    assert run("main", "--resume", "public.pth", "--class_map", "person=Pedestrian", *FROZEN) == 0
    said = "class rows taken over: person -> pedestrian, cat -> Cats, no object; mean of all rows: balloon\n"
    assert said in capsys.readouterr().out
    first = weights("outputs/checkpoint_best.pth")["model"]
    for key, theirs in public_head.items():
        assert torch.equal(first[key][[0, 1, 3]], theirs[[1, 17, 91]])
        assert not (first[key][2] == theirs).reshape(92, -1).all(1).any()

    again = ("main", "--resume", "outputs/checkpoint_best.pth", *FROZEN)
    assert run(*again, "--output_dir", "same") == 0
    assert "class rows" not in capsys.readouterr().out
    same = weights("same/checkpoint_best.pth")["model"]
    assert all(torch.equal(same[key], first[key]) for key in first)

    rename_classes(coco_folder, "dog", "balloons", "pedestrian", "cat")
    assert run(*again, "--output_dir", "others", "--num_classes", 6) == 0
    said = "class rows taken over: balloon -> balloons, pedestrian, Cats -> cat, no object; mean of all rows: dog\n"
    assert said in capsys.readouterr().out
    others = weights("others/checkpoint_best.pth")["model"]
    assert all(torch.equal(others[key][[1, 2, 3, 6]], first[key][[2, 0, 1, 3]]) for key in public_head)
    rename_classes(coco_folder, "cat", "balloons", "pedestrian", "dog")
    assert run("main", "--eval", "--resume", "others/checkpoint_best.pth", *TINY[-8:]) == 2
    assert "its class head is not for the categories of" in capsys.readouterr().err


def test_raw_ids_stay_rows(coco_folder: Path, public_head: dict, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    """A detector trained in the official layout has its classes in the rows of their ids, and its file says so."""
    for split in ("train", "val"):
        path = coco_folder / f"annotations/custom_{split}.json"
        coco = json.loads(path.read_text())
        coco["categories"] = [{"id": 17, "name": "cat"}, {"id": 90, "name": "disc"}]
        coco["annotations"] = [{**a, "category_id": 90} for a in coco["annotations"]]
        (coco_folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco))
    assert run("main", "--dataset_file", "coco", "--resume", "public.pth", *FROZEN) == 0
    assert "class rows taken over: cat, no object; mean of all rows: disc\n" in capsys.readouterr().out
    raw = weights("outputs/checkpoint_best.pth")
    assert raw["raw_ids"] is True and len(raw["model"]["class_embed.bias"]) == 92
    assert run("main", "--resume", "outputs/checkpoint_best.pth", *FROZEN, "--output_dir", "custom") == 0
    assert "class rows taken over: disc, no object\n" in capsys.readouterr().out
    custom = weights("custom/checkpoint_best.pth")
    assert custom["raw_ids"] is False
    for key, theirs in public_head.items():
        assert torch.equal(raw["model"][key][[17, 91]], theirs[[17, 91]])
        assert torch.equal(custom["model"][key], raw["model"][key][[90, 91]])


def test_the_official_classes_keep_the_whole_head(
    coco_folder: Path, public_head: dict, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    for split in ("train", "val"):
        coco = json.loads((coco_folder / f"annotations/custom_{split}.json").read_text())
        coco["categories"] = [{"id": row, "name": name, "supercategory": "?"} for row, name in PUBLIC_CLASSES.items()]
        (coco_folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco))
    assert run("main", "--dataset_file", "coco", "--resume", "public.pth", *FROZEN) == 0
    assert "class rows" not in capsys.readouterr().out
    state = weights("outputs/checkpoint_best.pth")["model"]
    assert all(torch.equal(state[key], theirs) for key, theirs in public_head.items())  # holes too


@pytest.mark.long
def test_a_class_map_survives_a_disconnect(
    coco_folder: Path, public_head: dict, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    command = ("main", "--resume", "auto", "--weights", "public.pth", *TINY[-8:], "--class_map")
    assert run(*command, "kite=disc", "--epochs", 1) == 0
    assert "class rows taken over: kite -> disc, no object\n" in capsys.readouterr().out
    assert run(*command, "kite=disc", "--epochs", 2) == 0
    assert len(read_log()) == 2 and "--class_map" not in capsys.readouterr().out
    assert run(*command, "frisbee=disc", "--epochs", 3) == 2
    assert capsys.readouterr().err == (
        "error: --class_map: outputs/checkpoint.pth is a run to resume; its class rows were chosen at its start\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["persn=disc"],
            "error: --class_map persn=disc: public.pth has no class 'persn', or more than one; it has: person, ",
        ),
        (["N/A=disc"], "error: --class_map N/A=disc: public.pth has no class 'N/A', or more than one; it has: "),
        (
            ["person=disk"],
            "error: --class_map person=disk: the dataset has no class 'disk', or more than one; it has: disc, two w",
        ),
        (
            ["cat=disc", "dog=two words", "person=Discs"],
            "error: --class_map person=Discs: 'disc' is given a row already; name each class of the dataset once\n",
        ),
        (["person"], "error: argument --class_map: 'person' is not COCO_NAME=YOUR_NAME, such as person=pedestrian\n"),
        (["=disc"], "error: argument --class_map: '=disc' is not COCO_NAME=YOUR_NAME, such as person=pedestrian\n"),
        (["cat= "], "error: argument --class_map: 'cat= ' is not COCO_NAME=YOUR_NAME, such as person=pedestrian\n"),
        (["a=disc", "--resume", "unnamed.pth"], "error: --class_map a=disc: unnamed.pth does not say what its classes"),
        (
            ["cat=disc", "--resume", "stripped.pth"],
            "error: --class_map: stripped.pth has no class head to take rows from; start from the whole file, which "
            "prep.py leaves beside the stripped one\n",
        ),
        (
            ["cat=disc", "--resume", "auto"],
            "error: --class_map needs weights with a class head to start from: name them with --resume FILE\n",
        ),
        (
            ["cat=disc", "--eval"],
            "error: --class_map and --eval: class rows are taken over when a run starts, not when it is evaluated\n",
        ),
    ],
)
def test_mistakes_in_the_class_map_are_named(
    flags: list[str], message: str, coco_folder: Path, public_head: dict, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    rename_classes(coco_folder, "disc", "two words")
    model = weights("public.pth")["model"]
    torch.save({"model": {key: value for key, value in model.items() if key not in public_head}}, "stripped.pth")
    torch.save(
        {"model": {key: value[:3] if key in public_head else value for key, value in model.items()}}, "unnamed.pth"
    )
    capsys.readouterr()
    assert run("main", "--resume", "public.pth", *TINY[-8:], "--class_map", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not Path("outputs").exists()


def test_learning_rate_zero_of_the_backbone_freezes_it(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--lr_backbone", 0) == 0
    state = weights("outputs/checkpoint.pth")
    assert len(state["optimizer"]["param_groups"][1]["params"]) == 0
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 2  # the optimizer knows no backbone


def test_sparse_category_ids_come_back_in_predictions(coco_folder: Path, run: RunScript) -> None:
    for split in ("train", "val"):
        path = coco_folder / f"annotations/custom_{split}.json"
        coco = json.loads(path.read_text())
        coco["categories"] = [{"id": 17, "name": "disc"}]
        coco["annotations"] = [{**a, "category_id": 17} for a in coco["annotations"]]
        path.write_text(json.dumps(coco))
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    assert {p["category_id"] for p in json.loads(Path("outputs/predictions.json").read_text())} == {17}
    assert weights("outputs/checkpoint_best.pth")["model"]["class_embed.bias"].shape == (2,)


def test_num_classes_is_checked_against_the_data(tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    for split in ("train", "val"):
        write_via(tmp_path / "two" / split, 2, attribute={"name": "a"})
    path = tmp_path / "two/train/via_region_data.json"
    path.write_text(path.read_text().replace('"name": "a"', '"name": "b"', 1))
    assert run("prep", "--via", "two", "--weights", "none") == 0
    assert run("main", *SCRATCH, "--num_classes", 1) == 2
    assert "--num_classes 1: the annotations have 2 classes: 1 a, 2 b" in capsys.readouterr().err
    assert run("main", *SCRATCH, "--num_classes", 4, "--epochs", 1) == 0
    assert "--num_classes 4: more than the annotations use (1 a, 2 b)" in capsys.readouterr().out
    assert run("main", "--eval", *TINY[-8:]) == 0  # the file knows that it has 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda:7"], "--device cuda:7: not available here"),
        (["--device", "gpu"], "--device gpu: not available here (no such device; accepted: auto, cuda"),
        (["--resume", "gone.pth"], "gone.pth: no such file"),
        (["--coco_path", "elsewhere"], "custom_train.json: no such file; python prep.py writes it"),
        (["--eval"], "--eval needs a checkpoint: outputs/checkpoint_best.pth is not there"),
        (["--clip_max_norm", "inf"], "argument --clip_max_norm: inf is not finite"),
        (["--set_cost_class", "0", "--set_cost_bbox", "0", "--set_cost_giou", "0"], "are all 0"),
    ],
)
def test_mistakes_are_named(
    flags: list[str], message: str, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, *flags) == 2
    error = capsys.readouterr().err
    assert message in error and "error: " in error and "Traceback" not in error
    assert not Path("outputs").exists()


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    detr = Detr(DetrConfig(1, backbone="resnet18", hidden_dim=32, dec_layers=2, num_queries=4))
    detr.bbox_embed.layers[2].bias.data[0] = float("nan")
    torch.save({"model": detr.state_dict()}, "nan.pth")
    assert run("main", "--resume", "nan.pth", "--epochs", 1, *TINY[-8:]) == 2
    error = capsys.readouterr().err
    assert "epoch 1/1, step 1, images [" in error and "]: the loss is not finite" in error
    assert not Path("outputs/checkpoint.pth").exists()


def test_weights_that_the_last_step_spoilt_are_not_saved(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--batch_size", 100) == 0
    names = ("checkpoint.pth", "checkpoint_best.pth", "log.txt", "predictions.json")
    kept = {name: Path("outputs", name).read_bytes() for name in names}
    again = ("--resume", "auto", "--epochs", 2, "--batch_size", 100, "--lr", 1e38, "--lr_backbone", 1e38)
    assert run("main", *SCRATCH, *again) == 2  # one step an epoch: its own loss and gradient are finite
    error = capsys.readouterr().err
    assert error.startswith("error: epoch 2: on the validation images the loss is not finite")
    assert {name: Path("outputs", name).read_bytes() for name in names} == kept
    assert run("main", *SCRATCH, *again[:6]) == 0


def test_a_damaged_checkpoint_has_a_way_on(coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    last = Path("outputs/checkpoint.pth")
    last.write_bytes(last.read_bytes()[:-1000])
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 2
    error = capsys.readouterr().err
    assert "outputs/checkpoint.pth: cannot be read as a PyTorch file; it is truncated or damaged. " in error
    way_on = error.rstrip().rpartition("new run: ")[2].split()
    assert way_on == ["--resume", "outputs/checkpoint_best.pth", "--output_dir", "NEW"]
    assert run("main", *TINY[-8:], "--epochs", 1, *way_on) == 0
    Path("outputs/checkpoint_best.pth").unlink()
    assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 2
    assert capsys.readouterr().err.endswith("damaged\n")


def test_tensorboard_gets_the_numbers_of_the_log(coco_folder: Path, run: RunScript) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("main", *SCRATCH, "--epochs", 2, "--tensorboard") == 0
    events = EventAccumulator("outputs/tensorboard").Reload()
    log = read_log()
    for name in ("train_loss", "test_loss", "seconds"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx([line[name] for line in log])
    ap50 = [event.value for event in events.Scalars("test_coco_eval_bbox_1")]
    assert ap50 == pytest.approx([line["test_coco_eval_bbox"][1] for line in log])


def test_tensorboard_that_is_not_installed_is_named_before_training(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert run("main", *SCRATCH, "--epochs", 1, "--tensorboard") == 2
    assert "pip install tensorboard" in capsys.readouterr().err


def test_color_jitter_is_off_unless_asked_for_and_a_function_of_the_key(coco_folder: Path) -> None:
    def images(*flags: object) -> CocoDetection:
        args = parse_arguments("", list(map(str, (*SCRATCH, *flags))))
        return main.load_data(args, {"scale": 800, "max_size": 1333}, ResumeState()).train

    plain, jittered = images(), images("--color_jitter", 0.3)
    for epoch in range(3):
        params, other = plain.augment_params((epoch, 1)), jittered.augment_params((epoch, 1))
        assert params.color_factors == () and len(other.color_factors) == 3
        assert other._replace(color_factors=()) == params
        assert all(0.7 <= factor <= 1.3 for factor in other.color_factors) and other == jittered.augment_params(
            (epoch, 1)
        )
    assert len({jittered.augment_params((epoch, 1)).color_factors for epoch in range(3)}) == 3
    assert not torch.equal(plain[(0, 1)].image, jittered[(0, 1)].image)
    assert torch.equal(plain[(0, 1)].boxes_cxcywh, jittered[(0, 1)].boxes_cxcywh)


@pytest.mark.parametrize(
    ("flags", "of", "same"),
    [
        (("--freeze", "backbone"), ("--lr_backbone", 0), True),
        (("--ema_decay", 0), ("--ema_decay", 0.9), True),  # the average is evaluated, the training is the same
        (("--query_groups", 1), (), True),
        (("--color_jitter", 0), (), True),
        (("--query_groups", 2), (), False),
        (("--color_jitter", 0.3), (), False),
        (("--warmup_steps", 2), (), False),
        (("--lr_schedule", "cosine"), (), False),
        (("--accumulate", 2), (), False),
    ],
)
def test_an_ingredient_changes_the_weights_only_where_it_is_on(
    flags: tuple, of: tuple, same: bool, coco_folder: Path, run: RunScript
) -> None:
    for name, extra in (("one", flags), ("other", of)):
        assert run("main", *SCRATCH, "--epochs", 2, "--output_dir", name, *extra) == 0
    one, other = weights("one/checkpoint.pth")["model"], weights("other/checkpoint.pth")["model"]
    assert one.keys() == other.keys()  # a plain DETR either way
    assert all(torch.equal(one[name], other[name]) for name in one) is same


def test_nothing_is_deleted_that_nobody_agreed_to_lose(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    Path("outputs/checkpoint.pth").unlink()  # 0.7 GB for a DETR-R50: people do that
    held = {path.name: path.read_bytes() for path in Path("outputs").iterdir()}
    refused = [
        (["--resume", "auto"], "outputs holds a run already (checkpoint_best.pth, log.txt, predictions.json)"),
        (["--resume", "outputs/checkpoint_best.pth"], "checkpoint_best.pth would be deleted with the run in outputs"),
        (["--resume", "outputs/checkpoint_best.pth", "--overwrite"], "would be deleted with the run in outputs"),
        (["--overwrite", "--tensorboard", "--device", "cuda:99"], "--device cuda:99: not available here"),
    ]
    for flags, message in refused:
        capsys.readouterr()
        flags = flags if "--resume" in flags and "auto" not in flags else [*flags, "--backbone_weights", "none"]
        assert run("main", *TINY, "--epochs", 1, *flags) == 2
        assert message in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in Path("outputs").iterdir()} == held


def test_going_on_in_another_folder_leaves_the_first_as_it_is(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    held = {path.name: path.read_bytes() for path in Path("outputs").iterdir()}
    command = ("main", *SCRATCH, "--epochs", 2, "--resume", "outputs/checkpoint.pth", "--output_dir", "other")
    assert run(*command) == 0
    assert {path.name: path.read_bytes() for path in Path("outputs").iterdir()} == held
    assert [line["epoch"] for line in read_log("other")] == [1]
    assert weights("other/checkpoint_best.pth")["best"]["epoch"] == 1  # the best of this folder


def test_overwriting_starts_anew_also_where_auto_would_go_on(coco_folder: Path, run: RunScript) -> None:
    for _ in range(2):
        assert run("main", *SCRATCH, "--epochs", 1, "--resume", "auto", "--overwrite") == 0
        assert [line["epoch"] for line in read_log()] == [0]


@pytest.mark.long
def test_a_mid_epoch_checkpoint_of_other_steps_begins_its_epoch_again(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--batch_size", 1) == 0
    checkpoint = weights("outputs/checkpoint.pth")
    checkpoint["epoch"], checkpoint["step"]["steps_done"] = -1, 4
    torch.save(checkpoint, "outputs/checkpoint.pth")
    assert run("main", *SCRATCH, "--epochs", 1, "--batch_size", 2, "--resume", "auto") == 0
    assert "inside an epoch of other steps than this command's: the epoch begins again" in capsys.readouterr().out


def test_a_checkpoint_of_the_reference_code_is_a_start(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--output_dir", "run") == 0
    theirs = {
        key: weights("run/checkpoint.pth")[key] for key in ("model", "optimizer", "lr_scheduler", "epoch", "config")
    }
    torch.save(theirs, "theirs.pth")
    assert run("main", *TINY, "--epochs", 1, "--resume", "theirs.pth") == 0
    assert "theirs.pth: from the reference code; its weights are a start" in capsys.readouterr().out


def test_learnt_classes_of_the_reference_code_are_asked_about(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """91 classes numbered by category id, none of them named: row 1 is the disc's, and is not thrown away."""
    assert run("main", *SCRATCH, "--epochs", 1, "--num_classes", 91, "--output_dir", "run") == 0
    theirs = {key: weights("run/checkpoint.pth")[key] for key in ("model", "optimizer", "config")}
    torch.save(theirs, "theirs.pth")
    capsys.readouterr()
    command = ("main", *TINY, "--epochs", 1, "--lr", 0, "--ema_decay", 0, "--resume", "theirs.pth")
    assert run(*command) == 2
    error = capsys.readouterr().err
    assert "theirs.pth" in error and "91" in error and "--class_map 1='disc'" in error and "prep.py" in error
    assert not Path("outputs").exists()
    assert run(*command, "--class_map", "1=disc") == 0
    row = weights("outputs/checkpoint.pth")["model"]["class_embed.weight"][0]
    assert torch.equal(row, theirs["model"]["class_embed.weight"][1])
    assert run("main", *TINY, "--epochs", 1, "--resume", "theirs.pth", "--class_map", "91=disc", "--overwrite") == 2


@pytest.mark.parametrize(
    ("start", "flags", "scales", "max_size"),
    [
        (ResumeState(), (None, None), list(range(480, 801, 32)), 1333),
        (ResumeState(), ([64], None), [64], 1333),
        (ResumeState(Path("w.pth"), {"model": {}}), (None, None), list(range(480, 801, 32)), 1333),
        (ResumeState(Path("w.pth"), {"resolution": {"scale": 96, "max_size": 128}}), (None, None), [96], 128),
        (ResumeState(Path("w.pth"), {"resolution": {"scale": 96, "max_size": 128}}), (None, 160), [96], 160),
        (
            ResumeState(
                Path("w.pth"), {"resolution": {"scale": 96, "max_size": 128}, "args": {"scales": [64, 96]}}, True
            ),
            (None, None),
            [64, 96],
            128,
        ),
    ],
    ids=["paper", "flag", "public", "file", "file and flag", "resumed"],
)
def test_image_sizes_follow_the_flags_then_the_file(
    start: ResumeState, flags: tuple, scales: list[int], max_size: int
) -> None:
    assert choose_sizes(start, *flags) == (scales, max_size)


@pytest.mark.parametrize(("flags", "named"), [(([16, 64], None), "16"), (([480, 800], 640), "640")])
def test_sizes_that_no_image_can_have_are_named(flags: tuple, named: str) -> None:
    with pytest.raises(UserError, match=named):
        choose_sizes(ResumeState(), *flags)


def test_more_queries_than_the_file_has_start_near_its_own(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--output_dir", "first") == 0
    own = weights("first/checkpoint_best.pth")["model"]["query_embed.weight"]
    more = ("main", *TINY[-8:], "--weights", "first/checkpoint_best.pth", "--lr", 0, "--lr_backbone", 0)
    more = (*more, "--num_queries", 2 * len(own) + 1, "--epochs", 1)
    assert run(*more) == 0
    saved = weights("outputs/checkpoint_best.pth")
    embedding = saved["model"]["query_embed.weight"]
    assert saved["config"]["num_queries"] == len(embedding) == 2 * len(own) + 1
    assert torch.equal(embedding[: len(own)], own)
    distance = (embedding[len(own) : 2 * len(own)] - own).std() / own.std()
    assert 0.02 < distance < 0.3
    assert f"{len(own)} queries, and {len(own) + 1}" in capsys.readouterr().out
    assert run(*more, "--output_dir", "fewer", "--num_queries", len(own) - 1) == 2


@pytest.mark.parametrize("spelled", ["absolute", "dotted", "symbolic link", "hard link"])
@pytest.mark.parametrize("flag", ["--resume", "--weights", "--backbone_weights"])
def test_the_file_to_start_from_is_not_deleted_however_it_is_spelled(
    flag: str, spelled: str, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    best = Path("outputs/checkpoint_best.pth")
    path = {"absolute": best.resolve(), "dotted": Path("data/../outputs") / best.name}.get(spelled, Path("link.pth"))
    if spelled == "symbolic link":
        path.symlink_to(best.resolve())
    elif spelled == "hard link":
        path.hardlink_to(best)
    held = {path.name: path.read_bytes() for path in Path("outputs").iterdir()}
    capsys.readouterr()
    start = ("--resume", "auto", flag, path) if flag == "--weights" else (flag, path)
    assert run("main", *TINY, "--epochs", 1, *start, "--overwrite") == 2
    assert f"{path} would be deleted with the run in outputs" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("outputs").iterdir()} == held


def test_a_run_is_resumed_or_overwritten_and_not_both(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    held = {path.name: path.read_bytes() for path in Path("outputs").iterdir()}
    last = Path("outputs/checkpoint.pth").resolve()
    assert run("main", *TINY, "--epochs", 2, "--resume", last, "--overwrite") == 2
    error = capsys.readouterr().err
    assert f"--resume {last} and --overwrite" in error and error.count("\n") == 1
    assert run("main", *TINY, "--epochs", 1, "--resume", last, "--overwrite") == 2, (
        "also where nothing is left to train"
    )
    assert {path.name: path.read_bytes() for path in Path("outputs").iterdir()} == held


@pytest.mark.parametrize(
    ("ids", "flags", "accepted"),
    [
        ([1, 91], (), "accepted: 0 to 90; found 91 b. --num_classes 92 makes room"),
        ([100, 5], (), "accepted: 0 to 90; found 100 a. --num_classes 101 makes room"),
        ([7, 100], ("--num_classes", 100), "accepted: 0 to 99; found 100 b. --num_classes 101 makes room"),
        ([1, 90], ("--num_classes", 90), "accepted: 0 to 89; found 90 b. --num_classes 91 makes room"),
        ([1, 90], (), None),
        ([1, 91], ("--num_classes", 92), None),
        ([1, 2], ("--num_classes", 3), None),
    ],
)
def test_category_ids_that_are_labels_leave_one_for_no_object(
    ids: list[int], flags: tuple, accepted: str | None, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    for split in ("train", "val"):
        coco = json.loads((coco_folder / f"annotations/custom_{split}.json").read_text())
        coco["categories"] = [{"id": i, "name": name} for i, name in zip(ids, "ab", strict=True)]
        coco["annotations"] = [{**a, "category_id": ids[n % 2]} for n, a in enumerate(coco["annotations"])]
        (coco_folder / f"annotations/instances_{split}2017.json").write_text(json.dumps(coco))
    code = run("main", *SCRATCH, "--dataset_file", "coco", "--epochs", 1, *flags)
    if accepted is None:
        assert code == 0 and read_log()[0]["train_class_error"] > 0
        assert run("main", "--eval", "--dataset_file", "coco", *TINY[-8:], *flags) == 0
        assert {p["category_id"] for p in json.loads(Path("outputs/predictions.json").read_text())} <= set(ids)
        return
    error = capsys.readouterr().err
    assert code == 2 and "instances_train2017.json: --dataset_file coco takes category ids as labels" in error
    assert accepted in error and "--dataset_file custom takes any ids" in error


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_safetensors_file_is_refused_in_one_sentence(
    content: bytes, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    Path("model.safetensors").write_bytes(content)
    assert run("main", *TINY, "--resume", "model.safetensors") == 2
    assert capsys.readouterr().err == (
        "error: model.safetensors: safetensors hold no architecture; accepted: the folder with it and its config.json\n"
    )


def test_weights_from_an_address_are_named_after_its_path(
    coco_folder: Path, server: ThreadingHTTPServer, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    paths = (("/good/my%20weights.pth?download=true#x", "my weights.pth"), ("/good/..%2F..%2Fw.pth", "w.pth"))
    for path, name in paths:
        assert run("main", *TINY, "--resume", address + path) == 2  # what the server has is no checkpoint
        assert f"error: {name}: refused, it is not a PyTorch file" in capsys.readouterr().err
        assert Path(name).exists()
    assert run("main", *TINY, "--resume", address + "/?file=w.pth") == 2
    assert "names no file" in capsys.readouterr().err


def test_images_are_evaluated_at_the_largest_scale(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1, "--scales", 40, 56, 48, "--max_size", 200) == 0
    assert weights("outputs/checkpoint_best.pth")["resolution"] == {"scale": 56, "max_size": 200}


def test_a_run_is_resumed_whatever_its_weights_were(coco_folder: Path, run: RunScript) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    again = ("main", *TINY, "--resume", "auto", "--weights", "outputs/checkpoint.pth", "--epochs", 2)
    assert run(*again) == 0 and [line["epoch"] for line in read_log()] == [0, 1]


def test_a_damaged_checkpoint_has_a_way_on_however_it_is_spelled(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    last = Path("outputs/checkpoint.pth").resolve()
    last.write_bytes(last.read_bytes()[:-1000])
    assert run("main", *TINY, "--epochs", 2, "--resume", last) == 2
    assert "--resume outputs/checkpoint_best.pth --output_dir NEW" in capsys.readouterr().err


@pytest.mark.parametrize(("busy", "threads"), [(0.2, 2), (7.0, 1)])
@pytest.mark.long
def test_cores_that_others_keep_busy_are_left_to_them(
    busy: float,
    threads: int,
    coco_folder: Path,
    run: RunScript,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("detr.training.device.count_cpus", lambda: 2)
    monkeypatch.setattr(main.CpuLoad, "cores", lambda self: busy)
    try:
        torch.set_num_threads(2)
        assert run("main", *SCRATCH, "--epochs", 1) == 0
        assert torch.get_num_threads() == threads == weights("outputs/checkpoint.pth")["threads"]
        said = "1 of 2 threads: other processes keep the CPU busy"
        assert (said in capsys.readouterr().out) is (threads == 1)
        monkeypatch.setattr(main.CpuLoad, "cores", lambda self: 1.0 - busy)
        torch.set_num_threads(2)
        assert run("main", *SCRATCH, "--epochs", 2, "--resume", "auto") == 0
        assert torch.get_num_threads() == threads, "a resumed run keeps its number"
        assert ("1 of 2 threads: as when this run began" in capsys.readouterr().out) is (threads == 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        monkeypatch.setattr(main.CpuLoad, "cores", lambda self: 2.0)
        assert run("main", *SCRATCH, "--epochs", 3, "--resume", "auto") == 0 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_file_that_does_not_name_its_classes_is_not_scored_as_nothing(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    """A detector of the reference code: its labels are category ids, 1 for the disc, and not positions."""
    assert run("main", *SCRATCH, "--epochs", 1) == 0
    capsys.readouterr()
    evaluate = ("main", "--eval", "--device", "cpu", "--num_workers", 0)
    assert run(*evaluate) == 0
    numbers = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A")]
    model = weights("outputs/checkpoint_best.pth")["model"]
    for classes in (2, 91):
        theirs = dict(model)
        for key in ("class_embed.weight", "class_embed.bias"):
            rows = torch.full((classes + 1, *model[key].shape[1:]), -1e4 if key.endswith("bias") else 0.0)
            rows[1], rows[-1] = model[key]
            theirs[key] = rows
        namespace = argparse.Namespace(nheads=4, dilation=False)
        torch.save({"model": theirs, "args": namespace, "optimizer": {}, "epoch": 0}, "theirs.pth")
        for flags in ((), ("--num_classes", classes)):
            assert run(*evaluate, "--resume", "theirs.pth", "--scales", 64, "--max_size", 96, *flags) == 0
            output = capsys.readouterr().out
            assert "category ids: 1 disc" in output
            assert [line for line in output.splitlines() if line.startswith("A")] == numbers
    annotations = coco_folder / "annotations/custom_val.json"
    coco = json.loads(annotations.read_text())
    (category,) = coco["categories"]
    changed = {"categories": [category | {"id": 99}, category | {"id": 98, "name": "b"}], "annotations": []}
    annotations.write_text(json.dumps(coco | changed))
    annotations.with_name("custom_train.json").unlink()
    assert run(*evaluate, "--resume", "theirs.pth") == 2
    error = capsys.readouterr().err
    assert "91 classes" in error and "ids up to 99" in error and "custom_val.json" in error
