"""On which terms a sweep spends its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from schedulers.budget import Budget
from schedulers.device_rates import DeviceRates
from schedulers.sweep_state import SweepState


@dataclass(frozen=True)
class Terms:
    """What the user of a BudgetScheduler decides.

    Attributes:
        budget: What all trials together may hold.
        searches: How many full searches the budget is to buy, where a horizon is planned from it.
        full_epochs: Epochs of a full search where none is planned: the ``max_t`` of other schedulers.
        epochs_key: Name of the count of whole epochs in a result.
        horizon_key: The config key by which a Trainable is told its horizon (epochs); None if it declares none.
        slice_key: The config key by which a Trainable is told how many seconds it may step; None if it declares
            none. One that declares it stops by itself, and on SIGTERM. If its class has a method ``go_on``, that is
            called between two steps with all these keys, and spares a pause where the same trial goes on at once.
        compare_key: The config key by which a Trainable is told after how many epochs its slice ends, so that it need
            not measure what it is compared by before; None if it declares none.
        most_searches: How many searches the space holds, if that is known; None: there is always one more.
        finalists: How many trials take part in the selection at the end; 0: there is none. Needs an allocator that
            gives them slices, :class:`schedulers.selection.WithSelection`.
        finalists_of: Their configurations, the best first, once the searches are over; the Trainable must know them.
        max_concurrent: The most trials at once, and how many a cluster that grows by itself is asked to make room
            for; None: as many as fit the live nodes, and it is asked for one.
        device_rates: Device-seconds that a second of a device counts, by the accelerator type of its node, as Ray names
            it, as in {"A100": 1.0, "T4": 0.25}; 1.0 for what is not named.
        deadline: Unix seconds by which everything must be saved and no device held; None: none.
        max_storage_bytes: What all checkpoints may take: the worst trials lose theirs first. None: no bound.
        kept_files: The names of the files of a checkpoint that stay when a trial loses its weights; if there are any,
            the result of a trial is among them.
        verify: Raises ValueError if the checkpoint in a local folder is damaged.
        settings: What the journal should know of the sweep besides, as plain data.
        lease_seconds: How long another driver's lease must be seen unchanged before its sweep is taken over.
    """

    budget: Budget
    searches: int = 8
    full_epochs: int | None = None
    epochs_key: str = "training_iteration"
    horizon_key: str | None = None
    slice_key: str | None = None
    compare_key: str | None = None
    most_searches: int | None = None
    finalists: int = 0
    finalists_of: Callable[[SweepState], Sequence[Mapping[str, Any]]] | None = None
    max_concurrent: int | None = None
    device_rates: Mapping[str, float] = field(default_factory=dict)
    deadline: float | None = None
    max_storage_bytes: int | None = None
    kept_files: Collection[str] = ()
    verify: Callable[[str], object] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    lease_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("searches", "full_epochs", "most_searches", "max_concurrent", "max_storage_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but must be 1 or more")
        DeviceRates(self.device_rates)
        if self.deadline is not None and self.deadline <= time.time():
            when = datetime.fromtimestamp(self.deadline).astimezone().isoformat(" ", "seconds")
            raise ValueError(f"the deadline {when} has passed: give a later one, or none")

    def told(self, horizon: int | None, slice_seconds: float, compare_at: int) -> dict[str, Any]:
        """The part of a trial's configuration that tells it of its grant."""
        told: dict[str, Any] = {}
        if self.horizon_key is not None:
            told[self.horizon_key] = horizon
        if self.slice_key is not None:
            told[self.slice_key] = slice_seconds
        if self.compare_key is not None:
            told[self.compare_key] = compare_at
        return told
