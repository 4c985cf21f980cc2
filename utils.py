"""The floor that everything stands on: errors, files, text, downloads and progress, of no domain.

Imports nothing of ours, and neither torch nor matplotlib.
"""

import argparse
import contextlib
import difflib
import hashlib
import http.client
import importlib.util
import json
import os
import reprlib
import shlex
import signal
import subprocess
import sys
import time
import unicodedata
import urllib.error
import urllib.request
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

T, R = TypeVar("T"), TypeVar("R")
_CHUNK_BYTES = 1 << 20


# --------------------------------------------------------------------------------------------------------------- errors


class UserError(ValueError):
    """One clear sentence for the user: which file, image or flag; what was found; what is accepted.

    The scripts print it without a traceback and exit with code 2 (`utils.run_script`).
    """


# ---------------------------------------------------------------------------------------------------- running a script


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`: mistakes of the user and of the machine end in one sentence and exit code 2."""
    # Pillow warns of large images, which phones take, and of every odd tag. What matters ends in an error anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a notebook or a test puts in its place
            stream.reconfigure(errors="replace")  # a console may have no letters for a class name
    try:
        main()
    except UserError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(_fail(f"{where}{error.strerror or error}"))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)


class ArgumentParser(argparse.ArgumentParser):
    """One whose mistakes end in a sentence, as all others do, instead of a list of all flags."""

    def __init__(self, prog: str | None = None, description: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Name the flag that a misspelt one was meant to be; exit code 2."""
        flags = self._option_string_actions
        misspelt = [word for word in message.split() if word.startswith("--") and word.rstrip(":") not in flags]
        close = [flag for word in misspelt for flag in difflib.get_close_matches(word.partition("=")[0], flags, 1)]
        sys.exit(_fail(message + (f"; did you mean {join_names(close)}?" if close else "")))


def command_line(words: Sequence[str]) -> str:
    """Return a command to be copied, quoted as the shell of this system understands it."""
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)(words)


def check_packages(what: str, names: Sequence[str]) -> None:
    """Raise UserError naming those packages that `what` needs and that are not installed."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"{what} needs what is not installed: pip install {' '.join(missing)}")


def _fail(message: str) -> int:
    rank = os.environ.get("RANK", "0")  # under torchrun
    print(f"error: {message}" if rank == "0" else f"error in process {rank}: {message}", file=sys.stderr)
    return 2


class Stopped(Exception):
    """The user or the system asked the script to stop.

    Args: how to resume, in a sentence; the signal; and whether it happened in the middle of something.
    """

    def __init__(self, message: str, signal_number: int, is_abrupt: bool = False) -> None:
        super().__init__(message)
        self.signal, self.is_abrupt = signal_number, is_abrupt


class StopRequest(contextlib.AbstractContextManager):
    """Inside it, Ctrl-C and SIGTERM only set `requested`, for `check` to raise Stopped where stopping is safe.

    A second Ctrl-C stops at once. A wait that takes longer than `PATIENCE_S` from the request on, or that ends in an
    error then, raises Stopped too (`while_waiting`).
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    PATIENCE_S = 20.0

    def __init__(self) -> None:
        self.signal: int = 0
        self._previous: dict[int, object] = {}
        self._is_waiting = False

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self.signal)

    def check(self, requested: bool) -> None:
        """Raise Stopped where a stop was requested, here or in another process."""
        if requested:
            raise Stopped("", self.signal or signal.SIGTERM)

    @contextlib.contextmanager
    def while_waiting(self) -> Iterator[None]:
        """Wrap what may wait for ever, such as for images from a drive that does not answer."""
        self._is_waiting = True
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:
            if not self.requested:
                raise
            # Some schedulers stop the processes that load images too.
            raise Stopped(f"stopped ({error!r})", self.signal, is_abrupt=True) from error
        finally:
            self._is_waiting = False

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        if hasattr(signal, "SIGALRM"):  # not on Windows
            self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._end_wait)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: object) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signal and hasattr(signal, "SIGALRM"):
            # PyTorch's handler would raise wherever the main process is when a worker ends, which is no error any more.
            # A function, as Python complains of a signal that came before it was told to ignore it.
            self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, self.PATIENCE_S, 1.0)
        self.signal = self.signal or number
        os.write(2, b"\nstopping after this step; Ctrl-C now stops at once\n")  # print is not safe in here

    def _end_wait(self, number: int, frame: object) -> None:
        if self._is_waiting:
            raise Stopped(
                f"stopped: no images came in {self.PATIENCE_S:.0f} s. The last checkpoint is whole: run the same "
                "command with --resume auto",
                self.signal,
                is_abrupt=True,
            )


# -------------------------------------------------------------------------------------------------------- atomic files


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` once whole, and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    short = f"{hash(path.name) % 2**32:08x}"  # `path` may be as long as a name can be
    temporary = path.with_name(f".{short}.{os.getpid()}.part{path.suffix[:16]}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a power cut can leave the new name on empty blocks
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths, however they are spelled, lead to one file that exists."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def clear_unfinished(folder: Path) -> None:
    """Delete what `atomic_path` left half-written in a process that was killed."""
    for path in folder.glob(".*.part*"):
        path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, indent: int | None = None) -> bool:
    """Write a value as JSON, atomically; a file that says the same already is left alone. Returns whether it wrote."""
    return write_changed(path, json_bytes(value, indent))


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """Return what `write_json` writes."""
    return json.dumps(value, indent=indent).encode()


