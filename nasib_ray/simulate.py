"""Sweeps over tables of learning curves in simulated time, under this project's allocators and under others' rules."""

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
from schedulers.curve_table import METRIC, CurveTable, TableWorkload
from schedulers.peers import AshaStopping, FirstComeFirstServed, HyperBand, MedianStopping
from schedulers.rules import Rules
from schedulers.simulated_world import World
from schedulers.simulator import Simulator

ETA = 4
"""Of everything that halves, but for HyperBand, which has Ray Tune's 3."""


def _halving(max_t: int, *, at_once: bool = False) -> Allocator:
    rungs = geometric_rungs(1, ETA, max_t)
    return AsyncHalving(eta=ETA, continue_at_once=at_once, rungs=rungs, endgame=at_once)


ALLOCATORS: Mapping[str, Callable[[int, float], Allocator]] = {
    "async-halving": lambda max_t, trainings: halving_without_horizon(max_t, eta=ETA),
    "async-halving-at-once": lambda max_t, trainings: _halving(max_t, at_once=True),
    "equal-share": lambda max_t, trainings: EqualShare(max(1, round(trainings))),
    "asha": lambda max_t, trainings: AshaStopping(max_t, eta=ETA),
    "asha-promotion": lambda max_t, trainings: _halving(max_t),
    "hyperband": lambda max_t, trainings: HyperBand(max_t),
    "median": lambda max_t, trainings: MedianStopping(max_t),
    "fifo": lambda max_t, trainings: FirstComeFirstServed(max_t),
}
"""By the names that ``nasib-ray simulate --allocator`` takes: makes one for trials of so many epochs, and a budget of
so many of them."""


@dataclass(frozen=True)
class Setting:
    """One simulated sweep that is to be run.

    Attributes:
        table: The table's name.
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
        regrets: At equally spaced points of the budget, the last of them its end; in [0, 1].
        trials: How many were begun.
        preemptions: How many processes were taken away.
        decisions: How many decisions were taken, ``decision_seconds`` what one took in the median.
        seconds: What the simulation took.
    """

    budget_device_seconds: float
    budget_used: float
    regrets: Sequence[float]
    trials: int
    preemptions: int
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
    tables: Sequence[CurveTable],
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
    if wrong := [number for number in (*full_trainings, *slots) if not 0 < number < math.inf]:
        raise ValueError(f"{wrong[0]:g} is no number of full trainings or slots: both are above 0")
    if len({table.name for table in tables}) < len(tables):
        raise ValueError("two tables have the same name: a table can be simulated once, and is told by its file's name")
    return [
        Setting(table.name, name, budget, count, seed, preemptions_per_hour)
        for table in tables
        for budget in dict.fromkeys(full_trainings)
        for count in dict.fromkeys(slots)
        for seed in range(seeds)
        for name in dict.fromkeys(allocators)
    ]


def trainings_within(budget: Budget, tables: Sequence[CurveTable]) -> float:
    """How many full trainings a budget of device-time buys.

    Raises:
        ValueError: A table does not tell what its epochs take, or they do not cost the same in all tables.
    """
    if untold := [table.name for table in tables if table.epoch_seconds is None]:
        raise ValueError(f"{untold[0]} does not tell epoch_device_seconds, so {budget} mean nothing: count trainings")
    costs = [table.max_t * TableWorkload(table, seed=0).epoch_seconds for table in tables]
    if max(costs) > 1.01 * min(costs):
        raise ValueError(f"full trainings cost {min(costs):.4g} to {max(costs):.4g} s in these tables: one at a time")
    return budget.device_seconds / statistics.fmean(costs)


def simulate(table: CurveTable, setting: Setting) -> SimulatedRun:
    """Simulate one sweep over a table.

    Starting and resuming a trial takes half a mean epoch, slots have speeds that are lognormal with a spread of 0.2,
    and so are configurations' epochs with one of 0.5 where the table does not tell their times.
    """
    workload = TableWorkload(table, setting.seed)
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
        preemptions_per_hour=setting.preemptions_per_hour,
        seed=setting.seed,
    )
    rules = Rules(devices=1.0, metric=METRIC, mode=table.mode, full_epochs=table.max_t, boot_seconds=epoch / 2)
    budget = Budget(setting.budget * table.max_t * epoch, "gpu")
    began = time.perf_counter()
    allocator = ALLOCATORS[setting.allocator](table.max_t, setting.budget)
    simulator = Simulator(world, workload, allocator, budget, rules)
    state = simulator.run()
    return SimulatedRun(
        **{key.name: getattr(setting, key.name) for key in fields(setting)},
        budget_device_seconds=budget.device_seconds,
        budget_used=state.ledger.spent / budget.device_seconds,
        regrets=table.regrets(simulator.best, budget.device_seconds),
        trials=len(state.searches),
        preemptions=simulator.preemptions,
        decisions=len(simulator.decision_seconds),
        decision_seconds=statistics.median(simulator.decision_seconds),
        seconds=time.perf_counter() - began,
    )


def simulate_all(tables: Sequence[CurveTable], settings: Sequence[Setting], jobs: int) -> Iterator[SimulatedRun]:
    """Simulate many sweeps, in this process or in several; as they are done, in the order of the settings."""
    of = {table.name: table for table in tables}
    if jobs == 1:
        for setting in settings:
            yield simulate(of[setting.table], setting)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _hold_tables, (of,)) as pool:
        yield from pool.map(_simulate_held, settings, chunksize=4)


_tables: Mapping[str, CurveTable] = {}
"""Of a process of a pool."""


def _hold_tables(tables: Mapping[str, CurveTable]) -> None:
    global _tables
    _tables = tables


def _simulate_held(setting: Setting) -> SimulatedRun:
    return simulate(_tables[setting.table], setting)
