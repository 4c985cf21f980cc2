"""A picture of a data set: annotated samples, objects per class, box sizes. Pillow alone, and so quick. No torch."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detr.fonts import font
from detr.images import read_rgb
from detr.imported import Split
from detr.report.dataset import LARGE_SIDE, SMALL_SIDE, Objects, objects_of

# As utils.draw_objects: (picture, objects to draw, pixels per unit of their coordinates) -> a copy with them on it
DrawObjects = Callable[[Image.Image, Sequence[dict], float], Image.Image]

_WIDTH, _MARGIN, _GAP = 1920, 36, 10  # pixels
_ROW_HEIGHT, _TALLEST_ROW, _CAPTION = 360, 560, 22
_PANELS_HEIGHT, _BAR_HEIGHT, _MOST_BARS_HEIGHT = 660, 92, 400  # a bar is that of a class, for both splits
_SAMPLES = 8
_MOST_TEXTS = 12  # objects in an image up to which their classes are written beside them
_MOST_BARS = 12
_MOST_COLUMNS = 60
_MOST_DOTS = 6000
_LOWEST_POWER = 2  # boxes below 4 pixels are drawn at the edge
_FINE = 2  # panels are drawn larger and reduced, which smooths lines and letters
_INK, _FAINT, _GRID = "#222222", "#777777", "#e4e4e4"


def draw_dataset(
    splits: dict[str, Split], title: str, colours: Sequence[str], draw_objects: DrawObjects
) -> Image.Image:
    """The picture of a data set.

    Args:
        splits: "train" and "val"; the samples are training images.
        title: the headline.
        colours: of the classes, category id by category id, over and over.
        draw_objects: draws boxes and outlines over a photograph.
    """
    colour_of = {c["id"]: colours[c["id"] % len(colours)] for c in splits["train"].coco["categories"]}
    samples = choose_samples(splits["train"].coco, _SAMPLES)
    mosaic = _draw_mosaic(splits["train"], samples, colour_of, draw_objects)
    sheet = Image.new("RGB", (_WIDTH, 96 + mosaic.height + _PANELS_HEIGHT + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, 28), title, _INK, font(34))
    sheet.paste(mosaic, (_MARGIN, 96))
    top, width = 96 + mosaic.height + _MARGIN, (_WIDTH - 3 * _MARGIN) // 2
    objects = {name: objects_of(split.coco) for name, split in splits.items()}
    bars_height = min(_MOST_BARS_HEIGHT, 60 + _BAR_HEIGHT * len(colour_of))
    bars = _draw_bars(objects, splits["train"].coco["categories"], colour_of, (width, bars_height))
    sheet.paste(bars, (_MARGIN, top))
    sheet.paste(_draw_counts(objects, (width, _PANELS_HEIGHT - bars_height)), (_MARGIN, top + bars_height))
    sheet.paste(_draw_sizes(objects, list(colour_of.values()), (width, _PANELS_HEIGHT)), (width + 2 * _MARGIN, top))
    return sheet


# -------------------------------------------------------------------------------------------------------------- samples


def choose_samples(coco: dict, count: int) -> list[int]:
    """Positions of images that show every class where `count` allows, rare ones first, the others spread evenly."""
    images_of = defaultdict(set)  # category id -> positions of images
    index_of = {image["id"]: index for index, image in enumerate(coco["images"])}
    for annotation in coco["annotations"]:
        images_of[annotation["category_id"]].add(index_of[annotation["image_id"]])
    chosen: set[int] = set()
    for positions in sorted(images_of.values(), key=len):
        if not positions & chosen and len(chosen) < count:
            chosen.add(sorted(positions)[len(positions) // 2])
    annotated = set().union(*images_of.values())
    others = sorted((annotated or set(index_of.values())) - chosen)
    missing = min(count - len(chosen), len(others))
    return sorted(chosen | {others[len(others) * number // missing] for number in range(missing)})


def _draw_mosaic(split: Split, samples: list[int], colour_of: dict[int, str], draw_objects: DrawObjects) -> Image.Image:
    """Rows of samples, each row as wide as the sheet, with the file names below."""
    images = [split.coco["images"][index] for index in samples]
    rows = _fill_rows([image["width"] / image["height"] for image in images], _WIDTH - 2 * _MARGIN)
    height = sum(round(row_height) + _CAPTION + _GAP for row_height, _ in rows)
    mosaic = Image.new("RGB", (_WIDTH - 2 * _MARGIN, max(height, 1)), "white")
    pen, number, top = ImageDraw.Draw(mosaic), 0, 0
    for row_height, aspects in rows:
        left = 0.0
        for aspect in aspects:
            size = max(1, round(row_height * aspect)), max(1, round(row_height))
            image = images[number]
            scale = size[1] / image["height"]
            photograph = read_rgb(split.origins[samples[number]], scale).resize(size, Image.Resampling.LANCZOS)
            mosaic.paste(
                draw_objects(photograph, _drawings(split.coco, image["id"], colour_of), scale), (round(left), top)
            )
            caption = f"{image['file_name']}  {image['width']}x{image['height']}"
            letters = font(13, caption)
            pen.text((round(left), top + size[1] + 4), _shortened(caption, letters, size[0]), _FAINT, letters)
            left += row_height * aspect + _GAP
            number += 1
        top += round(row_height) + _CAPTION + _GAP
    return mosaic


def _fill_rows(aspects: list[float], width: int) -> list[tuple[float, list[float]]]:
    """Rows of pictures that fill `width`: (height, aspect ratios) of each."""
    count = max(1, round(sum(aspects) * _ROW_HEIGHT / width))
    rows: list[list[float]] = [[] for _ in range(count)]
    before = 0.0
    for aspect in aspects:
        rows[min(count - 1, int((before + aspect / 2) / sum(aspects) * count))].append(aspect)
        before += aspect
    return [(min(_TALLEST_ROW, (width - _GAP * (len(row) - 1)) / sum(row)), row) for row in rows if row]


def _drawings(coco: dict, image_id: int, colour_of: dict[int, str]) -> list[dict]:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    mine = [a for a in coco["annotations"] if a["image_id"] == image_id and not a.get("iscrowd", 0)]
    with_text = len(names) > 1 and len(mine) <= _MOST_TEXTS
    drawings = []
    for annotation in mine:
        left, top, width, height = annotation["bbox"]
        outlines = annotation.get("segmentation")  # a mask (RLE) is a dict, and not drawn
        drawings.append(
            {
                "box_xyxy": (left, top, left + width, top + height),
                "text": names[annotation["category_id"]] if with_text else "",
                "colour": colour_of[annotation["category_id"]],
                "outlines": [
                    list(zip(flat[::2], flat[1::2], strict=True))
                    for flat in (outlines if isinstance(outlines, list) else [])
                ],
            }
        )
    return drawings


def _shortened(text: str, letters: ImageFont.FreeTypeFont, width: float) -> str:
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


# --------------------------------------------------------------------------------------------------------------- panels


def _panel(title: str, size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    panel = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), "white")
    pen = ImageDraw.Draw(panel, "RGBA")
    pen.text((0, 0), title, _INK, _font(22))
    return panel, pen


def _font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    return font(size * _FINE, text)


def _draw_bars(
    objects: dict[str, Objects], categories: list[dict], colour_of: dict[int, str], size: tuple[int, int]
) -> Image.Image:
    """Objects per class: a bar for each split, full colour for the first, pale for the second."""
    panel, pen = _panel("objects per class", size)
    per_split = [np.bincount(found.classes, minlength=len(categories)).tolist() for found in objects.values()]
    counts = {c["id"]: numbers for c, *numbers in zip(categories, *per_split, strict=True)}
    shown = sorted(categories, key=lambda c: -sum(counts[c["id"]]))[:_MOST_BARS]
    height = min(_BAR_HEIGHT, (size[1] - 90) // len(shown)) * _FINE
    fonts = [_font(15, category["name"]) for category in shown]
    longest = max(letters.getlength(c["name"]) for letters, c in zip(fonts, shown, strict=True))
    label_width = min(size[0] // 3 * _FINE, longest + 12 * _FINE)
    room = size[0] * _FINE - label_width - 110 * _FINE
    largest = max(1, max(max(counts[c["id"]]) for c in shown))
    for row, (letters, category) in enumerate(zip(fonts, shown, strict=True)):
        top = 48 * _FINE + row * height
        name = _shortened(category["name"], letters, label_width - 12 * _FINE)
        pen.text((0, top + height * 0.42), name, _INK, letters, anchor="lm")
        for column, (split, count) in enumerate(zip(objects, counts[category["id"]], strict=True)):
            y, thick = top + column * height * 0.42, height * 0.4
            end = label_width + room * count / largest
            pen.rectangle((label_width, y, end, y + thick), colour_of[category["id"]] + ("" if not column else "70"))
            pen.text((end + 6 * _FINE, y + thick / 2), f"{count:,} {split}", _FAINT, _font(13), anchor="lm")
    if len(categories) > len(shown):
        pen.text((0, 56 * _FINE + len(shown) * height), f"and {len(categories) - len(shown)} more", _FAINT, _font(15))
    return panel.reduce(_FINE)


def _draw_counts(objects: dict[str, Objects], size: tuple[int, int]) -> Image.Image:
    """How many images have how many objects, all splits together."""
    panel, pen = _panel("objects per image", size)
    per_image = np.concatenate([np.bincount(o.owners, minlength=len(o.sizes_hw)) for o in objects.values()])
    step = -(-int(per_image.max(initial=0) + 1) // _MOST_COLUMNS)  # objects that share a column
    images = np.bincount(per_image // step)
    top, bottom, letters = 62 * _FINE, (size[1] - 24) * _FINE, _font(13)
    column = min(72, size[0] / len(images)) * _FINE
    for number, count in enumerate(images.tolist()):
        left, high = number * column, (bottom - top) * count / max(1, images.max())
        pen.rectangle((left, bottom - high, left + column - 3 * _FINE, bottom), "#9aa5b1")
        middle = left + (column - 3 * _FINE) / 2
        if count and column >= 30 * _FINE:
            pen.text((middle, bottom - high - 3 * _FINE), f"{count:,}", _FAINT, letters, anchor="mb")
        if column >= 30 * _FINE or number % 5 == 0:
            text = str(number) if step == 1 else f"{number * step}+"
            pen.text((middle, bottom + 6 * _FINE), text, _FAINT, letters, anchor="mt")
    return panel.reduce(_FINE)


def _draw_sizes(objects: dict[str, Objects], colours: list[str], size: tuple[int, int]) -> Image.Image:
    """Width and height of the boxes of all splits, in pixels on logarithmic axes, with COCO's bounds of size."""
    panel, pen = _panel("box sizes in the photographs (width and height in pixels)", size)
    area = (48 * _FINE, 52 * _FINE, (size[0] - 20) * _FINE, (size[1] - 24) * _FINE)
    sides = np.concatenate([found.boxes_xywh[:, 2:] for found in objects.values()])
    classes = np.concatenate([found.classes for found in objects.values()])
    high = math.log2(max(1024, sides.max(initial=0)))
    at = partial(_log_position, area, high)
    for power in range(_LOWEST_POWER, math.floor(high) + 1):
        x, y = at(2**power, 2**power)
        pen.line((x, area[1], x, area[3]), _GRID, _FINE)
        pen.line((area[0], y, area[2], y), _GRID, _FINE)
        pen.text((x, area[3] + 8 * _FINE), str(2**power), _FAINT, _font(13), anchor="mt")
        pen.text((area[0] - 8 * _FINE, y), str(2**power), _FAINT, _font(13), anchor="rm")
    radius = (2.2 if len(sides) > 1000 else 3.4) * _FINE
    every = max(1, -(-len(sides) // _MOST_DOTS))
    for (width, height), number in zip(sides[::every].tolist(), classes[::every], strict=True):
        x, y = at(width, height)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), colours[number] + "80")
    for side in (SMALL_SIDE, LARGE_SIDE):
        most = min(2**high, side**2 / 2**_LOWEST_POWER)
        pen.line((*at(side**2 / most, most), *at(most, side**2 / most)), _FAINT, _FINE)
    middles = {"small": SMALL_SIDE / 1.7, "medium": (SMALL_SIDE * LARGE_SIDE) ** 0.5, "large": LARGE_SIDE * 1.7}
    for name, side in middles.items():
        pen.text(at(side / 4, side * 4), name, _INK, _font(15), anchor="mm")
    return panel.reduce(_FINE)


def _log_position(
    area: tuple[float, float, float, float], high: float, width: float, height: float
) -> tuple[float, float]:
    """Where a box of that size lies in a diagram `area` (xyxy) of both axes from 2 ** _LOWEST_POWER to 2 ** high."""
    x, y = (
        (math.log2(max(side, 2**_LOWEST_POWER)) - _LOWEST_POWER) / (high - _LOWEST_POWER) for side in (width, height)
    )
    return area[0] + x * (area[2] - area[0]), area[3] - y * (area[3] - area[1])
