"""Which allocator spends a budget best, and how fast it decides, in simulated time.

    python benchmarks/allocators.py tables TASK.parquet ... --file runs.jsonl
    python benchmarks/allocators.py tables benchmarks/results/nasib-model-*.json --file runs.jsonl
    python benchmarks/allocators.py scale

`tables` runs sweeps over tables of learning curves (see taskset_tables.py), or over models (see horizon_model.py),
under every allocator, with budgets of 10 and 30 full trainings, on 1, 4 and 16 slots. One seed is the same trials in
the same order, costs and slots for all. Regret is 0 at a table's best final value and 1 at its median one. Printed are
means, and what they are above those of Ray's ASHA, with 95% of the bootstrap over tables and then seeds. Runs are
appended to the file and not repeated.

`scale` simulates a month of a thousand slots with preemptions, and prints what decisions and suggestions take.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from json_lines import append_line, read_lines
from rich.console import Console
from rich.table import Table

from nasib_ray.config import SweepConfig
from nasib_ray.horizon_model import read_model
from nasib_ray.search_space import Range
from nasib_ray.searcher import sampled_point
from nasib_ray.simulate import ALLOCATORS, allocators_for, settings_of, simulate_all
from nasib_ray.simulation_report import bootstrap
from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare, halving_without_horizon
from schedulers.budget import Budget
from schedulers.curve_table import CurveTable, TableWorkload, read_curve_table
from schedulers.rules import Rules
from schedulers.search_record import SearchRecord
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.workload import METRIC, Benchmark

BUDGETS, SLOTS = (10.0, 30.0), (1, 4, 16)
BASE = "asha"
CLOSE = ("async-halving", "async-halving-fixed", "asha-promotion")
"""Those that are compared with it cell by cell, and with the first of these."""
RESAMPLES = 2000
PER_CENT = 100.0

Cell = tuple[float, int]
Means = Mapping[str, Sequence[float]]
"""Of each table, a value for each seed."""


def run_tables(tables: Sequence[Benchmark], allocators: Sequence[str], seeds: int, jobs: int, file: Path) -> None:
    """Run what the file does not hold yet, and append it."""
    done = {key_of(run) for run in read_runs(file)}
    wanted = settings_of(tables, allocators, BUDGETS, SLOTS, seeds)
    missing = [one for one in wanted if (one.table, one.allocator, one.budget, one.slots, one.seed) not in done]
    print(f"{len(missing)} of {len(wanted)} sweeps to simulate", flush=True)
    for run in simulate_all(tables, missing, jobs):
        plain = run.to_plain()
        del plain["regrets"]
        append_line(file, plain)


def key_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return run["table"], run["allocator"], run["budget"], run["slots"], run["seed"]


def read_runs(file: Path) -> list[dict[str, Any]]:
    """What a file holds, but for runs of a version that noted less."""
    return [run for run in read_lines(file) if "wall_clock" in run]


def above(ours: Means, base: Means) -> tuple[float, float, float]:
    """How far a mean is above another one, as a share of that one, and the 95% interval of it."""
    drawn, tables = random.Random(0), list(ours)

    def ratio(chosen: Iterable[tuple[str, int]]) -> float:
        pairs = [(ours[table][seed], base[table][seed]) for table, seed in chosen]
        return sum(mine for mine, _ in pairs) / max(1e-12, sum(theirs for _, theirs in pairs)) - 1.0

    def resampled() -> float:
        some = drawn.choices(tables, k=len(tables))
        return ratio((table, drawn.randrange(len(ours[table]))) for table in some for _ in ours[table])

    mean = ratio((table, seed) for table in tables for seed in range(len(ours[table])))
    values = sorted(resampled() for _ in range(RESAMPLES))
    return mean, values[int(0.025 * RESAMPLES)], values[int(0.975 * RESAMPLES)]


def paired(
    runs: Sequence[Mapping[str, Any]], tables: Collection[str], allocators: Collection[str], seeds: int
) -> list[Mapping[str, Any]]:
    """The runs of these tables, allocators and first seeds, as far as each of these has them in every cell."""
    of = [run for run in runs if run["table"] in tables and run["allocator"] in allocators and run["seed"] < seeds]
    wanted = {(run["allocator"], run["budget"], run["slots"]) for run in of}
    had: dict[tuple[str, int], set[tuple[Any, ...]]] = defaultdict(set)
    for run in of:
        had[run["table"], run["seed"]].add((run["allocator"], run["budget"], run["slots"]))
    return [run for run in of if had[run["table"], run["seed"]] == wanted]


def report_tables(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print the whole of it, then every cell.

    Args:
        runs: Of the same tables, seeds and cells for all allocators.
    """
    console = Console(width=170)
    by: dict[str, dict[Cell, dict[str, list[Any]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run in sorted(runs, key=key_of):
        by[run["allocator"]][run["budget"], run["slots"]][run["table"]].append(run)
    if BASE not in by:
        raise SystemExit(f"nothing to print: no run of {BASE} goes with those of the others, add --allocator {BASE}")
    allocators = sorted(by, key=list(ALLOCATORS).index)
    cells = sorted(by[BASE])
    close = [name for name in CLOSE if name in by]
    names = sorted(by[BASE][cells[0]])
    counts = [len(of) for of in by[BASE][cells[0]].values()]
    seeds = f"{min(counts)} seeds" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} seeds"

    def values(allocator: str, cell: Cell, measure: str) -> Means:
        return {name: [run[measure] for run in by[allocator][cell][name]] for name in names}

    def together(allocator: str, measure: str) -> Means:
        """Of each table and seed the mean over cells, which are equally important."""
        each = [values(allocator, cell, measure) for cell in cells]
        return {
            name: [statistics.fmean(row) for row in zip(*(one[name] for one in each), strict=True)] for name in names
        }

    def told(ours: Means, base: Means) -> str:
        mean, low, high = (PER_CENT * value for value in above(ours, base))
        return f"{mean:+.0f} ({low:+.0f} to {high:+.0f}) %"

    console.print(f"\n{len(names)} tables, {seeds}, {len(cells)} cells (budgets x slots), equally weighed")
    whole = _table("allocator", "final", f"above {BASE}", "over time", f"above {BASE}", "used", "decisions/s")
    for allocator in allocators:
        row = [allocator]
        for measure in ("final_regret", "anytime_regret"):
            regrets = together(allocator, measure)
            row += [f"{_mean(regrets):.3f}", "" if allocator == BASE else told(regrets, together(BASE, measure))]
        of = [run for cell in cells for name in names for run in by[allocator][cell][name]]
        pace = statistics.median(1.0 / run["decision_seconds"] for run in of)
        whole.add_row(*row, f"{PER_CENT * statistics.fmean(run['budget_used'] for run in of):.1f} %", f"{pace:,.0f}")
    console.print(whole)
    words_of = {
        "final_regret": "final regret",
        "anytime_regret": "regret over time",
        "wall_clock": "wall-clock x slots / budget",
    }
    for measure, words in words_of.items():
        shown = _table(words, *(f"{budget:g} x {slots}" for budget, slots in cells))
        for allocator in allocators:
            shown.add_row(allocator, *(f"{_mean(values(allocator, cell, measure)):.3f}" for cell in cells))
        for allocator in close:
            apart = [told(values(allocator, cell, measure), values(BASE, cell, measure)) for cell in cells]
            shown.add_row(f"{allocator} above {BASE}", *apart)
        console.print("", shown)
    for measure, words in (("final_regret", "final regret"), ("anytime_regret", "regret over time")):
        of_tables = _table(f"{words}, by table", *(name[-20:] for name in names))
        for allocator in allocators:
            regrets = together(allocator, measure)
            of_tables.add_row(allocator, *(f"{statistics.fmean(regrets[name]):.3f}" for name in names))
        console.print("", of_tables)
    for ours, other in ((close[0], other) for other in close[1:]):
        for measure, words in (("final_regret", "final"), ("anytime_regret", "over time")):
            mine, theirs = together(ours, measure), together(other, measure)
            differences = {name: [a - b for a, b in zip(mine[name], theirs[name], strict=True)] for name in names}
            low, high = bootstrap(differences)
            share = f"{told(mine, theirs)}, or {_mean(differences):+.3f} ({low:+.3f} to {high:+.3f})"
            console.print(f"{ours} above {other}, {words}: {share}", highlight=False)


def _mean(of: Means) -> float:
    return statistics.fmean(value for values in of.values() for value in values)


def _table(first: str, *more: str) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in more:
        table.add_column(heading, justify="right")
    return table


class Watched(Simulator):
    """Notes the most that was ever spent and promised at once."""

    most = 0.0

    def advance(self) -> None:
        super().advance()
        ledger = self.core.state.ledger
        self.most = max(self.most, ledger.spent + ledger.granted)


SCALED: Mapping[str, Callable[[int, int], Allocator]] = {
    "without-horizon": lambda epochs, _: halving_without_horizon(epochs),
    "async-halving": lambda *_: AsyncHalving(),
    "equal-share": lambda _, trials: EqualShare(trials),
}
"""Rules by name, of a full training's epochs and the number of trials; all but the first tell trials their horizons."""


def scale(rule: str, days: float, slots: int, trials: int, epochs: int, preemptions_per_hour: float) -> None:
    """A long sweep of many trials on many slots: time, memory, decisions, suggestions."""
    drawn = random.Random(0)
    ends = [drawn.random() for _ in range(trials)]
    curves = [[end + (1 - end) * 0.9**epoch * drawn.uniform(0.9, 1.1) for epoch in range(epochs)] for end in ends]
    # So long that all the trials' epochs fill the days.
    epoch = 0.9 * days * 86400.0 * slots / (trials * epochs)
    table = CurveTable("scale", "min", [{"end": end} for end in ends], curves, None)
    workload = TableWorkload(table, seed=0, mean_epoch_seconds=epoch)
    world = World(
        slots=slots, speed_spread=0.2, boot_seconds=epoch / 2, reuse=False, preemptions_per_hour=preemptions_per_hour
    )
    rules = Rules(devices=1.0, metric=METRIC, mode="min", full_epochs=epochs, boot_seconds=epoch / 2)
    if rule != "without-horizon":
        rules = replace(rules, horizon_told=True, slice_told=True)
    budget = Budget(days * 86400.0 * slots, "gpu")
    sweep = Watched(world, workload, SCALED[rule](epochs, trials), budget, rules)
    before = _most_memory()
    began = time.perf_counter()
    state = sweep.run()
    seconds = time.perf_counter() - began
    done = sum(search.epochs for search in state.searches.values())
    print(f"{slots:,} slots, {len(state.searches):,} trials, {done:,} epochs, {sweep.preemptions:,} preemptions,")
    print(f"{sweep.clock.monotonic() / 86400.0:.1f} days: simulated in {seconds:.0f} s")
    spent, most = (PER_CENT * amount / budget.device_seconds for amount in (state.ledger.spent, sweep.most))
    print(f"spent {spent:.2f} % of the budget, and promised and spent never more than {most:.4f} %")
    live = sum(search.unfinished for search in state.searches.values())
    decisions = list(sweep.decision_seconds)
    for some, which in ((decisions, ""), (decisions[-len(decisions) // 10 :], f" last, {live:,} trials unfinished")):
        rising = sorted(some)
        median, slow = (rising[int(share * len(rising))] for share in (0.5, 0.99))
        print(f"{len(some):,} decisions{which}: median {1e6 * median:.0f} us, 99% within {1e3 * slow:.2f} ms")
    taken = _most_memory() - before
    print(f"memory: {taken / 1e6:.0f} MB, {taken / len(state.searches) / 1e3:.0f} kB a trial")
    suggest(list(state.searches.values()))


def _most_memory() -> float:
    """The most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def suggest(searches: Sequence[SearchRecord]) -> None:
    """What a suggestion of k and lambda takes with so many trials known."""
    space, taken = SweepConfig(data="digits").search, list[float]()
    drawn = random.Random(0)
    for search in searches:
        search.config = {
            key: drawn.uniform(axis.low, axis.high) for key, axis in space.axes.items() if isinstance(axis, Range)
        }
    for seed in range(20):
        began = time.perf_counter()
        sampled_point(searches, space, seed=seed, mode="min", sampler="tpe")
        taken.append(time.perf_counter() - began)
    print(f"{len(searches):,} trials known: a suggestion takes {1e3 * statistics.median(taken):.0f} ms in the median,")
    print(f"{1e3 * max(taken):.0f} ms at most of {len(taken)}")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    of_tables = parts.add_parser("tables")
    of_tables.add_argument("table", type=Path, nargs="+")
    of_tables.add_argument("--file", type=Path, required=True, help="of the runs")
    of_tables.add_argument("--seeds", type=int, default=20)
    of_tables.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    of_tables.add_argument("--allocator", action="append", choices=list(ALLOCATORS), help="repeatable; all unless told")
    of_scale = parts.add_parser("scale")
    of_scale.add_argument("--days", type=float, default=30.0)
    of_scale.add_argument("--allocator", choices=list(SCALED), default="without-horizon", help="the rule")
    of_scale.add_argument("--slots", type=int, default=1000)
    of_scale.add_argument("--trials", type=int, default=10_000)
    of_scale.add_argument("--epochs", type=int, default=50)
    of_scale.add_argument("--preemptions-per-hour", type=float, default=0.02)
    options = parser.parse_args()
    if options.part == "scale":
        scale(
            options.allocator, options.days, options.slots, options.trials, options.epochs, options.preemptions_per_hour
        )
        return
    missing = [path for path in options.table if not path.exists()]
    if missing:
        parser.error(f"there is no {missing[0]}: taskset_tables.py makes tables")
    tables = [read_model(path) if path.suffix == ".json" else read_curve_table(path) for path in options.table]
    allocators = options.allocator or allocators_for(tables)
    run_tables(tables, allocators, options.seeds, options.jobs, options.file)
    names = {table.name for table in tables}
    report_tables(paired(read_runs(options.file), names, {*allocators, BASE}, options.seeds))


if __name__ == "__main__":
    main()
