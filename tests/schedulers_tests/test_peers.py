"""Other schedulers' rules decide as those schedulers do."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.schedulers import PopulationBasedTraining as RaysPopulation

from schedulers.curve_table import TableWorkload
from schedulers.peers import AshaStopping, FirstComeFirstServed, HyperBand, MedianStopping, Peer
from schedulers.population import PopulationBasedTraining
from schedulers.search_record import SearchRecord
from schedulers.simulated_world import SimulatedTrial
from tests.schedulers_tests.tables import made_table, swept

MAX_T = 20


def trial_of(name: str) -> Any:
    return Mock(spec=Trial, trial_id=name)


def decisions(peer: Peer, rays: Any, curves: list[list[float]], order: random.Random) -> tuple[list[Any], list[Any]]:
    """Give both the same results, one epoch of any trial that goes on at a time, until they differ.

    Returns:
        What the peer decided, and what Ray's scheduler did: (trial, epochs, whether it goes on).
    """
    rays.set_search_properties("value", "max")
    trials = [trial_of(f"t{index}") for index in range(len(curves))]
    searches = [SearchRecord(f"t{index}", index, {}, "running") for index in range(len(curves))]
    controller = Mock(get_live_trials=lambda: [])
    for trial, search in zip(trials, searches, strict=True):
        rays.on_trial_add(controller, trial)
        peer.moved(search)
    going, ours, theirs = list(range(len(curves))), list[Any](), list[Any]()
    while going and ours == theirs:
        index = order.choice(going)
        search = searches[index]
        search.epochs += 1
        value = curves[index][search.epochs - 1]
        verdict = rays.on_trial_result(controller, trials[index], {"training_iteration": search.epochs, "value": value})
        peer.observe(search, search.epochs, value)
        goes_on = search.epochs < MAX_T and peer.reach(search.id) > search.epochs
        ours.append((search.id, search.epochs, goes_on))
        expected = search.epochs < MAX_T and verdict == TrialScheduler.CONTINUE
        theirs.append((search.id, search.epochs, expected))
        if not goes_on:
            going.remove(index)
    return ours, theirs


CURVES = st.lists(st.lists(st.integers(0, 9).map(float), min_size=MAX_T, max_size=MAX_T), min_size=1, max_size=12)


@given(CURVES, st.sampled_from([1, 2]), st.sampled_from([2, 3, 4]), st.randoms(use_true_random=False))
def test_asha_stops_whom_rays_stops(curves: list[list[float]], grace: int, eta: int, order: random.Random) -> None:
    rays = ASHAScheduler("training_iteration", max_t=MAX_T, grace_period=grace, reduction_factor=eta)
    ours, theirs = decisions(AshaStopping(MAX_T, grace, eta), rays, curves, order)
    assert ours == theirs


@given(CURVES, st.sampled_from([1, 3]), st.randoms(use_true_random=False))
def test_the_median_rule_stops_whom_rays_stops(curves: list[list[float]], grace: int, order: random.Random) -> None:
    rays = MedianStoppingRule("training_iteration", grace_period=grace, min_samples_required=2)
    ours, theirs = decisions(MedianStopping(MAX_T, grace, 2), rays, curves, order)
    assert ours == theirs


class RecordedPopulation(RaysPopulation):  # type: ignore[misc]
    """Ray's scheduler, but that copies are only noted."""

    def __init__(self, interval: int) -> None:
        super().__init__(
            "training_iteration", perturbation_interval=interval, hyperparam_mutations={"k": [0.1]}, log_config=False
        )
        self.copied: tuple[str, int] | None = None

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        copied, winner = self._trial_state[trial], self._trial_state[trial_to_clone]
        self.copied = trial_to_clone.trial_id, winner.last_train_time
        copied.last_perturbation_time, copied.last_train_time = winner.last_perturbation_time, winner.last_train_time


@given(CURVES, st.sampled_from([1, 3]), st.randoms(use_true_random=False), st.integers(0, 99))
def test_a_population_copies_whom_rays_copies(
    curves: list[list[float]], interval: int, order: random.Random, seed: int
) -> None:
    rays, ours = RecordedPopulation(interval), PopulationBasedTraining(MAX_T, len(curves), interval, seed)
    rays.set_search_properties("value", "max")
    random.seed(seed)
    members = [Mock(trial_id=f"m{index}", config={"k": 0.1}, status="RUNNING") for index in range(len(curves))]
    controller = Mock(get_trials=lambda: members)
    remembered, searches, before = dict[str, SimulatedTrial](), list[SearchRecord](), [0] * len(curves)
    ours.trials = remembered

    def begin(index: int) -> SearchRecord:
        search = SearchRecord(f"t{len(remembered)}", len(remembered), {}, "running")
        remembered[search.id] = SimulatedTrial(Mock(), iteration=index)
        ours.moved(search)
        return search

    for index, member in enumerate(members):
        member.is_finished.return_value = False
        member.run_metadata.checkpoint_manager.checkpoint_config.num_to_keep = None
        rays.on_trial_add(controller, member)
        assert ours.enter() is None
        searches.append(begin(index))
    going = list(range(len(curves)))
    while going:
        index = order.choice(going)
        search = searches[index]
        search.epochs += 1
        remembered[search.id].epochs = search.epochs
        trained = before[index] + search.epochs
        if trained == MAX_T:
            going.remove(index)
            members[index].is_finished.return_value = True
            search.state = "finished"
            ours.moved(search)
            continue
        rays.copied, value = None, curves[index][trained - 1]
        rays.on_trial_result(controller, members[index], {"training_iteration": trained, "value": value})
        ours.observe(search, search.epochs, value)
        if ours.reach(search.id) == 0:
            copied = ours.enter()
            assert copied is not None
            winner, epochs = copied.iteration, before[copied.iteration] + copied.epochs
            assert rays.copied == (f"m{winner}", epochs)
            before[index], searches[index] = epochs, begin(index)
        else:
            assert rays.copied is None


