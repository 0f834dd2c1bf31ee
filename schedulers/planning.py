"""How long full searches are, by the first epoch that was measured, and those that come to another device."""

from __future__ import annotations

import logging
from collections.abc import Callable

from schedulers.allocation import Allocator, SweepView, planned_horizon
from schedulers.rules import Rules
from schedulers.search_record import SearchRecord
from schedulers.slower_device import full_on_device
from schedulers.sweep_state import SweepState

logger = logging.getLogger(__name__)


class Planning:
    """Enters horizons.

    Args:
        state: The sweep.
        rules: What it spends by.
        allocator: Tells how much of the budget is for searches, and how often these are compared.
        append: Enters a record, as :meth:`schedulers.core.SweepCore.append` does.
    """

    def __init__(self, state: SweepState, rules: Rules, allocator: Allocator, append: Callable[..., None]) -> None:
        self._state = state
        self._rules = rules
        self._allocator = allocator
        self._append = append

    def measured(self, search: SearchRecord, price: float, comparing: float, view: Callable[[], SweepView]) -> None:
        """Take note that a whole epoch of a search was entered.

        Args:
            search: The search.
            price: Device-seconds that a wall second of it costs.
            comparing: Wall seconds that it takes to measure what searches are compared by.
            view: Tells what the allocator sees, with nothing at work.
        """
        if self._state.full_horizon is None:
            self._plan(search, price, comparing, view())
        # One that cannot be told while it runs would be stopped in the middle of its annealing.
        if not (self._rules.horizon_told and self._rules.told_at_work):
            return
        if search.device in ("", search.planned_on or self._state.plan_device):
            return
        full = full_on_device(search, self._state, price, view().deadline_seconds)
        if full is not None:
            self._append("horizon", trial=search.id, horizon=full, device=search.device)

    def _plan(self, search: SearchRecord, price: float, comparing: float, view: SweepView) -> None:
        """Fix the full horizon: what the budget buys of full searches, no more than can be run before the deadline."""
        seconds, devices = search.epoch_seconds[-1], view.devices
        epoch = seconds * price
        horizon = self._rules.full_epochs
        if horizon is None:
            boots = (self._state.boot_seconds or 0.0) * devices * min(view.slots, self._rules.searches)
            beside = self._allocator.comparisons * comparing * devices
            budget = self._allocator.for_searches(view)
            in_time = (view.deadline_seconds - (view.budget - budget) / view.burn_rate) * price
            horizon = planned_horizon(budget, boots, self._rules.searches, epoch, beside, in_time)
        told = {"device": search.device} if search.device else {}
        self._append("plan", epoch_device_seconds=epoch, full_horizon=horizon, **told)
        logger.info("an epoch takes %.2f device-seconds; a full search has %d epochs", epoch, horizon)
