"""Objects cut out of photographs along their polygons, and photographs to put them into; for pre-training. No torch."""

import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

_SMALLEST_SIDE = 28  # pixels: a smaller cutout has no detail left
_TRIALS = 12


class PhotoObject(NamedTuple):
    """An annotated object of a photograph."""

    label: int
    polygons: list[np.ndarray]  # (N, 2) each, pixels of the photograph
    box_xyxy: tuple[float, float, float, float]


class Crop(NamedTuple):
    """A part of a photograph, resized, with the objects in it."""

    image: Image.Image
    objects: list[PhotoObject]  # in pixels of the crop


class PhotoObjects:
    """The photographs of one split of a COCO folder, and their objects.

    Args:
        annotations: the COCO file.
        folder: where its images lie.
        labels: category name -> label.
        held_out: categories that must not be seen: crops leave their objects out.
    """

    def __init__(self, annotations: Path, folder: Path, labels: dict[str, int], held_out: Collection[str]) -> None:
        coco = json.loads(annotations.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in coco["categories"]}
        index_of_id = {image["id"]: index for index, image in enumerate(coco["images"])}
        self._paths = [folder / image["file_name"] for image in coco["images"]]
        self._objects: list[list[PhotoObject]] = [[] for _ in self._paths]
        self._held_out: list[list[PhotoObject]] = [[] for _ in self._paths]
        self._cutouts: list[tuple[int, PhotoObject]] = []
        for annotation in coco["annotations"]:
            if annotation.get("iscrowd") or not isinstance(annotation["segmentation"], list):
                continue
            index, name = index_of_id[annotation["image_id"]], names[annotation["category_id"]]
            left, top, width, height = annotation["bbox"]
            polygons = [np.array(polygon).reshape(-1, 2) for polygon in annotation["segmentation"]]
            one = PhotoObject(labels.get(name, -1), polygons, (left, top, left + width, top + height))
            (self._held_out if name in held_out else self._objects)[index].append(one)
            size = coco["images"][index]
            inside = left > 1 and top > 1 and left + width < size["width"] - 1 and top + height < size["height"] - 1
            if name not in held_out and inside and min(width, height) >= _SMALLEST_SIDE:
                self._cutouts.append((index, one))

    def crop(self, rng: np.random.Generator, size_hw: tuple[int, int]) -> Crop | None:
        """Return a random part of a random photograph at `size_hw`; None where held-out objects leave none."""
        height, width = size_hw
        for _ in range(_TRIALS):
            index = int(rng.integers(len(self._paths)))
            photo = _read(self._paths[index])
            scale = min(photo.width / width, photo.height / height) * rng.uniform(0.55, 1)
            left = rng.uniform(0, photo.width - scale * width)
            top = rng.uniform(0, photo.height - scale * height)
            box = (left, top, left + scale * width, top + scale * height)
            if any(_overlap(one.box_xyxy, box) for one in self._held_out[index]):
                continue
            image = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
            objects = [
                PhotoObject(
                    one.label,
                    [(polygon - (left, top)) / scale for polygon in one.polygons],
                    tuple(
                        (value - origin) / scale for value, origin in zip(one.box_xyxy, 2 * (left, top), strict=True)
                    ),
                )
                for one in self._objects[index]
                if _overlap(one.box_xyxy, box)
            ]
            if rng.random() < 0.5:
                return _mirrored(image, objects)
            return Crop(image, objects)
        return None

    def cutout(self, rng: np.random.Generator, longest: float) -> tuple[Image.Image, int]:
        """Return a random object as an RGBA image with its longest side near `longest` pixels, and its label.

        It is turned a little, flipped and lit differently each time, and its edge is soft.
        """
        index, one = self._cutouts[int(rng.integers(len(self._cutouts)))]
        box = (*np.floor(one.box_xyxy[:2]).astype(int).tolist(), *np.ceil(one.box_xyxy[2:]).astype(int).tolist())
        piece = _read(self._paths[index]).crop(box)
        mask = Image.new("L", piece.size)
        for polygon in one.polygons:
            ImageDraw.Draw(mask).polygon((polygon - box[:2]).ravel().tolist(), fill=255)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            piece = enhance(piece).enhance(rng.uniform(0.7, 1.3))
        piece.putalpha(mask)
        factor = longest / max(piece.size)
        stretch = np.exp(rng.normal(0, 0.1))
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


def _overlap(first_xyxy: tuple[float, ...], second_xyxy: tuple[float, ...]) -> bool:
    return (
        min(first_xyxy[2], second_xyxy[2]) - max(first_xyxy[0], second_xyxy[0]) > 1
        and min(first_xyxy[3], second_xyxy[3]) - max(first_xyxy[1], second_xyxy[1]) > 1
    )


def _mirrored(image: Image.Image, objects: list[PhotoObject]) -> Crop:
    flipped = []
    for one in objects:
        left, top, right, bottom = one.box_xyxy
        polygons = [polygon * (-1, 1) + (image.width, 0) for polygon in one.polygons]
        flipped.append(PhotoObject(one.label, polygons, (image.width - right, top, image.width - left, bottom)))
    return Crop(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), flipped)
