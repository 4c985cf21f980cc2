"""Images are found by name, looked at, and held against their regions; all that is wrong is said at once."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageOps

from detr.data.images import read_size_hw
from detr.importers import notes
from detr.importers.importer import Split, import_via
from tests.conftest import RunScript
from tests.importers.via.via_files import Drawn, as_v2, rect, write_images, write_set
from utils import UserError

CAT = {"what": "cat"}
TWO = [Drawn("a.png", (60, 50), [(rect(3, 3, 9, 9), CAT)]), Drawn("b.png", (60, 50), [(rect(3, 3, 9, 9), CAT)])]


def boxes(splits: dict[str, Split]) -> dict[str, list]:
    found: dict[str, list] = {}
    for split in splits.values():
        names = {image["id"]: image["file_name"] for image in split.coco["images"]}
        for annotation in split.coco["annotations"]:
            found.setdefault(names[annotation["image_id"]], []).append(annotation["bbox"])
    return found


def remarks(splits: dict[str, Split]) -> dict[str, int]:
    found: dict[str, int] = {}
    for split in splits.values():
        for category, places in split.notes.items():
            found[category] = found.get(category, 0) + len(places)
    return found


def renamed(folder: Path, names: dict[str, str]) -> Path:
    """Rewrite the annotation file so that it calls images otherwise."""
    path = folder / "annotations.json"
    entries = json.loads(path.read_text())
    for entry in entries.values():
        entry["filename"] = names.get(entry["filename"], entry["filename"])
    path.write_text(json.dumps(entries))
    return folder


# ---------------------------------------------------------------------------------------------------- found by name


@pytest.mark.parametrize(
    "name",
    [
        "a.PNG",
        "./a.png",
        "photos/2020/a.png",
        r"photos\a.png",
        "/home/somebody/a.png",
        r"C:\Users\somebody\a.png",
        r"file://C:\Users\somebody\a.png",
        "file:///C:/Users/somebody/a.png",
        "https://example.org/photos/a.png",
    ],
)
def test_the_last_part_of_a_name_counts(name: str, tmp_path: Path) -> None:
    folder = renamed(write_set(tmp_path, TWO), {"a.png": name})
    assert set(boxes(import_via(folder))) == {"a.png", "b.png"}


@pytest.mark.parametrize("saved", ["a b.png", "a%20b.png", "a b.png?w=3&x=y", "a%20b.png?w=3&x=y"])
def test_an_address_is_found_as_it_was_saved_or_decoded_with_its_query_or_without(saved: str, tmp_path: Path) -> None:
    folder = renamed(write_set(tmp_path, TWO), {"a.png": "https://example.org/photos/a%20b.png?w=3&x=y"})
    (folder / "a.png").rename(folder / saved)
    assert set(boxes(import_via(folder))) == {saved, "b.png"}
    renamed(folder, {"https://example.org/photos/a%20b.png?w=3&x=y": "https://example.org/x/%2e%2e%2fa.png"})
    with pytest.raises(UserError, match="the name leads out of the folder"):
        import_via(folder)


@pytest.mark.parametrize(
    ("listed", "saved"), [("A.png", "a.png"), ("a%20b.png", "A b.png"), ("a b.png", "A%20b.PNG"), ("É.png", "é.png")]
)
def test_a_file_of_nearly_the_name_is_named(listed: str, saved: str, tmp_path: Path) -> None:
    folder = renamed(write_set(tmp_path, TWO), {"a.png": listed})
    (folder / "photos").mkdir()
    (folder / "a.png").rename(folder / "photos" / saved)
    with pytest.raises(UserError, match=rf"{listed}: no such image \(did you mean {saved}\?\)"):
        import_via(folder)
    renamed(folder, {listed: "c.png"})
    with pytest.raises(UserError, match=r"c.png: no such image\."):
        import_via(folder)


@pytest.mark.parametrize("name", ["x:a.png", r"back\slash.png"])
def test_a_name_as_it_is_comes_first(name: str, tmp_path: Path) -> None:
    folder = renamed(write_set(tmp_path, TWO), {"b.png": name})
    (folder / "b.png").rename(folder / name)
    assert set(boxes(import_via(folder))) == {"a.png", name}


def test_a_name_is_decoded_where_no_file_has_it_as_it_is(tmp_path: Path) -> None:
    folder = renamed(write_set(tmp_path, TWO), {"a.png": "50%25.png"})
    (folder / "a.png").rename(folder / "50%.png")
    assert set(boxes(import_via(folder))) == {"50%.png", "b.png"}
    shutil.copy(folder / "50%.png", folder / "50%25.png")
    assert set(boxes(import_via(folder))) == {"50%25.png", "b.png"}


def test_images_in_subfolders_are_found_and_other_spellings_of_accents(tmp_path: Path) -> None:
    screen = TWO[0]._replace(name="Screenshot at 9.41.00\u202fAM.png")  # so macOS names them
    folder = write_set(tmp_path, [TWO[0]._replace(name="e\u0301te\u0301.JPG"), TWO[1], screen])
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "b.png").rename(folder / "deep" / "er" / "b.png")
    renamed(folder, {"e\u0301te\u0301.JPG": "\u00e9t\u00e9.jpg"})
    assert set(boxes(import_via(folder))) == {"e\u0301te\u0301.JPG", "b.png", screen.name}


def test_of_several_files_with_one_name_the_folder_decides_or_it_is_an_error(tmp_path: Path) -> None:
    folder = write_set(tmp_path, TWO)
    for place in ("one", "two", ".thumbs"):
        (folder / place).mkdir()
        shutil.copy(folder / "a.png", folder / place / "a.png")
    assert import_via(folder)["train"].origins[0].parent == folder  # where the name says
    (folder / "a.png").unlink()
    with pytest.raises(UserError, match=r"a.png: several files have this name: .*one/a.png, .*two/a.png; keep one"):
        import_via(folder)
    renamed(folder, {"a.png": "elsewhere/two/a.png"})
    assert folder / "two" / "a.png" in [path for split in import_via(folder).values() for path in split.origins]
    (folder / "two" / "a.PNG").write_bytes((folder / "two" / "a.png").read_bytes())
    import_via(folder)  # exactly as written comes first


def test_the_images_of_an_earlier_import_are_not_looked_at(tmp_path: Path, run: RunScript) -> None:
    folder = write_set(tmp_path / "set", TWO)
    (folder / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "photos" / name)
    arguments = ("prep", "--via", folder, "--coco_path", folder / "data", "--weights", "none")
    assert run(*arguments) == 0
    assert run(*arguments) == 0


def test_namesakes_in_other_folders_are_kept_apart_by_their_folders(tmp_path: Path, run: RunScript) -> None:
    names = ("day1/cam/a.png", "day2/cam/A.png", "day2/b.png")
    folder = write_set(tmp_path / "set", [TWO[n % 2]._replace(name=name) for n, name in enumerate(names)])
    assert run("prep", "--via", folder, "--weights", "none") == 0
    copies = {path.name: path for path in Path("data/custom").glob("*2017/*")}
    assert set(copies) == {"day1_cam_a.png", "day2_cam_A.png", "b.png"}
    for name, copy in zip(names, ("day1_cam_a.png", "day2_cam_A.png", "b.png"), strict=True):
        assert copies[copy].read_bytes() == (folder / name).read_bytes()


def test_given_splits_find_their_images_in_images_too(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / "images" / split, TWO)
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "labels" / split / "via.json").write_text(as_v2(TWO))
    splits = import_via(tmp_path / "labels", tmp_path / "images")
    assert [split.origins[0].parent.name for split in splits.values()] == ["train", "val"]


# ---------------------------------------------------------------------------------------------------- looked at


def test_all_that_is_wrong_is_said_at_once_and_can_be_left_out(
    tmp_path: Path, run: RunScript, capsys: pytest.CaptureFixture
) -> None:
    names = ("good1.jpg", "good2.jpg", "cut.jpg", "text.jpg", "gone1.jpg", "gone2.jpg", "twice.jpg", "small.jpg")
    regions = [(rect(300, 200, 90, 90), CAT)]
    folder = write_set(tmp_path / "set", [Drawn(name, (400, 300), regions) for name in names])
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 300])
    (folder / "text.jpg").write_text("no image")
    (folder / "gone1.jpg").unlink()
    (folder / "gone2.jpg").unlink()
    Image.new("RGB", (200, 150)).save(folder / "small.jpg")
    entries = json.loads((folder / "annotations.json").read_text())
    (folder / "annotations.json").write_text(json.dumps(entries | {"again": entries["twice.jpg7"]}))
    assert run("prep", "--via", folder, "--weights", "none") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 5 of 8 images cannot be used: ")
    assert "gone1.jpg, gone2.jpg: no such image; " in error
    assert "cut.jpg: the image is damaged (" in error and "text.jpg: not an image" in error
    assert "small.jpg: 1 of 1 region mostly outside its 200x150 pixels, up to 390x290" in error
    assert "regions times 0.513 would fit" in error and "--skip_bad_images" in error and not Path("data").exists()
    assert run("prep", "--via", folder, "--weights", "none", "--skip_bad_images") == 0
    assert "unusable images left out (--skip_bad_images): " in capsys.readouterr().out
    copied = {path.name for path in Path("data/custom").glob("*2017/*")}
    assert copied == {"good1.jpg", "good2.jpg", "twice.jpg"}


def test_one_region_outside_is_dropped_and_most_outside_refuse_the_image(tmp_path: Path) -> None:
    regions = [(rect(x, 5, 20, 20), CAT) for x in (5, 30, 90)]
    splits = import_via(write_set(tmp_path / "one", [TWO[0]._replace(regions=regions), TWO[1]]), keep_partial=True)
    assert len(boxes(splits)["a.png"]) == 2 and remarks(splits) == {notes.OUTSIDE: 1, notes.PARTIAL_KEPT: 1}
    regions = [(rect(x, 5, 20, 20), CAT) for x in (5, 70, 90)]
    with pytest.raises(UserError, match=r"a.png: 2 of 3 regions mostly outside its 60x50 .* times 0.545 would fit"):
        import_via(write_set(tmp_path / "two", [TWO[0]._replace(regions=regions), TWO[1]]))


def test_the_size_that_coco_lists_is_held_against_the_file(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 120, "height": 100} for i, n in enumerate("ab")],
        "annotations": [{"image_id": "0", "category_id": 1, "bbox": [2, 2, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    folder = write_set(tmp_path, TWO, lambda _: json.dumps(coco))
    with pytest.raises(UserError, match=r"a.png, b.png: has 60x50 pixels and was annotated at 120x100; .* 0.5 would"):
        import_via(folder)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "F"])
def test_every_kind_of_pixel_is_taken(mode: str, tmp_path: Path) -> None:
    suffix = {"CMYK": "jpg", "F": "tif"}.get(mode, "png")
    images = [image._replace(name=f"{i}.{suffix}") for i, image in enumerate(TWO)]
    folder = tmp_path / "set"
    folder.mkdir()
    for image in images:
        made = Image.new(mode, image.size_wh) if mode == "I;16" else Image.new("L", image.size_wh, 77).convert(mode)
        made.save(folder / image.name)
    (folder / "annotations.json").write_text(as_v2(images))
    assert len(boxes(import_via(folder))) == 2


# ---------------------------------------------------------------------------------------------------- EXIF rotation


def photograph(path: Path, orientation: int, stored: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """A black photograph whose stored pixels are white in one box, given as x, y, width, height."""
    image = Image.new("L", size)
    x, y, width, height = stored
    ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def white_box(path: Path) -> list[int]:
    left, top, right, bottom = ImageOps.exif_transpose(Image.open(path)).getbbox()
    return [left, top, right - left, bottom - top]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_regions_of_the_stored_pixels_are_turned_with_them(orientation: int, tmp_path: Path) -> None:
    stored, sideways = (180, 20, 15, 30), (170, 5, 25, 10)  # outside the upright 80x200 of orientations 5 to 8
    images = [Drawn("a.png", (0, 0), [(rect(*stored), CAT)]), Drawn("b.png", (0, 0), [(rect(*sideways), CAT)])]
    photograph(tmp_path / "a.png", orientation, stored, (200, 80))
    photograph(tmp_path / "b.png", 6, sideways, (200, 80))
    (tmp_path / "annotations.json").write_text(as_v2(images))
    splits = import_via(tmp_path)
    assert boxes(splits) == {name: [white_box(tmp_path / name)] for name in ("a.png", "b.png")}
    assert remarks(splits) == {notes.TURNED: 2}


def test_regions_drawn_upright_stay(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photograph(tmp_path / name, 6, (180, 20, 15, 30), (200, 80))
    upright = white_box(tmp_path / "a.png")
    images = [Drawn(name, (0, 0), [(rect(*upright), CAT)]) for name in ("a.png", "b.png")]
    (tmp_path / "annotations.json").write_text(as_v2(images))
    splits = import_via(tmp_path)
    assert boxes(splits) == {"a.png": [upright], "b.png": [upright]} and not remarks(splits)
    assert splits["train"].coco["images"][0] | {"id": 0, "file_name": ""} == {
        "id": 0,
        "file_name": "",
        "width": 80,
        "height": 200,
    }


def test_what_fits_both_ways_follows_the_others_or_is_named(tmp_path: Path) -> None:
    both, stored, upright = (30, 30, 20, 10), (180, 20, 15, 30), (5, 180, 30, 15)
    names = ("both.png", "stored.png", "upright.png", "plain.png")
    for name in names:
        photograph(tmp_path / name, 1 if name == "plain.png" else 6, both, (200, 80))
    drawn = dict(zip(names, (both, stored, upright, both), strict=True))

    def result(*used: str) -> dict[str, int]:
        images = [Drawn(name, (0, 0), [(rect(*drawn[name]), CAT)]) for name in used]
        (tmp_path / "annotations.json").write_text(as_v2(images))
        return {what: count for what, count in remarks(import_via(tmp_path)).items() if what != notes.UNLISTED}

    assert result("both.png", "plain.png") == result("both.png", "upright.png") == {}
    assert result("both.png", "stored.png", "plain.png") == {notes.TURNED: 2}
    assert result("both.png", "stored.png", "upright.png") == {notes.TURNED: 1, notes.UNSURE: 1}


# ---------------------------------------------------------------------------------------------------- never outside


def test_names_and_links_do_not_lead_out(tmp_path: Path) -> None:
    write_images(tmp_path, [TWO[0]._replace(name="secret.png")])
    folder = write_set(tmp_path / "set", TWO)
    (folder / "a.png").unlink()
    for name in ("../secret.png", "x/../../secret.png", r"..\secret.png"):
        renamed(folder, {image.name: name for image in TWO[:1]})
        with pytest.raises(UserError, match=r"secret.png: the name leads out of the folder"):
            import_via(folder)
        renamed(folder, {name: "a.png"})
    renamed(folder, {"a.png": str(tmp_path / "secret.png")})
    with pytest.raises(UserError, match=r"secret.png: no such image"):
        import_via(folder)
    renamed(folder, {str(tmp_path / "secret.png"): "a.png"})
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"a.png: a link that leads out of the folder"):
        import_via(folder)
    (folder / "a.png").unlink()
    (folder / "sub").symlink_to(tmp_path)
    renamed(folder, {"a.png": "sub/secret.png"})
    with pytest.raises(UserError, match=r"secret.png: a link that leads out of the folder"):
        import_via(folder)
    (folder / "sub").unlink()
    (folder / "c.png").symlink_to(folder / "b.png")  # two names of one file
    renamed(folder, {"sub/secret.png": "c.png"})
    splits = import_via(folder)
    assert boxes({"train": splits["train"]}) == {"c.png": [[3, 3, 9, 9]]} and remarks(splits) == {notes.MERGED: 1}


def test_an_annotation_file_that_is_a_link_out_has_to_be_named(tmp_path: Path) -> None:
    write_set(tmp_path, TWO)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "via.json").symlink_to(tmp_path / "annotations.json")
    with pytest.raises(UserError, match=r"via.json is a link that leads out of the folder; name the file itself"):
        import_via(tmp_path / "set")


def test_what_is_there_by_name_but_no_file_does_not_stop_the_clock(tmp_path: Path) -> None:
    folder = write_set(tmp_path, TWO)
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")  # reading it would wait for ever
    with pytest.raises(UserError, match=r"a.png: no such image"):
        import_via(folder)


def test_odd_names_are_no_images(tmp_path: Path) -> None:
    folder = write_set(tmp_path, TWO)
    last = "a.png"
    for name in ("x" * 5000, "/".join(["y" * 200] * 60), "/", "C:", ".", "CON"):
        renamed(folder, {last: name})
        with pytest.raises(UserError, match="no such image"):
            import_via(folder)
        last = name


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_and_programs_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_set(tmp_path, TWO)
    Image.new("1", (20_000, 20_000)).save(folder / "a.png")  # 50 kB that would be 1.2 GB of RGB
    (folder / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 50\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"a.png: more than 178,956,970 pixels.*b.png: not an image"):
        import_via(folder)
    Image.new("1", (12_000, 9_000)).save(folder / "a.png")  # as some phones take them
    assert read_size_hw(folder / "a.png") == (9_000, 12_000)
