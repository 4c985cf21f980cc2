"""Make a detector's file small: half precision, as the weights in sample/ are kept.

python -m detr.training.shrink outputs/checkpoint_best.pth detr-small.pth
"""

import argparse
from pathlib import Path

import torch

from detr.models.weights import best_weights, public_names, read_checkpoint


def shrink(checkpoint: dict) -> dict:
    """The same detector with its weights in float16, and with frozen BatchNorm: what is fine-tuned from it has batches
    too small to estimate that anew.
    """
    model = {name: value.half() for name, value in best_weights(checkpoint).items()}
    kept = ("categories", "raw_ids", "resolution", "white", "best", "epoch")
    about = {key: checkpoint[key] for key in kept if key in checkpoint}
    return {"model": public_names(model), "config": checkpoint["config"] | {"batch_norm": "frozen"}} | about


def main() -> None:
    """Read, shrink, write, say how large it has become."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a checkpoint of main.py")
    parser.add_argument("destination", type=Path, help="the file to write")
    args = parser.parse_args()
    torch.save(shrink(read_checkpoint(args.source)), args.destination)
    print(f"{args.destination}: {args.destination.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
