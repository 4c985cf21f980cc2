"""What each ingredient of the training recipe is worth: the same minutes of training with it and without it.

python prep.py --sample && python -m tests.benchmarks.recipes
python -m tests.benchmarks.recipes --coco_path ../shared/bccd --boxes --only preset reference random

A recipe's number of epochs is what fits into the minutes, by its own time per epoch. Printed is the AP of the last
epoch, not of the best: nothing is chosen on the images it is measured on. `taskset -c 1` before it takes one core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from detr.models.model_zoo import SHIPPED_WEIGHTS
from detr.training.cpu_load import count_cpus

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = SHIPPED_WEIGHTS["detr-small"]
START = f"--weights {WEIGHTS.path.relative_to(ROOT)}"
SHAPE = (
    "--backbone mobilenet_v2 --stride 16 --hidden_dim 128 --enc_layers 3 --dec_layers 4 --dim_feedforward 512 "
    "--num_queries 50"
)
STARTS = {"imagenet": f"{SHAPE} --batch_norm frozen", "random": f"{SHAPE} --backbone_weights none"}
BOXES_ONLY = "boxes only"
RECIPES = {  # what is different from the preset, as prep.py prints it; of flags that are there twice the last counts
    "preset": "",
    BOXES_ONLY: "--copy_paste 0.5",
    "no copy-paste": "--copy_paste 0",
    "one size": f"--scales {WEIGHTS.scale}",
    "smaller images": "--scales 224 256 288 --max_size 432",
    "larger images": "--scales 352 416 480 --max_size 720",
    "no query groups": "--query_groups 1",
    "no color jitter": "--color_jitter 0",
    "no flips and crops": "--no_augment",
    "no EMA": "--ema_decay 0",
    "cosine": "--lr_schedule cosine --warmup_steps 20",
    "batches of 8": "--batch_size 8",
    "no object a tenth": "--eos_coef 0.1",
    "frozen backbone": "--freeze backbone",
    "reference": "--lr 1e-4 --lr_backbone 1e-5 --clip_max_norm 0.1 --batch_size 2 --dropout 0.1 --ema_decay 0 "
    "--eos_coef 0.1 --query_groups 1 --color_jitter 0 --copy_paste 0",
    "imagenet": "",
    "random": "",
}


def flags_of(name: str, outlined: bool) -> list[str]:
    """Return a recipe's flags of main.py, for objects with outlines or with boxes alone."""
    preset = [*WEIGHTS.flags, *(WEIGHTS.outline_flags if outlined and name != BOXES_ONLY else ())]
    return [*STARTS.get(name, START).split(), *preset, *RECIPES[name].split()]


def train(flags: list[str], seed: int, epochs: int) -> list[dict]:
    """Run main.py with a recipe's flags, evaluated at the end only; returns its log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "main.py", "--output_dir", folder]
        command += flags
        command += ["--epochs", epochs, "--eval_every", epochs, "--save_every", epochs, "--seed", seed]
        command += ["--num_workers", 0, "--cache", "ram", "--device", "cpu"]
        one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(list(map(str, command)), env=one_core, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(flags)}: {done.stderr}")
        return [json.loads(line) for line in (Path(folder) / "log.txt").read_text().splitlines()]


def summary(values: list[float]) -> str:
    """Mean and standard error."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} +- {error:.3f}"


def main() -> None:
    """The table, a row as soon as all its seeds are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coco_path", default="data/custom")
    parser.add_argument("--minutes", type=float, default=5, help="of training, on one core (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--boxes", action="store_true", help="the objects have no outlines")
    parser.add_argument("--flags", default="", help="further flags of main.py, for every recipe")
    args = parser.parse_args()
    extra = ["--coco_path", args.coco_path, *args.flags.split()]
    flags = {name: [*flags_of(name, not args.boxes), *extra] for name in args.only}
    print("| recipe | epochs | AP | AP50 | AP of each seed |\n|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(count_cpus()) as pool:  # a run for each core

        def epochs_for(name: str) -> int:
            return max(1, round(args.minutes * 60 / train(flags[name], 0, 2)[-1]["seconds_train"]))

        epochs = dict(zip(args.only, pool.map(epochs_for, args.only), strict=True))
        runs = {
            (name, seed): pool.submit(train, flags[name], seed, epochs[name])
            for name, seed in product(args.only, range(1, args.seeds + 1))
        }
        for name in args.only:
            logs = [runs[name, seed].result() for seed in range(1, args.seeds + 1)]
            ap, ap50 = ([log[-1]["test_coco_eval_bbox"][number] for log in logs] for number in (0, 1))
            each = ", ".join(f"{value:.3f}" for value in ap)
            print(f"| {name} | {epochs[name]} | {summary(ap)} | {summary(ap50)} | {each} |", flush=True)


if __name__ == "__main__":
    main()
