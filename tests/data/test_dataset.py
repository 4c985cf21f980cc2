"""Images, augmentation and the loader: pixels and boxes move together, and only (seed, epoch, image) decides."""

import copy
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageOps

from detr.data.coco_json import check_images, match_categories, read_coco
from detr.data.dataset import CocoDetection, Key, LabelMap, load_folder
from detr.data.images import read_rgb, read_size_hw
from detr.data.loader import collate, make_loader
from detr.data.sampler import AspectRatioBatchSampler, SameSizeBatchSampler
from detr.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentParams,
    apply_to_boxes,
    augment_params,
    evaluation_params,
    fitted_size_hw,
    resample,
    to_tensor,
)
from utils import UserError

# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16", "I", "F"])
def test_every_mode_is_read_as_rgb_of_the_same_brightness(mode: str, tmp_path: Path) -> None:
    gray = np.full((6, 8), 128, dtype=np.uint8)
    if mode in ("I;16", "I", "F"):
        wide = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(gray.astype(wide) * 256)
    else:
        image = Image.fromarray(gray).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tif")
    image.save(path)
    rgb = read_rgb(path)
    assert rgb.mode == "RGB" and rgb.size == (8, 6) and read_size_hw(path) == (6, 8)
    if mode != "1":
        assert abs(int(np.asarray(rgb).mean()) - 128) <= 2


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.asarray(read_rgb(tmp_path / "a.png")).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_photographs_are_turned_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.effect_noise((8, 4), 80).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    upright = read_rgb(path)
    assert upright.size == ((4, 8) if orientation >= 5 else (8, 4))
    assert read_size_hw(path) == (upright.height, upright.width)
    np.testing.assert_array_equal(upright, ImageOps.exif_transpose(Image.open(path)))


def test_exif_data_behind_the_pixels_of_a_png_turn_neither_size_nor_pixels(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    whole = (tmp_path / "a.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    last = whole.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(whole[:start] + whole[end:last] + whole[start:end] + whole[last:])
    assert Image.open(tmp_path / "a.png").getexif()[0x0112] == 6
    assert read_size_hw(tmp_path / "a.png") == (4, 8) and read_rgb(tmp_path / "a.png").size == (8, 4)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg: no such image"):
        read_rgb(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.jpg: not an image"):
        read_size_hw(tmp_path / "text.jpg")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:600])
    with pytest.raises(UserError, match=r"half\.jpg: the image is damaged"):
        read_rgb(tmp_path / "half.jpg")


# --------------------------------------------------------------------------------------------------------- transforms


@pytest.mark.parametrize(
    ("size_hw", "shorter", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),
        ((640, 480), 800, 1333, (1066, 800)),
        ((400, 1000), 800, 1333, (533, 1332)),  # 800 would make 2000: the longest side decides
        ((500, 500), 480, None, (480, 480)),
    ],
)
def test_fitted_sizes(size_hw: tuple, shorter: int, longest: int | None, expected: tuple) -> None:
    assert fitted_size_hw(size_hw, shorter, longest) == expected


def test_views_stay_inside_the_image_and_its_limits() -> None:
    rng = np.random.default_rng(0)
    seen = [augment_params((300, 500), rng, [480, 800], 1333) for _ in range(300)]
    for params in seen:
        left, top, right, bottom = params.crop_xyxy
        assert 0 <= left < right <= 500 + 1e-6 and 0 <= top < bottom <= 300 + 1e-6
        assert max(params.size_hw) <= 1333 and min(params.size_hw) > 0
    assert 100 < sum(params.hflip for params in seen) < 200
    assert 100 < sum(params.crop_xyxy == (0, 0, 500, 300) for params in seen) < 200
    assert {min(params.size_hw) for params in seen} == {480, 800}


