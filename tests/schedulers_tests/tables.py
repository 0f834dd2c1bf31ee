"""Small tables of learning curves, and sweeps over them."""

from __future__ import annotations

import random

from schedulers.allocation import Allocator
from schedulers.budget import Budget
from schedulers.curve_table import CurveTable, TableWorkload
from schedulers.rules import Rules
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.sweep_state import SweepState
from schedulers.workload import METRIC


def made_table(rows: int = 200, epochs: int = 16, mode: str = "max") -> CurveTable:
    """Curves that rise to what their row is worth, with a little noise."""
    drawn = random.Random(0)
    curves = []
    for _ in range(rows):
        worth = drawn.random()
        curves.append([worth * (1 - 0.7**epoch) + drawn.gauss(0, 0.02) for epoch in range(1, epochs + 1)])
    if mode == "min":
        curves = [[-value for value in curve] for curve in curves]
    return CurveTable("made", mode, [{"row": row} for row in range(rows)], curves, None)


def swept(table: CurveTable, allocator: Allocator, full_trainings: float, slots: int, seed: int = 0) -> SweepState:
    """Where a sweep over a table ends."""
    workload = TableWorkload(table, seed)
    world = World(slots=slots, speed_spread=0.1, boot_seconds=30.0, save_seconds=5.0, reuse=False, seed=seed)
    rules = Rules(devices=1.0, metric=METRIC, mode=table.mode, full_epochs=table.max_t, boot_seconds=40.0)
    budget = Budget(full_trainings * table.max_t * workload.epoch_seconds, "gpu")
    return Simulator(world, workload, allocator, budget, rules).run()
