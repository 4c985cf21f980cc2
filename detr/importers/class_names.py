"""Class names that may be one name written in two ways: a slip that costs a class of its own."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

_FEW_OBJECTS, _TIMES_MORE = 10, 10  # a slip is rare, the name that was meant is common
_MOST_COMPARED = 1000  # rare names, so that an attribute of numbered regions taken for the class does not take minutes
_ALIKE = 0.83  # of difflib's ratio: a letter too few, too many or another, two exchanged, in a name of six


def similar_classes(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return pairs of names, the one with fewer objects first; `counts` are the objects of each class.

    Names are alike that differ in case, accents, spaces and punctuation only, and a name of few objects that is all but
    spelt like one of many. Digits are no slip: there is a `pose 1` and a `pose 2`.
    """
    written = defaultdict(list)
    for name in sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name]):
        written[_bare(name)].append(name)
    pairs = [(other, first) for first, *others in written.values() for other in others]
    common = defaultdict(list)  # digits -> names without their decoration
    for bare, (name, *_) in written.items():
        if counts[name] >= _TIMES_MORE:
            common[_digits(bare)].append(bare)
    rare = [bare for bare, (name, *_) in written.items() if counts[name] < _FEW_OBJECTS]
    for bare in rare[:_MOST_COMPARED]:
        name = written[bare][0]
        meant = [other for other in common[_digits(bare)] if counts[written[other][0]] >= _TIMES_MORE * counts[name]]
        pairs += [(name, written[close][0]) for close in difflib.get_close_matches(bare, meant, n=1, cutoff=_ALIKE)]
    return pairs


def _bare(name: str) -> str:
    """Without case, accents, spaces and punctuation; a name of nothing else stays as it is."""
    letters = (c for c in unicodedata.normalize("NFKD", name).casefold() if c.isalnum())
    return "".join(letters) or name


def _digits(name: str) -> str:
    return "".join(c for c in name if c.isdigit())
