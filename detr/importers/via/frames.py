"""Images that EXIF turns: were their regions drawn upright, or in the frame of the stored pixels? No torch.

Browsers, and VIA in them, have shown images upright since about 2020; older ones showed the pixels as stored.
"""

from collections.abc import Sequence

from detr.data.images import SIDEWAYS, Header
from detr.importers.notes import TURNED, UNSURE
from detr.importers.via.clip import box_of
from detr.importers.via.record import AnnotatedImage, Point

_TOLERANCE = 1.02  # regions may leave the image a little in any frame


def fits(image: AnnotatedImage, width: float, height: float) -> bool:
    """Return whether all regions of an image lie in a frame, give or take a little."""
    most_x, most_y = width * _TOLERANCE, height * _TOLERANCE
    return all(
        left >= width - most_x and top >= height - most_y and right <= most_x and bottom <= most_y
        for left, top, right, bottom in (box_of(region.points_xy) for region in image.regions)
    )


def evidence(image: AnnotatedImage, header: Header) -> str | None:
    """`stored` or `upright` where regions fit that frame only; None where they tell nothing."""
    if header.orientation not in SIDEWAYS:
        return None
    height, width = header.size_hw
    if image.listed_wh:
        return None if width == height else {(height, width): "stored", (width, height): "upright"}.get(image.listed_wh)
    is_upright, is_stored = fits(image, width, height), fits(image, height, width)
    return None if is_upright == is_stored else "upright" if is_upright else "stored"


def remarks_on_turns(images: Sequence[AnnotatedImage], headers: Sequence[Header]) -> list[str]:
    """Return of each image of a file `TURNED` where its regions are to be turned upright, `UNSURE` where they may be.

    Regions that fit the stored pixels only were drawn there. Those that fit both ways round are taken to be drawn as
    the others of their file were, and upright where these differ. For all other images the text is empty.
    """
    frames = list(map(evidence, images, headers))
    some_stored = "stored" in frames
    usual = "stored" if some_stored and "upright" not in frames else "upright"
    remarks = []
    for header, frame in zip(headers, frames, strict=True):
        remark = TURNED if (frame or usual) == "stored" else UNSURE if some_stored and not frame else ""
        remarks.append(remark if header.orientation > 1 else "")
    return remarks


def turned(image: AnnotatedImage, header: Header) -> AnnotatedImage:
    """Return an image whose regions were drawn on the stored pixels, turned upright with them."""
    regions = [r._replace(points_xy=[turned_point(point, header) for point in r.points_xy]) for r in image.regions]
    return image._replace(regions=regions, listed_wh=header.size_hw[::-1] if image.listed_wh else None)


def turned_point(point: Point, header: Header) -> Point:
    """Return a point of the stored pixels in the upright frame."""
    (height, width), orientation = header
    x, y = point[::-1] if orientation in SIDEWAYS else point
    # What is left of a turn once x and y are exchanged is mirroring, as EXIF's table has it.
    return width - x if orientation in (2, 3, 6, 7) else x, height - y if orientation in (3, 4, 7, 8) else y
