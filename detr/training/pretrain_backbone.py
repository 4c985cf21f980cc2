"""Teach a backbone what is where, before DETR: which class, if any, each cell of its feature map shows.

python -m detr.training.pretrain_backbone data/shapes backbone.pth

From random weights DETR has to learn its backbone through the attention of its decoder, which at first looks nowhere in
particular. A backbone that has seen the same images through a 1x1 convolution, at a fraction of a DETR step's cost,
spares it most of that time. The file is one for main.py --backbone_weights.

Shapes: B images, H and W cells of the feature map, T objects of the fullest image, K classes.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detr.data.dataset import load_folder
from detr.data.loader import make_loader, read_batches
from detr.data.sampler import AspectRatioBatchSampler
from detr.data.transforms import augment_params, evaluation_params, jitter_params
from detr.models.backbone import Backbone
from detr.models.cpu_kernels import tune_malloc
from detr.structures import Targets

BATCH_SIZE, SEED = 16, 1
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01
IGNORE_INDEX = -100  # what cross_entropy takes for "does not count"


def cell_labels(targets: Targets, padding_mask: Tensor, num_classes: int) -> Tensor:
    """What each cell shows, (B, H, W) int64: the class of the smallest object whose box has the cell's centre in its
    inner ellipse, `num_classes` where there is none, `IGNORE_INDEX` on padding.

    Args:
        targets: the objects of the batch.
        padding_mask: (B, H, W), True where a cell is padding.
        num_classes: K.
    """
    rows, columns = ((~padding_mask).any(axis).sum(1).view(-1, 1, 1, 1) for axis in (2, 1))  # of each image
    y = (torch.arange(padding_mask.shape[1]) + 0.5).view(1, -1, 1, 1) / rows  # (B, H, 1, 1)
    x = (torch.arange(padding_mask.shape[2]) + 0.5).view(1, 1, -1, 1) / columns  # (B, 1, W, 1)
    centre_x, centre_y, width, height = targets.boxes_cxcywh[:, None, None].unbind(-1)  # (B, 1, 1, T) each
    inside = ((x - centre_x) / width).square() + ((y - centre_y) / height).square() < 0.25  # (B, H, W, T)
    number = torch.arange(inside.shape[-1])
    inside &= number < torch.tensor(targets.counts).view(-1, 1, 1, 1)
    area = torch.where(inside, width * height, torch.inf)
    labels = torch.full(padding_mask.shape, num_classes)
    if inside.shape[-1]:
        smallest = area.argmin(-1)  # (B, H, W)
        of_smallest = targets.labels.gather(1, smallest.flatten(1)).view_as(smallest)
        labels = torch.where(inside.any(-1), of_smallest, labels)
    return labels.masked_fill(padding_mask, IGNORE_INDEX)


def train(backbone: Backbone, folder: Path, scale: int, max_size: int, epochs: int) -> None:
    """Train on the training images of a COCO folder; prints how often cells with an object are told right."""
    sizes = {"scales": [scale], "max_size": max_size}
    train_params = partial(jitter_params, choose=partial(augment_params, **sizes), strength=0.3)
    data = load_folder(folder, "custom", train_params, partial(evaluation_params, scale=scale, max_size=max_size), SEED)
    sampler = AspectRatioBatchSampler(data.train, BATCH_SIZE, SEED)
    loader = make_loader(data.train, sampler, num_workers=1, pin_memory=False)
    head = nn.Conv2d(backbone.channels, data.num_classes + 1, 1)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * len(sampler))
    weight = torch.ones(data.num_classes + 1)
    weight[-1] = 0.2  # most cells show no object
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        began, right, seen = time.monotonic(), 0, 0
        for batch in read_batches(loader):
            logits = head(backbone(batch.images)[-1])  # (B, K + 1, H, W)
            mask = F.interpolate(batch.padding_mask[None].float(), size=logits.shape[-2:])[0].bool()
            labels = cell_labels(batch.targets, mask, data.num_classes)
            loss = F.cross_entropy(logits, labels, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            shows_object = (labels >= 0) & (labels < data.num_classes)
            right += int((logits.argmax(1) == labels)[shows_object].sum())
            seen += int(shows_object.sum())
        print(
            f"epoch {epoch + 1}/{epochs}: {right / max(1, seen):.1%} right, {time.monotonic() - began:.0f} s",
            flush=True,
        )


def main() -> None:
    """Train, write the backbone's weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the COCO folder")
    parser.add_argument("destination", type=Path, help="the file to write")
    parser.add_argument("--backbone", default="mobilenet_v3_small")
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--scale", type=int, default=192, help="shorter side of the images (%(default)s)")
    parser.add_argument("--max_size", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    tune_malloc()
    torch.manual_seed(SEED)
    backbone = Backbone(args.backbone, stride=args.stride, batch_norm="train")
    train(backbone, args.folder, args.scale, args.max_size, args.epochs)
    torch.save(backbone.body.state_dict(), args.destination)
    print(f"saved {args.destination}")


if __name__ == "__main__":
    main()
