from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.search_record import CheckpointRecord, SearchRecord
from schedulers.sweep_state import SweepState


def numbered(*records: dict[str, Any]) -> list[dict[str, Any]]:
    """Records as the journal completes them."""
    return [{**record, "number": at, "time": 1000.0 + at, "run": 1} for at, record in enumerate(records, 1)]


def sweep(mode: str = "max") -> dict[str, Any]:
    return {"event": "sweep", "metric": "value", "mode": mode, "device": "cpu", "devices_per_trial": 1.0}


def budget(amount: float = 100.0) -> dict[str, Any]:
    return {"event": "budget", "device_seconds": amount, "text": f"{amount} cpu-seconds"}


def search(trial: str, index: int) -> dict[str, Any]:
    return {"event": "search", "trial": trial, "index": index, "config": {"k": 0.1 * (index + 1)}}


def grant(trial: str, name: str, epochs: int = 2, horizon: int | None = 8, amount: float = 10.0) -> dict[str, Any]:
    named = {"event": "grant", "grant": name, "trial": trial, "amount": amount}
    return {**named, "epochs": epochs, "horizon": horizon, "why": "new"}


def charge(trial: str, name: str, amount: float) -> dict[str, Any]:
    return {"event": "charge", "grant": name, "trial": trial, "kind": "train", "amount": amount}


def report(trial: str, epochs: int, value: float | None, seconds: float | None = 1.0) -> dict[str, Any]:
    metrics = {"value": value, "epochs": epochs}
    return {
        "event": "report", "trial": trial, "epochs": epochs, "value": value, "epoch_seconds": seconds,
        "metrics": metrics,
    }  # fmt: skip


def checkpoint(trial: str, epochs: int) -> dict[str, Any]:
    return {"event": "checkpoint", "trial": trial, "path": f"{trial}/{epochs}", "epochs": epochs, "iteration": epochs}


def release(trial: str, name: str) -> dict[str, Any]:
    return {"event": "release", "grant": name, "trial": trial, "amount": 0.0}


def moved(trial: str, state: str, why: str = "slice ended") -> dict[str, Any]:
    return {"event": "state", "trial": trial, "state": state, "why": why}


def failure(trial: str, epochs: int) -> dict[str, Any]:
    return {"event": "failure", "trial": trial, "epochs": epochs, "why": "boom"}


STORY = numbered(
    sweep(), budget(), {"event": "run", "slots": 2},
    search("a", 0), grant("a", "g0", 1, None), search("b", 1), grant("b", "g1", 1, None),
    charge("a", "g0", 4.0), {"event": "timing", "boot_seconds": 3.0}, report("a", 1, 0.5),
    {"event": "plan", "epoch_device_seconds": 1.0, "full_horizon": 8},
    checkpoint("a", 1), {"event": "timing", "save_seconds": 0.2}, moved("a", "paused"),
    charge("b", "g1", 5.0), failure("b", 0), moved("b", "failed", "boom"), release("b", "g1"), release("a", "g0"),
    grant("a", "g2", 3, 8), report("a", 2, 0.6), report("a", 3, 0.55), checkpoint("a", 3), charge("a", "g2", 3.0),
    {"event": "relabel", "trial": "a", "from": "train", "to": "setup", "amount": 1.0},
    report("a", 4, 0.7), failure("a", 3), moved("a", "paused", "boom"), release("a", "g2"),
    {"event": "end", "state": "interrupted", "why": "it was told to stop"},
)  # fmt: skip


def test_the_story_of_a_sweep() -> None:
    state = SweepState.replay(None, STORY)
    assert list(state.searches) == ["a", "b"]
    a, b = state.searches.values()
    assert (a.state, a.epochs, a.target, a.horizon, a.failures, a.grant, a.why) == ("paused", 3, 4, 8, 1, None, "boom")
    assert a.checkpoints == [CheckpointRecord("a/1", 1, 1), CheckpointRecord("a/3", 3, 3)]
    assert a.config == {"k": 0.1}
    assert (b.state, b.epochs, b.failures, b.unfinished) == ("failed", 0, 1, False)
    assert (state.epoch_device_seconds, state.full_horizon) == (1.0, 8)
    assert (state.boot_seconds, state.save_seconds, state.runs, state.booked) == (3.0, 0.2, 1, 3)
    assert (state.end, state.end_why) == ("interrupted", "it was told to stop")
    assert (state.first_time, state.last_time, state.last_number) == (1001.0, 1000.0 + len(STORY), len(STORY))
    assert state.ledger.spent == 12.0
    assert state.ledger.granted == 0.0
    assert state.settings["device"] == "cpu"


def test_a_record_that_comes_twice_counts_once() -> None:
    once, twice = SweepState.replay(None, STORY), SweepState()
    for number, record in enumerate(STORY):
        for again in STORY[max(0, number - 3) : number + 1]:
            twice.apply(again)
        twice.apply(record)
    assert twice == once


