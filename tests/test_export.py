"""The same detector elsewhere: what other programs compute from an export, and what is refused."""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import math
import os
import re
import shutil
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from detr.data.images import read_rgb
from detr.data.loader import pad_images
from detr.data.transforms import IMAGENET_MEAN, IMAGENET_STD, fitted_size_hw
from detr.detector import Detection, Detector
from detr.export.comparison import Comparison, check, compare, run_detector
from detr.export.web_page import RUNTIME
from detr.models.detr import DetrConfig
from detr.models.postprocess import average_boxes, masks_to_rle, postprocess
from detr.models.weights import detector_state, load_detector, read_checkpoint
from tests.browser import CHROMIUM, Browser
from tests.conftest import ROOT, RunScript
from tests.peer import make_model
from utils import UserError

TINY = DetrConfig(3, backbone="resnet18", hidden_dim=32, nheads=4, enc_layers=1, dec_layers=2, num_queries=7,
                  dim_feedforward=48)  # fmt: skip
MASKS = dataclasses.replace(TINY, masks=True, mask_box_weight=0.5, nheads=8, num_classes=4, dec_layers=1)
CATEGORIES = [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "größe"}]
SIZES_HW = [(64, 96), (33, 120), (128, 77)]


def needs(*packages: str, oldest_torch: tuple[int, int] = (0, 0)) -> pytest.MarkDecorator:
    is_there = all(map(importlib.util.find_spec, packages)) and torch.__version__ >= oldest_torch
    return pytest.mark.skipif(not is_there, reason=f"needs {', '.join(packages)}, and a PyTorch that goes with them")


needs_onnx = needs("onnx", "onnxruntime", "onnxscript", oldest_torch=(2, 6))
needs_hub = needs("transformers", "timm", "safetensors")


def save(config: DetrConfig, path: Path = Path("own.pth"), **other: object) -> Path:
    state = detector_state(make_model(config), CATEGORIES, {"scale": 64, "max_size": 128}, {"AP": 0.5, "epoch": 0})
    torch.save(state | other, path)
    return path


def random_images(sizes_hw: list[tuple[int, int]] = SIZES_HW) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8)) for size_hw in sizes_hw]


