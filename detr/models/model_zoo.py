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
    "--batch_size 8 --lr 3e-4 --lr_backbone 1e-4 --clip_max_norm 1 --eos_coef 0.5 --query_groups 3 "
    "--color_jitter 0.2 --scales 288 336 384 --max_size 576 --epochs 30"
)
SHIPPED_WEIGHTS = {
    "detr-small": ShippedWeights(
        _SAMPLE / "detr-small.pth", 384, 576, 50, _SMALL.split(), ["--copy_paste", "0.5", "--masks"]
    )
}

# What the rows of the published class heads stand for: COCO's category ids, with holes; the last row is "no object".
# Those of stuff, behind the others in the panoptic files, have no objects to outline and are left out.
PUBLIC_ROWS = (91, 250)  # without "no object": of the detectors, and of the panoptic files
PUBLIC_CLASSES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
