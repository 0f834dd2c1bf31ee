"""What a trial does behind a report."""

from __future__ import annotations

from typing import Literal

from schedulers.rules import Rules
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState

Verdict = Literal["continue", "pause", "stop"]


def complete(search: SearchRecord, state: SweepState, rules: Rules) -> bool:
    """Whether a search has done all the epochs of its horizon."""
    end = search.horizon if rules.horizon_told else state.full_horizon
    return end is not None and search.epochs >= end


def verdict(
    search: SearchRecord,
    state: SweepState,
    rules: Rules,
    closing_seconds: float,
    price: float,
    cut: bool,
    leaving: bool,
    saved: bool,
) -> Verdict:
    """What a trial does next.

    Args:
        search: The trial's search, its report entered.
        state: The sweep.
        rules: What it spends by.
        closing_seconds: Wall seconds from the end of a trial's last step until its devices are free.
        price: Device-seconds that a wall second of it costs.
        cut: Whether the report is of a part of an epoch.
        leaving: Whether the trial's process was told to stop, by whomever.
        saved: Whether the report came with a checkpoint.
    """
    can_rest = rules.saves == "asked" or (rules.saves == "reported" and (saved or bool(search.checkpoints)))
    leave: Verdict = "pause" if can_rest else "stop"
    if complete(search, state, rules) and not cut:
        return "stop"
    grant = state.ledger.grants.get(search.grant or "")
    next_step = 1.5 * search.slowest_seconds
    fits = rules.slice_told or grant is None or grant.left >= (next_step + closing_seconds) * price
    # Its grant covers what it does from the end of the slice to the next checkpoint.
    to_save = rules.saves == "reported" and state.saves_every is not None and not saved
    at_end = search.epochs >= search.target and not to_save
    return leave if leaving or at_end or not fits else "continue"
