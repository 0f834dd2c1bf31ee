"""The simulator and a real Ray take the same decisions on the same small workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, halving_without_horizon
from schedulers.budget import Budget
from schedulers.journal_replay import read_journal
from schedulers.rules import Rules
from schedulers.search_record import Kind
from schedulers.simulated_world import World
from schedulers.simulator import Simulator
from schedulers.workload import Learner, Workload
from tests.schedulers_tests.budgeted_sweep import Script
from tests.schedulers_tests.conftest import MemoryBook

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

SECONDS = 0.1
QUALITIES = [0.5, 0.1, 0.9, 0.3, 0.8, 0.2, 0.95, 0.6, 0.4]


class Rising(Learner):
    """Learns as the real Trainables of these tests do."""

    def __init__(self, x: float) -> None:
        self._x = x
        self._epochs = 0

    def epoch_seconds(self) -> float:
        return SECONDS

    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        self._epochs += 1
        return {"value": self._x * (1 - 0.8**self._epochs)}


class Given(Workload):
    """One trial for each x."""

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        return ({"x": QUALITIES[number]}, Rising(QUALITIES[number])) if number < len(QUALITIES) else None


def decisions(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, int | None, str]]:
    """Every slice that was granted: which trial, for how many epochs, under which horizon, and why."""
    index = {record["trial"]: record["index"] for record in records if record["event"] == "search"}
    grants = [record for record in records if record["event"] == "grant"]
    return [(index[grant["trial"]], grant["epochs"], grant["horizon"], grant["why"]) for grant in grants]


def simulated(allocator: Allocator, budget: float, told: bool, full_epochs: int) -> list[Any]:
    rules = Rules(devices=1.0, metric="value", full_epochs=full_epochs, searches=8, horizon_told=told, slice_told=told)
    sweep = Simulator(World(slots=1), Given(), allocator, Budget(budget, "cpu"), rules)
    book = MemoryBook(sweep.clock, [])
    sweep.drive(allocator, book)
    sweep.run()
    return decisions(book.records)


@pytest.mark.parametrize("rule", ["queued", "at-once"])
def test_they_grant_the_same_slices_in_the_same_order(ray_address: str, tmp_path: Path, rule: str) -> None:
    def allocator() -> Allocator:
        if rule == "queued":
            return halving_without_horizon(12)
        # Another horizon would be planned from what is left of the budget.
        return AsyncHalving(replan=False)

    told = rule == "at-once"
    terms: dict[str, Any] = {"allocator": allocator(), "max_concurrent": 1, "full_epochs": 12}
    if told:
        terms |= {"horizon_key": "horizon", "slice_key": "slice_seconds"}
    # More than all of it takes, so that no decision hangs on how fast this machine happens to be.
    budget = 600.0
    model = "Told" if told else "Reusable"
    script = Script(
        model, f"{budget} cpu-seconds", str(tmp_path), address=ray_address, space={"x": QUALITIES}, terms=terms
    )
    script.run()
    folder = str(tmp_path / script.name / "journal")
    real = decisions(read_journal(fs.LocalFileSystem(), folder, from_start=True).records)
    assert len(real) > len(QUALITIES)
    assert real == simulated(allocator(), budget, told, 12)
