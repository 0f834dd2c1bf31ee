"""What an allocator sees of a sweep and what it answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass

from schedulers.search_record import Kind, SearchRecord

WORTH_COMPARING = 4
"""A horizon of fewer epochs has no rung before its end, and k and lambda hardly any effect."""

SLICE_MARGIN = 1.1
"""What a slice may take, over the time that its epochs took lately: a grant must cover a slow epoch too."""

_TOLD_MARGINS = (SLICE_MARGIN, 1.5)
"""What a grant must cover of the time that is expected, and what it should where the budget is not scarce. One that is
told its slice is cut if it takes longer: that costs a pause."""

_KNOWN_MARGINS = (1.25, 3.0)
"""The same of one that would be killed, which costs what it did since its checkpoint, and whose epochs are known."""

_NEW_MARGINS = (2.0, 6.0)
"""The same of one whose own epochs nobody knows: those of other configurations may differ much."""

_MEASURING = 20
_MEASURING_SECONDS = 4 * 3600.0
"""Before the first epoch is known, so many trials are measured at once, or as many as the budget has so many seconds
for: a part of it must reach to the end of an epoch, and nobody knows how long that is."""


@dataclass(frozen=True)
class Slice:
    """What one grant lets a search do.

    Attributes:
        search: The search's id; None asks for a new search.
        epochs: Epochs that it runs from where it stands, at least 1.
        horizon: The epochs that it is told to expect over its whole life; None as long as no epoch was measured.
        why: A word for the journal: measure, new, continue, promote, endgame, share.
        kind: Of the trial.
    """

    search: str | None
    epochs: int
    horizon: int | None
    why: str
    kind: Kind = "search"

    def __post_init__(self) -> None:
        assert self.epochs >= 1, f"a slice of {self.epochs} epochs"

    @property
    def leaves_slots_empty(self) -> bool:
        """Whether slots that are not in use are not going to be, as towards the end of a budget."""
        return self.why == "endgame"


@dataclass(frozen=True)
class SweepView:
    """A sweep at the moment when a slot is free.

    Attributes:
        budget: Device-seconds that can be spent in all: the whole budget, or what its deadline leaves of it.
        spent: Device-seconds held so far.
        free: Device-seconds that a grant for this slot may have.
        slots: How many trials can run now.
        devices: Device-seconds that a wall second of one trial costs: the budgeted devices that it holds, by what they
            count. Of several types the dearest: nobody knows where a trial will run.
        full_horizon: Epochs of a full search; None until an epoch was measured.
        epoch_seconds: Wall seconds of an epoch of a search that has none of its own yet; None until measured.
        overhead_seconds: Wall seconds of a grant besides its epochs: set-up, what is measured at its end to compare,
            checkpoint, grace, some jitter.
        waiting: The searches that could run now: paused, and no process still at work on them; the oldest first.
        searches: How many searches there are in all.
        ended: How many of them are finished or failed.
        spent_on: Device-seconds that a search has held.
        gone: Device-seconds that those which are finished or failed have held, and selections of former budgets.
        more_searches: Whether a new search can be had.
        pausable: Whether searches can wait; else whoever does not go on at once never will.
        horizon_told: Whether searches are told their horizon, and so can be given another one.
        slice_told: Whether they are told how long they may step, and stop by themselves; else they are killed.
        deadline_seconds: Wall seconds that trials may still step, by the sweep's deadline; infinite without one.
        longest_horizon: The longest horizon that any of them was told, at work or not; None: none was told any.
        mean_devices: As ``devices``, the mean over all slots; None: it is the same everywhere.
        scarce: Whether nothing is at work and nothing fits that would have room: what is left may be tried for less.
        final: The same of the trials of the present selection, in place of the searches. None: there will be none.
    """

    budget: float
    spent: float
    free: float
    slots: int
    devices: float
    full_horizon: int | None
    epoch_seconds: float | None
    overhead_seconds: float
    waiting: Collection[SearchRecord]
    searches: int
    ended: int
    spent_on: Callable[[SearchRecord], float]
    gone: Callable[[], float]
    more_searches: bool
    pausable: bool
    horizon_told: bool
    slice_told: bool = True
    deadline_seconds: float = math.inf
    longest_horizon: int | None = None
    mean_devices: float | None = None
    scarce: bool = False
    final: SweepView | None = None

    def epoch_of(self, search: SearchRecord | None) -> float | None:
        """Wall seconds that an epoch of a search took lately (None: of a new one); None if nobody knows."""
        if search is not None and search.epoch_seconds:
            return sorted(search.epoch_seconds)[len(search.epoch_seconds) // 2]
        return self.epoch_seconds

    def affordable(self, search: SearchRecord | None) -> int:
        """Whole epochs that a grant of all the free device-seconds buys; 0 if none, 1 if nobody knows their length."""
        # It may come to a dearer device: there an epoch should take less, but not what is done beside.
        stepping = (self.free - self.overhead_seconds * self.devices) / self.price_of(search)
        margin, _ = self.margins(search)
        return self.epochs_within(search, min(stepping + self.overhead_seconds, self.deadline_seconds), margin)

    def margins(self, search: SearchRecord | None) -> tuple[float, float]:
        """What a grant must cover of the time that is expected of a slice, and what it should, as multiples of it."""
        if self.slice_told or self.scarce:
            return _TOLD_MARGINS
        return _KNOWN_MARGINS if search is not None and search.epoch_seconds else _NEW_MARGINS

    @property
    def measuring_slots(self) -> int:
        """How many trials may be at work at once as long as nobody knows how long an epoch takes."""
        return min(self.slots, max(_MEASURING, int(self.budget / (self.devices * _MEASURING_SECONDS))))

    def epochs_within(self, search: SearchRecord | None, wall_seconds: float, margin: float = 1.0) -> int:
        """Whole epochs that fit so many wall seconds of one slot, one grant's overhead included."""
        stepping = wall_seconds - self.overhead_seconds
        epoch = self.epoch_of(search)
        if stepping <= 0:
            return 0
        return 1 if epoch is None else int(stepping / (margin * max(epoch, 1e-9)))

    @property
    def unfinished(self) -> int:
        """How many searches are neither finished nor failed."""
        return self.searches - self.ended

    @property
    def at_work(self) -> int:
        """How many unfinished searches do not wait."""
        return self.unfinished - len(self.waiting)

    @property
    def wall_seconds_left(self) -> float:
        """Wall seconds that the rest of the budget keeps all slots running."""
        return (self.budget - self.spent) / self.burn_rate

    @property
    def burn_rate(self) -> float:
        """Device-seconds that a wall second costs while all slots are in use."""
        return self.slots * (self.devices if self.mean_devices is None else self.mean_devices)

    def price_of(self, search: SearchRecord | None) -> float:
        """Device-seconds that a wall second of a search cost where it ran last (None: those of a new one).

        One that would be killed is priced at the dearest: on another device its grant must reach too.
        """
        if search is None or search.price is None or not search.epoch_seconds or not self.slice_told:
            return self.devices
        return search.price

    def full_of(self, search: SearchRecord) -> int:
        """The horizon of a search that is not cut short: that of the sweep, or what it has on a slower device."""
        assert self.full_horizon is not None, "a full search is asked for before it is planned"
        return self.full_horizon if search.full is None else search.full


