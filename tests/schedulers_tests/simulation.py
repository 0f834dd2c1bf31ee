"""Simulated processes, which core and allocators drive as Ray's are driven, in simulated time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from schedulers.allocation import Allocator
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.meter import Holding, Phase
from schedulers.rules import Rules
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import UNSEEN_SECONDS, MemoryBook


@dataclass(frozen=True)
class World:
    """What the processes of a sweep take, in wall seconds; ``told`` is for trials that stop by themselves."""

    slots: int = 2
    devices: float = 1.0
    epoch: float = 10.0
    jitter: float = 0.05
    boot: float = 5.0
    save: float = 0.5
    stop: float = 0.3
    reset: float = 0.1
    reuse: bool = True
    told: bool = True
    max_t: int = 27
    searches: int = 8
    limit: int | None = None
    finalists: int = 0
    comparing: float = 0.0
    seed: int = 0


@dataclass
class Process:
    key: str
    trial: str
    grant: str
    phase: Phase
    ends: float
    slice_seconds: float = math.inf
    stepped: float = 0.0
    state: Literal["working", "idle", "stopping"] = "working"
    step: float = 0.0
    whole: bool = True


@dataclass
class Trial:
    """What a trial's process remembers: epochs done, and the part of the present epoch that a cut has left."""

    epochs: int = 0
    iteration: int = 0
    duration: float = 0.0
    gone: float = 0.0
    beside: float = 0.0
    saved: tuple[int, float, float] = (0, 0.0, 0.0)
    horizons: list[int] = field(default_factory=list)


