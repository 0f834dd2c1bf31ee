"""Is a sweep better than its controls? Several sweeps with other seeds, each with its controls, all of it trained.

    python benchmarks/controls.py examples/digits.yaml --storage FOLDER
    python benchmarks/controls.py examples/cifar.yaml --storage FOLDER --data CIFAR-10-FOLDER --sweeps 2

Prints test errors and relative improvements over random search, with intervals over sweeps. What came of each sweep is
appended to a file and not run again, so that a study can be interrupted; a sweep that was goes on where it ended.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from json_lines import append_line, read_lines
from rich.console import Console

from nasib_ray.compare import Compared, described_methods, methods_report, read_compared

COMMAND = (sys.executable, "-m", "nasib_ray")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="of the sweeps")
    parser.add_argument("--storage", required=True, type=Path, help="the folder that the sweeps are kept in")
    parser.add_argument("--sweeps", type=int, default=5, help="how many, with the seeds 0, 1, ...; 0: only print")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--data", help="as --data of nasib-ray")
    parser.add_argument("--set", action="append", default=[], help="as --set of nasib-ray, for the sweeps")
    parser.add_argument("--file", type=Path, help="of the results; by default one of the configuration's name")
    options = parser.parse_args()
    told = [part for setting in options.set for part in ("--set", setting)]
    told += [] if options.data is None else ["--data", options.data]
    file = options.file or RESULTS / f"controls-{options.config.stem}.jsonl"
    for seed in range(options.sweeps):
        if any(record["seed"] == seed for record in read_records(file)):
            continue
        name = f"seed-{seed}"
        path = str(options.storage / name)
        place = ("--storage", str(options.storage), "--name", name, "--set", f"seed={seed}")
        subprocess.run([*COMMAND, "sweep", str(options.config), *told, *place, "--controls"], check=True)
        subprocess.run([*COMMAND, "retrain", path, "--controls", "--seeds", str(options.seeds)], check=True)
        record = record_of(*read_compared([path]))
        append_line(file, record)
    records = read_records(file)
    accuracies: dict[str, list[float]] = {}
    for record in records:
        for method, trained in record["methods"].items():
            mean = 1.0 - statistics.fmean(trained["test_errors"])
            accuracies.setdefault(method, []).append(mean)
    methods_report(Console(width=120), described_methods(accuracies), len(records))


def record_of(compared: Compared) -> dict[str, Any]:
    """What came of a sweep and its controls."""
    networks = {
        method: {
            "architecture": list(network.architecture.operations),
            "test_errors": list(network.test_errors),
            "parameters": network.parameters,
            "multiply_adds": network.multiply_adds,
        }
        for method, network in compared.methods.items()
    }
    settings = compared.sweep.state.settings
    kept = {name: settings[name] for name in ("versions",) if name in settings}
    return {"seed": compared.config.seed, "budget": str(compared.config.budget), **kept, "methods": networks}


def read_records(file: Path) -> list[dict[str, Any]]:
    """The sweeps that are done, by seed."""
    return sorted(read_lines(file), key=lambda record: int(record["seed"]))


if __name__ == "__main__":
    main()
