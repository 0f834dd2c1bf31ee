"""Rules of other schedulers, to compare with in the simulator; each draws trials until the budget is used."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.allocators import geometric_rungs, measure
from schedulers.search_record import SearchRecord


class Peer(Allocator):
    """Runs every trial as far as it may go, what was begun before anything new.

    Args:
        max_t: Epochs of a full trial.
    """

    def __init__(self, max_t: int) -> None:
        self._max_t = max_t
        self._resting: dict[str, SearchRecord] = {}
        self._ready: dict[str, SearchRecord] = {}

    @abstractmethod
    def reach(self, name: str | None) -> int:
        """The epochs up to which a trial may run as things stand (None: a new one); 0: no further."""

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Values decide nothing unless told."""

    def moved(self, search: SearchRecord) -> None:
        """File what rests, and may go on."""
        self._resting.pop(search.id, None)
        self._ready.pop(search.id, None)
        if search.state == "paused":
            self._resting[search.id] = search
            if self.reach(search.id) > search.epochs:
                self._ready[search.id] = search

    def released(self, names: Iterable[str]) -> None:
        """File anew what may go on now."""
        for name in names:
            if name in self._resting:
                self.moved(self._resting[name])

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """Whoever rests and may go on, the last one first, as its process is still there; then a new trial."""
        if sweep.full_horizon is None:
            return measure(sweep)
        for search in reversed(self._ready.values()):
            epochs = min(self.reach(search.id) - search.epochs, sweep.affordable(search))
            if search in sweep.waiting and epochs >= 1:
                return Slice(search.id, epochs, self._max_t, "continue")
        epochs = min(self.reach(None), sweep.affordable(None))
        return Slice(None, epochs, self._max_t, "new") if sweep.more_searches and epochs >= 1 else None


class FirstComeFirstServed(Peer):
    """Every trial to its end: no early stopping."""

    def reach(self, name: str | None) -> int:
        """To the end."""
        return self._max_t


class AshaStopping(Peer):
    """Asynchronous halving that stops: at a rung whoever is below the best ``1 / eta`` so far never goes on.

    Decides as Ray Tune's ASHAScheduler does: a trial's value at a rung is compared with the percentile of those that
    came before it, by linear interpolation.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    def __init__(self, max_t: int, grace_period: int = 1, eta: int = 4) -> None:
        super().__init__(max_t)
        self._eta = eta
        self._rungs = [*geometric_rungs(grace_period, eta, max_t), max_t]
        self._recorded: dict[int, list[float]] = {rung: [] for rung in self._rungs[:-1]}
        self._seen: dict[int, set[str]] = {rung: set() for rung in self._rungs[:-1]}
        self._reach: dict[str, int] = {}

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Decide at a rung."""
        recorded = self._recorded.get(epochs)
        if recorded is None or search.id in self._seen[epochs]:
            return
        stops = bool(recorded) and value < _percentile(recorded, 1 - 1 / self._eta)
        insort(recorded, value)
        self._seen[epochs].add(search.id)
        self._reach[search.id] = 0 if stops else self._rungs[bisect_right(self._rungs, epochs)]

    def reach(self, name: str | None) -> int:
        """To the next rung."""
        return self._rungs[0] if name is None else self._reach.get(name, self._rungs[0])


