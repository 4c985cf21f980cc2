"""What the scripts share and that has no domain: running a script, atomic files, downloads, progress, drawing."""

import contextlib
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from detr.errors import UserError
from detr.fonts import font

DOWNLOAD_TIMEOUT_S = 30  # without a single byte; a slow connection may take as long as it needs
_CHUNK_BYTES = 1 << 20
# Distinct for colour-blind readers too (Okabe and Ito 2008), without yellow, which vanishes on white.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


# ---------------------------------------------------------------------------------------------------- running a script


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`: mistakes of the user and of the machine end in one sentence and exit code 2."""
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
    """A command to be copied, quoted as the shell of this system understands it."""
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)(words)


def _fail(message: str) -> int:
    rank = os.environ.get("RANK", "0")  # under torchrun
    print(f"error: {message}" if rank == "0" else f"error in process {rank}: {message}", file=sys.stderr)
    return 2


class Stopped(Exception):
    """The user or the system asked the script to stop, and it did so in good order; says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


class BrokenOff(Stopped):
    """The script was asked to stop while it waited for something that did not come."""


class StopRequest(contextlib.AbstractContextManager):
    """Inside it, Ctrl-C and SIGTERM only set `signal`, to be looked at where stopping is safe; a second Ctrl-C stops at
    once, and so does a wait that takes longer than `PATIENCE_S` from then on (`while_waiting`).
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    PATIENCE_S = 20.0

    def __init__(self) -> None:
        self.signal: int = 0
        self._before: dict[int, object] = {}
        self._is_waiting = False

    @contextlib.contextmanager
    def while_waiting(self) -> Iterator[None]:
        """Wrap what may wait for ever, such as for images from a drive that does not answer, and may be broken off.

        Raises BrokenOff where it still waits `PATIENCE_S` after the request.
        """
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        if hasattr(signal, "SIGALRM"):  # not on Windows
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.signal and hasattr(signal, "SIGALRM"):
            # Some schedulers stop the processes that load images too: from here on that is no error to break off for.
            # A function, as Python complains of a signal that came before it was told to ignore it.
            self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, self.PATIENCE_S, 1.0)
        self.signal = self.signal or number
        os.write(2, b"\nstopping after this step; Ctrl-C now stops at once\n")  # print is not safe in here

    def _break_off(self, number: int, frame: object) -> None:
        if self._is_waiting:
            raise BrokenOff(
                f"stopped: no images came in {self.PATIENCE_S:.0f} s. The last checkpoint is whole: run the same "
                "command with --resume auto",
                self.signal,
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


def save_tensors(path: Path, value: object) -> None:
    """Write what `torch.load` reads, atomically. Raises UserError where that fails: most often the disk is full."""
    import torch

    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(value, file)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer raises an error of its own about the one that it was stopped by.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise UserError(
            f"{path} could not be written ({cause.strerror}; {free:.0f} MiB are free there); what was saved before is "
            "as it was"
        ) from error


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raise UserError unless the disk of `folder` has room for `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {what} will need {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free there"
        )


def is_same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths, however they are spelled, lead to one file that exists."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def clear_unfinished(folder: Path) -> None:
    """Delete what `atomic_path` left half-written in a process that was killed."""
    for path in folder.glob(".*.part*"):
        path.unlink()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
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


def duration(seconds: float) -> str:
    """A time that a person can read: 40 s, 12 min, 3 h 05 min."""
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


def colour_of(index: int) -> str:
    """A colour for class number `index`."""
    return COLOURS[index % len(COLOURS)]


def draw_objects(image: Image.Image, objects: Sequence[dict], scale: float = 1.0) -> Image.Image:
    """A copy of an RGB image with objects drawn over it.

    Args:
        image: the picture.
        objects: each a dict with `box_xyxy`, `text` (empty for none), `colour`, and optionally `outlines`, lists of
            (x, y) points.
        scale: pixels of the picture per unit of the objects' coordinates.
    """
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(image.size) / 400))
    letters_height = max(11, round(max(image.size) / 60))
    for thing in objects:
        left, top, right, bottom = (value * scale for value in thing["box_xyxy"])
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        for outline in [corners, *([(x * scale, y * scale) for x, y in o] for o in thing.get("outlines", ()))]:
            closed = [*outline, outline[0], outline[1]]
            pen.line(closed, "white", width + 2, joint="curve")  # a halo: visible on any photograph
            pen.line(closed, thing["colour"], width, joint="curve")
    for thing in (thing for thing in objects if thing["text"]):  # texts last, over every line
        left, top = (value * scale for value in thing["box_xyxy"][:2])
        letters = font(letters_height, thing["text"])
        *_, text_width, text_height = pen.textbbox((0, 0), thing["text"], letters)
        box_width, box_height = text_width + 6, text_height + 4
        x = min(max(0, left), max(0, image.width - box_width))
        y = top - box_height if top >= box_height else top
        pen.rectangle((x, y, x + box_width, y + box_height), thing["colour"])
        pen.text((x + 3, y + 1), thing["text"], "white", letters)
    return drawn


def save_image(image: Image.Image, path: Path) -> None:
    """Save an image as PNG, atomically."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
