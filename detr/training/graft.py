"""Put a DETR's transformer on another backbone: a start that spares a small detector most of its pre-training.

python -m detr.training.graft detr-tiny.pth mobilenet_v2-b0353104.pth grafted.pth --backbone mobilenet_v2 --dec_layers 4

The projection of the new backbone's features starts fresh. Decoder layers that the file lacks start as copies of its
last one, which refined the boxes as they are to.
"""

import argparse
import dataclasses
import re
from pathlib import Path

import torch

from detr.models.detr import Detr, DetrConfig
from detr.models.weights import best_weights, load_backbone_weights, read_backbone_weights, read_checkpoint, read_config
from utils import UserError, run_script

SEED = 0
_DECODER_LAYER = re.compile(r"(?<=transformer\.decoder\.layers\.)\d+")


def graft(path: Path, backbone: str, backbone_file: Path, dec_layers: int) -> dict:
    """Return a detector with the transformer and heads of a file, and the backbone of a classifier's file.

    Raises UserError for files that are no detector, no such classifier, or have more decoder layers than that.
    """
    checkpoint = read_checkpoint(path)
    config = read_config(path, checkpoint)
    if dec_layers < config["dec_layers"]:
        raise UserError(f"--dec_layers {dec_layers}: {path} has {config['dec_layers']}, and none is left out")
    torch.manual_seed(SEED)
    detr = Detr(DetrConfig(**(config | {"backbone": backbone, "batch_norm": "frozen", "dec_layers": dec_layers})))
    theirs, own = best_weights(checkpoint), detr.state_dict()
    for key in own:
        if not key.startswith(("backbone.0.", "input_proj.")):
            source = _DECODER_LAYER.sub(lambda layer: str(min(int(layer[0]), config["dec_layers"] - 1)), key)
            own[key] = theirs[source].float()
    detr.load_state_dict(own)
    load_backbone_weights(detr, read_backbone_weights(backbone_file, backbone), str(backbone_file))
    about = {key: checkpoint[key] for key in ("categories", "raw_ids", "resolution") if key in checkpoint}
    return {"model": detr.state_dict(), "config": dataclasses.asdict(detr.config)} | about


def main() -> None:
    """Read both files, write the grafted one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a DETR of main.py")
    parser.add_argument("backbone_weights", type=Path, help="torchvision's file of the new backbone")
    parser.add_argument("destination", type=Path, help="the file to write")
    parser.add_argument("--backbone", default="mobilenet_v2", help="torchvision's name of it (%(default)s)")
    parser.add_argument("--dec_layers", type=int, default=4, help="decoder layers, no fewer than now (%(default)s)")
    args = parser.parse_args()
    torch.save(graft(args.source, args.backbone, args.backbone_weights, args.dec_layers), args.destination)


if __name__ == "__main__":
    run_script(main)
