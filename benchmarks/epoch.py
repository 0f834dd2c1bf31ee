"""What of a search epoch on CIFAR-10 is not the steps: data, draws, Python.

    python benchmarks/epoch.py cifar10-folder --images 25000

Runs whole epochs of a search of the default network (12 layers, 81 kernels each) on that many training images in one
thread, and takes processor time. The data are Parquet files or any other data set that ``data.name`` can name; without
them nothing is measured. The first use decodes them once for all trials of a node, which is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table

from nasib_ray.sweep import versions
from trainables import search as search_module
from trainables.data import load_dataset
from trainables.device import device_name, settle_process
from trainables.search import Search
from trainables.settings import TrialSettings

PARTS = {
    "weight steps": (search_module, "weight_step"),
    "architecture steps": (search_module, "architecture_step"),
    "evaluation": (search_module, "count_correct"),
    "data: batches, augmentation": (Search, "_images_of"),
    "draws of candidates": (Search, "_draw"),
}


@contextmanager
def timed(taken: dict[str, float]) -> Iterator[None]:
    """Within, what each part takes is added up."""

    def wrapped(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            result = function(*arguments, **named)
            taken[part] += time.process_time() - began
            return result

        return run

    patches = [
        mock.patch.object(place, name, wrapped(part, getattr(place, name))) for part, (place, name) in PARTS.items()
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as data.name: a folder, a file, or a name such as cifar10")
    parser.add_argument("--images", type=int, help="training images of all three parts; all of them unless told")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2, help="that are measured, behind a first one that is not")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    settle_process(1, 0)
    config = {"data": {"name": options.data, "subset": options.images}, "channels": options.channels, "horizon": 100}
    settings = TrialSettings.from_config(config)
    try:
        load_dataset(settings.data)
        began = time.process_time()
        dataset = load_dataset(settings.data)
    except ValueError as error:
        raise SystemExit(f"skipped, as there are no data: {error}") from error
    again = time.process_time() - began
    search = Search(settings, dataset, torch.device("cpu"))
    shares: dict[str, list[float]] = defaultdict(list)
    epochs = []
    for epoch in range(options.epochs + 1):
        taken: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        began = time.process_time()
        with timed(taken):
            for _ in search.plan:
                search.run_batch()
        whole = time.process_time() - began
        if epoch:
            epochs.append(whole)
            for part, seconds in {**taken, "the rest, in Python": whole - sum(taken.values())}.items():
                shares[part].append(seconds / whole)
    result: dict[str, Any] = {
        "images": len(dataset.train.labels),
        "channels": options.channels,
        "epoch_seconds": statistics.median(epochs),
        "opening_decoded_data_seconds": again,
        "shares": {part: statistics.median(values) for part, values in shares.items()},
        "device_name": device_name(torch.device("cpu")),
        "versions": versions(),
    }
    table = Table(
        title=f"an epoch of {result['images']:,} images: {result['epoch_seconds']:.1f} s, {result['device_name']}"
    )
    table.add_column("part")
    table.add_column("share", justify="right")
    for part, share in result["shares"].items():
        table.add_row(part, f"{share:.1%}")
    console = Console()
    console.print(table)
    console.print(f"data that were decoded before are opened in {again:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
