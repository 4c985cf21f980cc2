"""A figure of a dataset: annotated samples, objects per class and per image, box sizes. No torch."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter

from detr.data.coco_json import white_in
from detr.data.images import read_rgb
from detr.drawing import color_of, draw_objects, figure_text, save_figure, short_names
from detr.importers.dataset_report import LARGE_SIDE, SMALL_SIDE, PackedObjects, pack_objects
from detr.importers.splits import Split

_SAMPLES, _VAL_SAMPLES, _COLUMNS = 8, 2, 4
_SAMPLE_SIDE = 460  # pixels
_MOST_TEXTS = 12  # objects in an image up to which their classes are written beside them
_MOST_BARS = 12
_MOST_POINTS = 6000


def draw_dataset(splits: dict[str, Split], title: str, path: Path) -> None:
    """Save the figure of a dataset as PNG; most of the samples are images of the split "train"."""
    train = splits["train"]
    counts = {"train": _SAMPLES - _VAL_SAMPLES, "val": _VAL_SAMPLES}
    samples = [(name, index) for name, count in counts.items() for index in choose_samples(splits[name].coco, count)]
    rows = max(1, -(-len(samples) // _COLUMNS))
    figure = Figure(figsize=(19.2, 4.4 * rows + 7), layout="constrained")
    figure.suptitle(figure_text(title), fontsize=20, x=0.01, ha="left")
    top, bottom = figure.subfigures(2, 1, height_ratios=(4.4 * rows, 7))
    for axis, (name, index) in zip(top.subplots(rows, _COLUMNS, squeeze=False).flat, samples, strict=False):
        _draw_sample(axis, name, splits[name], index)
    for axis in top.axes[len(samples) :]:
        axis.remove()
    packed = {name: pack_objects(split.coco) for name, split in splits.items()}
    axes = bottom.subplot_mosaic([["classes", "sizes"], ["images", "sizes"]])
    _draw_class_counts(axes["classes"], packed, train.coco["categories"])
    _draw_image_counts(axes["images"], packed)
    _draw_box_sizes(axes["sizes"], packed, train.coco["categories"])
    save_figure(figure, path)


def choose_samples(coco: dict, count: int) -> list[int]:
    """Return positions of images that show every class where `count` allows, rare ones first, others evenly spaced."""
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


def _draw_sample(axis: Axes, name: str, split: Split, index: int) -> None:
    """Draw an image with its boxes and polygons."""
    image, names = split.coco["images"][index], {c["id"]: c["name"] for c in split.coco["categories"]}
    annotations = [a for a in split.coco["annotations"] if a["image_id"] == image["id"] and not a.get("iscrowd", 0)]
    has_text = len(names) > 1 and len(annotations) <= _MOST_TEXTS
    scale = _SAMPLE_SIDE / max(image["width"], image["height"])
    size = max(1, round(scale * image["width"])), max(1, round(scale * image["height"]))
    texts = names if has_text else defaultdict(str)
    drawn = [a | {"text": texts[a["category_id"]], "color": color_of(a["category_id"])} for a in annotations]
    axis.imshow(draw_objects(read_rgb(split.origins[index], scale, white_in(split.coco)).resize(size), drawn, scale))
    axis.set_title(figure_text(f"{name}: {image['file_name'][-40:]}  {image['width']}x{image['height']}"), fontsize=9)
    axis.set_axis_off()


def _draw_class_counts(axis: Axes, packed: dict[str, PackedObjects], categories: list[dict]) -> None:
    """Draw objects per class, the most frequent first: a bar for each split, pale for the second."""
    counts = [np.bincount(objects.classes, minlength=len(categories)) for objects in packed.values()]
    order = np.argsort(-sum(counts), kind="stable")[:_MOST_BARS]
    colors = [color_of(categories[i]["id"]) for i in order]
    for number, (split, per_class) in enumerate(zip(packed, counts, strict=True)):
        ys = np.arange(len(order)) + 0.4 * number
        bars = axis.barh(ys, per_class[order], 0.38, color=colors, alpha=1 - 0.6 * number)
        axis.bar_label(bars, [f"{count:,} {split}" for count in per_class[order]], padding=3, fontsize=8)
    names = short_names((categories[i]["name"] for i in order), longest=30).values()
    more = f" (and {len(categories) - len(order)} more classes)" if len(categories) > len(order) else ""
    axis.set(title=f"objects per class{more}", yticks=np.arange(len(order)) + 0.2, yticklabels=names)
    axis.margins(x=0.15)
    axis.invert_yaxis()


def _draw_image_counts(axis: Axes, packed: dict[str, PackedObjects]) -> None:
    """Draw how many images have how many objects, all splits together."""
    counts = [np.bincount(objects.owners, minlength=len(objects.sizes_hw)) for objects in packed.values()]
    per_image = np.concatenate(counts)
    step = -(-int(per_image.max(initial=0) + 1) // 60)  # objects that share a bar
    axis.hist(per_image, np.arange(0, per_image.max(initial=0) + step + 1, step) - 0.5, color="#9aa5b1", rwidth=0.9)
    axis.set(title="images by number of objects", xlabel="objects in an image", ylabel="images")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(integer=True))


def _draw_box_sizes(axis: Axes, packed: dict[str, PackedObjects], categories: list[dict]) -> None:
    """Draw width and height of all boxes, in pixels on logarithmic axes, with COCO's bounds of small and large."""
    sides = np.concatenate([objects.boxes_xywh[:, 2:] for objects in packed.values()]).clip(4)
    classes = np.concatenate([objects.classes for objects in packed.values()])
    every = max(1, -(-len(sides) // _MOST_POINTS))
    colors = [color_of(categories[label]["id"]) for label in classes[::every]]
    axis.scatter(*sides[::every].T, s=8 if len(sides) > 1000 else 18, c=colors, alpha=0.5, linewidths=0)
    most = max(1024.0, sides.max(initial=0))
    widths = np.geomspace(4, most)
    for bound in (SMALL_SIDE, LARGE_SIDE):
        axis.plot(widths, bound**2 / widths, color="#777777", linewidth=1)
    sides_named = {"small": SMALL_SIDE / 2, "medium": (SMALL_SIDE * LARGE_SIDE) ** 0.5, "large": 2 * LARGE_SIDE}
    for name, side in sides_named.items():
        axis.text(side / 2, side * 2, name, ha="center", fontsize=10)
    axis.set(xscale="log", yscale="log", xlim=(4, most), ylim=(4, most), aspect="equal")
    axis.set(title="box sizes in the images", xlabel="width in pixels", ylabel="height in pixels")
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(FixedLocator(2.0 ** np.arange(2, np.log2(most) + 1)))
        one.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.grid(alpha=0.3)
