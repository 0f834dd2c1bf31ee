"""Population Based Training as a peer in the simulator: losers go on as changed copies of winners."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schedulers.allocation import Slice, SweepView
from schedulers.allocators import measure
from schedulers.peers import Peer
from schedulers.search_record import Kind, SearchRecord
from schedulers.simulated_world import SimulatedTrial
from schedulers.workload import Learner, Workload


@dataclass(eq=False)
class Member:
    """One of a population.

    Attributes:
        trial: That which trains for it; None: it was not drawn yet.
        score: Its value when it was looked at last; a copy keeps that of the trial in whose place it is.
        kept: What a winner was when it was looked at last; None: it was not among the winners.
        due: What its trial is to begin as a copy of; None: none is due.
        before: Epochs that were trained before its trial began.
    """

    trial: str | None = None
    score: float | None = None
    kept: SimulatedTrial | None = None
    due: SimulatedTrial | None = None
    before: int = 0


class PopulationBasedTraining(Peer):
    """A population that trains together; now and then one of the worst quarter goes on as a copy of one of the best.

    Decides as Ray Tune's PopulationBasedTraining does without ``synch``: a trial is looked at when it has run
    ``interval`` epochs, among the values that all that live had when they were looked at last. A loser becomes a copy
    of a winner as that was when it was looked at; whoever has run least goes next. When all of a population have come
    to their end, the next one begins. The copy is a new trial here, and the copied-over one rests for ever.

    Args:
        max_t: Epochs of a full trial.
        population: Trials that live at once, at least 1.
        interval: Epochs between two looks; a tenth of ``max_t`` unless told.
        seed: Of which winner is copied.

    Attributes:
        trials: What the process of each trial remembers; the simulator's.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, arXiv:1711.09846.
    """

    quantile = 0.25

    def __init__(self, max_t: int, population: int, interval: int | None = None, seed: int = 0) -> None:
        super().__init__(max_t)
        self.trials: Mapping[str, SimulatedTrial] = {}
        self._population = population
        self._interval = interval or max(1, round(max_t / 10))
        self._random = random.Random(seed)
        self._to_begin = population
        self._members: list[Member] = []
        self._entering: deque[Member] = deque()
        self._of: dict[str, Member] = {}

    def enter(self) -> SimulatedTrial | None:
        """Take note that a trial is being drawn.

        Returns:
            What it is to begin as a copy of; None: it begins anew.
        """
        member = self._next_copy()
        if member is None:
            self._to_begin -= 1
            member = Member()
            self._members.append(member)
        copied, member.due = member.due, None
        self._entering.append(member)
        return copied

    def _next_copy(self) -> Member | None:
        """The copy that is due and has run least, once the population is whole."""
        due = [] if self._to_begin > 0 else [member for member in self._members if member.due is not None]
        return min(due, key=lambda member: member.before, default=None)

    def reach(self, name: str | None) -> int:
        """To the next look, or to the end of its training."""
        member = Member() if name is None else self._of[name]
        if member.trial != name:
            return 0
        done = self._resting[name].epochs if name in self._resting else 0
        return min((done // self._interval + 1) * self._interval, self._max_t - member.before)

    def moved(self, search: SearchRecord) -> None:
        """A new trial joins the population; one that has come to its end, or failed, leaves it."""
        if search.id not in self._of:
            self._of[search.id] = self._entering.popleft()
            self._of[search.id].trial = search.id
        member = self._of[search.id]
        ended = search.state in ("finished", "failed") or member.before + search.epochs >= self._max_t
        if ended and member.trial == search.id:
            member.trial = None
            self._members.remove(member)
            if not self._members and self._to_begin <= 0:
                self._to_begin = self._population
        super().moved(search)

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Look at a trial: keep a winner as it is now, and have a loser copied over."""
        member = self._of[search.id]
        if member.trial != search.id or epochs % self._interval or member.before + epochs >= self._max_t:
            return
        member.score = value
        worst, best = self._quantiles()
        member.kept = self.trials[search.id].copy() if member in best else None
        if member in worst and (winner := self._random.choice(best)).kept is not None:
            member.trial, member.due, member.before = None, winner.kept, winner.before + winner.kept.epochs

    def _quantiles(self) -> tuple[list[Member], list[Member]]:
        """The worst and the best quarter of those that live and have a score; both empty where there are not two."""
        scored = [(member.score, number) for number, member in enumerate(self._members) if member.score is not None]
        rising = [self._members[number] for _, number in sorted(scored)]
        count = min(math.ceil(len(rising) * self.quantile), len(rising) // 2)
        return rising[:count], rising[len(rising) - count :]

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """A new trial as long as the population is not whole; else whoever has run least, be it a copy that is due."""
        if sweep.full_horizon is None:
            return measure(sweep)
        if self._to_begin > 0 and (piece := self._new(0, sweep)) is not None:
            return piece
        waiting = {search.id: search for search in sweep.waiting}
        for member in sorted(self._members, key=self._trained):
            if member.due is not None and self._to_begin <= 0:
                piece = self._new(member.before, sweep)
            elif member.trial in waiting:
                search = waiting[member.trial]
                epochs = min(self.reach(search.id) - search.epochs, sweep.affordable(search))
                piece = Slice(search.id, epochs, self._max_t, "continue") if epochs >= 1 else None
            else:
                continue
            if piece is not None:
                return piece
        return None

    def _trained(self, member: Member) -> int:
        """Epochs that a member has behind it."""
        resting = self._resting.get(member.trial or "")
        return member.before + (0 if resting is None else resting.epochs)

    def _new(self, trained: int, sweep: SweepView) -> Slice | None:
        """A new trial, or a copy of one that has been trained so far."""
        epochs = min(self._interval, self._max_t - trained, sweep.affordable(None))
        return Slice(None, epochs, self._max_t, "new") if sweep.more_searches and epochs >= 1 else None


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
    """Trials of a population: new ones, and copies."""

    def __init__(self, trials: Heritable, population: PopulationBasedTraining) -> None:
        self.epoch_seconds = trials.epoch_seconds
        self._trials = trials
        self._population = population

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        """A copy if one is due, else a new one."""
        copied = self._population.enter()
        return self._trials.draw(number, kind) if copied is None else self._trials.inherit(copied.learner, number)
