"""DETR (Carion et al. 2020, sections 3.2 and 4.4): backbone, transformer, prediction heads; and its configuration.

Shapes: B images, Q queries, K classes (logit K means "no object"), L decoder layers, D width, C channels, S stride.
"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.models.backbone import BATCH_NORMS, STRIDES, Backbone
from detr.models.mask_head import MaskHeadSmallConv, MHAttentionMap, check_width, predict_masks
from detr.models.position_encoding import LearnedPositionEmbedding, SinePositionEmbedding
from detr.models.transformer import Transformer
from detr.structures import DetrOutput, MaskLogits
from utils import UserError

SelectQueries = Callable[[DetrOutput], tuple[Tensor, Tensor]]  # outputs -> (M,) images and (M,) queries
POSITION_EMBEDDINGS = {"sine": SinePositionEmbedding, "learned": LearnedPositionEmbedding}


@dataclasses.dataclass(frozen=True)
class DetrConfig:
    """Everything that fixes the network's parameters and their meaning; saved with the weights as a plain dict.

    Raises UserError for values that no DETR can have.
    """

    num_classes: int
    backbone: str = "resnet50"
    dilation: bool = False
    stride: int = 32
    batch_norm: str = "frozen"
    position_embedding: str = "sine"
    hidden_dim: int = 256
    nheads: int = 8
    enc_layers: int = 6
    dec_layers: int = 6
    dim_feedforward: int = 2048
    dropout: float = 0.1
    num_queries: int = 100
    pre_norm: bool = False
    masks: bool = False
    mask_box_weight: float = 0.0  # see `postprocess.average_boxes`

    def __post_init__(self) -> None:
        for name in ("num_classes", "hidden_dim", "nheads", "dec_layers", "dim_feedforward", "num_queries"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.enc_layers < 0:
            raise UserError(f"enc_layers must not be negative, got {self.enc_layers}")
        if not 0 <= self.mask_box_weight <= 1:
            raise UserError(f"mask_box_weight must be in [0, 1], got {self.mask_box_weight}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.hidden_dim % self.nheads or self.hidden_dim % 4:
            raise UserError(f"hidden_dim must be a multiple of 4 and of nheads ({self.nheads}), got {self.hidden_dim}")
        if self.masks:
            check_width(self.hidden_dim, self.nheads)
        choices = {"position_embedding": POSITION_EMBEDDINGS, "batch_norm": BATCH_NORMS, "stride": STRIDES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(map(str, known))}, got {getattr(self, name)!r}")
        if self.dilation and self.stride == 16:
            raise UserError(
                "--dilation (DC5) and --stride 16: one of them; the first keeps the backbone's last stage and runs it "
                "at stride 16, the second leaves that stage out"
            )


class MLP(nn.Module):
    """Three linear layers with ReLU between them: D -> D -> D -> 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 4)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., 4), before the sigmoid."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class Detr(nn.Module):
    """The detector. Parameter names and shapes are those of the public DETR files; building it downloads nothing."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        backbone = Backbone(config.backbone, config.dilation, config.stride, config.batch_norm)
        # A Sequential only for its names: the public files call the two parts backbone.0 and backbone.1.
        self.backbone = nn.Sequential(backbone, POSITION_EMBEDDINGS[config.position_embedding](dim))
        self.input_proj = nn.Conv2d(backbone.channels, dim, kernel_size=1)
        layer = (dim, config.nheads, config.dim_feedforward, config.dropout, config.pre_norm)
        self.transformer = Transformer((config.enc_layers, config.dec_layers), *layer)
        self.query_embed = nn.Embedding(config.num_queries, dim)
        self.register_parameter("extra_queries", None)  # (G - 1, Q, D) with G groups, see add_query_groups
        self.class_embed = nn.Linear(dim, config.num_classes + 1)
        self.bbox_embed = MLP(dim)
        self.bbox_attention = MHAttentionMap(dim, config.nheads) if config.masks else None
        self.mask_head = MaskHeadSmallConv(dim, config.nheads, backbone.map_channels) if config.masks else None

    def forward(self, images: Tensor, padding_mask: Tensor, select_queries: SelectQueries | None = None) -> DetrOutput:
        """Run on images (B, 3, H, W), ImageNet-normalized, and their padding mask (B, H, W), True on padding.

        In training with G groups of queries, the outputs are those of G * B images: all of the first group, then all
        of the second, each to be matched by itself. `select_queries` says which queries of the first group get a mask,
        where there is a mask head: it is the larger part of the network, and most queries see no object. In training it
        matches them (`criterion.MatchedQuerySelector`), within the one forward pass that DDP allows.
        """
        body, position_embedding = self.backbone
        *maps, features = body(images)  # (B, C, H/S, W/S)
        mask = F.interpolate(padding_mask[None].float(), size=features.shape[-2:])[0].bool()
        positions = position_embedding(mask)
        queries = self.query_embed.weight[None]
        if self.training and self.extra_queries is not None:
            queries = torch.cat((queries, self.extra_queries))
        src = self.input_proj(features)
        decoded, memory = self.transformer(src, positions, mask, queries)  # (L, G * B, Q, D), (B, N, D)
        with torch.autocast(decoded.device.type, enabled=False):
            # A box in bfloat16 is a box on a grid of 1/256 of the image; without autocast the dtype stays as it is.
            decoded = decoded.to(self.query_embed.weight.dtype)
            outputs = DetrOutput(self.class_embed(decoded), self.bbox_embed(decoded).sigmoid())
        if select_queries is None or self.mask_head is None:
            return outputs
        image, query = select_queries(outputs)
        heads, queries = (self.bbox_attention, self.mask_head), decoded[-1][image, query]
        logits = predict_masks(*heads, src, maps, memory, mask, queries, image)
        return outputs._replace(masks=MaskLogits(logits, image, query))

    @property
    def query_groups(self) -> int:
        """Groups of queries in training; outside it only the first, `query_embed`, is used."""
        return 1 if self.extra_queries is None else 1 + len(self.extra_queries)

    def add_query_groups(self, groups: int, spread: float) -> None:
        """Train `groups` groups of queries side by side: each object then teaches one query of every group (Chen et
        al. 2022, Group DETR, section 3). Groups do not see each other, and only the first is part of the detector.

        `spread` says how far, in standard deviations of the embedding, each new group is from a copy of it. With no
        spread at all the groups would stay copies of each other and teach nothing new.
        """
        copies = self.query_embed.weight.detach().repeat(groups - 1, 1, 1)
        if groups > 1:
            self.extra_queries = nn.Parameter(copies + spread * copies.std() * torch.randn_like(copies))

    def freeze_backbone(self) -> None:
        """Keep the whole backbone as it is; before an optimizer or DistributedDataParallel sees the parameters."""
        self.backbone[0].requires_grad_(False)

    def freeze_detector(self) -> None:
        """Keep everything but the mask head as it is; as `freeze_backbone`."""
        self.requires_grad_(False)
        self.bbox_attention.requires_grad_(True)
        self.mask_head.requires_grad_(True)

    def train(self, mode: bool = True) -> "Detr":
        """Set training mode, but not for what is frozen: no BatchNorm is to estimate, no dropout to add noise there."""
        super().train(mode)
        for part in (self.backbone[0], self.transformer):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def count_trainable(self) -> int:
        """Return the number of trained parameters: 41,302,368 for DETR-R50 at 91 classes."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
