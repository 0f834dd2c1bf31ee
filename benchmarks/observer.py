"""Watch a Ray cluster from outside: how much device-time created placement groups hold.

Started as a process of its own, so that it shares nothing with the meter that it checks. Prints one JSON object when
its standard input is closed: ``held_device_seconds``, ``polls``, ``longest_gap_seconds``. With ``--series FILE`` it
also writes there, at every poll, unix seconds and the devices held then.
"""

from __future__ import annotations

import argparse
import json
import logging
import select
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import ray

POLL_SECONDS = 0.1


def held_now(resource: str) -> float:
    """Devices that are held by created placement groups."""
    groups = ray.util.placement_group_table().values()
    bundles = [bundle for group in groups if group["state"] == "CREATED" for bundle in group["bundles"].values()]
    return float(sum(bundle.get(resource, 0.0) for bundle in bundles))


def watch(resource: str, series: TextIO | None) -> dict[str, float]:
    """Integrate until standard input is closed, rounding neither up nor down: by the trapezoid rule."""
    total, longest, polls = 0.0, 0.0, 0
    before, held = time.monotonic(), held_now(resource)
    if series is not None:
        print(time.time(), held, file=series)
    while True:
        ended = bool(select.select([sys.stdin], [], [], POLL_SECONDS)[0])
        after, now = time.monotonic(), held_now(resource)
        total += (held + now) / 2 * (after - before)
        if series is not None:
            print(time.time(), now, file=series)
        longest, polls = max(longest, after - before), polls + 1
        before, held = after, now
        if ended:
            return {"held_device_seconds": total, "polls": polls, "longest_gap_seconds": longest}


def main() -> None:
    """Attach to a cluster and watch it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the cluster")
    parser.add_argument("--resource", default="CPU", help="the device, by Ray's name")
    parser.add_argument("--series", type=Path, help="where to write what is held over time")
    options = parser.parse_args()
    ray.init(address=options.address, logging_level=logging.ERROR, log_to_driver=False)
    print("watching", flush=True)
    with open(options.series, "w", buffering=1) if options.series else nullcontext() as series:
        print(json.dumps(watch(options.resource, series)), flush=True)


if __name__ == "__main__":
    main()
