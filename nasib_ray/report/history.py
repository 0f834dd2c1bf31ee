"""What happened to the trials of a sweep, from its journal's records: plain data, no figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AT_ONCE_SECONDS = 1.0
"""A trial whose next grant comes so soon after its slice ended has kept its slot: it was not paused."""

HappeningKind = Literal[
    "paused", "promoted", "resumed", "horizon changed", "cut", "failed", "checkpoint lost", "weights given up"
]


@dataclass(frozen=True)
class Happening:
    """Something that befell a trial between two of its epochs.

    Attributes:
        trial: Its id.
        kind: ``paused``: it gave its slot up; ``promoted``: it went on after that; ``resumed``: a later run of the
            sweep went on with it; ``horizon changed``; ``cut``: it stopped within an epoch; ``failed``: its process
            died or raised; ``checkpoint lost``: one was found damaged; ``weights given up``: for the room they took.
        epoch: Whole epochs that it had done then, and the part of one that was cut.
        time: Unix seconds.
        text: What happened, in words.
    """

    trial: str
    kind: HappeningKind
    epoch: float
    time: float
    text: str


@dataclass(frozen=True)
class Holding:
    """A grant: from when to when a trial had a slot.

    Attributes:
        trial: Its id.
        grant: The grant's.
        start: Unix seconds of the booking.
        end: Of the release; of the newest record if it is open.
        amount: Device-seconds promised.
        held: Device-seconds held of it.
        epochs: Planned.
        horizon: That the trial was told; None: none.
        why: As the allocator called it.
        open: Whether it was not released yet.
    """

    trial: str
    grant: str
    start: float
    end: float
    amount: float
    held: float
    epochs: int
    horizon: int | None
    why: str
    open: bool


@dataclass(frozen=True)
class Run:
    """One driver's work on the sweep.

    Attributes:
        number: From 1.
        start: Unix seconds of its first record.
        end: Of its last one.
        how: How it ended, in words; empty while it goes on, or where its driver vanished.
    """

    number: int
    start: float
    end: float
    how: str


@dataclass
class Curve:
    """What a trial reported after each of its epochs, those that were lost left out.

    Attributes:
        epochs: Rising.
        metrics: For each of them.
    """

    epochs: list[int] = field(default_factory=list)
    metrics: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Append a report; an epoch that is done again takes the place of the lost ones."""
        while self.epochs and self.epochs[-1] >= epoch:
            self.epochs.pop()
            self.metrics.pop()
        self.epochs.append(epoch)
        self.metrics.append(metrics)

    def points(self, metric: str) -> list[tuple[int, float]]:
        """(epoch, value) where a metric was reported as a finite number."""
        pairs = zip(self.epochs, (_number(metrics.get(metric)) for metrics in self.metrics), strict=True)
        return [(epoch, value) for epoch, value in pairs if value is not None]


@dataclass(frozen=True)
class History:
    """What happened to a sweep.

    Attributes:
        curves: Of each trial that reported something, by id.
        happenings: In order of time.
        holdings: In order of their bookings.
        runs: In order.
    """

    curves: dict[str, Curve]
    happenings: list[Happening]
    holdings: list[Holding]
    runs: list[Run]

    def of_kind(self, kind: HappeningKind) -> list[Happening]:
        """The happenings of one kind."""
        return [happening for happening in self.happenings if happening.kind == kind]


def sweep_history(records: Iterable[Mapping[str, Any]]) -> History:
    """What happened, in words and numbers.

    Args:
        records: The journal's records, from the start.
    """
    fold = _Fold()
    for record in records:
        fold.apply(record)
    return fold.history()


@dataclass
class _Trial:
    """What has to be remembered of a trial from one record to the next."""

    epochs: int = 0
    horizon: int | None = None
    rests: tuple[int, Happening] | None = None


