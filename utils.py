"""The floor that everything stands on: errors, files, text, downloads, progress and drawing, of no domain.

Imports nothing of ours, and neither torch nor matplotlib.
"""

import contextlib
import functools
import hashlib
import http.client
import importlib.util
import json
import logging
import os
import reprlib
import shlex
import shutil
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
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T, R = TypeVar("T"), TypeVar("R")
DOWNLOAD_TIMEOUT_S = 30  # without a single byte; a slow connection may take as long as it needs
_CHUNK_BYTES = 1 << 20
# Distinct for color-blind readers too (Okabe and Ito 2008), without yellow, which vanishes on white.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a power cut can leave the new name on empty blocks
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raise UserError unless the disk of `folder` has room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {what} will need {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free there"
        )


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


@contextlib.contextmanager
def locked_dir(folder: Path) -> Iterator[None]:
    """Inside it, a folder, made where it is missing, is this process's own, however the process ends.

    Raises UserError where another process has it. Where system or drive knows no locks, nothing is kept from anybody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock = folder / ".lock"
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(lock.open("w"))
            try:
                # Unlike flock's, this lock is not handed down to processes that load images: they may live a little
                # longer.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{folder} is in use by another run; wait for it, stop it, or take another folder"
                ) from None
            except OSError:  # a drive without locks
                pass
            # Its owner may have deleted the file between our opening and our locking it: that lock keeps nobody out.
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                break
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def write_json(path: Path, value: object, indent: int | None = None) -> bool:
    """Write a value as JSON, atomically; a file that says the same already is left alone. Returns whether it wrote."""
    text = json.dumps(value, indent=indent)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
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


class Progress:
    """How far a long task is: a bar on a terminal; elsewhere a plain line a minute, so that logs stay short.

    Args: total steps (None where unknown), what is being done, the unit (`B` counts bytes), how many are done already,
    and whether to show it at all.
    """

    LINE_EVERY_S = 60.0
    TEXT_EVERY_S = 0.5

    def __init__(
        self, total: int | None, description: str, unit: str = "it", done: int = 0, shown: bool = True
    ) -> None:
        from tqdm import tqdm

        self._is_terminal, self._shown = sys.stderr.isatty(), shown
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit=unit,
            unit_scale=unit == "B",
            dynamic_ncols=True,
            leave=False,
            disable=not (self._is_terminal and shown),
        )
        self._total, self._description, self._done = total, description, done
        self._last_text = time.monotonic()

    def update(self, steps: int = 1, text: Callable[[], str] = str) -> None:
        """Count steps done; `text()` is shown behind, and is only called when something is about to be shown."""
        self._done += steps
        now = time.monotonic()
        if now - self._last_text < (self.TEXT_EVERY_S if self._is_terminal else self.LINE_EVERY_S):
            self._bar.update(steps)
            return
        self._last_text = now
        if self._is_terminal:
            self._bar.set_postfix_str(text(), refresh=False)
            self._bar.update(steps)
        elif self._shown:
            print(f"{self._description}: {self._done} of {self._total or '?'} {text()}", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

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


def duration(seconds: float) -> str:
    """Return a time that a person can read: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


# ----------------------------------------------------------------------------------------------------------- downloads


def download(
    url: str, path: Path, sha256_prefix: str = "", otherwise: str = "", timeout_s: float = DOWNLOAD_TIMEOUT_S
) -> bool:
    """Fetch `url` to `path` unless it is there; only a whole file with the right hash ever gets that name.

    Args:
        url: what to fetch.
        path: where to put it.
        sha256_prefix: first hex digits of the file's SHA-256; empty where none is known.
        otherwise: what does without this file, for the message to somebody who cannot fetch it.
        timeout_s: how long the server may be silent.

    Returns whether anything was fetched. Raises UserError with the address and what to do by hand.
    """
    if path.exists():
        if sha256_prefix and not _file_sha256(path).startswith(sha256_prefix):
            raise UserError(f"{path}: its SHA-256 does not begin with {sha256_prefix}; delete the file and run again")
        return False
    try:
        with atomic_path(path) as temporary:
            digest = _fetch(url, temporary, timeout_s)
            if not digest.startswith(sha256_prefix):
                raise UserError(f"its SHA-256 is {digest[:16]}... and should begin with {sha256_prefix}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, UserError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url} could not be downloaded ({reason}). Run again, or fetch it by hand and save it as {path}"
            + (f"; {otherwise}" if otherwise else "")
        ) from error
    return True


def _fetch(url: str, path: Path, timeout_s: float) -> str:
    """Stream `url` to `path`; returns the SHA-256 in hex. Raises UserError when the transfer ends early."""
    digest, received = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "detr-finetuning"})
    with urllib.request.urlopen(request, timeout=timeout_s) as response, path.open("wb") as file:
        expected = int(response.headers.get("Content-Length") or 0)
        with Progress(expected or None, path.name.strip(".").split(".part")[0], unit="B") as progress:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                progress.update(len(chunk))
    if received < expected:
        raise UserError(f"the connection ended after {received:,} of {expected:,} bytes")
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------------- drawing


