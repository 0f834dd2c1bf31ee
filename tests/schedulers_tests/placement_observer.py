"""What somebody outside sees held: CPUs of created placement groups, asked for every 100 ms.

Run as ``python -m tests.schedulers_tests.placement_observer ADDRESS FILE``; ends when the file is there, and prints
CPU-seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray
from ray.util import placement_group_table


def held_now() -> float:
    """CPUs of all placement groups that are created."""
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    return sum(float(bundle.get("CPU", 0.0)) for group in groups for bundle in group["bundles"].values())


def observe(address: str, end: Path) -> float:
    """CPU-seconds held until the file ``end`` is there."""
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    print("ready", flush=True)
    total, held, before = 0.0, held_now(), time.monotonic()
    while not end.exists():
        time.sleep(0.1)
        held_later, now = held_now(), time.monotonic()
        total += (held + held_later) / 2 * (now - before)
        held, before = held_later, now
    return total


if __name__ == "__main__":
    print(observe(sys.argv[1], Path(sys.argv[2])))
