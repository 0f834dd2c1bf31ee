"""The spending of a sweep apart from Ray: grants, charges, reports and decisions, written to a journal."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from schedulers.allocation import SLICE_MARGIN, Allocator, Slice, SweepView
from schedulers.budget import Budget, format_device_seconds
from schedulers.clock import Clock
from schedulers.ledger import KINDS
from schedulers.meter import Holding, Meter
from schedulers.sweep_state import SearchRecord, SearchStatus, SweepState

logger = logging.getLogger(__name__)

Verdict = Literal["continue", "pause", "stop"]

FLUSH_SECONDS = 1.0
"""Charges reach the disk at most so much later; grants before anything runs on them."""

FAILURES_IN_A_ROW = 3
"""So many failures of a search without a new checkpoint fail it; so many searches that never start fail the sweep."""

_ROOMY_MARGIN = 1.5
_LONGEST_GUESS = 120.0


class RecordBook(Protocol):
    """Where records go; the journal, or a list in a simulation."""

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a record with number, time and run, and keep it."""

    def flush(self) -> None:
        """Return when all that was appended is durable."""


@dataclass(frozen=True)
class Rules:
    """What a sweep spends by.

    Attributes:
        devices: Budgeted devices that one trial holds.
        metric: Name of the ranked metric in a report.
        mode: ``max`` or ``min``.
        epochs_key: Name of the count of whole epochs in a report; Tune's count of reports unless told.
        full_epochs: Epochs of a full search where none is planned from the budget (a foreign Trainable's max_t).
        searches: How many full searches the budget is to buy where a horizon is planned from it.
        horizon_told: Whether searches are told their horizon.
        slice_told: Whether searches are told how many seconds they may step, and stop by themselves.
        grace_seconds: The last part of every grant: what a kill may take until the device is free.
        boot_seconds: A first guess at the wall seconds from a grant to the first step of a new process.
        reset_seconds: The same of a process that is used again.
        save_seconds: A first guess at the wall seconds of a checkpoint.
    """

    devices: float
    metric: str
    mode: str = "max"
    epochs_key: str = "training_iteration"
    full_epochs: int | None = None
    searches: int = 8
    horizon_told: bool = False
    slice_told: bool = False
    grace_seconds: float = 2.0
    boot_seconds: float = 20.0
    reset_seconds: float = 1.0
    save_seconds: float = 1.0


