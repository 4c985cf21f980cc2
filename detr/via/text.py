"""Parse what annotation files say, and show it on one line whatever it is. No torch."""

import json
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable

from detr.errors import UserError

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: object) -> str:
    """Any value as a message may show it: on one line, printable, cut short."""
    return _short.repr(value)


def plain(text: str) -> str:
    """A name as a message may show it: as it is where it is short and printable."""
    return text if text.isprintable() and len(text) <= 100 else shown(text)


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Names after each other, and how many more there are than `limit`."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(plain, names[:limit])) + more


def is_line(text: str) -> bool:
    """Whether a text is one line that can be printed; joiners of letters and odd spaces belong to some languages."""
    return bool(text.strip()) and not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def counted(count: int, what: str) -> str:
    """A number of things: 1 region, 2 regions."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def parse_json(text: str, where: str) -> object:
    """JSON as Python values. Raises UserError that begins with `where`, also for what would exhaust the parser."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else "a number has thousands of digits"
        raise UserError(f"{where}: not JSON that can be read ({what})") from error


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):  # files joined by hand; the parser alone would keep the last without a word
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key {shown(repeated)} is there twice; each may be there once")
    return found
