"""Weights files: what is read, stripped, described, adapted, and what is refused with its name and the reason."""

import argparse
import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from detr.models.class_transfer import ClassRows, match_classes
from detr.models.detr import Detr, DetrConfig
from detr.models.weights import (
    detector_state,
    imagenet_weights,
    load_backbone_weights,
    load_detector,
    load_weights,
    read_backbone_weights,
    read_checkpoint,
    read_config,
    save_tensors,
    strip_class_head,
)
from detr.training.meters import MetricLogger
from detr.training.resume import PUBLIC_CLASSES
from detr.training.shrink import shrink
from utils import UserError

SMALL = DetrConfig(5, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, num_queries=5)
MOBILE = dataclasses.replace(SMALL, backbone="mobilenet_v3_small", stride=16)


def save_public_layout(path: Path, config: DetrConfig = SMALL) -> Detr:
    """A file as the authors publish them: a dict with `model` and nothing else."""
    detr = Detr(config)
    torch.save({"model": detr.state_dict()}, path)
    return detr


@pytest.mark.parametrize(
    "config",
    [
        DetrConfig(91),
        dataclasses.replace(SMALL, position_embedding="learned", pre_norm=True, enc_layers=0, dim_feedforward=64),
        dataclasses.replace(SMALL, backbone="resnext50_32x4d"),
        dataclasses.replace(SMALL, backbone="wide_resnet50_2"),
        dataclasses.replace(SMALL, backbone="resnet34", batch_norm="train"),
        dataclasses.replace(SMALL, stride=16),
        MOBILE,
        dataclasses.replace(MOBILE, backbone="mobilenet_v3_large", stride=32),
    ],
    ids=["r50", "learned", "resnext", "wide", "r34-live", "r18-16", "mobile-16", "mobile-32"],
)
def test_architecture_is_read_from_shapes(config: DetrConfig, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_public_layout(path, config)
    read = read_config(path, read_checkpoint(path))
    wanted = dataclasses.asdict(config)
    assert read == {name: wanted[name] for name in read}
    assert wanted.keys() - read.keys() == {"dilation", "batch_norm", "nheads", "dropout", "mask_box_weight"}


def test_public_files_with_dilation_are_known_by_name(tmp_path: Path) -> None:
    for name, dilation in (("detr-r50-dc5-f0fb7ef5.pth", True), ("detr-r50-e632da11.pth", False)):
        save_public_layout(tmp_path / name)
        assert read_config(tmp_path / name, read_checkpoint(tmp_path / name))["dilation"] is dilation


def test_files_from_before_there_was_a_choice_of_stride(tmp_path: Path) -> None:
    config = dataclasses.asdict(SMALL)
    del config["stride"]
    original, path = Detr(SMALL), tmp_path / "old.pth"
    torch.save({"model": original.state_dict(), "config": config}, path)
    read = read_config(path, read_checkpoint(path))
    assert DetrConfig(**config) == DetrConfig(**read) == SMALL
    assert read["stride"] == 32  # said, so that --stride 16 is a contradiction and not a list of missing tensors
    assert load_weights(Detr(DetrConfig(**read)), original.state_dict(), path).fresh == []


def test_stripped_weights_load_and_only_the_head_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    original = save_public_layout(path)
    checkpoint = read_checkpoint(path)
    stripped = strip_class_head(checkpoint, read_config(path, checkpoint))
    assert "num_classes" not in stripped["config"] and not [k for k in stripped["model"] if "class_embed" in k]
    detr = Detr(dataclasses.replace(SMALL, num_classes=1))
    head = detr.class_embed.weight.clone()
    report = load_weights(detr, stripped["model"], path)
    assert report.fresh == ["class_embed.weight", "class_embed.bias"] and report.class_rows is None
    assert report.loaded == len(stripped["model"]) == len(detr.state_dict()) - 2
    assert torch.equal(detr.class_embed.weight, head)
    assert torch.equal(detr.query_embed.weight, original.query_embed.weight)


def test_a_head_is_taken_whole_unless_rows_are_named(tmp_path: Path) -> None:
    original = save_public_layout(tmp_path / "w.pth")
    same = Detr(SMALL)
    report = load_weights(same, original.state_dict(), tmp_path / "w.pth")
    assert report.loaded == len(original.state_dict()) and not report.fresh and report.class_rows is None
    assert torch.equal(same.class_embed.weight, original.class_embed.weight)
    with pytest.raises(UserError, match=r"has shape class_embed.weight \(6, 32\) instead of \(3, 32\) \(and 1 more\)"):
        load_weights(Detr(dataclasses.replace(SMALL, num_classes=2)), original.state_dict(), tmp_path / "w.pth")
    half = {key: value for key, value in original.state_dict().items() if key != "class_embed.bias"}
    with pytest.raises(UserError, match=r"class_embed.bias is missing"):
        load_weights(Detr(SMALL), half, tmp_path / "w.pth")


NAMES = {0: "Balloons", 1: "cats", 2: "pedestrian", 3: "kite"}


@pytest.mark.parametrize(
    ("names", "class_map", "sources"),
    [
        (NAMES, [("person", "pedestrian")], {1: 17, 2: 1, 3: 38}),
        ({0: "balloon"}, [], {}),
        (dict(enumerate(PUBLIC_CLASSES.values())), [], dict(enumerate(PUBLIC_CLASSES))),
        (
            {0: "puppy", 1: "kitten", 2: "dog"},
            [("dog", "puppy"), ("cat", "kitten"), ("dog", "dog")],
            {0: 18, 1: 17, 2: 18},
        ),
    ],
    ids=["some", "none", "all", "one row twice"],
)
def test_rows_are_those_of_the_named_classes(names: dict, class_map: list, sources: dict, tmp_path: Path) -> None:
    """Bit for bit; others are the mean of all named rows, spare rows what the same seed initialises without a file."""
    original = save_public_layout(tmp_path / "w.pth", dataclasses.replace(SMALL, num_classes=91)).state_dict()
    spare = 2
    torch.manual_seed(7)
    fresh = Detr(dataclasses.replace(SMALL, num_classes=len(names) + spare)).state_dict()
    torch.manual_seed(7)
    detr = Detr(dataclasses.replace(SMALL, num_classes=len(names) + spare))
    class_rows = match_classes(PUBLIC_CLASSES, names, class_map, tmp_path / "w.pth")
    original = {key: value.half() for key, value in original.items()}  # as shipped weights are
    report = load_weights(detr, original, tmp_path / "w.pth", class_rows)
    assert report.loaded == len(original) - 2 and not report.fresh and report.class_rows == class_rows
    for key in ("class_embed.weight", "class_embed.bias"):
        mean = torch.stack([original[key][row].float() for row in PUBLIC_CLASSES]).mean(0)
        for label in range(len(names) + spare):
            wanted = mean if label in names else fresh[key][label]
            wanted = original[key][sources[label]] if label in sources else wanted
            assert torch.equal(detr.state_dict()[key][label], wanted), names.get(label)
        assert torch.equal(detr.state_dict()[key][-1], original[key][91])
    assert torch.equal(detr.query_embed.weight, original["query_embed.weight"])


def test_a_head_that_contradicts_its_own_classes_is_refused(tmp_path: Path) -> None:
    model = Detr(SMALL).state_dict()
    path = tmp_path / "w.pth"
    for file_names, changed in (
        ({5: "no room: this is the row of no object"}, {}),
        ({}, {"class_embed.weight": torch.zeros(4, 32)}),
        ({}, {"class_embed.weight": torch.zeros(6, 16)}),
    ):
        with pytest.raises(UserError, match=r"w.pth: its class head does not fit its classes, class_embed.weight has"):
            load_weights(Detr(SMALL), model | changed, path, ClassRows(file_names, {0: "a"}, {}))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"backbone": "resnet50"}, "w.pth: the weights do not fit a DETR with resnet18"),
        ({"hidden_dim": 64}, r"has shape .*\(64, .* instead of \(32"),
        ({"dec_layers": 3}, r"decoder.layers.2\S+ is not part of this model \(and \d+ more\)"),
        ({"enc_layers": 0}, r"encoder.layers.0\S+ is missing"),
    ],
)
def test_anything_but_the_head_must_fit(other: dict, message: str, tmp_path: Path) -> None:
    weights = Detr(dataclasses.replace(SMALL, **other)).state_dict()
    with pytest.raises(UserError, match=message):
        load_weights(Detr(SMALL), weights, tmp_path / "w.pth")


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code of the file was run')",))


