"""The selection at the end of a sweep, without Ray."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.search_record import SearchRecord
from schedulers.selection import WithSelection
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.simulation import Simulation, World

WORLD = World(slots=3, epoch=10.0, boot_seconds=3.0, finalists=4)


def finalists(state: SweepState) -> list[SearchRecord]:
    return [trial for trial in state.searches.values() if trial.kind == "select"]


def test_the_finalists_come_when_no_search_can_go_on_and_all_reach_the_same_horizon() -> None:
    simulation = Simulation(WORLD, 6000.0, WithSelection(AsyncHalving(), 0.15, 4))
    state = simulation.run()
    competing = finalists(state)
    assert [trial.state for trial in competing] == ["finished"] * 4
    assert {(trial.epochs, trial.horizon) for trial in competing} == {(competing[0].horizon, competing[0].horizon)}
    assert competing[0].epochs > 10
    events = [(record["event"], record.get("kind"), record.get("trial")) for record in simulation.book.records]
    first = next(place for place, (event, kind, _) in enumerate(events) if (event, kind) == ("search", "select"))
    names = {trial.id for trial in competing}
    behind = {trial for event, _, trial in events[first:] if event in ("grant", "report")}
    assert behind == names, "no search runs beside the selection or behind it"
    spent = state.ledger.spent_by_kind
    of_finalists = sum(sum(state.ledger.spent_by_trial[name].values()) for name in names)
    assert spent["select"] == pytest.approx(of_finalists)
    assert 0.09 * 6000 < spent["select"] < 0.2 * 6000
    assert spent["train"] > 0.7 * 6000
    assert simulation.most <= 6000 + 1e-4
    assert state.end_why.startswith("the selection is over")


def test_full_searches_are_planned_with_what_the_selection_leaves() -> None:
    horizons = [
        Simulation(WORLD, 6000.0, allocator).run().full_horizon or 0
        for allocator in (AsyncHalving(), WithSelection(AsyncHalving(), 0.5, 4))
    ]
    assert horizons[1] == pytest.approx(horizons[0] / 2, abs=1)


@pytest.mark.parametrize("comparing", [5.0, 40.0, 80.0])
@pytest.mark.parametrize("searching", [AsyncHalving(), EqualShare(4)], ids=["async-halving", "equal-share"])
def test_what_searches_measure_cuts_neither_them_nor_finalists(comparing: float, searching: Allocator) -> None:
    for slots in (1, 3):
        world = replace(WORLD, slots=slots, comparing=comparing, jitter=0.02)
        simulation = Simulation(world, 6000.0, WithSelection(copy.deepcopy(searching), 0.2, 4))
        state = simulation.run()
        assert simulation.cuts == simulation.kills == 0
        assert len({trial.horizon for trial in finalists(state)}) == 1
        assert {trial.state for trial in finalists(state)} == {"finished"}
        assert simulation.most <= 6000 + 1e-4


def test_finalists_run_beside_each_other() -> None:
    simulation = Simulation(WORLD, 6000.0, WithSelection(AsyncHalving(), 0.15, 4))
    names = {trial.id for trial in finalists(simulation.run())}
    begun: list[str] = []
    for record in simulation.book.records:
        if record["event"] == "grant" and record["trial"] in names and record["why"] == "select":
            begun.append(record["grant"])
        elif record["event"] == "release" and record["grant"] in begun:
            break
    assert len(begun) == WORLD.slots, "before the first of them came to its end"


def test_the_best_finalist_by_its_last_value_is_selected_and_the_incumbent_stays_a_search() -> None:
    state = Simulation(WORLD, 6000.0, WithSelection(AsyncHalving(), 0.15, 4)).run()
    last = {trial.id: trial.curve[-1][1] for trial in finalists(state)}
    assert state.selected is not None
    assert state.selected.id == max(last, key=lambda name: last[name])
    assert state.incumbent is not None
    assert state.incumbent.kind == "search"


def test_a_budget_of_which_the_share_buys_nothing_is_spent_on_searches() -> None:
    simulation = Simulation(WORLD, 400.0, WithSelection(AsyncHalving(), 0.1, 4))
    plain = Simulation(replace(WORLD, finalists=0), 400.0, AsyncHalving())
    assert simulation.run().ledger.spent_by_kind == plain.run().ledger.spent_by_kind
    assert finalists(simulation.core.state) == []


def test_a_raised_budget_searches_on_and_selects_anew() -> None:
    simulation = Simulation(WORLD, 6000.0, WithSelection(AsyncHalving(), 0.15, 4))
    first = simulation.run()
    searches = len(first.searches) - 4
    simulation.budget = replace(simulation.budget, device_seconds=9000.0)
    simulation.drive(WithSelection(AsyncHalving(), 0.15, 4))
    state = simulation.run()
    competing = finalists(state)
    assert len(competing) == 8
    assert [state.counts(trial) for trial in competing] == [False] * 4 + [True] * 4
    assert len(state.searches) - 8 > searches
    assert state.selected in competing[4:]
    assert simulation.most <= 9000 + 1e-4


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        World,
        slots=st.integers(1, 6),
        devices=st.sampled_from([0.5, 1.0, 2.0]),
        epoch=st.floats(2.0, 60.0),
        jitter=st.sampled_from([0.0, 0.2]),
        boot_seconds=st.floats(1.0, 10.0),
        save_seconds=st.floats(0.05, 3.0),
        reuse=st.booleans(),
        limit=st.none() | st.integers(1, 6),
        finalists=st.integers(1, 5),
        comparing=st.sampled_from([0.0, 1.0, 30.0, 200.0]),
        seed=st.integers(0, 1000),
    ),
    st.floats(100.0, 20000.0),
    st.floats(0.05, 0.5),
    st.booleans(),
)
def test_no_budget_is_exceeded_and_whoever_ends_has_annealed(
    world: World, budget: float, share: float, halving: bool
) -> None:
    searching = AsyncHalving() if halving else EqualShare(8)
    simulation = Simulation(world, budget, WithSelection(searching, share, world.finalists))
    state = simulation.run()
    assert simulation.most <= budget + 1e-4
    assert state.ledger.grants == {}
    for trial in finalists(state):
        assert trial.state != "finished" or trial.epochs == trial.horizon


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_lies_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        WithSelection(AsyncHalving(), share, 4)
