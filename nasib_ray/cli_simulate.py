"""The command ``nasib-ray simulate``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from nasib_ray.cli_options import wide_console, working


def simulate(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Parquet files of learning curves.")],
    full_trainings: Annotated[
        list[float] | None,
        typer.Option("--full-trainings", metavar="N", help="The budget: as many times what a full training costs."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="BUDGET", help="The same as device-time; the tables must tell theirs."),
    ] = None,
    slots: Annotated[list[int] | None, typer.Option("--slots", metavar="W", help="Trials at once.")] = None,
    allocators: Annotated[
        list[str] | None, typer.Option("--allocator", metavar="NAME", help="Whom to simulate; see below.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Sweeps of each kind.")] = 10,
    mode: Annotated[str, typer.Option("--mode", metavar="min|max", help="Whether low values are good.")] = "min",
    preemptions: Annotated[
        float, typer.Option("--preemptions-per-hour", metavar="N", min=0.0, help="How often a process is taken away.")
    ] = 0.0,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Processes; one a core.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every run as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.html", help="Draw regret over the budget.")
    ] = None,
) -> None:
    """Simulate sweeps over tables of learning curves, in seconds, with the very code that spends a real budget.

    A table has a row for each configuration: a list column `curve` with a value after each epoch, optionally
    `epoch_device_seconds`, and any number of columns besides. Every seed gives all allocators the same trials in the
    same order, the same costs and the same slots. Regret is 0 at the table's best final value and 1 at its median one;
    over time it is the mean over the budget. Options with N, W and NAME can be given several times.
    """
    from nasib_ray.simulate import ALLOCATORS, Setting, simulate_all
    from nasib_ray.simulation_report import simulation_report, write_curves
    from schedulers.budget import Budget
    from schedulers.curve_table import TableWorkload, read_curve_table

    if (full_trainings is None) == (budget is None):
        raise ValueError("give the budget either as --full-trainings N, or as --budget, such as '10 gpu-hours'")
    names = allocators or list(ALLOCATORS)
    if unknown := [name for name in names if name not in ALLOCATORS]:
        raise ValueError(f"--allocator {unknown[0]}: there are {', '.join(ALLOCATORS)}")
    if mode not in ("min", "max"):
        raise ValueError(f"--mode {mode}: it is min if low values are good, or max")
    wrong = [f"--full-trainings {number:g}" for number in full_trainings or () if not number > 0]
    if wrong := [*wrong, *(f"--slots {number}" for number in slots or () if number < 1)]:
        raise ValueError(f"{wrong[0]}: it must be above 0")
    read = [read_curve_table(table, mode) for table in tables]
    if len({table.name for table in read}) < len(read):
        raise ValueError("two tables have the same name: a table can be simulated once, and is told by its file's name")
    if budget is not None:
        if untold := [table.name for table in read if table.epoch_seconds is None]:
            raise ValueError(f"--budget {budget}: {untold[0]} does not tell epoch_device_seconds; use --full-trainings")
        seconds = Budget.parse(budget).device_seconds
    settings = [
        Setting(table.name, name, amount, number, seed, preemptions)
        for table in read
        for amount in (full_trainings or [seconds / (table.max_t * TableWorkload(table, 0).epoch_seconds)])
        for number in slots or [1]
        for seed in range(seeds)
        for name in dict.fromkeys(names)
    ]
    runs = []
    with working(f"simulating {len(settings):,} sweeps") as progress:
        for run in simulate_all(read, settings, jobs or os.cpu_count() or 1):
            runs.append(run)
            progress("sweeps", len(runs), len(settings))
    simulation_report(wide_console(), runs)
    if as_json is not None:
        as_json.write_text(json.dumps({"runs": [run.to_plain() for run in runs]}, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {as_json}")
    if plot is not None:
        write_curves(runs, plot)
        print(f"wrote {plot}")
