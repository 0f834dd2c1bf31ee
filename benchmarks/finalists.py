"""What could choose among the finalists of real sweeps, and how well does it?

    python benchmarks/real_sweeps.py digits --schedulers async-halving --seeds 16 --file SWEEPS.jsonl
    python benchmarks/finalists.py digits --file SWEEPS.jsonl

The finalists of those sweeps, each trained from scratch and tested there, are trained here as the selection does it:
on the images that trained weights and alpha, judged on the selection part, but several times, and for several lengths.
Printed is how much better in the test (percentage points) the network is that a rule takes than that of the best
objective: the mean over sweeps, with 95% of Student's t, and in how many sweeps it was better and worse. Rules with
trainings of these lengths are means over which of the trainings were had. Trainings are appended to a file and not run
again.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from json_lines import read_lines
from objective_study import SETUPS, Cell, Study, run_study
from rich.console import Console
from rich.table import Table

from nasib_ray.comparison import Estimate
from trainables.architecture import Architecture
from trainables.data import make_splits
from trainables.settings import DataSettings
from trainables.training import Training, judge
from trainables.training_settings import Recipe

RESULTS = Path(__file__).parent / "results"
LENGTHS = {"digits": (6, 12, 24, 48), "cifar10": (1, 2, 4, 8)}
"""Epochs of the trainings."""

TRAININGS = 4
"""Of each length."""

Sweep = Mapping[str, Any]
Judged = dict[tuple[int, tuple[str, ...], int], list[dict[str, float]]]
"""By the sweep's seed, the network and the epochs: of each training, in the order of their seeds."""


