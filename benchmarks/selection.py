"""Which share of a budget should select among what searches found? Resampled from the study of objectives' records.

    python benchmarks/selection.py digits
    python benchmarks/selection.py cifar10

A budget is counted in full searches. Of each resample the share that is not kept buys searches, drawn from the records;
the best finds by the objective are finalists, and the kept share trains them side by side for the epochs that it buys.
The records hold trainings of a few lengths, of which the longest that can be paid counts: short ones on the images that
trained weights, judged on the selection part by likelihood. The longest is one of the trainings on all images, judged
on the test set, and then the network's worth is the mean of its other trainings on the same test set: that chooses
better than a selection part would. Printed is the mean accuracy of the network that is taken, trained from scratch,
above that of the best search of the whole budget, in percentage points; in brackets 95% over random halves of the
records, which is too narrow by about a factor of the root of 2 for what other searches would give.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from json_lines import read_lines
from objective import RESULTS
from objective_study import SETUPS, Setup
from rich.console import Console
from rich.table import Table

BUDGETS = (8, 20)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
FINALISTS = (2, 4, 8)
DRAWS = 400
RESAMPLES = 200

Record = dict[str, Any]


def objective(setup: Setup, record: Record, by: str) -> float:
    """The likelihood by which finalists are found: "trained" twice for the study's shortest time, or "fine-tuned"."""
    if by == "fine-tuned":
        return -float(record["end"]["finetuned"]["loss"])
    shortest = min(setup.short_epochs)
    return -statistics.fmean(record["end"][f"trained {shortest}, seed {seed}"]["loss"] for seed in range(2))


def taken(setup: Setup, finalists: Sequence[Record], epochs: float, draw: random.Random) -> float:
    """The accuracy of the finalist that is taken after so many epochs of training."""
    lengths = [length for length in (*setup.short_epochs, setup.truth_epochs) if length <= epochs]
    if not lengths:
        return trained(finalists[0])
    if lengths[-1] == setup.truth_epochs:
        seed = draw.randrange(setup.truth_seeds)
        best = max(finalists, key=lambda record: float(record["truth"][seed]["accuracy"]))
        return statistics.fmean(one["accuracy"] for number, one in enumerate(best["truth"]) if number != seed)
    seed = draw.randrange(2)
    return trained(
        min(finalists, key=lambda record: float(record["end"][f"trained {lengths[-1]}, seed {seed}"]["loss"]))
    )


def trained(record: Record) -> float:
    """Of the network, the mean over its trainings."""
    return statistics.fmean(training["accuracy"] for training in record["truth"])


def gain(
    setup: Setup,
    records: Sequence[Record],
    judged: Callable[[Record], float],
    budget: int,
    share: float,
    count: int,
    seed: int,
) -> float:
    """How much better the network is that is taken with a selection than the one without, by an objective."""
    draw, gains = random.Random(seed), []
    search = statistics.fmean(record["search_seconds"] for record in records)
    longest = setup.short_epochs[-1]
    epoch = statistics.fmean(record["end"][f"trained {longest}, seed 0"]["seconds"] for record in records) / longest
    epochs = share * budget * search / (count * epoch)
    for _ in range(DRAWS):
        # Without replacement: no search is found twice.
        whole = draw.sample(records, min(budget, len(records)))
        part = whole[: max(1, round((1 - share) * budget))]
        finalists = sorted(part, key=judged, reverse=True)[:count]
        gains.append(taken(setup, finalists, epochs, draw) - trained(max(whole, key=judged)))
    return statistics.fmean(gains)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--file", type=Path, help="of the records; by default the setup's in benchmarks/results")
    parser.add_argument("--by", choices=("trained", "fine-tuned"), default="trained", help="the searches' objective")
    options = parser.parse_args()
    setup = SETUPS[options.setup]

    def judged(record: Record) -> float:
        return objective(setup, record, options.by)

    records = read_lines(options.file or RESULTS / f"objective-{options.setup}.jsonl")
    searches = [record for record in records if record["cell"]["study"] == "objective"]
    generator = np.random.default_rng(0)
    title = f"{options.setup}: gain by a selection, percentage points; objective: {options.by}"
    table = Table(title=f"{title}; {len(searches)} searches resampled")
    for head in ("budget, full searches", "finalists", *(f"share {share:.0%}" for share in SHARES)):
        table.add_column(head, justify="right")
    for budget in BUDGETS:
        for count in FINALISTS:
            cells = []
            for share in SHARES:
                drawn = []
                for seed in range(RESAMPLES):
                    # Halves without replacement: a bootstrap would have the same network compete with itself.
                    places = generator.permutation(len(searches))[: max(2, len(searches) // 2)]
                    some = [searches[place] for place in places]
                    drawn.append(gain(setup, some, judged, budget, share, count, seed))
                low, high = np.quantile(drawn, [0.025, 0.975])
                cells.append(f"{100 * statistics.fmean(drawn):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
            table.add_row(str(budget), str(count), *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
