"""COCO of images that EXIF turns: annotations made on the stored pixels come out where the object is seen."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from detr.importers import notes
from detr.importers.coco import read_coco_folder
from tests.importers.label_files import remarks_of
from utils import UserError

STORED_WH = (50, 80)
BOX = [5, 10, 20, 30]  # xywh on the stored pixels
POLYGON = [5, 10, 25, 12, 20, 40]


def stored_mask() -> np.ndarray:
    """A shape without any symmetry, on the stored pixels."""
    mask = np.zeros(STORED_WH[::-1], dtype=np.uint8)
    mask[10:40, 5:25] = 1
    mask[10:20, 5:10] = mask[79, 49] = 0
    mask[0, 0] = 1
    return mask


def compressed(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict:
    runs, last = [0], 0
    for value in mask.flatten(order="F").tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As Pillow turns an image: an independent reference."""
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def write(folder: Path, orientations: list[int], listed_wh: list[tuple[int, int]], **fields: object) -> Path:
    """One file for images a0.jpg, a1.jpg, ..., each with one object, and an upright one."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, (orientation, size) in enumerate(zip([*orientations, 1], [*listed_wh, STORED_WH], strict=True)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", STORED_WH, (number * 20, 90, 90)).save(folder / f"a{number}.jpg", exif=exif)
        images.append({"id": number, "file_name": f"a{number}.jpg", "width": size[0], "height": size[1]})
    one = {"category_id": 1, "bbox": BOX, "segmentation": [POLYGON], "area": 99, "iscrowd": 0} | fields
    annotations = [copy.deepcopy(one) | {"id": image["id"], "image_id": image["id"]} for image in images]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "result.json").write_text(json.dumps(coco))
    return folder


def read(folder: Path, **flags: object) -> tuple[dict[str, dict], dict[str, list[str]]]:
    """Annotation and size of every image, and the remarks."""
    splits = read_coco_folder(folder, **flags)
    objects = {}
    for split in splits.values():
        images = {image["id"]: image for image in split.coco["images"]}
        for annotation in split.coco["annotations"]:
            image = images[annotation["image_id"]]
            objects[image["file_name"]] = annotation | {"size": (image["width"], image["height"])}
    return objects, remarks_of(splits)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("encode", [uncompressed, compressed])
def test_what_is_listed_as_stored_is_turned(orientation: int, encode: object, tmp_path: Path) -> None:
    mask = stored_mask()
    folder = write(tmp_path, [orientation], [STORED_WH], segmentation=encode(mask))
    objects, remarks = read(folder)
    boxed = np.zeros_like(mask)
    boxed[10:40, 5:25] = 1
    ys, xs = np.nonzero(upright(boxed, orientation))
    one = objects["a0.jpg"]
    assert one["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
    assert one["size"] == STORED_WH[::-1] and one["area"] == 99
    assert (coco_mask.decode(one["segmentation"]) == upright(mask, orientation)).all()
    assert objects["a1.jpg"]["bbox"] == BOX and objects["a1.jpg"]["segmentation"] == encode(mask)
    assert remarks == {notes.TURNED: ["a0.jpg"]}


@pytest.mark.parametrize("polygon", [[POLYGON], POLYGON])
def test_polygons_are_turned(polygon: list, tmp_path: Path) -> None:
    objects, _ = read(write(tmp_path, [6], [STORED_WH], segmentation=polygon))
    assert objects["a0.jpg"]["segmentation"] == [[70, 5, 68, 25, 40, 20]]  # x = 80 - y, y = x
    assert objects["a0.jpg"]["bbox"] == [40, 5, 30, 20]


def test_what_is_listed_upright_stays_and_another_size_is_refused(tmp_path: Path) -> None:
    objects, remarks = read(write(tmp_path / "a", [6, 3], [STORED_WH[::-1], STORED_WH]))
    assert [one["bbox"] for one in objects.values()] == [BOX] * 3 and remarks == {}
    with pytest.raises(UserError, match=r"a0.jpg: the file has 80x50 pixels, the annotations say 100x160"):
        read(write(tmp_path / "b", [6], [(100, 160)]))


def test_upside_down_images_follow_the_others_of_their_file(tmp_path: Path) -> None:
    """Their size tells nothing."""
    objects, remarks = read(write(tmp_path / "a", [6, 3], [STORED_WH, STORED_WH]))
    assert objects["a1.jpg"]["bbox"] == [25, 40, 20, 30] and remarks == {notes.TURNED: ["a0.jpg", "a1.jpg"]}
    objects, remarks = read(write(tmp_path / "b", [6, 3, 6], [STORED_WH, STORED_WH, STORED_WH[::-1]]))
    assert objects["a1.jpg"]["bbox"] == BOX
    assert remarks == {notes.TURNED: ["a0.jpg"], notes.UNSURE: ["a1.jpg"]}


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [80, 50], "counts": [10, 20]},
        {"size": [50, 80], "counts": [4000]},
        {"size": [80, 50], "counts": "0"},
        {"size": [80, 50], "counts": [-10, 4010]},
        {"size": [80, 50], "counts": {}},
        {"size": 7, "counts": [4000]},
    ],
)
def test_an_image_whose_mask_cannot_be_turned_is_named(rle: dict, tmp_path: Path) -> None:
    folder = write(tmp_path, [6, 1], [STORED_WH, STORED_WH], segmentation=rle)
    with pytest.raises(UserError, match=r"1 of 3 images do not fit:\n  a0.jpg: an object has a mask"):
        read(folder)
    objects, _ = read(folder, skip_bad_images=True)
    assert set(objects) == {"a1.jpg", "a2.jpg"}
