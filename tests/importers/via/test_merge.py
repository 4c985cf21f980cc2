"""Several annotation files, several entries of an image, several images of a name: nothing is lost, nothing doubled."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from detr.importers import notes
from detr.importers.importer import import_via
from tests.conftest import SHARED, RunScript, needs_shared
from tests.importers.via.test_images import boxes, remarks
from tests.importers.via.via_files import FORMATS, Drawn, as_csv, as_project, as_v2, rect, write_images, write_set
from utils import UserError

SIZE = (60, 50)


def drawn(name: str, *xs: int, what: str = "cat") -> Drawn:
    """An image with a region of one class at each x."""
    return Drawn(name, SIZE, [(rect(x, 3, 9, 9), {"what": what}) for x in xs])


A, B = drawn("a.png", 3), drawn("b.png", 3, 30)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------ several files


def test_an_image_that_several_files_list_has_the_regions_of_the_one_with_some(tmp_path: Path) -> None:
    write_images(tmp_path, [A, B])
    for number, listed in enumerate(([A, B._replace(regions=[])], [A], [B], [])):
        write(tmp_path / f"{number}.json", as_project(listed))  # the last is an empty project
    assert boxes(import_via(tmp_path)) == {"a.png": [[3, 3, 9, 9]], "b.png": [[3, 3, 9, 9], [30, 3, 9, 9]]}


def test_the_json_counts_where_the_csv_says_the_same(tmp_path: Path) -> None:
    write_images(tmp_path, [A, B])
    named = (
        write(tmp_path / "a.csv", as_csv([A, B])),
        write(tmp_path / "z.json", as_v2([drawn("a.png", 3, what="dog"), B])),
    )
    for paths in ([tmp_path], named, [*named, tmp_path]):
        categories = import_via(paths)["train"].coco["categories"]
        assert [category["name"] for category in categories] == ["cat", "dog"]


def test_files_that_differ_are_named_with_both_counts_and_the_command_that_takes_one(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = write_images(tmp_path / "set", [A, B, drawn("c.png")])
    write(folder / "1.json", as_v2([A, B]))
    write(folder / "2.json", as_v2([drawn("a.png", 3, 20), drawn("b.png", 31)]))
    write(folder / "3.json", as_v2([drawn("c.png", 5)]))
    assert run("prep", "--via", folder, "--weights", "none") == 2
    error = capsys.readouterr().err
    assert f"{folder}/1.json and {folder}/2.json differ about a.png (1 region and 2" in error
    assert "b.png (2 regions and 1" in error and not Path("data").exists()
    assert error.endswith(f"prep.py --weights none --via {folder}/1.json {folder}/3.json\n")
    write(folder / "2.json", as_v2([drawn("a.png", 3, 20, 40), drawn("b.png", 31)]))  # the larger one is the later
    assert run("prep", "--via", folder, "--weights", "none") == 2
    assert capsys.readouterr().err.endswith(f"--via {folder}/2.json {folder}/3.json\n")
    assert run("prep", "--weights", "none", "--via", folder / "1.json", folder / "3.json") == 0
    assert "train: 2 images" in capsys.readouterr().out


def test_files_of_several_folders_each_have_their_images_beside_them(tmp_path: Path, run: RunScript) -> None:
    for day, x in (("one", 3), ("two", 20)):
        write_set(tmp_path / day, [drawn("a.png", x), drawn(f"{day}.png", x)])
    assert run("prep", "--via", "one/annotations.json", "two", "--weights", "none") == 0
    copies = sorted(path.name for path in Path("data/custom").glob("*2017/*"))
    assert copies == ["one.png", "one_a.png", "two.png", "two_a.png"]
    splits = import_via([tmp_path / "one", tmp_path / "two" / "annotations.json"])
    assert boxes(splits) == {name: [[3 if "one" in name else 20, 3, 9, 9]] for name in copies}


def test_files_of_one_folder_of_images_and_given_splits_are_merged_too(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", [A, B])
    files = [write(tmp_path / "x" / "a.json", as_v2([A])), write(tmp_path / "y" / "b.json", as_v2([B]))]
    assert set(boxes(import_via(files, tmp_path / "photos"))) == {"a.png", "b.png"}
    for split in ("train", "val"):
        write_images(tmp_path / "given" / split, [A, B])
        write(tmp_path / "given" / split / "a.json", as_v2([A]))
        write(tmp_path / "given" / split / "b.csv", as_csv([B]))
    splits = import_via(tmp_path / "given")
    assert [len(split.coco["images"]) for split in splits.values()] == [2, 2]
    with pytest.raises(UserError, match="has train/ and val/: name it alone"):
        import_via([tmp_path / "given", files[0]])


def test_a_damaged_file_among_others_is_not_passed_over(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [A, B])
    write(folder / "more.json", as_project([drawn("c.png", 5)])[:-50])
    write(folder / "prices.json", "{}")  # no annotations: that one is
    with pytest.raises(UserError, match=r"more.json: not JSON"):
        import_via(folder)


def test_thirty_two_projects_of_one_folder_and_one_file_for_each_image(tmp_path: Path) -> None:
    images = [drawn(f"{number}.png", number) for number in range(32)]
    write_images(tmp_path, images)
    for number, image in enumerate(images):
        write(tmp_path / f"{number}.json", as_project([image]))
    assert boxes(import_via(tmp_path)) == {f"{number}.png": [[number, 3, 9, 9]] for number in range(32)}


@pytest.mark.parametrize("seed", range(6))
def test_a_file_split_by_image_is_the_same_once_merged(seed: int, tmp_path: Path) -> None:
    """In parts of any format, some images in several of them, with regions or without."""
    rng = random.Random(seed)
    images = [
        drawn(f"{number} ä.png", *(rng.randrange(50) for _ in range(rng.randrange(4))), what=rng.choice("abc"))
        for number in range(rng.randint(5, 25))
    ]
    expected = import_via(write_set(tmp_path / "whole", images))
    parts: list[list[Drawn]] = [[] for _ in range(rng.randint(2, 6))]
    for image in images:
        places = rng.sample(parts, rng.randint(1, 2))
        places[0].append(image)
        for other in places[1:]:
            other.append(rng.choice((image, image._replace(regions=[]))))
    folder = write_images(tmp_path / "parts" / "whole", images)  # a folder of the same name: that names the class
    for number, part in enumerate(parts):
        name, as_text = rng.choice(list(FORMATS.items()))
        write(folder / f"{number}.{'csv' if 'CSV' in name else 'json'}", as_text(part))
    merged = import_via(folder)
    for name, split in expected.items():
        assert merged[name].coco["categories"] == split.coco["categories"]
        assert boxes({name: merged[name]}) == boxes({name: split})


# ---------------------------------------------------------------------------------------- several entries of an image


def test_entries_of_one_image_are_merged_and_equal_regions_are_one(tmp_path: Path) -> None:
    entries = {
        f"{n}": entry for n, i in enumerate((A, drawn("a.png", 3, 30), B)) for entry in json.loads(as_v2([i])).values()
    }
    splits = import_via(write_set(tmp_path, [A, B], lambda _: json.dumps(entries)))
    assert boxes(splits)["a.png"] == [[3, 3, 9, 9], [30, 3, 9, 9]] and len(boxes(splits)) == 2
    assert remarks(splits) == {notes.MERGED: 1}


@needs_shared
def test_one_image_under_two_keys_keeps_the_objects_of_both() -> None:
    splits = import_via(SHARED / "via_cases" / "twosizes")
    assert sorted(boxes(splits)["a.jpg"]) == [[10, 20, 30, 40], [80, 20, 30, 40]]


# --------------------------------------------------------------------------------------------- several images of a name


def of_size(path: Path, size: int) -> int:
    """Make an image file of so many bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # what follows the image's end is not looked at
    return size


