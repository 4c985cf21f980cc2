"""Weights to start from that have a name: those of DETR's authors, and ours. No torch: a script's --help lists them."""

from pathlib import Path
from typing import NamedTuple

PUBLIC_URL = "https://dl.fbaipublicfiles.com/detr/"


class PublicWeights(NamedTuple):
    """One published file, trained on COCO; those called panoptic have a mask head and know COCO's stuff as well."""

    file_name: str
    dilation: bool  # the one part of the architecture that the tensors' shapes cannot tell

    flags = ("--epochs", "100")  # of main.py, for fine-tuning

    @property
    def sha256_prefix(self) -> str:
        """The hex in the name begins the file's SHA-256."""
        return self.file_name.removesuffix(".pth").rsplit("-", 1)[1]

    @property
    def outline_flags(self) -> list[str]:
        """Further ones where all objects have outlines."""
        return ["--masks"] if "panoptic" in self.file_name else []


PUBLIC_WEIGHTS = {
    "detr-r50": PublicWeights("detr-r50-e632da11.pth", dilation=False),
    "detr-r50-dc5": PublicWeights("detr-r50-dc5-f0fb7ef5.pth", dilation=True),
    "detr-r101": PublicWeights("detr-r101-2c7b67e5.pth", dilation=False),
    "detr-r101-dc5": PublicWeights("detr-r101-dc5-a2e86def.pth", dilation=True),
    "detr-r50-panoptic": PublicWeights("detr-r50-panoptic-00ce5173.pth", dilation=False),
    "detr-r50-dc5-panoptic": PublicWeights("detr-r50-dc5-panoptic-da08f1b1.pth", dilation=True),
    "detr-r101-panoptic": PublicWeights("detr-r101-panoptic-40021d53.pth", dilation=False),
}


class ShippedWeights(NamedTuple):
    """Weights of ours that are in the project, with what a report on the data and the next command need to know."""

    path: Path
    scale: int  # shorter side of the images, in pixels
    max_size: int  # longest side
    num_queries: int
    flags: list[str]  # of main.py, for fine-tuning
    outline_flags: list[str]  # further ones where all objects have outlines


_SAMPLE = Path(__file__).parents[1] / "sample"  # its README.md says how they were pre-trained
_SMALL = (
    "--batch_size 4 --lr 3e-4 --lr_backbone 1e-4 --clip_max_norm 1 --eos_coef 0.5 --query_groups 3 "
    "--color_jitter 0.2 --scales 288 336 384 --max_size 576 --epochs 30"
)
SHIPPED_WEIGHTS = {
    "detr-small": ShippedWeights(
        _SAMPLE / "detr-small.pth", 384, 576, 50, _SMALL.split(), ["--copy_paste", "0.5", "--masks"]
    )
}
