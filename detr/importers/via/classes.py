"""Which attribute of a region holds its class, and which classes there are. No torch."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from detr.importers.notes import OTHER, SEVERAL, UNLABELLED
from detr.importers.via.record import AnnotatedImage, Region
from utils import UserError, is_line, join_names, pluralize, printable, quote

CHECKED = ("first", "each")
_YES, _NO = {"1", "true", "yes", "on", "x"}, {"0", "false", "no", "off"}
# An attribute with such a word in its name says which class, even where all its values are 1.
_SAYS_WHICH = {"name", "names", "label", "labels", "class", "classes", "type", "object", "category", "kind", "id"}


@dataclass(frozen=True)
class ClassFlags:
    """What the user said about the classes.

    Args:
        attribute: the one that holds the class (None: the one that there is).
        checked: what several checked boxes mean (`first`, `each`, None: an error).
        categories: the classes in order (empty: all).
        skip_unlabelled: leave out regions without a class.
        one_class: the class of every region, whatever its attributes say.
        unlabelled: the class of regions without one.
    """

    attribute: str | None = None
    checked: str | None = None
    categories: tuple[str, ...] = ()
    skip_unlabelled: bool = False
    one_class: str | None = None
    unlabelled: str | None = None


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, and how a region tells its own."""

    ids: dict[str, int]  # name -> category id, from 1
    attribute: str | None  # None: every region is of the one class
    is_by_name: bool  # the attribute that is set is the class
    first_only: bool
    unlabelled: str | None = None  # the class of regions without one

    def of(self, region: Region) -> tuple[list[str], list[str]]:
        """Return the classes of the objects that a region makes, and what there is to remark about it."""
        if not self.attribute and not self.is_by_name:
            return list(self.ids), []
        values = _values(region, self.attribute, self.is_by_name) or list(filter(None, [self.unlabelled]))
        remarks = [UNLABELLED] if not values else [SEVERAL] if len(values) > 1 else []
        values = values[:1] if self.first_only else values
        remarks += [OTHER.format(printable(value)) for value in values if value not in self.ids]
        return [value for value in values if value in self.ids], remarks


def find_classes(images: Iterable[AnnotatedImage], flags: ClassFlags, implicit: str) -> Classes:
    """Return the classes of all images together; `implicit` where regions carry no attribute.

    Raises UserError with what to add where the class of a region cannot be told.
    """
    if flags.one_class:
        return Classes({flags.one_class: 1}, None, False, False)
    images = list(images)
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, None]] = defaultdict(dict)
    for _, region in _shapes(images):
        for name, value in region.attributes.items():
            texts = _texts(value)
            counts[name] += bool(texts)
            if len(examples[name]) < 5:
                examples[name].update(dict.fromkeys(texts))
    attribute, is_by_name = _choose(counts, examples, flags)
    if not attribute and not is_by_name:
        if len(flags.categories) > 1:
            raise UserError("--categories names several classes, and no region has an attribute that tells which it is")
        return Classes({(flags.categories or (implicit,))[0]: 1}, None, False, False)
    counts_of_names = _count(images, attribute, is_by_name, flags)
    unknown = [name for name in flags.categories if name not in counts_of_names]
    if unknown:
        raise UserError(
            f"--categories names {join_names(unknown)}, of which there is no region; there are "
            + join_names((f"{name} ({count})" for name, count in counts_of_names.most_common()), 20)
        )
    ids = {name: number for number, name in enumerate(flags.categories or sorted(counts_of_names), start=1)}
    return Classes(ids, attribute, is_by_name, flags.checked == "first", flags.unlabelled)


def _shapes(images: list[AnnotatedImage]) -> Iterator[tuple[AnnotatedImage, Region]]:
    for image in images:
        for region in image.regions:
            if len(region.points_xy) > 1:  # a point makes no object, whatever its class
                yield image, region