@pytest.mark.parametrize("at", range(len(STORY) + 1))
def test_a_snapshot_anywhere_and_the_rest_give_the_same_state(at: int) -> None:
    text = json.dumps(SweepState.replay(None, STORY[:at]).to_json())
    assert SweepState.replay(json.loads(text), STORY[at:]) == SweepState.replay(None, STORY)


def test_a_snapshot_of_an_earlier_version_is_read() -> None:
    state = SweepState.replay(None, STORY)
    snapshot = state.to_json()
    snapshot["boot_seconds"] = snapshot.pop("boots")[0]
    for told in snapshot["searches"].values():
        told["epoch_device_seconds_before"] = None
    assert SweepState.from_json(snapshot) == state


def test_a_snapshot_does_not_change_with_the_state() -> None:
    state = SweepState.replay(None, STORY[:12])
    snapshot = state.to_json()
    for record in STORY[12:]:
        state.apply(record)
    assert SweepState.from_json(snapshot) == SweepState.replay(None, STORY[:12])


def test_a_new_run_takes_the_end_back() -> None:
    state = SweepState.replay(None, [*STORY, {"event": "run", "slots": 1, "number": len(STORY) + 1, "time": 2000.0}])
    assert (state.runs, state.end, state.end_why) == (2, "", "")


def test_settings_and_unknown_events_are_kept_and_ignored() -> None:
    known = SweepState.replay(None, STORY)
    later = SweepState.replay(None, [*STORY, {"event": "anything", "number": len(STORY) + 1, "time": 1.0}])
    assert later.searches == known.searches
    assert later.ledger == known.ledger


def run_of(*records: dict[str, Any], mode: str = "max") -> SearchRecord:
    state = SweepState.replay(None, numbered(sweep(mode), budget(), search("a", 0), grant("a", "g0"), *records))
    return state.searches["a"]


def test_values_after_a_crash_replace_those_that_were_lost() -> None:
    a = run_of(report("a", 1, 0.1), report("a", 2, 0.9), report("a", 3, 0.3), failure("a", 1), report("a", 2, 0.2))
    assert a.curve == [(1, 0.1), (2, 0.2)]
    assert (a.epochs, dict(a.curve).get(2), dict(a.curve).get(3)) == (2, 0.2, None)
    assert (a.best_value, a.best_metrics["epochs"]) == (0.9, 2), "the best value that was seen stays the best"


def test_a_report_without_a_value_is_the_latest_but_not_ranked() -> None:
    a = run_of(report("a", 1, 0.5), report("a", 1, None, None))
    assert a.curve == [(1, 0.5)]
    assert a.latest == {"value": 0.5, "epochs": 1}, "what a part of an epoch leaves open is as after the last whole one"
    assert a.epoch_seconds == [1.0]


def test_three_epoch_times_and_the_slowest_are_kept() -> None:
    a = run_of(*(report("a", epoch, 0.5, seconds) for epoch, seconds in enumerate([9.0, 1.0, 2.0, 3.0], 1)))
    assert (a.epoch_seconds, a.slowest_seconds) == ([1.0, 2.0, 3.0], 9.0)


def test_two_checkpoints_are_kept_and_a_damaged_one_is_dropped() -> None:
    lost = {"event": "checkpoint-lost", "trial": "a", "path": "a/3", "epochs": 2, "why": "a/3 is empty"}
    made = [checkpoint("a", epochs) for epochs in (1, 2, 3)]
    assert [kept.epochs for kept in run_of(*made).checkpoints] == [2, 3]
    a = run_of(*made, lost)
    assert ([kept.epochs for kept in a.checkpoints], a.epochs, a.why) == ([2], 2, "a/3 is empty")


def test_a_checkpoint_ends_a_row_of_failures() -> None:
    assert run_of(failure("a", 0), failure("a", 0)).failures == 2
    assert run_of(failure("a", 0), failure("a", 0), checkpoint("a", 1)).failures == 0


def test_a_late_release_does_not_take_the_next_grant_away() -> None:
    a = run_of(grant("a", "g1"), release("a", "g0"))
    assert a.grant == "g1"


@pytest.mark.parametrize(("mode", "best"), [("max", "b"), ("min", "a")])
def test_the_incumbent_is_the_best_under_the_mode(mode: str, best: str) -> None:
    records = [sweep(mode), budget(), search("a", 0), search("b", 1), search("c", 2)]
    records += [report("a", 1, 0.2), report("b", 1, 0.8), report("a", 2, 0.3), report("b", 2, 0.7)]
    incumbent = SweepState.replay(None, numbered(*records)).incumbent
    assert incumbent is not None
    assert incumbent.id == best


def test_before_the_first_value_there_is_no_incumbent() -> None:
    assert SweepState.replay(None, STORY[:9]).incumbent is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_better(value: float) -> None:
    assert not SweepState(mode="max").better(value, None)
    assert not SweepState(mode="min").better(value, 0.5)


@given(st.lists(st.integers(0, len(STORY) - 1)))
def test_late_and_repeated_deliveries_change_nothing(late: Iterable[int]) -> None:
    state = SweepState.replay(None, STORY)
    for number in late:
        state.apply(STORY[number])
    assert state == SweepState.replay(None, STORY)