def test_boxes_follow_the_pixels() -> None:
    """A white rectangle on black stays inside its box, and fills it, whatever the params."""
    box = torch.tensor([[60.0, 40.0, 130.0, 100.0]])
    image = Image.new("RGB", (200, 150))
    image.paste((255, 255, 255), (60, 40, 130, 100))
    rng = np.random.default_rng(1)
    shown = 0
    for _ in range(60):
        params = augment_params((150, 200), rng, [120, 160], 400)
        boxes, keep = apply_to_boxes(box, params)
        pixels = to_tensor(resample(image, params, (150, 200))) * torch.tensor(IMAGENET_STD)[:, None, None]
        white = (pixels + torch.tensor(IMAGENET_MEAN)[:, None, None]).mean(0) > 0.5
        assert pixels.shape[1:] == params.size_hw
        if not keep[0]:
            assert white.sum() == 0
            continue
        shown += 1
        rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
        extent = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (extent - boxes[0]).abs().max() <= 1.5
    assert shown > 40


def test_boxes_are_clipped_and_dropped() -> None:
    params = AugmentParams((0, 0, 100, 100), (50, 50), hflip=True)
    boxes, keep = apply_to_boxes(torch.tensor([[-10.0, 0, 20, 100], [120, 0, 140, 10], [5, 5, 5, 9]]), params)
    assert keep.tolist() == [True, False, False]
    assert boxes[0].tolist() == [40, 0, 50, 50]
    assert apply_to_boxes(torch.zeros(0, 4), params)[0].shape == (0, 4)


# --------------------------------------------------------------------------------------------------------------- data


def test_labels_are_positions_of_sorted_ids_and_come_back() -> None:
    label_map = LabelMap([{"id": 7, "name": "b"}, {"id": 3, "name": "a"}])
    assert label_map.num_classes == 2 and label_map.to_labels([7, 3, 7]) == [1, 0, 1]
    assert [label_map.to_category_id(label) for label in (0, 1, 2)] == [3, 7, None]
    raw = LabelMap([{"id": 90, "name": "toothbrush"}], raw_ids=True)
    assert raw.num_classes == 91 and raw.to_labels([90]) == [90] and raw.to_category_id(89) is None


def test_categories_are_matched_by_name_whatever_their_ids(capsys: pytest.CaptureFixture) -> None:
    own = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    permuted = [{"id": 1, "name": "bee"}, {"id": 2, "name": "ant"}]
    assert match_categories(own, permuted, Path("run.pth")) == {1: 2, 2: 1} and not capsys.readouterr().out
    more = [{"id": 1, "name": "ant"}, {"id": 2, "name": "auk"}, {"id": 7, "name": "bee"}]
    assert match_categories(own, more, Path("run.pth")) == {1: 1, 2: 7}
    assert "run.pth: was not trained on auk" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"run.pth: has the class 'bee', .* they have ant, auk"):
        match_categories(own, more[:2], Path("run.pth"))


def load(folder: Path, **changes: object) -> CocoDetection:
    params = partial(augment_params, scales=[48, 64], max_size=96)
    return load_folder(
        folder, "custom", params, partial(evaluation_params, scale=64, max_size=96), **({"seed": 3} | changes)
    )


def test_a_set_without_objects_is_said(coco_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """There is nothing to learn from, or AP is not defined; crowd regions are no objects."""
    for split in ("val", "train"):
        path = coco_folder / f"annotations/custom_{split}.json"
        coco = json.loads(path.read_text())
        annotations = [annotation | {"iscrowd": 1} for annotation in coco["annotations"][:1]]
        path.write_text(json.dumps(coco | {"annotations": annotations}))
        capsys.readouterr()
        if split == "train":
            with pytest.raises(UserError, match=r"custom_train.json: no image has an object"):
                load(coco_folder)
        assert len(load(coco_folder, evaluate=True).val) == 3
        output = capsys.readouterr().out
        assert "custom_val.json" in output and "AP is not defined" in output and "lowest" not in output


def test_a_sample_is_a_function_of_seed_epoch_and_image(coco_folder: Path) -> None:
    first, second = load(coco_folder).train, load(coco_folder).train
    second[(0, 3)]  # history must not matter
    for key in ((0, 0), (5, 1), (5, 4)):
        a, b = first[key], second[key]
        assert torch.equal(a.image, b.image) and torch.equal(a.boxes_cxcywh, b.boxes_cxcywh)
    different = [load(coco_folder, seed=4).train[(0, 0)], first[(1, 0)]]
    assert all(d.image.shape != first[(0, 0)].image.shape or not d.image.equal(first[(0, 0)].image) for d in different)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, coco_folder: Path) -> None:
    images = load(coco_folder).train

    def batches(num_workers: int) -> list:
        keys = AspectRatioBatchSampler(images, 2, seed=0)
        loader = make_loader(images, keys, num_workers, pin_memory=False)
        found = []
        for epoch in (0, 1):
            keys.set_epoch(epoch)
            found += list(loader)
        return found

    for a, b in zip(batches(0), batches(workers), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.padding_mask, b.padding_mask)
        assert torch.equal(a.targets.boxes_cxcywh, b.targets.boxes_cxcywh)
        assert a.targets.image_ids == b.targets.image_ids


