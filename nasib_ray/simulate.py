"""Sweeps in simulated time, over learning curves or a model, under our allocators and under others' rules."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare, geometric_rungs, halving_without_horizon
from schedulers.budget import Budget
from schedulers.curve_table import CurveTable
from schedulers.peers import AshaStopping, FirstComeFirstServed, HyperBand, MedianStopping
from schedulers.population import Heritable, PopulationBasedTraining, PopulationWorkload
from schedulers.rules import Rules
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.workload import METRIC, Benchmark

ETA = 4
"""Of everything that halves, but for HyperBand, which has Ray Tune's 3."""


def _queued(max_t: int) -> Allocator:
    return AsyncHalving(eta=ETA, continue_at_once=False, rungs=geometric_rungs(1, ETA, max_t), endgame=False)


def _at_once(max_t: int) -> Allocator:
    return AsyncHalving(eta=ETA, rungs=geometric_rungs(1, ETA, max_t), by_best=True)


def _population(max_t: int, trainings: float, slots: int, seed: int) -> Allocator:
    return PopulationBasedTraining(max_t, max(slots, round(trainings)), seed=seed)


MOST_SLOTS, MOST_PREEMPTIONS = 1_000_000, 1_000_000

Maker = Callable[[Benchmark, "Setting"], Allocator]

ALLOCATORS: Mapping[str, Maker] = {
    "async-halving": lambda of, _: AsyncHalving() if of.horizon_told else halving_without_horizon(of.max_t, eta=ETA),
    "async-halving-at-once": lambda of, _: _at_once(of.max_t),
    "async-halving-fixed": lambda of, _: AsyncHalving(replan=False),
    "async-halving-queued": lambda of, _: AsyncHalving(continue_at_once=False),
    "equal-share": lambda of, setting: EqualShare(max(1, round(setting.budget))),
    "asha": lambda of, _: AshaStopping(of.max_t, eta=ETA),
    "asha-promotion": lambda of, _: _queued(of.max_t),
    "hyperband": lambda of, _: HyperBand(of.max_t),
    "median": lambda of, _: MedianStopping(of.max_t),
    "fifo": lambda of, _: FirstComeFirstServed(of.max_t),
    "pbt": lambda of, setting: _population(of.max_t, setting.budget, setting.slots, setting.seed),
}
"""By the names that ``nasib-ray simulate --allocator`` takes."""

_TOLD = {"async-halving-fixed", "async-halving-queued", "pbt"}
"""Those that are for models alone: variants for trials that are told a horizon, and what changes configurations."""

_UNTOLD = {"async-halving-at-once"}
"""Those that are for tables alone."""


def allocators_for(benchmarks: Sequence[Benchmark]) -> list[str]:
    """The allocators that can be simulated over all of these."""
    told = {benchmark.horizon_told for benchmark in benchmarks}
    without = (_UNTOLD if True in told else set()) | (_TOLD if False in told else set())
    return [name for name in ALLOCATORS if name not in without]


@dataclass(frozen=True)
class Setting:
    """One simulated sweep that is to be run.

    Attributes:
        table: The name of the table, or of the model.
        allocator: One of :data:`ALLOCATORS`.
        budget: In full trainings, each of which costs what a configuration does in the mean.
        slots: How many trials can run at once.
        seed: The same one gives every allocator the same trials, costs and slots.
        preemptions_per_hour: How often a process is taken away.
    """

    table: str
    allocator: str
    budget: float
    slots: int
    seed: int
    preemptions_per_hour: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SimulatedRun(Setting):
    """What came of one simulated sweep.

    Attributes:
        budget_device_seconds: The budget.
        budget_used: The share of it that was spent; never above 1.
        wall_clock: How long the sweep took, over what the budget lasts with all slots running. Above 1 where slots were
            empty, as when they wait for the last searches.
        regrets: At equally spaced points of the budget, the last of them its end; in [0, 1].
        trials: How many were begun.
        preemptions: How many processes were taken away.
        failure: Why the sweep failed, if it did, as when its budget is too small for an epoch; in simulated seconds.
        decisions: How many decisions were taken, ``decision_seconds`` what one took in the median.
        seconds: What the simulation took.
    """

    budget_device_seconds: float
    budget_used: float
    wall_clock: float
    regrets: Sequence[float]
    trials: int
    preemptions: int
    failure: str
    decisions: int
    decision_seconds: float
    seconds: float

    @property
    def final_regret(self) -> float:
        """At the end of the budget."""
        return self.regrets[-1]

    @property
    def anytime_regret(self) -> float:
        """The mean over the budget."""
        return statistics.fmean(self.regrets)

    def to_plain(self) -> dict[str, Any]:
        """As it is written."""
        return {**asdict(self), "final_regret": self.final_regret, "anytime_regret": self.anytime_regret}


