"""One search as the journal tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SearchStatus = Literal["running", "paused", "finished", "failed", "not resumable"]
Kind = Literal["search", "select"]

_LISTS_OF_RECORDS = ("checkpoints", "lost_checkpoints", "given_up")


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint that is on disk.

    Attributes:
        path: Its folder, relative to the sweep's.
        epochs: Whole epochs that it holds.
        iteration: Tune's ``training_iteration`` at which it was taken.
        bytes: What it takes where it is stored.
    """

    path: str
    epochs: int
    iteration: int
    bytes: int = 0


@dataclass(frozen=True)
class LostCheckpoint:
    """A checkpoint that was found damaged, and what was lost with it.

    Attributes:
        path: Its folder, relative to the sweep's.
        run: The run of the sweep that found it, from 1.
        epochs: Whole epochs that the search went back.
        device_seconds: What it had held for what is lost, charged as lost since.
        why: What is wrong with it.
    """

    path: str
    run: int
    epochs: int
    device_seconds: float
    why: str


@dataclass
class SearchRecord:
    """One search (one Tune trial) as the journal tells it.

    Attributes:
        id: The trial's id, also the name of its folder.
        index: 0 for the first search of the sweep, 1 for the second, ...
        config: The trial's configuration as it was suggested, without horizon and slice.
        placeholders: Where Tune has drawn values of it from functions: [keys that lead there, what stood there before].
        state: ``running`` while it holds a grant, else ``paused``, ``finished``, ``failed``, or ``not resumable``: it
            was paused, and its weights were given up for the room that they took.
        epochs: Whole epochs done that have not been lost.
        target: Epochs at which its present slice ends.
        horizon: Epochs that it may expect over its whole life; None as long as no epoch was measured.
        curve: (epochs, value) of every ranked report, in order of epochs.
        epoch_seconds: Wall seconds of its latest whole epochs on one type of device (at most three), the newest last.
        slowest_seconds: Wall seconds of its slowest epoch.
        latest: The metrics of its last report; in that of a part of an epoch, what it leaves open is the one before's.
        best_value: The best ranked value so far, and ``best_metrics`` the report that had it.
        checkpoints: Its newest checkpoints that can be loaded, oldest first.
        lost_checkpoints: Those that were found damaged, oldest first.
        given_up: Those that were given up, and have not been deleted yet.
        remains: What stays of its newest checkpoint once its weights are deleted, if anything does.
        failures: Failures in a row without a new checkpoint, and ``mishaps``: those that were none of its doing.
        grant: The grant that it holds, if any.
        why: Why it is in its state, in words.
        kind: ``search``, or ``select``: a trial of the selection, in which the best searches' finds compete.
        round: Of the selection that it belongs to: how often the budget had been set by then.
        device: The accelerator type of its last whole epoch; empty if it is not known.
        price: Device-seconds that a wall second of it cost there; None before its first whole epoch.
        epoch_device_seconds: What an epoch of it cost on the type that the sweep was planned on; None if it was not
            there.
        paid_elsewhere: Device-seconds that its epochs on other types cost more than they would have there.
        planned_on: The accelerator type that its horizon was planned anew for; empty: it is that of the sweep's plan.
        full: The epochs of a full search there; None: those of the sweep.
    """

    id: str
    index: int
    config: dict[str, Any]
    state: SearchStatus = "paused"
    epochs: int = 0
    target: int = 0
    horizon: int | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    slowest_seconds: float = 0.0
    latest: dict[str, Any] = field(default_factory=dict)
    best_value: float | None = None
    best_metrics: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    lost_checkpoints: list[LostCheckpoint] = field(default_factory=list)
    given_up: list[CheckpointRecord] = field(default_factory=list)
    remains: CheckpointRecord | None = None
    failures: int = 0
    mishaps: int = 0
    grant: str | None = None
    why: str = ""
    kind: Kind = "search"
    round: int = 0
    device: str = ""
    price: float | None = None
    paid_elsewhere: float = 0.0
    epoch_device_seconds: float | None = None
    planned_on: str = ""
    full: int | None = None
    placeholders: list[list[Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data. It shares what is replaced and never changed: there may be tens of thousands of searches."""
        plain = {key: list(value) if isinstance(value, list) else value for key, value in vars(self).items()}
        records = {key: [vars(one) for one in getattr(self, key)] for key in _LISTS_OF_RECORDS}
        return {**plain, **records, "remains": vars(self.remains) if self.remains else None}

    @property
    def unfinished(self) -> bool:
        """Whether it could go on."""
        return self.state in ("running", "paused")

    @property
    def stored_bytes(self) -> int:
        """What its checkpoints take where they are stored, as far as their sizes are known."""
        rest = self.remains.bytes if self.remains else 0
        return sum(kept.bytes for kept in (*self.checkpoints, *self.given_up)) + rest