def planned_horizon(
    budget: float, boots: float, searches: int, epoch: float, beside: float = 0.0, in_time: float = math.inf
) -> int:
    """Epochs of a full search: the budget buys ``searches`` of them.

    More slots than that make no search shorter: the endgame has some of them finished, rather than all cut short.

    Args:
        budget: Device-seconds in all.
        boots: Device-seconds of it that booting takes.
        searches: How many full searches it is to buy.
        epoch: Device-seconds of one epoch.
        beside: Device-seconds that a full search takes beside its epochs.
        in_time: Device-seconds that one search can hold before the deadline.

    Returns:
        At least 1; at least WORTH_COMPARING, with fewer searches, if budget and deadline allow for one of so many.
    """
    longest, search_epochs = (
        int((min(in_time, (budget - boots) / count) - beside) / max(epoch, 1e-9)) for count in (1, searches)
    )
    return max(1, search_epochs, min(WORTH_COMPARING, longest))


class Allocator(ABC):
    """The rule that says which search gets the next grant.

    It is told every ranked report (also those of earlier runs, in a replay) and asked whenever a slot is free. It
    must be a function of what it was told and shown: no clock, no random numbers.
    """

    @abstractmethod
    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Take note of a value; called by the core for every ranked report, in order.

        Args:
            search: The search that reported.
            epochs: The whole epochs after which it did.
            value: The value; larger is better under every mode (the core turns the sign for ``min``).
        """

    def moved(self, search: SearchRecord) -> None:  # noqa: B027 (a rule that sorts nothing needs nothing here)
        """Take note that a search is new, began to run, came to rest or ended; nothing unless told.

        Called by the core for every such change (in a replay once for each search, after what it reported), so that a
        rule can keep searches in an order of its own rather than sort all of them for every slice.
        """

    @property
    def comparisons(self) -> int:
        """How often a full search is compared, its end included; at its end alone unless told."""
        return 1

    def for_searches(self, sweep: SweepView) -> float:
        """The part of the budget, in device-seconds, that searches are planned with; all of it unless told."""
        return sweep.budget

    @abstractmethod
    def next_slice(self, sweep: SweepView) -> Slice | None:
        """The slice that the free slot should run; called by the core at most once for each change of the sweep.

        Returns:
            A slice that fits ``sweep.free``, or None when nothing fits that is worth running.
        """
