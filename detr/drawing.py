"""Drawing that several rooms share: colors, fonts, objects on images, names in figures. No torch."""

import contextlib
import functools
import importlib.util
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from utils import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinct for color-blind readers too (Okabe and Ito 2008), without yellow, which vanishes on white.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Fonts with East Asian letters, as Linux distributions, Windows and macOS have them.
EAST_ASIAN = (
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "wqy-microhei.ttc"),
    *("msyh.ttc", "malgun.ttf", "Arial Unicode.ttf"),
)
_FIRST_EAST_ASIAN = "\u2e80"  # of Unicode's characters


def load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Return a font for Pillow, of a size in pixels, that has the letters of the text if this machine has one."""
    return _load_font(size, EAST_ASIAN if max(text, default="") >= _FIRST_EAST_ASIAN else ())


@functools.cache
def _load_font(size: int, preferred: tuple[str, ...]) -> ImageFont.FreeTypeFont:
    for name in preferred:
        with contextlib.suppress(OSError):  # not on this machine
            return ImageFont.truetype(name, size)
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent  # importing it would take a while
    return ImageFont.truetype(str(matplotlib / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@contextlib.contextmanager
def figure_fonts() -> Iterator[None]:
    """Let matplotlib, inside it, take letters that its own font lacks from where Pillow does, and warn of none."""
    import matplotlib
    from matplotlib import font_manager

    path = load_font(10, _FIRST_EAST_ASIAN).path
    font_manager.fontManager.addfont(path)  # it may be newer than the list that matplotlib keeps
    families = ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the other font may have no "normal" weight
    try:
        with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def save_figure(figure: "Figure", path: Path) -> None:
    """Save a matplotlib figure as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def figure_text(name: str) -> str:
    """Return a name from outside with nothing in it that matplotlib takes for a formula or hides."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def short_names(names: Iterable[str], longest: int = 22) -> dict[str, str]:
    """Return for each name what a figure shows: no more than `longest` characters, or as many as tell it from others.

    What is left out is in the middle, as names often share their beginning and differ at their end.
    """
    lengths = dict.fromkeys(names, longest)
    while True:
        shown = {
            name: name if len(name) <= length else f"{name[: length - 10]}…{name[-9:]}"
            for name, length in lengths.items()
        }
        uses = Counter(shown.values())
        alike = [name for name in lengths if uses[shown[name]] > 1]
        if not alike:
            return {name: figure_text(text) for name, text in shown.items()}
        lengths |= {name: lengths[name] + 8 for name in alike}


def color_of(index: int) -> str:
    """Return a color for class number `index`."""
    return COLORS[index % len(COLORS)]


def draw_objects(image: Image.Image, objects: Sequence[dict], scale: float = 1.0) -> Image.Image:
    """Return a copy of an RGB image with objects drawn over it.

    Args:
        image: the picture.
        objects: each a dict with COCO's `bbox` (xywh), `text` (empty for none), `color`, and optionally COCO's
            `segmentation`, of which polygons are drawn, and `thin`, whether its box is thinner than them.
        scale: pixels of the picture per unit of the objects' coordinates.
    """
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    width = max(2, round(max(image.size) / 400))
    font_size = max(11, round(max(image.size) / 60))
    for entry in objects:
        left, top, box_width, box_height = entry["bbox"]
        right, bottom = left + box_width, top + box_height
        segmentation = entry.get("segmentation")  # a mask (RLE) is a dict, and not drawn
        polygons = segmentation if isinstance(segmentation, list) else []
        box = (left, top, right, top, right, bottom, left, bottom)
        box_line = max(1, width // 2) if entry.get("thin") else width
        for flat, line in ((box, box_line), *((polygon, width) for polygon in polygons)):
            points = [(x * scale, y * scale) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            closed = [*points, *points[:2]]
            draw.line(closed, "white", line + 2, joint="curve")  # a halo: visible on any image
            draw.line(closed, entry["color"], line, joint="curve")
    for entry in (entry for entry in objects if entry["text"]):  # texts last, over every line
        left, top = (value * scale for value in entry["bbox"][:2])
        font = load_font(font_size, entry["text"])
        *_, text_width, text_height = draw.textbbox((0, 0), entry["text"], font)
        box_width, box_height = text_width + 6, text_height + 4
        x = min(max(0, left), max(0, image.width - box_width))
        y = top - box_height if top >= box_height else top
        draw.rectangle((x, y, x + box_width, y + box_height), entry["color"])
        draw.text((x + 3, y + 1), entry["text"], "white", font)
    return drawn


def save_image(image: Image.Image, path: Path) -> None:
    """Save an RGB image as .png or .jpg, atomically; of a photograph, PNG is five times larger and ten times slower."""
    with atomic_path(path) as temporary:  # which has the suffix of `path`
        image.save(temporary, quality=92)
