"""Which attribute of a region holds its class, and which classes there are. No torch."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from detr.importers.notes import OTHER, SEVERAL, UNLABELLED, UNNAMED
from detr.importers.questions import Question, Undecided
from detr.importers.via.record import DETECTED, DETECTED_CLASS, AnnotatedImage, Region
from utils import UserError, is_line, join_names, pluralize, printable, quote

Shape = tuple[AnnotatedImage, Region]  # a region of an image that is no point
CHECKED = ("first", "each")
_YES, _NO = {"1", "true", "yes", "on", "x"}, {"0", "false", "no", "off"}
# An attribute with such a word in its name says which class, even where all its values are 1.
_SAYS_WHICH = {"name", "names", "label", "labels", "class", "classes", "type", "object", "category", "kind", "id"}


@dataclass(frozen=True)
class ClassFlags:
    """What the user said about the classes."""

    attribute: str | None = None  # the one that holds the class; None: the one that there is
    checked: str | None = None  # what several checked boxes mean: one of `CHECKED`; None: an error
    categories: tuple[str, ...] = ()  # the classes in order; empty: all
    skip_unlabelled: bool = False  # leave out regions without a class
    one_class: str | None = None  # the class of every region, whatever its attributes say
    unlabelled: str | None = None  # the class of regions without one


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset, and how a region tells its own."""

    ids: dict[str, int]  # name -> category id, from 1
    attribute: str | None = None  # None: every region is of the one class
    is_by_name: bool = False  # the attribute that is set is the class
    flags: ClassFlags = ClassFlags()
    remark: str | None = None  # about every region, category of detr.importers.notes

    def of(self, region: Region) -> tuple[list[str], list[str]]:
        """Return the classes of the objects that a region makes, and what there is to remark about it."""
        if not self.attribute and not self.is_by_name:
            return list(self.ids), [self.remark] if self.remark else []
        values = _values(region, self.attribute, self.is_by_name, self.flags.unlabelled)
        remarks = [UNLABELLED] if not values else [SEVERAL] if len(values) > 1 else []
        values = values[:1] if self.flags.checked == "first" else values
        if self.flags.categories:  # otherwise only points have others
            remarks += [OTHER.format(printable(value)) for value in values if value not in self.ids]
        return [value for value in values if value in self.ids], remarks


def find_classes(images: Iterable[AnnotatedImage], flags: ClassFlags, implicit: str) -> tuple[Classes, list[Question]]:
    """Return the classes of all images together, `implicit` where regions carry no attribute, and what is in doubt.

    Where something is, the classes are those that the flags of the questions make. Raises UserError for flags that do
    not fit the regions, and where no region has a class.
    """
    if flags.one_class:
        return _one_class(flags.one_class), []
    # A point makes no object, whatever its class.
    shapes = [(image, region) for image in images for region in image.regions if len(region.points_xy) > 1]
    counts, examples = _attributes(shapes)
    attribute, is_by_name, questions = _choose(counts, examples, flags, implicit)
    detected = {text for _, region in shapes for text in _texts(region.attributes.get(DETECTED_CLASS))}
    if detected and not attribute and not is_by_name:
        attribute, questions = DETECTED_CLASS, []
        others = flags.categories[0] if len(flags.categories) == 1 else implicit
        if others in detected and not flags.unlabelled:  # regions without attributes, as the detector learnt them
            flags = replace(flags, unlabelled=others)
    if not attribute and not is_by_name:
        if len(flags.categories) > 1:
            raise UserError("--categories names several classes, and no region has an attribute that tells which it is")
        given = flags.categories[0] if flags.categories else flags.unlabelled
        return _one_class(given or implicit, None if given else UNNAMED.format(printable(implicit))), questions
    counts_of_names, more = _count(shapes, attribute, is_by_name, flags, implicit)
    if any("--one_class" in question.flags for question in more):
        return _one_class(implicit), more  # an answer to whatever else was in doubt
    questions += more
    unknown = [name for name in flags.categories if name not in counts_of_names]
    if unknown:
        there_are = join_names((f"{name} ({count})" for name, count in counts_of_names.most_common()), 20)
        text = f"--categories names {join_names(unknown)}, of which there is no region; there are {there_are}"
        raise Undecided([*questions, Question(text)])
    ids = {name: number for number, name in enumerate(flags.categories or sorted(counts_of_names), start=1)}
    if any("--checked" in question.flags for question in more):
        flags = replace(flags, checked="first")
    return Classes(ids, attribute, is_by_name, flags), questions


def _one_class(name: str, remark: str | None = None) -> Classes:
    return Classes({name: 1}, remark=remark)


def _attributes(shapes: list[Shape]) -> tuple[Counter[str], dict[str, dict[str, None]]]:
    """Return in how many regions each attribute is filled in, and a few of its values."""
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, None]] = defaultdict(dict)
    for _, region in shapes:
        for name, value in _own(region).items():
            texts = _texts(value)
            counts[name] += bool(texts)
            if len(examples[name]) < 5:
                examples[name].update(dict.fromkeys(texts))
    return counts, examples


