"""Find images by the names that annotation files give them, never outside their folder. No torch."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, takewhile
from pathlib import Path
from urllib.parse import unquote

from utils import UserError, join_names


class ImageFolder:
    """The images below a folder, found by the names that annotation files give them."""

    def __init__(self, root: Path, left_out: Path | None = None) -> None:
        """Args: the folder; a folder in it that is not searched."""
        self._root, self._left_out = root, left_out
        self._real_folder = lru_cache(Path.resolve)  # each link on the way is looked up once, not once per image

    def find(self, name: str, listed_bytes: int | None = None) -> tuple[Path, Path]:
        """Return the file of an image, as it is on disk, with links followed.

        Of an address, or a path that is not below the folder, the last part counts. The case of the extension does not
        matter, and subfolders are searched; of namesakes there, that of `listed_bytes` is meant. Raises UserError that
        goes on where a message has named the image: there is none, there are several, the name or a link leads out of
        the folder, or it is not UTF-8.
        """
        spellings = [parts for text in _spellings(name) for parts in _parts(text)]
        if any(".." in parts for parts in spellings):
            raise UserError(": the name leads out of the folder; accepted: a plain name, or one with folders")
        spellings = list(filter(None, spellings))
        path = next(filter(None, (self._path_of(parts, listed_bytes) for parts in spellings)), None)
        if path is None:
            near = sorted({near for parts in spellings for near in self._loosely_named.get(_loose(parts[-1]), ())})
            raise UserError(f": no such image{f' (did you mean {join_names(near, 3)}?)' if near else ''}")
        below = str(path.relative_to(self._root))
        if below.encode(errors="replace").decode() != below:
            raise UserError(": the name is not UTF-8; rename the file")
        real = path.resolve() if path.is_symlink() else self._real_folder(path.parent) / path.name
        if not real.is_relative_to(self._real_folder(self._root)):
            raise UserError(": a link that leads out of the folder; accepted: a file in it")
        return path, real

    def _path_of(self, parts: list[str], listed_bytes: int | None) -> Path | None:
        direct = self._root.joinpath(*parts)
        is_there = is_file(direct)
        if is_there and (len(parts) > 1 or not listed_bytes or direct.stat().st_size == listed_bytes):
            return direct
        paths = self._by_name.get(name_key(parts[-1]), [])
        if len(paths) > 1:  # of cam1/a.jpg and cam2/a.jpg the name photos/cam2/a.jpg means the second
            alike = [_common_tail(path.parts[:-1], parts[:-1]) for path in paths]
            paths = [path for path, count in zip(paths, alike, strict=True) if count == max(alike)]
            of_size = [path for path in paths if listed_bytes and path.stat().st_size == listed_bytes]
            paths = of_size or ([direct] if is_there else paths)
            paths = [path for path in paths if path.name == parts[-1]] or paths
        if len(paths) > 1:
            raise UserError(f": several files have this name: {join_names(map(str, paths))}; keep one of them")
        return paths[0] if paths else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        paths = defaultdict(list)
        for path in filter(is_file, files_below(self._root, self._left_out)):
            paths[name_key(path.name)].append(path)
        return paths

    @cached_property
    def _loosely_named(self) -> dict[str, set[str]]:
        names = defaultdict(set)
        for path in chain.from_iterable(self._by_name.values()):
            names[_loose(path.name)].add(path.name)
        return names


def files_below(root: Path, left_out: Path | None = None) -> Iterator[Path]:
    """Yield all files in a folder, but for those in hidden folders and in the folder to leave out."""
    skipped = left_out.resolve() if left_out else None
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() != skipped)
        yield from (here / name for name in sorted(names))


def _spellings(name: str) -> list[str]:
    """Return the names an image may be saved under: as it is or decoded, as VIA does; an address also without query."""
    if "://" not in name:
        return list(dict.fromkeys((name, unquote(name))))
    address = name.partition("://")[2]
    bare = re.split("[?#]", address, maxsplit=1)[0]
    return list(dict.fromkeys((bare, unquote(bare), address, unquote(address))))


def _parts(text: str) -> list[list[str]]:
    """Return the folders and the name in a path: as they are here, and as Windows has them, whose drive is left out."""
    own = [] if os.name == "nt" else text.split("/")
    bare = re.split(r"[/\\]", re.sub(r"^/*[A-Za-z]:", "", text))
    return [[part for part in parts if part not in ("", ".")] for parts in (own, bare)]


def is_file(path: Path) -> bool:
    """Return whether a file is there, also for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:  # a part of the name is too long
        return False


def name_key(name: str) -> str:
    """Return what two spellings of a file's name share: letters with accents may be one character or two."""
    stem, dot, extension = unicodedata.normalize("NFC", name).rpartition(".")
    return f"{stem}{dot}{extension.lower()}"


def _loose(name: str) -> str:
    """Return what names share that may be meant to be one: they differ in case, or in percent-escapes."""
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def _common_tail(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many last parts two paths have in common."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