class Simulation:
    """An event at a time: the process whose phase ends first, or whose grant runs out first."""

    def __init__(self, world: World, budget: float, allocator: Allocator) -> None:
        self.world = world
        self.clock = SimulatedClock(unix=1.7e9)
        self.book = MemoryBook(self.clock, [])
        self.rules = Rules(
            devices=world.devices,
            metric="value",
            epochs_key="epochs" if world.told else "training_iteration",
            full_epochs=None if world.told else world.max_t,
            searches=world.searches,
            most_searches=world.limit,
            finalists=world.finalists,
            horizon_told=world.told,
            slice_told=world.told,
        )
        self.budget = Budget(budget, "cpu")
        self.drive(allocator)
        self.random = random.Random(world.seed)
        self.processes: dict[str, Process] = {}
        self.trials: dict[str, Trial] = {}
        self.boots = self.kills = self.cuts = self.events = 0
        self.most = self.held = 0.0

    def drive(self, allocator: Allocator) -> None:
        """A driver begins with what the book says."""
        state = SweepState.replay(None, self.book.records)
        self.core = SweepCore(self.book, state, allocator, self.clock, self.rules)
        self.core.enter_run(self.budget, {"device": "cpu"}, self.world.slots, UNSEEN_SECONDS)

    def run(self) -> SweepState:
        while True:
            self.tick()
            if self.start():
                continue
            if not self.busy():
                break
            self.advance()
        for process in self.processes.values():
            self.stop(process)
        while self.processes:
            self.advance()
        self.core.end()
        return self.core.state

    def tick(self) -> None:
        held = {p.key: Holding(p.trial, p.grant, self.world.devices, p.phase) for p in self.processes.values()}
        self.core.tick(held)
        ledger = self.core.state.ledger
        self.most = max(self.most, ledger.spent + ledger.granted)
        for key in self.core.overdue(held):
            self.kills += 1
            self.gone(self.processes[key], killed=True)

    def busy(self) -> list[str]:
        return [process.trial for process in self.processes.values() if process.state != "idle"]

    def idle(self) -> list[Process]:
        return [process for process in self.processes.values() if process.state == "idle"]

    def stop(self, process: Process) -> None:
        process.state, process.phase, process.ends = "stopping", "idle", self.clock.monotonic() + self.world.stop

    def gone(self, process: Process, killed: bool = False, blameless: bool = False) -> None:
        del self.processes[process.key]
        if killed and process.state == "working":
            self.core.crashed(process.trial, "killed", blameless)
            trial, search = self.trials[process.trial], self.core.state.searches[process.trial]
            trial.epochs, trial.duration, trial.gone = trial.saved
            self.core.moved(process.trial, "failed" if search.failures >= 3 else "paused", "killed")
        self.core.close(process.grant)

    def start(self) -> bool:
        idle, busy = self.idle(), self.busy()
        offer = self.core.next_slice(self.world.slots, busy, [process.grant for process in idle])
        if offer is None:
            return False
        piece, view = offer
        name = piece.search or f"t{len(self.trials)}"
        if piece.search is None:
            self.core.add_search(name, {}, piece.kind)
            self.trials[name] = Trial()
        share = 1.0 / (view.slots - len(busy))
        search = self.core.state.searches[name]
        seconds = self.core.book(piece, search, view, idle[0].grant if idle else None, share)
        if piece.horizon is not None:
            self.trials[name].horizons.append(piece.horizon)
        assert search.grant is not None
        restore = self.world.save if self.trials[name].epochs else 0.0
        if idle:
            process = idle[0]
            process.trial, process.grant, process.state = name, search.grant, "working"
            process.ends = self.clock.monotonic() + self.world.reset + restore
        else:
            self.boots += 1
            key = f"p{self.boots}"
            ends = self.clock.monotonic() + self.world.boot * self.random.uniform(0.9, 1.1) + restore
            process = self.processes[key] = Process(key, name, search.grant, "setup", ends)
        process.phase, process.stepped = "setup", 0.0
        process.slice_seconds = seconds if self.world.told else math.inf
        return True

    def advance(self) -> None:
        self.events += 1
        assert self.events < 200_000, "the sweep does not end"
        now, ledger = self.clock.monotonic(), self.core.state.ledger
        soonest = min(self.processes.values(), key=lambda process: process.ends)
        self.core.post()
        spare = 2.0 * self.world.devices
        kill = min((ledger.grants[p.grant].left - spare) / self.world.devices for p in self.processes.values())
        self.pass_time(min(soonest.ends - now, max(0.0, kill) + 1e-3))
        self.tick()
        if soonest.key in self.processes and self.clock.monotonic() >= soonest.ends - 1e-9:
            self.phase_ended(soonest)

    def pass_time(self, seconds: float) -> None:
        self.held += seconds * self.world.devices * len(self.processes)
        self.clock.advance(seconds)

    def phase_ended(self, process: Process) -> None:
        if process.state == "stopping":
            self.gone(process)
        elif process.state == "idle":
            self.stop(process)
        elif process.phase == "setup":
            process.phase = "train"
            self.begin_step(process)
        elif process.phase == "train":
            self.end_step(process)
        else:
            self.saved(process)

    def begin_step(self, process: Process) -> None:
        trial = self.trials[process.trial]
        if not trial.duration:
            half = 0.5 if self.core.state.searches[process.trial].kind == "select" else 1.0
            trial.duration = half * self.world.epoch * math.exp(self.random.gauss(0, self.world.jitter))
        search = self.core.state.searches[process.trial]
        compared = search.kind == "search" and trial.epochs + 1 >= search.target
        trial.beside = self.world.comparing if compared else trial.beside
        rest = trial.duration + trial.beside - trial.gone
        room = max(0.01 * trial.duration, process.slice_seconds - process.stepped)
        process.step, process.whole = min(rest, room), rest <= room
        process.ends = self.clock.monotonic() + process.step

    def end_step(self, process: Process) -> None:
        name, trial = process.trial, self.trials[process.trial]
        process.stepped += process.step
        trial.iteration += 1
        trial.gone += process.step
        duration, beside = trial.duration, trial.beside
        if process.whole:
            trial.epochs, trial.duration, trial.gone, trial.beside = trial.epochs + 1, 0.0, 0.0, 0.0
        else:
            self.cuts += 1
        quality = random.Random(name).random()
        metrics = {
            "value": quality * (1 - math.exp(-trial.epochs / 10)) if process.whole else math.nan,
            "cut": not process.whole,
            "epochs": trial.epochs,
            "training_iteration": trial.epochs,
            "epoch_seconds": duration if process.whole else None,
            "objective_seconds": beside if process.whole else None,
            "time_this_iter_s": process.step,
        }
        verdict = self.core.report(name, metrics, stopping=False)
        search = self.core.state.searches[name]
        if verdict == "pause":
            seconds = self.core.keep_slot(name, self.world.slots, self.busy())
            if seconds is not None:
                assert search.grant is not None
                process.grant, verdict = search.grant, "continue"
                if self.world.told:
                    process.slice_seconds, process.stepped = seconds, 0.0
                    if search.horizon is not None:
                        trial.horizons.append(search.horizon)
        if verdict == "continue":
            self.begin_step(process)
            return
        self.core.saving(name)
        process.phase, process.ends = "checkpoint", self.clock.monotonic() + self.world.save

    def saved(self, process: Process) -> None:
        name, trial = process.trial, self.trials[process.trial]
        self.core.checkpointed(name, f"{name}/{trial.iteration}", trial.iteration)
        trial.saved = (trial.epochs, trial.duration, trial.gone)
        complete = self.core.complete(self.core.state.searches[name]) and not trial.gone
        self.core.moved(name, "finished" if complete else "paused", "")
        if self.world.reuse and not self.idle():
            process.state, process.phase, process.ends = "idle", "idle", self.clock.monotonic() + 5.0
        else:
            self.stop(process)
