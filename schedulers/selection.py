"""The last part of a budget: what the best searches found is tried side by side."""

from __future__ import annotations

from dataclasses import replace

from schedulers.allocation import SLICE_MARGIN, Allocator, Slice, SweepView
from schedulers.search_record import SearchRecord

_LEAST_EPOCHS = 4
"""A finalist whose share buys less than so many epochs of a search tells nothing."""

_AROUND_SECONDS = 5.0
"""Wall seconds that a finalist takes around its epochs, in a process that is used again. Not what was measured: that
changes, and the share must not come and go with it."""

_MEASURED_EPOCHS = 2
"""So many epochs of a finalist are measured, as the first one may be slow in a process that did something else."""


class WithSelection(Allocator):
    """Keeps a share of the budget until no search can go on, then has finalists use it up, all of them to one horizon.

    Every finalist first runs two epochs, by which the horizon is planned. A budget of which the share is too small for
    a few epochs of each is spent on searches alone.

    Args:
        searching: The rule for the searches.
        share: Of the budget, for the selection; in (0, 1).
        finalists: How many trials take part in it, at least 1.

    Raises:
        ValueError: The share is out of range.
    """

    def __init__(self, searching: Allocator, share: float, finalists: int) -> None:
        if not 0 < share < 1:
            raise ValueError(f"a share of {share} for the selection, but it must lie between 0 and 1")
        self._searching = searching
        self._share = share
        self._finalists = finalists

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Pass the searches' values on; those of finalists decide nothing before the end."""
        if search.kind == "search":
            self._searching.observe(search, epochs, value)

    def moved(self, search: SearchRecord) -> None:
        """Pass the searches on."""
        if search.kind == "search":
            self._searching.moved(search)

    @property
    def comparisons(self) -> int:
        """As the searching rule has it."""
        return self._searching.comparisons

    def for_searches(self, sweep: SweepView) -> float:
        """All but the share that is kept."""
        return sweep.budget - self._kept(sweep)

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """What the searching rule wants within its share; when that is over, the finalists."""
        final = sweep.final
        assert final is not None, "a selection is seen where it is announced"
        if final.searches == 0:
            kept = self._kept(sweep)
            until = sweep.deadline_seconds - kept / sweep.burn_rate
            searching = replace(
                sweep, budget=sweep.budget - kept, free=sweep.free - kept, deadline_seconds=max(0.0, until)
            )
            if (piece := self._searching.next_slice(searching)) is not None:
                return piece
            if kept == 0 or sweep.at_work > 0:
                return None  # Whoever still searches may yet be among the best.
        piece = _side_by_side(final)
        return None if piece is None else replace(piece, kind="select")

    def _kept(self, sweep: SweepView) -> float:
        epoch = sweep.epoch_seconds
        return 0.0 if epoch is None else kept_back(sweep.budget, self._share, self._finalists, epoch, sweep.devices)


def kept_back(budget: float, share: float, finalists: int, epoch_seconds: float, devices: float) -> float:
    """Device-seconds of a budget that are kept for the selection; 0 if they would not buy what is worth comparing.

    Args:
        budget: Device-seconds in all.
        share: For the selection.
        finalists: How many trials take part in it.
        epoch_seconds: Wall seconds of a search's epoch.
        devices: Budgeted devices that one trial holds.
    """
    part = share * budget / finalists / devices
    return share * budget if part >= _AROUND_SECONDS + _LEAST_EPOCHS * epoch_seconds else 0.0


def _side_by_side(final: SweepView) -> Slice | None:
    """Some epochs for each finalist, the best find first; then each to the one horizon that all of them can reach."""
    if final.longest_horizon is None:
        for trial in final.waiting:
            if trial.epochs < _MEASURED_EPOCHS and final.affordable(trial) >= 1:
                return Slice(trial.id, _MEASURED_EPOCHS - trial.epochs, None, "measure")
        if final.more_searches:
            return Slice(None, _MEASURED_EPOCHS, None, "measure") if final.affordable(None) >= 1 else None
        if final.at_work > 0:
            return None  # Whoever is at work is being measured.
    horizon, others_run = final.longest_horizon or _common_horizon(final), final.at_work > 0
    for trial in final.waiting:
        whole, affordable = horizon - trial.epochs, final.affordable(trial)
        # What others do not need of their grants comes back when they end. Only then a horizon is cut that cannot be
        # reached any more: it would leave the trial in the middle of its annealing.
        if affordable >= whole or (affordable >= 1 and not others_run):
            epochs = min(whole, affordable)
            return Slice(trial.id, epochs, trial.epochs + epochs, "select")
    return None


def _common_horizon(final: SweepView) -> int:
    """The epochs that each finalist can do, if all do as many, with what is left."""
    seconds = [trial.epoch_seconds[-1] for trial in final.waiting if trial.epoch_seconds]
    # Room for each: were the last one cut short for want of it, it could not be compared.
    in_time = final.deadline_seconds * min(final.slots, max(1, len(seconds)))
    left = min(final.free / final.devices, in_time) - len(seconds) * final.overhead_seconds
    done = max((trial.epochs for trial in final.waiting), default=0)
    return done + max(1, int(left / (SLICE_MARGIN * max(sum(seconds), 1e-9))))
