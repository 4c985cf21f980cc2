"""The report of a dataset: every number against a plain loop, and what is there twice against all pairs."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from detr.drawing import figure_fonts
from detr.importers.dataset_figure import choose_samples, draw_dataset
from detr.importers.dataset_report import TrainingSizes, describe, training_scale
from detr.importers.dataset_text import lines_of, title_of
from detr.importers.duplicates import find_alikes, repeated_boxes
from detr.importers.notes import Notes
from detr.importers.splits import Split
from detr.importers.thumbnails import decode_all, stacked
from detr.training.flags import MAX_SIZE, NUM_QUERIES, SCALES
from tests.conftest import SHARED, RunScript, needs_shared

TRAINING = TrainingSizes((480, 800), 1333, 5)


def random_coco(seed: int, images: int, per_image: int, names: tuple[str, ...] = ("a", "b", "c")) -> dict:
    rng = np.random.default_rng(seed)
    coco: dict = {
        "images": [
            {"id": 10 * n, "file_name": f"{seed}_{n}.jpg", "width": int(w), "height": int(h)}
            for n, (w, h) in enumerate(rng.integers(20, 2000, (images, 2)), start=1)
        ],
        "categories": [{"id": 3 * number + 1, "name": name} for number, name in enumerate(names)],
        "annotations": [],
    }
    for image in coco["images"]:
        for _ in range(rng.integers(per_image + 1)):
            x, y, w, h = (rng.random(4) * np.tile([image["width"] / 2, image["height"] / 2], 2)).tolist()
            annotation = {"id": len(coco["annotations"]) + 1, "image_id": image["id"], "bbox": [x, y, w, h]}
            annotation["category_id"] = int(rng.choice([c["id"] for c in coco["categories"]]))
            if rng.random() < 0.5:
                annotation["area"] = w * h * 0.7
            annotation["iscrowd"] = int(rng.random() < 0.1)
            coco["annotations"].append(annotation)
    return coco


def split_of(coco: dict, seed: int = 0) -> Split:
    """With thumbnails of noise: no two images look alike."""
    count = len(coco["images"])
    noise = np.random.default_rng([seed, count]).integers(0, 256, (count, 16, 18), dtype=np.uint8)
    return Split(coco, [Path(image["file_name"]) for image in coco["images"]], Notes(), noise)


def described(train: dict, val: dict) -> dict:
    return describe({"train": split_of(train), "val": split_of(val, seed=1)}, TRAINING)


# -------------------------------------------------------------------------------------------------------------- numbers


def test_a_split_without_objects_and_one_without_images() -> None:
    nothing = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    images = nothing | {"images": [{"id": 1, "file_name": "x.jpg", "width": 9, "height": 5}]}
    report = described(images, nothing)
    assert report["splits"]["train"]["images_without_objects"] == 1
    assert report["splits"]["val"]["objects_per_image"] == {
        "mean": 0.0, "most": 0, "fullest_image": None, "images_over_queries": 0
    }  # fmt: skip
    text = "\n".join(report["warnings"])
    assert "1 class without any object: a" in text and "train has no objects at all" in text
    assert lines_of(report)[:2] == ["train: 1 images, 0 objects", "val: 0 images, 0 objects"]


def test_numbers_equal_a_plain_loop() -> None:
    train, val = random_coco(1, 40, 12), random_coco(2, 15, 6)
    report = json.loads(json.dumps(described(train, val)))
    for name, coco in (("train", train), ("val", val)):
        split = report["splits"][name]
        kept = [a for a in coco["annotations"] if not a["iscrowd"]]
        image_of = {image["id"]: image for image in coco["images"]}
        name_of = {category["id"]: category["name"] for category in coco["categories"]}
        assert split["objects"] == len(kept) and split["crowd_regions"] == len(coco["annotations"]) - len(kept) > 0
        assert split["objects_per_class"] == Counter(name_of[a["category_id"]] for a in kept)
        per_image = Counter(a["image_id"] for a in kept)
        assert split["images_without_objects"] == len(coco["images"]) - len(per_image)
        assert split["objects_per_image"]["most"] == max(per_image.values())
        assert split["objects_per_image"]["images_over_queries"] == sum(n > 5 for n in per_image.values())
        assert per_image[next(i["id"] for i in coco["images"] if i["file_name"] == split["objects_per_image"]["fullest_image"])] == max(per_image.values())  # fmt: skip # noqa: E501
        for where, shorter in (("in the images", None), ("at shorter side 480", 480), ("at shorter side 800", 800)):
            sizes, tiny = Counter(small=0, medium=0, large=0), 0
            for a in kept:
                height, width = image_of[a["image_id"]]["height"], image_of[a["image_id"]]["width"]
                scale = min(shorter / min(height, width), 1333 / max(height, width)) if shorter else 1
                area = a.get("area", a["bbox"][2] * a["bbox"][3]) * scale * scale
                sizes["small" if area < 1024 else "medium" if area < 9216 else "large"] += 1
                tiny += area < 256
            assert split["box_sizes"][where] == sizes
        assert split["tiny_boxes"] == tiny
        wide = sum(a["bbox"][2] > 2 * a["bbox"][3] for a in kept)
        assert split["box_shapes"]["wider than 2:1"] == wide


def test_the_sizes_reported_are_those_of_training() -> None:
    from detr.data.transforms import evaluation_params
    from detr.models.detr import DetrConfig

    assert DetrConfig(1).num_queries == NUM_QUERIES
    for size_hw in ((480, 640), (3000, 400), (333, 1000)):
        height = evaluation_params(size_hw, None, max(SCALES), MAX_SIZE).size_hw[0]
        assert training_scale(np.array([size_hw]), max(SCALES), MAX_SIZE)[0] == pytest.approx(height / size_hw[0], 0.01)


def test_a_slip_in_a_class_is_named_with_an_image_before_what_follows_from_it() -> None:
    train, val = random_coco(1, 40, 12, ("balloon",)), random_coco(2, 15, 6, ("balloon",))
    for coco in (train, val):
        coco["categories"].append({"id": 9, "name": "baloon"})
    slip = train["annotations"][7]
    slip |= {"category_id": 9, "iscrowd": 0}
    where = next(image["file_name"] for image in train["images"] if image["id"] == slip["image_id"])
    count = len(train["annotations"]) + len(val["annotations"]) - 1
    report = described(train, val)
    assert report["similar_classes"] == {
        "count": 1, "examples": [f"baloon (1, in train/{where}) and balloon ({count})"]
    }  # fmt: skip
    sentences = [warning for warning in report["warnings"] if "baloon" in warning]
    assert len(sentences) == 3 and "1 pair of classes with almost the same name" in sentences[0]


# -------------------------------------------------------------------------------------------------------------- twice


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0, min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]))
    height = max(0, min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]))
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def test_repeated_boxes_equal_all_pairs() -> None:
    assert len(repeated_boxes(np.zeros(0, dtype=int), np.zeros((0, 4)))) == 0
    rng = np.random.default_rng(0)
    boxes = rng.uniform(5, 100, (300, 4))
    boxes = np.concatenate((boxes, boxes[:120] + rng.normal(0, 1, (120, 4)), boxes[:10])).clip(1)
    groups = rng.integers(0, 12, 300)
    groups = np.concatenate((groups, groups[:120], groups[:10]))
    order = sorted(range(len(boxes)), key=lambda i: (groups[i], boxes[i, 0]))
    wanted = np.zeros(len(boxes), dtype=bool)
    for place, j in enumerate(order):
        wanted[j] = any(groups[i] == groups[j] and iou(boxes[i], boxes[j]) >= 0.9 for i in order[:place])
    assert 80 < wanted.sum() < 130
    np.testing.assert_array_equal(repeated_boxes(groups, boxes), wanted)


def test_one_box_ten_thousand_times_does_not_hang() -> None:
    assert repeated_boxes(np.zeros(10_000, dtype=int), np.tile([1.0, 2, 3, 4], (10_000, 1))).sum() == 9_999


def photograph(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth colors, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def alike_images(folder: Path) -> dict[str, Split]:
    """6 training and 5 validation images: a copy, a smaller one of low quality, a brighter one, and two new ones."""
    made = {
        "train": {f"t{n}.jpg": photograph(n) for n in range(5)} | {"t5.png": photograph(0)},
        "val": {
            "copy.jpg": photograph(1),
            "small.jpg": photograph(2).resize((107, 80)),
            "bright.jpg": ImageEnhance.Brightness(photograph(3)).enhance(1.1),
            "new.jpg": photograph(10),
            "blank.jpg": Image.new("RGB", (320, 240), "white"),
        },
    }
    splits = {}
    for split, images in made.items():
        (folder / split).mkdir()
        paths = []
        for name, image in images.items():
            image.save(folder / split / name, quality=95 if name in ("copy.jpg", "t1.jpg") else 60)
            paths.append(folder / split / name)
        listed = [{"id": n, "file_name": p.name, "width": 320, "height": 240} for n, p in enumerate(paths, start=1)]
        coco = {"images": listed, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        splits[split] = Split(coco, paths, Notes(), stacked(decode_all(paths)[0].values()))
    return splits


def test_images_that_are_there_twice_are_found_however_they_were_saved(tmp_path: Path) -> None:
    splits = alike_images(tmp_path)
    report = describe(splits, TRAINING)
    assert report["validation_images_in_training"] == {
        "count": 3,
        "identical": 1,
        "examples": ["val/copy.jpg = train/t1.jpg", "val/small.jpg ~ train/t2.jpg", "val/bright.jpg ~ train/t3.jpg"],
    }
    repeated = {"count": 1, "identical": 0, "examples": ["train/t5.png ~ train/t0.jpg"]}
    assert report["repeated_images"]["train"] == repeated
    assert report["repeated_images"]["val"]["count"] == 0
    assert report["warnings"][0].startswith("3 of 5 validation images look like a training image (1 is the same file)")


def test_frames_of_a_video_look_alike_and_are_not_called_the_same(tmp_path: Path) -> None:
    paths = []
    for number in range(8):
        frame = photograph(3)
        frame.paste("white", (20 + 2 * number, 30, 40 + 2 * number, 50))
        frame.save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    thumbnails = stacked(decode_all(paths)[0].values())
    splits = {}
    for name, part in (("train", slice(0, 6)), ("val", slice(6, 8))):
        listed = [{"id": n, "file_name": p.name, "width": 320, "height": 240} for n, p in enumerate(paths[part], 1)]
        coco = {"images": listed, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        splits[name] = Split(coco, paths[part], Notes(), thumbnails[part])
    report = describe(splits, TRAINING)
    text = "\n".join([*report["warnings"], *lines_of(report)])
    assert report["validation_images_in_training"]["count"] == 2 and report["repeated_images"]["train"]["count"] == 5
    assert report["warnings"][0].startswith("2 of 2 validation images look like a training image (0 are the same file)")
    assert "val/6.png ~ train/" in text and " = " not in text and "twice:" not in text and "more than once" not in text


def bits(cells: np.ndarray) -> list[bool]:
    mean = [[cells[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(9)] for y in range(8)]
    return [row[x + 1] > row[x] for row in mean for x in range(8)]


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    different = sum(p != q for p, q in zip(bits(a), bits(b), strict=True))
    return bool((a == b).all()) or (different <= 5 and np.corrcoef(a.ravel(), b.ravel())[0, 1] >= 0.95)


@pytest.mark.parametrize("train_count", [0, 11, 40, 60])
def test_alikes_equal_all_pairs(train_count: int) -> None:
    """Scenes with noise that grows until they are no longer alike, some of them exactly twice, in any order."""
    rng = np.random.default_rng(train_count)
    scenes = rng.integers(0, 256, (8, 4, 6)).repeat(4, 1).repeat(3, 2)
    noisy = [scenes[n % 8] + rng.normal(0, n, (16, 18)) for n in range(50)]
    thumbnails = np.array([*noisy, *noisy[:10]]).clip(0, 255).astype(np.uint8)[rng.permutation(60)]
    earlier, in_training = find_alikes(thumbnails, train_count)
    for i, thumbnail in enumerate(thumbnails):
        start = 0 if i < train_count else train_count
        own = [j for j in range(start, i) if alike(thumbnail, thumbnails[j])]
        crossing = [j for j in range(train_count) if i >= train_count and alike(thumbnail, thumbnails[j])]
        assert earlier[i] in (own or [60]) and in_training[i] in (crossing or [60])
    assert (earlier < 60).sum() > 10 and find_alikes(thumbnails[:0], 0)[0].shape == (0,)


def test_a_film_in_both_splits_is_found_in_little_time() -> None:
    scenes = np.random.default_rng(0).integers(0, 256, (5, 16, 18)).repeat(400, 0)
    film = (scenes + np.random.default_rng(1).normal(0, 2, scenes.shape)).clip(0, 255).astype(np.uint8)
    order = np.random.default_rng(2).permutation(2000)
    earlier, in_training = find_alikes(film[order], 1600)
    assert 1950 < (earlier < 2000).sum() <= 2000 - 2 * 5 and (in_training[1600:] < 1600).all()


@needs_shared
def test_blood_cells_hold_a_picture_twice() -> None:
    folder = SHARED / "bccd/train2017"
    paths = [folder / f"BloodImage_000{number}.jpg" for number in (37, 38, 39, 40, 41, 42)]
    paths = [path for path in paths if path.exists()]
    earlier, _ = find_alikes(stacked(decode_all(paths)[0].values()), len(paths))
    assert earlier.tolist()[:3] == [len(paths), 0, len(paths)]


# --------------------------------------------------------------------------------------------------------------- words


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    train, val = random_coco(1, 30, 4, ("cat", "dog", "emu", "fox")), random_coco(2, 3, 4, ("cat", "dog", "emu", "fox"))
    for annotation in train["annotations"]:
        annotation |= {"category_id": 1 if annotation["id"] % 2 else 4, "iscrowd": 0}
    for annotation in val["annotations"]:
        annotation |= {"category_id": 7 if annotation["id"] % 2 else 1, "iscrowd": 0, "area": 3, "bbox": [1, 1, 2, 2]}
    full = [train["annotations"][0] | {"id": 900 + n, "bbox": [1, 1, 9 + 4 * n, 9]} for n in range(6)]
    train["annotations"] += [*full, full[2] | {"id": 999}]
    splits = {"train": split_of(train), "val": split_of(val, seed=1)}
    splits["val"].notes.add(("points skipped", f"a.jpg, region {number}") for number in range(7))
    report = describe(splits, TRAINING)
    assert report["splits"]["val"]["notes"][0]["count"] == 7
    text = "\n".join(report["warnings"])
    for sentence in (
        "1 class without any object: fox; leave them out",
        "1 class with objects in val only, which cannot be learnt: emu (",
        "1 class with objects in train only, which AP says nothing about: dog (",
        "more objects than DETR queries (5), most in ",
        "1 train object is annotated twice (x, y, w, h): ",
        "val objects are smaller than 16x16 pixels even at shorter side 800",
        "only 3 validation images: AP will jump",
    ):
        assert sentence in text, text
    lines = lines_of(report)
    assert "- val: points skipped: 7 (a.jpg, region 0; a.jpg, region 1; a.jpg, region 2 and 4 more)" in lines
    assert max(map(len, lines)) <= 120
    assert title_of(report).startswith("33 images, ") and title_of(report).endswith(", 4 classes")


def test_many_classes_stay_a_short_table() -> None:
    names = tuple(f"class {number}" for number in range(80))
    report = described(random_coco(1, 30, 20, names), random_coco(2, 30, 20, names))
    table = [line for line in lines_of(report) if line.startswith("  class ") or "more classes" in line]
    assert len(table) == 16 and table[-1].startswith("  65 more classes")


# ------------------------------------------------------------------------------------------------------------- picture


def test_samples_show_every_class_and_spread() -> None:
    coco = random_coco(1, 50, 3, ("a", "b"))
    coco["categories"].append({"id": 77, "name": "rare"})
    coco["annotations"].append(
        {"id": 9999, "image_id": coco["images"][33]["id"], "category_id": 77, "bbox": [0, 0, 1, 1]}
    )
    chosen = choose_samples(coco, 6)
    assert len(chosen) == 6 and 33 in chosen and chosen == sorted(set(chosen)) and chosen[-1] - chosen[0] > 25
    assert choose_samples(coco | {"annotations": []}, 4) == [0, 12, 25, 37]
    assert choose_samples(coco | {"annotations": [], "images": []}, 4) == []


@pytest.mark.parametrize(("images", "per_image", "classes"), [(1, 0, 1), (3, 30, 80), (12, 2, 3)])
def test_pictures_of_unusual_data_are_drawn(images: int, per_image: int, classes: int, tmp_path: Path) -> None:
    coco = random_coco(4, images, per_image, tuple(f"a very long name of a class \u72d7 {n}" for n in range(classes)))
    for annotation in coco["annotations"]:
        annotation["segmentation"] = {"size": [1, 1], "counts": "0"} if annotation["id"] % 2 else [[1, 1, 5, 5, 1, 9]]
    split = split_of(coco)
    paths = [tmp_path / path for path in split.origins]
    for image, path in zip(coco["images"], paths, strict=True):
        Image.new("RGB", (image["width"], image["height"]), "gray").save(path)
    splits = {"train": split._replace(origins=paths), "val": split._replace(origins=paths)}
    with figure_fonts():
        draw_dataset(splits, "title $x^", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width > 1500 and 700 < picture.height < 3000


def test_the_figure_shows_validation_images_too(tmp_path: Path) -> None:
    colors, splits = {"train": (250, 0, 250), "val": (0, 250, 250)}, {}
    for name, color in colors.items():
        split = split_of(random_coco(4, 12, 1, ("a",)))
        split = split._replace(origins=[tmp_path / name / path for path in split.origins])
        (tmp_path / name).mkdir()
        for image, path in zip(split.coco["images"], split.origins, strict=True):
            Image.new("RGB", (image["width"], image["height"]), color).save(path)
        splits[name] = split
    draw_dataset(splits, "title", tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    shown = {name: (abs(pixels - color).sum(-1) < 30).sum() for name, color in colors.items()}
    assert shown["train"] > shown["val"] > 10_000


# ------------------------------------------------------------------------------------------------------------- prep.py


def test_the_report_comes_before_anything_is_written_and_ends_in_the_next_command(
    via_folder: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import prep

    with monkeypatch.context() as patch:
        patch.setattr(prep, "write_folder", lambda *_: exec('raise OSError(28, "No space left on device")'))
        assert run("prep", "--via", via_folder, "--weights", "none") == 2
    assert "images without objects" in capsys.readouterr().out and not Path("data").exists()
    assert run("prep", "--via", via_folder, "--weights", "none", "--coco_path", "data/my discs") == 0
    output = capsys.readouterr().out
    report = json.loads(Path("data/my discs/report.json").read_text())
    assert output.splitlines()[-1].strip() == report["next"]
    assert "--coco_path 'data/my discs' --output_dir outputs --num_classes 1" in report["next"]
    assert report["splits"]["val"]["images"] == 3 and Path("data/my discs/report.png").exists()
