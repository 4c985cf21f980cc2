"""What the benchmarks share: a batch, our model and the peer's with the same weights, steps, and timing in turn."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager

import torch

from detr.models.cpu_kernels import tune_malloc
from detr.models.criterion import SetCriterion
from detr.models.detr import Detr, DetrConfig
from detr.models.matcher import HungarianMatcher
from detr.structures import Batch, DetrOutput, Targets
from detr.training.device import Precision
from detr.training.schedule import OptimConfig
from detr.training.trainer import Trainer
from tests.peer import make_peer, peer_labels

CLASSES = 91
BF16 = torch.bfloat16
CLIP = OptimConfig().clip_max_norm


def make_batch(images: int = 2, height: int = 640, width: int = 864, objects: int = 8) -> Batch:
    """Random images of one size with `objects` boxes and masks each."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(images, 3, height, width, generator=generator)
    boxes = torch.rand(images, objects, 4, generator=generator) * 0.4 + 0.1
    labels = torch.randint(CLASSES, (images, objects), generator=generator)
    sizes = [(height, width)] * images
    masks = torch.rand(images * objects, height, width, generator=generator) < 0.2
    targets = Targets(labels, boxes, [objects] * images, list(range(images)), sizes, masks)
    return Batch(pixels, torch.zeros(images, height, width, dtype=torch.bool), targets)


def precision(dtype: torch.dtype | None, device: str = "cpu") -> Precision:
    return Precision(torch.device(device).type, dtype)


class Ours:
    """Our DETR in training: forward, loss, backward, clipping, AdamW."""

    def __init__(
        self,
        batch: Batch,
        frozen_backbone: bool = False,
        frozen_detector: bool = False,
        device: str = "cpu",
        **config: object,
    ) -> None:
        torch.manual_seed(0)
        self.batch = batch.to(torch.device(device))
        self.device = device
        self.model = Detr(DetrConfig(CLASSES, **config))
        if frozen_backbone:
            self.model.freeze_backbone()
        if frozen_detector:
            self.model.freeze_detector()
        self.model.to(device)
        self.criterion = SetCriterion(CLASSES, HungarianMatcher()).to(device)
        self.training = Trainer(self.model, self.criterion, OptimConfig(), 1, precision(None, device))

    def forward(self, dtype: torch.dtype | None) -> None:
        self.model.eval()
        with torch.inference_mode(), precision(dtype, self.device).autocast():
            self.model(self.batch.images, self.batch.padding_mask, self._as_many_as_objects)

    def _as_many_as_objects(self, outputs: DetrOutput) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose so many queries as there are objects, where there are masks: as a prediction keeps them."""
        counts = self.batch.targets.counts
        image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return image.to(self.device), torch.cat([torch.arange(count) for count in counts]).to(self.device)

    def step(self, dtype: torch.dtype | None) -> None:
        self.training.precision = precision(dtype, self.device)
        self.training.train_epoch([self.batch])


class Peer:
    """`transformers`' DETR with the weights and frozen layers of `ours`, and the same optimizer."""

    def __init__(self, ours: Ours) -> None:
        self.batch, self.device = ours.batch, ours.device
        self.model = make_peer(ours.model).to(ours.device)
        self.model.config.auxiliary_loss = True
        self.labels = peer_labels(self.batch.targets)
        if ours.model.config.masks:
            masks = self.batch.targets.masks.split(self.batch.targets.counts)
            self.labels = [label | {"masks": own} for label, own in zip(self.labels, masks, strict=True)]
            self._adapt_before_repeating(self.model.mask_head)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    @staticmethod
    def _adapt_before_repeating(head: torch.nn.Module) -> None:
        """Let the head narrow the backbone's maps before it repeats them for each query, as the reference's does.

        `transformers` 5 repeats them first: the same numbers, in three times the time and with 20 GB instead of 5.
        """
        head.adapters = torch.nn.ModuleList(stage.fpn_adapter for stage in head.fpn_stages)
        for stage in head.fpn_stages:
            stage.fpn_adapter = torch.nn.Identity()

        def adapt(head: torch.nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
            maps = [adapter(one) for adapter, one in zip(head.adapters, inputs["fpn_features"], strict=True)]
            return args, inputs | {"fpn_features": maps}

        head.register_forward_pre_hook(adapt, with_kwargs=True)

    def forward(self, dtype: torch.dtype | None) -> None:
        self.model.eval()
        with torch.inference_mode(), precision(dtype, self.device).autocast():
            self.model(self.batch.images, pixel_mask=~self.batch.padding_mask)

    def step(self, dtype: torch.dtype | None) -> None:
        self.model.train()
        with precision(dtype, self.device).autocast():
            loss = self.model(self.batch.images, pixel_mask=~self.batch.padding_mask, labels=self.labels).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()


class OwnProcess(AbstractContextManager):
    """One side in a process of its own, as it is in use: neither finds its memory as the other left it.

    Called with the name of a method and a number format, it runs that there and waits for it.
    """

    def __init__(self, side: str, **config: object) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _build, (side, config))

    def __call__(self, method: str, dtype: torch.dtype | None) -> None:
        self._pool.submit(_call, method, dtype).result()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def _build(side: str, config: dict) -> None:
    """Build the model that `_call` runs, in the process of this side."""
    global _model
    if side == "ours":
        tune_malloc()  # as main.py does; the peer's process runs as Python does by itself
    _model = Ours(make_batch(), **config)
    if side == "peer":
        _model = Peer(_model)


def _call(method: str, dtype: torch.dtype | None) -> None:
    getattr(_model, method)(dtype)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call, the device included."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1, before_each: int = 0
) -> dict[str, list[float]]:
    """Times of every call, A B C A B C ..., after rounds that are not counted: a slow minute slows all alike.

    `before_each` calls are made before each that is counted: who has waited finds caches and memory cold.
    """
    for call in list(calls.values()) * warm_up:
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(before_each):
                call()
            times[name].append(seconds(call))
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the ratios of calls that were made in the same round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
