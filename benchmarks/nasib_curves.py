"""Learning curves of real searches under several horizons, and under horizons that change in mid-flight.

    python benchmarks/nasib_curves.py digits
    python benchmarks/nasib_curves.py cifar10 --data CIFAR-10-FOLDER --jobs 2
    python benchmarks/nasib_curves.py digits --parquet benchmarks/results/nasib-digits.parquet

Searches over k x lambda x horizons x seeds. After every epoch the objective (the likelihood of the preferred network,
trained alone twice for `objective_epochs`) is measured beside the accuracy with shared weights. Each search appends one
record to a file; what the file holds is not run again, so that a study can be interrupted. `--parquet` writes a table
for `nasib-ray simulate`: a row for each search, with its `curve` of the objective.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from objective_study import SETUPS, Cell, Setup, Study, read_records, run_study

from trainables.architecture import Architecture
from trainables.search import Search
from trainables.settings import TrialSettings

RESULTS = Path(__file__).parent / "results"
KS, LAMBDAS = (0.01, 0.1, 0.5), (0.003, 0.014, 0.07)
SHARES = (0.25, 0.5, 1.0)
"""Horizons, as shares of the setup's."""

CHANGES = ((0.25, 0.375), (0.5, 0.75), (0.75, 0.85))
"""(after, to): so far into the setup's horizon a search is told another one, both as shares of it."""

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
        return -sum(found["loss"] for found in alone.values()) / len(alone)


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


def main() -> None:
    """Run what is missing, or write what there is as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--data", help="as data.name: where the images are; unless told, the setup's own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--file", type=Path, help="of the records; by default one of the setup's in benchmarks/results")
    parser.add_argument("--parquet", type=Path, help="run nothing: write the table here")
    parser.add_argument("--horizon", type=int, help="of the table: only searches that were told this one horizon")
    options = parser.parse_args()
    setup = SETUPS[options.setup]
    setup = replace(setup, short_epochs=(OBJECTIVE_EPOCHS[options.setup],))
    file = options.file or RESULTS / f"nasib-curves-{options.setup}.jsonl"
    if options.parquet is not None:
        write_table(read_records([file]), options.parquet, options.horizon)
        return
    if options.data:
        setup = replace(setup, data={**setup.data, "name": options.data})
    run_study(Curves, setup, cells(setup, options.seeds), file, options.jobs)


if __name__ == "__main__":
    main()