def write_changed(path: Path, content: bytes) -> bool:
    """Write a file, atomically; one that has this content already is left alone. Returns whether it wrote."""
    if path.exists() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


# -------------------------------------------------------------------------------------------------------- text and JSON


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def quote(value: object) -> str:
    """Return any value as a message may show it: on one line, printable, cut short."""
    return _short.repr(value)


def printable(text: str) -> str:
    """Return a name as a message may show it: as it is where it is short and printable."""
    return text if text.isprintable() and len(text) <= 100 else quote(text)


def join_names(names: Iterable[str], limit: int = 10) -> str:
    """Return names after each other, and how many more there are than `limit`."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more


def is_number(value: object, largest: float) -> bool:
    """Return whether a value from a file is a finite number of at most this size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def is_line(text: str) -> bool:
    """Whether a text is one line that can be printed; joiners of letters and odd spaces belong to some languages."""
    return bool(text.strip()) and not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def pluralize(count: int, what: str) -> str:
    """Return a number of things: 1 region, 2 regions."""
    return f"{count:,} {what}{'' if count == 1 else 'es' if what.endswith('s') else 's'}"


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
        raise UserError(f"the key {quote(repeated)} is there twice; each may be there once")
    return found


def read_json(path: Path) -> dict | list | None:
    """Read a JSON file; None where there is no such file. Raises UserError when it is not JSON."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


# ------------------------------------------------------------------------------------------------------------ progress


class Progress(contextlib.AbstractContextManager):
    """How far a long task is: a bar on a terminal; elsewhere a plain line a minute, so that logs stay short.

    Args: total steps (None where unknown), what is being done, the unit (`B` counts bytes), how many are done already,
    and whether to show it at all.
    """

    LINE_EVERY_S = 60.0
    TEXT_EVERY_S = 0.5

    def __init__(
        self, total: int | None, description: str, unit: str = "it", done: int = 0, shown: bool = True
    ) -> None:
        self._is_terminal, self._shown = sys.stderr.isatty(), shown
        options = {"desc": description, "unit": unit, "unit_scale": unit == "B", "leave": False}
        has_size = False  # a notebook's `!` and what stands in for a terminal do not say: tqdm would draw nothing
        with contextlib.suppress(OSError, ValueError):
            has_size = all(os.get_terminal_size(sys.stderr.fileno()))
        options |= {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 20}
        self._bar = tqdm(total=total, initial=done, disable=not (self._is_terminal and shown), **options)
        self._total, self._description, self._done = total, description, done
        self._last_text = time.monotonic()

    def update(self, steps: int = 1, text: Callable[[], str] = str) -> None:
        """Count steps done; `text()` is shown behind, and is only called when something is about to be shown."""
        self._done += steps
        now = time.monotonic()
        if now - self._last_text >= (self.TEXT_EVERY_S if self._is_terminal else self.LINE_EVERY_S):
            self._last_text = now
            if self._is_terminal:
                self._bar.set_postfix_str(text(), refresh=False)
            elif self._shown:
                line = f"{self._description}: {self._done} of {self._total or '?'} {text()}"
                print(line, file=sys.stderr, flush=True)
        self._bar.update(steps)

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()


def map_in_thread(function: Callable[[T], R], items: Iterable[T], depth: int = 1) -> Iterator[R]:
    """Yield `function` of every item in order; a thread computes it for the next `depth` items meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


# ----------------------------------------------------------------------------------------------------------- downloads


def download(url: str, path: Path, sha256_prefix: str = "", otherwise: str = "", timeout_s: float = 30) -> bool:
    """Fetch `url` to `path` unless it is there, and return whether it was not; only a whole file gets that name.

    Args:
        sha256_prefix: first hex digits that its SHA-256 has to have; empty where none are known.
        otherwise: what does without this file, for the message to somebody who cannot fetch it.
        timeout_s: how long the server may be silent; a slow connection may take as long as it needs.

    Raises UserError with the address and what to do by hand.
    """
    if path.exists():
        if sha256_prefix and not _sha256(path).startswith(sha256_prefix):
            raise UserError(f"{path}: its SHA-256 does not begin with {sha256_prefix}; delete the file and run again")
        return False
    try:
        with atomic_path(path) as temporary:
            _fetch(url, temporary, path.name, timeout_s)
            if not (digest := _sha256(temporary)).startswith(sha256_prefix):
                raise UserError(f"its SHA-256 is {digest[:16]}... and should begin with {sha256_prefix}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, UserError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url} could not be downloaded ({reason}). Run again, or fetch it by hand and save it as {path}"
            + (f"; {otherwise}" if otherwise else "")
        ) from error
    return True


def _fetch(url: str, path: Path, name: str, timeout_s: float) -> None:
    """Stream `url` to `path`, which is to have this name. Raises UserError when the transfer ends early."""
    request = urllib.request.Request(url, headers={"User-Agent": "detr-finetuning"})
    with urllib.request.urlopen(request, timeout=timeout_s) as response, path.open("wb") as file:
        expected = int(response.headers.get("Content-Length") or 0)
        with Progress(expected or None, name, unit="B") as progress:
            while chunk := response.read(_CHUNK_BYTES):
                progress.update(file.write(chunk))
        if file.tell() < expected:
            raise UserError(f"the connection ended after {file.tell():,} of {expected:,} bytes")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
