"""The last part of a budget: what the best searches found is tried side by side."""

from __future__ import annotations

from dataclasses import replace

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.allocators import EqualShare
from schedulers.sweep_state import SearchRecord

_LEAST_EPOCHS = 2
"""A finalist whose share buys less than so many epochs of a search tells nothing."""


class WithSelection(Allocator):
    """Keeps a share of the budget until no search can go on, then lets finalists use it up in equal parts.

    Finalists are told a horizon that their part buys, so that each comes to the end of its annealing. A budget of which
    the share is too small for that is spent on searches alone.

    Args:
        searching: The rule for the searches.
        share: Of the budget, for the selection; in (0, 1).
        finalists: How many trials take part in it, at least 1.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, searching: Allocator, share: float, finalists: int) -> None:
        if not 0 < share < 1:
            raise ValueError(f"a share of {share} for the selection, but it must lie between 0 and 1")
        self._searching = searching
        self._share = share
        self._finalists = finalists
        self._final = EqualShare(finalists)

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        """Pass the searches' values on; those of finalists decide nothing before the end."""
        if search.kind == "search":
            self._searching.observe(search, epochs, value)

    def next_slice(self, sweep: SweepView) -> Slice | None:
        """What the searching rule wants within its share; when that is over, the finalists."""
        final = sweep.final
        assert final is not None, "a selection is seen where it is announced"
        if final.searches == 0:
            kept = self._share * sweep.budget if self._worth_while(sweep) else 0.0
            searching = replace(sweep, budget=sweep.budget - kept, free=sweep.free - kept)
            if (piece := self._searching.next_slice(searching)) is not None:
                return piece
            if kept == 0 or sweep.unfinished > len(sweep.waiting):
                return None  # Whoever still searches may yet be among the best.
        rest = replace(final, budget=sweep.budget - sweep.spent + final.spent)
        piece = self._final.next_slice(rest)
        return None if piece is None else replace(piece, kind="select")

    def _worth_while(self, sweep: SweepView) -> bool:
        epoch = sweep.epoch_seconds
        part = self._share * sweep.budget / self._finalists / sweep.devices
        return epoch is not None and part >= sweep.overhead_seconds + _LEAST_EPOCHS * epoch
