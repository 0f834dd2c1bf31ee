"""Population Based Training as a peer in the simulator: losers go on as changed copies of winners."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any

from schedulers.allocation import Slice, SweepView
from schedulers.allocators import measure
from schedulers.peers import Peer
from schedulers.search_record import Kind, SearchRecord
from schedulers.simulated_world import SimulatedTrial
from schedulers.workload import Learner, Workload


class PopulationBasedTraining(Peer):
    """A population that trains together; now and then one of the worst quarter goes on as a copy of one of the best.

    Decides as Ray Tune's PopulationBasedTraining does without ``synch``: a trial is looked at when it has run
    ``interval`` epochs, among the latest values of all that live; whoever has run least goes next. When all of a
    population have come to their end, the next one begins. The copy is a new trial here, and the copied-over one rests
    for ever.

    Args:
        max_t: Epochs of a full trial.
        population: Trials that live at once, at least 1.
        interval: Epochs between two looks; a tenth of ``max_t`` unless told.
        seed: Of which winner is copied.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, arXiv:1711.09846.
    """

    quantile = 0.25

    def __init__(self, max_t: int, population: int, interval: int | None = None, seed: int = 0) -> None:
        super().__init__(max_t)
        self._population = population
        self._interval = interval or max(1, round(max_t / 10))
        self._random = random.Random(seed)
        self._to_begin = population
        self._to_copy = 0
        self._unnamed: deque[int] = deque()
        self._known: set[str] = set()
        self._before: dict[str, int] = {}
        self._latest: dict[str, float] = {}
        self._epochs: dict[str, int] = {}

    def enter(self, saved: Mapping[str, SimulatedTrial]) -> str | None:
        """Take note that a trial is being drawn.

        Args:
            saved: What the newest checkpoint of each trial holds.

        Returns:
            The trial that it is to begin as a copy of; None: it begins anew.
        """
        winners = self._winners()
        if not winners:
            self._to_begin -= 1
            self._unnamed.append(0)
            return None
        self._to_copy -= 1
        winner = self._random.choice(winners)
        self._unnamed.append(self._before[winner] + saved[winner].epochs)
        return winner

    def reach(self, name: str | None) -> int:
        """To the next look, or to the end of its training."""
        done = self._resting[name].epochs if name in self._resting else 0
        before = self._before.get(name, self._max_t) if name is not None else 0
        return done + min(self._interval, max(0, self._max_t - before - done))

    def moved(self, search: SearchRecord) -> None:
        """A new trial joins the population; one that has come to its end, or failed, leaves it."""
        if search.id not in self._known:
            self._known.add(search.id)
            self._before[search.id] = self._unnamed.popleft()
        if search.state in ("finished", "failed") or self._before.get(search.id, 0) + search.epochs >= self._max_t:
            self._leave(search.id)
        super().moved(search)

    def _leave(self, name: str) -> None:
        self._before.pop(name, None)
        if not self._before and not self._to_begin:
            self._to_begin, self._to_copy = self._population, 0

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Have a trial of the worst quarter copied over."""
        if search.id not in self._before:
            return
        self._latest[search.id], self._epochs[search.id] = value, epochs
        ended = self._before[search.id] + epochs >= self._max_t
        if epochs % self._interval == 0 and not ended and search.id in self._quantiles()[0]:
            self._to_copy += 1
            del self._before[search.id]

    def _winners(self) -> list[str]:
        """Whom a copy that is due can be of: whoever it can follow to another look."""
        best = self._quantiles()[1] if self._to_copy else []
        return [name for name in best if self._before[name] + self._epochs[name] + self._interval <= self._max_t]

    def _quantiles(self) -> tuple[list[str], list[str]]:
        """The worst and the best quarter of those that live and have a value; both empty where there are not two."""
        rising = sorted((name for name in self._before if name in self._latest), key=lambda name: self._latest[name])
        count = min(math.ceil(len(rising) * self.quantile), len(rising) // 2)
        return rising[:count], rising[len(rising) - count :]

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """A copy that is due, a new trial as long as the population is not whole, or whoever has run least."""
        if sweep.full_horizon is None:
            return measure(sweep)
        epochs = min(self._interval, sweep.affordable(None))
        if (self._to_begin or self._winners()) and epochs >= 1:
            return Slice(None, epochs, self._max_t, "new")
        waiting = [search for search in sweep.waiting if search.id in self._before]
        for search in sorted(waiting, key=lambda one: self._before[one.id] + one.epochs):
            epochs = min(self.reach(search.id) - search.epochs, sweep.affordable(search))
            if epochs >= 1:
                return Slice(search.id, epochs, self._max_t, "continue")
        return None


class Heritable(Workload):
    """Trials whose state another one can begin with."""

    @abstractmethod
    def inherit(self, learner: Learner, number: int) -> tuple[Mapping[str, Any], Learner]:
        """A trial that goes on from another one's state with a configuration near its own.

        Args:
            learner: The other one's, not changed.
            number: How many were drawn before.
        """


class PopulationWorkload(Workload):
    """Trials of a population: new ones, and copies.

    Attributes:
        saved: What the newest checkpoint of each trial holds; the simulator's.
    """

    def __init__(self, trials: Heritable, population: PopulationBasedTraining) -> None:
        self.epoch_seconds = trials.epoch_seconds
        self.saved: Mapping[str, SimulatedTrial] = {}
        self._trials = trials
        self._population = population

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        """A copy if one is due, else a new one."""
        winner = self._population.enter(self.saved)
        if winner is None:
            return self._trials.draw(number, kind)
        return self._trials.inherit(self.saved[winner].learner, number)
