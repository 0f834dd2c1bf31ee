"""Schedulers of Syne Tune on tables of learning curves, in Syne Tune's own simulator.

    python3 -m venv peers
    peers/bin/pip install 'syne-tune[gpsearchers]==0.13.0' huggingface_hub s3fs fastparquet xgboost \\
        'numpy>=1.26,<1.27' 'pyarrow<17' 'pandas<2.3' 'scikit-learn<1.6' 'scipy<1.14'
    PYTHONPATH=. peers/bin/python benchmarks/syne_tune_peers.py TASK.parquet ... --file runs.jsonl --beside ours.jsonl

0.13.0 is the last version that the three of them were in. They need another NumPy than this project, so they live in
an environment of their own. Budgets, slots, what an epoch costs (lognormal over configurations), what a start or a
resume costs (half a mean epoch) and regret are those of `benchmarks/allocators.py tables`, which prints ours; slots are
equally fast here, and costs are drawn anew, so that runs are not paired with ours. Model-based ones choose among the
configurations of the table. A sweep takes DyHPO and HyperTune minutes, ASHA seconds. Runs are appended to
the file, and what it holds is not run again.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from json_lines import append_line, read_lines
from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend.simulator_backend.simulator_backend import SimulatorConfig
from syne_tune.backend.simulator_backend.simulator_callback import SimulatorCallback
from syne_tune.blackbox_repository import UserBlackboxBackend
from syne_tune.blackbox_repository.blackbox_tabular import BlackboxTabular
from syne_tune.config_space import randint, uniform
from syne_tune.optimizer.baselines import ASHA, DyHPO, HyperTune
from syne_tune.tuner_callback import TunerCallback

from schedulers.curve_table import CurveTable, read_curve_table

SCHEDULERS = ("ASHA promotion", "HyperTune", "DyHPO")
BESIDE = ("async-halving", "asha-promotion")
BUDGETS, SLOTS, ETA = (10.0, 30.0), (1, 4, 16), 4
EPOCH_SECONDS, COST_SPREAD = 600.0, 0.5
VALUE, ELAPSED, EPOCH = "value", "elapsed_time", "epoch"


class BestSoFar(TunerCallback):  # type: ignore[misc]
    """Notes when better values come, in simulated seconds of all slots."""

    def __init__(self, slots: int, sign: float) -> None:
        self.best: list[tuple[float, float]] = []
        self._slots, self._sign = slots, sign

    def on_trial_result(self, trial: Any, status: str, result: Mapping[str, Any], decision: str) -> None:
        """Called by the Tuner."""
        value = float(result[VALUE])
        if not self.best or self._sign * value < self._sign * self.best[-1][1]:
            self.best.append((float(result["st_tuner_time"]) * self._slots, value))


def blackbox(table: CurveTable, seed: int) -> tuple[BlackboxTabular, list[dict[str, Any]]]:
    """A table as Syne Tune has it, and its configurations."""
    drawn = random.Random(f"{table.name} {seed}")
    costs = [EPOCH_SECONDS * drawn.lognormvariate(-(COST_SPREAD**2) / 2, COST_SPREAD) for _ in table.curves]
    columns = list(table.configs[0])
    logs = np.log(np.maximum([[float(config[name]) for name in columns] for config in table.configs], 1e-12))
    cube = (logs - logs.min(axis=0)) / np.maximum(np.ptp(logs, axis=0), 1e-12)
    configs = pd.DataFrame(cube, columns=columns)
    epochs = np.arange(1, table.max_t + 1)
    values = np.array(
        [[[*zip(curve, epochs * cost, strict=True)]] for curve, cost in zip(table.curves, costs, strict=True)]
    )
    made = BlackboxTabular(
        configs,
        {name: uniform(0.0, 1.0) for name in columns},
        {EPOCH: randint(1, table.max_t)},
        values,
        epochs,
        [VALUE, ELAPSED],
    )
    return made, configs.to_dict("records")


def run(table: CurveTable, name: str, budget: float, slots: int, seed: int) -> dict[str, Any]:
    """Simulate one sweep."""
    # Tables of the same configurations would have the same ones drawn under one seed.
    of_table = zlib.crc32(f"{table.name} {seed}".encode()) % 2**31
    np.random.seed(of_table)
    made, configs = blackbox(table, seed)
    backend = UserBlackboxBackend(
        made,
        ELAPSED,
        simulator_config=SimulatorConfig(
            delay_on_trial_result=0.0,
            delay_complete_after_final_report=0.0,
            delay_complete_after_stop=0.0,
            delay_start=EPOCH_SECONDS / 2,
            delay_stop=0.0,
        ),
    )
    told = {
        "config_space": {**made.configuration_space, "epochs": table.max_t},
        "metric": VALUE,
        "mode": table.mode,
        "resource_attr": EPOCH,
        "max_resource_attr": "epochs",
        "reduction_factor": ETA,
        "random_seed": of_table,
        "search_options": {"restrict_configurations": configs, "debug_log": False},
    }
    scheduler: Any
    if name == "ASHA promotion":
        scheduler = ASHA(type="promotion", grace_period=1, **told)
    elif name == "HyperTune":
        scheduler = HyperTune(type="promotion", grace_period=1, brackets=3, **told)
    else:
        del told["reduction_factor"]
        scheduler = DyHPO(grace_period=1, **told)
    whole = budget * table.max_t * EPOCH_SECONDS
    watching = BestSoFar(slots, 1.0 if table.mode == "min" else -1.0)
    tuner = Tuner(
        trial_backend=backend,
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=whole / slots),
        n_workers=slots,
        sleep_time=0,
        callbacks=[SimulatorCallback(), watching],
        print_update_interval=1e9,
        results_update_interval=1e9,
        save_tuner=False,
        suffix_tuner_name=True,
    )
    tuner.run()
    regrets = table.regrets(watching.best, whole)
    key = {"table": table.name, "allocator": name, "budget": budget, "slots": slots, "seed": seed}
    return {**key, "final_regret": regrets[-1], "anytime_regret": statistics.fmean(regrets)}


def report(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean regret of each scheduler, and of every cell with its standard error."""
    cells: dict[str, dict[tuple[float, int], list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for one in runs:
        cells[one["allocator"]][one["budget"], one["slots"]].append(one)
    for name, of in cells.items():
        print(f"\n{name}")
        for measure in ("final_regret", "anytime_regret"):
            values = {cell: [one[measure] for one in of[cell]] for cell in sorted(of)}
            mean = statistics.fmean(map(statistics.fmean, values.values()))
            print(f"  {measure:15} {mean:.3f}  ({sum(map(len, values.values()))} runs)")
            for (budget, slots), some in values.items():
                error = statistics.stdev(some) / math.sqrt(len(some)) if len(some) > 1 else math.nan
                print(f"    {budget:g} x {slots}: {statistics.fmean(some):.3f} ± {error:.3f}")


def main() -> None:
    """Run what is missing, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="+")
    parser.add_argument("--file", type=Path, required=True, help="of the runs")
    parser.add_argument("--beside", type=Path, help="runs of benchmarks/allocators.py tables, to be printed too")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=float, action="append", help="in full trainings; repeatable")
    parser.add_argument("--scheduler", action="append", choices=SCHEDULERS, help="repeatable; all unless told")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    runs = read_lines(options.file)
    done = {(one["table"], one["allocator"], one["budget"], one["slots"], one["seed"]) for one in runs}
    tables = [read_curve_table(path) for path in options.table]
    for table in tables:
        if len({len(curve) for curve in table.curves}) > 1 or any(
            not isinstance(value, (int, float)) for config in table.configs for value in config.values()
        ):
            parser.error(f"{table.name}: here curves must be equally long, and configurations numbers")
    wanted = product(range(options.seeds), options.scheduler or SCHEDULERS, options.budget or BUDGETS, SLOTS, tables)
    for seed, name, budget, slots, table in wanted:
        if (table.name, name, budget, slots, seed) in done:
            continue
        runs.append(run(table, name, budget, slots, seed))
        append_line(options.file, runs[-1])
        print(f"{table.name}, {name}, {budget:g} trainings, {slots} slots, seed {seed}", file=sys.stderr)
    named = {*(options.scheduler or SCHEDULERS), *BESIDE}
    runs += read_lines(options.beside) if options.beside else []
    budgets = options.budget or BUDGETS
    asked = (one for one in runs if one["budget"] in budgets and one["seed"] < options.seeds)
    report([one for one in asked if one["allocator"] in named])


if __name__ == "__main__":
    main()