def test_starting_a_loader_leaves_the_models_random_numbers_alone(coco_folder: Path) -> None:
    images = load(coco_folder).val
    loader = make_loader(images, SameSizeBatchSampler(images, 2), 0, pin_memory=False)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_hold_every_image_once(coco_folder: Path) -> None:
    data = load(coco_folder)
    assert sorted(key for batch in SameSizeBatchSampler(data.val, 2) for key in batch) == [(0, 0), (0, 1), (0, 2)]
    shuffled = AspectRatioBatchSampler(data.train, 4, seed=1)
    drawn = []
    for epoch in range(20):
        shuffled.set_epoch(epoch)
        batches = list(shuffled)
        assert [len(batch) for batch in batches] == [4]  # the incomplete batch is left out
        assert all(epoch == shuffled.epoch for epoch, _ in batches[0])
        drawn.append(tuple(sorted({index for _, index in batches[0]})))
        assert len(drawn[-1]) == 4 and batches == list(shuffled)
    assert len(set(drawn)) > 5 and {index for indices in drawn for index in indices} == set(range(6))
    assert [len(batch) for batch in AspectRatioBatchSampler(data.train, 8, seed=1)] == [6]


def padded_share(images: CocoDetection, batches: Iterable[list[Key]]) -> float:
    inside = padded = 0
    for batch in batches:
        sizes = np.array([images.augment_params(key).size_hw for key in batch])
        inside += sizes.prod(1).sum()
        padded += len(batch) * sizes.max(0).prod()
    return 1 - inside / padded


