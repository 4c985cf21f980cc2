"""The `transformers` DETR carrying our weights: the independent reference of the parity tests and benchmarks."""

import torch
from torch import Tensor

from detr.models.backbone import FrozenBatchNorm2d
from detr.models.detr import Detr, DetrConfig
from detr.models.huggingface import to_hub
from detr.models.weights import has_mask_head
from detr.structures import Batch, DetrOutput, Targets

# Where the names in memory differ from those on disk, by which `transformers` reads the published folders.
_IN_MEMORY = {
    ".conv_encoder": "", "out_proj": "o_proj", ".fc": ".mlp.fc",
    "q_linear": "q_proj", "k_linear": "k_proj", "out_lay": "output_conv",
    **{f"lay{n}": f"conv{n}.conv" for n in (1, 2)}, **{f"gn{n}": f"conv{n}.norm" for n in (1, 2)},
    **{f"adapter{n}": f"fpn_stages.{n - 1}.fpn_adapter" for n in (1, 2, 3)},
    **{f"lay{n}": f"fpn_stages.{n - 3}.refine.conv" for n in (3, 4, 5)},
    **{f"gn{n}": f"fpn_stages.{n - 3}.refine.norm" for n in (3, 4, 5)},
}  # fmt: skip


def make_model(config: DetrConfig) -> Detr:
    """A model whose BatchNorm statistics, norms and biases are random too: at their defaults they prove little."""
    torch.manual_seed(0)
    detr = Detr(config)
    for module in detr.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.3, 0.9)
            module.bias.normal_(std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in detr.named_parameters():
        if parameter.dim() == 1 and not name.startswith("backbone"):
            parameter.data += 0.05 * torch.randn_like(parameter)
    return detr


def to_peer_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict (values or gradients) under the peer's names in memory; packed projections are split in three."""
    peer = {}
    for name, value in to_hub(state, has_mask_head(state)).items():
        for on_disk, in_memory in _IN_MEMORY.items():
            name = name.replace(on_disk, in_memory)
        peer[name] = value
    return peer


def make_peer(detr: Detr) -> torch.nn.Module:
    """A `transformers` DetrForObjectDetection of the same architecture, with the same weights and frozen parts; a
    DetrForSegmentation where there is a mask head.

    Raises KeyError or RuntimeError when any of our weights has no place in it.
    """
    import transformers  # seconds to import; only parity needs it

    ours = detr.config
    config = transformers.DetrConfig(
        use_pretrained_backbone=False,
        backbone=ours.backbone,
        dilation=ours.dilation,
        position_embedding_type=ours.position_embedding,
        d_model=ours.hidden_dim,
        encoder_layers=ours.enc_layers,
        decoder_layers=ours.dec_layers,
        encoder_attention_heads=ours.nheads,
        decoder_attention_heads=ours.nheads,
        encoder_ffn_dim=ours.dim_feedforward,
        decoder_ffn_dim=ours.dim_feedforward,
        dropout=ours.dropout,
        num_queries=ours.num_queries,
        num_labels=ours.num_classes,
    )
    peer = transformers.DetrForSegmentation(config) if ours.masks else transformers.DetrForObjectDetection(config)
    peer.load_state_dict(to_peer_state(detr.state_dict()), strict=True)
    # Three flags each, so that packed projections split in three like their weights.
    trained = to_peer_state({name: torch.full((3,), p.requires_grad) for name, p in detr.named_parameters()})
    for name, parameter in peer.named_parameters():
        parameter.requires_grad_(bool(trained[name].all()))
    return peer


def peer_labels(targets: Targets) -> list[dict]:
    """Our padded targets in the peer's form."""
    return [
        {"class_labels": targets.labels[i, :n], "boxes": targets.boxes_cxcywh[i, :n]}
        for i, n in enumerate(targets.counts)
    ]


def run_peer(peer: torch.nn.Module, batch: Batch) -> tuple[DetrOutput, Tensor, dict[str, Tensor]]:
    """The peer's outputs of every decoder layer, its total loss with auxiliary terms, and the unweighted terms.

    With its own `auxiliary_loss` switch the peer hands the *normalized* output of a decoder layer to the next layer,
    which the paper and the reference code do not. So the layers are collected here, and its own heads and loss follow.
    """
    layers: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: layers.append(output))
        for layer in peer.model.decoder.layers
    ]
    peer.config.auxiliary_loss = False
    peer.model(batch.images, pixel_mask=~batch.padding_mask)
    for hook in hooks:
        hook.remove()
    decoded = peer.model.decoder.layernorm(torch.stack(layers))
    logits, boxes = peer.class_labels_classifier(decoded), peer.bbox_predictor(decoded).sigmoid()
    peer.config.auxiliary_loss = True
    loss, terms, _ = peer.loss_function(
        logits[-1], peer_labels(batch.targets), logits.device, boxes[-1], peer.config, logits, boxes
    )
    return DetrOutput(logits, boxes), loss, terms
