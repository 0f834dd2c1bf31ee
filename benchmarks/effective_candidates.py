"""How sharply searches exploit at half of their horizon: by lambda, number of candidates and epochs, on the digits.

    python benchmarks/effective_candidates.py

Printed is the effective number of candidates under the exploiting policy, exp(entropy), a mean over layers: 1 where one
candidate has it all, N where all are alike. That is what lambda's default range was chosen by.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from trainables.data import load_dataset
from trainables.search import Search
from trainables.settings import TrialSettings

LAMBDAS = (0.002, 0.005, 0.014, 0.0224, 0.1)
SEARCH: Mapping[str, Any] = {
    "layers": 4,
    "reductions": [3],
    "channels": 8,
    "learning_rate": 0.05,
    "pair_scale": "mean",
    "k": 0.1,
    "objective": "shared-accuracy",
}


@dataclass(frozen=True)
class Row:
    """Searches that differ in lambda alone."""

    name: str
    epochs: int
    search: Mapping[str, Any]
    alpha_images: float = 0.1


ROWS = (
    Row("7 (narrow)", 30, {"candidates": "narrow"}),
    Row("25 (m = 5)", 20, {"m": 5}),
    Row("25", 40, {"m": 5}),
    Row("25, batch 16, 30% of the images for alpha", 30, {"m": 5, "batch_size": 16}, alpha_images=0.3),
    Row("81 (m = 9)", 20, {"m": 9}),
    Row("81", 40, {"m": 9}),
)


def half_of(row: Row, lambda_: float, seed: int) -> Search:
    """A search when half of its epochs are done."""
    config = {**SEARCH, **row.search, "lambda": lambda_, "horizon": row.epochs, "seed": seed, "split_seed": 0}
    config["data"] = {"name": "digits", "alpha_images": row.alpha_images}
    settings = TrialSettings.from_config(config)
    search = Search(settings, load_dataset(settings.data), torch.device("cpu"))
    while search.epochs < row.epochs // 2:
        search.run_batch()
    return search


def main() -> None:
    """Search, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "candidates N", "epochs n", "updates of an alpha", *(f"lambda {value:g}" for value in LAMBDAS), box=None
    )
    for row in ROWS:
        searches = [half_of(row, lambda_, options.seed) for lambda_ in LAMBDAS]
        updates = float(searches[0].parameters.steps.double().mean())
        effective = (f"{fmean(search.effective_candidates()):.1f}" for search in searches)
        table.add_row(row.name, str(row.epochs), f"{updates:.1f}", *effective)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
