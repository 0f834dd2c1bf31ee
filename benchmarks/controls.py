"""Is a sweep better than its controls? Several sweeps with other seeds, each with its controls, all of it trained.

    python benchmarks/controls.py examples/digits.yaml --storage FOLDER
    python benchmarks/controls.py examples/cifar.yaml --storage FOLDER --data CIFAR-10-FOLDER --sweeps 2

Prints what `nasib-ray compare` says of them: test errors and relative improvements over random search, with intervals
over sweeps. What is done is kept in the folder: the same command again goes on where it ended.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-m", "nasib_ray")


def main() -> None:
    """Run what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="of the sweeps")
    parser.add_argument("--storage", required=True, type=Path, help="the folder that the sweeps are kept in")
    parser.add_argument("--sweeps", type=int, default=5, help="how many, with the seeds 0, 1, ...")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--data", help="as --data of nasib-ray")
    parser.add_argument("--set", action="append", default=[], help="as --set of nasib-ray, for the sweeps")
    options = parser.parse_args()
    told = [part for setting in options.set for part in ("--set", setting)]
    told += [] if options.data is None else ["--data", options.data]
    paths = []
    for seed in range(options.sweeps):
        name = f"seed-{seed}"
        paths.append(str(options.storage / name))
        place = ("--storage", str(options.storage), "--name", name, "--set", f"seed={seed}")
        subprocess.run([*COMMAND, "sweep", options.config, *told, *place, "--controls"], check=True)
        subprocess.run([*COMMAND, "retrain", paths[-1], "--controls", "--seeds", str(options.seeds)], check=True)
    subprocess.run([*COMMAND, "compare", *paths], check=True)


if __name__ == "__main__":
    main()
