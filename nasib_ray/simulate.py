"""Sweeps over tables of learning curves in simulated time, under this project's allocators and under others' rules."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, geometric_rungs
from schedulers.budget import Budget
from schedulers.curve_table import METRIC, CurveTable, TableWorkload
from schedulers.peers import AshaStopping, FirstComeFirstServed, HyperBand, MedianStopping
from schedulers.rules import Rules
from schedulers.simulator import Simulator, World

ETA = 4
"""Of everything that halves, but for HyperBand, which has Ray Tune's 3."""


def _halving(max_t: int, *, at_once: bool = False, endgame: bool = True) -> Allocator:
    return AsyncHalving(eta=ETA, continue_at_once=at_once, rungs=geometric_rungs(1, ETA, max_t), endgame=endgame)


ALLOCATORS: Mapping[str, Callable[[int], Allocator]] = {
    "async-halving": _halving,
    "async-halving-at-once": lambda max_t: _halving(max_t, at_once=True),
    "asha": lambda max_t: AshaStopping(max_t, eta=ETA),
    "asha-promotion": lambda max_t: _halving(max_t, endgame=False),
    "hyperband": HyperBand,
    "median": MedianStopping,
    "fifo": FirstComeFirstServed,
}
"""By the names that ``nasib-ray simulate --allocator`` takes: makes one for trials of so many epochs."""


@dataclass(frozen=True)
class SimulatedRun:
    """What came of one simulated sweep.

    Attributes:
        table: The table's name.
        allocator: The allocator's.
        budget: In full trainings.
        slots: How many trials could run at once.
        seed: Of the order of trials, their costs, the slots' speeds and whatever else was drawn.
        final_regret: At the end of the budget, in [0, 1].
        anytime_regret: Its mean over equally spaced points of the budget.
        budget_used: The share of the budget that was spent; never above 1.
        regrets: At these points.
        trials: How many were begun.
        decisions: How many decisions were taken, and ``decision_seconds`` how long one took in the median.
        seconds: What the simulation took.
    """

    table: str
    allocator: str
    budget: float
    slots: int
    seed: int
    final_regret: float
    anytime_regret: float
    budget_used: float
    regrets: list[float]
    trials: int
    decisions: int
    decision_seconds: float
    seconds: float


def simulate(
    table: CurveTable, allocator: str, full_trainings: float, slots: int, seed: int, preemptions_per_hour: float = 0.0
) -> SimulatedRun:
    """Simulate one sweep.

    Starting and resuming a trial takes half a mean epoch, slots have speeds that are lognormal with a spread of 0.2,
    and so have configurations' epochs with one of 0.5 where the table does not tell their times.

    Args:
        table: Where the trials come from.
        allocator: One of :data:`ALLOCATORS`.
        full_trainings: The budget, as many times what a configuration costs in the mean.
        slots: How many trials can run at once.
        seed: The same one gives every allocator the same trials, costs and slots.
        preemptions_per_hour: How often a process is taken away.
    """
    workload = TableWorkload(table, seed)
    epoch = workload.epoch_seconds
    world = World(
        slots=slots,
        speed_spread=0.2,
        boot_seconds=epoch / 2,
        boot_spread=0.0,
        restore_seconds=0.0,
        save_seconds=0.0,
        stop_seconds=0.0,
        reuse=False,
        preemptions_per_hour=preemptions_per_hour,
        seed=seed,
    )
    rules = Rules(devices=1.0, metric=METRIC, mode=table.mode, full_epochs=table.max_t, boot_seconds=epoch / 2)
    budget = full_trainings * table.max_t * epoch
    began = time.perf_counter()
    simulator = Simulator(world, workload, ALLOCATORS[allocator](table.max_t), Budget(budget, "gpu"), rules)
    state = simulator.run()
    regrets = table.regrets(simulator.best, budget)
    return SimulatedRun(
        table=table.name,
        allocator=allocator,
        budget=full_trainings,
        slots=slots,
        seed=seed,
        final_regret=regrets[-1],
        anytime_regret=statistics.fmean(regrets),
        budget_used=state.ledger.spent / budget,
        regrets=regrets,
        trials=len(state.searches),
        decisions=len(simulator.decision_seconds),
        decision_seconds=statistics.median(simulator.decision_seconds),
        seconds=time.perf_counter() - began,
    )
