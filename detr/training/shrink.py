"""Make a detector's file small: half precision, as the weights in sample/ are kept.

python -m detr.training.shrink outputs/checkpoint_best.pth detr-small.pth
"""

import sys
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


if __name__ == "__main__":
    source, destination = map(Path, sys.argv[1:])
    torch.save(shrink(read_checkpoint(source)), destination)
