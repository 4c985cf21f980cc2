"""Files that are broken or made to harm: a data set or one clear line, never a traceback, a hang or half a folder."""

import json
import random
import time
from pathlib import Path

import pytest
from PIL import Image

import prep
from tests.conftest import SHARED, RunScript
from tests.via_files import FORMATS, Drawn, as_v3, rect, write_images

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


def check_mutations(count: int, tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture) -> dict[int, int]:
    files, ended = seeds(tmp_path / "seeds"), {0: 0, 2: 0}
    for number in range(count):
        rng = random.Random(number)
        file, images = files[number % len(files)]
        bad = tmp_path / "bad.txt"
        bad.write_bytes(mutated(file.read_text(encoding="utf-8"), rng).encode("utf-8", "replace"))
        output = Path(f"out{number}")
        flags = rng.choice(([], ["--checked", "each", "--skip_unlabelled"], ["--skip_bad_images", "--skip_unlabelled"]))
        begin = time.monotonic()
        code = run("prep", "--via", bad, "--images", images, "--coco_path", output, "--weights", "none", *flags)
        assert time.monotonic() - begin < SECONDS, f"mutation {number} of {file.name}"
        said = capsys.readouterr()
        ended[code] += 1
        if code == 0:
            for split in ("train", "val"):
                coco = json.loads((output / f"annotations/custom_{split}.json").read_text(), parse_constant=pytest.fail)
                check_coco(coco, output / f"{split}2017")
        else:
            assert code == 2 and said.err.startswith("error: ") and said.err.count("\n") == 1, f"{number}: {said.err}"
            assert len(said.err) < 20_000 and not output.exists()
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
    monkeypatch.setattr(prep, "draw_samples", lambda *_: None)
    ended = check_mutations(200, tmp_path, run, capsys)
    assert min(ended.values()) > 10  # neither is everything refused, nor nothing


@pytest.mark.slow
def test_two_thousand_mutated_files_end_well(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prep, "draw_samples", lambda *_: None)
    print(check_mutations(2000, tmp_path, run, capsys))