def padded_batch(size_hw: tuple[int, int], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized images and their padding mask; each but the first is a little smaller."""
    images = torch.randn(batch, 3, *size_hw, generator=torch.Generator().manual_seed(1))
    padding_mask = torch.zeros(batch, *size_hw, dtype=torch.bool)
    for row in range(batch):
        padding_mask[row, size_hw[0] - 9 * row :] = padding_mask[row, :, size_hw[1] - 20 * row :] = True
    return images.masked_fill(padding_mask[:, None], 0.0), padding_mask


# --------------------------------------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("precision", "differences", "ap", "accepted"),
    [
        ("fp32", {"scores": 1e-6, "boxes_xyxy": 1e-6}, {}, True),
        ("fp32", {"scores": 0.12, "boxes_xyxy": 1e-6}, {"AP": (0.5, 0.5)}, False),
        ("fp32", {"scores": 1e-6, "boxes_xyxy": math.nan}, {}, False),
        ("fp16", {"scores": 0.02}, {"AP": (0.5, 0.492)}, True),
        ("fp16", {"scores": 1e-6}, {"AP": (0.5, 0.488)}, False),
        ("int8", {"scores": 1e-6}, {"AP": (0.5, 0.5), "mask AP": (0.5, 0.4)}, False),
        ("int8", {"scores": 1e-6}, {}, False),
    ],
)
def test_only_the_same_detector_is_kept(precision: str, differences: dict, ap: dict, accepted: bool) -> None:
    comparison = Comparison(3, differences, ap)
    if accepted:
        check(comparison, precision, Path("x.onnx"))
    else:
        with pytest.raises(UserError, match=r"x\.onnx was not written|needs annotated images"):
            check(comparison, precision, Path("x.onnx"))


def test_a_score_that_is_not_a_number_is_seen(run: RunScript) -> None:
    detector = Detector(save(TINY), device="cpu", amp="off")
    broken = iter([math.nan, 0.0, 0.0, 0.0])

    def with_nan(images: list[Image.Image]) -> list[torch.Tensor]:
        scores, boxes_xyxy = run_detector(detector, images)
        return [scores + next(broken), boxes_xyxy]

    assert math.isnan(compare(detector, with_nan, None, Path(), Path("own.pth")).differences["scores"])


# --------------------------------------------------------------------------------------------------------- hugging face


@needs_hub
@pytest.mark.parametrize(
    "config",
    [
        TINY,
        dataclasses.replace(TINY, stride=16),
        MASKS,
        pytest.param(DetrConfig(91), marks=pytest.mark.long),
        pytest.param(DetrConfig(3, dilation=True), marks=pytest.mark.long),
        pytest.param(DetrConfig(3, masks=True), marks=pytest.mark.long),
    ],
    ids=["tiny", "stride-16", "masks", "r50", "dc5", "r50-masks"],
)
def test_transformers_loads_the_same_detector(
    config: DetrConfig, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    path = save(config)
    assert run("detr.export.__main__", path, "--to", "huggingface", "hub") == 0
    assert "hub: largest differences from PyTorch on 3 images" in capsys.readouterr().out
    auto = transformers.AutoModelForImageSegmentation if config.masks else transformers.AutoModelForObjectDetection
    peer = auto.from_pretrained("hub").eval()
    assert type(peer).__name__ == ("DetrForSegmentation" if config.masks else "DetrForObjectDetection")
    detr = load_detector(path).model
    for size_hw, batch in (((96, 128), 1), ((70, 101), 3)):
        images, padding_mask = padded_batch(size_hw, batch)
        with torch.no_grad():
            theirs, ours = peer(images, pixel_mask=~padding_mask), detr(images, padding_mask)
        torch.testing.assert_close(theirs.logits, ours.logits[-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs.pred_boxes, ours.boxes_cxcywh[-1], atol=1e-5, rtol=0)
    back, ours = load_detector(Path("hub")), detr.state_dict()
    assert back.model.config == dataclasses.replace(detr.config, mask_box_weight=0.0)
    assert all(torch.equal(value, ours[key]) for key, value in back.model.state_dict().items())
    assert [c["name"] for c in back.categories] == [c["name"] for c in CATEGORIES]
    assert back.resolution == {"scale": 64, "max_size": 128}
    images = json.loads(Path("hub/preprocessor_config.json").read_text())  # as `transforms.to_tensor` prepares them
    assert (images["image_mean"], images["image_std"]) == ([*IMAGENET_MEAN], [*IMAGENET_STD])
    assert images["rescale_factor"] == 1 / 255 and images["resample"] == Image.Resampling.BILINEAR


@needs_hub
def test_the_pipeline_of_transformers_names_the_classes(run: RunScript) -> None:
    import transformers

    assert run("detr.export.__main__", save(TINY), "--to", "huggingface", "hub") == 0
    image = random_images()[0]
    theirs = transformers.pipeline("object-detection", model="hub")(image, threshold=0.0)
    ours = Detector("own.pth", device="cpu", amp="off")(image, threshold=0.0)
    assert {d["label"] for d in theirs} <= {"cat", "dog", "größe"}
    best = max(theirs, key=lambda d: d["score"])
    assert (best["label"], best["score"]) == (ours[0].category, pytest.approx(ours[0].score, abs=1e-3))
    assert [*best["box"].values()] == pytest.approx(ours[0].box_xyxy, abs=1.5)


@needs_hub
def test_rows_without_a_class_come_back_as_such(run: RunScript) -> None:
    path = save(dataclasses.replace(TINY, num_classes=91), raw_ids=True)
    assert run("detr.export.__main__", path, "--to", "huggingface", "hub") == 0
    back = read_checkpoint(Path("hub"))
    assert (back["categories"], back["raw_ids"]) == (CATEGORIES, True)
    assert json.loads(Path("hub/config.json").read_text())["id2label"]["0"] == "N/A"


@needs_hub
@pytest.mark.parametrize(
    ("config", "what"),
    [
        (dataclasses.replace(TINY, backbone="mobilenet_v3_small", stride=16), "a mobilenet_v3_small"),
        (dataclasses.replace(TINY, pre_norm=True), "pre-norm layers"),
        (dataclasses.replace(MASKS, stride=16), "a mask head on a backbone that ends at stride 16"),
    ],
)
def test_what_transformers_lacks_is_said(
    config: DetrConfig, what: str, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detr.export.__main__", save(config), "--to", "huggingface", "hub") == 2
    assert f"transformers has no DETR with {what}" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["own.pth"]


@pytest.mark.parametrize("target", ["onnx", "web"])
def test_a_checkpoint_is_not_written_over(target: str, run: RunScript, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(TINY)
    before = path.read_bytes()
    assert run("detr.export.__main__", path, path, "--to", target) == 2
    assert "own.pth" in capsys.readouterr().err and path.read_bytes() == before


@needs_hub
def test_a_folder_that_is_there_is_kept(run: RunScript, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hub").mkdir()
    assert run("detr.export.__main__", save(TINY), "--to", "huggingface", "hub") == 2
    assert capsys.readouterr().err == "error: hub is there already; accepted: the name of a new folder\n"
    assert not list(Path("hub").iterdir())


@needs_hub
@pytest.mark.parametrize(("to", "packages"), [("onnx", "onnx onnxruntime onnxscript"), ("huggingface", "safetensors")])
def test_missing_packages_are_named(
    to: str, packages: str, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages.split() else real(name))
    assert run("detr.export.__main__", save(TINY), "--to", to) == 2
    assert capsys.readouterr().err.endswith(f"needs what is not installed: pip install {packages}\n")
    assert sorted(path.name for path in Path().iterdir()) == ["own.pth"]


# ----------------------------------------------------------------------------------------------------- and back again


HEADS_AND_WIDTH = {"attention_heads": 8, "ffn_dim": 48}


def published_folder(path: Path) -> None:
    """What `transformers` itself writes, as the published DETRs are kept."""
    import transformers

    names = {0: "N/A", 1: "person", 2: "N/A", 3: "disc"}
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 7}
    sizes |= {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in HEADS_AND_WIDTH.items()}
    theirs = transformers.DetrConfig(use_pretrained_backbone=False, backbone="resnet18", id2label=names, **sizes)
    torch.manual_seed(0)
    transformers.DetrForObjectDetection(theirs).save_pretrained(path)


@needs_hub
@pytest.mark.parametrize(
    "flags",
    [["--resume", "hub"], pytest.param(["--resume", "auto", "--weights", "hub"], marks=pytest.mark.long)],
    ids=["resume", "weights"],
)
def test_a_published_folder_starts_a_fine_tuning(
    flags: list[str], coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    published_folder(Path("hub"))
    small = ["--scales", "64", "--max_size", "96", "--num_workers", "0", "--device", "cpu", "--epochs", "1"]
    assert run("main", *flags, *small) == 0
    printed = capsys.readouterr().out
    assert "class rows taken over: disc, no object" in printed
    assert run("detr.export.__main__", "outputs/checkpoint_best.pth", "--to", "huggingface") == 0
    assert "on 3 validation images: " in (printed := capsys.readouterr().out) and "; AP " in printed
    assert Detector("outputs/checkpoint_best_huggingface").label_map.names == {0: "disc"}


@needs_hub
def test_prep_strips_a_published_folder(via_folder: Path, run: RunScript) -> None:
    published_folder(Path("hub"))
    assert run("prep", "--via", via_folder, "--categories", "disc", "--weights", "hub") == 0
    assert "class_embed.weight" not in read_checkpoint(Path("hub_no-class-head.pth"))["model"]


@needs_hub
def test_masks_are_learnt_on_a_published_folder(
    coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    published_folder(Path("hub"))
    small = ["--scales", "64", "--max_size", "96", "--num_workers", "0", "--device", "cpu", "--epochs", "1"]
    assert run("main", "--masks", "--frozen_weights", "hub", *small) == 0
    assert "starting fresh: the mask head" in capsys.readouterr().out


@needs_hub
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda hub: (hub / "model.safetensors").unlink(), "hub: has no model.safetensors; accepted: the folder with"),
        (lambda hub: (hub / "model.safetensors").write_bytes(b"x" * 40), "hub/model.safetensors: cannot be read"),
        (lambda hub: (hub / "config.json").write_text("{"), "hub/config.json: not JSON"),
        (lambda hub: edit(hub, model_type="yolos"), "hub/config.json: a model of the type 'yolos'; accepted: detr"),
        (lambda hub: edit(hub, decoder_layers=3), "hub/model.safetensors: does not fit its config.json: model.decoder"),
        (lambda hub: edit(hub, encoder_layers=0), "does not fit its config.json: model.encoder.layers.0."),
        (lambda hub: edit(hub, backbone_config={"model_type": "resnet"}), "its backbone is 'resnet'; accepted: a Res"),
        (lambda hub: edit(hub, d_model="wide"), "hub/config.json: d_model is 'wide'"),
        (lambda hub: edit(hub, d_model=64), "hub: the weights do not fit a DETR with resnet18: has shape"),
        (
            lambda hub: edit(hub, decoder_attention_heads=4),
            "hub/config.json: decoder_attention_heads is 4; accepted: 8",
        ),
    ],
)
def test_other_folders_are_refused_by_name(damage, message: str, run: RunScript) -> None:
    published_folder(Path("hub"))
    damage(Path("hub"))
    with pytest.raises(UserError) as caught:
        load_detector(Path("hub"))
    assert message in str(caught.value)


def edit(hub: Path, **values: object) -> None:
    path = hub / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ----------------------------------------------------------------------------------------------------------------- onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a detector with masks, own.pth, and of the file that the exporter makes of it, own.onnx."""
    from detr.export.onnx_file import write_onnx

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    with FileLock(folder.with_suffix(".lock")):  # the exporter takes 20 s: one process of the tests does it for all
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            detector = Detector(save(MASKS, folder / "own.pth"), device="cpu", amp="off")
            write_onnx(detector, folder / "own.onnx", "fp32")
            (folder / "done").touch()
    return folder


@pytest.fixture
def instant_export(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The exporter, which takes many seconds, has its file already. Returns the detector."""

    class Recorded:
        def save(self, path: Path, external_data: bool) -> None:
            shutil.copy(exported / "own.onnx", path)

    monkeypatch.setattr("detr.export.onnx_file._recorded", lambda detector: Recorded())
    return exported / "own.pth"


def run_onnx(path: Path, images: list[np.ndarray], padding: int = 0) -> list[np.ndarray]:
    """As a program without PyTorch would."""
    import onnxruntime

    sizes_hw = np.array([image.shape[:2] for image in images])
    padded = np.full((len(images), *sizes_hw.max(0), 3), padding, dtype=np.uint8)
    for row, image in enumerate(images):
        padded[row, : image.shape[0], : image.shape[1]] = image
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["scores", "boxes_xyxy", "masks"], {"images": padded, "sizes_hw": sizes_hw})


@needs_onnx
@pytest.mark.parametrize("sizes_hw", [[(96, 128)], [(33, 67)], SIZES_HW, [(160, 90), (32, 32)]])
def test_any_size_and_number_of_images_gives_what_pytorch_gives(sizes_hw: list, exported: Path) -> None:
    images = [np.asarray(image) for image in random_images(sizes_hw)]
    scores, boxes_xyxy, masks = run_onnx(exported / "own.onnx", images)
    normalized = [
        torch.from_numpy((image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).float().permute(2, 0, 1)
        for image in images
    ]
    detr = load_detector(exported / "own.pth").model
    with torch.no_grad():
        output = detr(*pad_images(normalized), lambda o: torch.nonzero(torch.ones(o.logits.shape[1:3]), as_tuple=True))
    runs = masks_to_rle(output.masks, sizes_hw, tuple(np.max(sizes_hw, 0)), sizes_hw)
    predicted = postprocess(output, sizes_hw)
    averaged = average_boxes(predicted, runs, 0.5).boxes_xyxy
    assert (averaged - predicted.boxes_xyxy).abs().max() > 5, "the boxes around masks count"
    expected = averaged / torch.tensor(sizes_hw).flip(1).tile(2)[:, None]
    np.testing.assert_allclose(scores, output.logits[-1].softmax(-1)[..., :3], atol=1e-5)
    np.testing.assert_allclose(boxes_xyxy, expected, atol=1e-5)
    np.testing.assert_allclose(masks.reshape(output.masks.logits.shape), output.masks.logits, atol=1e-3)


@needs_onnx
def test_padding_is_not_read(exported: Path) -> None:
    images = [np.asarray(image) for image in random_images()]
    for black, white in zip(*(run_onnx(exported / "own.onnx", images, padding) for padding in (0, 255)), strict=True):
        assert np.array_equal(black, white)


@needs_onnx
def test_the_file_says_what_its_user_has_to_know(instant_export: Path, run: RunScript) -> None:
    import onnx

    assert run("detr.export.__main__", instant_export, "--to", "onnx", "other.onnx") == 0
    model = onnx.load("other.onnx")
    about = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert about["categories"] == CATEGORIES
    assert (about["scale"], about["max_size"], about["precision"]) == (64, 128, "fp32")
    assert (about["mean"], about["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [path.name for path in Path().iterdir() if "onnx" in path.name] == ["other.onnx"]


@needs_onnx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_ap_is_measured_on_the_validation_images(
    precision: str, instant_export: Path, coco_folder: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    path = coco_folder / "annotations/custom_val.json"
    coco = json.loads(path.read_text()) | {"categories": CATEGORIES}
    for annotation in coco["annotations"]:
        annotation["category_id"] = 5
    path.write_text(json.dumps(coco))
    flags = ["--coco_path", coco_folder, "--precision", precision]
    code = run("detr.export.__main__", instant_export, "--to", "onnx", "out.onnx", *flags)
    assert code == 0, capsys.readouterr().err
    assert "on 3 validation images" in (printed := capsys.readouterr().out) and "; mask AP " in printed


@needs_onnx
def test_a_wrong_file_is_not_kept(
    instant_export: Path, run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = torch.load(instant_export, weights_only=True)
    wrong["model"]["detr.bbox_embed.layers.2.bias"] += 0.01
    torch.save(wrong, "wrong.pth")
    Path("wrong.onnx").write_bytes(b"of before")
    assert run("detr.export.__main__", "wrong.pth", "--to", "onnx") == 2
    assert "wrong.onnx was not written, as it would not be the same detector: boxes_xyxy" in capsys.readouterr().err
    assert Path("wrong.onnx").read_bytes() == b"of before" and not list(Path().glob(".*"))


@needs_onnx
def test_fewer_bits_need_images_to_measure_on(
    instant_export: Path, run: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detr.export.__main__", instant_export, "--to", "onnx", "out.onnx", "--precision", "int8") == 2
    assert "--precision int8 needs annotated images" in capsys.readouterr().err and not Path("out.onnx").exists()


@needs_onnx
def test_an_old_exporter_is_out_of_reach(
    run: RunScript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.5.1"))
    assert run("detr.export.__main__", save(TINY), "--to", "onnx") == 2
    assert "--to onnx needs PyTorch 2.6 or later, this is 2.5.1" in capsys.readouterr().err


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("config", [DetrConfig(91), DetrConfig(3, dilation=True), DetrConfig(3, masks=True)])
def test_resnet50_is_written(config: DetrConfig, run: RunScript, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detr.export.__main__", save(config), "--to", "onnx") == 0
    print(capsys.readouterr().out)


# ------------------------------------------------------------------------------------------------------------------ web


@pytest.fixture
def registry(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> ThreadingHTTPServer:
    """A server in place of npm's: it has an archive with two short files in place of the runtime."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode()))
    server.content = archive.getvalue()
    monkeypatch.setattr("detr.export.web_page.RUNTIME_URL", f"http://127.0.0.1:{server.server_port}/good/{RUNTIME}")
    monkeypatch.setattr("detr.export.web_page.RUNTIME_SHA256", hashlib.sha256(server.content).hexdigest())
    return server


@needs_onnx
def test_a_page_holds_the_model_and_what_runs_it(
    registry: ThreadingHTTPServer, instant_export: Path, run: RunScript
) -> None:
    import onnx

    assert run("detr.export.__main__", instant_export, "--to", "web", "cats & <dogs>.html") == 0
    assert registry.requests == [f"/good/{RUNTIME}"]
    assert sorted(path.name for path in Path().iterdir()) == ["cats & <dogs>.html", RUNTIME]
    page = Path("cats & <dogs>.html").read_text(encoding="utf-8")
    held = {name: gzip.decompress(b64decode(text)) for name, text in re.findall('id="([a-z]+)">([\\w+/=]+)<', page)}
    assert held["runtime"] == b"ort.wasm.bundle.min.mjs" and held["wasm"] == b"ort-wasm-simd-threaded.wasm"
    assert [output.name for output in onnx.load_from_string(held["model"]).graph.output][:2] == ["scores", "boxes_xyxy"]
    assert "<h1>cats &amp; &lt;dogs&gt;</h1>" in page and "3 classes: cat, dog, größe" in page


@needs("onnx", "onnxruntime", "onnxscript")
@pytest.mark.parametrize(("digest", "reason"), [("0" * 64, "should begin with 0000"), (None, "Not Found")])
def test_without_the_runtime_no_page_is_written(
    digest: str | None,
    reason: str,
    registry: ThreadingHTTPServer,
    run: RunScript,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if digest:
        monkeypatch.setattr("detr.export.web_page.RUNTIME_SHA256", digest)
    else:
        monkeypatch.setattr("detr.export.web_page.RUNTIME_URL", f"http://127.0.0.1:{registry.server_port}/missing")
    assert run("detr.export.__main__", save(TINY), "--to", "web") == 2
    message = capsys.readouterr().err
    assert reason in message and f"fetch it by hand and save it as {RUNTIME}; --to onnx needs no network" in message
    assert [path.name for path in Path().iterdir()] == ["own.pth"]


@pytest.fixture
def page(instant_export: Path, run: RunScript) -> Iterator[Browser]:
    """The page in a browser, which must have no complaints and ask nobody for anything."""
    shutil.copy(ROOT / RUNTIME, RUNTIME)
    assert run("detr.export.__main__", instant_export, "--to", "web", "page.html") == 0
    with Browser(Path("profile").resolve()) as browser:
        browser.open(Path("page.html"))
        set_threshold(browser, 0.01)
        yield browser
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def set_threshold(browser: Browser, value: float) -> None:
    browser.evaluate(f"byId('threshold').value = {value}; byId('threshold').dispatchEvent(new Event('input'))")


def choose(browser: Browser, path: Path) -> None:
    """Choose a file, as a user does."""
    field = browser.send("Runtime.evaluate", expression="byId('file')")["result"]["objectId"]
    browser.send("DOM.setFileInputFiles", files=[str(path.resolve())], objectId=field)


def wait_for_detections(browser: Browser, path: Path) -> None:
    browser.wait_for(f"byId('status').textContent.includes(' in {path.name}, detected in ')")


def table(browser: Browser) -> list[tuple[str, float, list[int]]]:
    """The class, the score and the box of each row."""
    cells = browser.evaluate("[...byId('detections').tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))")
    return [(name, float(score), [int(side) for side in box.split(", ")]) for name, score, box in cells]


def is_in(rows: list[tuple[str, float, list[int]]], detection: Detection) -> bool:
    return any(
        name == detection.category
        and score == pytest.approx(detection.score, abs=0.002)
        and box == pytest.approx(detection.box_xyxy, abs=2)  # masks are as large as the network sees the image
        for name, score, box in rows
    )


@pytest.fixture
def odd_images(run: RunScript) -> list[Path]:
    """Images larger and smaller than the detector's: a photograph held sideways, a transparent and a gray one."""
    sideways, transparent, gray = (image.resize((230, 150)) for image in random_images([(20, 30)] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save("sideways.jpg", exif=exif, quality=95)
    transparent.putalpha(gray.convert("L"))
    transparent.save("transparent.png")
    gray.convert("L").resize((40, 90)).save("gray.png")
    return [Path("sideways.jpg"), Path("transparent.png"), Path("gray.png")]


needs_web = pytest.mark.skipif(
    not (CHROMIUM and (ROOT / RUNTIME).exists()),
    reason="there is no Chromium, or not what runs in it (`make chromium`)",
)


@needs_onnx
@needs_web
@pytest.mark.long
def test_the_page_detects_what_python_detects(page: Browser, instant_export: Path, odd_images: list[Path]) -> None:
    detector = Detector(instant_export, device="cpu", amp="off")
    for path in odd_images:
        choose(page, path)
        wait_for_detections(page, path)
        detections, rows = detector(path, threshold=0.01), table(page)
        assert len(detections) == len(rows) == 7
        assert all(is_in(rows, detection) for detection in detections), (path, detections, rows)
        seen = page.evaluate("[...resized(image.getContext('2d'))[0]]")
        image = read_rgb(path)
        image = image.resize(fitted_size_hw((image.height, image.width), 64, 128)[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(seen, np.ravel(image), atol=2, err_msg=str(path))
    for size_wh in [(640, 480), (480, 640), (256, 128), (129, 66), (3000, 1), (77, 77), (1000, 129), (256, 61)]:
        fitted = page.evaluate(f"fitted({size_wh[0]}, {size_wh[1]})")
        assert tuple(fitted[::-1]) == fitted_size_hw(size_wh[::-1], 64, 128), size_wh


@needs_onnx
@needs_web
@pytest.mark.long
def test_the_page_shows_what_scores_enough(page: Browser, instant_export: Path, odd_images: list[Path]) -> None:
    Path("note.txt").write_text("no image")
    choose(page, Path("note.txt"))
    page.wait_for("byId('status').textContent === 'note.txt is not an image that this browser can read.'")

    drag = {"x": 600, "y": 500, "data": {"items": [], "files": [str(odd_images[1].resolve())], "dragOperationsMask": 1}}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.send("Input.dispatchDragEvent", type=kind, **drag)
    wait_for_detections(page, odd_images[1])
    best, second = Detector(instant_export, device="cpu", amp="off")(odd_images[1], threshold=0.01)[:2]
    set_threshold(page, (best.score + second.score) / 2)
    assert len(table(page)) == page.evaluate("byId('boxes').children.length") == 1 and is_in(table(page), best)
    share = """(({ width, height }, context) => context.getImageData(0, 0, width, height).data
        .filter((value, i) => i % 4 === 3 && value).length / (width * height)
    )(byId("masks"), byId("masks").getContext("2d"))"""
    assert 0.05 < best.mask.mean() == pytest.approx(page.evaluate(share), abs=0.05)
    set_threshold(page, 1)
    assert table(page) == [] and page.evaluate(share) == 0