class MedianStopping(Peer):
    """Stops a trial whose best value so far is below the median of the others' running averages.

    Decides as Ray Tune's MedianStoppingRule does once there are enough others; before, it lets every trial go on.

    References:
        Golovin et al., Google Vizier: A Service for Black-Box Optimization, KDD 2017, section 3.2.2.
    """

    def __init__(self, max_t: int, grace_period: int = 5, least_others: int = 3) -> None:
        super().__init__(max_t)
        self._grace_period = grace_period
        self._least_others = least_others
        self._epochs: dict[str, int] = {}
        self._best: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._averages: dict[int, list[float]] = {}
        self._stopped: set[str] = set()

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Decide after every epoch."""
        name = search.id
        if self._epochs.get(name, 0) >= epochs:
            return  # Done once more after a crash.
        self._epochs[name], self._best[name] = epochs, max(value, self._best.get(name, -math.inf))
        if epochs < self._grace_period:
            return
        self._sums[name] = self._sums.get(name, 0.0) + value
        others = self._averages.setdefault(epochs, [])
        if len(others) >= self._least_others and self._best[name] < _median(others):
            self._stopped.add(name)
        insort(others, self._sums[name] / (epochs - self._grace_period + 1))

    def reach(self, name: str | None) -> int:
        """One more epoch, by which it is judged."""
        if name is None:
            return 1
        return 0 if name in self._stopped else min(self._max_t, self._epochs.get(name, 0) + 1)


@dataclass
class Bracket:
    """One bracket of HyperBand: so many trials run so many epochs, then the best ``1 / eta`` of them go on.

    Attributes:
        room: How many trials take part now.
        epochs: Up to which they run now.
        halvings: How often they are still halved.
        values: What each trial has come to there; None: it is not there yet.
        closed: Whether no more trials can be had, so that those that are there are all.
    """

    room: int
    epochs: int
    halvings: int
    values: dict[str, float | None] = field(default_factory=dict)
    closed: bool = False

    @property
    def full(self) -> bool:
        """Whether it takes no more trials."""
        return self.closed or len(self.values) >= self.room

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return bool(self.values) and self.full and None not in self.values.values()

    def drop(self, name: str) -> None:
        """A trial has ended."""
        del self.values[name]
        self.room -= 1

    def halve(self, eta: int, max_t: int) -> None:
        """The best go on."""
        best_first = sorted(self.values, key=lambda name: -(self.values[name] or 0.0))
        self.room = math.ceil(self.room / eta) if self.halvings else 0
        self.epochs, self.halvings = min(self.epochs * eta, max_t), self.halvings - 1
        self.values = dict.fromkeys(best_first[: self.room])


def bracket_sizes(max_t: int, eta: int = 3) -> list[tuple[int, int, int]]:
    """HyperBand's brackets, in the order in which they are filled, as Ray Tune's HyperBandScheduler has them.

    Returns:
        Of each, how many trials it takes, the epochs after which these are compared first, and how often they are
        halved; each time at ``eta`` times the epochs, but ``max_t`` at most.
    """
    most = round(math.log(max_t) / math.log(eta)) + 1
    sizes = ((math.ceil(most / (s + 1) * eta**s), int(max_t * eta**-s), s) for s in range(most))
    return [size for size in sizes if size[1] >= 1]


class HyperBand(Peer):
    """Synchronous brackets, from the one that halves nothing to the one that halves most, over and over again.

    References:
        Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, JMLR 2018.
    """

    def __init__(self, max_t: int, eta: int = 3) -> None:
        super().__init__(max_t)
        self._eta = eta
        self._sizes = cycle(bracket_sizes(max_t, eta))
        self._open = Bracket(*next(self._sizes))
        self._bracket_of: dict[str, Bracket] = {}
        self._ended: set[str] = set()

    def moved(self, search: SearchRecord) -> None:
        """A new trial joins a bracket; one that ended before the bracket's end leaves it."""
        name = search.id
        if name not in self._bracket_of:
            self._bracket_of[name] = self._free_bracket()
            self._bracket_of[name].values[name] = None
        if not search.unfinished:
            self._ended.add(name)
            if (bracket := self._bracket_of[name]).values.get(name, 0.0) is None:
                bracket.drop(name)
                self._halve(bracket)
        super().moved(search)

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """As all do; where no more trials can be had, the last bracket is as large as it is."""
        if not sweep.more_searches and not self._open.full:
            self._open.closed = True
            self._halve(self._open)
        return super().next_slice(sweep)

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """The last of a bracket to come to its end decides who goes on."""
        bracket = self._bracket_of[search.id]
        if epochs >= bracket.epochs and search.id in bracket.values:
            bracket.values[search.id] = value
            self._halve(bracket)

    def _halve(self, bracket: Bracket) -> None:
        if bracket.complete:
            bracket.halve(self._eta, self._max_t)
            for name in self._ended.intersection(bracket.values):
                bracket.drop(name)
        self.released(reversed(bracket.values))  # The best of them is offered first.

    def reach(self, name: str | None) -> int:
        """To the bracket's present end."""
        bracket = self._free_bracket() if name is None else self._bracket_of[name]
        return bracket.epochs if name is None or name in bracket.values else 0

    def _free_bracket(self) -> Bracket:
        if self._open.full:
            self._open = Bracket(*next(self._sizes))
        return self._open


def _median(rising: list[float]) -> float:
    return (rising[(len(rising) - 1) // 2] + rising[len(rising) // 2]) / 2


def _percentile(rising: list[float], share: float) -> float:
    """By linear interpolation, as numpy's."""
    at = share * (len(rising) - 1)
    below = math.floor(at)
    above = min(below + 1, len(rising) - 1)
    return rising[below] + (at - below) * (rising[above] - rising[below])