def write_wrong_files(folder: Path) -> dict[str, str]:
    """File name -> what the refusal says."""
    save_public_layout(folder / "good.pth")
    whole = (folder / "good.pth").read_bytes()
    (folder / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("<html>404</html>")
    torch.save({"model": {"a": Payload()}}, folder / "code.pth")
    with (folder / "old_code.pth").open("wb") as file:
        pickle.dump(Payload(), file, protocol=2)
    torch.save({"state_dict": {}}, folder / "other.pth")
    torch.save({"model": {"a": 1}}, folder / "numbers.pth")
    damaged = "truncated or damaged|not a PyTorch file"
    return {
        "truncated.pth": damaged,
        "empty.pth": damaged,
        "text.pth": damaged,
        "code.pth": "could run code",
        "old_code.pth": "could run code",
        "other.pth": "not a DETR checkpoint",
        "numbers.pth": "not a tensor: a",
        "missing.pth": "no such file",
    }


def test_wrong_files_are_refused_with_name_and_reason(tmp_path: Path) -> None:
    for name, message in write_wrong_files(tmp_path).items():
        with pytest.raises(UserError, match=rf"{name}.*({message})"):
            read_checkpoint(tmp_path / name)


def test_weights_that_are_no_detr_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for model, message in (
        ({"fc.weight": torch.zeros(1)}, "input_proj.weight is missing"),
        (
            {**Detr(SMALL).state_dict(), "backbone.0.body.conv1.weight": torch.zeros(8, 3, 7, 7)},
            "no torchvision ResNet or MobileNet; accepted: .*resnet50, .*mobilenet_v3_small",
        ),
    ):
        torch.save({"model": model}, path)
        with pytest.raises(UserError, match=rf"w.pth: .*{message}"):
            read_config(path, read_checkpoint(path))
    torch.save({"model": {}, "config": {"num_classes": 1, "wings": 2}}, path)
    with pytest.raises(UserError, match="wings, unknown here"):
        read_config(path, read_checkpoint(path))


def test_the_references_own_training_checkpoints_are_read(tmp_path: Path) -> None:
    namespace = argparse.Namespace(lr=1e-4, backbone="resnet18")
    torch.save({"model": Detr(SMALL).state_dict(), "args": namespace, "epoch": 3}, tmp_path / "ref.pth")
    assert vars(read_checkpoint(tmp_path / "ref.pth")["args"])["lr"] == 1e-4


@pytest.mark.parametrize("config", [SMALL, MOBILE], ids=["resnet", "mobilenet"])
def test_a_detector_is_rebuilt_from_its_file_alone(config: DetrConfig, tmp_path: Path) -> None:
    detr, path = Detr(config).eval(), tmp_path / "best.pth"
    categories = [{"id": n, "name": str(n)} for n in range(1, 6)]
    torch.save(detector_state(detr, categories, {"scale": 64, "max_size": 96}, {"AP": 0.5, "epoch": 3}), path)
    again, names, raw_ids, resolution, white = load_detector(path)
    assert again.config == config and names == categories and resolution == {"scale": 64, "max_size": 96}
    assert raw_ids is False and white == {}
    batch = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    assert torch.equal(detr(*batch).logits, again(*batch).logits)
    save_public_layout(path)
    with pytest.raises(UserError, match="does not say what its classes are"):
        load_detector(path)


def test_backbone_starts_from_a_classifiers_file(tmp_path: Path) -> None:
    import torchvision

    path = tmp_path / "r18.pth"
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(resnet.state_dict(), path)
    detr = Detr(SMALL)
    load_backbone_weights(detr, read_backbone_weights(path, detr.config.backbone), str(path))
    assert torch.equal(detr.backbone[0].body.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)
    with pytest.raises(UserError, match=r"r18.pth: these are not the weights of a torchvision resnet34"):
        load_backbone_weights(
            Detr(dataclasses.replace(SMALL, backbone="resnet34")), read_backbone_weights(path, "resnet34"), "r18.pth"
        )


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize(
    ("name", "last", "head"),
    [
        ("resnet18", "layer3.1.bn2.bias", "fc.bias"),
        ("mobilenet_v3_small", "features.8.block.3.1.bias", "classifier.3.bias"),
    ],
)
def test_a_classifiers_file_fits_a_backbone_that_is_cut(
    name: str, last: str, head: str, stride: int, tmp_path: Path
) -> None:
    """What the backbone leaves out may be in the file or not; everything else has to fit exactly."""
    import torchvision

    path = tmp_path / "classifier.pth"
    whole = torchvision.models.get_model(name, weights=None).state_dict()
    fresh = dataclasses.replace(SMALL, backbone=name, stride=stride)

    def load(state: dict) -> dict[str, torch.Tensor]:
        torch.save(state, path)
        detr = Detr(fresh)
        load_backbone_weights(detr, read_backbone_weights(path, detr.config.backbone), str(path))
        return detr.backbone[0].body.state_dict()

    assert head in whole and last in whole
    whole[last] = torch.rand_like(whole[last])
    for state in (whole, whole | {head: torch.zeros(7)}):
        loaded = load(state)
        assert len(loaded) > 50 and all(torch.equal(value, whole[key]) for key, value in loaded.items())
    assert torch.equal(load(dict(loaded))[last], whole[last])  # nothing but what this backbone has
    late = max(key for key in whole if key.startswith(("layer4", "features.12")) and key.endswith("weight"))
    for wrong in (
        {key: value for key, value in whole.items() if key != last},
        whole | {"layer5.weight": torch.zeros(1)},
        whole | {last: torch.zeros(3)},
        whole | {late: torch.zeros(3)},
        {f"module.{key}": value for key, value in whole.items()},
        {},
    ):
        with pytest.raises(UserError, match=rf"classifier.pth: these are not the weights of a torchvision {name}"):
            load(wrong)
    with pytest.raises(UserError, match=r"classifier.pth: not a state dict"):
        load({"model": whole, "epoch": 3})


@pytest.mark.parametrize("config", [SMALL, MOBILE], ids=["resnet", "mobilenet"])
def test_imagenet_weights_without_a_network_say_what_to_do(config: DetrConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    name = config.backbone
    with pytest.raises(UserError, match=rf"{name} could not be downloaded \(no network\): fetch https://\S+{name}"):
        imagenet_weights(name)


@pytest.mark.parametrize("config", [dataclasses.replace(SMALL, stride=16), MOBILE], ids=["resnet", "mobilenet"])
def test_imagenet_weights_start_a_backbone_that_is_cut(config: DetrConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    whole = torchvision.models.get_model(config.backbone, weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: whole)
    detr = Detr(config)
    load_backbone_weights(detr, imagenet_weights(config.backbone), "imagenet")
    assert all(torch.equal(value, whole[key]) for key, value in detr.backbone[0].body.state_dict().items())


def test_a_shrunk_detector_finds_the_same(tmp_path: Path) -> None:
    detr = Detr(dataclasses.replace(MOBILE, batch_norm="train")).eval()
    resolution, best = {"scale": 64, "max_size": 96}, {"AP": 0.5, "epoch": 3}
    categories = [{"id": number, "name": str(number)} for number in range(1, 6)]
    saved = detector_state(detr, categories, resolution, best, white={"I": 4095})
    # As in a run's checkpoint.pth: the average is the detector, and training has more to keep.
    torch.save(
        saved | {"model": Detr(MOBILE).state_dict(), "ema": saved["model"], "optimizer": {}}, tmp_path / "run.pth"
    )
    small = shrink(read_checkpoint(tmp_path / "run.pth"))
    assert small.keys() == saved.keys() and small["best"] == best
    torch.save(small, tmp_path / "small.pth")
    again, names, _, size, white = load_detector(tmp_path / "small.pth")
    assert names == categories and size == resolution and white == {"I": 4095} and again.config.batch_norm == "frozen"
    assert (tmp_path / "small.pth").stat().st_size < 0.6 * (tmp_path / "run.pth").stat().st_size
    images, padding = torch.randn(1, 3, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    with torch.inference_mode():
        for value, other in zip(detr(images, padding)[:2], again(images, padding)[:2], strict=True):
            assert torch.allclose(value, other, atol=0.05), "half precision has 11 bits"
    stripped = strip_class_head(small, small["config"])
    assert stripped["resolution"] == resolution and "class_embed.bias" not in stripped["model"]


def test_files_of_earlier_versions_are_read_under_the_names_of_now(tmp_path: Path) -> None:
    config = dataclasses.asdict(dataclasses.replace(SMALL, batch_norm="train"))
    means = {"names": ["loss"], "sums": torch.ones(2), "rates": 0.1, "updates": 3}
    old = {
        "model": {"a": torch.zeros(1)},
        "config": config | {"batch_norm": "live"},
        "args": {"batch_norm": "live", "lr": 1e-4},
        "step": {"updates_done": 3, "updates_per_epoch": 7, "means": means},
    }
    torch.save(old, tmp_path / "old.pth")
    new = read_checkpoint(tmp_path / "old.pth")
    assert new["config"] == config and new["args"] == {"batch_norm": "train", "lr": 1e-4}
    assert (new["step"]["steps_done"], new["step"]["steps_per_epoch"]) == (3, 7)
    metrics = MetricLogger()
    metrics.load_state(new["step"]["metrics"], torch.device("cpu"))
    assert metrics.mean("loss") == 1 and metrics.state()["steps"] == 3


def test_a_mask_head_has_the_public_files_keys(tmp_path: Path) -> None:
    """32 tensors beside `detr.*`, 1.33 million parameters for DETR-R50."""
    with torch.device("meta"):
        detr = Detr(DetrConfig(250, masks=True))
    saved = detector_state(detr, [], {"scale": 800, "max_size": 1333}, {"AP": 0, "epoch": 0})["model"]
    heads = {key: value for key, value in saved.items() if not key.startswith("detr.")}
    stacks = (("lay", 5), ("gn", 5), ("adapter", 3))
    layers = [f"mask_head.{name}{n}" for name, last in stacks for n in range(1, last + 1)]
    layers += ["mask_head.out_lay", "bbox_attention.q_linear", "bbox_attention.k_linear"]
    assert heads.keys() == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} and len(heads) == 32
    assert sum(value.numel() for value in heads.values()) == 1_333_657
    with torch.device("meta"):
        plain = Detr(DetrConfig(250)).state_dict()
    assert {key.removeprefix("detr.") for key in saved.keys() - heads.keys()} == plain.keys()


def test_a_mask_head_comes_and_goes(tmp_path: Path) -> None:
    masks = dataclasses.replace(SMALL, nheads=8, masks=True)
    original, path = Detr(masks), tmp_path / "masks.pth"
    save_tensors(path, detector_state(original, [], {}, {"AP": 0, "epoch": 0}))
    checkpoint = read_checkpoint(path)
    again = Detr(DetrConfig(**read_config(path, checkpoint)))
    assert again.config == masks and load_weights(again, checkpoint["model"], path).fresh == []
    del checkpoint["config"]
    assert read_config(path, checkpoint)["masks"] is True
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in original.state_dict().items())
    plain = Detr(dataclasses.replace(SMALL, nheads=8))
    report = load_weights(plain, checkpoint["model"], path)
    assert report.left_out == 32 and "left out" in str(report)
    assert all(torch.equal(value, original.state_dict()[key]) for key, value in plain.state_dict().items())
    fresh = Detr(masks)
    report = load_weights(fresh, plain.state_dict(), path)
    assert report.fresh == ["the mask head"]
    del checkpoint["model"]["mask_head.gn3.bias"]
    with pytest.raises(UserError, match=r"mask_head\.gn3\.bias is missing"):
        load_weights(Detr(masks), checkpoint["model"], path)
    stripped = strip_class_head(read_checkpoint(path), {"num_classes": 5})
    assert "detr.class_embed.weight" not in stripped["model"] and "mask_head.lay1.weight" in stripped["model"]
    assert "detr.query_embed.weight" in shrink(read_checkpoint(path))["model"]
