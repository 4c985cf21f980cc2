"""VIA 2.x project (JSON): annotations, and the options of each attribute beside them. No torch."""

from collections.abc import Iterator

from detr.importers.via import annotations
from detr.importers.via.fields import as_dict
from detr.importers.via.record import AnnotatedImage

_IMAGES = "_via_img_metadata"


def recognise(content: object) -> bool:
    """Return whether content is a VIA 2.x project."""
    return isinstance(content, dict) and isinstance(content.get(_IMAGES), dict)


def read(content: dict, where: str) -> Iterator[AnnotatedImage]:
    """Read every image and region. Raises UserError naming image and region.

    An option is named by its id, as in every other file that VIA writes; an id that is only a number is replaced by
    the option's description, if all of them have one.
    """
    named = _numbered_options(content)
    for image in annotations.read(content[_IMAGES], where):
        for region in image.regions if named else ():
            for attribute in region.attributes.keys() & named.keys():
                region.attributes[attribute] = _named(region.attributes[attribute], named[attribute])
        yield image


def _numbered_options(content: dict) -> dict[str, dict[str, str]]:
    numbered = {}
    for attribute, definition in as_dict(as_dict(content.get("_via_attributes")).get("region")).items():
        options = as_dict(as_dict(definition).get("options"))
        if options and all(key.isdigit() and isinstance(text, str) and text.strip() for key, text in options.items()):
            numbered[attribute] = options
    return numbered


def _named(value: object, options: dict[str, str]) -> object:
    if isinstance(value, dict):
        return {options.get(key, key): is_checked for key, is_checked in value.items()}
    return options.get(value, value) if isinstance(value, str) else value
