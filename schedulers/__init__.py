"""Everything that spends: a budget of device-time, its accounts, and the rules by which trials get it.

Names are imported when they are first used, so that accounts can be read without Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schedulers.allocation import Allocator as Allocator
    from schedulers.allocation import Slice as Slice
    from schedulers.allocation import SweepView as SweepView
    from schedulers.allocators import AsyncHalving as AsyncHalving
    from schedulers.allocators import EqualShare as EqualShare
    from schedulers.budget import Budget as Budget
    from schedulers.budget import format_device_seconds as format_device_seconds
    from schedulers.budget_scheduler import BudgetScheduler as BudgetScheduler
    from schedulers.journal import Journal as Journal
    from schedulers.journal_replay import JournalError as JournalError
    from schedulers.journal_replay import read_journal as read_journal
    from schedulers.lease import Lease as Lease
    from schedulers.lease import read_lease as read_lease
    from schedulers.ledger import Ledger as Ledger
    from schedulers.search_record import SearchRecord as SearchRecord
    from schedulers.sweep_callback import SweepCallback as SweepCallback
    from schedulers.sweep_state import SweepState as SweepState
    from schedulers.terms import Terms as Terms
    from schedulers.trial_source import TrialSource as TrialSource

_HOMES = {
    "Allocator": "allocation",
    "AsyncHalving": "allocators",
    "Budget": "budget",
    "BudgetScheduler": "budget_scheduler",
    "EqualShare": "allocators",
    "Journal": "journal",
    "JournalError": "journal_replay",
    "Lease": "lease",
    "Ledger": "ledger",
    "SearchRecord": "search_record",
    "Slice": "allocation",
    "SweepCallback": "sweep_callback",
    "SweepState": "sweep_state",
    "SweepView": "allocation",
    "Terms": "terms",
    "TrialSource": "trial_source",
    "format_device_seconds": "budget",
    "read_journal": "journal_replay",
    "read_lease": "lease",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
