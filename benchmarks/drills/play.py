"""One drill: a scene is played, and judged by the journal and by what outside processes saw.

Run as ``python -m benchmarks.drills.play '{"fault": ..., ...}'``; prints the outcome as JSON in its last line.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from schedulers import SearchRecord, SweepState

from .faults import FAULTS
from .stage import DrillFailed, Scene, Stage, played
from .watching import held_device_seconds

ROUNDING = 1.0
"""CPU-seconds by which polls of two processes may be wrong, and that they may take to die on a loaded machine."""


@dataclass(frozen=True)
class Outcome:
    """What came of a drill; amounts are in CPU-seconds.

    Attributes:
        scene: What was played.
        held: What outside processes saw held.
        spent: What the ledger says.
        cautious: What of that was charged for what no driver saw, after one's death.
        unseen: What outside processes saw held between two drivers.
        lost: What was charged as lost besides.
        budget: Of the sweep.
        unfinished: Why the sweep did not end as it should; empty if it did.
        lost_trials: What is wrong with its trials; empty if nothing is.
        seconds_until_work: From the fault to the first report on a grant that was booked after it; None if none came.
        seconds: The drill took so long.
    """

    scene: dict[str, Any]
    held: float
    spent: float
    cautious: float
    unseen: float
    lost: float
    budget: float
    unfinished: str
    lost_trials: list[str]
    seconds_until_work: float | None
    seconds: float

    @property
    def overspent(self) -> bool:
        """Whether more was held than the budget, or than was charged, or than was charged after a driver's death."""
        uncharged = self.held - self.unseen - (self.spent - self.cautious)
        beyond = self.held > self.budget or self.spent > self.budget + 1e-6
        return beyond or uncharged > 3 * ROUNDING or self.unseen > self.cautious + ROUNDING

    @property
    def disagreement(self) -> float:
        """By how much the ledger has more than was held, relative to that; both without what no driver saw."""
        seen = self.held - self.unseen
        return (self.spent - self.cautious) / seen - 1 if seen else 0.0


def scene_of(fault: str, seed: int, trainables: Sequence[str]) -> Scene:
    """What a drill is played with, by its seed, with one of these Trainables if the fault allows."""
    random, known = Random(f"{fault} {seed}"), FAULTS[fault]
    fitting = [name for name in known.trainables if name in trainables] or known.trainables
    trainable, own = random.choice(fitting), random.choice(known.own)
    least, most = known.budget
    # PyTorch takes seconds to import wherever workers are not kept waiting, and a second a search to be built.
    factor = {"nasib": 2.5 if own else 4.0}.get(trainable, 1.0)
    budget = round(factor * random.uniform(least, most), 1)
    return Scene(fault, trainable, own, known.nodes and not own, random.choice(known.slots), budget, seed)


def play(scene: Scene) -> Outcome:
    """Play a scene and judge it."""
    folder, began, unfinished = Path(tempfile.mkdtemp(prefix="nrd", dir="/tmp")), time.time(), ""
    with played(scene, folder) as stage:
        try:
            FAULTS[scene.fault].play(stage)
        except DrillFailed as failure:
            unfinished = str(failure)
        time.sleep(1.0)
        records = stage.records()
        held, unseen = stage.held(), _unseen(stage, records)
        state = SweepState.replay(None, records)
        unfinished = unfinished or _unfinished(state, FAULTS[scene.fault].excused)
        wrong = _wrong_trials(stage, state)
    charged = [record for record in records if record["event"] == "charge"]
    cautious = sum(record["amount"] for record in charged if record.get("unseen"))
    outcome = Outcome(
        scene=asdict(scene),
        held=held,
        spent=state.ledger.spent,
        cautious=cautious,
        unseen=unseen,
        lost=state.ledger.spent_by_kind["lost"] - cautious,
        budget=state.ledger.budget,
        unfinished=unfinished,
        lost_trials=wrong,
        seconds_until_work=_seconds_until_work(records, stage.moment),
        seconds=time.time() - began,
    )
    if not (unfinished or wrong or outcome.overspent):
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _unseen(stage: Stage, records: list[dict[str, Any]]) -> float:
    """What was held between the last charge of each driver and the first record of the next."""
    charges = [record for record in records if record["event"] in ("charge", "run") and not record.get("unseen")]
    gaps = [(before["time"], after["time"]) for before, after in pairwise(charges) if after["run"] > before["run"]]
    return sum(held_device_seconds(*stage.views(), since=begin, until=end) for begin, end in gaps)


def _seconds_until_work(records: list[dict[str, Any]], moment: float) -> float | None:
    booked = set()
    for record in records:
        if record["time"] > moment:
            if record["event"] == "grant":
                booked.add(record["trial"])
            if record["event"] == "report" and record["trial"] in booked:
                return float(record["time"] - moment)
    return None


def _unfinished(state: SweepState, excused: bool) -> str:
    if state.end != "finished":
        return f"the sweep's end is {state.end!r}: {state.end_why}"
    if state.ledger.grants:
        return f"grants are open: {sorted(state.ledger.grants)}"
    failed = {search.id: search.why for search in state.searches.values() if search.state == "failed"}
    return "" if excused or not failed else f"searches failed: {failed}"


def _wrong_trials(stage: Stage, after: SweepState) -> list[str]:
    """What was forgotten, runs under two ids, or went back behind its newest checkpoint."""
    before, wrong = stage.before or SweepState(), []
    for name, search in before.searches.items():
        now = after.searches.get(name)
        if now is None or (now.index, now.config) != (search.index, search.config):
            wrong.append(f"{name} is forgotten")
        elif now.epochs < _kept_epochs(search, stage.scene.fault == "checkpoint-damaged"):
            wrong.append(f"{name} is at {now.epochs} epochs, though {search.checkpoints} were saved")
        elif search.best_value is not None and now.best_value != max(search.best_value, now.best_value or 0.0):
            wrong.append(f"the best value of {name} is forgotten")
    folders = {path.name for path in stage.sweep.iterdir() if path.is_dir()} - {"journal"}
    wrong += [f"the folder {name} is of no trial" for name in sorted(folders - set(after.searches))]
    if [search.index for search in after.searches.values()] != list(range(len(after.searches))):
        wrong.append("searches are numbered twice, or not in order")
    return wrong + [f"{name} is still running" for name, s in after.searches.items() if s.state == "running"]


def _kept_epochs(search: SearchRecord, newest_damaged: bool) -> int:
    kept = [made.epochs for made in search.checkpoints]
    if newest_damaged:
        kept = kept[:-1]
    return kept[-1] if kept else 0


if __name__ == "__main__":
    outcome = play(Scene(**json.loads(sys.argv[1])))
    print(json.dumps(asdict(outcome)))
