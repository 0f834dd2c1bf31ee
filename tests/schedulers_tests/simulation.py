"""A simulated sweep with a journal in memory, watched from outside at every event."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from schedulers import simulated_world
from schedulers.allocation import Allocator
from schedulers.budget import Budget
from schedulers.record_book import RecordBook
from schedulers.rules import Rules
from schedulers.search_record import Kind
from schedulers.simulator import BEGINNING, Simulator
from schedulers.sweep_state import SweepState
from schedulers.workload import Learner, Workload
from tests.schedulers_tests.conftest import MemoryBook


@dataclass(frozen=True)
class World(simulated_world.World):
    """A simulated world, and what the trials of these tests take in it.

    Attributes:
        epoch: Wall seconds of an epoch, but for ``jitter``, the standard deviation of its logarithm.
        told: Whether trials are told horizon and slice, and stop by themselves; else they run ``max_t`` epochs.
        searches: As :class:`schedulers.rules.Rules` has it, and so ``limit`` (most_searches) and ``finalists``.
        comparing: Wall seconds that a search measures at the end of a slice.
        deadline: Wall seconds from the beginning; None: there is none.
    """

    slots: int = 2
    devices: float = 1.0
    epoch: float = 10.0
    jitter: float = 0.05
    told: bool = True
    max_t: int = 27
    searches: int = 8
    limit: int | None = None
    finalists: int = 0
    comparing: float = 0.0
    deadline: float | None = None


class Steady(Learner):
    """Comes a tenth of the way that is left to its quality with every epoch."""

    def __init__(self, world: World, drawn: random.Random, quality: float, length: float) -> None:
        self._world = world
        self._random = drawn
        self._quality = quality
        self._length = length
        self._epochs = 0

    def epoch_seconds(self) -> float:
        return self._length * self._world.epoch * math.exp(self._random.gauss(0, self._world.jitter))

    def compare_seconds(self) -> float:
        return self._world.comparing

    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        self._epochs += 1
        return {"value": self._quality * (1 - math.exp(-self._epochs / 10))}


class SteadyWork(Workload):
    """Trials whose quality their number decides; the epochs of finalists are half as long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random.Random(world.seed)

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner]:
        if kind == "search":
            return {}, Steady(self._world, self._random, quality_of(number), 1.0)
        finalist = replace(self._world, comparing=0.0)
        return {}, Steady(finalist, self._random, random.Random(f"finalist {number}").random(), 0.5)


def quality_of(number: int) -> float:
    """What a search comes to in the end."""
    return random.Random(f"t{number}").random()


class Simulation(Simulator):
    """A sweep in such a world, seen by an outside observer, and ticked at every event as often as Ray's is.

    Attributes:
        book: The journal.
        most: The most that was ever spent and promised at once.
        held: Device-seconds that were held, in truth.
    """

    def __init__(self, world: World, budget: float, allocator: Allocator) -> None:
        self.deadline = world.deadline
        self.records: list[dict[str, Any]] = []
        self.most = self.held = 0.0
        self.events = 0
        rules = Rules(
            devices=world.devices,
            metric="value",
            epochs_key="epochs" if world.told else "training_iteration",
            full_epochs=None if world.told else world.max_t,
            searches=world.searches,
            most_searches=world.limit,
            finalists=world.finalists,
            horizon_told=world.told,
            slice_told=world.told,
        )
        super().__init__(world, SteadyWork(world), allocator, Budget(budget, "cpu"), rules)

    def drive(self, allocator: Allocator, book: RecordBook | None = None, state: SweepState | None = None) -> None:
        """A driver begins with what the journal says."""
        self.book = MemoryBook(self.clock, self.records)
        self.records = self.book.records
        super().drive(allocator, self.book, SweepState.replay(None, self.records))
        until = None if self.deadline is None else BEGINNING + self.deadline
        self.core.append("limits", max_storage_bytes=None, deadline=until)

    def advance(self) -> None:
        self.events += 1
        assert self.events < 200_000, "the sweep does not end"
        super().advance()
        ledger = self.core.state.ledger
        self.most = max(self.most, ledger.spent + ledger.granted)

    def pass_time(self, seconds: float) -> None:
        super().pass_time(seconds)
        self.held += seconds * self.rules.devices * len(self.processes)
        self.core.tick({process.key: self.holding(process) for process in self.processes.values()})

    def horizons(self) -> list[list[int]]:
        """What each trial was told, grant by grant."""
        told: dict[str, list[int]] = {}
        for record in self.book.records:
            if record["event"] == "grant" and record["horizon"] is not None:
                told.setdefault(record["trial"], []).append(record["horizon"])
        return list(told.values())
