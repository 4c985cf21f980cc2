"""VIA 1.x and 2.x annotations (JSON): a dict, or a list, of images, alone or in a 2.x project. No torch."""

from collections.abc import Iterator

from detr.importers.notes import OF_FILES
from detr.importers.via.fields import as_dict, file_name, file_size, make_region, name_options
from detr.importers.via.record import AnnotatedImage
from utils import UserError, join_names, printable, quote

_IMAGES = "_via_img_metadata"  # of a project


def recognise(content: object) -> bool:
    """Return whether content is a project, or some of its values have both `filename` and `regions`."""
    images = _images_of(content)
    entries = images.values() if isinstance(images, dict) else images if isinstance(images, list) else ()
    is_project = images is not content
    return is_project or any(isinstance(e, dict) and "filename" in e and "regions" in e for e in entries)


def read(content: dict | list, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region, and empty `content` on the way. Raises UserError naming image and region.

    An option is named by its id, as in every other file that VIA writes; an id that is only a number is replaced by
    the option's description, if the file is a project where all of them have one.
    """
    images, options = _images_of(content), _numbered_options(as_dict(content))
    if isinstance(images, list):
        images = dict(enumerate(images))
    for key in list(images):
        entry = images.pop(key)  # both as parsed and as read, a million regions would take twice the memory
        if not isinstance(entry, dict) or "filename" not in entry:
            raise UserError(f"{where}: the entry {printable(str(key))} has no filename")
        image = _read_image(entry, where)
        for region in image.regions if options else ():
            for attribute in region.attributes.keys() & options.keys():
                region.attributes[attribute] = name_options(region.attributes[attribute], options[attribute])
        yield image


def _images_of(content: object) -> object:
    """Return the images of a project, other content as it is."""
    images = as_dict(content).get(_IMAGES)
    return images if isinstance(images, dict) else content


def _read_image(entry: dict, where: str) -> AnnotatedImage:
    name, regions = file_name(entry["filename"], where), entry.get("regions")
    if regions is None or isinstance(regions, list):  # 1.x has a dict of regions
        regions = dict(enumerate(regions or ()))
    if not isinstance(regions, dict):
        raise UserError(f"{where}: {name} has the regions {quote(regions)}; accepted: a list, or an object")
    made = []
    for key, region in regions.items():
        place = f"{where}: {name}, region {printable(str(key))}"
        if not isinstance(region, dict):
            raise UserError(f"{place} is {quote(region)}; an object with shape_attributes is needed")
        made.append(make_region(key, region.get("shape_attributes"), region.get("region_attributes"), place))
    of_file = [f"{key} = {quote(value)}" for key, value in as_dict(entry.get("file_attributes")).items() if value]
    is_named = not made or any(region.attributes for region in made)
    remarks = () if is_named or not of_file else ((OF_FILES, f"{name}: {join_names(of_file, 3)}"),)
    return AnnotatedImage(name, made, listed_bytes=file_size(entry.get("size")), remarks=remarks)


def _numbered_options(project: dict) -> dict[str, dict[str, str]]:
    numbered = {}
    for attribute, definition in as_dict(as_dict(project.get("_via_attributes")).get("region")).items():
        options = as_dict(as_dict(definition).get("options"))
        if options and all(key.isdigit() and isinstance(text, str) and text.strip() for key, text in options.items()):
            numbered[attribute] = options
    return numbered
