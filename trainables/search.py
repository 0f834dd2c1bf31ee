"""One search: its whole state, advanced batch by batch. It knows no Ray, no slice and no budget."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from trainables.alpha import ArchitectureParameters
from trainables.architecture import Architecture
from trainables.data import BatchTransform, Dataset, make_splits
from trainables.device import sent
from trainables.epoch_plan import Phase, PlannedBatch, plan_epoch
from trainables.momentum_sgd import MomentumSGD
from trainables.objective import best_of_random, measure_objective
from trainables.position import EpochResult, EpochTotals, Position, Snapshot
from trainables.sampling import (
    Sampler,
    entropy,
    exploiting_log_probabilities,
    exploring_log_probabilities,
    random_stream,
    seeded_torch,
    stream_seed,
)
from trainables.schedule import Schedule, cosine_learning_rate, exploration_probability
from trainables.search_step import architecture_step, count_correct, weight_step
from trainables.settings import TrialSettings
from trainables.supernet import Supernet
from trainables.training import LabelledImages, Steps
from trainables.training_settings import Recipe


class Search:
    """A NASIB search: a function of its seed, its settings and its history of horizons.

    Args:
        settings: Of the trial. Its horizon is told to the schedule; its slice is not looked at.
        dataset: The data; the test part is not read.
        device: Where to compute. The training images are kept there.
        left: A search of the same process that will not be used any more: its network is, if it fits.
        to_be_loaded: Whether all weights will be loaded next, so that none need be drawn.

    Attributes:
        supernet: The network.
        optimizer: Of the supernet's weights.
        parameters: alpha.
        sampler: Policies and frequencies.
        position: Progress.
        totals: Of the running epoch.
        snapshots: After the epochs 1, 2, 4, 8, ... that are done.

    Raises:
        ValueError: Data and settings do not fit.
    """

    supernet: Supernet

    def __init__(
        self,
        settings: TrialSettings,
        dataset: Dataset,
        device: torch.device,
        left: Search | None = None,
        to_be_loaded: bool = False,
    ) -> None:
        self.settings = settings
        search = settings.search
        splits = make_splits(dataset.train.labels, settings.data, settings.split_seed)
        self.data_fingerprint = dataset.fingerprint
        self.splits_fingerprint = _fingerprint(splits.weights, splits.alpha, splits.selection)
        self._parts = {
            Phase.WEIGHTS: splits.weights,
            Phase.ALPHA: splits.alpha,
            Phase.SELECTION: self._shuffled(splits.selection, "selection order"),
        }
        self.plan = plan_epoch(
            {phase: len(part) for phase, part in self._parts.items()}, search.batch_size, search.alternate
        )
        self._images = dataset.train.images.to(device)
        self._labels = dataset.train.labels.to(device)
        self._transform = BatchTransform(dataset, settings.data, device)
        self._device = device

        channels, height, width = dataset.train.images.shape[1:]
        made_of = search, (channels, height, width), len(dataset.class_names)
        with seeded_torch(stream_seed(settings.seed, "initial weights")):
            if left is not None and left.supernet.fits(*made_of):
                self.supernet = left.supernet
                if not to_be_loaded:
                    self.supernet.begin_anew()
            else:
                self.supernet = Supernet(*made_of)
        self.supernet.to(device)
        self.optimizer = MomentumSGD(
            self.supernet.named_parameters(), search.momentum, search.weight_decay, search.gradient_clip
        )
        self.parameters = ArchitectureParameters(search)
        self.sampler = Sampler(search.layers, len(search.candidate_names), search.lambda_)
        self.position = Position()
        self.totals = EpochTotals.zero(device)
        self.snapshots: list[Snapshot] = []
        self._orders: tuple[int, dict[Phase, Tensor]] | None = None
        self._measurement: Steps[float] | None = None
        self._measuring_seconds = 0.0
        self.tell_horizon()

    def tell_horizon(self) -> None:
        """Note the settings' horizon in the history if it is news; a running epoch ends as it began."""
        history, horizon = self.position.history, self.settings.horizon
        if horizon != (history[-1][1] if history else None):
            history.append((self.position.batches, horizon))
        self.schedule = Schedule.replay(self.settings.search.anneal, history, len(self.plan))

    @property
    def epochs(self) -> int:
        """Whole epochs done, the objective measured where that is due."""
        return self.position.batches // len(self.plan) - self.position.measuring

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return self.position.measuring or self.position.batches % len(self.plan) > 0

    @property
    def current_epoch(self) -> int:
        """The epoch, from 1, that the last batch belonged to; 1 before any."""
        return max(1, -(-self.position.batches // len(self.plan)))

    @property
    def finished(self) -> bool:
        """Whether the epochs of the horizon are done."""
        return self.schedule.horizon is not None and not self.in_epoch and self.epochs >= self.schedule.horizon

    @property
    def clock(self) -> float:
        """The annealing clock of the current epoch."""
        return self.schedule.clock(self.current_epoch)

    @property
    def p(self) -> float:
        """Probability of the exploring policy in the current epoch."""
        return exploration_probability(self.clock, self.settings.search.k)

    @property
    def learning_rate(self) -> float:
        """Of the weights in the current epoch."""
        search = self.settings.search
        return cosine_learning_rate(self.clock, search.learning_rate, search.lr_min)

    @property
    def batches(self) -> int:
        """Batches done, of all epochs."""
        return self.position.batches

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch, of both passes and the evaluation."""
        return len(self.plan)

    def run_batch(self) -> None:
        """Do the next batch of the epoch's plan, whichever pass it belongs to, or of measuring the objective.

        Raises:
            ValueError: The next epoch needs a horizon and none is known.
        """
        if self.position.measuring:
            self._measure_further()
            return
        assert not self.finished, f"the search has done its {self.epochs} epochs"
        self.schedule.clock(self.epochs + 1)  # Raises before anything of the epoch is done.
        started = time.perf_counter()
        batch = self.plan[self.position.batches % len(self.plan)]
        self.position.batches += 1
        if self.supernet.training == (batch.phase is Phase.SELECTION):
            self.supernet.train(batch.phase is not Phase.SELECTION)
        with seeded_torch(stream_seed(self.settings.seed, "operations", self.position.batches), self._device):
            if batch.phase is Phase.WEIGHTS:
                self._weight_batch(batch)
            elif batch.phase is Phase.ALPHA:
                self._architecture_batch(batch)
            else:
                self._selection_batch(batch)
        epoch_ends = self.position.batches % len(self.plan) == 0
        correct = int(self.totals.correct) if epoch_ends else 0  # Waits for the device, so that the time is all of it.
        self.totals.seconds += time.perf_counter() - started
        if epoch_ends:
            self._end_epoch(correct)

    def architecture(self) -> Architecture:
        """The network that the search prefers, as things stand."""
        names = self.settings.search.candidate_names
        return Architecture(tuple(names[column] for column in self._preferred()), self.supernet.shape)

    def sampling_probabilities(self) -> Tensor:
        """Probability that a layer's first draw is each candidate, p P1 + (1 - p) P2; float64 [layers, N]."""
        explore = exploring_log_probabilities(self.sampler.frequency).exp()
        exploit = exploiting_log_probabilities(self.parameters.alpha, self.settings.search.lambda_).exp()
        return self.p * explore + (1 - self.p) * exploit

    def snapshot(self) -> Snapshot:
        """What the search thinks of its candidates now."""
        frequency = self.sampler.frequency.clone()
        return Snapshot(self.current_epoch, self.parameters.alpha.clone(), frequency, self.sampling_probabilities())

    def alpha_entropy(self) -> float:
        """Entropy of softmax(alpha) in nats, the mean over layers."""
        return float(entropy(torch.log_softmax(self.parameters.alpha, dim=1)).mean())

    def effective_candidates(self) -> list[float]:
        """exp(entropy of P2) of each layer: 1 where one candidate has it all, N where all are alike."""
        log_probabilities = exploiting_log_probabilities(self.parameters.alpha, self.settings.search.lambda_)
        return [float(value) for value in entropy(log_probabilities).exp()]

    def _weight_batch(self, batch: PlannedBatch) -> None:
        images, labels = self._images_of(batch, augment=True)
        loss = weight_step(
            self.supernet,
            self.optimizer,
            images,
            labels,
            self._draw(),
            pair_scale=self.settings.search.pair_scale,
            learning_rate=self.learning_rate,
        )
        self.totals.weight_loss += loss.double() * (batch.stop - batch.start)

    def _architecture_batch(self, batch: PlannedBatch) -> None:
        images, labels = self._images_of(batch, augment=False)
        loss = architecture_step(self.supernet, self.parameters, images, labels, self._draw())
        self.totals.alpha_loss += loss.double() * (batch.stop - batch.start)

    def _selection_batch(self, batch: PlannedBatch) -> None:
        images, labels = self._images_of(batch, augment=False)
        self.totals.correct += count_correct(self.supernet, images, labels, self._preferred())

    def _draw(self) -> Tensor:
        generator = random_stream(self.settings.seed, "draw", self.position.batches)
        return self.sampler.draw(self.parameters.alpha, self.p, generator)

    def _preferred(self) -> list[int]:
        """The column of each layer's operation."""
        if self.position.chosen is not None:
            return self.position.chosen
        ties = random_stream(self.settings.seed, "ties", self.current_epoch)
        columns: list[int] = self.parameters.argmax(self.sampler.frequency, ties).tolist()
        return columns

    def _images_of(self, batch: PlannedBatch, augment: bool) -> tuple[Tensor, Tensor]:
        chosen = self._order(batch.phase)[batch.start : batch.stop]
        generator = None
        if augment:
            generator = random_stream(self.settings.seed, "augmentation", self.position.batches, device=self._device)
        return self._transform(self._images[chosen], generator), self._labels[chosen]

    def _order(self, phase: Phase) -> Tensor:
        """The epoch's order of a part of the training set, as indices on the device."""
        epoch = self.current_epoch
        if self._orders is None or self._orders[0] != epoch:
            orders = {Phase.SELECTION: sent(self._parts[Phase.SELECTION], self._device)}
            for shuffled in (Phase.WEIGHTS, Phase.ALPHA):
                generator = random_stream(self.settings.seed, f"{shuffled.value} order", epoch)
                part = self._parts[shuffled]
                orders[shuffled] = sent(part[torch.randperm(len(part), generator=generator)], self._device)
            self._orders = epoch, orders
        return self._orders[1][phase]

    def _end_epoch(self, correct: int) -> None:
        weights, alpha, selection = (len(part) for part in self._parts.values())
        search = self.settings.search
        self.position.last_epoch = EpochResult(
            train_loss=float(self.totals.weight_loss) / weights,
            architecture_loss=float(self.totals.alpha_loss) / alpha,
            val_accuracy=math.nan,
            val_accuracy_stderr=math.nan,
            epoch_seconds=self.totals.seconds,
        )
        self._note_accuracy(correct / selection, derived=search.derive == "alpha")
        self.totals = EpochTotals.zero(self._device)
        if self.current_epoch.bit_count() == 1:
            self.snapshots.append(self.snapshot())
        worked_for = search.objective != "shared-accuracy" or search.derive == "random-search"
        self.position.measuring = worked_for and self._compared(self.current_epoch)

    def _note_accuracy(self, accuracy: float, derived: bool) -> None:
        """Enter what the preferred network does on the selection part; ``derived`` if it was chosen by now."""
        assert self.position.last_epoch is not None, "accuracy is measured after an epoch"
        self.position.last_epoch = replace(
            self.position.last_epoch,
            val_accuracy=accuracy,
            val_accuracy_stderr=math.sqrt(accuracy * (1 - accuracy) / len(self._parts[Phase.SELECTION])),
            objective=accuracy if derived and self.settings.search.objective == "shared-accuracy" else math.nan,
        )
        if derived and not accuracy <= self.position.best_val_accuracy:
            self.position.best_val_accuracy = accuracy

    def _compared(self, epochs: int) -> bool:
        """Whether the search will be compared with others after so many epochs."""
        at, horizon = self.settings.compare_at, self.schedule.horizon
        return at is None or epochs >= at or (horizon is not None and epochs >= horizon)

    def _measure_further(self) -> None:
        """Do the next batch of measuring the objective; after a load it begins anew."""
        began = time.perf_counter()
        if self._measurement is None:
            self._measuring_seconds = 0.0
            self._measurement = self._derive_and_measure()
        try:
            next(self._measurement)
        except StopIteration as end:
            self._measurement, self.position.measuring = None, False
            taken = self._measuring_seconds + time.perf_counter() - began
            assert self.position.last_epoch is not None, "the objective is measured after an epoch"
            self.position.last_epoch = replace(self.position.last_epoch, objective=end.value, objective_seconds=taken)
        self._measuring_seconds += time.perf_counter() - began

    def leave_measurement(self) -> None:
        """Forget what was measured of the objective so far."""
        self._measurement = None

    def _derive_and_measure(self) -> Steps[float]:
        """Choose the preferred network, where alpha does not, and measure the objective of it.

        Every search of the sweep is measured with the same seeds and on images in the same order, at any epoch: what a
        seed does to all networks alike then cancels when they are compared (common random numbers).
        """
        search, common_seed = self.settings.search, self.settings.split_seed
        weights = self._labelled(self._shuffled(self._parts[Phase.WEIGHTS], "objective order").to(self._device))
        selection = self._labelled(self._order(Phase.SELECTION))
        if search.derive == "random-search":
            drawn = random_stream(self.settings.seed, "random search", self.current_epoch)
            bounds = [(batch.start, batch.stop) for batch in self.plan if batch.phase is Phase.SELECTION]
            if self.supernet.training:
                self.supernet.train(False)
            columns, correct = yield from best_of_random(
                self.supernet, len(search.candidate_names), selection, bounds, search.derive_samples, drawn
            )
            self.position.chosen = columns
            self._note_accuracy(correct / len(selection.part), derived=True)
        if search.objective == "shared-accuracy":
            assert self.position.last_epoch is not None, "the objective is measured after an epoch"
            return self.position.last_epoch.objective
        return (
            yield from measure_objective(
                search.objective,
                self.supernet,
                self.architecture(),
                Recipe.of_search(search),
                weights=weights,
                selection=selection,
                seed=stream_seed(common_seed, "objective"),
                epochs=search.objective_epochs,
                trainings=search.objective_trainings,
            )
        )

    def _labelled(self, part: Tensor) -> LabelledImages:
        return LabelledImages(self._images, self._labels, part, self._transform)

    def _shuffled(self, part: Tensor, purpose: str) -> Tensor:
        """A part in an order that all searches of a sweep share; splits may come sorted by class."""
        return part[torch.randperm(len(part), generator=random_stream(self.settings.split_seed, purpose))]


def _fingerprint(*parts: Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()
