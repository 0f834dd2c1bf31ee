"""Training one plain network: from scratch, or a little further from the weights that a search left."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.augmentation import BatchTransform
from trainables.epoch_plan import batch_bounds
from trainables.momentum_sgd import MomentumSGD
from trainables.sampling import random_stream, seeded_torch, stream_seed
from trainables.schedule import cosine_learning_rate
from trainables.settings import Precision
from trainables.training_settings import Recipe

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledImages:
    """Images that a network is trained or judged on.

    Attributes:
        images: uint8 [N, C, H, W], of the whole set, on the device that computes.
        labels: int64 [N], likewise.
        part: Which of them, int64, likewise.
        transform: What normalises and augments them.
    """

    images: Tensor
    labels: Tensor
    part: Tensor
    transform: BatchTransform

    def batch(self, chosen: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Normalised images [B, C, H, W] and labels [B] of some numbers; augmented, given a generator."""
        return self.transform(self.images[chosen], generator), self.labels[chosen]


class Training:
    """The training of a network: a function of its seed, its recipe, its data and the horizons that it was told.

    The clock runs on a straight line from 0 in the first batch to 1 in the last one; when the horizon changes, on
    another one from where it is.

    Args:
        network: Changed in place, on the device of the images.
        recipe: How.
        data: On what.
        seed: Of order, augmentation, dropped paths.
        horizon: Epochs of the whole training. None: not yet known; the clock stands still as long.

    Attributes:
        network: The network.
        optimizer: Of its weights.
        horizon: Epochs; may be set between two batches.
        batches: That are done.
        clock: Of the next batch.
        loss: Sum over the running epoch, each batch's mean times its images; float64 scalar on the device.
        seconds: Wall seconds of the running epoch.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, data: LabelledImages, seed: int, horizon: int | None
    ) -> None:
        self.network = network
        self.recipe = recipe
        self.optimizer = MomentumSGD(
            network.named_parameters(), recipe.momentum, recipe.weight_decay, recipe.gradient_clip
        )
        self.horizon = horizon
        self.batches = 0
        self.clock = 0.0
        self.seconds = 0.0
        self._data = data
        self._seed = seed
        self._bounds = batch_bounds(len(data.part), recipe.batch_size)
        self._device = data.images.device
        self.loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self._weights = list(network.parameters())
        self._order: tuple[int, Tensor] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one pass over the images."""
        return len(self._bounds)

    @property
    def epochs(self) -> int:
        """Whole epochs done."""
        return self.batches // self.batches_per_epoch

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return self.batches % self.batches_per_epoch > 0

    @property
    def finished(self) -> bool:
        """Whether the epochs of the horizon are done."""
        return self.horizon is not None and not self.in_epoch and self.epochs >= self.horizon

    @property
    def learning_rate(self) -> float:
        """Of the next batch; of the last one, when all are done."""
        return cosine_learning_rate(self.clock, self.recipe.learning_rate, self.recipe.lr_min)

    def run_batch(self) -> None:
        """Train on the next batch."""
        assert not self.finished, f"the training has done its {self.horizon} epochs"
        began = time.perf_counter()
        if not self.in_epoch:
            self.loss, self.seconds = torch.zeros_like(self.loss), 0.0
        self.network.train()
        epoch, number = divmod(self.batches, self.batches_per_epoch)
        start, stop = self._bounds[number]
        chosen = self._epoch_order(epoch)[start:stop]
        generator = random_stream(self._seed, "training augmentation", self.batches, device=self._device)
        images, labels = self._data.batch(chosen, generator)
        with seeded_torch(stream_seed(self._seed, "training operations", self.batches), self._device):
            logits = logits_of(self.network, images, self.recipe.precision)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(self.learning_rate, self._weights)
        self.loss += loss.detach().double() * (stop - start)
        self.batches += 1
        self._advance_clock()
        if not self.in_epoch:
            float(self.loss)  # Waits for the device, so that the time is all of it.
        self.seconds += time.perf_counter() - began

    def run(self) -> None:
        """Train to the end."""
        assert self.horizon is not None, "a training without a horizon has no end"
        while not self.finished:
            self.run_batch()

    @property
    def mean_loss(self) -> float:
        """Of the epoch that was run last, as far as it was."""
        done = self.batches % self.batches_per_epoch or self.batches_per_epoch
        return float(self.loss) / self._bounds[done - 1][1]

    def _advance_clock(self) -> None:
        if self.horizon is not None:
            steps = self.horizon * self.batches_per_epoch - self.batches
            self.clock = self.clock + (1.0 - self.clock) / steps if steps > 1 else 1.0

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            part = self._data.part
            generator = random_stream(self._seed, "training order", epoch)
            self._order = epoch, part[torch.randperm(len(part), generator=generator).to(part.device)]
        return self._order[1]


def logits_of(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """What a network makes of normalised images, float32 [B, classes]."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits: Tensor = network(images)
    return logits.float()


@dataclass(frozen=True)
class Judgement:
    """How well a network does on some images.

    Attributes:
        correct: Images that it classifies correctly.
        images: How many there were.
        loss: Mean cross entropy.
    """

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share that is correct."""
        return self.correct / self.images


Steps = Generator[None, None, T]
"""Work that gives way after every batch, so that whoever runs it can leave it off."""


def finish(steps: Steps[T]) -> T:
    """Run work to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def correctly_classified(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of logits [B, classes] are largest at their label [B]; none that has NaN or infinity.

    A network that has diverged would else have the share of the first class as its accuracy.
    """
    correct: Tensor = (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)
    return correct.sum()


def judge(network: nn.Module, data: LabelledImages, batch_size: int, precision: Precision = "float32") -> Judgement:
    """Evaluate a network, in evaluation mode, on all images of a part."""
    return finish(judging(network, data, batch_size, precision))


@torch.no_grad()
def judging(
    network: nn.Module, data: LabelledImages, batch_size: int, precision: Precision = "float32"
) -> Steps[Judgement]:
    """The same, batch by batch."""
    network.eval()
    device = data.images.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(data.part), batch_size):
        images, labels = data.batch(data.part[start : start + batch_size])
        logits = logits_of(network, images, precision)
        correct += correctly_classified(logits, labels)
        loss += functional.cross_entropy(logits, labels, reduction="sum").double()
        yield
    return Judgement(int(correct), len(data.part), float(loss) / len(data.part))


@torch.no_grad()
def recalibrating(
    network: nn.Module,
    data: LabelledImages,
    batch_size: int,
    most_images: int,
    seed: int,
    precision: Precision = "float32",
) -> Steps[None]:
    """Give every batch norm the statistics of these images, at most so many of them, under the present weights."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The plain mean over all batches.
    network.train()
    part = data.part[:most_images]
    for start, stop in batch_bounds(len(part), batch_size):
        with seeded_torch(stream_seed(seed, "recalibration", start), data.images.device):
            logits_of(network, data.batch(part[start:stop])[0], precision)
        yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