def test_grouping_saves_padding() -> None:
    sizes = np.random.default_rng(0).integers(100, 900, (200, 2)).tolist()
    coco = {
        "images": [{"id": n, "file_name": f"{n}", "height": h, "width": w} for n, (h, w) in enumerate(sizes)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [],
    }
    choose = partial(augment_params, scales=[48, 64], max_size=96)
    images = CocoDetection(coco, Path(), LabelMap(coco["categories"]), choose, 0)
    in_turn = [[(0, index) for index in range(start, start + 4)] for start in range(0, 200, 4)]
    assert padded_share(images, AspectRatioBatchSampler(images, 4, seed=0)) < 0.5 * padded_share(images, in_turn)


@pytest.mark.parametrize("ranks", [1, 3])
def test_evaluation_pads_nothing_and_shares_out_every_image_once(ranks: int) -> None:
    """Sizes that differ in the file and not in the network count as equal."""
    sizes = [(64, 96), (128, 192), (96, 64), (65, 64), (64, 96), (64, 96), (64, 96), (64, 64), (96, 64)]
    coco = {
        "images": [{"id": n, "file_name": f"{n}", "height": h, "width": w} for n, (h, w) in enumerate(sizes)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [],
    }
    choose = partial(evaluation_params, scale=64, max_size=96)
    images = CocoDetection(coco, Path(), LabelMap(coco["categories"]), choose, 0)
    shares = [SameSizeBatchSampler(images, 3, rank, ranks) for rank in range(ranks)]
    assert all(padded_share(images, share) == 0 for share in shares)
    assert sorted(key for share in shares for batch in share for key in batch) == [(0, n) for n in range(len(sizes))]
    assert sorted(len(batch) for share in shares for batch in share) == [1, 1, 2, 2, 3]
    assert min(map(len, shares)) == shares[0].batches_on_every_rank == 5 // ranks
    assert [len(list(share)) for share in shares] == [*map(len, shares)]


def test_decoding_a_jpeg_small_shows_the_same(tmp_path: Path) -> None:
    noise = Image.effect_noise((40, 30), 80).resize((640, 480), Image.Resampling.BICUBIC)
    exif = noise.getexif()
    exif[0x0112] = 6  # stored sideways
    noise.save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole, small = read_rgb(tmp_path / "a.jpg"), read_rgb(tmp_path / "a.jpg", scale=0.3)
    assert whole.size == (480, 640) and small.size == (240, 320)
    params = AugmentParams((60, 90, 460, 600), (128, 100), hflip=True)
    assert params.scale == pytest.approx(128 / 510)
    a, b = (to_tensor(resample(image, params, (640, 480))) for image in (whole, small))
    assert (a - b).abs().mean() < 0.05 * a.std()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_decodes_once_and_shows_the_same(
    workers: int, coco_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load(coco_folder).val
    plain = [batch.images for batch in make_loader(images, SameSizeBatchSampler(images, 2), 0, pin_memory=False)]
    images.keep_in_memory(scale=64, max_size=96)
    loader = make_loader(images, SameSizeBatchSampler(images, 2), workers, pin_memory=False)
    for _ in range(2):
        for a, batch in zip(plain, loader, strict=True):
            assert torch.equal(a, batch.images)
        monkeypatch.setattr("detr.data.cache.read_rgb", lambda *_: pytest.fail("decoded twice"))


def test_padding_and_images_without_objects(coco_folder: Path) -> None:
    val = load(coco_folder).val
    batch = collate([val[(0, index)] for index in range(3)])
    assert batch.targets.counts == [1, 2, 0]
    for row, sample in enumerate(val[(0, index)] for index in range(3)):
        _, height, width = sample.image.shape
        assert not batch.padding_mask[row, :height, :width].any()
        assert batch.padding_mask[row].sum() == batch.padding_mask[row].numel() - height * width
        assert (batch.images[row] * batch.padding_mask[row]).abs().sum() == 0
    empty = collate([val[(0, 2)]])
    assert empty.targets.boxes_cxcywh.shape == (1, 0, 4) and empty.targets.labels.shape == (1, 0)


def test_boxes_reach_the_network_as_annotated(coco_folder: Path) -> None:
    coco = read_coco(coco_folder / "annotations/custom_val.json")
    sample = load(coco_folder).val[(0, 1)]
    height, width = sample.original_size_hw
    boxes = torchvision.ops.box_convert(sample.boxes_cxcywh, "cxcywh", "xyxy") * torch.tensor([width, height] * 2)
    wanted = [a["bbox"] for a in coco["annotations"] if a["image_id"] == sample.image_id]
    wanted = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in wanted], dtype=torch.float32)
    torch.testing.assert_close(boxes, wanted, atol=1e-3, rtol=0)


def test_crowds_are_skipped_and_plain_views_are_whole(coco_folder: Path) -> None:
    path = coco_folder / "annotations/custom_train.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(coco))
    assert len(load(coco_folder).train.target(0)[0]) == 0
    params = augment_params((50, 80), np.random.default_rng(0), [40], 100, augment=False)
    assert params == AugmentParams((0, 0, 80, 50), (40, 64), hflip=False)


@pytest.mark.parametrize("augment", [True, False])
def test_color_jitter_changes_colors_alone(augment: bool) -> None:
    drawn = []
    for seed in range(200):
        plain, jittered = (
            augment_params((50, 80), np.random.default_rng(seed), [40], 100, augment, color_jitter=strength)
            for strength in (0.0, 0.2)
        )
        assert plain.color_factors == () and jittered._replace(color_factors=()) == plain
        drawn.append(jittered.color_factors)
    drawn = np.array(drawn)
    assert drawn.shape == (200, 3) and 0.8 <= drawn.min() < 0.82 and 1.18 < drawn.max() <= 1.2


BROKEN = {
    "not JSON": lambda coco: "{",
    "expected an object with the lists": lambda coco: [1],
    "no categories": lambda coco: coco | {"categories": []},
    r"images\[0\] has no file_name and no width": lambda coco: coco | {"images": [{"id": 1}]},
    r"annotations\[1\] repeats id 1": lambda coco: edited(coco, 1, id=1),
    "belongs to image 99": lambda coco: edited(coco, 0, image_id=99),
    r"has category 9; listed are \[1\]": lambda coco: edited(coco, 0, category_id=9),
    r"images\[0\] has file_name ''; a name is needed": lambda coco: with_image(coco, file_name=""),
    "has width 0 and height 72; whole numbers": lambda coco: with_image(coco, width=0),
    "has width '96' and height 72": lambda coco: with_image(coco, width="96"),
    r"images\[0\] has id \d{400}; a whole": lambda coco: with_image(coco, id=10**399),
    "belongs to image \\[\\], which": lambda coco: edited(coco, 0, image_id=[]),
    "has area 'big'; a finite": lambda coco: edited(coco, 0, area="big"),
    "has bbox .*; four finite": lambda coco: edited(coco, 0, bbox=[1, 2, 3, 10**400]),
    "four finite numbers": lambda coco: edited(coco, 0, bbox=[1, 2, 3]),
    "bbox .*nan": lambda coco: edited(coco, 0, bbox=[1, 2, 3, float("nan")]),
}


def edited(coco: dict, number: int, **changes: object) -> dict:
    coco = copy.deepcopy(coco)
    coco["annotations"][number] |= changes
    return coco


def with_image(coco: dict, **changes: object) -> dict:
    coco = copy.deepcopy(coco)
    coco["images"][0] |= changes
    return coco


@pytest.mark.parametrize("message", BROKEN)
def test_broken_annotation_files_are_refused_by_name(message: str, coco_folder: Path) -> None:
    path = coco_folder / "annotations/custom_train.json"
    broken = BROKEN[message](json.loads(path.read_text()))
    path.write_text(broken if isinstance(broken, str) else json.dumps(broken))
    with pytest.raises(UserError, match=f"custom_train.json.*{message}"):
        read_coco(path)


def test_splits_must_agree_and_images_must_fit(coco_folder: Path) -> None:
    path = coco_folder / "annotations/custom_val.json"
    original = path.read_text()
    coco = json.loads(original)
    path.write_text(json.dumps(coco | {"categories": [{"id": 1, "name": "ball"}]}))
    with pytest.raises(UserError, match=r"custom_val.json: its categories differ"):
        load(coco_folder)
    path.write_text(json.dumps(coco | {"images": [], "annotations": []}))
    with pytest.raises(UserError, match=r"custom_val.json: lists no images"):
        load(coco_folder)
    path.write_text(original)
    (coco_folder / "val2017/disc00.png").unlink()
    Image.new("RGB", (5, 5)).save(coco_folder / "val2017/disc01.png")
    with pytest.raises(UserError, match=r"(?s)2 of 3 images.*disc00.png: no such image.*disc01.png.*5x5.*104x80"):
        check_images(coco, coco_folder / "val2017")


def test_the_check_at_the_start_reads_headers_only(coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = read_coco(coco_folder / "annotations/custom_val.json")

    def refuse(*arguments: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", refuse)
    check_images(coco, coco_folder / "val2017")


def test_many_images_that_do_not_fit_are_listed_up_to_50(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 5, "height": 5} for n in range(60)]
    with pytest.raises(
        UserError, match=r"(?s)^60 of 60 images do not fit:.*0.jpg: no such image.*and 10 more$"
    ) as error:
        check_images({"images": images}, tmp_path)
    assert str(error.value).count("\n") == 51


def test_pixels_are_normalized_as_the_backbones_were_trained() -> None:
    """ImageNet's mean and standard deviation (red, green, blue), as torchvision's weights state them."""
    image = Image.new("RGB", (4, 4), (255, 0, 51))
    pixels = to_tensor(resample(image, evaluation_params((4, 4), None, 4, 4), (4, 4)))
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor(expected))
    stated = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (stated.mean, stated.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
