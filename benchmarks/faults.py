"""Fault drills: sweeps on real Ray clusters, with something killed, filled, cut or taken away in the middle.

    python benchmarks/faults.py --drills 110 --seed 0 --json faults.json --log faults.jsonl

Every drill runs a small sweep in processes of its own, brings about one fault at a random moment, resumes the sweep if
it ended, and compares ledger, trials and budget with what outside processes saw. With ``--log FILE`` each outcome is
appended there, and drills that it has already are not played again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from drills.faults import FAULTS, TRAINABLES
from drills.play import Outcome, scene_of
from drills.stage import Scene
from json_lines import append_line, read_lines
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LONGEST_SECONDS = 600


def run(scene: Scene) -> Outcome:
    """Play a scene in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.drills.play", json.dumps(asdict(scene))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
        return Outcome(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        why = f"it took longer than {LONGEST_SECONDS} s"
    except (IndexError, ValueError):
        why = f"the drill broke: {done.stderr[-500:]}"
    return Outcome(asdict(scene), 0.0, 0.0, 0.0, 0.0, 0.0, scene.budget, why, [], None, 0.0)


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """What came of drills."""
    waits = [outcome.seconds_until_work for outcome in outcomes if outcome.seconds_until_work is not None]
    return {
        "drills": len(outcomes),
        "overspends": sum(outcome.overspent for outcome in outcomes),
        "unfinished": sum(bool(outcome.unfinished) for outcome in outcomes),
        "lost_trials": sum(len(outcome.lost_trials) for outcome in outcomes),
        "seconds_until_work": median(waits) if waits else None,
        "longest_seconds_until_work": max(waits, default=None),
        "lost_device_seconds": median(outcome.lost for outcome in outcomes),
        "cautious_device_seconds": median(outcome.cautious for outcome in outcomes),
        "unseen_device_seconds": median(outcome.unseen for outcome in outcomes),
        "max_disagreement": max(abs(outcome.disagreement) for outcome in outcomes),
        "least_disagreement": min(outcome.disagreement for outcome in outcomes),
        "largest_share_held": max(outcome.held / outcome.budget for outcome in outcomes),
    }


def show(parts: dict[str, dict[str, Any]], whole: dict[str, Any], console: Console) -> None:
    """Print a line for each fault."""
    columns = (
        "fault",
        "drills",
        "over",
        "unfin.",
        "lost trials",
        "work again, s",
        "lost",
        "cautious",
        "disagree",
        "held",
    )
    table = Table(*columns, title="fault drills", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for fault, part in [*parts.items(), ("all", whole)]:
        wait, longest = part["seconds_until_work"], part["longest_seconds_until_work"]
        table.add_row(
            fault,
            *(str(part[name]) for name in ("drills", "overspends", "unfinished", "lost_trials")),
            "" if wait is None else f"{wait:.1f} ({longest:.1f})",
            *(f"{part[name]:.1f}" for name in ("lost_device_seconds", "cautious_device_seconds")),
            f"{part['max_disagreement']:.1%}",
            f"{part['largest_share_held']:.0%}",
            end_section=fault == [*parts][-1],
        )
    table.caption = (
        "work again: seconds from the fault to the first report on a later grant, median (longest); lost, cautious: "
        "device-seconds, median; disagree: largest between ledger and observer, cautious charges taken out; held: "
        "largest share of the budget that the observer saw held"
    )
    console.print(table)


def main() -> int:
    """Play the drills; 1 if one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drills", type=int, default=110, metavar="N", help="so many in all, faults in turn")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--faults", nargs="+", default=[*FAULTS], choices=[*FAULTS], metavar="FAULT", help="only these")
    parser.add_argument(
        "--trainables", nargs="+", default=[*TRAINABLES], choices=TRAINABLES, metavar="NAME", help="only with these"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at once")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep each outcome, and go on with those of before")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    options = parser.parse_args()
    known = {}
    for record in read_lines(options.log) if options.log is not None else []:
        known[json.dumps(record["scene"])] = Outcome(**record)
    console = Console(width=None if Console().is_terminal else 130)

    def played(number: int) -> Outcome:
        fault = options.faults[number % len(options.faults)]
        scene = scene_of(fault, options.seed * 1000 + number // len(options.faults), options.trainables)
        if (before := known.get(json.dumps(asdict(scene)))) is not None:
            return before
        outcome = run(scene)
        if options.log is not None:
            append_line(options.log, asdict(outcome))
        wrong = [outcome.unfinished, *outcome.lost_trials, "overspent" if outcome.overspent else ""]
        told = "; ".join(filter(None, wrong)) or "well"
        kind = f"{scene.trainable}, {'own Ray' if scene.own else 'cluster'}, {scene.slots} slots, seed {scene.seed}"
        console.print(f"{fault} ({kind}): {told}; {outcome.seconds:.0f} s, {outcome.disagreement:+.1%}", markup=False)
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(played, range(options.drills)))
    by_fault = defaultdict(list)
    for outcome in outcomes:
        by_fault[outcome.scene["fault"]].append(outcome)
    parts, whole = {fault: summary(of_fault) for fault, of_fault in by_fault.items()}, summary(outcomes)
    show(parts, whole, console)
    if options.json is not None:
        machine = {"machine": platform.platform(), "python": platform.python_version(), "seed": options.seed}
        options.json.write_text(json.dumps({**whole, "faults": parts, **machine}, indent=2) + "\n")
    return int(any(whole[name] for name in ("overspends", "unfinished", "lost_trials")))


if __name__ == "__main__":
    sys.exit(main())
