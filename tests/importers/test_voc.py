"""Pascal VOC: the devkit and its way to count pixels, what tools write, and what is wrong with a file."""

import re
import shutil
from pathlib import Path

import pytest

from detr.importers import notes
from detr.importers.importer import import_labels
from detr.importers.label_folder import UNUSED_IMAGE
from detr.importers.voc import DIFFICULT, OTHER_XML
from tests.importers.label_files import Labelled, box, objects_of, remarks_of, voc_text, write_flat, write_image
from utils import UserError

A, B = (Labelled(f"{name}.jpg", (60, 50), [("cat", box(1, 1, 60, 50)), ("dog", box(3, 4, 20, 30))]) for name in "ab")
DEVKIT = "<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>"


def write_devkit(folder: Path, names: str, lists: dict[str, str], head: str = DEVKIT) -> Path:
    root = folder / "VOCdevkit/VOC2007"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets/Main").mkdir(parents=True)
    for name in names:
        write_image(root / f"JPEGImages/{name}.jpg", (60, 50))
        (root / f"Annotations/{name}.xml").write_text(voc_text(A._replace(name=f"{name}.jpg"), head=head))
    write_image(root / "SegmentationClass/a.png", (60, 50))
    for name, lines in lists.items():
        (root / f"ImageSets/Main/{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_lists_of_a_devkit_say_the_splits(tmp_path: Path) -> None:
    folder = write_devkit(
        tmp_path, "abcd", {"Train": "ac", "val": "b", "trainval": "abc", "test": "d", "cat_train": "d"}
    )
    splits = import_labels("voc", folder)
    assert [[path.stem for path in split.origins] for split in splits.values()] == [["a", "c"], ["b"]]
    assert remarks_of(splits)[UNUSED_IMAGE] == ["VOCdevkit/VOC2007/JPEGImages/d.jpg"]


def test_a_devkit_with_one_list_is_divided_and_a_listed_image_needs_its_annotations(tmp_path: Path) -> None:
    folder = write_devkit(tmp_path / "one", "abc", {"trainval": "abc"})
    assert sum(len(split.origins) for split in import_labels("voc", folder).values()) == 3
    folder = write_devkit(tmp_path / "two", "abc", {"train": "ax", "val": "b"})
    with pytest.raises(UserError, match=r"ImageSets lists x, and there is no VOCdevkit/VOC2007/Annotations/x.xml"):
        import_labels("voc", folder)


def test_only_the_devkit_counts_pixels_from_1(tmp_path: Path) -> None:
    """Its box 1, 1, 60, 50 is the whole image of 60x50 pixels; that of labelImg, CVAT and others begins at 1, 1."""
    original = import_labels("voc", write_devkit(tmp_path / "a", "ab", {}))
    assert objects_of(original)["a.jpg"] == [("cat", [0, 0, 60, 50]), ("dog", [2, 3, 18, 27])]
    unknown = "<source><database>Unknown</database></source>"
    other = import_labels("voc", write_devkit(tmp_path / "b", "ab", {}, head=unknown))
    assert objects_of(other)["a.jpg"] == [("cat", [1, 1, 59, 49]), ("dog", [3, 4, 17, 26])]


def test_parts_are_no_objects_and_difficult_ones_are_kept_and_counted(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    folder = write_flat(tmp_path, "voc", [A, B], [])
    (folder / "a.xml").write_text(voc_text(A, more=f"<truncated>1</truncated><difficult>1</difficult>{part}"))
    (folder / "other.xml").write_text("<annotations/>")
    splits = import_labels("voc", folder)
    assert [name for name, _ in objects_of(splits)["a.jpg"]] == ["cat", "dog"]
    assert remarks_of(splits)[DIFFICULT] == ["a.jpg, region 0", "a.jpg, region 1"]
    assert remarks_of(splits)[OTHER_XML] == ["other.xml"]


def test_the_image_is_the_one_of_the_file_s_name_or_the_one_it_says(tmp_path: Path) -> None:
    folder = write_flat(tmp_path / "set", "voc", [A, B], [])
    (folder / "a.xml").write_text(voc_text(A._replace(name="renamed.png")))
    (folder / "b.xml").rename(folder / "export.xml")
    assert objects_of(import_labels("voc", folder)).keys() == {"a.jpg", "b.jpg"}
    shutil.copy(folder / "a.jpg", folder / "a.png")
    with pytest.raises(UserError, match=r"a.xml: several images may be its own: a.jpg, a.png; keep one"):
        import_labels("voc", folder)
    (folder / "a.xml").write_text(voc_text(A))
    assert "a.jpg" in objects_of(import_labels("voc", folder))


def test_images_of_another_size_than_listed_are_refused_but_not_where_none_is_listed(tmp_path: Path) -> None:
    folder = write_flat(tmp_path, "voc", [A, B], [])
    (folder / "a.xml").write_text(voc_text(A, size_wh=(0, 0)))
    import_labels("voc", folder)
    (folder / "a.xml").write_text(voc_text(A, size_wh=(120, 100)))
    with pytest.raises(UserError, match=r"a.jpg: has 60x50 pixels and was annotated at 120x100; regions times 0.5"):
        import_labels("voc", folder)


def test_objects_without_a_name_are_asked_about(tmp_path: Path) -> None:
    nameless = A._replace(objects=[("", box(2, 2, 9, 9)), *A.objects])
    folder = write_flat(tmp_path, "voc", [nameless, B], [])
    with pytest.raises(UserError, match="1 region without a value for class"):
        import_labels("voc", folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("</annotation>", ""), "not whole XML ("),
        (("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>'), "defines entities"),
        (("<annotation>", '<?xml version="1.0" encoding="klingon"?><annotation>'), "not whole XML ("),
        (("<xmin>1</xmin>", ""), ", object 0: <bndbox> has <xmin> None; a number up to"),
        (("bndbox", "box"), ", object 0: has no <bndbox>"),
        (("<xmax>60</xmax>", "<xmax>wide</xmax>"), ", object 0: <bndbox> has <xmax> 'wide'; a number up to"),
        (("<ymax>50</ymax>", "<ymax>nan</ymax>"), ", object 0: <bndbox> has <ymax> 'nan'"),
        (("<xmax>20</xmax>", "<xmax>2</xmax>"), ", object 1: <bndbox> ends before it begins (3, 4, 2, 30)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    folder = write_flat(tmp_path, "voc", [A, B], [])
    (folder / "a.xml").write_text(voc_text(A).replace(*change))
    with pytest.raises(UserError, match=re.escape(f"{folder / 'a.xml'}") + ".*" + re.escape(message)):
        import_labels("voc", folder)


def test_an_annotation_without_its_image_is_a_missing_image_and_images_without_one_are_said(tmp_path: Path) -> None:
    folder = write_flat(tmp_path, "voc", [A, B, A._replace(name="c.jpg")], [])
    (folder / "a.jpg").unlink()
    (folder / "c.xml").unlink()
    with pytest.raises(UserError, match=r"1 of 2 images cannot be used: a.jpg: no such image"):
        import_labels("voc", folder)
    (folder / "b.xml").write_text(voc_text(B._replace(objects=[])))
    (folder / "a.xml").rename(folder / "c.xml")
    write_image(folder / "new.jpg", (60, 50))
    splits = import_labels("voc", folder)
    assert objects_of(splits)["b.jpg"] == [] and remarks_of(splits)[notes.UNLISTED] == [f"{folder.name}/new.jpg"]