def _choose(counts: Counter[str], examples: dict[str, dict[str, None]], flags: ClassFlags) -> tuple[str | None, bool]:
    """Return the attribute that holds the class, or None, and whether its name does."""
    used = [name for name, count in counts.items() if count]
    table = join_names(f"{printable(name)} ({count})" for name, count in counts.most_common())
    if flags.attribute is not None:
        if flags.attribute not in counts:
            raise UserError(f"--attribute {flags.attribute}: no region has it; there are {table or 'none'}")
        return flags.attribute, False
    if not used:
        if counts and not len(flags.categories) == 1:
            raise UserError(
                f"the attributes of all regions are empty: {table}; if all are of one class, --one_class NAME names it"
            )
        return None, False
    is_flag = all({text.lower() for text in examples[name]} <= _YES | _NO | {name.lower()} for name in used)
    if is_flag and not any(_SAYS_WHICH.intersection(re.split("[^a-z]+", name.lower())) for name in used):
        return None, True
    if len(used) == 1:
        return used[0], False
    samples = "; ".join(
        f"{printable(name)} = {join_names(examples[name], 3)}" for name in sorted(used, key=counts.get)[::-1][:4]
    )
    raise UserError(
        f"the class may be in any of the attributes {table}, such as {samples}; add --attribute with the name of one, "
        "or --one_class NAME if every region is of one class"
    )


def _count(images: list[AnnotatedImage], attribute: str | None, is_by_name: bool, flags: ClassFlags) -> Counter[str]:
    """Return how many regions each class has. Raises UserError for regions with no class or with several."""
    counts_of_names: Counter[str] = Counter()
    empty, several = [], []
    for image, region in _shapes(images):
        values = _values(region, attribute, is_by_name) or list(filter(None, [flags.unlabelled]))
        counts_of_names.update(values[:1] if flags.checked == "first" else values)
        if not values:
            empty.append((image.file_name, region.key))
        elif len(values) > 1:
            several.append((image.file_name, region.key))
    what = f"for {printable(attribute)}" if attribute else "in any attribute"
    if empty and not flags.skip_unlabelled:
        places = "; ".join(f"{printable(name)}, region {key}" for name, key in empty[:3])
        raise UserError(
            f"{pluralize(len(empty), 'region')} without a value {what} (such as {places}); "
            "fill it in, --one_class NAME makes every region one class, --unlabelled NAME names theirs, or "
            "--skip_unlabelled leaves them out"
        )
    if several and not flags.checked:
        places = "; ".join(f"{printable(name)}, region {key}" for name, key in several[:3])
        raise UserError(
            f"{pluralize(len(several), 'region')} with several values {what} (such as {places}); "
            "--checked first takes the first of them, --checked each makes an object of each"
        )
    if not counts_of_names:
        raise UserError(f"no region has a value {what}: nothing is left to learn from")
    for name in counts_of_names:
        if not is_line(name) or len(name) > 200:
            raise UserError(f"the class {quote(name)} {what} is not a short line of text")
    return counts_of_names


def _values(region: Region, attribute: str | None, is_by_name: bool) -> list[str]:
    if not is_by_name:
        return _texts(region.attributes.get(attribute))
    return [name for name, value in region.attributes.items() if any(t.lower() not in _NO for t in _texts(value))]


def _texts(value: object) -> list[str]:
    """Return what was filled in: a text, a number, the checked boxes of several; nothing where it was left empty."""
    if value is None:
        return []
    if isinstance(value, dict):  # {"cat": true, "dog": false}
        return [
            _clean(name)
            for name, checked in value.items()
            if name.strip() and checked not in (False, None, "", "false")
        ]
    if isinstance(value, list):
        return [text for item in value for text in ([] if isinstance(item, list | dict) else _texts(item))]
    text = _clean(value if isinstance(value, str) else str(value))
    return [text] if text and text != "undefined" else []


def _clean(text: str) -> str:
    return " ".join(text.split())
