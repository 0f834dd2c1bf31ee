from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tests.trainables_tests.ends import state_of
from trainables.epoch_plan import Phase
from trainables.nasib import NasibTrainable
from trainables.search import Search
from trainables.settings import Objective
from trainables.supernet import network_with_shared_weights
from trainables.training import LabelledImages, Training, judge
from trainables.training_settings import Recipe

Make = Callable[..., NasibTrainable]


def _part_of(search: Search, phase: Phase) -> LabelledImages:
    return search._labelled(search._parts[phase])


def _run(search: Search) -> Search:
    while not search.finished:
        search.run_batch()
    return search


@pytest.mark.parametrize("objective", get_args(Objective))
def test_what_is_measured_is_a_function_of_the_search_and_changes_nothing_of_it(
    make: Make, tmp_path: Path, objective: str
) -> None:
    measured = make(seed=5, horizon=2, objective=objective)
    reports = [measured.step() for _ in range(2)]
    again = make(seed=5, horizon=2, objective=objective)
    assert [again.step()["objective"] for _ in range(2)] == [report["objective"] for report in reports]
    for report in reports:
        assert (0 <= report["objective"] <= 1) if objective.endswith("accuracy") else report["objective"] < 0
        assert (report["objective_seconds"] > 0) == (objective != "shared-accuracy")
        if objective == "shared-accuracy":
            assert report["objective"] == report["val_accuracy"]
    without = make(seed=5, horizon=2, objective="shared-accuracy")
    for _ in range(2):
        without.step()
    one, other = state_of(measured, tmp_path / "one"), state_of(without, tmp_path / "other")
    assert {name: one[name] for name in one if name != "search"} == {
        name: other[name] for name in other if name != "search"
    }


def test_a_fine_tuned_likelihood_is_that_of_the_network_after_one_more_epoch_alone(
    make_search: Callable[..., Search],
) -> None:
    search = _run(make_search(seed=1, horizon=2, objective="fine-tuned-likelihood"))
    network = network_with_shared_weights(search.supernet, search.architecture())
    recipe = Recipe.of_search(search.settings.search)
    Training(network, recipe, _part_of(search, Phase.WEIGHTS), seed=0, horizon=1).run()
    by_hand = -judge(network, _part_of(search, Phase.SELECTION), 32).loss
    assert search.position.last_epoch is not None
    # Another order of the images.
    assert search.position.last_epoch.objective == pytest.approx(by_hand, abs=0.15)
    shared = -judge(
        network_with_shared_weights(search.supernet, search.architecture()), _part_of(search, Phase.SELECTION), 32
    ).loss
    assert search.position.last_epoch.objective > shared


def test_a_trained_network_owes_nothing_to_the_shared_weights(make_search: Callable[..., Search]) -> None:
    search = make_search(seed=1, horizon=1, objective="trained-likelihood", objective_epochs=2)
    while not search.position.measuring:
        search.run_batch()
    with torch.no_grad():
        for weight in search.supernet.parameters():
            weight.fill_(math.nan)
    assert search.position.last_epoch is not None
    _run(search)
    assert -3 < search.position.last_epoch.objective < 0


def test_the_best_of_random_architectures_is_preferred_where_searches_are_compared(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    told = {"derive": "random-search", "derive_samples": 20, "objective": "shared-accuracy", "k": 1.0, "horizon": 4}
    trainable = make(**told, compare_at=2)
    by_alpha = make(**{**told, "derive": "alpha"})
    reports, others = ([one.step() for _ in range(4)] for one in (trainable, by_alpha))
    assert [math.isnan(report["objective"]) for report in reports] == [True, False, False, False]
    assert reports[0]["architecture"] == others[0]["architecture"]
    assert reports[3]["objective"] == reports[3]["val_accuracy"] >= others[3]["val_accuracy"] - 0.05
    assert [report["train_loss"] for report in reports] == [report["train_loss"] for report in others]
    trainable.save(str(tmp_path / "saved"))
    other = make(**{**told, "horizon": 5}, compare_at=2)
    other.restore(str(tmp_path / "saved"))
    assert other.search.architecture().operations == reports[3]["architecture"]
    many = make(**{**told, "horizon": 1, "derive_samples": 200})
    few = make(**{**told, "horizon": 1, "derive_samples": 2})
    assert many.step()["val_accuracy"] >= few.step()["val_accuracy"], "the first two are among the 200"


def test_of_several_trainings_it_is_the_mean(make: Make) -> None:
    told = {"objective": "trained-likelihood", "horizon": 1, "seed": 6}
    one, two, three = (make(**told, objective_trainings=count).step() for count in (1, 2, 3))
    second = 2 * two["objective"] - one["objective"]
    third = 3 * three["objective"] - 2 * two["objective"]
    assert len({round(value, 9) for value in (one["objective"], second, third)}) == 3
    assert all(-4 < value < 0 for value in (second, third))
    assert three["train_loss"] == one["train_loss"]


def test_searches_of_a_sweep_that_prefer_the_same_network_report_the_same_value_at_any_epoch(make: Make) -> None:
    told = {"candidates": ["conv3x3", "conv5x5"], "priors": {"conv3x3": 50.0}, "horizon": 2}
    one, other = (make(**told, seed=seed, split_seed=3) for seed in (1, 2))
    reports = [one.step(), one.step(), other.step()]
    assert reports[0]["architecture"] == reports[2]["architecture"]
    assert reports[0]["train_loss"] != reports[2]["train_loss"]
    assert len({report["objective"] for report in reports}) == 1
    assert make(**told, seed=1, split_seed=4).step()["objective"] != reports[0]["objective"]


def test_it_is_measured_where_searches_are_compared_and_at_the_end(make: Make) -> None:
    trainable = make(horizon=5, compare_at=2)
    measured = [not math.isnan(trainable.step()["objective"]) for _ in range(2)]
    trainable.go_on({"horizon": 5, "slice_seconds": None, "compare_at": 7})
    measured += [not math.isnan(trainable.step()["objective"]) for _ in range(3)]
    assert measured == [False, True, False, False, True]


def test_an_epoch_ends_with_the_measurement_and_one_that_was_left_off_begins_anew(
    make: Make, small_config: dict[str, Any], tmp_path: Path
) -> None:
    whole = make(seed=2, compare_at=1).step()
    trainable = make(seed=2, compare_at=1, slice_seconds=1e-6)
    for _ in range(12):
        report = trainable.step()
    assert (report["epochs"], report["batches"], report["epoch_fraction"], report["cut"]) == (0, 10, 1.0, True)
    assert math.isnan(report["objective"])
    assert not report["done"]
    trainable.save(str(tmp_path / "cut"))
    other = make(seed=2, compare_at=1)
    other.restore(str(tmp_path / "cut"))
    report = other.step()
    assert (report["epochs"], report["batches"], report["cut"]) == (1, 10, False)
    for key in ("objective", "val_accuracy", "train_loss", "architecture"):
        assert report[key] == whole[key], key