# Fonts with East Asian letters, as Linux distributions, Windows and macOS have them.
EAST_ASIAN = (
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "wqy-microhei.ttc"),
    *("msyh.ttc", "malgun.ttf", "Arial Unicode.ttf"),
)
_FIRST_EAST_ASIAN = "\u2e80"  # of Unicode's characters


def load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Return a font for Pillow, of a size in pixels, that has the letters of the text if this machine has one."""
    return _load_font(size, EAST_ASIAN if max(text, default="") >= _FIRST_EAST_ASIAN else ())


@functools.cache
def _load_font(size: int, preferred: tuple[str, ...]) -> ImageFont.FreeTypeFont:
    for name in preferred:
        with contextlib.suppress(OSError):  # not on this machine
            return ImageFont.truetype(name, size)
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent  # importing it would take a while
    return ImageFont.truetype(str(matplotlib / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@contextlib.contextmanager
def figure_fonts() -> Iterator[None]:
    """Let matplotlib, inside it, take letters that its own font lacks from where Pillow does, and warn of none."""
    import matplotlib
    from matplotlib import font_manager

    path = load_font(10, _FIRST_EAST_ASIAN).path
    font_manager.fontManager.addfont(path)  # it may be newer than the list that matplotlib keeps
    families = ["DejaVu Sans", font_manager.FontProperties(fname=path).get_name()]
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the other font may have no "normal" weight
    try:
        with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def save_figure(figure: "Figure", path: Path) -> None:
    """Save a matplotlib figure as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def figure_text(name: str) -> str:
    """Return a name from outside with nothing in it that matplotlib takes for a formula or hides."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def short_names(names: Iterable[str], longest: int = 22) -> dict[str, str]:
    """Return for each name what a figure shows: no more than `longest` characters, or as many as tell it from others.

    What is left out is in the middle, as names often share their beginning and differ at their end.
    """
    lengths = dict.fromkeys(names, longest)
    while True:
        shown = {
            name: name if len(name) <= length else f"{name[: length - 10]}…{name[-9:]}"
            for name, length in lengths.items()
        }
        uses = Counter(shown.values())
        alike = [name for name in lengths if uses[shown[name]] > 1]
        if not alike:
            return {name: figure_text(text) for name, text in shown.items()}
        lengths |= {name: lengths[name] + 8 for name in alike}


def color_of(index: int) -> str:
    """Return a color for class number `index`."""
    return COLORS[index % len(COLORS)]


def draw_objects(image: Image.Image, objects: Sequence[dict], scale: float = 1.0) -> Image.Image:
    """Return a copy of an RGB image with objects drawn over it.

    Args:
        image: the picture.
        objects: each a dict with COCO's `bbox` (xywh), `text` (empty for none), `color`, and optionally COCO's
            `segmentation`, of which polygons are drawn, and `thin`, whether its box is thinner than them.
        scale: pixels of the picture per unit of the objects' coordinates.
    """
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    width = max(2, round(max(image.size) / 400))
    font_size = max(11, round(max(image.size) / 60))
    for entry in objects:
        left, top, box_width, box_height = entry["bbox"]
        right, bottom = left + box_width, top + box_height
        segmentation = entry.get("segmentation")  # a mask (RLE) is a dict, and not drawn
        polygons = segmentation if isinstance(segmentation, list) else []
        box = (left, top, right, top, right, bottom, left, bottom)
        box_line = max(1, width // 2) if entry.get("thin") else width
        for flat, line in ((box, box_line), *((polygon, width) for polygon in polygons)):
            points = [(x * scale, y * scale) for x, y in zip(flat[::2], flat[1::2], strict=True)]
            closed = [*points, *points[:2]]
            draw.line(closed, "white", line + 2, joint="curve")  # a halo: visible on any image
            draw.line(closed, entry["color"], line, joint="curve")
    for entry in (entry for entry in objects if entry["text"]):  # texts last, over every line
        left, top = (value * scale for value in entry["bbox"][:2])
        font = load_font(font_size, entry["text"])
        *_, text_width, text_height = draw.textbbox((0, 0), entry["text"], font)
        box_width, box_height = text_width + 6, text_height + 4
        x = min(max(0, left), max(0, image.width - box_width))
        y = top - box_height if top >= box_height else top
        draw.rectangle((x, y, x + box_width, y + box_height), entry["color"])
        draw.text((x + 3, y + 1), entry["text"], "white", font)
    return drawn


def save_image(image: Image.Image, path: Path) -> None:
    """Save an RGB image as .png or .jpg, atomically; of a photograph, PNG is five times larger and ten times slower."""
    with atomic_path(path) as temporary:
        image.save(temporary, format={".png": "PNG", ".jpg": "JPEG"}[path.suffix], quality=92)
