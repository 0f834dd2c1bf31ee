"""The rules that spend a budget: asynchronous halving with endgame, and equal shares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.ranking import Ranking
from schedulers.search_record import SearchRecord

ENDGAME_START = 0.4
"""The endgame begins when the wall-clock left falls below this share of one full search."""

SLICE_SHARE = 0.25
"""Share of the full horizon that a slice runs where no rung ends it."""

LEADER_SLOTS = 8
"""With so many slots one of them follows the best trial so far, where no horizon is told."""

_CANDIDATES = 64
"""If none of so many searches can be afforded, what is left is not spent on one that ranks behind them."""

_REPLAN_MARGIN = 1.05
"""A horizon that is to be reached must leave a little for epochs that turn out slower."""


def rungs_of_horizon(horizon: int, fractions: Sequence[float]) -> list[int]:
    """Epochs at which searches of one full horizon are compared.

    Never below 2 epochs: at p = 1 neither k nor lambda has had any effect, and ranking there is noise.

    Args:
        horizon: Epochs of a full search, at least 1.
        fractions: Shares of the horizon, in (0, 1).

    Returns:
        The rungs, rising, all below the horizon; empty for horizons of 1 and 2.
    """
    return sorted({max(2, round(horizon * fraction)) for fraction in fractions} - set(range(horizon, horizon + 3)))


def geometric_rungs(grace_period: int, eta: int, max_t: int) -> list[int]:
    """The rungs of ASHA (Li et al. 2020): grace_period, grace_period * eta, ... below max_t epochs."""
    count = math.ceil(math.log(max(1.0, max_t / grace_period), eta)) + 1
    return [rung for power in range(count) if (rung := grace_period * eta**power) < max_t]


def check_eta(eta: int) -> None:
    """Raise ValueError if ``eta``, of which one trial goes on at a rung, is below 2."""
    if eta < 2:
        raise ValueError(f"eta is {eta}, but must be 2 or more: one search in eta goes on at a rung")


def measure(sweep: SweepView) -> Slice | None:
    """Before the first epoch is known: one epoch of a new search for each slot, or of one that was cut short."""
    if sweep.at_work >= sweep.measuring_slots:
        return None
    for search in sweep.waiting:
        if search.epochs == 0 and sweep.affordable(search) >= 1:
            return Slice(search.id, 1, None, "measure")
    if sweep.more_searches and sweep.affordable(None) >= 1:
        return Slice(None, 1, None, "measure")
    return None


class AsyncHalving(Allocator):
    """Asynchronous halving over rungs, with an endgame.

    A search runs from rung to rung. At a rung it goes on if it is among the best ``1 / eta`` of those that have been
    there; else it is paused, and goes on later if enough worse ones have come by. The rule for the end (no new search;
    as many of the best ones go on as the budget can finish, the last of them annealing over just what is left) is ours.

    Args:
        fractions: Rungs as shares of the full horizon, where a horizon is told.
        eta: One in ``eta`` goes on, at least 2.
        continue_at_once: Whether a search that is the best at its rung so far goes on though fewer than ``eta`` have
            been there: it keeps its slot. Otherwise it waits for them (queued promotion).
        rungs: Fixed rungs in epochs, in place of ``fractions``.
        by_best: Whether searches are ranked at a rung by their best value so far, rather than by the one there: for
            those that no common horizon makes comparable.
        endgame: Whether there is an endgame; without it new searches begin as long as they can be afforded.
        replan: Whether searches are told another horizon there.
        leader_slots: With so many slots or more, the best search so far goes on whatever its rung says of it, which
            takes one of them; None: never.

    Raises:
        ValueError: If a fraction lies outside (0, 1) or eta is below 2.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    def __init__(
        self,
        fractions: Sequence[float] = (0.25, 0.5),
        eta: int = 3,
        continue_at_once: bool = True,
        rungs: Sequence[int] | None = None,
        by_best: bool = False,
        endgame: bool = True,
        replan: bool = True,
        leader_slots: int | None = None,
    ) -> None:
        check_eta(eta)
        wrong = [fraction for fraction in fractions if not 0 < fraction < 1]
        if wrong:
            raise ValueError(f"a rung at {wrong[0]} of the horizon: rungs are shares in (0, 1), such as 0.25")
        self._fractions = tuple(fractions)
        self._eta = eta
        self._continue_at_once = continue_at_once
        self._has_endgame = endgame
        self._replan = replan
        self._leader_slots = math.inf if leader_slots is None else leader_slots
        self._leader: str | None = None
        self._fixed = None if rungs is None else sorted(rungs)
        self._ranked_by_best = by_best
        self._best: dict[str, float] = {}
        self._at: dict[int, Ranking] = {}
        self._working: dict[str, SearchRecord] = {}
        self._by_best = Ranking()
        self._endgame_slots = 0
        self._resting: dict[str, SearchRecord] = {}
        self._ranked = Ranking()
        self._resting_at: dict[int, Ranking] = {}
        self._filed_at: dict[str, int] = {}
        self._rungs: list[int] = []
        self._horizon: int | None = None

    @property
    def comparisons(self) -> int:
        """At every rung, and at the end."""
        return len(self._fractions) + 1

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Enter a value at its rung (before the plan: at its epoch, as no rung is known yet)."""
        self._best[search.id] = max(value, self._best.get(search.id, -math.inf))
        if self._leader is None or value > self._best[self._leader]:
            self._leader = search.id
        if search.id in self._by_best:
            self._by_best.put(search.id, self._best[search.id], search.index)
        if self._horizon is not None and epochs not in self._rungs:
            return
        entered = self._at.setdefault(epochs, Ranking())
        if search.id not in entered:
            entered.put(search.id, self._best[search.id] if self._ranked_by_best else value, search.index)

    def moved(self, search: SearchRecord) -> None:
        """File a search that rests: among all that do, the best first, and among those at its epochs."""
        name = search.id
        best = -math.inf if _diverged(search) else self._best.get(name, -math.inf)
        if self._resting.pop(name, None) is not None:
            self._ranked.drop(name)
            self._resting_at[self._filed_at.pop(name)].drop(name)
        self._working.pop(name, None)
        self._by_best.drop(name)
        if search.state in ("running", "paused"):
            self._by_best.put(name, best, search.index)
        if search.state == "running":
            self._working[name] = search
        elif search.state == "paused":
            at = self._border_of(search)
            # One that had no value at its rung must not stand before those that had one.
            score = best if at not in self._rungs else -math.inf
            score = self._at[at].score(name) if name in self._at.get(at, ()) else score
            self._resting[name], self._filed_at[name] = search, at
            self._ranked.put(name, best, search.index)
            self._resting_at.setdefault(at, Ranking()).put(name, score, search.index)

    def _border_of(self, search: SearchRecord) -> int:
        """The epochs after which a search is compared: one that went on to its next checkpoint has passed them."""
        if search.epochs <= search.target:
            return search.epochs
        return max([search.target, *(rung for rung in self._rungs if rung <= search.epochs)])

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """Endgame, then what may go on (the highest rung first), then a new search."""
        if sweep.full_horizon is None:
            return measure(sweep)
        if sweep.full_horizon != self._horizon:
            self._plan(sweep.full_horizon)
        to_spare = self._to_spare(sweep)
        if to_spare > 0 or self._in_endgame(sweep):
            return self._endgame(sweep, max(0.0, to_spare))
        if (piece := self._first_affordable(self._going(sweep), sweep)) is not None:
            return piece
        if not sweep.more_searches:
            # The best one that waits goes on, whatever its rung says of it.
            return self._first_affordable(self._unfinished(self._ranked, sweep), sweep)
        affordable = sweep.affordable(None)
        return Slice(None, min(self._to_border(0), affordable), sweep.full_horizon, "new") if affordable >= 1 else None

    def _plan(self, horizon: int) -> None:
        """Fix the rungs, and file by them what rests."""
        self._horizon = horizon
        self._rungs = rungs_of_horizon(horizon, self._fractions) if self._fixed is None else self._fixed
        self._at = {epochs: entered for epochs, entered in self._at.items() if epochs in self._rungs}
        for search in list(self._resting.values()):
            self.moved(search)

    def _unfinished(self, names: Iterable[str], sweep: SweepView) -> Iterator[SearchRecord]:
        """Of these the searches that wait and have epochs to go."""
        for name in names:
            search = self._resting[name]
            if search in sweep.waiting and search.epochs < (search.horizon or sweep.full_horizon or 0):
                yield search

    def _going(self, sweep: SweepView) -> Iterator[SearchRecord]:
        """The searches that may go on: the leader, then those that came furthest, of these the best."""
        leader = self._resting.get(self._leader or "")
        if sweep.slots >= self._leader_slots and leader is not None and not _diverged(leader):
            yield from self._unfinished([leader.id], sweep)
        for epochs in sorted(self._resting_at, reverse=True):
            for search in self._unfinished(self._resting_at[epochs], sweep):
                if epochs in self._rungs and not self._promotable(search.id, epochs, sweep.pausable):
                    break
                yield search

    def _first_affordable(self, searches: Iterable[SearchRecord], sweep: SweepView) -> Slice | None:
        for search in islice(searches, _CANDIDATES):
            # While there was a slot for each of the last searches, it may have been told more than a full search.
            end = max(sweep.full_of(search), search.horizon or 0)
            epochs = min(self._to_border(search.epochs), end - search.epochs, sweep.affordable(search))
            if epochs >= 1:
                return Slice(search.id, epochs, end, "continue")
        return None

    def _promotable(self, name: str, rung: int, pausable: bool) -> bool:
        """Whether a search is one of the best of those that have been at a rung."""
        entered = self._at.get(rung, Ranking())
        allowed = len(entered) // self._eta
        if self._continue_at_once or not pausable:
            allowed = max(1, allowed)
        return name in entered and entered.place(name) < allowed

    def _to_border(self, epochs: int) -> int:
        """Epochs from here to the next rung, or to the full horizon; beyond that as many as a slice may have."""
        assert self._horizon is not None, "rungs are asked for before a horizon is known"
        beyond = epochs + math.ceil(SLICE_SHARE * self._horizon)
        return next(rung for rung in [*self._rungs, self._horizon, beyond] if rung > epochs) - epochs

    def _in_endgame(self, sweep: SweepView) -> bool:
        epoch = sweep.epoch_of(None)
        assert self._horizon is not None, "the endgame is asked for before a horizon is known"
        if epoch is None or not self._has_endgame:
            return False
        # A foreign Trainable's full search may be longer than anything that the budget buys.
        full_search = min(self._horizon * epoch, sweep.budget / sweep.devices)
        # Slots that it leaves empty may go: it does not end with them.
        slots = max(sweep.slots, self._endgame_slots)
        begun = sweep.wall_seconds_left * sweep.slots / slots < ENDGAME_START * full_search
        self._endgame_slots = slots if begun else 0
        return begun

    def _to_spare(self, sweep: SweepView) -> float:
        """Device-seconds that each search may have beyond its horizon: no new one can be had, and all are finished.

        None have any unless there is a slot for each one.
        """
        if sweep.more_searches or not (sweep.horizon_told and self._replan) or not 0 < sweep.unfinished <= sweep.slots:
            return 0.0
        needed = 0.0
        for search in map(self._search, self._by_best):
            needed += self._needed(search, (search.horizon or sweep.full_of(search)) - search.epochs, sweep)
        return (sweep.budget - sweep.spent - needed) / sweep.unfinished

    def _needed(self, search: SearchRecord, epochs: int, sweep: SweepView) -> float:
        """Device-seconds that some epochs of a search take, in one grant."""
        stepping = _REPLAN_MARGIN * epochs * (sweep.epoch_of(search) or 0.0)
        return (stepping + sweep.overhead_seconds) * sweep.price_of(search) if epochs > 0 else 0.0

    def _endgame(self, sweep: SweepView, to_spare: float) -> Slice | None:
        """The best of the unfinished searches that the budget can finish; one that it cannot has what is left.

        Slots for which there is none stay empty: what they would spend is what the better ones need. A horizon becomes
        what a search can still come to, and is never more than it was, unless there is something to spare.
        """
        full = sweep.full_horizon
        assert full is not None, "the endgame begins after the plan"
        replan, longest, unfit = sweep.horizon_told and self._replan, math.ceil(SLICE_SHARE * full), 0
        left = sweep.budget - sweep.spent
        for search in map(self._search, self._by_best):
            if left <= 0 or unfit == _CANDIDATES:
                return None
            price, whole = sweep.price_of(search), search.horizon or sweep.full_of(search)
            ahead = whole - search.epochs
            if search.horizon is None or ahead > 0:
                ahead += sweep.epochs_within(search, to_spare / price + sweep.overhead_seconds, _REPLAN_MARGIN)
            wall_seconds = min(left / price, sweep.deadline_seconds)
            most = min(sweep.epochs_within(search, wall_seconds, _REPLAN_MARGIN), ahead)
            if search in sweep.waiting and most >= 1:
                affordable, (margin, _) = sweep.affordable(search), sweep.margins(search)
                if sweep.at_work and affordable < min(most, longest, sweep.epochs_within(search, wall_seconds, margin)):
                    # What others do not need of their grants comes back: no reason to cut this one's horizon for good.
                    return None
                reach, epochs = _reach(most, longest, affordable)
                if epochs >= 1:
                    return Slice(search.id, epochs, search.epochs + reach if replan else whole, "endgame")
                most = 0
            left -= self._needed(search, most, sweep)
            unfit += most < 1
        wall_seconds = min(left / sweep.devices, sweep.deadline_seconds)
        reach = min(full, sweep.epochs_within(None, wall_seconds, _REPLAN_MARGIN), sweep.affordable(None))
        if not sweep.waiting and sweep.more_searches and reach >= min(2, full):
            return Slice(None, reach, reach if replan else full, "endgame")
        return None

    def _search(self, name: str) -> SearchRecord:
        """One of those that are unfinished."""
        return self._working.get(name) or self._resting[name]


def halving_without_horizon(max_t: int, grace_period: int = 1, eta: int = 4) -> AsyncHalving:
    """Asynchronous halving for trials that are told no horizon: those that pass a rung wait for their promotion.

    Re-planned horizons are what an endgame is good for, so there is none. With many slots one of them follows the
    leader, as promotions come late where few trials have been at a rung.

    Args:
        max_t: Epochs of a full trial.
        grace_period: The first rung.
        eta: One trial in ``eta`` goes on; each rung has ``eta`` times the epochs of the one before.
    """
    check_eta(eta)
    rungs = geometric_rungs(grace_period, eta, max_t)
    return AsyncHalving(
        eta=eta, continue_at_once=False, rungs=rungs, by_best=True, endgame=False, leader_slots=LEADER_SLOTS
    )


class EqualShare(Allocator):
    """The papers' own rule: every search has an equal share of the budget and anneals over what its share buys.

    The horizon is planned again before every slice from what is left of the share, so that the whole share is used
    and the last epoch has p = k. With one search this is NASIB as published (Singh et al. 2019, section 3.1).

    Args:
        searches: How many searches share the budget, at least 1.

    Raises:
        ValueError: If ``searches`` is below 1.
    """

    def __init__(self, searches: int) -> None:
        if searches < 1:
            raise ValueError(f"searches is {searches}, but at least 1 search must share the budget")
        self._searches = searches

    @property
    def comparisons(self) -> int:
        """Wherever one of its slices ends."""
        return round(1 / SLICE_SHARE)

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Values decide nothing here."""

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """The oldest search that waits, then a new one."""
        gone = sweep.gone()
        for search in sweep.waiting:
            if planned := self._plan(sweep, search, gone):
                return planned
        if sweep.searches < self._searches and sweep.more_searches:
            return self._plan(sweep, None, gone)
        return None

    def _plan(self, sweep: SweepView, search: SearchRecord | None, gone: float) -> Slice | None:
        """A quarter of the horizon that the rest of a search's share buys; None if that is no epoch."""
        name, done, held = (None, 0, 0.0) if search is None else (search.id, search.epochs, sweep.spent_on(search))
        affordable = sweep.affordable(search)
        if affordable < 1:
            return None
        epoch = sweep.epoch_of(search)
        if epoch is None:
            horizon = None if search is None else search.horizon
            return Slice(name, 1, horizon, "measure") if sweep.at_work < sweep.measuring_slots else None
        share = (sweep.budget - gone) / max(1, self._searches - sweep.ended) - held
        seconds = min(share / sweep.price_of(search), sweep.deadline_seconds)
        within = sweep.epochs_within(search, seconds, _REPLAN_MARGIN)
        longest = math.ceil(SLICE_SHARE * (done + within))
        if (within - longest) * epoch < sweep.overhead_seconds + epoch:
            # The rest would not pay for a grant of its own, and the search would not come to its last epoch.
            longest = within
        reach, epochs = _reach(within, longest, affordable)
        return Slice(name, epochs, done + reach, "share") if epochs >= 1 else None


def _diverged(search: SearchRecord) -> bool:
    """Whether a search rests without a value where it was to be compared."""
    valued = search.curve[-1][0] if search.curve else 0
    return search.state == "paused" and search.epochs >= max(1, search.target) and valued < search.epochs


def _reach(within: int, longest: int, affordable: int) -> tuple[int, int]:
    """How far a search can come, and the slice of it that comes next.

    Only a slice must be affordable for certain: the horizon is planned again before the next one. The last slice must
    fit whole, or the search would not come to its last epoch.
    """
    epochs = min(within, longest, affordable)
    return (epochs, epochs) if within <= longest else (within, epochs)
