"""Read what a run left behind: log.txt, config.json, predictions.json. No torch."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from detr.training.run_files import CONFIG, LOG
from utils import UserError, read_json

COCO_KEY, MASKS_KEY = "test_coco_eval_bbox", "test_coco_eval_masks"  # each a list, COCOeval's 12 numbers


class Run(NamedTuple):
    """One training run as its files tell it."""

    name: str
    log: list[dict]  # one entry per epoch, as in log.txt
    config: dict  # config.json; empty where there is none (the reference code writes none)

    def series(self, key: str, position: int = 0) -> tuple[list[int], list[float]]:
        """Epochs and values of a logged quantity, epochs without it left out; lists give their value at `position`.

        Epochs are counted from 1 here, as main.py counts them on the terminal; log.txt begins at 0, as the reference's.
        """
        least = 0 if key in (COCO_KEY, MASKS_KEY) else -math.inf  # COCO's -1 says that a number is not defined
        points = [(entry["epoch"] + 1, _value(entry.get(key), position)) for entry in self.log]
        points = [(epoch, value) for epoch, value in points if value is not None and value >= least]
        return [epoch for epoch, _ in points], [value for _, value in points]


def _value(logged: object, position: int) -> float | None:
    if isinstance(logged, list):
        logged = logged[position] if len(logged) > position else None
    return float(logged) if isinstance(logged, int | float) and math.isfinite(logged) else None


def read_run(folder: Path, needs_log: bool = True) -> Run:
    """Read a run's folder; a last line that was cut off while it was written is left out.

    Raises UserError when a log.txt that is needed is not there, or a line before the last cannot be read.
    """
    path = folder / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError) as error:
        if needs_log:
            raise UserError(f"{path}: no such file; main.py writes it into its --output_dir") from error
        lines = []
    log = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            log.append({**entry, "epoch": int(entry["epoch"])})
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"{path}: line {number} is not a JSON object with an epoch") from error
    return Run(folder.name or str(folder), log, read_json(folder / CONFIG) or {})


def read_runs(folders: list[Path], needs_log: bool = True) -> list[Run]:
    """Read several runs; those whose folders have the same name are called by their whole path.

    The first may lack its log where `needs_log` is False. Raises UserError as `read_run` does.
    """
    runs = [read_run(folder, needs_log or number > 0) for number, folder in enumerate(folders)]
    names = [run.name for run in runs]
    return [
        run._replace(name=str(folder)) if names.count(run.name) > 1 else run
        for run, folder in zip(runs, folders, strict=True)
    ]