class AsSelected(Study):
    """Trains a finalist as the selection of its sweep does."""

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train it and judge it on the selection part."""
        told = cell.settings
        labels = self.dataset.train.labels
        splits = make_splits(labels, DataSettings(**self._setup.data), told["split_seed"])
        trained_on = self._training_part(torch.cat([splits.weights, splits.alpha]).sort().values)
        architecture = Architecture(tuple(told["architecture"]), self.random_network(0).macro)
        recipe = Recipe.of_search(self._base.search)
        training = Training(self._fresh(architecture, cell.seed), recipe, trained_on, cell.seed, told["epochs"])
        training.run()
        judged = judge(training.network, self._training_part(splits.selection), 500)
        return {**self.new_record(cell), "loss": judged.loss, "accuracy": judged.accuracy}


def trainings(sweeps: Sequence[Sweep], lengths: Sequence[int]) -> Iterator[Cell]:
    """Of all finalists."""
    for sweep in sweeps:
        for finalist in sweep["finalists"]:
            told = {"architecture": finalist["architecture"], "split_seed": sweep["seed"]}
            for epochs in lengths:
                for seed in range(TRAININGS):
                    yield Cell("finalists", 2000 + seed, {**told, "epochs": epochs})


def standard(values: Sequence[float]) -> list[float]:
    """Values in standard deviations above their mean."""
    mean, spread = statistics.fmean(values), statistics.pstdev(values) or 1.0
    return [(value - mean) / spread for value in values]


def together(*judgements: Sequence[float]) -> list[float]:
    """The sum of several judgements on the same networks, each in standard deviations."""
    return [sum(values) for values in zip(*map(standard, judgements), strict=True)]


def rules(sweep: Sweep, judged: Judged, lengths: Sequence[int]) -> dict[str, list[list[float]]]:
    """The values that each rule has of the finalists, the greater the better, in each of its variants."""
    finalists = sweep["finalists"]
    objective = [one["objective"] for one in finalists]
    selection = [one["curve"][-1] for one in finalists]
    found = {"the selection": [selection], "objective + selection": [together(objective, selection)]}
    for epochs in lengths:
        done = [judged[sweep["seed"], tuple(one["architecture"]), epochs] for one in finalists]
        for measure, sign in (("loss", -1.0), ("accuracy", 1.0)):
            for count in (1, 2, 4):
                means = [
                    [sign * statistics.fmean(one[place][measure] for place in places) for one in done]
                    for places in combinations(range(TRAININGS), count)
                ]
                name = f"{count} x {epochs} epochs, {measure}"
                found[name] = means
                found[f"objective + {name}"] = [together(objective, mean) for mean in means]
    return found


def gained(values: Sequence[float], finalists: Sequence[Mapping[str, Any]], accuracy: Callable[..., float]) -> float:
    """How much better in the test the network of the greatest value is than that of the best objective."""
    taken = max(zip(values, finalists, strict=True), key=lambda pair: pair[0])[1]
    return accuracy(taken) - accuracy(max(finalists, key=lambda one: float(one["objective"])))


def report(
    sweeps: Sequence[Sweep], tested: Sequence[Mapping[str, Any]], judged: Judged, lengths: Sequence[int]
) -> None:
    """Print a line for each rule."""
    truth = {
        tuple(record["cell"]["settings"]["architecture"]): statistics.fmean(one["accuracy"] for one in record["truth"])
        for record in tested
    }

    def accuracy(finalist: Mapping[str, Any]) -> float:
        return truth[tuple(finalist["architecture"])]

    gains: dict[str, list[float]] = {"any finalist": [], "the best in the test": []}
    for sweep in sweeps:
        finalists = sweep["finalists"]
        accuracies = [accuracy(one) for one in finalists]
        base = accuracy(max(finalists, key=lambda one: float(one["objective"])))
        gains["any finalist"].append(statistics.fmean(accuracies) - base)
        gains["the best in the test"].append(max(accuracies) - base)
        for name, variants in rules(sweep, judged, lengths).items():
            means = statistics.fmean(gained(values, finalists, accuracy) for values in variants)
            gains.setdefault(name, []).append(means)
    table = Table(title=f"{len(sweeps)} sweeps: test accuracy above that of the best objective, percentage points")
    table.add_column("taken by")
    for head in ("points", "sweeps better", "worse"):
        table.add_column(head, justify="right")
    for name, values in gains.items():
        table.add_row(
            name, points(values), str(sum(value > 0 for value in values)), str(sum(value < 0 for value in values))
        )
    console = Console(width=120)
    console.print(table)
    ends = [len(finalist["curve"]) for sweep in sweeps for finalist in sweep["finalists"]]
    console.print(f"the selection trained for {min(ends)} to {max(ends)} epochs", highlight=False)
    for short in lengths:
        if 4 * short in lengths:
            many, one = f"4 x {short} epochs, loss", f"1 x {4 * short} epochs, loss"
            above = [a - b for a, b in zip(gains[many], gains[one], strict=True)]
            console.print(f"{many} above {one}: {points(above)}", highlight=False)


def points(shares: Sequence[float]) -> str:
    """The mean of shares and its 95% interval, in percentage points."""
    estimate = Estimate.of([100 * share for share in shares])
    return f"{estimate.mean:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f})"


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--data", help="as data.name: where the images are; unless told, the setup's own")
    parser.add_argument("--file", type=Path, help="of the sweeps; by default one of the setup's in benchmarks/results")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    setup = SETUPS[options.setup]
    if options.data:
        setup = replace(setup, data={**setup.data, "name": options.data})
    file = options.file or RESULTS / f"real-sweeps-{options.setup}-finalists.jsonl"
    sweeps = [sweep for sweep in read_lines(file) if sweep.get("finalists")]
    if not sweeps:
        raise SystemExit(f"{file} holds no sweep with finalists: real_sweeps.py --schedulers async-halving makes them")
    lengths = LENGTHS[options.setup]
    again = file.with_stem(f"{file.stem}-trainings")
    run_study(AsSelected, setup, trainings(sweeps, lengths), again, options.jobs)
    judged: Judged = {}
    # Those of one seed are compared with each other, as in a selection.
    for record in sorted(read_lines(again), key=lambda record: int(record["cell"]["seed"])):
        told = record["cell"]["settings"]
        key = (told["split_seed"], tuple(told["architecture"]), told["epochs"])
        judged.setdefault(key, []).append({name: record[name] for name in ("loss", "accuracy")})
    report(sweeps, read_lines(file.with_stem(f"{file.stem}-networks")), judged, lengths)


if __name__ == "__main__":
    main()
