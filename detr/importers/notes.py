"""What an import clips, drops or skips, counted for its report. No torch."""

from collections.abc import Iterable

POINT = "points, which have no box, skipped"
CLIPPED = "regions clipped to the image"
OUTSIDE = "regions outside the image dropped"
ZERO = "regions without width or height dropped"
LINE = "polygons without area replaced by their box"
UNLABELLED = "regions without a class left out (--skip_unlabelled)"
OTHER = "regions of class {} left out (--categories)"
SEVERAL = "regions with several checked boxes taken by --checked"
BAD = "unusable images left out (--skip_bad_images)"
TURNED = "EXIF-rotated images annotated as stored, regions turned upright"
MERGED = "images listed several times, with the regions of all entries"
UNNAMED = "objects of class {}, named after the folder as no region has a class (--one_class NAME names it otherwise)"
PARTIAL = "images left out, as some of their regions make no object and would be learnt as background (--keep_partial)"
PARTIAL_KEPT = "images kept (--keep_partial) though some of their regions make no object and are learnt as background"
UNLISTED = "images beside them that no annotation lists, not used (--background DIR if they show no object)"
OF_FILES = "images with values in file_attributes, which are not read, and no attribute of any region"
VIDEOS = "videos and sounds left out, as only images are read"
ONE_SPLIT = "annotations for one split only, divided into train and val (--val_fraction)"
UNSURE = "EXIF-rotated images annotated as stored or as shown, taken as shown: look at them"

# What makes an image partial: an object may be there of which no box is known.
MAKES_NO_OBJECT = {POINT, OUTSIDE, ZERO, UNLABELLED}
TO_LOOK_AT = (PARTIAL, PARTIAL_KEPT, UNLISTED, UNSURE)
EXAMPLES = 5  # of each in the report


class Notes(dict[str, list[str]]):
    """What was clipped, dropped or skipped in one split: a few words on what -> where (image, or image and region)."""

    def add(self, remarks: Iterable[tuple[str, str]]) -> None:
        """Add remarks, each a category and where it was."""
        for category, where in remarks:
            self.setdefault(category, []).append(where)

    def lines(self) -> list[str]:
        """Return a line per category, most frequent first."""
        return [
            f"{category}: {len(places)} ({'; '.join(places[:EXAMPLES])}{'; ...' if len(places) > EXAMPLES else ''})"
            for category, places in sorted(self.items(), key=lambda item: -len(item[1]))
        ]
