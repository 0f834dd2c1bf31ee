"""How much a grant must be: its slice and all that comes with it."""

from __future__ import annotations

import math

from schedulers.allocation import SLICE_MARGIN, Slice, SweepView
from schedulers.rules import Rules
from schedulers.search_record import Kind, SearchRecord
from schedulers.sweep_state import SweepState

_FIRST_GUESS_SECONDS = 120.0
_COLD_BOOT_SECONDS = 5.0
_JITTER_SECONDS = 0.5
"""What any slice may take longer, however short its epochs are."""


class GrantSizes:
    """Sizes grants by what booting and saving took so far.

    Args:
        rules: Holds the first guesses.
        state: Holds what was measured.
    """

    def __init__(self, rules: Rules, state: SweepState) -> None:
        self._rules = rules
        self._state = state

    @property
    def saving(self) -> float:
        """Wall seconds that a checkpoint may take."""
        # Generous, as a process is killed when it takes longer, and what is not used comes back.
        longest = self._state.save_seconds
        return self._rules.save_seconds if longest is None else longest * 2 + 0.5

    @property
    def closing(self) -> float:
        """Wall seconds that a grant holds for what comes behind a trial's last step."""
        return self.saving + self._rules.grace_seconds + _JITTER_SECONDS

    def comparing(self, kind: Kind) -> float:
        """Wall seconds that a trial may step, at the end of a slice, to measure what it is compared by."""
        lately = self._state.compare_seconds if kind == "search" and self._rules.slice_told else []
        return max(lately, default=0.0) * SLICE_MARGIN

    def overhead(self, free: float, devices: float, reuse: bool) -> float:
        """Wall seconds of a grant besides all stepping; while only guessed, no more than half of what is free.

        Args:
            free: Device-seconds that the grant may have.
            devices: Device-seconds that a wall second costs.
            reuse: Whether an idle process takes the trial, or a new one must boot.
        """
        rules, state = self._rules, self._state
        boot = rules.boot_seconds
        if state.boot_seconds is not None:
            # The first processes may have been warm, a later one is not.
            boot = max(_COLD_BOOT_SECONDS, state.boot_seconds * 1.5 + 1.0)
        reset = rules.reset_seconds if state.reset_seconds is None else state.reset_seconds * 2 + 0.5
        start = reset if reuse else boot
        whole = start + self.closing
        return whole if state.boot_seconds is not None else min(whole, rules.grace_seconds + free / devices / 2)

    def _epochs(self, piece: Slice, search: SearchRecord) -> int:
        """The epochs of a slice, and those behind it after which the trial saves, if it chooses when."""
        every = self._state.saves_every
        if self._rules.saves != "reported" or every is None:
            return piece.epochs
        return math.ceil((search.epochs + piece.epochs) / every) * every - search.epochs

    def size(self, piece: Slice, search: SearchRecord, view: SweepView, reuse: bool) -> tuple[float, float]:
        """How large the grant for a slice is.

        Args:
            piece: The slice.
            search: The search that runs it.
            view: The view that the slice was chosen by.
            reuse: Whether an idle process takes the trial.

        Returns:
            Device-seconds of the grant, and the wall seconds of it that are for stepping.
        """
        epoch = view.epoch_of(search)
        if epoch is None:
            # Of a large budget no more than a part at first: if set-up hangs, only that is lost.
            least = 2 * view.devices * (self._rules.boot_seconds + self._rules.save_seconds + self._rules.grace_seconds)
            first = max(view.budget / (4 * view.measuring_slots), _FIRST_GUESS_SECONDS * view.devices, 2 * least)
            # Rather one slot that comes to a result than many that cannot even boot.
            # A new trial waits already, though the view does not know it yet.
            at_work = view.at_work + (piece.search is None)
            share = view.free / max(1, view.measuring_slots - at_work)
            amount = min(view.free, max(share, least), first * 2**search.failures)
            return amount, max(
                0.0, amount / view.devices - self.overhead(amount, view.devices, reuse) + _JITTER_SECONDS
            )
        expected = max(self._epochs(piece, search) * epoch, search.slowest_seconds)
        # One that was killed for its time would else be killed again at the same place.
        least_margin, roomy_margin = view.margins(search)
        margins = least_margin, roomy_margin * 2**search.failures
        # The view is one of searches.
        comparing = self.comparing(search.kind)
        overhead = view.overhead_seconds - self.comparing("search") + comparing
        price = view.price_of(search)
        least, roomy = (view.devices * overhead + price * expected * margin for margin in margins)
        # Room only where the other slots find as much, or they would stand idle.
        amount = min(view.free, max(least, min(roomy, view.free / view.slots)))
        stepping = (amount - view.devices * overhead) / price
        return amount, max(_JITTER_SECONDS, stepping + _JITTER_SECONDS + comparing)
