"""How good are an Optuna's suggestions that learns from paused trials too?

    python benchmarks/suggestions.py --table TASK.parquet [--table ...]

Simulated sweeps under one scheduler, asynchronous halving with pauses (eta 4, 4 slots), whose trials are suggested by
this project's sampler (each suggestion from a study of all trials as they are), by the same sampler told of complete
trials alone, by Ray's OptunaSearch (told of these, too, as Ray Tune does), and at random. Optuna's TPE samples in the
first three. A quadratic of two variables, and tables of learning curves (see taskset_tables.py), where a suggestion is
the nearest configuration that was not tried yet. Printed is, of suggestions 21 to 40 and 41 to 60, the mean share of
random configurations that are better at the end of a full training (so that random ones have 0.5), with 95% of the
paired difference to Ray's.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.table import Table

from nasib_ray.search_space import Range, SearchSpace
from nasib_ray.searcher import derived_seed, sampled_point
from nasib_ray.simulation_report import bootstrap
from schedulers.allocators import halving_without_horizon
from schedulers.budget import Budget
from schedulers.curve_table import CurveTable, read_curve_table
from schedulers.rules import Rules
from schedulers.search_record import Kind
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.workload import Learner, Workload

TRIALS, SLOTS, MAX_T, ETA = 60, 4, 50, 4
BLOCKS = ((20, 40), (40, 60))
EPOCH_SECONDS = 600.0
BY = ("ours", "complete", "OptunaSearch", "random")

Curve = Sequence[float]


class Problem(ABC):
    """What is searched: each configuration, a point in a unit cube, has a learning curve (lower is better)."""

    def __init__(self, name: str, dimensions: int, final: Iterable[float]) -> None:
        self.name = name
        self._final = sorted(final)
        self.space = SearchSpace({f"x{number}": Range(0.0, 1.0) for number in range(dimensions)}, {})

    @abstractmethod
    def begin(self, point: Mapping[str, float]) -> tuple[dict[str, float], Curve]:
        """The configuration that is tried for a suggestion, and its curve."""

    def better(self, curve: Curve) -> float:
        """The share of random configurations that are better after a full training."""
        return bisect_left(self._final, curve[-1]) / len(self._final)


class Quadratic(Problem):
    """The squared distance from a point, and what an epoch has left of the way there."""

    BEST = (0.3, 0.7)

    def __init__(self) -> None:
        drawn = random.Random(0)
        points = ([drawn.random() for _ in self.BEST] for _ in range(10_000))
        super().__init__("quadratic", len(self.BEST), (self._curve(point)[-1] for point in points))

    def _curve(self, point: Iterable[float]) -> Curve:
        distance = math.fsum((value - best) ** 2 for value, best in zip(point, self.BEST, strict=True))
        return [distance + 0.8**epoch for epoch in range(1, MAX_T + 1)]

    def begin(self, point: Mapping[str, float]) -> tuple[dict[str, float], Curve]:
        return dict(point), self._curve(point.values())


class Tabular(Problem):
    """The configurations of a table, each once; all of its columns are taken by their logarithm."""

    def __init__(self, table: CurveTable) -> None:
        rows = np.array([[abs(1.0 - v) if "beta" in k else v for k, v in c.items()] for c in table.configs])
        logs = np.log(np.maximum(rows, 1e-12))
        low, high = logs.min(axis=0), logs.max(axis=0)
        self._cube = (logs - low) / np.maximum(high - low, 1e-12)
        self._table = table
        self._left = np.ones(len(rows), dtype=bool)
        super().__init__(table.name, self._cube.shape[1], (curve[-1] for curve in table.curves))

    def begin(self, point: Mapping[str, float]) -> tuple[dict[str, float], Curve]:
        apart = ((self._cube - np.array(list(point.values()))) ** 2).sum(axis=1)
        row = int(np.where(self._left, apart, np.inf).argmin())
        self._left[row] = False
        return dict(zip(self.space.axes, map(float, self._cube[row]), strict=True)), self._table.curves[row]


class Reporting(Learner):
    """Follows a curve, and tells what Tune would tell a Searcher."""

    def __init__(self, curve: Curve, tell: Callable[[int, float], None]) -> None:
        self._curve, self._tell, self._epochs = curve, tell, 0

    def epoch_seconds(self) -> float:
        return EPOCH_SECONDS

    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        self._epochs += 1
        self._tell(self._epochs, self._curve[self._epochs - 1])
        return {"value": self._curve[self._epochs - 1]}


class Suggested(Workload):
    """Trials that a sampler suggests while the sweep runs."""

    def __init__(self, problem: Problem, by: str, seed: int) -> None:
        self.better: list[float] = []
        self.sweep: Simulator | None = None
        self._problem, self._by, self._seed = problem, by, seed
        axes = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in problem.space.axes}
        self._search = OptunaSearch(axes, metric="value", mode="min", seed=seed) if by == "OptunaSearch" else None

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        if number >= TRIALS:
            return None
        name = f"t{number}"
        config, curve = self._problem.begin(self._suggestion(name, number))
        self.better.append(self._problem.better(curve))

        def tell(epochs: int, value: float) -> None:
            if self._search is not None:
                result = {"value": value, "training_iteration": epochs}
                self._search.on_trial_result(name, result)
                if epochs == MAX_T:
                    self._search.on_trial_complete(name, result)

        return config, Reporting(curve, tell)

    def _suggestion(self, name: str, number: int) -> dict[str, float]:
        if self._search is not None:
            suggestion: dict[str, float] = self._search.suggest(name)
            return suggestion
        assert self.sweep is not None, "a trial is drawn while a sweep runs"
        searches = list(self.sweep.core.state.searches.values())
        if self._by == "complete":
            searches = [search for search in searches if search.state == "finished"]
        sampler: Literal["tpe", "random"] = "random" if self._by == "random" else "tpe"
        seed = derived_seed(self._seed, "suggestion", number)
        return sampled_point(searches, self._problem.space, seed=seed, mode="min", sampler=sampler)


def suggested(problem: Problem, by: str, seed: int) -> list[float]:
    """Of each suggestion of a sweep, the share of random ones that are better."""
    workload = Suggested(problem, by, seed)
    world = World(slots=SLOTS, boot_seconds=EPOCH_SECONDS / 2, boot_spread=0.0, reuse=False, seed=seed)
    rules = Rules(devices=1.0, metric="value", mode="min", full_epochs=MAX_T, boot_seconds=EPOCH_SECONDS / 2)
    halving = halving_without_horizon(MAX_T, eta=ETA)
    # Enough for all the trials, with the halving that they get.
    budget = Budget(0.5 * TRIALS * MAX_T * EPOCH_SECONDS, "gpu")
    workload.sweep = Simulator(world, workload, halving, budget, rules)
    workload.sweep.run()
    assert len(workload.better) == TRIALS, f"only {len(workload.better)} trials were begun"
    return workload.better


def main() -> None:
    """Compare on the quadratic, then on every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, action="append", default=[], help="learning curves; repeatable")
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tables = [read_curve_table(path) for path in arguments.table]
    makers: list[Callable[[], Problem]] = [Quadratic, *(lambda table=table: Tabular(table) for table in tables)]
    shown = Table(box=None, header_style="bold")
    shown.add_column("problem")
    shown.add_column("suggestions")
    for by in BY:
        shown.add_column(by, justify="right")
    shown.add_column("ours - OptunaSearch", justify="right")
    for make in makers:
        found = {by: [suggested(make(), by, seed) for seed in range(arguments.seeds)] for by in BY}
        for first, last in BLOCKS:
            means = {by: [statistics.fmean(run[first:last]) for run in runs] for by, runs in found.items()}
            apart = [ours - theirs for ours, theirs in zip(means["ours"], means["OptunaSearch"], strict=True)]
            low, high = bootstrap({"all": apart})
            told = f"{statistics.fmean(apart):+.3f} [{low:+.3f}, {high:+.3f}]"
            columns = [f"{statistics.fmean(means[by]):.3f}" for by in BY]
            shown.add_row(make().name[-40:], f"{first + 1} to {last}", *columns, told)
    Console(width=130).print(shown)
    print(
        f"the mean share of random configurations that are better; {arguments.seeds} seeds, {SLOTS} slots, "
        f"{TRIALS} trials of at most {MAX_T} epochs"
    )


if __name__ == "__main__":
    main()
