"""The spending of a sweep apart from Ray: grants, charges, reports and decisions, written to a journal."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.budget import Budget, format_device_seconds
from schedulers.charging import FLUSH_SECONDS, Charging
from schedulers.clock import Clock
from schedulers.device_rates import Prices
from schedulers.ending import OUT_OF_TIME, barren, ending
from schedulers.grant_sizes import GrantSizes
from schedulers.losses import Losses
from schedulers.meter import Holding
from schedulers.plain_data import LOST, function_places, kept_value, plain, value_at
from schedulers.planning import Planning
from schedulers.record_book import RecordBook
from schedulers.rules import Rules
from schedulers.search_record import Kind, SearchRecord, SearchStatus
from schedulers.standing import AllBut
from schedulers.sweep_state import SweepState
from schedulers.verdicts import Verdict, complete, verdict
from schedulers.views import view_of

_STOPPING_SECONDS = 5.0
"""So much before its deadline, besides what saving takes, nothing of a sweep steps any more."""

_MOVES = ("search", "grant", "state", "failure", "checkpoint-lost", "weights-dropped")
"""Records by which a search comes to stand elsewhere."""


class SweepCore:
    """Books grants before anything runs, charges what is held, and asks the allocator what comes next.

    Every change goes through the journal: it is appended there, then folded into :attr:`state`.

    Args:
        book: Where records go.
        state: What the journal says so far.
        allocator: The rule that gives slices to searches.
        clock: Tells the time.
        rules: What the sweep spends by.

    Attributes:
        prices: What a trial's wall second costs on the devices that are there.
    """

    def __init__(self, book: RecordBook, state: SweepState, allocator: Allocator, clock: Clock, rules: Rules) -> None:
        self.state = state
        self.rules = rules
        self._more_searches = self._finalists_to_come = True
        self._book = book
        self._allocator = allocator
        self._clock = clock
        self._sizes = GrantSizes(rules, state)
        self._losses = Losses(state, self.append)
        self._charging = Charging(state, rules, clock, self.append)
        self._planning = Planning(state, rules, allocator, self.append)
        self._saving: dict[str, float] = {}
        self._changed = True
        self._asked: tuple[int, int, int] | None = None
        self._slots = 1
        self.prices = Prices(rules.devices, rules.devices)
        for search in state.searches.values():
            for epochs, value in search.curve:
                allocator.observe(search, epochs, self._score(value))
            allocator.moved(search)

    # Records

    def append(self, event: str, **fields: Any) -> None:
        """Write a record and fold it in."""
        self.state.apply(self._book.append({"event": event, **fields}))
        self._changed = self._changed or event not in ("charge", "relabel", "timing")
        if event in _MOVES:
            self._allocator.moved(self.state.searches[fields["trial"]])

    def flush(self) -> None:
        """Make every record durable.

        Raises:
            JournalWriteError: If the journal cannot be written now; the records are kept for the next attempt.
        """
        self._book.flush()

    def enter_run(
        self, budget: Budget, settings: Mapping[str, Any], slots: int, seconds_unseen: float, dearest: float = 1.0
    ) -> None:
        """Enter the beginning of a driver's work, and close what an earlier driver left open.

        Args:
            budget: The whole budget; larger than before if it was raised.
            settings: What the journal should know of the sweep.
            slots: How many trials can run now.
            seconds_unseen: Wall seconds that a trial may go on holding its devices once this driver has died.
            dearest: Device-seconds that a second of a device may have counted.

        Raises:
            ValueError: If the budget is below what was spent, or trials were ranked otherwise before.
        """
        ledger = self.state.ledger
        known_as = {"metric": self.rules.metric, "mode": self.rules.mode}
        for name, value in known_as.items():
            if (before := self.state.settings.get(name, value)) != value:
                raise ValueError(f"the sweep was begun with the {name} {before!r}, so it cannot go on with {value!r}")
        if not self.state.settings:
            self.append("sweep", **known_as, devices_per_trial=self.rules.devices, **settings)
        before = self.state.seconds_unseen
        if ledger.budget > budget.device_seconds < ledger.spent + ledger.granted:
            spent = format_device_seconds(ledger.spent + ledger.granted, budget.device)
            raise ValueError(f"the budget {budget} is below the {spent} that are spent or promised: give more")
        if "config" in settings and settings["config"] != self.state.settings.get("config"):
            # What else was said of the sweep is of its first run.
            self.append("config", config=settings["config"])
        if budget.device_seconds != ledger.budget:
            self.append("budget", device_seconds=budget.device_seconds, text=str(budget))
        told = {"devices_per_trial": self.rules.devices, "seconds_unseen": seconds_unseen}
        self.append("run", slots=slots, dearest_rate=dearest, **told)
        # Trials may have held more under the earlier driver than they do now, and it may have counted more.
        most = max(self.state.most_devices, self.state.settings["devices_per_trial"]) * self.state.dearest_rate
        self._losses.of_dead_driver(most, FLUSH_SECONDS + (seconds_unseen if before is None else before))
        self.flush()

    def add_search(self, name: str, config: Mapping[str, Any], kind: Kind = "search") -> SearchRecord:
        """Enter a new search, or a new trial of the selection."""
        self.append("search", trial=name, index=len(self.state.searches), config=dict(config), kind=kind)
        return self.state.searches[name]

    def drawn(self, name: str, config: Mapping[str, Any]) -> None:
        """Enter what Tune has drawn from functions for a search, as far as JSON can hold it."""
        places = function_places(self.state.searches[name].config)
        values = [[list(place), kept_value(value_at(config, place))] for place in places]
        if kept := [[place, value] for place, value in values if value is not LOST]:
            self.append("drawn", trial=name, values=kept)

    @property
    def _more_to_try(self) -> bool:
        most = self.rules.most_searches
        return self._more_searches and (most is None or len(self.state.standing("search").trials) < most)

    @property
    def _more_finalists(self) -> bool:
        return self._finalists_to_come and len(self.state.standing("select").trials) < self.rules.finalists

    def no_more_searches(self) -> None:
        """Take note that no new search can be had."""
        self._more_searches, self._changed = False, True

    def no_more_finalists(self) -> None:
        """Take note that no new trial of the selection can be had."""
        self._finalists_to_come, self._changed = False, True

    # Time

    def tick(self, held: Mapping[str, Holding]) -> None:
        """Charge what was held since the last tick; make charges durable when it is time.

        Args:
            held: Every live process, by a key of its own.
        """
        self._charging.tick(held)
        if self._charging.due:
            self.post()
            self.flush()

    def turn(self, key: str, holding: Holding | None) -> None:
        """Charge what one process held until now, the moment at which it turns to something else (None: it is gone)."""
        self._charging.turn(key, holding)

    @property
    def spent(self) -> float:
        """Device-seconds held so far, to this moment."""
        return self.state.ledger.spent + self._charging.unposted()

    def post(self, name: str | None = None) -> None:
        """Enter what was metered into the accounts; that of one trial, or of all."""
        self._charging.post(name)

    def overdue(self, held: Mapping[str, Holding]) -> list[str]:
        """The keys of processes whose grant has only its grace left: they must be killed now."""
        return self._charging.within(held, self.rules.grace_seconds)

    def expiring(self, held: Mapping[str, Holding]) -> set[str]:
        """The trials that train and have just the time to save left in their grant, as their start took too long."""
        keys = self._charging.within(held, self.rules.grace_seconds + self._sizes.saving)
        return {held[key].trial for key in keys if held[key].phase == "train"}

    # Decisions

    def view(self, slots: int, busy: Collection[str], reusable: Sequence[str]) -> SweepView:
        """What the allocator sees now; see :meth:`next_slice` for the arguments."""
        return self._view(slots, busy, reusable, self.deadline_seconds)

    def _view(self, slots: int, busy: Collection[str], reusable: Sequence[str], deadline_seconds: float) -> SweepView:
        if reusable:
            self._post_grant(reusable[0])  # What is left of it is free.
        return view_of(
            self.state,
            self.rules,
            self._sizes,
            slots=slots,
            busy=busy,
            reusable=reusable,
            prices=self.prices,
            unposted=self._charging.unposted,
            deadline_seconds=deadline_seconds,
            more_searches=self._more_to_try,
            more_finalists=self._more_finalists,
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
        if len(busy) >= slots or barren(self.state):
            return None
        asked = (slots, len(busy), len(reusable))
        if not self._changed and asked == self._asked:
            return None
        view = self.view(slots, busy, reusable)
        piece = self._allocator.next_slice(view)
        if piece is None and not busy and not self.rules.slice_told:
            view = replace(view, scarce=True)
            piece = self._allocator.next_slice(view)
        if piece is None:
            self._asked, self._changed = asked, False
            return None
        return piece, view

    def book(self, piece: Slice, search: SearchRecord, view: SweepView, reuse: str | None) -> float:
        """Book the grant for a slice; nothing may run on it before :meth:`flush` has returned.

        Args:
            piece: The slice.
            search: The search that runs it.
            view: The view that the slice was chosen by.
            reuse: The grant of the idle process that will be used, which is released; None for a new process.

        Returns:
            Wall seconds that the search may step.
        """
        if reuse is not None:
            self._release(reuse)
        amount, stepping = self._sizes.size(piece, search, view, reuse is not None)
        name = f"g{self.state.booked}"
        told = {"epochs": piece.epochs, "horizon": piece.horizon, "why": piece.why}
        self.append("grant", grant=name, trial=search.id, amount=round(amount, 6), **told)
        self._charging.booked(name)
        return stepping

    def _post_grant(self, grant: str) -> None:
        if grant in self.state.ledger.grants:
            self.post(self.state.ledger.grants[grant].trial)

    def _release(self, grant: str) -> None:
        if grant in self.state.ledger.grants:
            self._post_grant(grant)
            held = self.state.ledger.grants[grant]
            self.append("release", grant=grant, trial=held.trial, amount=round(held.left, 6))

    def close(self, grant: str) -> None:
        """Give back what is left of a grant: the process that ran on it is gone."""
        self._release(grant)
        self._charging.closed(grant)

    # What trials do

    def report(self, name: str, metrics: Mapping[str, Any], stopping: bool, device: str = "") -> Verdict:
        """Enter a trial's report and say what it does next.

        Args:
            name: The trial.
            metrics: The flat result.
            stopping: Whether the whole sweep is being stopped.
            device: The accelerator type that it comes from, where there are several; empty if it is not known.
        """
        self.post(name)
        search, metrics, price = self.state.searches[name], plain(metrics), self._charging.price(name)
        cut = self.rules.slice_told and bool(metrics.get("cut"))
        step = metrics.get("time_this_iter_s")
        seconds = metrics.get("epoch_seconds", step) if self.rules.slice_told else step
        value = metrics.get(self.rules.metric)
        # Not finite numbers are None in plain data.
        value = None if cut or not isinstance(value, (int, float)) else float(value)
        self.append(
            "report",
            trial=name,
            epochs=int(metrics.get(self.rules.epochs_key, search.epochs + 1)),
            value=value,
            epoch_seconds=None if cut else seconds,
            metrics=metrics,
            price=price,
            **({"device": device} if device else {}),
        )
        self._charging.settle_training(name, float(step or 0.0))
        if not cut and seconds is not None and search.kind == "search":
            comparing = self._sizes.comparing("search")
            self._planning.measured(search, price, comparing, lambda: self.view(self._slots, (), ()))
        if value is not None:
            self._allocator.observe(search, search.epochs, self._score(value))
        # A process that was told to stop, by whomever, has said its last.
        leaving = stopping or cut or (self.rules.slice_told and bool(metrics.get("interrupted")))
        saved = bool(metrics.get("should_checkpoint"))
        return verdict(search, self.state, self.rules, self._sizes.closing, price, cut, leaving, saved)

    def complete(self, search: SearchRecord) -> bool:
        """Whether a search has done all the epochs of its horizon."""
        return complete(search, self.state, self.rules)

    def keep_slot(self, name: str, slots: int, busy: Collection[str]) -> float | None:
        """Book the next grant of a trial at the end of its slice if it is to go on in its process at once.

        Returns:
            Wall seconds that it may step; None if it does not go on.
        """
        search = self.state.searches[name]
        self.append("state", trial=name, state="paused", why="slice ended")
        own = [search.grant] if search.grant is not None else []
        view = self.view(slots, AllBut(busy, name), own)
        piece = self._allocator.next_slice(view)
        if piece is None or piece.search != name:
            # It rests when it has saved: if the driver dies before that, what it has not saved is lost.
            self.append("state", trial=name, state="running", why="slice ended, to be saved")
            return None
        return self.book(piece, search, view, own[0] if own else None)

    def stepping_seconds(self, name: str) -> float:
        """Wall seconds that a trial may still step on its grant."""
        grant = self.state.ledger.grants.get(self.state.searches[name].grant or "")
        left = 0.0 if grant is None else grant.left / self._charging.price(name)
        return max(0.0, left - self._sizes.closing)

    def saving(self, name: str) -> None:
        """Take note that a trial was asked to save."""
        self._saving.setdefault(name, self._clock.monotonic())

    def checkpointed(self, name: str, path: str, iteration: int, size: int = 0) -> None:
        """Enter a checkpoint that is on disk; its size is in bytes, 0 if nobody knows it."""
        self.post(name)
        since = self._saving.pop(name, None)
        search = self.state.searches[name]
        self.append("checkpoint", trial=name, path=path, epochs=search.epochs, iteration=iteration, bytes=size)
        # To disk with the next tick: Tune has deleted the checkpoint that was known as the oldest.
        self._charging.hurry()
        if since is not None and self._clock.monotonic() - since > (self.state.save_seconds or 0.0):
            self.append("timing", save_seconds=self._clock.monotonic() - since)

    def moved(self, name: str, state: SearchStatus, why: str) -> None:
        """Enter that a search is now paused, finished or failed."""
        search = self.state.searches[name]
        if search.state != state:
            self.append("state", trial=name, state=state, why=why)

    def rest(self, name: str, why: str) -> None:
        """Enter that a search is now paused; what it did since its newest checkpoint is lost."""
        search = self.state.searches[name]
        if search.epochs > (search.checkpoints[-1].epochs if search.checkpoints else 0):
            self.crashed(name, "it left without a checkpoint of what it did last", blameless=True)
        self.moved(name, "paused", why)

    def crashed(self, name: str, why: str, blameless: bool = False) -> None:
        """Enter that a trial's process died or raised; ``blameless`` if that was none of the trial's doing."""
        self.post(name)
        self._charging.crashed(name)
        self._saving.pop(name, None)
        search = self.state.searches[name]
        if self.state.boot_seconds is not None:
            # If it was killed while it booted, perhaps for want of time, the next one is given more.
            self._charging.note_start(search.grant, in_vain=True)
        self._losses.of_dead_trial(search, why, blameless)

    def drop_checkpoint(self, name: str, why: str) -> None:
        """Enter that a search's newest checkpoint cannot be loaded: it goes back to the one before, or to nothing."""
        self._losses.of_checkpoint(self.state.searches[name], why)

    @property
    def deadline_seconds(self) -> float:
        """Wall seconds that trials may still step, by the sweep's deadline; infinite without one."""
        if self.state.deadline is None:
            return math.inf
        return max(0.0, self.state.deadline - self._clock.time() - self._sizes.closing - _STOPPING_SECONDS)

    def forsake(self, why: str) -> None:
        """Enter that this run ends while trials are at work that it cannot see any more.

        Their grants stay open: the next run charges what they may have held unseen.
        """
        self.post()
        self.append("end", state="interrupted", why=why)
        self.flush()

    def end(self, interrupted: str = "") -> None:
        """Enter the end of this run: close all grants, and say how and why it ended.

        Args:
            interrupted: Why it was stopped before its end; empty if it was not.
        """
        for grant in list(self.state.ledger.grants):
            self.close(grant)
        self.post()
        dearest = self.prices.dearest
        overhead = self._sizes.overhead(math.inf, dearest, reuse=False) + self._sizes.comparing("search")
        hurried = self.view(self._slots, (), ()).budget < self.state.ledger.budget
        if hurried and not interrupted:
            later = self._allocator.next_slice(self._view(self._slots, (), (), math.inf))
            interrupted = "" if later is None else OUT_OF_TIME
        rules = replace(self.rules, devices=dearest)
        state, why = ending(self.state, rules, overhead, interrupted, self._more_to_try, hurried)
        self.append("end", state=state, why=why)
        self.flush()

    def _score(self, value: float) -> float:
        return value if self.rules.mode == "max" else -value
