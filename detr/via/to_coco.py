"""Neutral records -> a checked COCO dict. No torch.

Ids start at 1: COCO's evaluation takes annotation id 0 for "no match".
"""

from collections import Counter
from pathlib import Path

from detr.errors import UserError
from detr.images import read_size_hw
from detr.via.record import AnnotatedImage, Region


def class_names(splits: list[list[AnnotatedImage]], implicit: str) -> list[str]:
    """The classes of all splits together, sorted; `implicit` alone where no region has any attribute.

    Raises UserError when the class cannot be told: several attributes, or regions without a value.
    """
    regions = [region for split in splits for image in split for region in image.regions]
    attributes = Counter(name for region in regions for name in region.attributes)
    if not attributes:
        return [implicit]
    if len(attributes) > 1:
        counts = ", ".join(f"{name} ({count})" for name, count in attributes.most_common())
        raise UserError(f"the class is ambiguous: regions have the attributes {counts}; one is needed")
    values = {class_of(region, implicit) for region in regions}
    return sorted(values)


def class_of(region: Region, implicit: str) -> str:
    """The class of one region: the value of its attribute, or `implicit` where it has none."""
    if not region.attributes:
        return implicit
    ((name, value),) = region.attributes.items()
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"a region has {name} = {value!r}; a class name is needed")
    return value.strip()


def to_coco(images: list[AnnotatedImage], folder: Path, classes: list[str], implicit: str) -> dict:
    """Build the COCO dict of one split, with image sizes read from the files in `folder`.

    Polygons and boxes are exactly as drawn; `area` is the polygon's own.
    Raises UserError for missing or unreadable images and images listed twice.
    """
    repeated = [name for name, count in Counter(image.file_name for image in images).items() if count > 1]
    if repeated:
        raise UserError(f"{folder}: {repeated[0]} is annotated twice")
    category_id = {name: number for number, name in enumerate(classes, start=1)}
    coco: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in category_id.items()],
    }
    for image_id, image in enumerate(images, start=1):
        if Path(image.file_name).name != image.file_name:
            raise UserError(
                f"{folder}: the image name {image.file_name!r} leads out of the folder; a plain name is needed"
            )
        height, width = read_size_hw(folder / image.file_name)
        coco["images"].append({"id": image_id, "file_name": image.file_name, "width": width, "height": height})
        for region in image.regions:
            number = len(coco["annotations"]) + 1
            coco["annotations"].append(_annotation(number, image_id, category_id[class_of(region, implicit)], region))
    return coco


def _annotation(number: int, image_id: int, category_id: int, region: Region) -> dict:
    xs, ys = [x for x, _ in region.points_xy], [y for _, y in region.points_xy]
    left, top = min(xs), min(ys)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, max(xs) - left, max(ys) - top],  # xywh
        "area": polygon_area(region.points_xy),
        "segmentation": [[value for point in region.points_xy for value in point]],
        "iscrowd": 0,
    }


def polygon_area(points_xy: list[tuple[float, float]]) -> float:
    """Area of a simple polygon in square pixels, by the shoelace formula, whichever way round it was drawn."""
    after = points_xy[1:] + points_xy[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points_xy, after, strict=True))) / 2
