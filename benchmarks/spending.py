"""Where a sweep's budget goes, and whether an outside observer agrees.

    python benchmarks/spending.py --budget "5 cpu-minutes"

Runs a sweep on the handwritten digits with the default network (12 layers, 81 kernels each) on two processors, while
another process polls every 100 ms what created placement groups hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from nasib_ray.config import SweepConfig
from nasib_ray.quiet_ray import ray_for_sweep, usable_cpus
from nasib_ray.sweep import run_sweep, versions


def measure(budget: str, settings: list[str]) -> dict[str, Any]:
    """Run one sweep under an observer."""
    with tempfile.TemporaryDirectory() as storage, ray_for_sweep():
        config = SweepConfig.load(None, settings, budget=budget, storage=storage, data="digits", finalists=0)
        address = ray.get_runtime_context().gcs_address
        observer = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("observer.py")), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert observer.stdout is not None, "the observer's output is a pipe"
        assert observer.stdout.readline() == "watching\n", "the observer did not start"
        began = time.perf_counter()
        sweep = run_sweep(config)
        wall = time.perf_counter() - began
        seen = json.loads(observer.communicate()[0])
    ledger = sweep.state.ledger
    return {
        "budget_device_seconds": ledger.budget,
        "spent_device_seconds": ledger.spent,
        "held_device_seconds": seen["held_device_seconds"],
        "disagreement": ledger.spent / seen["held_device_seconds"] - 1,
        "spent_share": ledger.spent / ledger.budget,
        "share_by_kind": {kind: amount / ledger.budget for kind, amount in ledger.spent_by_kind.items()},
        "wall_seconds": wall,
        "observer": seen,
        "end": sweep.state.end,
        "searches": len(sweep.state.searches),
        "best_objective": sweep.state.incumbent.best_value if sweep.state.incumbent else None,
        "versions": versions(),
        "processors": usable_cpus(),
        "seed": config.seed,
    }


def show(result: dict[str, Any]) -> None:
    """Print a result."""
    table = Table(title=f"a budget of {result['budget_device_seconds']:g} CPU-seconds, {result['processors']} CPUs")
    for column in ("", "CPU-seconds", "of the budget"):
        table.add_column(column, justify="left" if not column else "right")
    budget = result["budget_device_seconds"]
    for kind, share in result["share_by_kind"].items():
        table.add_row(kind, f"{share * budget:.1f}", f"{share:.1%}")
    table.add_section()
    table.add_row("spent, by the ledger", f"{result['spent_device_seconds']:.1f}", f"{result['spent_share']:.1%}")
    held = result["held_device_seconds"]
    table.add_row("held, by the observer", f"{held:.1f}", f"{held / budget:.1%}")
    table.add_row("disagreement", "", f"{result['disagreement']:+.2%}")
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="5 cpu-minutes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of nasib-ray sweep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    options = parser.parse_args()
    result = measure(options.budget, options.set)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
