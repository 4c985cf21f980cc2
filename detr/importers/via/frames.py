"""Images that EXIF turns: were their regions drawn upright, or in the frame of the stored pixels? No torch.

Browsers, and VIA in them, have shown images upright since about 2020; older ones showed the pixels as stored.
"""

from collections.abc import Collection

from detr.data.images import SIDEWAYS, Header
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


def usual_frame(frames: Collection[str | None]) -> str:
    """Return the frame to take for images that fit both: that of the others of their file, upright where these differ.

    `frames` are what `evidence` says of all of them.
    """
    return "stored" if "stored" in frames and "upright" not in frames else "upright"


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
