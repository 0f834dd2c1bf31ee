from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.ledger import KINDS, Ledger

AMOUNTS = st.floats(0.001, 50.0).map(lambda amount: round(amount, 6))


def grant(name: str = "g0", trial: str = "a", amount: float = 30.0) -> dict[str, Any]:
    return {"event": "grant", "grant": name, "trial": trial, "amount": amount}


def charge(amount: float, kind: str = "train", name: str = "g0", trial: str = "a") -> dict[str, Any]:
    return {"event": "charge", "grant": name, "trial": trial, "kind": kind, "amount": amount}


def relabel(amount: float, source: str, target: str, trial: str = "a") -> dict[str, Any]:
    return {"event": "relabel", "trial": trial, "from": source, "to": target, "amount": amount}


def release(name: str = "g0", trial: str = "a") -> dict[str, Any]:
    return {"event": "release", "grant": name, "trial": trial, "amount": 0.0}


def ledger_of(*records: dict[str, Any], budget: float = 100.0) -> Ledger:
    ledger = Ledger()
    for record in ({"event": "budget", "device_seconds": budget, "text": ""}, *records):
        ledger.apply(record)
    return ledger


def test_a_charge_turns_what_was_granted_into_what_is_spent() -> None:
    ledger = ledger_of(grant(amount=30.0), charge(12.0), charge(3.0, "setup"))
    assert (ledger.spent, ledger.granted, ledger.free) == (15.0, 15.0, 70.0)
    assert ledger.spent_by_kind == {**dict.fromkeys(KINDS, 0.0), "train": 12.0, "setup": 3.0}
    assert ledger.spent_by_trial == {"a": {"train": 12.0, "setup": 3.0}}


def test_a_release_gives_back_what_is_left_and_only_once() -> None:
    ledger = ledger_of(grant(amount=30.0), charge(12.0), release(), release())
    assert (ledger.spent, ledger.granted, ledger.free) == (12.0, 0.0, 88.0)


def test_a_kill_that_came_late_is_charged_beyond_its_grant() -> None:
    ledger = ledger_of(grant(amount=30.0), charge(31.0))
    assert (ledger.spent, ledger.granted, ledger.free) == (31.0, 0.0, 69.0)


def test_a_charge_after_the_release_was_held_all_the_same() -> None:
    ledger = ledger_of(grant(amount=30.0), release(), charge(1.5))
    assert (ledger.spent, ledger.granted, ledger.free) == (1.5, 0.0, 98.5)


def test_grants_of_several_trials_share_the_budget() -> None:
    ledger = ledger_of(grant("g0", "a", 60.0), charge(20.0), grant("g1", "b", 40.0))
    assert (ledger.spent, ledger.granted, ledger.free) == (20.0, 80.0, 0.0)
    with pytest.raises(AssertionError, match=r"1.000 .* exceeds the 0.000 that are free"):
        ledger.apply(grant("g2", "c", 1.0))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (grant("g1", amount=100.1), "exceeds the 70.000"),
        (grant("g1", amount=0.0), "buys nothing"),
        (grant("g0", amount=1.0), "g0 is booked already"),
        (charge(1.0, "rent"), "'rent' is none of the kinds"),
        (charge(-1.0), "would give budget back"),
        (relabel(1.0, "train", "rent"), "'rent' is none of the kinds"),
        (relabel(1.0, "rent", "train"), "'rent' is none of the kinds"),
    ],
)
def test_what_would_break_the_accounts_is_refused(record: dict[str, Any], message: str) -> None:
    ledger = ledger_of(grant("g0", amount=30.0))
    with pytest.raises(AssertionError, match=message):
        ledger.apply(record)


def test_a_relabel_moves_between_kinds_and_changes_no_sum() -> None:
    ledger = ledger_of(grant(), charge(10.0), charge(4.0, "setup"), relabel(3.0, "train", "setup"))
    assert ledger.spent == 14.0
    assert ledger.spent_by_trial["a"] == ledger.unsaved["a"] == {"train": 7.0, "setup": 7.0}


def test_what_is_lost_is_no_longer_unsaved() -> None:
    ledger = ledger_of(grant(), charge(10.0), relabel(10.0, "train", "lost"))
    assert ledger.unsaved["a"]["train"] == 0.0
    assert ledger.spent_by_kind["lost"] == 10.0


def test_a_checkpoint_saves_what_its_trial_held_and_nobody_elses() -> None:
    charges = charge(5.0), charge(6.0, name="g1", trial="b")
    ledger = ledger_of(grant("g0", "a"), grant("g1", "b"), *charges, checkpoint("a/1"), charge(1.0))
    assert ledger.unsaved == {"b": {"train": 6.0}, "a": {"train": 1.0}}


def test_a_raised_budget_frees_the_difference() -> None:
    ledger = ledger_of(grant(amount=100.0), charge(100.0))
    ledger.apply({"event": "budget", "device_seconds": 150.0, "text": ""})
    assert ledger.free == 50.0


def test_records_of_other_events_change_nothing() -> None:
    assert ledger_of({"event": "report", "trial": "a"}, {"event": "end"}) == ledger_of()