def _choose(
    counts: Counter[str], examples: dict[str, dict[str, None]], flags: ClassFlags, implicit: str
) -> tuple[str | None, bool, list[Question]]:
    """Return the attribute that holds the class, or None, whether its name does, and what is in doubt about that."""
    used = [name for name, count in counts.items() if count]
    table = join_names(f"{printable(name)} ({count})" for name, count in counts.most_common())
    if flags.attribute is not None:
        if flags.attribute not in {*counts, DETECTED_CLASS}:
            raise UserError(f"--attribute {flags.attribute}: no region has it; there are {table or 'none'}")
        return flags.attribute, False, []
    if not used:
        if not counts or len(flags.categories) == 1 or flags.unlabelled:
            return None, False, []
        text = f"the attributes of all regions are empty: {table}; if all are of one class, --one_class NAME names it"
        return None, False, [Question(text, ("--one_class", implicit) if flags == ClassFlags() else ())]
    is_flag = all({text.lower() for text in examples[name]} <= _YES | _NO | {name.lower()} for name in used)
    if is_flag and not any(map(_says_which, used)):
        (name, *others), values = used, examples[used[0]]
        if not values.keys().isdisjoint(flags.categories):
            return name, False, []
        is_answered = flags.skip_unlabelled or flags.unlabelled or name in flags.categories
        if others or is_answered or _NO.isdisjoint(map(str.lower, values)):
            return None, True, []
        text = (
            f"the attribute {printable(name)} has the values {join_names(values)}: --attribute {printable(name)} makes "
            f"each a class; if they mean yes and no, --skip_unlabelled makes each yes a {printable(name)}, and leaves "
            "out each no"
        )
        return name, False, [Question(text, ("--attribute", name))]
    if len(used) == 1:
        return used[0], False, []
    most_used = sorted(used, key=counts.get)[::-1][:4]
    samples = "; ".join(f"{printable(name)} = {join_names(examples[name], 3)}" for name in most_used)
    text = (
        f"the class may be in any of the attributes {table}, such as {samples}; add --attribute with the name of one, "
        "or --one_class NAME if every region is of one class"
    )

    def evidence(name: str) -> tuple[bool, bool, bool]:
        """Return what speaks for an attribute; of equal ones the first that was defined is the best."""
        is_common = 2 * counts[name] >= max(counts.values())
        return not examples[name].keys().isdisjoint(flags.categories), _says_which(name), is_common

    best = max(used, key=evidence)
    return best, False, [Question(text, ("--attribute", best))]


def _says_which(attribute: str) -> bool:
    return not _SAYS_WHICH.isdisjoint(re.split("[^a-z]+", attribute.lower()))


def _count(
    shapes: list[Shape], attribute: str | None, is_by_name: bool, flags: ClassFlags, implicit: str
) -> tuple[Counter[str], list[Question]]:
    """Return how many regions each class has, and what is in doubt about regions with no class or with several."""
    counts, first_counts = Counter(), Counter()
    empty, several = [], []
    for image, region in shapes:
        values = _values(region, attribute, is_by_name, flags.unlabelled)
        counts.update(values)
        first_counts.update(values[:1])
        if len(values) != 1:
            (several if values else empty).append((image.file_name, region.key))
    what = f"for {printable(attribute)}" if attribute else "in any attribute"
    if not counts:
        raise UserError(
            f"no region has a value {what}: nothing is left to learn from; if all are of one class, --one_class NAME "
            "names it"
        )
    for name in counts:
        if not is_line(name) or len(name) > 200:
            raise UserError(f"the class {quote(name)} {what} is not a short line of text")
    questions = []
    if empty and not flags.skip_unlabelled:
        text = (
            f"{pluralize(len(empty), 'region')} without a value {what} {_such_as(empty)}; fill it in, --one_class NAME "
            "makes every region one class, --unlabelled NAME names theirs, or --skip_unlabelled leaves them out"
        )
        is_stray = len(empty) > first_counts.total() and flags == ClassFlags()
        questions.append(Question(text, ("--one_class", implicit) if is_stray else ("--skip_unlabelled",)))
    if several and not flags.checked:
        text = (
            f"{pluralize(len(several), 'region')} with several values {what} {_such_as(several)}; "
            "--checked first takes the first of them, --checked each makes an object of each"
        )
        questions.append(Question(text, ("--checked", "first")))
    is_first = flags.checked == "first" or (several and not flags.checked)
    return first_counts if is_first else counts, questions


def _such_as(places: list[tuple[str, str]]) -> str:
    return f"(such as {'; '.join(f'{printable(name)}, region {key}' for name, key in places[:3])})"


def _values(region: Region, attribute: str | None, is_by_name: bool, unlabelled: str | None) -> list[str]:
    """Return the classes of a region: by the attribute, by those that are set, by results.py, or `unlabelled`."""
    own = _own(region)
    if is_by_name:
        values = [name for name, value in own.items() if any(text.lower() not in _NO for text in _texts(value))]
    else:
        values = _texts(own.get(attribute))
    return values or _texts(region.attributes.get(DETECTED_CLASS)) or ([unlabelled] if unlabelled else [])


def _own(region: Region) -> dict[str, object]:
    """Return the attributes that somebody has filled in, without those that results.py wrote."""
    return {name: value for name, value in region.attributes.items() if name not in DETECTED}


def _texts(value: object) -> list[str]:
    """Return what was filled in: a text, a number, the checked boxes of several; nothing where it was left empty."""
    if value is None:
        return []
    if isinstance(value, dict):  # {"cat": true, "dog": false}
        checked = [name for name, mark in value.items() if mark not in (False, None, "", "false")]
        return [_clean(name) for name in checked if name.strip()]
    if isinstance(value, list):
        return [text for item in value for text in ([] if isinstance(item, list | dict) else _texts(item))]
    text = _clean(str(value))
    return [text] if text and text != "undefined" else []


def _clean(text: str) -> str:
    return " ".join(text.split())
