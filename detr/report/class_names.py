"""Class names that may be one name written in two ways: a slip that costs a class of its own."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

_FEW_OBJECTS, _TIMES_MORE = 10, 10  # a slip is rare, the name that was meant is common
_ALIKE = 0.83  # of difflib's ratio: a letter too few, too many or another, two exchanged, in a name of six


def similar_classes(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of names, the one with fewer objects first; `counts` are the objects of each class.

    Names are alike that differ in case, accents, spaces and punctuation only, and a name of few objects that is all but
    spelt like one of many. Digits are no slip: there is a `pose 1` and a `pose 2`.
    """
    written = defaultdict(list)
    for name in sorted((name for name, count in counts.items() if count), key=lambda name: -counts[name]):
        written[_bare(name)].append(name)
    pairs = [(other, first) for first, *others in written.values() for other in others]
    common = {bare: names[0] for bare, names in written.items() if counts[names[0]] >= _TIMES_MORE}
    for bare, (name, *_) in written.items():
        if counts[name] < _FEW_OBJECTS:
            meant = [
                candidate
                for candidate, other in common.items()
                if counts[other] >= _TIMES_MORE * counts[name] and _digits(candidate) == _digits(bare)
            ]
            pairs += [(name, common[close]) for close in difflib.get_close_matches(bare, meant, n=1, cutoff=_ALIKE)]
    return pairs


def _bare(name: str) -> str:
    """Without case, accents, spaces and punctuation; a name of nothing else stays as it is."""
    letters = (c for c in unicodedata.normalize("NFKD", name).casefold() if c.isalnum())
    return "".join(letters) or name


def _digits(name: str) -> str:
    return "".join(c for c in name if c.isdigit())
