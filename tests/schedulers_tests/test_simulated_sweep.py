"""Whole sweeps without Ray."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare, halving_without_horizon
from schedulers.selection import WithSelection
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.faulty_simulation import Faults, FaultySimulation
from tests.schedulers_tests.simulation import Simulation, World, quality_of


def halving(world: World) -> AsyncHalving:
    if world.told:
        return AsyncHalving()
    return halving_without_horizon(world.max_t)


def lump(world: World) -> float:
    """Device-seconds of one epoch on every slot with all that a grant of its own takes."""
    overhead = max(5.0, 1.5 * world.boot_seconds + 1.0) + 3.0 + 3 * world.save_seconds
    return world.slots * world.devices * (overhead + 1.2 * world.epoch)


WORLDS = st.builds(
    World,
    slots=st.integers(1, 6),
    devices=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    epoch=st.floats(2.0, 60.0),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
    boot_seconds=st.floats(1.0, 10.0),
    save_seconds=st.floats(0.05, 3.0),
    stop_seconds=st.floats(0.05, 0.5),
    reuse=st.booleans(),
    told=st.booleans(),
    max_t=st.sampled_from([1, 4, 27, 1000]),
    searches=st.sampled_from([1, 3, 8]),
    limit=st.none() | st.integers(1, 6),
    seed=st.integers(0, 1000),
)


ONE_LONG_EPOCH = World(
    slots=3,
    devices=0.25,
    epoch=11.0,
    jitter=0.0,
    boot_seconds=3.0,
    save_seconds=1.0,
    stop_seconds=0.5,
    reuse=False,
    limit=1,
)


@settings(max_examples=30, deadline=None)
@given(WORLDS, st.floats(0.1, 25.0))
@example(replace(ONE_LONG_EPOCH, searches=1), 1.0)
def test_halving_stays_within_any_budget_and_leaves_less_than_another_slice(world: World, lumps: float) -> None:
    budget = lumps * lump(world)
    simulation = Simulation(world, budget, halving(world))
    state = simulation.run()
    assert simulation.most <= budget + 1e-4
    assert simulation.held <= state.ledger.spent + 1e-3, "an outside observer sees no more than is charged"
    assert state.ledger.grants == {}
    assert all(search.state != "running" for search in state.searches.values())
    unfinished = any(search.unfinished for search in state.searches.values())
    if world.limit is not None:
        assert len(state.searches) <= world.limit
    if state.full_horizon is not None and (unfinished or world.limit is None):
        view = simulation.core.view(world.slots, [], [])
        slowest = max(search.slowest_seconds for search in state.searches.values())
        assert view.free / world.devices < view.overhead_seconds + 2 * 1.1 * slowest + 0.01
    if lumps >= 20 and world.limit is None:
        assert state.ledger.spent >= 0.95 * budget


@pytest.mark.parametrize(
    ("slots", "budget", "epoch", "epochs"), [(1, 130.0, 60.0, 1), (1, 150.0, 55.0, 2), (2, 240.0, 70.0, 2)]
)
def test_a_small_budget_is_spent_on_what_it_can_do(slots: int, budget: float, epoch: float, epochs: int) -> None:
    world = World(slots=slots, epoch=epoch, jitter=0.0, boot_seconds=10.0, told=False, max_t=27)
    state = Simulation(world, budget, halving(world)).run()
    assert (state.end, sum(search.epochs for search in state.searches.values())) == ("finished", epochs)


@settings(max_examples=30, deadline=None)
@given(WORLDS, st.floats(0.1, 25.0))
def test_equal_shares_stay_within_any_budget(world: World, lumps: float) -> None:
    world = replace(world, told=True)
    budget = lumps * lump(world)
    simulation = Simulation(world, budget, EqualShare(world.searches))
    state = simulation.run()
    assert simulation.most <= budget + 1e-4
    assert state.ledger.grants == {}
    assert len(state.searches) <= world.searches


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_a_long_sweep_uses_its_budget(slots: int, told: bool, reuse: bool) -> None:
    world = World(slots=slots, told=told, reuse=reuse)
    budget = slots * 1_500.0
    simulation = Simulation(world, budget, halving(world))
    state = simulation.run()
    assert 0.98 * budget <= state.ledger.spent <= budget
    assert state.ledger.spent_by_kind["lost"] <= 0.01 * budget
    assert state.ledger.spent_by_kind["train"] >= (0.85 if told else 0.8 if reuse else 0.45) * budget
    if reuse:
        assert simulation.boots <= slots + simulation.kills + 4, "processes are used again"


@pytest.mark.parametrize("searches", [1, 3, 8])
def test_equal_shares_are_equal_used_and_end_at_their_horizon(searches: int) -> None:
    world = World(jitter=0.02)
    simulation = Simulation(world, 6_000.0, EqualShare(searches))
    state = simulation.run()
    assert state.ledger.spent >= 0.97 * 6_000.0
    assert len(state.searches) == searches
    for search in state.searches.values():
        held = sum(state.ledger.spent_by_trial[search.id].values())
        assert held == pytest.approx(6_000.0 / searches, rel=0.08)
        assert (search.state, search.epochs) == ("finished", search.horizon), "p = k in its last epoch"


@settings(max_examples=30, deadline=None)
@given(WORLDS, st.floats(4.0, 40.0))
def test_every_equal_share_ends_at_its_horizon(world: World, epochs: float) -> None:
    """However short the shares, if only they buy a few epochs."""
    world = replace(world, told=True, reuse=True, limit=None, jitter=0.0)
    budget = world.searches * (lump(world) / world.slots + epochs * world.epoch * world.devices)
    state = Simulation(world, budget, EqualShare(world.searches)).run()
    assert len(state.searches) == world.searches
    assert [search.state for search in state.searches.values()] == ["finished"] * world.searches
    assert [search.epochs for search in state.searches.values()] == [s.horizon for s in state.searches.values()]


@pytest.mark.parametrize("slots", [1, 3])
def test_searches_are_compared_at_one_horizon_and_cut_only_in_the_endgame(slots: int) -> None:
    world = World(slots=slots, epoch=2.0)
    simulation = Simulation(world, 1_500.0 * slots, AsyncHalving())
    state = simulation.run()
    full = state.full_horizon
    assert full is not None
    grants = [record for record in simulation.book.records if record["event"] == "grant"]
    assert {record["horizon"] for record in grants if record["why"] in ("new", "continue")} == {full}
    assert {record["horizon"] for record in grants if record["why"] == "measure"} == {None}
    endgame = [at for at, record in enumerate(grants) if record["why"] == "endgame"]
    assert endgame
    assert all(record["why"] != "new" for record in grants[endgame[0] :]), "no new search begins in the endgame"
    for told in simulation.horizons():
        assert told == sorted(told, reverse=True), "no horizon is ever lengthened"
    finished = [search for search in state.searches.values() if search.state == "finished"]
    assert all(search.epochs == search.horizon for search in finished)
    assert sum(search.epochs == full for search in finished) >= 2, "some searches were run in full"


def test_more_slots_than_searches_make_none_of_them_shorter() -> None:
    few, many = (Simulation(World(slots=slots, epoch=2.0), 4_000.0, AsyncHalving()).run() for slots in (8, 32))
    assert few.full_horizon is not None
    assert many.full_horizon == pytest.approx(few.full_horizon, rel=0.1)
    whole = [search for search in many.searches.values() if search.epochs == many.full_horizon]
    assert len(whole) >= 3, "they were run in full, on some of the slots"
    assert many.ledger.spent > 0.95 * 4_000.0


def test_no_search_is_longer_than_until_the_deadline() -> None:
    world = World(slots=16, epoch=2.0, jitter=0.0, searches=4, deadline=400.0)
    state = Simulation(world, 1e6, AsyncHalving()).run()
    assert state.full_horizon is not None
    assert 150 < state.full_horizon <= 200


@pytest.mark.parametrize("limit", [1, 2, 5, 20])
def test_a_finite_space_has_the_whole_budget_where_horizons_are_told(limit: int) -> None:
    world = World(limit=limit, epoch=2.0)
    simulation = Simulation(world, 3_000.0, AsyncHalving())
    state = simulation.run()
    assert len(state.searches) <= limit
    assert state.ledger.spent >= 0.95 * 3_000.0


def test_a_finite_space_shares_a_small_budget_where_horizons_are_not_told() -> None:
    world = World(limit=8, slots=8, told=False, max_t=100, epoch=2.0)
    state = Simulation(world, 400.0, halving(world)).run()
    assert len(state.searches) == 8
    assert min(search.epochs for search in state.searches.values()) >= 8


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_finite_space_is_run_to_its_end_where_they_are_not(limit: int) -> None:
    world = World(limit=limit, told=False, max_t=27)
    simulation = Simulation(world, 10_000.0, halving(world))
    state = simulation.run()
    assert [(search.state, search.epochs) for search in state.searches.values()] == [("finished", 27)] * limit
    assert state.end_why.startswith("all searches are done")


def test_halving_spends_more_on_what_is_better() -> None:
    simulation = Simulation(World(epoch=2.0, searches=30), 6_000.0, AsyncHalving())
    state = simulation.run()
    ranked = sorted(state.searches.values(), key=lambda search: quality_of(search.index))
    third = len(ranked) // 3
    assert third >= 10
    worst, best = (sum(search.epochs for search in part) for part in (ranked[:third], ranked[-third:]))
    assert best >= 2 * worst


def test_a_month_is_charged_in_full() -> None:
    month = 30 * 86_400.0
    world = World(epoch=7_200.0, boot_seconds=60.0, save_seconds=30.0, slots=2)
    state = Simulation(world, 2 * month, AsyncHalving()).run()
    assert 0.99 * 2 * month <= state.ledger.spent <= 2 * month
    full_search = 2 * month / 8
    late = state.last_time - state.first_time - month
    assert -0.02 * month < late < 0.4 * full_search, "in the endgame a slot may have nothing to do"


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("told", [True, False])
def test_a_month_of_faults_overspends_nothing_and_forgets_nothing(told: bool, seed: int) -> None:
    day = 86_400.0
    world = World(
        slots=4,
        epoch=1_800.0,
        boot_seconds=60.0,
        save_seconds=20.0,
        told=told,
        searches=60,
        seed=seed,
        jitter=0.1,
        devices=0.5,
    )
    budget = 30 * day * world.slots * world.devices
    faults = Faults(death=day / 2, hang=day, nodes=day, driver=1.5 * day)
    simulation = FaultySimulation(world, budget, lambda: halving(world), faults)
    state = simulation.run()
    ledger = state.ledger
    assert min(simulation.struck[fault] for fault in ("death", "hang", "nodes", "driver")) >= 10, simulation.struck
    assert state.last_time - state.first_time >= 30 * day, "slots were missing, so that it took longer"
    assert simulation.most <= budget + 1e-4, "never overspent"
    assert simulation.held <= ledger.spent + 1e-3, "an outside observer sees no more than is charged"
    assert ledger.spent - simulation.held <= 6.0 * world.devices * world.slots * simulation.struck["driver"]
    assert ledger.spent >= 0.97 * budget
    assert (state.end, ledger.grants, simulation.processes) == ("finished", {}, {})
    assert SweepState.replay(None, simulation.book.records) == state
    assert state.runs == simulation.struck["driver"] + 1
    assert set(state.searches) == set(simulation.trials) == set(ledger.spent_by_trial), "every trial is accounted for"
    assert sum(sum(kinds.values()) for kinds in ledger.spent_by_trial.values()) == pytest.approx(ledger.spent)
    assert sum(search.state == "finished" for search in state.searches.values()) >= 3
    for name, search in state.searches.items():
        assert search.state != "running"
        assert search.epochs == simulation.trials[name].epochs


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("searching", [AsyncHalving(), EqualShare(6)], ids=["async-halving", "equal-share"])
@pytest.mark.parametrize("finalists", [0, 3])
def test_a_deadline_binds_as_a_budget_does(searching: Allocator, slots: int, finalists: int) -> None:
    """All is planned for the time that there is, and has come to its end when that is over."""
    hour = 3_600.0
    world = World(slots=slots, epoch=5.0, finalists=finalists)
    makes = [copy.deepcopy(searching) for _ in range(2)]
    allocators = [WithSelection(made, 0.2, finalists) if finalists else made for made in makes]
    by_budget = Simulation(world, hour * slots, allocators[0]).run()
    hurried = Simulation(replace(world, deadline=hour), 100 * hour * slots, allocators[1])
    state = hurried.run()
    assert 0.9 * hour <= hurried.clock.monotonic() <= hour
    if finalists or isinstance(searching, EqualShare):
        assert state.end == "finished"
        assert state.end_why.startswith("all that its deadline left time for is done")
    else:
        assert (state.end, state.end_why) == ("interrupted", "its deadline is near"), (
            "more time would buy more searches"
        )
    assert state.full_horizon == pytest.approx(by_budget.full_horizon, rel=0.05)
    ended = [search for search in state.searches.values() if search.state == "finished"]
    assert all(search.epochs == search.horizon for search in ended)
    assert sum(search.kind == "search" for search in ended) >= 2
    assert sum(search.kind == "select" for search in ended) == finalists
    assert hurried.kills == 0


def test_a_deadline_that_is_far_away_changes_nothing() -> None:
    with_one, without = (
        Simulation(World(deadline=deadline), 3_000.0, AsyncHalving()).run() for deadline in (1e6, None)
    )
    assert with_one.end == without.end == "finished"
    assert with_one.searches == without.searches
