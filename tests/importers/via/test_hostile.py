"""Files that are broken or made to harm: a data set or one clear line, never a traceback, a hang or half a folder."""

import json
import random
import shlex
import time
from pathlib import Path

import pytest
from PIL import Image

from detr.importers import dataset_figure
from detr.importers.importer import import_via
from tests.conftest import SHARED, RunScript
from tests.importers.via.via_files import FORMATS, Drawn, as_csv, as_v2, as_v3, as_v3_csv, rect, write_images, write_set
from utils import UserError

SQUARE = (rect(2, 2, 8, 8), {"what": "cat"})
SECONDS = 5


def seeds(folder: Path) -> list[tuple[Path, Path]]:
    """Annotation files and the folders of their images: the real ones where they are, and one of each format."""
    shapes = [
        SQUARE,
        ({"name": "circle", "cx": 20, "cy": 20, "r": 9}, {"what": "dog"}),
        ({"name": "ellipse", "cx": 30, "cy": 22, "rx": 9, "ry": 5, "theta": 0.4}, {"what": {"cat": True}}),
        ({"name": "polygon", "all_points_x": [3, 30, 55, 4], "all_points_y": [3, 9, 44, 30]}, {"what": "cat"}),
        ({"name": "point", "cx": 5, "cy": 6}, {"what": "dog"}),
    ]
    images = [Drawn("a.png", (60, 50), shapes), Drawn("b.png", (60, 50), shapes[:2]), Drawn("c.png", (40, 40), [])]
    made = write_images(folder / "made", images)
    found = []
    for number, as_text in enumerate((*FORMATS.values(), as_v3)):
        path = folder / f"{number}.txt"
        flat = images if as_text is not as_v3 else [i._replace(regions=i.regions[:2]) for i in images]
        path.write_text(as_text(flat))
        found.append((path, made))
    path = folder / "v3.csv"
    path.write_text(as_v3_csv(json.loads(as_v3(flat))))
    found.append((path, made))
    for file in sorted(path for pattern in ("*/*.json", "*/*.csv") for path in (SHARED / "via_samples").glob(pattern)):
        stand_ins = folder / file.parent.name
        for photo in file.parent.glob("*.jp*g"):  # of the same size, but decoded in no time
            if not (stand_ins / photo.name).exists():
                with Image.open(photo) as image:
                    write_images(stand_ins, [Drawn(photo.name, image.size, [])])
        found.append((file, stand_ins))
    return found


NASTY = (
    *("NaN", "Infinity", "-1", "0", "1e400", "1e-9", "9" * 5000, "99999999", "0.5", "null", "true", "[]", "{}", '""'),
    *(
        '"../../x.png"',
        '"/etc/passwd"',
        r'"C:\\x.png"',
        r'"\ud800"',
        r'"\u0000"',
        r'"a\nb"',
        '"undefined"',
        "undefined",
    ),
    *(
        "[" * 5000 + "]" * 5000,
        '{"a":' * 3000 + "1" + "}" * 3000,
        '{"a":1,"a":2}',
        "[[1,2],[3,4]]",
        '"a.png"',
        '"' + "x" * 9000 + '"',
    ),
)


