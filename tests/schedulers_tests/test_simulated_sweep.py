"""Whole sweeps without Ray: core and allocators drive simulated processes in simulated time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare, geometric_rungs
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.meter import Holding, Phase
from schedulers.rules import Rules
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import MemoryBook


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
    saved: tuple[int, float, float] = (0, 0.0, 0.0)
    horizons: list[int] = field(default_factory=list)


class Simulation:
    """An event at a time: the process whose phase ends first, or whose grant runs out first."""

    def __init__(self, world: World, budget: float, allocator: Allocator) -> None:
        self.world = world
        self.clock = SimulatedClock(unix=1.7e9)
        self.book = MemoryBook(self.clock, [])
        rules = Rules(
            devices=world.devices,
            metric="value",
            epochs_key="epochs" if world.told else "training_iteration",
            full_epochs=None if world.told else world.max_t,
            searches=world.searches,
            most_searches=world.limit,
            horizon_told=world.told,
            slice_told=world.told,
        )
        self.core = SweepCore(self.book, SweepState(), allocator, self.clock, rules)
        self.core.enter_run(Budget(budget, "cpu"), {"device": "cpu"}, world.slots, 5.0)
        self.random = random.Random(world.seed)
        self.processes: dict[str, Process] = {}
        self.trials: dict[str, Trial] = {}
        self.boots = self.kills = self.cuts = self.events = 0
        self.most = self.held = 0.0

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

    def gone(self, process: Process, killed: bool = False) -> None:
        del self.processes[process.key]
        if killed and process.state == "working":
            self.core.crashed(process.trial, "killed")
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
            self.core.add_search(name, {})
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
        step = min(soonest.ends - now, max(0.0, kill) + 1e-3)
        self.held += step * self.world.devices * len(self.processes)
        self.clock.advance(step)
        self.tick()
        if soonest.key in self.processes and self.clock.monotonic() >= soonest.ends - 1e-9:
            self.phase_ended(soonest)

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
            trial.duration = self.world.epoch * math.exp(self.random.gauss(0, self.world.jitter))
        rest = trial.duration - trial.gone
        room = max(0.01 * trial.duration, process.slice_seconds - process.stepped)
        process.step, process.whole = min(rest, room), rest <= room
        process.ends = self.clock.monotonic() + process.step

    def end_step(self, process: Process) -> None:
        name, trial = process.trial, self.trials[process.trial]
        process.stepped += process.step
        trial.iteration += 1
        trial.gone += process.step
        duration = trial.duration
        if process.whole:
            trial.epochs, trial.duration, trial.gone = trial.epochs + 1, 0.0, 0.0
        else:
            self.cuts += 1
        quality = random.Random(name).random()
        metrics = {
            "value": quality * (1 - math.exp(-trial.epochs / 10)) if process.whole else math.nan,
            "cut": not process.whole,
            "epochs": trial.epochs,
            "training_iteration": trial.epochs,
            "epoch_seconds": duration if process.whole else None,
            "time_this_iter_s": process.step,
        }
        verdict = self.core.report(name, metrics, stopping=False)
        search = self.core.state.searches[name]
        staying = verdict == "pause" and not self.world.told
        if staying and self.core.keep_slot(name, self.world.slots, self.busy()):
            assert search.grant is not None
            process.grant, verdict = search.grant, "continue"
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


def halving(world: World) -> AsyncHalving:
    if world.told:
        return AsyncHalving()
    return AsyncHalving(eta=4, continue_at_once=False, rungs=geometric_rungs(1, 4, world.max_t))


def lump(world: World) -> float:
    """Device-seconds of one epoch on every slot with all that a grant of its own takes."""
    overhead = max(5.0, 1.5 * world.boot + 1.0) + 3.0 + 3 * world.save
    return world.slots * world.devices * (overhead + 1.2 * world.epoch)


WORLDS = st.builds(
    World,
    slots=st.integers(1, 6),
    devices=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    epoch=st.floats(2.0, 60.0),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
    boot=st.floats(1.0, 10.0),
    save=st.floats(0.05, 3.0),
    stop=st.floats(0.05, 0.5),
    reuse=st.booleans(),
    told=st.booleans(),
    max_t=st.sampled_from([1, 4, 27, 1000]),
    searches=st.sampled_from([1, 3, 8]),
    limit=st.none() | st.integers(1, 6),
    seed=st.integers(0, 1000),
)


@settings(max_examples=30, deadline=None)
@given(WORLDS, st.floats(0.1, 25.0))
def test_halving_stays_within_any_budget_and_leaves_less_than_another_slice(world: World, lumps: float) -> None:
    budget = lumps * lump(world)
    simulation = Simulation(world, budget, halving(world))
    state = simulation.run()
    assert simulation.most <= budget + 1e-4
    assert simulation.held <= state.ledger.spent + 1e-3, "an outside observer sees no more than is charged"
    assert state.ledger.grants == {}
    assert all(search.state != "running" for search in state.searches.values())
    unfinished = any(search.unfinished for search in state.searches.values())
    if world.limit is not None:
        assert len(state.searches) <= world.limit
    if state.full_horizon is not None and (unfinished or world.limit is None):
        view = simulation.core.view(world.slots, [], [])
        slowest = max(search.slowest_seconds for search in state.searches.values())
        assert view.free / world.devices < view.overhead_seconds + 2 * 1.1 * slowest + 0.01
    if lumps >= 20 and world.limit is None:
        assert state.ledger.spent >= 0.95 * budget


@settings(max_examples=30, deadline=None)
@given(WORLDS, st.floats(0.1, 25.0))
def test_equal_shares_stay_within_any_budget(world: World, lumps: float) -> None:
    world = replace(world, told=True)
    budget = lumps * lump(world)
    simulation = Simulation(world, budget, EqualShare(world.searches))
    state = simulation.run()
    assert simulation.most <= budget + 1e-4
    assert state.ledger.grants == {}
    assert len(state.searches) <= world.searches


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_a_long_sweep_uses_its_budget(slots: int, told: bool, reuse: bool) -> None:
    world = World(slots=slots, told=told, reuse=reuse)
    budget = slots * 1_500.0
    simulation = Simulation(world, budget, halving(world))
    state = simulation.run()
    assert 0.98 * budget <= state.ledger.spent <= budget
    assert state.ledger.spent_by_kind["lost"] <= 0.01 * budget
    assert state.ledger.spent_by_kind["train"] >= (0.85 if told else 0.8 if reuse else 0.45) * budget
    if reuse:
        assert simulation.boots <= slots + simulation.kills + 4, "processes are used again"


@pytest.mark.parametrize("searches", [1, 3, 8])
def test_equal_shares_are_equal_used_and_end_at_their_horizon(searches: int) -> None:
    world = World(jitter=0.02)
    simulation = Simulation(world, 6_000.0, EqualShare(searches))
    state = simulation.run()
    assert state.ledger.spent >= 0.97 * 6_000.0
    assert len(state.searches) == searches
    for search in state.searches.values():
        held = sum(state.ledger.spent_by_trial[search.id].values())
        assert held == pytest.approx(6_000.0 / searches, rel=0.08)
        assert (search.state, search.epochs) == ("finished", search.horizon), "p = k in its last epoch"


@pytest.mark.parametrize("slots", [1, 3])
def test_searches_are_compared_at_one_horizon_and_cut_only_in_the_endgame(slots: int) -> None:
    world = World(slots=slots, epoch=2.0)
    simulation = Simulation(world, 1_500.0 * slots, AsyncHalving())
    state = simulation.run()
    full = state.full_horizon
    assert full is not None
    grants = [record for record in simulation.book.records if record["event"] == "grant"]
    assert {record["horizon"] for record in grants if record["why"] in ("new", "continue")} == {full}
    assert {record["horizon"] for record in grants if record["why"] == "measure"} == {None}
    endgame = [at for at, record in enumerate(grants) if record["why"] == "endgame"]
    assert endgame
    assert all(record["why"] != "new" for record in grants[endgame[0] :]), "no new search begins in the endgame"
    for trial in simulation.trials.values():
        assert trial.horizons == sorted(trial.horizons, reverse=True), "no horizon is ever lengthened"
    finished = [search for search in state.searches.values() if search.state == "finished"]
    assert all(search.epochs == search.horizon for search in finished)
    assert sum(search.epochs == full for search in finished) >= 2, "some searches were run in full"


@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_a_finite_space_has_the_whole_budget_where_horizons_are_told(limit: int) -> None:
    world = World(limit=limit, epoch=2.0)
    simulation = Simulation(world, 3_000.0, AsyncHalving())
    state = simulation.run()
    assert len(state.searches) <= limit
    assert state.ledger.spent >= 0.95 * 3_000.0


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_finite_space_is_run_to_its_end_where_they_are_not(limit: int) -> None:
    world = World(limit=limit, told=False, max_t=27)
    simulation = Simulation(world, 10_000.0, halving(world))
    state = simulation.run()
    assert [(search.state, search.epochs) for search in state.searches.values()] == [("finished", 27)] * limit
    assert state.end_why.startswith("all searches are done")


def test_halving_spends_more_on_what_is_better() -> None:
    simulation = Simulation(World(epoch=2.0, searches=30), 6_000.0, AsyncHalving())
    state = simulation.run()
    ranked = sorted(state.searches.values(), key=lambda search: random.Random(search.id).random())
    third = len(ranked) // 3
    assert third >= 10
    worst, best = (sum(search.epochs for search in part) for part in (ranked[:third], ranked[-third:]))
    assert best >= 2 * worst


def test_a_month_is_charged_in_full() -> None:
    month = 30 * 86_400.0
    world = World(epoch=7_200.0, boot=60.0, save=30.0, slots=2)
    state = Simulation(world, 2 * month, AsyncHalving()).run()
    assert 0.99 * 2 * month <= state.ledger.spent <= 2 * month
    assert state.last_time - state.first_time == pytest.approx(month, rel=0.02)
