"""How a sweep ended, and what its user should do about it."""

from __future__ import annotations

import math

from schedulers.allocation import SLICE_MARGIN
from schedulers.budget import format_device_seconds
from schedulers.rules import Rules
from schedulers.sweep_state import SweepState

FAILURES_IN_A_ROW = 3
"""So many failures of a search without a new checkpoint fail it; so many searches that never report end the sweep."""

MISHAPS_IN_A_ROW = 10
"""So many lost nodes without a new checkpoint are no accident: from then on they count as failures of the search."""

OUT_OF_TIME = "its deadline is near"
"""Why a sweep ends that could go on under a later deadline."""


def barren(state: SweepState) -> str:
    """The newest error of several searches that all failed before any reported; empty if it is not so."""
    if any(search.latest for search in state.searches.values()):
        return ""
    failed = [search for search in state.searches.values() if search.state == "failed"]
    return failed[-1].why if len(failed) >= FAILURES_IN_A_ROW else ""


def ending(
    state: SweepState, rules: Rules, overhead_seconds: float, interrupted: str, more_searches: bool, hurried: bool
) -> tuple[str, str]:
    """How a run ended.

    Args:
        state: The sweep, all its grants closed.
        rules: What it spends by.
        overhead_seconds: Wall seconds that a new process takes besides stepping.
        interrupted: Why it was stopped before its end; empty if it was not.
        more_searches: Whether a new search could be had.
        hurried: Whether its deadline left no time to spend the whole budget.

    Returns:
        ``finished``, ``interrupted`` or ``failed``, and why in words.
    """
    if state.refused:
        return "failed", state.refused
    if interrupted:
        return "interrupted", interrupted
    if error := barren(state):
        return "failed", f"the first searches all failed before they reported anything: {error}"
    failed = [search for search in state.searches.values() if search.state == "failed"]
    if state.full_horizon is None and failed:
        return "failed", f"no search reported anything: {failed[-1].why}"
    if state.full_horizon is None and (state.searches or more_searches):
        return "failed", _too_small(state, rules, overhead_seconds)
    left = format_device_seconds(max(0.0, state.ledger.free), state.settings["device"])
    if not more_searches and not any(search.unfinished for search in state.searches.values()):
        return "finished", f"all searches are done; {left} remain"
    if hurried:
        return "finished", f"all that its deadline left time for is done; {left} remain"
    if state.selected is not None:
        return "finished", f"the selection is over; {left} remain"
    return "finished", f"{left} remain, too little for another slice"


def _too_small(state: SweepState, rules: Rules, overhead_seconds: float) -> str:
    """That no epoch was completed, with the budget that would do as far as that is known."""
    device, ledger = state.settings["device"], state.ledger
    parts = [search.latest.get("epoch_fraction") for search in state.searches.values()]
    best = max((part for part in parts if isinstance(part, float)), default=0.0)
    held = [kinds.get("train", 0.0) + kinds.get("lost", 0.0) for kinds in ledger.spent_by_trial.values()]
    longest = max(held, default=0.0)
    if longest == 0:
        # Nothing could even be tried; with so much it can.
        needed = 5 * rules.grace_seconds * rules.devices
        return (
            f"a budget of {format_device_seconds(ledger.budget, device)} is too small for one epoch of one search; "
            f"{format_device_seconds(needed, device)} might do"
        )
    # Nobody knows how far an epoch got that never came to a report: at least twice the budget would be worth a try.
    epoch = longest / best if best > 0 else 2 * max(longest, ledger.budget)
    needed = 1.1 * (overhead_seconds * rules.devices + epoch * SLICE_MARGIN)
    return (
        f"a budget of {format_device_seconds(ledger.budget, device)} is too small for one epoch of one search; "
        f"about {format_device_seconds(float(math.ceil(needed)), device)} would do"
    )
