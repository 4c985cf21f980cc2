"""The files of a run's folder, by name, its log and its lock. No torch: results.py reads them too."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import utils
from utils import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LAST = "checkpoint.pth"  # to resume from
BEST = "checkpoint_best.pth"  # to use
LOG = "log.txt"
CONFIG = "config.json"
PREDICTIONS = "predictions.json"  # of BEST, on the validation images
TENSORBOARD = "tensorboard"  # a folder
RUN_FILES = (LAST, BEST, LOG, CONFIG, PREDICTIONS, TENSORBOARD)


def append_log(path: Path, log: dict) -> None:
    """Append one line to log.txt, with null for what is not finite; a crash can cut it short, which resuming mends.

    Raises UserError where it cannot be written.
    """
    log = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in log.items()}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(log, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint, which is to find its epoch in the log
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); resume with --resume auto") from error


def truncate_log(path: Path, last_epoch: int) -> None:
    """Keep the lines of log.txt up to an epoch, counted from 0."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    with utils.atomic_path(path) as temporary:
        kept = [f"{line}\n" for line in lines if _epoch_of(line) <= last_epoch]
        temporary.write_text("".join(kept), encoding="utf-8")


def _epoch_of(line: str) -> float:
    """Return the epoch of a log line; infinite for a line that was cut off while it was written."""
    try:
        return json.loads(line)["epoch"]
    except (json.JSONDecodeError, KeyError):
        return math.inf


@contextlib.contextmanager
def locked_dir(folder: Path) -> Iterator[None]:
    """Inside it, a folder, made where it is missing, is this process's own, however the process ends.

    Raises UserError where another process has it. Where system or drive knows no locks, nothing is kept from anybody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
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
