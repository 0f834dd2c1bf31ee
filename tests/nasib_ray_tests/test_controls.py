"""What a sweep is compared with: its controls, and other sweeps."""

from __future__ import annotations

import json
import math
import random
import statistics
from pathlib import Path

import pytest

from nasib_ray import SweepConfig, load_sweep
from nasib_ray.comparison import FOUND, RANDOM, Estimate, by_method, difference, pooled, relative_improvement
from nasib_ray.controls import control_networks, controls_of, whole_budget
from nasib_ray.found import network_of
from nasib_ray.place import Place
from nasib_ray.random_search import RandomSearcher
from nasib_ray.searcher import first_trial
from nasib_ray.trained import TrainedNetwork, trained_networks
from schedulers.search_record import SearchRecord
from tests.nasib_ray_tests.command import DIGITS, Command
from trainables.architecture import Architecture, MacroShape
from trainables.data import load_dataset
from trainables.settings import TrialSettings
from trainables.stock import count_multiply_adds, widened
from trainables.training_settings import RetrainSettings, TrainingSettings

SMALL = {"layers": 2, "reductions": [2], "channels": 4, "m": 3, "batch_size": 32}


def test_controls_differ_from_the_sweep_in_how_they_search_alone() -> None:
    config = SweepConfig(budget="30 cpu-minutes", data="digits", search=SMALL, searches=3, finalists=2, seed=5)
    controls = {control.name: control for control in controls_of(config, Place("/sweeps", "mine"))}
    assert list(controls) == ["one-search", "best-of-n", "random-search", "uniform-supernet"]
    for name, control in controls.items():
        assert control.place.path == f"/sweeps/mine/controls/{name}"
        told = control.config
        assert (told.budget, told.seed, told.data) == (config.budget, config.seed, config.data)
        assert told.finalists == (0 if name in ("one-search", "uniform-supernet") else config.finalists)
        assert {key: told.search.fixed[key] for key in SMALL} == SMALL
    first = first_trial(config)
    for name in ("one-search", "best-of-n"):
        told = controls[name].config
        assert (told.search.fixed["k"], told.search.fixed["lambda"], told.search.axes) == (0.1, first["lambda"], {})
    assert [control.config.searches for control in controls.values()] == [1, 3, 3, 1]
    assert controls["uniform-supernet"].config.search.fixed["k"] == 1
    assert controls["uniform-supernet"].config.search.fixed["derive"] == "random-search"
    assert controls["random-search"].config.method == "random-search"


def test_controls_of_a_sweep_in_which_other_things_are_tuned_or_nothing_is() -> None:
    tuned = {**SMALL, "channels": {"choice": [4, 8]}, "learning_rate": {"uniform": [0.01, 0.1]}}
    config = SweepConfig(budget="30 cpu-minutes", data="digits", search=tuned)
    first = first_trial(config)
    for control in controls_of(config, Place("/sweeps", "mine")):
        assert {key: control.config.search.fixed[key] for key in ("channels", "learning_rate")} == {
            key: first[key] for key in ("channels", "learning_rate")
        }
    alone = SweepConfig(budget="30 cpu-minutes", data="digits", search={**SMALL, "k": 0.2, "lambda": 0.005})
    assert alone.full_searches == 1
    controls = {control.name: control.config for control in controls_of(alone, Place("/sweeps", "mine"))}
    assert {control.search.fixed["lambda"] for control in controls.values()} == {0.005}
    assert (controls["best-of-n"].searches, controls["random-search"].searches) == (8, 8)
    assert whole_budget(config).device_seconds == 5 * 30 * 60


def test_only_one_control_of_a_sweep_of_random_search_is_one() -> None:
    config = SweepConfig(budget="30 cpu-minutes", data="digits", search=SMALL, method="random-search")
    methods = {control.name: control.config.method for control in controls_of(config, Place("/sweeps", "mine"))}
    assert {name for name, method in methods.items() if method == "random-search"} == {"random-search"}


def test_random_search_draws_every_candidate_alike_and_trains_what_it_draws(tmp_path: Path) -> None:
    config = SweepConfig(data={"name": "digits", "cache": str(tmp_path)}, search=SMALL, method="random-search", seed=3)
    searcher, records, drawn = (
        RandomSearcher(config, load_dataset(config.data), "objective", "max"),
        list[SearchRecord](),
        list[str](),
    )
    for number in range(200):
        searcher.see(records)
        told = searcher.suggest(f"t{number}")
        settings = TrainingSettings.from_config(told)
        assert (settings.trained_on, settings.judged_on, settings.name) == (
            "weights and alpha",
            "selection",
            f"random {number}",
        )
        assert settings.architecture.macro.channels == 4
        assert settings.recipe.batch_size == 32
        drawn += settings.architecture.operations
        records.append(SearchRecord(f"t{number}", number, told))
    assert len({record.config["seed"] for record in records}) == 200
    counts = {name: drawn.count(name) for name in set(drawn)}
    assert len(counts) == 9
    # 400 draws of 9: 44 each, with a standard deviation of 6.3.
    assert all(19 < count < 70 for count in counts.values())


def test_a_network_is_widened_to_the_nearest_multiply_adds() -> None:
    macro = MacroShape((3, 8, 8), 10, 3, (2,), 16)
    target = count_multiply_adds(Architecture(("sepconv5x5", "conv3x3", "conv1x3"), macro))
    for operations in (("conv3x3",) * 3, ("conv1x1",) * 3, ("identity",) * 3):
        found = widened(Architecture(operations, macro), target)
        near = count_multiply_adds(found)
        for channels in (found.macro.channels - 1, found.macro.channels + 1):
            if channels:
                other = Architecture(operations, MacroShape((3, 8, 8), 10, 3, (2,), channels))
                assert abs(count_multiply_adds(other) - target) >= abs(near - target)
    assert widened(Architecture(("conv3x3",) * 3, macro), 1).macro.channels == 1


