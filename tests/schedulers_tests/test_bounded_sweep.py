"""Sweeps under a bound on storage and under a deadline, in a real Ray."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from pyarrow.fs import LocalFileSystem
from ray.util import placement_group_table

from schedulers import SweepState, read_journal
from tests.schedulers_tests.budgeted_sweep import Script

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

MB = 1_000_000


@pytest.fixture
def script(ray_address: str, tmp_path: Path) -> Script:
    return Script("Heavy", "24 cpu-seconds", str(tmp_path), address=ray_address, terms={"max_t": 16})


def checkpoint_bytes(script: Script) -> dict[Path, int]:
    """What each checkpoint takes on disk."""
    sizes: dict[Path, int] = {}
    for file in Path(script.storage, script.name).glob("*/checkpoint_*/*"):
        try:
            sizes[file.parent] = sizes.get(file.parent, 0) + file.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


class Watch:
    """Looks at the folder from outside while a sweep runs."""

    def __init__(self, script: Script) -> None:
        self.most = self.looks = 0
        self._script = script
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, sum(checkpoint_bytes(self._script).values()))
            self.looks += 1

    @contextmanager
    def looking(self) -> Iterator[Watch]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()


def check_disk(script: Script, state: SweepState) -> None:
    """The journal knows what is on disk, and nothing else is."""
    folder = Path(script.storage, script.name)
    known = {folder / made.path: made.bytes for search in state.searches.values() for made in search.checkpoints}
    assert checkpoint_bytes(script) == known
    assert state.stored_bytes == sum(known.values())
    for search in state.searches.values():
        assert search.given_up == []
        assert search.state != "not resumable" or search.checkpoints == []
        assert search.state != "paused" or search.checkpoints


def check_the_worst_went(script: Script) -> None:
    """Whoever lost its weights was no better than any other paused search, whose process was gone, at that moment."""
    journal = f"{script.storage}/{script.name}/journal"
    state = SweepState()
    for record in read_journal(LocalFileSystem(), journal, from_start=True).records:
        searches = state.searches.values()
        if record["event"] == "weights-dropped" and len(state.searches[record["trial"]].checkpoints) == 1:
            others = [other for other in searches if other.state == "paused" and other.checkpoints and not other.grant]
            values = [other.best_value for other in others if other.best_value is not None]
            mine = state.searches[record["trial"]]
            # Where a checkpoint is the result, those of finished trials go when there are no others.
            assert all((mine.best_value or 0.0) <= value for value in values) or mine.state == "finished"
        state.apply(record)


def test_checkpoints_never_take_more_than_their_bound(script: Script) -> None:
    bounded = replace(script, terms={**script.terms, "max_storage_bytes": 6 * MB})
    with Watch(bounded).looking() as watch:
        state = bounded.run()
    assert state.end == "finished"
    assert watch.looks > 100
    assert 4 * MB < watch.most <= 6 * MB
    check_disk(bounded, state)
    given_up = [search for search in state.searches.values() if search.state == "not resumable"]
    assert len(given_up) >= 3, "or this has tested nothing"
    assert all(search.curve and search.best_value is not None for search in given_up)
    incumbent = state.incumbent
    assert incumbent is not None
    assert incumbent.checkpoints
    check_the_worst_went(bounded)

    again = replace(bounded, budget="36 cpu-seconds")
    with Watch(again).looking() as watch:
        later = again.run()
    assert watch.most <= 6 * MB
    assert (later.runs, later.end) == (2, "finished")
    check_disk(again, later)
    for search in given_up:
        after = later.searches[search.id]
        assert (after.state, after.epochs, after.curve) == ("not resumable", search.epochs, search.curve)


def test_a_bound_that_is_too_small_fails_the_sweep_and_deletes_nothing(script: Script) -> None:
    small = replace(script, terms={**script.terms, "max_storage_bytes": 3 * MB})
    state = small.run()
    assert state.end == "failed"
    assert "max_storage is 3 MB" in state.end_why
    told = re.search(r"([\d.]+) MB would do", state.end_why)
    assert told is not None
    assert state.ledger.spent < 20, "as soon as a checkpoint is there"
    saved = checkpoint_bytes(small)
    assert saved

    wide = replace(script, terms={**script.terms, "max_storage_bytes": int(float(told[1]) * MB)})
    later = wide.run()
    assert (later.end, later.runs) == ("finished", 2)

    narrow = replace(small, budget="40 cpu-seconds")
    before = checkpoint_bytes(narrow)
    assert narrow.run().end == "failed"
    assert checkpoint_bytes(narrow) == before


def check_nothing_is_held(state: SweepState) -> None:
    assert state.ledger.grants == {}
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())
    until = time.monotonic() + 2
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, "a process holds on"
        time.sleep(0.05)  # Nodes report what they have several times a second.


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 1.5])
def test_a_sweep_is_saved_and_gone_before_its_deadline(script: Script, seconds: float) -> None:
    """Also if a step takes a while, which cannot be interrupted."""
    deadline = time.time() + 30
    slow = replace(script, model="Reusable", budget="20 cpu-minutes", space={"seconds": seconds})
    state = replace(slow, terms={"max_t": 1000, "deadline": deadline}).run()
    assert deadline - 16 < time.time() < deadline
    assert (state.end, state.end_why) == ("interrupted", "its deadline is near")
    assert state.deadline == deadline
    check_nothing_is_held(state)
    assert state.ledger.spent_by_kind["lost"] == 0.0
    for search in state.searches.values():
        assert search.epochs == (search.checkpoints[-1].epochs if search.checkpoints else 0)
    assert any(search.epochs for search in state.searches.values())

    with pytest.raises(ValueError, match="has passed"):
        replace(slow, terms={"max_t": 1000, "deadline": deadline - 30}).run()
    later = replace(slow, budget=f"{state.ledger.spent + 30} cpu-seconds", terms={"max_t": 1000})
    after = later.run()
    assert (after.runs, after.end, after.deadline) == (2, "finished", None)
    for name, search in state.searches.items():
        assert after.searches[name].epochs >= search.epochs


def test_a_step_that_never_returns_is_killed_at_the_deadline(script: Script) -> None:
    """The first step, whose grant is large, as nobody knows yet how long one takes."""
    deadline = time.time() + 20
    never = replace(script, model="Hangs", budget="20 cpu-minutes", space={"good_steps": 0})
    state = replace(never, terms={"max_t": 16, "deadline": deadline}).run()
    assert deadline - 3 < time.time() < deadline + 2
    assert (state.end, state.end_why) == ("interrupted", "its deadline is near")
    check_nothing_is_held(state)
    assert state.ledger.spent_by_kind["lost"] > 0
    assert {search.state for search in state.searches.values()} == {"paused"}
