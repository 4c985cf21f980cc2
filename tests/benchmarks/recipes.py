"""What each ingredient of the training recipe is worth: the same minutes of training with it and without it.

python prep.py --sample && python -m tests.benchmarks.recipes
python -m tests.benchmarks.recipes --coco_path ../shared/bccd --only preset reference random

A recipe's number of epochs is what fits into the minutes, by its own time per epoch. Printed is the AP of the last
epoch, not of the best: nothing is chosen on the images it is measured on.
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

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (
    "--lr 1e-4 --lr_backbone 1e-5 --clip_max_norm 0.1 --batch_size 2 --dropout 0.1 --ema_decay 0 --eos_coef 0.1 "
    "--query_groups 1 --color_jitter 0"
)
WEIGHTS = SHIPPED_WEIGHTS["detr-small"]
SHAPE = (
    "--backbone mobilenet_v2 --stride 16 --hidden_dim 128 --enc_layers 3 --dec_layers 4 --dim_feedforward 512 "
    "--num_queries 50"
)
PRESET = " ".join(WEIGHTS.flags)  # as prep.py prints it
START = f"--weights {WEIGHTS.path.relative_to(ROOT)}"
RECIPES = {  # of flags that are there twice the last counts
    "preset": f"{START} {PRESET}",
    "copy-paste": f"{START} {PRESET} --copy_paste 0.5",
    "one size": f"{START} {PRESET} --scales {WEIGHTS.scale}",
    "no query groups": f"{START} {PRESET} --query_groups 1",
    "no color jitter": f"{START} {PRESET} --color_jitter 0",
    "no flips and crops": f"{START} {PRESET} --no_augment",
    "no EMA": f"{START} {PRESET} --ema_decay 0",
    "cosine": f"{START} {PRESET} --lr_schedule cosine --warmup_steps 50",
    "no object a tenth": f"{START} {PRESET} --eos_coef 0.1",
    "frozen backbone": f"{START} {PRESET} --freeze backbone",
    "reference": f"{START} {PRESET} {REFERENCE}",
    "imagenet": f"{SHAPE} --batch_norm frozen {PRESET}",
    "random": f"{SHAPE} --backbone_weights none {PRESET}",
}


def train(name: str, seed: int, epochs: int, extra: list[str]) -> list[dict]:
    """Run main.py with a recipe, evaluated at the end only; returns its log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "main.py", "--output_dir", folder]
        command += [*RECIPES[name].split(), *extra]
        command += ["--epochs", epochs, "--eval_every", epochs, "--save_every", epochs, "--seed", seed]
        command += ["--num_workers", 0, "--cache", "ram", "--device", "cpu"]
        one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(list(map(str, command)), env=one_core, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
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
    parser.add_argument("--flags", default="", help="further flags of main.py, for every recipe")
    args = parser.parse_args()
    extra = ["--coco_path", args.coco_path, *args.flags.split()]
    print("| recipe | epochs | AP | AP50 | AP of each seed |\n|---|---|---|---|---|", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # as many runs at a time as there are cores, each on one

        def epochs_for(name: str) -> int:
            return max(1, round(args.minutes * 60 / train(name, 0, 3, extra)[-1]["seconds_train"]))

        epochs = dict(zip(args.only, pool.map(epochs_for, args.only), strict=True))
        runs = {
            (name, seed): pool.submit(train, name, seed, epochs[name], extra)
            for name, seed in product(args.only, range(1, args.seeds + 1))
        }
        for name in args.only:
            logs = [runs[name, seed].result() for seed in range(1, args.seeds + 1)]
            ap, ap50 = ([log[-1]["test_coco_eval_bbox"][number] for log in logs] for number in (0, 1))
            each = ", ".join(f"{value:.3f}" for value in ap)
            print(f"| {name} | {epochs[name]} | {summary(ap)} | {summary(ap50)} | {each} |", flush=True)


if __name__ == "__main__":
    main()
