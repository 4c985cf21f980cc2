"""The weights that the authors of DETR published. No torch: a script's --help lists them."""

from typing import NamedTuple

PUBLIC_URL = "https://dl.fbaipublicfiles.com/detr/"


class PublicWeights(NamedTuple):
    """One published file, trained on COCO."""

    file_name: str
    dilation: bool  # the one part of the architecture that the tensors' shapes cannot tell

    @property
    def sha256_prefix(self) -> str:
        """The hex in the name begins the file's SHA-256."""
        return self.file_name.removesuffix(".pth").rsplit("-", 1)[1]


PUBLIC_WEIGHTS = {
    "detr-r50": PublicWeights("detr-r50-e632da11.pth", dilation=False),
    "detr-r50-dc5": PublicWeights("detr-r50-dc5-f0fb7ef5.pth", dilation=True),
    "detr-r101": PublicWeights("detr-r101-2c7b67e5.pth", dilation=False),
    "detr-r101-dc5": PublicWeights("detr-r101-dc5-a2e86def.pth", dilation=True),
}