def settings_of(
    benchmarks: Sequence[Benchmark],
    allocators: Sequence[str],
    full_trainings: Sequence[float],
    slots: Sequence[int],
    seeds: int,
    preemptions_per_hour: float = 0.0,
) -> list[Setting]:
    """Every combination of these, those beside each other that differ in the allocator alone.

    Raises:
        ValueError: An allocator is unknown, or a number is out of range.
    """
    if unknown := [name for name in allocators if name not in ALLOCATORS]:
        raise ValueError(f"no allocator is called {unknown[0]}: there are {', '.join(ALLOCATORS)}")
    possible = allocators_for(benchmarks)
    if unfit := [name for name in allocators if name not in possible]:
        raise ValueError(f"{unfit[0]} cannot be simulated over these: what can is {', '.join(possible)}")
    if wrong := [number for number in full_trainings if not 0 < number < math.inf]:
        raise ValueError(f"{wrong[0]:g} full trainings: it must be a finite number above 0")
    if wrong := [number for number in slots if not 1 <= number <= MOST_SLOTS]:
        raise ValueError(f"{wrong[0]} slots: it must be a number from 1 to {MOST_SLOTS:,}")
    if not 0 <= preemptions_per_hour <= MOST_PREEMPTIONS:
        raise ValueError(
            f"{preemptions_per_hour:g} preemptions an hour: it must be a number from 0 to {MOST_PREEMPTIONS:,}"
        )
    if len({benchmark.name for benchmark in benchmarks}) < len(benchmarks):
        raise ValueError("two tables or models have the same name: each can be simulated once, and is told by its name")
    return [
        Setting(benchmark.name, name, budget, count, seed, preemptions_per_hour)
        for benchmark in benchmarks
        for budget in dict.fromkeys(full_trainings)
        for count in dict.fromkeys(slots)
        for seed in range(seeds)
        for name in dict.fromkeys(allocators)
    ]


def trainings_within(budget: Budget, benchmark: Benchmark) -> float:
    """How many full trainings a budget of device-time buys.

    Raises:
        ValueError: It is a table that does not tell what its epochs take, or a model, which counts in epochs alone.
    """
    if not isinstance(benchmark, CurveTable):
        raise ValueError(f"{benchmark.name} is a model, whose seconds are none of a clock: give --full-trainings")
    if benchmark.epoch_seconds is None:
        raise ValueError(
            f"{benchmark.name} does not tell epoch_device_seconds, so {budget} mean nothing: give --full-trainings"
        )
    return budget.device_seconds / (benchmark.max_t * benchmark.epoch_device_seconds)


def simulate(benchmark: Benchmark, setting: Setting, allocator: Allocator | None = None) -> SimulatedRun:
    """Simulate one sweep over a table or a model.

    Starting and resuming a trial takes half a mean epoch, slots have speeds that are lognormal with a spread of 0.2,
    and so are configurations' epochs with one of 0.5 where the table does not tell their times. Trials save after each
    epoch, which takes no time. Searches that are told a horizon are told their slices too, as NASIB's are.

    Args:
        benchmark: The table or the model.
        setting: Of the sweep.
        allocator: To be simulated in place of the one that the setting names.
    """
    workload = benchmark.workload(setting.seed)
    if allocator is None:
        allocator = ALLOCATORS[setting.allocator](benchmark, setting)
    if isinstance(allocator, PopulationBasedTraining):
        assert isinstance(workload, Heritable), "a population is trained over a model alone"
        workload = PopulationWorkload(workload, allocator)
    epoch = workload.epoch_seconds
    world = World(
        slots=setting.slots,
        speed_spread=0.2,
        boot_seconds=epoch / 2,
        boot_spread=0.0,
        restore_seconds=0.0,
        save_seconds=0.0,
        stop_seconds=0.0,
        reuse=False,
        save_epochs=True,
        preemptions_per_hour=setting.preemptions_per_hour * benchmark.epoch_device_seconds / epoch,
        seed=setting.seed,
    )
    rules = Rules(
        devices=1.0,
        metric=METRIC,
        mode=benchmark.mode,
        full_epochs=benchmark.max_t,
        horizon_told=benchmark.horizon_told,
        slice_told=benchmark.horizon_told,
        boot_seconds=epoch / 2,
    )
    budget = Budget(setting.budget * benchmark.max_t * epoch, "gpu")
    began = time.perf_counter()
    simulator = Simulator(world, workload, allocator, budget, rules)
    if isinstance(allocator, PopulationBasedTraining):
        allocator.trials = simulator.trials
    state = simulator.run()
    return SimulatedRun(
        **{key.name: getattr(setting, key.name) for key in fields(setting)},
        budget_device_seconds=setting.budget * benchmark.max_t * benchmark.epoch_device_seconds,
        budget_used=state.ledger.spent / budget.device_seconds,
        wall_clock=(state.last_time - state.first_time) * setting.slots / budget.device_seconds,
        regrets=benchmark.regrets(simulator.best, budget.device_seconds),
        trials=len(state.searches),
        preemptions=simulator.preemptions,
        failure=state.end_why if state.end == "failed" else "",
        decisions=len(simulator.decision_seconds),
        decision_seconds=statistics.median(simulator.decision_seconds),
        seconds=time.perf_counter() - began,
    )


def simulate_all(benchmarks: Sequence[Benchmark], settings: Sequence[Setting], jobs: int) -> Iterator[SimulatedRun]:
    """Simulate many sweeps, in this process or in several; as they are done, in the order of the settings."""
    of = {benchmark.name: benchmark for benchmark in benchmarks}
    if jobs == 1:
        for setting in settings:
            yield simulate(of[setting.table], setting)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _hold, (of,)) as pool:
        yield from pool.map(_simulate_held, settings, chunksize=max(1, min(4, len(settings) // (4 * jobs))))


_benchmarks: Mapping[str, Benchmark] = {}
"""Of a process of a pool."""


def _hold(benchmarks: Mapping[str, Benchmark]) -> None:
    global _benchmarks
    _benchmarks = benchmarks


def _simulate_held(setting: Setting) -> SimulatedRun:
    return simulate(_benchmarks[setting.table], setting)
