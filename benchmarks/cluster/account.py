"""What became of the sweeps of a cluster drill, by their journals: what was done to them, and that nothing was lost.

    python benchmarks/cluster/account.py FOLDER SWEEP...

Exits with 1 if a trial did not go on from its last checkpoint, an account has a gap, or a cap was exceeded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasib_ray import Sweep, load_sweep
from schedulers.ledger import Ledger


def events_of(file: Path) -> list[tuple[float, str]]:
    """What was done, and when, in Unix seconds."""
    lines = [line.partition(" ") for line in file.read_text().splitlines()]
    return [(float(when), what) for when, _, what in lines]


def problems_of(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a journal must not say."""
    ledger, done = Ledger(), dict[str, int]()
    spent = 0.0
    for number, record in enumerate(records):
        if record["number"] != records[0]["number"] + number:
            yield f"a gap before record {record['number']}"
        ledger.apply(record)
        if ledger.spent + ledger.granted > ledger.budget + 1e-6:
            yield f"record {record['number']}: {ledger.spent} spent and {ledger.granted} promised of {ledger.budget}"
        if ledger.spent < spent - 1e-6:
            yield f"record {record['number']}: {ledger.spent} spent after {spent}"
        spent, trial = ledger.spent, record.get("trial", "")
        match record["event"]:
            case "report":
                expected = done.get(trial, 0) + (record["epoch_seconds"] is not None)
                if record["epochs"] != expected:
                    yield f"record {record['number']}: trial {trial} reports epoch {record['epochs']}, not {expected}"
                done[trial] = record["epochs"]
            case "failure" | "checkpoint-lost":
                done[trial] = record["epochs"]


def story_of(records: Sequence[Mapping[str, Any]], after: float, until: float, lost: dict[str, int]) -> Iterator[str]:
    """What the journal says between two moments: losses, the first reports after them, how a run ended.

    Args:
        records: All of it.
        after: The first moment, Unix seconds, and ``until`` the last one.
        lost: The trials that have not reported again since they were thrown back, with their epochs; kept up.
    """
    for record in records:
        if not after <= record["time"] < until:
            continue
        seconds, trial = record["time"] - after, record.get("trial", "")
        match record["event"]:
            case "run":
                yield f"+{seconds:.0f} s: run {record['run']} begins with {record['slots']} slots"
            case "failure":
                lost[trial] = record["epochs"]
                why = record["why"].partition("(")[0].partition(":")[0]
                yield f"+{seconds:.0f} s: trial {trial} is back at epoch {record['epochs']} ({why})"
            case "report" if trial in lost:
                yield f"+{seconds:.0f} s: trial {trial} goes on from epoch {lost.pop(trial)}"
            case "end":
                yield f"+{seconds:.0f} s: {record['state']}: {record['why']}"


def tell(sweep: Sweep, events: Sequence[tuple[float, str]]) -> list[str]:
    """Print a table of a sweep's drill; returns its problems."""
    records, ledger = sweep.records(), sweep.state.ledger
    begin, lost = events[0][0], dict[str, int]()
    print("\n| at | done | the journal |\n|---:|---|---|")
    for (when, what), (then, _) in zip(events, [*events[1:], (float("inf"), "")], strict=True):
        print(f"| {when - begin:.0f} s | {what} | {'<br>'.join(story_of(records, when, then, lost))} |")
    checkpoints = sum(record["event"] == "checkpoint" for record in records)
    best = sweep.state.selected or sweep.state.incumbent
    print(
        f"\n{len(sweep.state.searches)} trials, {checkpoints} checkpoints, {sweep.state.runs} runs; "
        f"{ledger.spent:.1f} of {ledger.budget:.0f} CPU-seconds spent, of which {ledger.spent_by_kind['lost']:.1f} lost"
    )
    print(f"found: {', '.join(best.latest['architecture']) if best else 'nothing'}")
    problems = list(problems_of(records))
    if sweep.state.end != "finished":
        problems.append(f"it ended as {sweep.state.end!r}: {sweep.state.end_why}")
    if best is None:
        problems.append("nothing was found")
    return problems


def main() -> None:
    """Tell of every sweep."""
    folder, *names = sys.argv[1:]
    problems = []
    for name in names:
        sweep = load_sweep(Path(folder, "shared", name))
        problems += [f"{name}: {problem}" for problem in tell(sweep, events_of(Path(folder, f"{name}.events")))]
    well = "every trial went on from its last checkpoint, no account has a gap, no cap was exceeded"
    print("\n" + ("\n".join(problems) or well))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