@given(st.lists(st.tuples(AMOUNTS, st.lists(st.tuples(st.sampled_from(KINDS), AMOUNTS), max_size=6), st.booleans())))
def test_spent_and_granted_stay_within_the_budget(steps: list[tuple[float, list[tuple[str, float]], bool]]) -> None:
    """Whatever is granted where the ledger allows it, and charged where the grant does."""
    ledger = ledger_of(budget=120.0)
    for number, (amount, charges, released) in enumerate(steps):
        name, trial = f"g{number}", f"t{number % 3}"
        if amount > ledger.free:
            continue
        ledger.apply(grant(name, trial, amount))
        for kind, held in charges:
            ledger.apply(charge(min(held, ledger.grants[name].left), kind, name, trial))
        if released:
            ledger.apply(release(name, trial))
        assert ledger.granted == pytest.approx(sum(open_.left for open_ in ledger.grants.values()), abs=1e-9)
        assert ledger.spent + ledger.granted <= 120.0 + 1e-6
        by_trials = sum(sum(kinds.values()) for kinds in ledger.spent_by_trial.values())
        assert ledger.spent == pytest.approx(by_trials)
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger


def test_a_snapshot_shares_nothing_with_the_ledger() -> None:
    ledger = ledger_of(grant(), charge(10.0))
    snapshot = ledger.to_json()
    ledger.apply(charge(1.0))
    assert Ledger.from_json(snapshot) == ledger_of(grant(), charge(10.0))


def checkpoint(path: str, trial: str = "a") -> dict[str, Any]:
    return {"event": "checkpoint", "trial": trial, "path": path, "epochs": 1, "iteration": 1}


def checkpoint_lost(path: str, trial: str = "a") -> dict[str, Any]:
    return {"event": "checkpoint-lost", "trial": trial, "path": path, "epochs": 0, "why": ""}


def test_a_lost_checkpoint_gives_back_what_it_had_saved_and_only_once() -> None:
    ledger = ledger_of(grant(), charge(5.0), checkpoint("1"), charge(2.0), checkpoint("2"), charge(1.0))
    assert ledger.saved == {"a": {"1": {"train": 5.0}, "2": {"train": 2.0}}}
    for _ in range(2):
        ledger.apply(checkpoint_lost("2"))
        assert ledger.unsaved["a"] == {"train": 3.0}
        assert ledger.saved["a"] == {"1": {"train": 5.0}}
    ledger.apply(checkpoint_lost("1"))
    assert ledger.unsaved["a"] == {"train": 8.0}
    assert ledger.spent == 8.0


def test_what_is_older_than_the_checkpoints_that_are_kept_cannot_be_lost() -> None:
    ledger = ledger_of(grant(), *(part for path in "123" for part in (charge(1.0), checkpoint(path))))
    assert [*ledger.saved["a"]] == ["2", "3"]


def test_a_relabel_reaches_what_a_checkpoint_in_the_midst_of_a_step_has_saved() -> None:
    """Else a crash would lose, or a lost checkpoint take back, what was never held as that kind."""
    ledger = ledger_of(grant(), charge(5.0), checkpoint("1"), charge(1.0), relabel(4.0, "train", "setup"))
    assert ledger.unsaved["a"] == {"train": 0.0, "setup": 1.0}
    assert ledger.saved["a"]["1"] == {"train": 2.0, "setup": 3.0}
    assert ledger.spent_by_trial["a"] == {"train": 2.0, "setup": 4.0}
    ledger.apply(checkpoint_lost("1"))
    assert ledger.unsaved["a"] == ledger.spent_by_trial["a"]


EVENTS = st.one_of(
    st.tuples(st.just("charge"), st.sampled_from(KINDS), AMOUNTS),
    st.tuples(st.just("relabel"), st.permutations(KINDS).map(lambda kinds: tuple(kinds[:2])), st.floats(0.0, 1.0)),
    st.tuples(st.just("checkpoint"), st.none(), st.none()),
    st.tuples(st.just("lost"), st.integers(0, 1), st.none()),
)


@given(st.lists(EVENTS, max_size=40))
def test_what_is_unsaved_or_saved_was_held_as_just_that_kind(steps: list[tuple[str, Any, Any]]) -> None:
    ledger, spent = ledger_of(grant(amount=1.0)), 0.0
    for number, (what, which, amount) in enumerate(steps):
        held = ledger.spent_by_trial.get("a", {})
        match what:
            case "charge":
                ledger.apply(charge(amount, which))
                spent += amount
            case "relabel":
                ledger.apply(relabel(amount * max(0.0, held.get(which[0], 0.0)), *which))
            case "checkpoint":
                ledger.apply(checkpoint(f"{number}"))
            case "lost":
                ledger.apply(checkpoint_lost([*ledger.saved.get("a", {}), "never made"][which - 1]))
        assert ledger.spent == pytest.approx(spent)
        held = ledger.spent_by_trial.get("a", {})
        parts = [ledger.unsaved.get("a", {}), *ledger.saved.get("a", {}).values()]
        for kind in KINDS:
            assert held.get(kind, 0.0) >= -1e-6
            assert sum(part.get(kind, 0.0) for part in parts) <= held.get(kind, 0.0) + 1e-6
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger
