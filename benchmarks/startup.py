"""What passes between a decision and the next training step, in a real sweep.

    python benchmarks/startup.py --budget "3 cpu-minutes"

Runs a sweep of the default network on the digits with two processors and reads its journal. All times end with the
report of a whole epoch and leave that epoch's own seconds out, so they are what a slot does not train: from the grant
of a search that was chosen, from the report before, or from the report to the checkpoint that follows it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nasib_ray.config import SweepConfig
from nasib_ray.results import JOURNAL
from nasib_ray.sweep import run_sweep, versions
from schedulers.journal_replay import read_journal

NEW_PROCESS = "a new search, in a new process"
KEPT_PROCESS = "a new search, in a kept process"
PAUSED = "a paused search, in a kept process"
NEXT_EPOCH = "the next epoch of a search that goes on"
SAVED = "a checkpoint at the end of a slice"


def waits(records: Iterable[Mapping[str, Any]], slots: int) -> dict[str, list[float]]:
    """Seconds of each kind, from the records of a sweep that was not interrupted."""
    found: dict[str, list[float]] = defaultdict(list)
    since: dict[str, tuple[str, float]] = {}
    reported: dict[str, float] = {}
    saving: dict[str, float] = {}
    cut: set[str] = set()
    grants = 0
    for record in records:
        event, trial, time = record["event"], record.get("trial", ""), record["time"]
        if event == "grant":
            grants += 1
            if trial not in reported:
                since[trial] = (NEW_PROCESS if grants <= slots else KEPT_PROCESS), time
            elif trial not in since:
                since[trial] = PAUSED, time
        elif event == "state" and record["why"].endswith("to be saved"):
            saving[trial] = time
        elif event == "checkpoint":
            if trial in saving:
                found[SAVED].append(time - saving.pop(trial))
            since.pop(trial, None)
        elif event == "report":
            if trial in since and trial not in cut and record["epoch_seconds"] is not None:
                kind, began = since[trial]
                found[kind].append(time - began - record["epoch_seconds"])
            reported[trial] = time
            since[trial] = NEXT_EPOCH, time
            if record["epoch_seconds"] is None:
                # The epoch was cut: its seconds will be those of both parts.
                cut.add(trial)
            else:
                cut.discard(trial)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="3 cpu-minutes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of nasib-ray sweep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        given = {"budget": options.budget, "storage": storage, "data": "digits", "finalists": 0}
        sweep = run_sweep(SweepConfig.load(None, options.set, **given))
        records = read_journal(sweep.filesystem, f"{sweep.folder}/{JOURNAL}", from_start=True).records
    slots = next(record["slots"] for record in records if record["event"] == "run")
    found = waits(records, slots)
    table = Table(title=f"a budget of {options.budget}, {slots} at once")
    for column in ("seconds besides the epoch's own", "times", "median", "lowest", "highest"):
        table.add_column(column, justify="left" if column.startswith("seconds") else "right")
    for kind in (NEW_PROCESS, KEPT_PROCESS, PAUSED, NEXT_EPOCH, SAVED):
        if seconds := found.get(kind):
            figures = statistics.median(seconds), min(seconds), max(seconds)
            table.add_row(kind, f"{len(seconds)}", *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"seconds": found, "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()