class TestIntervals:
    def test_they_hold_the_truth_as_often_as_they_say(self) -> None:
        draw = random.Random(0)
        within = beyond = 0
        for _ in range(1000):
            one = [draw.gauss(1.0, 0.3) for _ in range(4)]
            other = [draw.gauss(0.4, 0.6) for _ in range(5)]
            mean, change = Estimate.of(one), difference(one, other)
            within += mean.low <= 1.0 <= mean.high
            beyond += change.low <= 0.6 <= change.high
        assert 920 < within < 980
        assert 920 < beyond < 985

    def test_a_single_value_has_none(self) -> None:
        assert math.isnan(Estimate.of([0.5]).low)
        assert math.isnan(Estimate.of([0.5, 0.5]).low)
        assert math.isnan(difference([0.5], [0.4, 0.3]).high)
        assert math.isnan(difference([0.5, 0.5], [0.4, 0.4]).high)

    def test_a_relative_improvement_is_in_percent_of_random(self) -> None:
        improvement = relative_improvement([0.92, 0.94], [0.90, 0.88, 0.92])
        assert improvement.mean == pytest.approx(100 * (0.93 - 0.90) / 0.90)
        assert improvement.low < improvement.mean < improvement.high

    def test_methods_are_pooled_over_sweeps_not_over_trainings(self) -> None:
        def network(name: str, *errors: float) -> TrainedNetwork:
            trainings = tuple(
                SearchRecord(f"{error}", 0, {}, latest={"test_accuracy": 1 - error, "parameters": 1})
                for error in errors
            )
            return TrainedNetwork(name, Architecture(("conv1x1",), MacroShape((1, 8, 8), 10, 1, (), 4)), trainings)

        first = by_method([network("b", 0.9), network("a", 0.1, 0.2), network(RANDOM, 0.3, 0.3)], ["c", "a", "b"])
        second = by_method([network("c", 0.2, 0.3), network(RANDOM, 0.4, 0.2)], [])
        assert list(first) == [FOUND, RANDOM]
        assert {name: [round(x, 9) for x in values] for name, values in pooled([first, second]).items()} == {
            FOUND: [0.85, 0.75],
            RANDOM: [0.7, 0.7],
        }
        assert [round(x, 9) for x in pooled([first])[FOUND]] == [0.9, 0.8]


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_its_controls_and_the_networks_of_all_of_them(tmp_path: Path) -> None:
    small = ("--set", "data.subset=300", "--set", "search.layers=2", "--set", "search.reductions=[2]")
    told = (*small, "--set", "searches=2", "--set", "finalists=2", "--budget", "8 cpu-seconds")
    place = ("--storage", str(tmp_path), "--name=a")
    run = Command(tmp_path, "sweep", DIGITS, *told, *place, "--controls")
    assert run.ends() == 0, run.said
    assert "its 4 controls, one after the other, may hold 40 cpu-seconds in all" in run.said
    for name in ("one-search", "best-of-n", "random-search", "uniform-supernet"):
        state = load_sweep(tmp_path / "a" / "controls" / name).state
        assert state.end == "finished"
        assert state.ledger.spent <= 8
        assert state.incumbent is not None
        configs = [search.config for search in state.searches.values() if search.kind == "search"]
        assert all(("architecture" in config) == (name == "random-search") for config in configs)
        if name != "random-search":
            assert {TrialSettings.from_config(config).search.k for config in configs} == (
                {1.0} if name == "uniform-supernet" else {0.1}
            )

    path = str(tmp_path / "a")
    trained = Command(tmp_path, "retrain", path, "--controls", "--seeds", "2", "--epochs", "3")
    assert trained.ends() == 0, trained.said
    assert "relative improvement over random search" in trained.said
    networks = trained_networks(load_sweep(f"{path}/retrain"))
    assert [network.name.removeprefix("control ") for network in networks[1:]] == [
        "one-search",
        "best-of-n",
        "random-search",
        "uniform-supernet",
        "all conv3x3",
    ]
    costs = [network.multiply_adds for network in networks]
    assert max(costs) < 1.35 * statistics.median(costs)
    assert min(costs) > 0.65 * statistics.median(costs)

    compared = Command(tmp_path, "compare", path, "--json")
    assert compared.ends() == 0, compared.said
    said = json.loads(compared.said)
    methods = {method["method"]: method for method in said["methods"]}
    assert methods[FOUND]["test_error"]["mean"] == pytest.approx(networks[0].test_error)
    assert methods[RANDOM]["relative_improvement"] is None
    accuracy = 1 - methods[RANDOM]["test_error"]["mean"]
    expected = 100 * (1 - networks[0].test_error - accuracy) / accuracy
    assert methods[FOUND]["relative_improvement"]["mean"] == pytest.approx(expected)
    exported = Command(tmp_path, "export", path, "-o", str(tmp_path / "network.json"))
    assert exported.ends() == 0, exported.said
    assert f"found by trial {networks[0].name}" in exported.said


def test_controls_that_were_not_run_are_told(tmp_path: Path) -> None:
    config = SweepConfig(data={"name": "digits", "cache": str(tmp_path)}, search=SMALL)
    dataset = load_dataset(config.data)
    network = network_of(first_trial(config), ["conv1x3", "sepconv3x3"], "a", dataset)
    with pytest.raises(ValueError, match=r"the control one-search of .* has found nothing yet: `nasib-ray resume"):
        control_networks(str(tmp_path / "sweep"), network, RetrainSettings(), dataset)
