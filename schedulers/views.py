"""A sweep as an allocator sees it, taken from the fold of the journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from schedulers.allocation import SweepView
from schedulers.device_rates import Prices
from schedulers.grant_sizes import GrantSizes
from schedulers.rules import Rules
from schedulers.search_record import Kind, SearchRecord
from schedulers.standing import Waiting
from schedulers.sweep_state import SweepState


def view_of(
    state: SweepState,
    rules: Rules,
    sizes: GrantSizes,
    *,
    slots: int,
    busy: Collection[str],
    reusable: Sequence[str],
    prices: Prices,
    unposted: Callable[[str | None], float],
    deadline_seconds: float,
    more_searches: bool,
    more_finalists: bool,
) -> SweepView:
    """What the allocator sees now.

    Args:
        state: The sweep.
        rules: What it spends by.
        sizes: Tells what a grant takes besides its epochs.
        slots: How many trials can run now.
        busy: The trials whose slots are in use.
        reusable: The grants of idle processes that can be used again, the next one first.
        prices: What a trial's wall second costs.
        unposted: Tells the device-seconds held that are not in the accounts yet, of one trial or (None) of all; nothing
            of them is free, as all of it was promised.
        deadline_seconds: Wall seconds that trials may still step, by the sweep's deadline; infinite without one.
        more_searches: Whether a new search can be had.
        more_finalists: Whether a new trial of the selection can be had.
    """
    ledger = state.ledger
    reuse = ledger.grants.get(reusable[0]) if reusable else None
    free = ledger.free + (reuse.left if reuse else 0.0)

    def spent_on(search: SearchRecord) -> float:
        return ledger.spent_on(search.id) + unposted(search.id)

    spent = ledger.spent + unposted(None)
    usable = min(free, deadline_seconds * prices.dearest)
    in_time = spent + deadline_seconds * max(1, slots) * prices.mean

    def of_kind(kind: Kind) -> SweepView:
        standing = state.standing(kind)

        def gone() -> float:
            # A process may still be at work on one that has ended.
            leaving = sum(unposted(name) for name in busy if name in standing.ended)
            return standing.spent_on_ended + leaving + (ledger.spent_by_kind["select"] if kind == "search" else 0.0)

        return SweepView(
            budget=min(ledger.budget, in_time),
            spent=spent,
            free=free,
            slots=max(1, slots),
            devices=prices.dearest,
            mean_devices=prices.mean,
            full_horizon=state.full_horizon,
            epoch_seconds=standing.epoch_seconds,
            overhead_seconds=sizes.overhead(usable, prices.dearest, bool(reusable)) + sizes.comparing(kind),
            waiting=Waiting(standing.paused, busy),
            searches=len(standing.trials),
            ended=len(standing.ended),
            spent_on=spent_on,
            gone=gone,
            more_searches=more_searches,
            pausable=rules.saves == "asked" or (rules.saves == "reported" and state.saves_every is not None),
            horizon_told=rules.horizon_told,
            slice_told=rules.slice_told,
            deadline_seconds=deadline_seconds,
            longest_horizon=standing.longest_horizon,
        )

    view = of_kind("search")
    if rules.finalists == 0:
        return view
    return replace(view, final=replace(of_kind("select"), more_searches=more_finalists))
