"""What a sweep has come to: the fold of its journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median
from typing import Any

from schedulers.ledger import KEPT_CHECKPOINTS, Ledger
from schedulers.plain_data import value_at, with_value
from schedulers.search_record import CheckpointRecord, Kind, LostCheckpoint, SearchRecord
from schedulers.standing import Standing

_KEPT_BOOTS = 10


def _known(made: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a class has fields for: an earlier version may have written others."""
    names = {key.name for key in fields(made)}
    return {name: value for name, value in data.items() if name in names}


@dataclass
class SweepState:
    """The fold of a sweep's journal; the same records give the same state, and a record applied twice counts once.

    Attributes:
        ledger: The accounts.
        searches: Every search by id, in the order in which they were made.
        settings: What the first record said: device, metric, mode, versions, ...; the configuration is the newest one.
        mode: ``max`` or ``min``.
        epoch_device_seconds: Device-seconds of the sweep's first whole epoch; None until one was measured.
        full_horizon: The horizon that every search is told; None until an epoch was measured.
        plan_device: The accelerator type that this epoch was measured on; empty if it is not known.
        dearest_rate: The most that a second of a device may have counted in any run.
        most_devices: The most devices that a trial held in any run.
        seconds_unseen: Wall seconds that a trial of the newest run may go on for after its driver died; None: nobody
            knows.
        boots: Wall seconds of the newest starts, at most ten, each from the start of a new process to its first step
            (of one that did not get there: to its end, but no more than twice the longest before it).
        reset_seconds: The same for a process that was used again.
        save_seconds: The longest wall seconds that a checkpoint took.
        compare_seconds: The wall seconds that searches lately took beside an epoch, as they were compared after it; at
            most five, the newest last.
        saves_every: The most epochs that a trial did from one report with a checkpoint to the next, if trials choose
            when to save; None: none has.
        largest_checkpoint_bytes: The size of the largest checkpoint so far; 0 before the first one.
        max_storage_bytes: What checkpoints may take in the newest run; None: whatever they do.
        deadline: Unix seconds of the newest run's deadline; None: it has none.
        refused: Why the newest run cannot go on under what it was told; empty if it can.
        runs: How many drivers have worked on the sweep.
        budgets: How often its budget was set.
        booked: How many grants were booked, ever; numbers the next one.
        end: How the newest run ended (``finished``, ``interrupted``, ``failed``); empty while it goes on.
        end_why: Why, in words.
        last_number: The number of the newest record folded in.
        first_time: Unix seconds of the first record; ``last_time`` of the newest.
    """

    ledger: Ledger = field(default_factory=Ledger)
    searches: dict[str, SearchRecord] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    mode: str = "max"
    epoch_device_seconds: float | None = None
    full_horizon: int | None = None
    plan_device: str = ""
    dearest_rate: float = 1.0
    most_devices: float = 0.0
    seconds_unseen: float | None = None
    boots: list[float] = field(default_factory=list)
    reset_seconds: float | None = None
    save_seconds: float | None = None
    compare_seconds: list[float] = field(default_factory=list)
    saves_every: int | None = None
    largest_checkpoint_bytes: int = 0
    max_storage_bytes: int | None = None
    deadline: float | None = None
    refused: str = ""
    runs: int = 0
    budgets: int = 0
    booked: int = 0
    end: str = ""
    end_why: str = ""
    last_number: int = -1
    first_time: float = 0.0
    last_time: float = 0.0

    def __post_init__(self) -> None:
        # Follows from the rest, and so is no field: it is neither saved nor compared.
        self._standing: dict[Kind, Standing] = {"search": Standing(), "select": Standing()}
        for trial in self.searches.values():
            self._file(trial)

    def _file(self, trial: SearchRecord) -> None:
        if self.counts(trial):
            self._standing[trial.kind].file(trial, self.ledger.spent_on(trial.id))

    def standing(self, kind: Kind) -> Standing:
        """Where the searches stand, or the trials of the present selection."""
        return self._standing[kind]

    @classmethod
    def replay(cls, snapshot: Mapping[str, Any] | None, records: Iterable[Mapping[str, Any]]) -> SweepState:
        """The state that a snapshot (None: the empty state) and the records after it give."""
        state = cls() if snapshot is None else cls.from_json(snapshot)
        for record in records:
            state.apply(record)
        return state

    def apply(self, record: Mapping[str, Any]) -> None:
        """Fold one journal record in; one that was folded in before changes nothing."""
        if record["number"] <= self.last_number:
            return
        self.last_number = record["number"]
        self.first_time = self.first_time or float(record["time"])
        self.last_time = float(record["time"])
        self.ledger.apply(record)
        search = self.searches.get(record.get("trial", ""))
        match record["event"]:
            case "sweep":
                self.settings = dict(record)
                self.mode = record["mode"]
            case "config":
                self.settings = {**self.settings, "config": record["config"]}
            case "budget":
                self.budgets += 1
                self._standing["select"] = Standing()
            case "run":
                self.runs += 1
                self.seconds_unseen = record.get("seconds_unseen")
                self.most_devices = max(self.most_devices, record.get("devices_per_trial", 0.0))
                self.dearest_rate = max(self.dearest_rate, record.get("dearest_rate", 1.0))
                self.end = self.end_why = self.refused = ""
            case "limits":
                self.max_storage_bytes, self.deadline = record["max_storage_bytes"], record["deadline"]
            case "refused":
                self.refused = record["why"]
            case "plan":
                self.epoch_device_seconds = record["epoch_device_seconds"]
                self.full_horizon = record["full_horizon"]
                self.plan_device = record.get("device", "")
            case "timing":
                if "boot_seconds" in record:
                    self.boots = [*self.boots, record["boot_seconds"]][-_KEPT_BOOTS:]
                self.reset_seconds = record.get("reset_seconds", self.reset_seconds)
                self.save_seconds = record.get("save_seconds", self.save_seconds)
            case "horizon" if search is not None:
                search.horizon = search.full = record["horizon"]
                search.target = min(search.target, record["horizon"])
                search.planned_on = record["device"]
            case "search":
                kind: Kind = record.get("kind", "search")
                name, config = record["trial"], dict(record["config"])
                search = SearchRecord(name, record["index"], config, kind=kind, round=self.budgets)
                self.searches[name] = search
            case "drawn" if search is not None:
                for place, value in record["values"]:
                    search.placeholders = [*search.placeholders, [place, value_at(search.config, place)]]
                    search.config = with_value(search.config, place, value)
            case "end":
                self.end, self.end_why = record["state"], record["why"]
            case "grant":
                self.booked += 1
                if search is not None:
                    self._start_slice(search, record)
            case "release" if search is not None:
                if search.grant == record["grant"]:
                    search.grant = None
            case "report" if search is not None:
                self._report(search, record)
            case "checkpoint" if search is not None:
                size = record.get("bytes", 0)
                saved = CheckpointRecord(record["path"], record["epochs"], record["iteration"], size)
                search.checkpoints = [*search.checkpoints, saved][-KEPT_CHECKPOINTS:]
                search.given_up = [gone for gone in search.given_up if gone.path != record["path"]]
                search.failures = search.mishaps = 0
                self.largest_checkpoint_bytes = max(self.largest_checkpoint_bytes, size)
            case "checkpoint-lost" if search is not None:
                search.checkpoints = [kept for kept in search.checkpoints if kept.path != record["path"]]
                back, seconds = search.epochs - record["epochs"], record.get("device_seconds", 0.0)
                lost = LostCheckpoint(record["path"], self.runs, back, seconds, record["why"])
                search.lost_checkpoints = [*search.lost_checkpoints, lost]
                self._go_back(search, record["epochs"])
                search.why = record["why"]
                # What it failed of is known now; it may fail as often again with the one before.
                search.failures = 0
            case "weights-dropped" if search is not None:
                search.given_up += [kept for kept in search.checkpoints if kept.path == record["path"]]
                search.checkpoints = [kept for kept in search.checkpoints if kept.path != record["path"]]
                if search.state == "paused" and not search.checkpoints:
                    search.state, search.why = "not resumable", record["why"]
            case "weights-deleted" if search is not None:
                for gone in [gone for gone in search.given_up if gone.path == record["path"]]:
                    search.given_up.remove(gone)
                    search.remains = replace(gone, bytes=record["bytes"]) if record["bytes"] else search.remains
            case "state" if search is not None:
                search.state, search.why = record["state"], record["why"]
            case "failure" if search is not None:
                blameless = record.get("blameless", False)
                search.failures, search.mishaps = search.failures + (not blameless), search.mishaps + blameless
                search.why = record["why"]
                self._go_back(search, record["epochs"])
                search.checkpoints = [kept for kept in search.checkpoints if kept.epochs <= search.epochs]
        if search is not None and not (record["event"] == "charge" and search.unfinished):
            self._file(search)

    def _go_back(self, search: SearchRecord, epochs: int) -> None:
        """Have a search stand where it stood after so many epochs."""
        search.paid_elsewhere *= min(1.0, epochs / max(1, search.epochs))
        search.epochs = epochs

    def _start_slice(self, search: SearchRecord, record: Mapping[str, Any]) -> None:
        search.grant = record["grant"]
        search.state, search.why = "running", record["why"]
        search.target = search.epochs + record["epochs"]
        if record["horizon"] is not None:
            search.horizon = record["horizon"]

    def _report(self, search: SearchRecord, record: Mapping[str, Any]) -> None:
        seconds, value, metrics = record["epoch_seconds"], record["value"], dict(record["metrics"])
        # What is known only after a whole epoch stays as it was after the last one.
        kept = {} if value is not None else {name: search.latest.get(name) for name in metrics if metrics[name] is None}
        search.latest = {**metrics, **kept}
        search.epochs = record["epochs"]
        if metrics.get("should_checkpoint"):
            saved = search.checkpoints[-1].epochs if search.checkpoints else 0
            self.saves_every = max(1, self.saves_every or 0, search.epochs - saved)
        if seconds is not None:
            self._time_epoch(search, seconds, record.get("device", ""), record.get("price", search.price))
        if beside := record["metrics"].get("objective_seconds"):
            self.compare_seconds = [*self.compare_seconds, float(beside)][-5:]
        if value is None:
            return
        while search.curve and search.curve[-1][0] >= record["epochs"]:
            search.curve.pop()
        search.curve.append((record["epochs"], value))
        if self.better(value, search.best_value):
            search.best_value, search.best_metrics = value, search.latest

    def _time_epoch(self, search: SearchRecord, seconds: float, device: str, price: float | None) -> None:
        """Take note of what a whole epoch took; part of one on another device says nothing of those to come."""
        if device and search.device and device != search.device:
            search.epoch_seconds, search.slowest_seconds = [], 0.0
        search.device, search.price = device or search.device, price
        search.epoch_seconds = [*search.epoch_seconds, seconds][-3:]
        search.slowest_seconds = max(search.slowest_seconds, seconds)
        paid = 1.0 if price is None else price
        if self.plan_device in ("", search.device):
            search.epoch_device_seconds = median(search.epoch_seconds) * paid
        else:
            search.paid_elsewhere += seconds * paid - (search.epoch_device_seconds or self.epoch_device_seconds or 0.0)

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another (None: there is none yet) under the sweep's mode."""
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        return value > than if self.mode == "max" else value < than

    @property
    def boot_seconds(self) -> float | None:
        """The longest of the newest starts of new processes, in wall seconds; None before the first one."""
        return max(self.boots, default=None)

    @property
    def incumbent(self) -> SearchRecord | None:
        """The best search so far, or None before the first ranked report."""
        best: SearchRecord | None = None
        for search in self.searches.values():
            if (
                search.kind == "search"
                and search.best_value is not None
                and self.better(search.best_value, best.best_value if best else None)
            ):
                best = search
        return best

    def counts(self, trial: SearchRecord) -> bool:
        """Whether a trial is a search, or takes part in the present selection: a raised budget makes a new one."""
        return trial.kind == "search" or trial.round == self.budgets

    @property
    def selected(self) -> SearchRecord | None:
        """The finalist of the present selection that ended best, among those that came to their end."""
        best: SearchRecord | None = None
        for trial in self.competing:
            if self.better(trial.curve[-1][1], best.curve[-1][1] if best else None):
                best = trial
        return best

    @property
    def competing(self) -> list[SearchRecord]:
        """The finalists of the present selection that came to their end with a value."""
        finalists = (trial for trial in self.searches.values() if trial.kind == "select" and self.counts(trial))
        return [
            trial
            for trial in finalists
            # One that diverged has no value at its end, and an older one does not count.
            if trial.state == "finished" and trial.curve and trial.curve[-1][0] == trial.epochs
        ]

    def next_saves_bytes(self) -> int:
        """About how much the next checkpoints take, one of each running search; 0 as long as there is none."""
        running = sum(search.state == "running" for search in self.searches.values())
        return self.largest_checkpoint_bytes * max(1, running)

    @property
    def stored_bytes(self) -> int:
        """What all checkpoints take where they are stored, as far as their sizes are known."""
        return sum(search.stored_bytes for search in self.searches.values())

    def to_json(self) -> dict[str, Any]:
        """The state as plain data, for a snapshot."""
        plain = {key.name: getattr(self, key.name) for key in fields(self)}
        plain = {key: list(value) if isinstance(value, list) else value for key, value in plain.items()}
        searches = {name: search.to_json() for name, search in self.searches.items()}
        return {**plain, "ledger": asdict(self.ledger), "searches": searches}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SweepState:
        """The state that :meth:`to_json` wrote (also after a round trip through JSON text)."""
        searches = {}
        for name, told in data["searches"].items():
            kept = {key: [CheckpointRecord(**one) for one in told.get(key, ())] for key in ("checkpoints", "given_up")}
            remains = CheckpointRecord(**told["remains"]) if told.get("remains") else None
            lost = [LostCheckpoint(**gone) for gone in told.get("lost_checkpoints", ())]
            curve = [(int(at), float(value)) for at, value in told["curve"]]
            rebuilt = {**kept, "remains": remains, "lost_checkpoints": lost, "curve": curve}
            searches[name] = SearchRecord(**_known(SearchRecord, {**told, **rebuilt}))
        boots = {"boots": [data["boot_seconds"]]} if data.get("boot_seconds") is not None else {}
        data = _known(cls, {**boots, **data})
        return cls(**{**data, "ledger": Ledger.from_json(data["ledger"]), "searches": searches})