def mutated(text: str, rng: random.Random) -> str:
    """A text with one to four things wrong: a value replaced by a nasty one, or letters lost, repeated or exchanged."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) or 1)
        length = rng.choice((1, 1, 2, 10, 200))
        kind = rng.randrange(6)
        if kind < 3:  # in place of a number or a text
            starts = [
                i for i in range(at, min(len(text), at + 300)) if text[i] in '0123456789"' and text[i - 1] in ":,[ "
            ]
            if starts:
                end = starts[0] + 1
                while end < len(text) and text[end] not in ',:]}"\n':
                    end += 1
                end += text[end : end + 1] == '"'
                text = text[: starts[0]] + rng.choice(NASTY) + text[end:]
        elif kind == 3:
            text = text[:at] + text[at + length :]
        elif kind == 4:
            text = text[:at] + text[at : at + length] * 2 + text[at + length :]
        else:
            text = text[:at] + chr(rng.choice((0, 10, 34, 44, 92, 123, 125, 0xE9, 0x1F600))) + text[at + 1 :]
    return text


def mutated_tree(text: str, rng: random.Random) -> str:
    """JSON with one to three of its values, at any depth, replaced by nasty ones."""
    for _ in range(rng.randint(1, 3)):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):  # nasty enough already
            break
        node, path = content, []
        while isinstance(node, dict | list) and node and (not path or rng.random() < 0.9):
            path.append((node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))))
            node = node[path[-1][1]]
        place, key = path[-1]
        place[key] = "\0here"
        text = json.dumps(content).replace(json.dumps("\0here"), rng.choice(NASTY))
    return text


def check_mutations(count: int, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture) -> dict[int, int]:
    files, ended = seeds(tmp_path / "seeds"), {0: 0, 2: 0}
    for number in range(count):
        rng = random.Random(number)
        file, images = files[number % len(files)]
        bad = tmp_path / "bad.txt"
        text = file.read_text(encoding="utf-8")
        mutate = mutated_tree if text[0] == "{" and number % 3 else mutated
        bad.write_bytes(mutate(text, rng).encode("utf-8", "replace"))
        output = Path(f"out{number}")
        all_left_out = ["--skip_bad_images", "--skip_unlabelled", "--keep_partial"]
        flags = rng.choice(([], ["--checked", "each", "--skip_unlabelled"], all_left_out))
        begin = time.process_time()
        code = run("prep", "--via", bad, "--images", images, "--coco_path", output, "--weights", "none", *flags)
        assert time.process_time() - begin < SECONDS, f"mutation {number} of {file.name}"
        said = capsys.readouterr()
        ended[code] += 1
        if code == 2:
            first, *lines = said.err.splitlines()
            assert first.startswith("error: ") and len(said.err) < 20_000 and not output.exists()
            if "This command goes through:" in lines:
                command = shlex.split(lines.pop())
                lines.remove("This command goes through:")
                assert command[:2] == ["python", "prep.py"] and run("prep", *command[2:]) == 0, f"{number}: {said.err}"
                capsys.readouterr()
            assert all(line.startswith("- ") for line in lines), f"{number}: {said.err}"
        for split in ("train", "val") if output.exists() else ():
            coco = json.loads((output / f"annotations/custom_{split}.json").read_text(), parse_constant=pytest.fail)
            check_coco(coco, output / f"{split}2017")
    return ended


def check_coco(coco: dict, folder: Path) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    assert sorted(path.name for path in folder.iterdir()) == sorted(image["file_name"] for image in coco["images"])
    for annotation in coco["annotations"]:
        left, top, width, height = annotation["bbox"]
        limit = sizes[annotation["image_id"]]
        assert width > 0 and height > 0 and annotation["area"] > 0
        assert left >= 0 and top >= 0 and left + width <= limit[0] + 1e-6 and top + height <= limit[1] + 1e-6
        assert all(len(outline) >= 6 and len(outline) % 2 == 0 for outline in annotation["segmentation"])


def test_mutated_files_end_well(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_figure, "draw_dataset", lambda *_: None)
    ended = check_mutations(200, tmp_path, run, capsys)
    assert min(ended.values()) > 10  # neither is everything refused, nor nothing


@pytest.mark.slow
def test_two_thousand_mutated_files_end_well(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_figure, "draw_dataset", lambda *_: None)
    print(check_mutations(2000, tmp_path, run, capsys))


def test_a_polygon_of_a_hundred_thousand_points_that_crosses_the_edge_each_time(tmp_path: Path) -> None:
    count = 100_000
    zigzag = {
        "name": "polygon",
        "all_points_x": [i * 60 / count for i in range(count)] + [60, 0],
        "all_points_y": [(-5, 20)[i % 2] for i in range(count)] + [50, 50],
    }
    images = [Drawn("a.png", (60, 50), [(zigzag, {})]), Drawn("b.png", (60, 50), [])]
    for as_text in (as_v2, as_csv, as_v3):
        begin = time.process_time()
        splits = import_via(write_set(tmp_path, images, as_text))
        assert time.process_time() - begin < SECONDS
        (annotation,) = [found for split in splits.values() for found in split.coco["annotations"]]
        left, top, width, height = annotation["bbox"]
        assert top == 0 and height == 50 and left >= 0 and left + width <= 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 100_000 + "}", "a number has thousands of digits"),
        ("\0" * 100, "not JSON or CSV"),
        ('{"a": "' + "x" * 1_000_000, "not JSON"),
        ('{"' + '": 1, "'.join(map(str, range(50_000))) + '": 1, "7": 2}', "the key '7' is there twice"),
        ("filename,region_shape_attributes,region_attributes\n" + '"' * 100_001, "line .* is not whole"),
    ],
)
def test_files_that_would_exhaust_a_parser(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(UserError, match=message) as caught:
        import_via(path)
    assert time.process_time() - begin < SECONDS and len(str(caught.value)) < 500


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "via.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UserError, match=r"via.json: not (JSON or CSV|a VIA annotation file)"):
        import_via(tmp_path / "via.json")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_images_of_every_kind_end_well(tmp_path: Path) -> None:
    """500 small files with a few bytes exchanged, or cut short: each is read, or named with a reason."""
    rng, images = random.Random(0), []
    originals = []
    for suffix in ("jpg", "png", "gif", "bmp", "tif", "webp"):
        Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / f"original.{suffix}")
        originals.append((suffix, (tmp_path / f"original.{suffix}").read_bytes()))
    for number in range(500):
        suffix, whole = originals[number % len(originals)]
        data = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(0, 12)):
            if data:
                data[rng.randrange(min(len(data), rng.choice((40, 400, 10**6))))] = rng.randrange(256)
        images.append(Drawn(f"{number}.{suffix}", (60, 50), [SQUARE]))
        (tmp_path / images[-1].name).write_bytes(data)
    (tmp_path / "annotations.json").write_text(as_v2(images))
    with pytest.raises(UserError, match="of 500 images cannot be used") as caught:
        import_via(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 20_000
    splits = import_via(tmp_path, skip_bad_images=True)
    assert sum(len(split.coco["images"]) for split in splits.values()) > 50
