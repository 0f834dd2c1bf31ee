"""Learning curves of real searches under several horizons, and under horizons that change in mid-flight.

    python benchmarks/nasib_curves.py digits
    python benchmarks/nasib_curves.py cifar10 --data CIFAR-10-FOLDER --jobs 2
    python benchmarks/nasib_curves.py digits --print
    python benchmarks/nasib_curves.py digits --parquet benchmarks/results/nasib-digits.parquet

Searches over k x lambda x horizons x seeds. After every epoch the objective (the likelihood of the preferred network,
trained alone twice for `objective_epochs`) is measured beside the accuracy with shared weights. Each search appends one
record to a file; what the file holds is not run again, so that a study can be interrupted. `--parquet` writes a table
for `nasib-ray simulate`: a row for each search, with its `curve` of the objective. `--print` tells how both measures
depend on epochs and horizon, and how well the ranks of searches agree with those at their end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from json_lines import read_lines
from objective_study import SETUPS, Cell, Setup, Study, run_study
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from trainables.architecture import Architecture
from trainables.search import Search
from trainables.settings import TrialSettings

RESULTS = Path(__file__).parent / "results"
KS, LAMBDAS = (0.01, 0.1, 0.5), (0.003, 0.014, 0.07)
SHARES = (0.25, 0.5, 1.0)
"""Horizons, as shares of the setup's."""

CHANGES = ((0.25, 0.375), (0.5, 0.75), (0.75, 0.85))
"""(after, to): so far into the setup's horizon a search is told another one, both as shares of it."""

AT = (0.025, 0.125, 0.25, 0.375, 0.5, 0.75, 0.85, 1.0)
"""Where curves are printed, as shares of the setup's horizon."""

OBJECTIVE_EPOCHS = {"digits": 3, "cifar10": 1}


def horizons(setup: Setup) -> Iterator[list[tuple[int, int]]]:
    """Histories of horizons: (epochs done, horizon that is told then)."""
    full = setup.horizon
    yield from ([(0, round(share * full))] for share in SHARES)
    yield from ([(0, full), (round(after * full), round(to * full))] for after, to in CHANGES)


def cells(setup: Setup, seeds: int) -> Iterator[Cell]:
    """All searches, those of one seed together; horizons change in those of the first seed alone."""
    for seed in range(seeds):
        for history, k, lambda_ in product(horizons(setup), KS, LAMBDAS):
            if len(history) == 1 or seed == 0:
                yield Cell("curves", seed, {"k": k, "lambda": lambda_, "horizons": history})


class Curves(Study):
    """Searches that are measured after every epoch."""

    def run(self, cell: Cell) -> dict[str, Any]:
        """Search under the cell's horizons."""
        record = self.new_record(cell)
        history = dict(cell.settings["horizons"])
        settings = {key: value for key, value in cell.settings.items() if key != "horizons"}
        config = {**self.config, **settings, "seed": cell.seed, "horizon": history.pop(0)}
        search = Search(TrialSettings.from_config(config), self.dataset, torch.device("cpu"))
        columns: dict[str, list[Any]] = {"curve": [], "val_accuracy": [], "seconds": [], "effective_candidates": []}
        measured: dict[Architecture, float] = {}
        while not search.finished:
            columns["seconds"].append(self.run_epoch(search))
            architecture = search.architecture()
            if architecture not in measured:
                measured[architecture] = self._objective(architecture)
            effective = search.effective_candidates()
            assert search.position.last_epoch is not None, "an epoch was run"
            columns["curve"].append(measured[architecture])
            columns["val_accuracy"].append(search.position.last_epoch.val_accuracy)
            columns["effective_candidates"].append(sum(effective) / len(effective))
            if search.epochs in history:
                search.settings = TrialSettings.from_config({**config, "horizon": history[search.epochs]})
                search.tell_horizon()
        return {**record, **columns, "architecture": search.architecture().operations}

    def _objective(self, architecture: Architecture) -> float:
        """As `trained-likelihood` with two trainings."""
        alone = self.trained_alone(architecture)
        return -fmean(float(found["loss"]) for found in alone.values())


def write_table(records: list[dict[str, Any]], file: Path, horizon: int | None) -> None:
    """Write the searches as a table; those alone that were told one horizon, if one is given (all curves as long)."""
    rows = []
    for record in records:
        told = record["cell"]["settings"]["horizons"]
        if horizon is not None and told != [[0, horizon]]:
            continue
        rows.append(
            {
                "k": record["cell"]["settings"]["k"],
                "lambda": record["cell"]["settings"]["lambda"],
                "seed": record["cell"]["seed"],
                "horizons": [f"{after}:{to}" for after, to in told],
                "epoch_device_seconds": sum(record["seconds"]) / len(record["seconds"]),
                **{name: record[name] for name in ("curve", "val_accuracy", "effective_candidates", "architecture")},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), file)
    print(f"{len(rows)} curves: {file}")


def print_curves(records: list[dict[str, Any]], setup: Setup) -> None:
    """Print means by history of horizons, and how searches' ranks at some epochs agree with those at the end."""
    console = Console(width=190)
    at = [epoch for share in AT if (epoch := round(share * setup.horizon)) >= 1]
    of: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        told = record["cell"]["settings"]["horizons"]
        of.setdefault(", then ".join(f"{to} after {after}" if after else str(to) for after, to in told), []).append(
            record
        )
    for measure in ("curve", "val_accuracy"):
        title = {"curve": "objective", "val_accuracy": "accuracy with shared weights"}[measure]
        table = Table(box=None, header_style="bold", title=f"{title}: mean (standard deviation)", title_justify="left")
        for heading in ("horizon", "searches", *(f"epoch {epoch}" for epoch in at)):
            table.add_column(heading, justify="right", no_wrap=True)
        for horizon, some in of.items():
            values = [[one[measure][epoch - 1] for one in some if len(one[measure]) >= epoch] for epoch in at]
            told = [f"{fmean(each):.3f} ({pstdev(each):.3f})" if each else "" for each in values]
            table.add_row(horizon, str(len(some)), *told)
        whole = of[str(setup.horizon)]
        ends = [one[measure][-1] for one in whole]
        ranks = [spearmanr([one[measure][epoch - 1] for one in whole], ends).statistic for epoch in at]
        table.add_row("rank correlation with the end", "", *(f"{rank:+.2f}" for rank in ranks))
        console.print("", table)


def main() -> None:
    """Run what is missing, or write what there is as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--data", help="as data.name: where the images are; unless told, the setup's own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--file", type=Path, help="of the records; by default one of the setup's in benchmarks/results")
    parser.add_argument("--print", action="store_true", help="run nothing: print what there is")
    parser.add_argument("--parquet", type=Path, help="run nothing: write the table here")
    parser.add_argument("--horizon", type=int, help="of the table: only searches that were told this one horizon")
    options = parser.parse_args()
    setup = SETUPS[options.setup]
    setup = replace(setup, short_epochs=(OBJECTIVE_EPOCHS[options.setup],))
    file = options.file or RESULTS / f"nasib-curves-{options.setup}.jsonl"
    if options.print:
        print_curves(read_lines(file), setup)
        return
    if options.parquet is not None:
        write_table(read_lines(file), options.parquet, options.horizon)
        return
    if options.data:
        setup = replace(setup, data={**setup.data, "name": options.data})
    run_study(Curves, setup, cells(setup, options.seeds), file, options.jobs)


if __name__ == "__main__":
    main()
