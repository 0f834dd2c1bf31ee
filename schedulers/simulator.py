"""Whole sweeps in simulated time: the ledger and the allocators that drive Ray, without Ray.

An event is the end of what a process is doing, or the moment at which it must be killed or is preempted. Between two
events nothing changes, so that a month of a thousand slots takes minutes.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from array import array
from collections.abc import Callable
from typing import Any

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.ending import FAILURES_IN_A_ROW, MISHAPS_IN_A_ROW
from schedulers.meter import Holding, Phase
from schedulers.record_book import RecordBook
from schedulers.rules import Rules
from schedulers.simulated_world import Process, SimulatedTrial, Unkept, World
from schedulers.sweep_state import SweepState
from schedulers.workload import Workload

_IDLE_SECONDS = 5.0
"""A process that idles so long with nothing to grant is stopped."""

UNSEEN_SECONDS = 5.0
"""So long a process may go on holding its devices behind a driver that died."""

_LATE_SECONDS = 1e-3
"""A kill comes so much after the moment at which it is due."""

BEGINNING = 1.7e9
"""Unix seconds at which every simulation begins."""


class Simulator:
    """Drives the core as :class:`schedulers.sweep_run.SweepRun` does, with simulated processes.

    Args:
        world: What the sweep runs on.
        workload: Where its trials come from.
        allocator: The rule that gives slices to them.
        budget: What all of them may hold together.
        rules: What the sweep spends by.

    Attributes:
        best: (device-seconds spent, value) whenever a better value was reported than any before.
        decision_seconds: What each decision took of the time of the machine that simulates: entering a report that
            ends a slice and saying whether its trial goes on, or saying what a free slot gets.
        processes: Those that live, by key.
        trials: What each trial's process remembers, and ``saved`` what its newest checkpoint holds.
        boots: How many processes were started; ``preemptions``, ``kills``, ``cuts``: how many of them were taken away,
            were killed as their grant had run out, and were stopped by their slice in the middle of an epoch.
    """

    def __init__(self, world: World, workload: Workload, allocator: Allocator, budget: Budget, rules: Rules) -> None:
        self.world = world
        self.workload = workload
        self.budget = budget
        self.rules = rules
        self.clock = SimulatedClock(BEGINNING)
        self.random = random.Random(world.seed)
        self.trials: dict[str, SimulatedTrial] = {}
        self.best: list[tuple[float, float]] = []
        self.decision_seconds = array("d")
        self.boots = self.preemptions = self.kills = self.cuts = 0
        self.saved: dict[str, SimulatedTrial] = {}
        self._speeds: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = itertools.count()
        self.drive(allocator)

    def drive(self, allocator: Allocator, book: RecordBook | None = None, state: SweepState | None = None) -> None:
        """Begin as a driver does, with a book, with what it says of the sweep so far, and with no process."""
        self.processes: dict[str, Process] = {}
        self._busy: dict[str, Process] = {}
        self._idle: dict[str, Process] = {}
        self._free_slots = list(range(len(self._speeds)))
        begun = state or SweepState()
        self.core = SweepCore(book or Unkept(self.clock), begun, allocator, self.clock, self.rules)
        self.core.enter_run(self.budget, {"device": self.budget.device}, self.world.slots, UNSEEN_SECONDS)

    def run(self) -> SweepState:
        """Run the sweep until nothing can be started any more, and all that was has come to its end."""
        while True:
            while self._start():
                pass
            if not self._busy:
                break
            self.advance()
        for process in list(self._idle.values()):
            self._stop(process)
        while self.processes:
            self.advance()
        self.core.end()
        return self.core.state

    # Events

    def schedule(self, seconds: float, happens: Callable[[], None]) -> None:
        """Have something happen in so many seconds."""
        heapq.heappush(self._events, (self.clock.monotonic() + seconds, next(self._scheduled), happens))

    def advance(self) -> None:
        """Let the next event come."""
        at, _, happens = heapq.heappop(self._events)
        self.pass_time(max(0.0, at - self.clock.monotonic()))
        happens()

    def pass_time(self, seconds: float) -> None:
        """Let time pass in which nothing happens."""
        self.clock.advance(seconds)

    def _schedule(self, seconds: float, process: Process, happens: Callable[[], None]) -> None:
        """Have something happen to a process, if it lives then."""
        self.schedule(seconds, lambda: happens() if self.processes.get(process.key) is process else None)

    def _do(self, process: Process, phase: Phase, seconds: float) -> None:
        """Let a process do something for so long."""
        process.phase, process.doing = phase, process.doing + 1
        self._hold(process)
        doing = process.doing
        self._schedule(seconds, process, lambda: self._done(process) if process.doing == doing else None)

    def _hold(self, process: Process) -> None:
        """Have it metered up to now, and from now on as it is."""
        self.core.turn(process.key, self.holding(process))

    def holding(self, process: Process) -> Holding:
        """What a process holds."""
        return Holding(process.trial, process.grant, self.rules.devices, process.phase)

    def _done(self, process: Process) -> None:
        self._hold(process)
        if process.state == "stopping":
            self.gone(process)
        elif process.state == "idle":
            self._stop(process)
        elif process.phase == "setup":
            self._begin_step(process)
        elif process.phase == "train":
            self._end_step(process)
        else:
            self.save(process)

    def _watch(self, process: Process) -> None:
        """Kill a process when its grant has only its grace left."""
        grant = process.grant
        left = self.core.state.ledger.grants[grant].left / self.rules.devices - self.rules.grace_seconds

        def runs_out() -> None:
            if process.grant == grant:
                self._hold(process)
                if self.core.overdue({process.key: self.holding(process)}):
                    self.kills += 1
                    self.gone(process, "killed")

        self._schedule(max(0.0, left) + _LATE_SECONDS, process, runs_out)

    def _preempt(self, process: Process) -> None:
        self._hold(process)
        self.preemptions += 1
        self.gone(process, "preempted", blameless=True)

    # Processes

    def _start(self) -> bool:
        """Start what the allocator wants on a free slot; whether there was anything."""
        idle = next(iter(self._idle.values()), None)
        if idle is not None:
            self._hold(idle)
        offer = self._decide(idle)
        if offer is None:
            return False
        piece, view = offer
        name = piece.search or self._draw(piece)
        if name is None:
            return True
        search = self.core.state.searches[name]
        seconds = self.core.book(piece, search, view, idle.grant if idle else None)
        assert search.grant is not None, f"trial {name} has no grant though one was booked"
        restore = self.world.restore_seconds if self.trials[name].iteration else 0.0
        if idle is not None:
            process, starting = idle, self.world.reset_seconds
            del self._idle[idle.key]
            process.trial, process.grant, process.state = name, search.grant, "working"
        else:
            process = self._boot(name, search.grant)
            spread = self.world.boot_spread
            starting = self.world.boot_seconds * self.random.uniform(1.0 - spread, 1.0 + spread)
        self._busy[name] = process
        self._give(process, search.grant, seconds)
        self._do(process, "setup", starting + restore)
        return True

    def _decide(self, idle: Process | None) -> tuple[Slice, SweepView] | None:
        began = time.perf_counter()
        offer = self.core.next_slice(self.world.slots, self._busy.keys(), [idle.grant] if idle else [])
        if len(self._busy) < self.world.slots:
            self.decision_seconds.append(time.perf_counter() - began)
        return offer

    def _draw(self, piece: Slice) -> str | None:
        number = len(self.core.state.standing(piece.kind).trials)
        drawn = self.workload.draw(number, piece.kind)
        if drawn is None:
            if piece.kind == "search":
                self.core.no_more_searches()
            else:
                self.core.no_more_finalists()
            return None
        config, learner = drawn
        name = f"t{len(self.core.state.searches)}"
        self.core.add_search(name, config, piece.kind)
        self.trials[name] = SimulatedTrial(learner)
        self.saved[name] = self.trials[name].copy()
        return name

    def _boot(self, name: str, grant: str) -> Process:
        self.boots += 1
        if not self._free_slots:
            slot = len(self._speeds)
            self._free_slots.append(slot)
            # Whatever else was drawn before: one seed is the same slots for every allocator.
            drawn = random.Random(f"{self.world.seed} slot {slot}")
            self._speeds.append(math.exp(drawn.gauss(0.0, self.world.speed_spread)))
        process = Process(f"p{self.boots}", self._free_slots.pop(), name, grant)
        self.processes[process.key] = process
        if self.world.preemptions_per_hour:
            lives = 3600.0 * self.random.expovariate(self.world.preemptions_per_hour)
            self._schedule(lives, process, lambda: self._preempt(process))
        return process

    def _give(self, process: Process, grant: str, slice_seconds: float) -> None:
        process.grant, process.stepped = grant, 0.0
        process.slice_seconds = slice_seconds if self.rules.slice_told else math.inf
        self._watch(process)

    def _stop(self, process: Process) -> None:
        self._idle.pop(process.key, None)
        process.state = "stopping"
        # Its slot stays in use until it is gone.
        self._busy[process.trial] = process
        self._do(process, "idle", self.world.stop_seconds)

    def gone(self, process: Process, why: str = "", blameless: bool = False) -> None:
        """A process is gone; if it was at work, for a reason that the journal tells."""
        name = process.trial
        self.core.turn(process.key, None)
        del self.processes[process.key]
        self._idle.pop(process.key, None)
        self._busy.pop(name, None)
        self._free_slots.append(process.slot)
        if process.state == "working":
            blameless = blameless and self.core.state.searches[name].mishaps < MISHAPS_IN_A_ROW
            self.core.crashed(name, why, blameless)
            self.trials[name] = self.saved[name].copy()
            failed = self.core.state.searches[name].failures >= FAILURES_IN_A_ROW
            self.core.moved(name, "failed" if failed else "paused", why)
        self.core.close(process.grant)

    # Steps

    def _begin_step(self, process: Process) -> None:
        trial, search = self.trials[process.trial], self.core.state.searches[process.trial]
        if not trial.duration:
            trial.duration = trial.learner.epoch_seconds() / self._speeds[process.slot]
        if trial.epochs + 1 >= search.target:
            trial.beside = trial.learner.compare_seconds()
        rest = trial.duration + trial.beside - trial.gone
        room = max(0.01 * trial.duration, process.slice_seconds - process.stepped)
        process.step, process.whole = min(rest, room), rest <= room
        self._do(process, "train", process.step)

    def _end_step(self, process: Process) -> None:
        name, trial, search = process.trial, self.trials[process.trial], self.core.state.searches[process.trial]
        process.stepped += process.step
        trial.iteration += 1
        trial.gone += process.step
        metrics: dict[str, Any] = {"cut": not process.whole, "time_this_iter_s": process.step}
        if process.whole:
            trial.epochs += 1
            metrics |= trial.learner.learn(search.horizon, compared=trial.epochs >= search.target)
            metrics |= {"epoch_seconds": trial.duration, "objective_seconds": trial.beside}
            trial.duration = trial.beside = trial.gone = 0.0
        else:
            self.cuts += 1
        value = metrics.get(self.rules.metric)
        if value is not None and self.core.state.better(value, self.best[-1][1] if self.best else None):
            self.best.append((self.core.spent, value))
        began = time.perf_counter()
        verdict = self.core.report(name, {**metrics, self.rules.epochs_key: trial.epochs}, stopping=False)
        if verdict == "pause" and not trial.done:
            seconds = self._keep(name)
            self.decision_seconds.append(time.perf_counter() - began)
            if seconds is not None:
                assert search.grant is not None, f"trial {name} has no grant though one was booked"
                self._give(process, search.grant, seconds)
                verdict = "continue"
        if verdict == "continue" and not trial.done:
            if self.world.save_epochs and process.whole:
                self._saved(name)
            self._begin_step(process)
            return
        self.core.saving(name)
        self._do(process, "checkpoint", self.world.save_seconds)

    def _keep(self, name: str) -> float | None:
        return self.core.keep_slot(name, self.world.slots, self._busy.keys())

    def _saved(self, name: str) -> None:
        trial = self.trials[name]
        self.core.checkpointed(name, f"{name}/{trial.iteration}", trial.iteration)
        self.saved[name] = trial.copy()

    def save(self, process: Process) -> None:
        """A trial has saved: it rests, or has come to its end."""
        name, trial = process.trial, self.trials[process.trial]
        self._saved(name)
        complete = trial.done or (self.core.complete(self.core.state.searches[name]) and not trial.gone)
        self.core.moved(name, "finished" if complete else "paused", "")
        if self.world.reuse and not self._idle:
            del self._busy[name]
            process.state = "idle"
            self._idle[process.key] = process
            self._do(process, "idle", _IDLE_SECONDS)
        else:
            self._stop(process)