@pytest.mark.parametrize("places", [("cam1", "cam2"), (".", "cam2"), ("cam1", ".")])
def test_namesakes_without_folders_are_told_apart_by_their_size(places: tuple[str, str], tmp_path: Path) -> None:
    sizes = [of_size(tmp_path / place / "a.png", 5000 + number) for number, place in enumerate(places)]
    first = as_v2([drawn("a.png", 3)]).replace('"size": 7', f'"size": {sizes[0]}')
    second = as_csv([drawn("a.png", 30)]).replace("a.png,7,", f"a.png,{sizes[1]},")
    write(tmp_path / "1.json", first)
    write(tmp_path / "2.csv", second)
    found = {}
    for split in import_via(tmp_path).values():
        found[split.origins[0].parent] = [annotation["bbox"][0] for annotation in split.coco["annotations"]]
    assert found == {tmp_path / places[0]: [3], tmp_path / places[1]: [30]}
    write(tmp_path / "2.csv", second.replace(f",{sizes[1]},", ",77,"))  # saved anew since: of no file's size
    if places == ("cam1", "cam2"):
        with pytest.raises(UserError, match="several files have this name"):
            import_via(tmp_path)


# ------------------------------------------------------------------------------------------- images that nothing lists


def test_images_that_nothing_lists_are_counted_and_taken_as_background_where_told(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    folder = write_set(tmp_path / "set", [A, B])
    write_images(folder, [drawn(f"c{n}.jpg") for n in range(3)])
    write_images(folder / "other", [drawn("d.png")])
    (folder / "._a.png").write_text("what macOS leaves")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder / "a.png")
    assert run("prep", "--via", folder, "--weights", "none") == 0
    report = json.loads(Path("data/custom/report.json").read_text())
    (note,) = (note for split in report["splits"].values() for note in split["notes"])
    assert note == {"what": notes.UNLISTED, "count": 3, "examples": ["set/c0.jpg", "set/c1.jpg", "set/c2.jpg"]}
    assert notes.UNLISTED[:40] in capsys.readouterr().out.partition("Look at:")[2].replace("\n  ", " ")
    assert run("prep", "--via", folder, "--weights", "none", "--background", folder, folder / "other") == 0
    splits = json.loads(Path("data/custom/report.json").read_text())["splits"]
    assert sum(split["images"] for split in splits.values()) == 6 and not splits["train"]["notes"]
    assert sum(split["images_without_objects"] for split in splits.values()) == 4 and splits["val"]["images"] >= 1
    assert run("prep", "--via", folder, "--weights", "none", "--background", tmp_path / "none") == 2
    assert "--background" in capsys.readouterr().err


def test_background_of_given_splits_is_for_training(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_set(tmp_path / "set" / split, [A])
    write_images(tmp_path / "empty", [drawn("e.png"), drawn("f.png")])
    splits = import_via(tmp_path / "set", background=[tmp_path / "empty"])
    assert [len(split.coco["images"]) for split in splits.values()] == [3, 1]
    assert sum(len(split.coco["annotations"]) for split in splits.values()) == 2
    write(tmp_path / "empty" / "g.png", "no image")
    with pytest.raises(UserError, match=r"g.png: not an image"):
        import_via(tmp_path / "set", background=[tmp_path / "empty"])
