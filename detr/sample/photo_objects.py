"""Objects cut out of photographs along their polygons, and photographs to put them into; for pre-training. No torch."""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from detr.sample.paints import Rng

_SMALLEST_SIDE = 28  # pixels: a smaller cutout has no detail left
_TRIALS = 12


class PhotoObject(NamedTuple):
    """An annotated object of a photograph."""

    label: int
    polygons: list[np.ndarray]  # (N, 2) each, pixels of the photograph

    def box_xyxy(self) -> np.ndarray:
        """Return the (4,) box around the polygons."""
        together = np.concatenate(self.polygons)
        return np.concatenate([together.min(0), together.max(0)])


class PhotoObjects:
    """The photographs of one split of a COCO folder, and their objects.

    Args:
        annotations: the COCO file.
        folder: where its images lie.
        labels: category name -> label.
        held_out: categories that must not be seen. Crops leave their objects out, and crowds, which have no outlines.
    """

    def __init__(self, annotations: Path, folder: Path, labels: dict[str, int], held_out: Collection[str]) -> None:
        coco = json.loads(annotations.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in coco["categories"]}
        # Of each photograph its path, its objects, and the (4,) boxes_xyxy of what no crop may show.
        photos = {image["id"]: (folder / image["file_name"], [], []) for image in coco["images"]}
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        self._photos: list[tuple[Path, list[PhotoObject], list[np.ndarray]]] = list(photos.values())
        self._cutouts: list[tuple[Path, PhotoObject]] = []
        for annotation in coco["annotations"]:
            (path, objects, avoided), name = photos[annotation["image_id"]], names[annotation["category_id"]]
            left, top, width, height = annotation["bbox"]
            if name in held_out or annotation.get("iscrowd"):
                avoided.append(np.array((left, top, left + width, top + height)))
                continue
            polygons = [np.array(flat).reshape(-1, 2) for flat in annotation["segmentation"]]
            objects.append(PhotoObject(labels[name], polygons))
            photo_width, photo_height = sizes[annotation["image_id"]]
            whole = min(left, top, photo_width - left - width, photo_height - top - height) > 1  # not cut by the border
            if whole and min(width, height) >= _SMALLEST_SIDE:
                self._cutouts.append((path, objects[-1]))

    def crop(self, rng: Rng, size_hw: tuple[int, int]) -> tuple[Image.Image, list[PhotoObject]] | None:
        """Return a random part of a random photograph, resized to `size_hw`, and the objects in it, in its pixels.

        Returns None where held-out objects leave no such part.
        """
        height, width = size_hw
        for _ in range(_TRIALS):
            path, objects, avoided = self._photos[int(rng.integers(len(self._photos)))]
            image = _read(path)
            scale = min(image.width / width, image.height / height) * rng.uniform(0.55, 1)
            origin = rng.uniform(0, 1, 2) * (image.width - scale * width, image.height - scale * height)
            box_xyxy = np.concatenate([origin, origin + scale * np.array((width, height))])
            if any(_overlap(box, box_xyxy) for box in avoided):
                continue
            shown = [one for one in objects if _overlap(one.box_xyxy(), box_xyxy)]
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=tuple(box_xyxy.tolist()))
            flip, edge = np.array((1, 1)), box_xyxy[:2]
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                flip, edge = np.array((-1, 1)), box_xyxy[[2, 1]]
            moved = [[(polygon - edge) * flip / scale for polygon in one.polygons] for one in shown]
            return image, [one._replace(polygons=polygons) for one, polygons in zip(shown, moved, strict=True)]
        return None

    def cutout(self, rng: Rng, longest: float) -> tuple[Image.Image, int]:
        """Return a random object as an RGBA image with its longest side near `longest` pixels, and its label.

        It is turned a little, flipped and lit differently each time, and its edge is soft.
        """
        path, one = self._cutouts[int(rng.integers(len(self._cutouts)))]
        box = one.box_xyxy()
        corner, end = np.floor(box[:2]).astype(int).tolist(), np.ceil(box[2:]).astype(int).tolist()
        piece = _read(path).crop((*corner, *end))
        mask = Image.new("L", piece.size)
        for polygon in one.polygons:
            ImageDraw.Draw(mask).polygon((polygon - corner).ravel().tolist(), fill=255)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            piece = enhance(piece).enhance(rng.uniform(0.7, 1.3))
        piece.putalpha(mask)
        factor, stretch = longest / max(piece.size), np.exp(rng.normal(0, 0.1))
        size = [max(4, round(side * factor * by)) for side, by in zip(piece.size, (stretch, 1 / stretch), strict=True)]
        piece = piece.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX)
        if rng.random() < 0.5:
            piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        piece = piece.rotate(rng.normal(0, 12) if rng.random() < 0.7 else rng.uniform(-180, 180), expand=True)
        piece.putalpha(piece.getchannel("A").filter(ImageFilter.GaussianBlur(0.8)))
        return piece, one.label


@lru_cache(maxsize=600)
def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _overlap(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> bool:
    shared = np.minimum(first_xyxy[2:], second_xyxy[2:]) - np.maximum(first_xyxy[:2], second_xyxy[:2])
    return bool((shared > 1).all())
