"""The command ``nasib-ray simulate``."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from nasib_ray.cli_options import wide_console, working


def simulate(
    tables: Annotated[
        list[Path], typer.Argument(metavar="TABLE...", help="Learning curves (.parquet), models (.json).")
    ],
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
        list[str] | None, typer.Option("--allocator", metavar="NAME", help="One of those below; all unless told.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Sweeps of each kind.")] = 10,
    mode: Annotated[
        str | None, typer.Option("--mode", metavar="min|max", help="Whether low values are good; min unless told.")
    ] = None,
    preemptions: Annotated[
        float,
        typer.Option(
            "--preemptions-per-hour",
            metavar="N",
            min=0.0,
            help="How often a process is taken away. What does not tell its epochs' time has six an hour.",
        ),
    ] = 0.0,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Processes; one a core.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every run as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.html", help="Draw regret over the budget.")
    ] = None,
) -> None:
    """Simulate sweeps over tables of learning curves, in seconds, with the very code that spends a real budget.

    A table has a row for each configuration: a list column `curve` with a value after each epoch (a shorter one is of a
    training that ends there), optionally `epoch_device_seconds`, and any number of columns besides. Every seed gives
    all allocators the same trials in the same order, the same costs and the same slots. Regret is 0 at the table's best
    final value and 1 at its median one; over time it is the mean over the budget. --full-trainings, --slots and
    --allocator can be given several times.

    A model of searches whose values depend on the horizon that they are told can stand in a table's place: it is a
    file that benchmarks/horizon_model.py fits to real searches. Regret is 0 at the 99.5% quantile, and 1 at the median,
    of 300 searches that are told its full horizon.

    Allocators: async-halving (the default: for a table, of Trainables that are told no horizon; for a model, of
    searches), equal-share, asha (Ray Tune's, which stops), asha-promotion (which pauses), hyperband, median, fifo;
    for tables async-halving-at-once (with `continue_at_once` and an endgame); for models async-halving-fixed (no
    search is told another horizon), async-halving-queued (without `continue_at_once`), pbt.
    """
    from nasib_ray.horizon_model import read_model
    from nasib_ray.quiet_ray import usable_cpus
    from nasib_ray.simulate import allocators_for, settings_of, simulate_all, trainings_within
    from nasib_ray.simulation_report import simulation_report, write_curves
    from schedulers.budget import Budget
    from schedulers.curve_table import CurveTable, read_curve_table

    if mode not in (None, "min", "max"):
        raise ValueError(f"--mode {mode}: it is min if low values are good, or max")
    if mode is not None and all(path.suffix == ".json" for path in tables):
        raise ValueError(f"--mode {mode}: it is for tables, and {tables[0]} is a model, which tells its own")
    for file in filter(None, (as_json, plot)):
        check_writable(file)
    read = [read_model(path) if path.suffix == ".json" else read_curve_table(path, mode or "min") for path in tables]
    stems = Counter(path.stem for path in tables)
    for place, (path, one) in enumerate(zip(tables, read, strict=True)):
        if stems[path.stem] > 1 and isinstance(one, CurveTable):
            read[place] = replace(one, name=f"{path.absolute().parent.name}/{one.name}")
    if (full_trainings is None) == (budget is None):
        raise ValueError("give the budget either as --full-trainings N, or as --budget, such as '10 gpu-hours'")
    names = allocators or allocators_for(read)
    settings = settings_of(read, names, full_trainings or [1.0], slots or [1], seeds, preemptions)
    if budget is not None:
        bought = {one.name: trainings_within(Budget.parse(budget), one) for one in read}
        settings = [replace(setting, budget=bought[setting.table]) for setting in settings]
    runs = []
    with working(f"simulating {len(settings):,} sweeps") as progress:
        for run in simulate_all(read, settings, jobs or usable_cpus()):
            runs.append(run)
            progress("sweeps", len(runs), len(settings))
    simulation_report(wide_console(), runs)
    if as_json is not None:
        as_json.write_text(json.dumps({"runs": [run.to_plain() for run in runs]}, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {as_json}")
    if plot is not None:
        write_curves(runs, plot)
        print(f"wrote {plot}")


def check_writable(file: Path) -> None:
    """Raise ValueError if a file cannot be written, before what is to be in it has taken its time."""
    if not file.parent.is_dir():
        raise ValueError(f"{file} cannot be written: there is no folder {file.parent}")
    if file.is_dir():
        raise ValueError(f"{file} cannot be written: it is a folder")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"{file} cannot be written: permission denied")
