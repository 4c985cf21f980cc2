"""Letters for pictures: names of classes and files come in every script. No torch.

Pillow's own font has ASCII only. matplotlib brings DejaVu Sans, with Latin, Greek, Cyrillic and Arabic letters;
Chinese, Japanese and Korean ones need a font of the machine, where it has one of those below.
"""

import contextlib
import functools
import importlib.util
import logging
import warnings
from pathlib import Path

from PIL import ImageFont

# Fonts with East Asian letters, as Linux distributions, Windows and macOS have them.
EAST_ASIAN = (
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "wqy-microhei.ttc"),
    *("msyh.ttc", "malgun.ttf", "Arial Unicode.ttf"),
)
_FIRST_EAST_ASIAN = "\u2e80"  # of Unicode's characters


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """A font of this size in pixels for Pillow, that has the letters of the text if this machine has one."""
    return _font(size, max(text, default="") >= _FIRST_EAST_ASIAN)


@functools.cache
def _font(size: int, is_east_asian: bool) -> ImageFont.FreeTypeFont:
    for name in EAST_ASIAN if is_east_asian else ():
        with contextlib.suppress(OSError):  # not on this machine
            return ImageFont.truetype(name, size)
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent  # importing it would take a while
    return ImageFont.truetype(str(matplotlib / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def set_fonts_of_matplotlib() -> None:
    """Let matplotlib take letters that its own font lacks from where Pillow does; it reports none that are missing."""
    import matplotlib
    from matplotlib import font_manager

    path = font(10, _FIRST_EAST_ASIAN).path
    font_manager.fontManager.addfont(path)  # it may be newer than the list that matplotlib keeps
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the other font may have no "normal" weight