class SweepCore:
    """Books grants before anything runs, charges what is held, and asks the allocator what comes next.

    Every change goes through the journal: it is appended there, then folded into :attr:`state`.

    Args:
        book: Where records go.
        state: What the journal says so far.
        allocator: The rule that gives slices to searches.
        clock: Tells the time.
        rules: What the sweep spends by.
    """

    def __init__(self, book: RecordBook, state: SweepState, allocator: Allocator, clock: Clock, rules: Rules) -> None:
        self.state = state
        self.rules = rules
        self.more_searches = True
        self._book = book
        self._allocator = allocator
        self._clock = clock
        self._meter = Meter()
        self._pending: dict[tuple[str, str, str], float] = {}
        self._trained: dict[str, float] = {}
        self._starting: dict[str, tuple[float, bool]] = {}
        self._saving: dict[str, float] = {}
        self._posted = clock.monotonic()
        self._changed = True
        self._asked: tuple[int, int, int] | None = None
        self._slots = 1
        for search in state.searches.values():
            for epochs, value in search.curve:
                allocator.observe(search, epochs, self._score(value))

    # Records

    def append(self, event: str, **fields: Any) -> None:
        """Write a record and fold it in."""
        self.state.apply(self._book.append({"event": event, **fields}))
        self._changed = self._changed or event not in ("charge", "relabel", "timing")

    def flush(self) -> None:
        """Make every record durable.

        Raises:
            JournalWriteError: If the journal cannot be written now; the records are kept for the next attempt.
        """
        self._book.flush()

    def enter_run(
        self, budget: Budget, settings: Mapping[str, Any], slots: int, seconds_unseen: float
    ) -> None:
        """Enter the beginning of a driver's work, and close what an earlier driver left open.

        Args:
            budget: The whole budget; larger than before if it was raised.
            settings: What the journal should know of the sweep; entered by its first driver.
            slots: How many trials can run now.
            seconds_unseen: Wall seconds that a trial may have gone on holding its devices after the last charge.

        Raises:
            ValueError: If the budget is below what was spent.
        """
        ledger = self.state.ledger
        if not self.state.settings:
            known = {"metric": self.rules.metric, "mode": self.rules.mode, "devices_per_trial": self.rules.devices}
            self.append("sweep", **known, **settings)
        if budget.device_seconds < ledger.spent + ledger.granted:
            spent = format_device_seconds(ledger.spent + ledger.granted, budget.device)
            raise ValueError(f"the budget {budget} is below the {spent} that are spent or promised: give more")
        if budget.device_seconds != ledger.budget:
            self.append("budget", device_seconds=budget.device_seconds, text=str(budget))
        self.append("run", slots=slots)
        for name, grant in list(ledger.grants.items()):
            unseen = min(grant.left, seconds_unseen * self.rules.devices)
            if unseen > 0:
                self.append("charge", grant=name, trial=grant.trial, kind="lost", amount=unseen)
            self.append("release", grant=name, trial=grant.trial, amount=grant.left)
        for search in self.state.searches.values():
            if search.state == "running":
                self._lose(search, "the driver ended")
                self.append("state", trial=search.id, state="paused", why="the driver ended")
        self.flush()

    def add_search(self, name: str, config: Mapping[str, Any]) -> SearchRecord:
        """Enter a new search."""
        self.append("search", trial=name, index=len(self.state.searches), config=dict(config))
        return self.state.searches[name]

    # Time

    def tick(self, held: Mapping[str, Holding]) -> None:
        """Charge what was held since the last tick; make charges durable when it is time.

        Args:
            held: Every live process, by a key of its own.
        """
        now = self._clock.monotonic()
        for (grant, trial, phase), amount in self._meter.read(now, held).items():
            account = (grant, trial, phase)
            self._pending[account] = self._pending.get(account, 0.0) + amount
            if phase == "train":
                self._trained[trial] = self._trained.get(trial, 0.0) + amount
        for holding in held.values():
            if holding.phase == "train" and holding.grant in self._starting:
                booked, reused = self._starting.pop(holding.grant)
                if not reused and now - booked > (self.state.boot_seconds or 0.0):
                    self.append("timing", boot_seconds=now - booked)
        if now - self._posted >= FLUSH_SECONDS:
            self.post()
            self.flush()

    def post(self) -> None:
        """Enter what the meter read into the accounts."""
        self._posted = self._clock.monotonic()
        pending, self._pending = self._pending, {}
        for (grant, trial, kind), amount in pending.items():
            self.append("charge", grant=grant, trial=trial, kind=kind, amount=round(amount, 6))

    def overdue(self, held: Mapping[str, Holding]) -> list[str]:
        """The keys of processes whose grant has only its grace left: they must be killed now."""
        grants, reserve = self.state.ledger.grants, self.rules.grace_seconds * self.rules.devices
        unposted: dict[str, float] = {}
        for (grant, _, _), amount in self._pending.items():
            unposted[grant] = unposted.get(grant, 0.0) + amount
        return [
            key
            for key, holding in held.items()
            if holding.grant not in grants or grants[holding.grant].left - unposted.get(holding.grant, 0.0) <= reserve
        ]

    # Decisions

    def view(self, slots: int, busy: Collection[str], reusable: Sequence[str]) -> SweepView:
        """What the allocator sees now; see :meth:`next_slice` for the arguments."""
        state, ledger = self.state, self.state.ledger
        reuse = ledger.grants.get(reusable[0]) if reusable else None
        free = ledger.free + (reuse.left if reuse else 0.0)
        searches = state.searches.values()
        known = [search.epoch_seconds[-1] for search in searches if search.epoch_seconds][-5:]
        return SweepView(
            budget=ledger.budget,
            spent=ledger.spent,
            free=free,
            slots=max(1, slots),
            devices=self.rules.devices,
            full_horizon=state.full_horizon,
            epoch_seconds=max(known, default=None),
            overhead_seconds=self._overhead(free, bool(reusable)),
            waiting=[search for search in searches if search.state == "paused" and search.id not in busy],
            searches=len(state.searches),
            ended=[search for search in searches if not search.unfinished],
            spent_on=lambda search: sum(ledger.spent_by_trial.get(search.id, {}).values()),
            more_searches=self.more_searches,
            horizon_told=self.rules.horizon_told,
        )

    def next_slice(self, slots: int, busy: Collection[str], reusable: Sequence[str]) -> tuple[Slice, SweepView] | None:
        """What a free slot should run, and the view that it was chosen by.

        Args:
            slots: How many trials can run now.
            busy: One name for each slot in use, that of its trial where one is at work.
            reusable: The grants of idle processes that can be used again, the next one first.

        Returns:
            None if no slot is free, nothing fits, or nothing has changed since None was the answer.
        """
        self._slots = max(1, slots)
        if len(busy) >= slots or self.barren:
            return None
        asked = (slots, len(busy), len(reusable))
        if not self._changed and asked == self._asked:
            return None
        self.post()
        view = self.view(slots, busy, reusable)
        piece = self._allocator.next_slice(view)
        if piece is None:
            self._asked, self._changed = asked, False
            return None
        return piece, view

    def book(self, piece: Slice, search: SearchRecord, view: SweepView, reuse: str | None, share: float = 1.0) -> float:
        """Book the grant for a slice; nothing may run on it before :meth:`flush` has returned.

        Args:
            piece: The slice.
            search: The search that runs it.
            view: The view that the slice was chosen by.
            reuse: The grant of the idle process that will be used, which is released; None for a new process.
            share: Of what is free, the part that this slot may take while no epoch is known.

        Returns:
            Wall seconds that the search may step.
        """
        if reuse is not None:
            self._release(reuse)
        epoch = view.epoch_of(search)
        if epoch is None:
            amount = self._measuring_grant(view, search, share)
        else:
            margin = SLICE_MARGIN if piece.why in ("endgame", "share") else _ROOMY_MARGIN
            stepping = max(piece.epochs * epoch, search.slowest_seconds) * margin
            amount = min(view.free, view.devices * (view.overhead_seconds + stepping))
        name = f"g{self.state.booked}"
        self.append(
            "grant",
            grant=name,
            trial=search.id,
            amount=round(amount, 6),
            epochs=piece.epochs,
            horizon=piece.horizon,
            why=piece.why,
        )
        self._starting[name] = (self._clock.monotonic(), reuse is not None)
        return amount / view.devices - view.overhead_seconds

    def _measuring_grant(self, view: SweepView, search: SearchRecord, share: float) -> float:
        """Nobody knows what an epoch takes: a slot's share, but of a large budget no more than a part at first."""
        first = max(view.budget / (4 * view.slots), _LONGEST_GUESS * view.devices)
        return min(view.free * share, first * 2**search.failures)

    def _overhead(self, free: float, reuse: bool) -> float:
        """Wall seconds of a grant that are not for stepping; while only guessed, no more than half of what is free."""
        rules, state = self.rules, self.state
        boot = rules.boot_seconds if state.boot_seconds is None else state.boot_seconds * 1.25 + 0.5
        save = rules.save_seconds if state.save_seconds is None else state.save_seconds * 1.5 + 0.2
        # A process that is used again loads a checkpoint, which takes about what saving it took.
        start = rules.reset_seconds + save if reuse else boot
        known = state.boot_seconds is not None and state.save_seconds is not None
        whole = start + save + rules.grace_seconds
        return whole if known else min(whole, rules.grace_seconds + free / self.rules.devices / 2)

    def _release(self, grant: str) -> None:
        if grant in self.state.ledger.grants:
            self.post()
            held = self.state.ledger.grants[grant]
            self.append("release", grant=grant, trial=held.trial, amount=round(held.left, 6))

    def close(self, grant: str) -> None:
        """Give back what is left of a grant: the process that ran on it is gone."""
        self._release(grant)
        self._starting.pop(grant, None)

    # What trials do

    def report(self, name: str, metrics: Mapping[str, Any], stopping: bool, pausable: bool) -> Verdict:
        """Enter a trial's report and say what it does next.

        Args:
            name: The trial.
            metrics: The flat result.
            stopping: Whether the whole sweep is being stopped.
            pausable: Whether the trial can be paused; else it goes on or is stopped.
        """
        search = self.state.searches[name]
        self.post()
        cut = self.rules.slice_told and bool(metrics.get("cut"))
        seconds = metrics.get("epoch_seconds") if self.rules.slice_told else metrics.get("time_this_iter_s")
        value = metrics.get(self.rules.metric)
        ranked = not cut and isinstance(value, (int, float)) and math.isfinite(value)
        self.append(
            "report",
            trial=name,
            epochs=int(metrics.get(self.rules.epochs_key, search.epochs + 1)),
            value=float(value) if ranked and value is not None else None,
            epoch_seconds=None if cut else seconds,
            metrics=plain(metrics),
        )
        self._settle_training(name, float(metrics.get("time_this_iter_s") or 0.0))
        if not cut and seconds is not None and self.state.full_horizon is None:
            self._plan(float(seconds))
        if ranked and value is not None:
            self._allocator.observe(search, search.epochs, self._score(float(value)))
        return self._verdict(search, cut, stopping, pausable)

    def _verdict(self, search: SearchRecord, cut: bool, stopping: bool, pausable: bool) -> Verdict:
        leave: Verdict = "pause" if pausable else "stop"
        if self.complete(search) and not cut:
            return "stop"
        if stopping or cut or search.epochs >= search.target:
            return leave
        grant = self.state.ledger.grants.get(search.grant or "")
        closing = self._overhead(0.0, reuse=True) * self.rules.devices
        if not self.rules.slice_told and grant is not None:
            next_step = 1.5 * search.slowest_seconds * self.rules.devices
            if grant.left < next_step + closing:
                return leave
        return "continue"

    def complete(self, search: SearchRecord) -> bool:
        """Whether a search has done all the epochs of its horizon."""
        end = search.horizon if self.rules.horizon_told else self.state.full_horizon
        return end is not None and search.epochs >= end

    def keep_slot(self, name: str, slots: int, busy: Collection[str]) -> bool:
        """Whether a trial at the end of its slice goes on in its process at once; if so, its next grant is booked."""
        search = self.state.searches[name]
        self.append("state", trial=name, state="paused", why="slice ended")
        own = [search.grant] if search.grant is not None else []
        view = self.view(slots, [trial for trial in busy if trial != name], own)
        piece = self._allocator.next_slice(view)
        if piece is None or piece.search != name:
            return False
        self.book(piece, search, view, own[0] if own else None)
        return True

    def _settle_training(self, name: str, step_seconds: float) -> None:
        """Kind train is the reported step time; what was held beside it in this time is set-up."""
        held, trained = self._trained.pop(name, 0.0), step_seconds * self.rules.devices
        spare = self.state.ledger.spent_by_trial.get(name, {}).get("setup", 0.0)
        if held > trained:
            self.append("relabel", trial=name, **{"from": "train", "to": "setup"}, amount=round(held - trained, 6))
        elif min(trained - held, spare) > 0:
            amount = round(min(trained - held, spare), 6)
            self.append("relabel", trial=name, **{"from": "setup", "to": "train"}, amount=amount)

    def _plan(self, epoch_seconds: float) -> None:
        """Fix the full horizon: what the budget buys of full searches, no more than one slot can run."""
        epoch = epoch_seconds * self.rules.devices
        horizon = self.rules.full_epochs
        if horizon is None:
            boots = (self.state.boot_seconds or 0.0) * self.rules.devices * self._slots
            share = (self.state.ledger.budget - boots) / max(self.rules.searches, self._slots)
            horizon = max(1, int(share / max(epoch, 1e-9)))
        self.append("plan", epoch_device_seconds=epoch, full_horizon=horizon)
        logger.info("an epoch takes %.2f device-seconds; a full search has %d epochs", epoch, horizon)

    def saving(self, name: str) -> None:
        """Take note that a trial was asked to save."""
        self._saving.setdefault(name, self._clock.monotonic())

    def checkpointed(self, name: str, path: str, iteration: int) -> None:
        """Enter a checkpoint that is on disk."""
        self.post()
        since = self._saving.pop(name, None)
        search = self.state.searches[name]
        self.append("checkpoint", trial=name, path=path, epochs=search.epochs, iteration=iteration)
        if since is not None and self._clock.monotonic() - since > (self.state.save_seconds or 0.0):
            self.append("timing", save_seconds=self._clock.monotonic() - since)

    def moved(self, name: str, state: SearchStatus, why: str) -> None:
        """Enter that a search is now paused, finished or failed."""
        search = self.state.searches[name]
        if search.state != state:
            self.append("state", trial=name, state=state, why=why)

    def crashed(self, name: str, why: str) -> None:
        """Enter that a trial's process died or raised: what it held since its last checkpoint is lost."""
        self.post()
        self._trained.pop(name, None)
        self._saving.pop(name, None)
        self._lose(self.state.searches[name], why)

    def _lose(self, search: SearchRecord, why: str) -> None:
        unsaved = dict(self.state.ledger.unsaved.get(search.id, {}))
        for kind in KINDS:
            if kind != "lost" and unsaved.get(kind, 0.0) > 0:
                fields = {"from": kind, "to": "lost"}
                self.append("relabel", trial=search.id, **fields, amount=round(unsaved[kind], 6))
        kept = search.checkpoints[-1].epochs if search.checkpoints else 0
        self.append("failure", trial=search.id, epochs=kept, why=why)

    def drop_checkpoint(self, name: str, why: str) -> None:
        """Enter that a search's newest checkpoint cannot be loaded: it goes back to the one before, or to nothing."""
        search = self.state.searches[name]
        kept = search.checkpoints[:-1]
        path, epochs = search.checkpoints[-1].path, kept[-1].epochs if kept else 0
        self.append("checkpoint-lost", trial=name, path=path, epochs=epochs, why=why)

    @property
    def barren(self) -> str:
        """The error of the newest of several searches that all failed before any reported; empty otherwise."""
        failed = [search for search in self.state.searches.values() if search.state == "failed"]
        if len(failed) < FAILURES_IN_A_ROW or any(search.latest for search in self.state.searches.values()):
            return ""
        return failed[-1].why

    def end(self, interrupted: bool) -> None:
        """Enter the end of this run: close all grants, and say how and why it ended."""
        for grant in list(self.state.ledger.grants):
            self.close(grant)
        self.post()
        state, ledger = "finished", self.state.ledger
        device = self.state.settings["device"]
        why = f"{format_device_seconds(max(0.0, ledger.free), device)} remain, too little for another slice"
        if interrupted:
            state, why = "interrupted", "it was told to stop"
        elif self.barren:
            state, why = "failed", f"the first searches all failed before they reported anything: {self.barren}"
        elif self.state.full_horizon is None:
            state, why = "failed", self._too_small()
        self.append("end", state=state, why=why)
        self.flush()

    def _too_small(self) -> str:
        """Why no epoch was completed, with the budget that would do as far as that is known."""
        device = self.state.settings["device"]
        budget = format_device_seconds(self.state.ledger.budget, device)
        done = [search.latest.get("epoch_fraction") for search in self.state.searches.values()]
        best = max((part for part in done if isinstance(part, float)), default=0.0)
        trained = max(
            (kinds.get("train", 0.0) + kinds.get("lost", 0.0) for kinds in self.state.ledger.spent_by_trial.values()),
            default=0.0,
        )
        overhead = self._overhead(math.inf, reuse=False) * self.rules.devices
        whole = trained / best if best > 0 else 2 * max(trained, self.state.ledger.budget)
        needed = format_device_seconds(math.ceil(1.1 * (overhead + whole * SLICE_MARGIN)), device)
        return f"a budget of {budget} is too small for one epoch of one search; about {needed} would do"

    def _score(self, value: float) -> float:
        return value if self.rules.mode == "max" else -value


def plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that JSON can hold: numbers (not finite: None), texts, booleans, lists of such."""

    def convert(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        return str(value) if not hasattr(value, "item") else convert(value.item())

    return {key: convert(value) for key, value in metrics.items() if not key.startswith("config/")}