class _Fold:
    def __init__(self) -> None:
        self._trials: dict[str, _Trial] = {}
        self._curves: dict[str, Curve] = {}
        self._happenings: list[Happening] = []
        self._open: dict[str, Mapping[str, Any]] = {}
        self._held: dict[str, float] = {}
        self._holdings: list[Holding] = []
        self._runs: list[Run] = []
        self._time = 0.0

    def apply(self, record: Mapping[str, Any]) -> None:
        self._time = float(record["time"])
        self._follow_run(record)
        if "trial" not in record:
            return
        trial = self._trials.setdefault(record["trial"], _Trial())
        match record["event"]:
            case "grant":
                self._grant(trial, record)
            case "charge":
                self._held[record["grant"]] = self._held.get(record["grant"], 0.0) + float(record["amount"])
            case "release":
                self._release(record["grant"], self._time)
            case "report":
                self._report(trial, record)
            case "state":
                self._state(trial, record)
            case "failure":
                trial.epochs, trial.rests = record["epochs"], None
                self._happen(
                    record, "failed", trial.epochs, f"failed, back to {_epochs(trial.epochs)}: {record['why']}"
                )
            case "checkpoint-lost":
                back = max(0, trial.epochs - record["epochs"])
                trial.epochs = record["epochs"]
                text = f"a checkpoint was damaged, {_epochs(back)} lost: {record['why']}"
                self._happen(record, "checkpoint lost", trial.epochs, text)
            case "weights-dropped":
                self._happen(record, "weights given up", trial.epochs, f"weights given up: {record['why']}")

    def _follow_run(self, record: Mapping[str, Any]) -> None:
        number, known = record["run"], self._runs[-1] if self._runs else None
        if known is None or known.number != number:
            self._runs.append(Run(number, self._time, self._time, ""))
            return
        how = f"{record['state']}: {record['why']}" if record["event"] == "end" else known.how
        self._runs[-1] = Run(number, known.start, self._time, how)

    def _grant(self, trial: _Trial, record: Mapping[str, Any]) -> None:
        self._open[record["grant"]] = record
        horizon = record["horizon"]
        if horizon is not None and trial.horizon is not None and horizon != trial.horizon:
            text = f"horizon {trial.horizon} -> {horizon} ({record['why']})"
            self._happen(record, "horizon changed", trial.epochs, text)
        trial.horizon = trial.horizon if horizon is None else horizon
        if trial.rests is None:
            return
        run, rested = trial.rests
        trial.rests = None
        waited = self._time - rested.time
        if run != record["run"]:
            self._happenings.append(rested)
            self._happen(record, "resumed", trial.epochs, f"goes on in run {record['run']}")
        elif waited > AT_ONCE_SECONDS:
            self._happenings.append(rested)
            self._happen(record, "promoted", trial.epochs, f"goes on after {waited:,.0f} s ({record['why']})")

    def _release(self, grant: str, end: float, still_open: bool = False) -> None:
        booked = self._open.pop(grant, None)
        if booked is not None:
            held = self._held.get(grant, 0.0)
            told = (booked["epochs"], booked["horizon"], booked["why"])
            start, amount = float(booked["time"]), float(booked["amount"])
            # What a driver that vanished left open is closed by the next one, at its start.
            end = min(end, next(run.end for run in self._runs if run.number == booked["run"]))
            self._holdings.append(Holding(booked["trial"], grant, start, end, amount, held, *told, still_open))

    def _report(self, trial: _Trial, record: Mapping[str, Any]) -> None:
        metrics, trial.epochs = record["metrics"], record["epochs"]
        if metrics.get("cut"):
            part = _number(metrics.get("epoch_fraction")) or 0.0
            done = trial.epochs + (part if part < 1 else 0.0)
            why = "as it was told to stop" if metrics.get("interrupted") else "as its slice had no time left"
            self._happen(record, "cut", done, f"cut within epoch {trial.epochs + 1}, {why}")
        else:
            self._curves.setdefault(record["trial"], Curve()).add(trial.epochs, metrics)

    def _state(self, trial: _Trial, record: Mapping[str, Any]) -> None:
        match record["state"]:
            case "paused" if trial.epochs > 0:
                text = f"paused after {_epochs(trial.epochs)}: {record['why']}"
                rests = Happening(record["trial"], "paused", trial.epochs, self._time, text)
                trial.rests = (record["run"], rests)
            case "finished" | "failed":
                trial.rests = None

    def _happen(self, record: Mapping[str, Any], kind: HappeningKind, epoch: float, text: str) -> None:
        self._happenings.append(Happening(record["trial"], kind, epoch, self._time, text))

    def history(self) -> History:
        for grant in list(self._open):
            self._release(grant, self._time, still_open=True)
        resting = [trial.rests[1] for trial in self._trials.values() if trial.rests is not None]
        return History(
            self._curves,
            sorted([*self._happenings, *resting], key=lambda happening: happening.time),
            sorted(self._holdings, key=lambda holding: holding.start),
            self._runs,
        )


def _epochs(number: int) -> str:
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
