"""Where trials stand, kept up record by record, so that no decision needs to look at all of them."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterator, Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schedulers.search_record import SearchRecord

_MEASURED = 5
"""A new trial's epoch is expected to take what those of so many of the newest trials took."""


class Standing:
    """The trials of one kind, filed by where they stand.

    Attributes:
        trials: All of them by id, in the order in which they were made.
        paused: Those that are paused.
        ended: Those that can never go on, and the device-seconds that each has held.
        spent_on_ended: The sum of these.
        longest_horizon: The longest horizon that any of them was ever told; None: none was told any.
    """

    def __init__(self) -> None:
        self.trials: dict[str, SearchRecord] = {}
        self.paused: dict[str, SearchRecord] = {}
        self.ended: dict[str, float] = {}
        self.spent_on_ended = 0.0
        self.longest_horizon: int | None = None
        self._measured: list[tuple[int, str]] = []

    def file(self, trial: SearchRecord, spent: float) -> None:
        """Take note of a trial, new or changed, and of the device-seconds that it has held."""
        self.trials[trial.id] = trial
        if trial.state == "paused":
            self.paused[trial.id] = trial
        else:
            self.paused.pop(trial.id, None)
        self.spent_on_ended -= self.ended.pop(trial.id, 0.0)
        if not trial.unfinished:
            self.ended[trial.id] = spent
            self.spent_on_ended += spent
        if trial.horizon is not None:
            self.longest_horizon = max(trial.horizon, self.longest_horizon or 0)
        if trial.epoch_seconds and (trial.index, trial.id) not in self._measured:
            insort(self._measured, (trial.index, trial.id))
            del self._measured[:-_MEASURED]

    @property
    def epoch_seconds(self) -> float | None:
        """Wall seconds of an epoch, the median over the newest trials; None if none was measured."""
        known = sorted(seconds[-1] for _, name in self._measured if (seconds := self.trials[name].epoch_seconds))
        return known[len(known) // 2] if known else None


class AllBut(Set[str]):
    """A collection without one of its elements, not copied.

    Args:
        whole: The collection.
        left_out: The element.
    """

    def __init__(self, whole: Collection[str], left_out: str) -> None:
        self._whole = whole if isinstance(whole, Set) else frozenset(whole)
        self._left_out = left_out

    def __contains__(self, name: object) -> bool:
        return name != self._left_out and name in self._whole

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._whole if name != self._left_out)

    def __len__(self) -> int:
        return len(self._whole) - (self._left_out in self._whole)


class Waiting(Collection["SearchRecord"]):
    """Paused trials that no process is at work on any more, so that they could run now; iterated, the oldest first.

    Args:
        paused: Trials by id.
        busy: Ids of those that a process is still at work on, and any others.
    """

    def __init__(self, paused: dict[str, SearchRecord], busy: Collection[str]) -> None:
        self._paused = paused
        self._busy = busy if isinstance(busy, Set) else frozenset(busy)

    def __contains__(self, trial: object) -> bool:
        name = getattr(trial, "id", None)
        return name in self._paused and name not in self._busy

    def __iter__(self) -> Iterator[SearchRecord]:
        free = (trial for trial in self._paused.values() if trial.id not in self._busy)
        return iter(sorted(free, key=lambda trial: trial.index))

    def __len__(self) -> int:
        few, many = sorted((self._paused.keys(), self._busy), key=len)
        return len(self._paused) - sum(name in many for name in few)