def test_hyperband_runs_brackets_of_rays_sizes() -> None:
    table = made_table(epochs=27)
    state = swept(table, HyperBand(27), full_trainings=30, slots=3)
    searches = list(state.searches.values())
    # Li et al. 2018, section 3.2, for R = 27 and eta = 3, in Ray's order.
    assert [search.epochs for search in searches[:4]] == [27] * 4
    second = sorted((search.epochs for search in searches[4:10]), reverse=True)
    assert second == [27, 27, 9, 9, 9, 9]
    third = sorted((search.epochs for search in searches[10:22]), reverse=True)
    assert third == [27, 27, 9, 9] + [3] * 8
    for bracket in (searches[4:10], searches[10:22]):
        at_first_rung = sorted(bracket, key=lambda search: dict(search.curve)[min(s.epochs for s in bracket)])
        assert {search.epochs for search in at_first_rung[: len(bracket) * 2 // 3]} == {min(s.epochs for s in bracket)}


def test_a_bracket_of_hyperband_goes_on_without_those_that_end_early() -> None:
    made = made_table(rows=120, epochs=27)
    curves = [curve[:2] if row % 4 == 0 else curve for row, curve in enumerate(made.curves)]
    state = swept(replace(made, curves=curves), HyperBand(27), full_trainings=20, slots=2)
    whole = [search for search in state.searches.values() if search.epochs == 27]
    short = [search for search in state.searches.values() if len(curves[search.config["row"]]) == 2]
    assert len(whole) >= 5
    assert all(search.epochs <= 2 for search in short)
    assert sum(search.state == "finished" for search in short) > len(short) / 2


@pytest.mark.parametrize("ends", [3, 9])
def test_a_bracket_of_hyperband_goes_on_without_those_that_end_with_it(ends: int) -> None:
    made = made_table(rows=120, epochs=27)
    # Those that end there are the best of their bracket.
    curves = [[*curve[: ends - 1], 2.0] if row % 4 == 0 else curve for row, curve in enumerate(made.curves)]
    state = swept(replace(made, curves=curves), HyperBand(27), full_trainings=30, slots=2)
    searches = list(state.searches.values())
    for bracket in (searches[4:10], searches[10:22]):
        assert any(search.epochs == 27 for search in bracket), "somebody comes to the end of each bracket"


def test_a_bracket_of_hyperband_is_as_large_as_there_are_trials() -> None:
    table = made_table(rows=17, epochs=27)
    state = swept(table, HyperBand(27), full_trainings=17, slots=3)
    bracket = sorted((search.epochs for search in list(state.searches.values())[10:]), reverse=True)
    assert bracket == [27, 27, 9, 9, 3, 3, 3], "7 of 12 trials: the third and then the ninth of 12 go on"


@pytest.mark.parametrize("peer", [AshaStopping, HyperBand, MedianStopping, FirstComeFirstServed])
@pytest.mark.parametrize("slots", [1, 5])
def test_all_use_the_whole_budget(peer: type[Peer], slots: int) -> None:
    table = made_table()
    state = swept(table, peer(table.max_t), full_trainings=15, slots=slots)
    assert state.ledger.spent <= state.ledger.budget
    assert state.ledger.spent >= 0.98 * state.ledger.budget


def test_without_early_stopping_every_trial_comes_to_its_end() -> None:
    table = made_table()
    state = swept(table, FirstComeFirstServed(table.max_t), full_trainings=15, slots=1)
    *ended, last = [search.epochs for search in state.searches.values()]
    assert set(ended) == {table.max_t}
    assert last <= table.max_t


def test_one_seed_is_one_order_of_trials_and_costs() -> None:
    table = made_table()
    one, same, other = (TableWorkload(table, seed) for seed in (0, 0, 1))

    def order(workload: TableWorkload) -> list[tuple[Any, float]]:
        drawn = [workload.draw(number, "search") for number in range(len(table.curves))]
        return [(config["row"], learner.epoch_seconds()) for config, learner in filter(None, drawn)]

    assert order(one) == order(same) != order(other)
    assert sorted(row for row, _ in order(one)) == list(range(len(table.curves)))
    assert one.draw(len(table.curves), "search") is None
    assert one.draw(0, "select") is None
