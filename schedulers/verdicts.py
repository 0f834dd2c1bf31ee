"""What a trial does behind a report."""

from __future__ import annotations

from typing import Literal

from schedulers.rules import Rules
from schedulers.sweep_state import SearchRecord, SweepState

Verdict = Literal["continue", "pause", "stop"]


def complete(search: SearchRecord, state: SweepState, rules: Rules) -> bool:
    """Whether a search has done all the epochs of its horizon."""
    end = search.horizon if rules.horizon_told else state.full_horizon
    return end is not None and search.epochs >= end


def verdict(
    search: SearchRecord, state: SweepState, rules: Rules, closing_seconds: float, cut: bool, leaving: bool
) -> Verdict:
    """What a trial does next.

    Args:
        search: The trial's search, its report entered.
        state: The sweep.
        rules: What it spends by.
        closing_seconds: Wall seconds from the end of a trial's last step until its devices are free.
        cut: Whether the report is of a part of an epoch.
        leaving: Whether the trial's process was told to stop, by whomever.
    """
    leave: Verdict = "pause" if rules.pausable else "stop"
    if complete(search, state, rules) and not cut:
        return "stop"
    if leaving or search.epochs >= search.target:
        return leave
    grant = state.ledger.grants.get(search.grant or "")
    next_step = 1.5 * search.slowest_seconds * rules.devices
    if not rules.slice_told and grant is not None and grant.left < next_step + closing_seconds * rules.devices:
        return leave
    return "continue"
