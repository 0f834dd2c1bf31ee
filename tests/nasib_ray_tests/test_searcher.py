import json
import logging
import math
import pickle
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import cloudpickle
from ray.tune import Trainable
from ray.tune.experiment import Experiment
from ray.tune.search import Searcher, SearchGenerator

from nasib_ray.config import SweepConfig
from nasib_ray.searcher import StudySearcher, derived_seed
from nasib_ray.study_log import STUDY_FILE, STUDY_NAME, StudyLog
from nasib_ray.study_trials import MOST_TOLD, distribution, told_trials
from schedulers.search_record import SearchRecord, SearchStatus
from schedulers.trial_source import SeesSearches
from trainables.settings import DEFAULT_K_RANGE, DEFAULT_LAMBDA_RANGE, TrialSettings


def record(
    index: int, config: dict[str, Any], state: SearchStatus = "finished", curve: Sequence[float] = ()
) -> SearchRecord:
    points = [(epochs, value) for epochs, value in enumerate(curve, 1)]
    return SearchRecord(f"t{index}", index, config, state=state, epochs=len(points), horizon=8, curve=points)


def suggest(config: SweepConfig, searches: list[SearchRecord], mode: str = "max") -> Any:
    searcher = StudySearcher(config, mode=mode)
    searcher.see(searches)
    return searcher.suggest(f"t{len(searches)}")


def suggestions(config: SweepConfig, count: int) -> list[Any]:
    """What is suggested one after the other while every search reports the same."""
    searches: list[SearchRecord] = []
    for index in range(count):
        searches.append(record(index, suggest(config, searches), "paused", [0.5]))
    return [search.config for search in searches]


def quality(config: dict[str, Any], best: tuple[float, float] = (0.3, 0.7)) -> float:
    """1 at the best k and lambda, less by the squared distance from it in units of their logarithmic ranges."""
    ranges = {"k": DEFAULT_K_RANGE, "lambda": DEFAULT_LAMBDA_RANGE}
    places = [math.log(config[key] / low) / math.log(high / low) for key, (low, high) in ranges.items()]
    return 1 - sum((place - at) ** 2 for place, at in zip(places, best, strict=True))


def late_quality(seed: int, sampler: str, mode: str = "max") -> float:
    """Mean quality of suggestions 41 to 60, where two slots pause all but the best fifth of the searches early."""
    config = SweepConfig(seed=seed, sampler=sampler, points=[])
    sign = 1 if mode == "max" else -1
    searches: list[SearchRecord] = []
    found: list[float] = []
    for index in range(60):
        for search in searches[-2:-1]:
            value = quality(search.config)
            passes = sum(other > value for other in found[: search.index]) <= search.index / 5
            search.state = "finished" if passes else "paused"
            search.curve = [(2, sign * value * 0.6), (8, sign * value)] if passes else [(2, sign * value * 0.6)]
            search.epochs = search.curve[-1][0]
        new = suggest(config, searches, mode)
        found.append(quality(new))
        searches.append(record(index, new, "running"))
    return sum(found[40:]) / 20


def test_suggestions_get_better_though_most_searches_are_paused() -> None:
    tpe = [late_quality(seed, "tpe") for seed in range(4)]
    drawn = [late_quality(seed, "random") for seed in range(4)]
    assert min(tpe) > max(drawn)
    assert sum(tpe) / 4 > 0.9
    assert sum(drawn) / 4 < 0.8


def test_smaller_is_better_where_the_mode_says_so() -> None:
    assert late_quality(0, "tpe", mode="min") == late_quality(0, "tpe")


def test_the_same_searches_give_the_same_suggestion_in_another_process() -> None:
    script = (
        "import json, sys, random\n"
        "from nasib_ray.config import SweepConfig\n"
        "from nasib_ray.searcher import StudySearcher\n"
        "from schedulers.search_record import SearchRecord\n"
        "searcher, rng, searches, found = StudySearcher(SweepConfig(seed=5, search={'m': {'choice': [3, 5, 7]}})),"
        " random.Random(1), [], []\n"
        "for index in range(14):\n"
        "    searcher.see(searches)\n"
        "    found.append(searcher.suggest(str(index)))\n"
        "    curve = [(2, rng.random())]\n"
        "    searches.append(SearchRecord(str(index), index, found[-1], 'paused', epochs=2, curve=curve))\n"
        "print(json.dumps(found))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    found = json.loads(runs[0])
    assert len({config["k"] for config in found}) == 14


def test_another_seed_gives_other_suggestions_and_splits() -> None:
    first, second = (suggestions(SweepConfig(seed=seed, points=[]), 3) for seed in (0, 1))
    assert all(one["k"] != other["k"] for one, other in zip(first, second, strict=True))
    assert [config["split_seed"] for config in (*first, *second)] == [0, 0, 0, 1, 1, 1]
    assert len({config["seed"] for config in (*first, *second)}) == 6


def test_the_seeds_are_the_same_everywhere() -> None:
    # Written down: a search that is repeated with a later version must have the seed that it had.
    assert derived_seed(0, "search", 0) == 110636625
    assert all(0 <= derived_seed(3, "search", number) < 2**31 for number in range(100))


def test_points_come_first_then_grids_then_samples() -> None:
    config = SweepConfig(
        search={"m": {"grid": [3, 5]}, "channels": {"grid": [4, 8]}, "lambda": 0.01},
        points=[{"k": 0.3, "m": 5, "channels": 8}, {"k": 0.2, "batch_size": 16}],
    )
    found = suggestions(config, 9)
    assert [config["k"] for config in found[:2]] == [0.3, 0.2]
    assert [config["batch_size"] for config in found[:3]] == [64, 16, 64]
    combinations = [(config["m"], config["channels"]) for config in found]
    assert combinations[0] == (5, 8)
    assert combinations[2:6] == [(3, 4), (3, 8), (5, 4), (5, 8)]
    assert set(combinations[6:]) <= set(combinations[2:6])
    assert len({config["k"] for config in found}) == 9


def test_a_space_of_grids_alone_ends() -> None:
    config = SweepConfig(search={"k": {"grid": [0.1, 0.2, 0.3]}, "lambda": 0.01})
    found = suggestions(config, 3)
    assert [config["k"] for config in found] == [0.1, 0.2, 0.3]
    assert suggest(config, [record(index, config) for index, config in enumerate(found)]) == Searcher.FINISHED


def test_with_nothing_to_choose_there_is_one_search() -> None:
    config = SweepConfig(search={"k": 0.1, "lambda": 0.01})
    only = suggest(config, [])
    assert (only["k"], only["lambda"]) == (0.1, 0.01)
    assert suggest(config, [record(0, only)]) == Searcher.FINISHED


def test_a_suggestion_is_a_whole_configuration() -> None:
    config = SweepConfig(
        data={"name": "digits", "subset": 100},
        search={
            "candidates": {"choice": ["narrow", ["conv3x3", "identity"]]},
            "layers": {"int": [4, 6]},
            "reductions": [2],
        },
        seed=9,
    )
    for suggested in suggestions(config, 8):
        assert json.loads(json.dumps(suggested)) == suggested
        settings = TrialSettings.from_config(suggested)
        assert settings.data == config.data
        assert settings.split_seed == 9
        assert settings.search.reductions == (2,)
        assert settings.search.candidates in ("narrow", ("conv3x3", "identity"))


def test_searches_are_told_as_they_are() -> None:
    config = SweepConfig(search={"reductions": {"choice": [[2], [4, 7]]}})
    space = config.search
    point = {"k": 0.1, "lambda": 0.01, "reductions": [4, 7]}
    settings = space.settings_of(point)
    searches = [
        record(0, settings, "finished", [0.2, 0.9, 0.4]),
        record(1, settings, "paused", [0.2, 0.3]),
        record(2, settings, "paused"),
        record(3, settings, "running", [0.2]),
        record(4, settings, "failed", [0.2]),
        record(5, settings, "finished"),
        record(6, {**settings, "k": 0.9}, "paused", [0.2]),
        record(7, settings, "not resumable", [0.2, 0.1]),
        record(8, settings, "not resumable"),
    ]
    told = told_trials(searches, space, {key: distribution(axis) for key, axis in space.axes.items()})
    ended = ["COMPLETE", "PRUNED", "RUNNING", "RUNNING", "FAIL", "FAIL", "PRUNED", "FAIL"]
    assert [trial.state.name for trial in told] == ended
    assert told[0].value == 0.4
    assert told[1].intermediate_values == {1: 0.2, 2: 0.3}
    assert told[0].params == {"k": 0.1, "lambda": 0.01, "reductions": "[4, 7]"}


def many_searches(count: int) -> list[SearchRecord]:
    rng = random.Random(0)
    states: list[SearchStatus] = ["finished", "paused", "paused", "failed", "running"]
    searches = []
    for index in range(count):
        config = {"k": 0.01 * 50 ** rng.random(), "lambda": 0.01 + 0.05 * rng.random()}
        searches.append(record(index, config, states[index % 5], [rng.random() for _ in range(1 + index % 20)]))
    return searches


def test_a_thousand_are_told_all_finished_ones_among_them() -> None:
    space = SweepConfig().search
    searches = many_searches(1500)
    told = told_trials(searches, space, {key: distribution(axis) for key, axis in space.axes.items()})
    assert len(told) == MOST_TOLD
    assert sum(trial.state.name == "COMPLETE" for trial in told) == 300
    assert not any(trial.state.name == "FAIL" for trial in told)
    kept = [len(trial.intermediate_values) for trial in told if trial.state.name != "COMPLETE"]
    assert min(kept) >= 4


def test_a_suggestion_is_quick_among_many_searches() -> None:
    searches = many_searches(1500)
    config = SweepConfig()
    suggest(config, searches)
    started = time.process_time()
    suggest(config, searches)
    assert time.process_time() - started < 0.5


def test_it_must_be_shown_the_searches_before_each_suggestion() -> None:
    searcher = StudySearcher(SweepConfig())
    assert isinstance(searcher, SeesSearches)
    with pytest.raises(ValueError, match="with_budget"):
        searcher.suggest("a")
    searcher.see([])
    searcher.suggest("a")
    with pytest.raises(ValueError, match="with_budget"):
        searcher.suggest("b")


def test_optuna_says_nothing_and_keeps_its_settings(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("optuna").addHandler(caplog.handler)
    before = optuna.logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            suggestions(SweepConfig(), 8)
    finally:
        logging.getLogger("optuna").removeHandler(caplog.handler)
    assert caplog.records == []
    assert optuna.logging.get_verbosity() == before


class Idle(Trainable):  # type: ignore[misc]
    """What Tune makes trials of; never started here."""


def test_tune_makes_trials_of_suggestions(tmp_path: Path) -> None:
    config = SweepConfig(search={"priors": {"conv3x3": 0.5}})
    searcher = StudySearcher(config, log=StudyLog(tmp_path))
    searcher = pickle.loads(cloudpickle.dumps(searcher))
    generator = SearchGenerator(searcher)
    generator.add_configurations([Experiment("x", run=Idle, num_samples=10, storage_path=str(tmp_path))])
    generator.searcher.see([])
    trial = generator.next_trial()
    assert trial.config == suggest(config, [])
    grid = SearchGenerator(StudySearcher(SweepConfig(search={"k": 0.1, "lambda": 0.1})))
    grid.add_configurations([Experiment("x", run=Idle, num_samples=10, storage_path=str(tmp_path))])
    grid.searcher.see([record(0, {})])
    assert grid.next_trial() is None
    assert grid.is_finished()


def logged(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / STUDY_FILE)),
    )
    return optuna.load_study(study_name=STUDY_NAME, storage=storage).trials


def test_the_study_log_follows_a_sweep_over_two_runs(tmp_path: Path) -> None:
    config = SweepConfig()
    first = StudySearcher(config, log=StudyLog(tmp_path / "sweep"))
    searches: list[SearchRecord] = []
    for index in range(3):
        first.see(searches)
        suggested = first.suggest(f"t{index}")
        assert isinstance(suggested, dict)
        searches.append(record(index, suggested, "running"))
        first.on_trial_result(f"t{index}", {"epochs": 1, "objective": 0.1 * index, "horizon": 2})
    first.on_trial_result("t0", {"epochs": 1, "objective": float("nan"), "cut": True})
    first.on_trial_complete("t0", {"epochs": 2, "objective": 0.8, "horizon": 2})
    first.on_trial_complete("t1", error=True)
    first.on_trial_complete("t2", None)

    second = StudySearcher(config, log=StudyLog(tmp_path / "sweep"))
    second.on_trial_result("t0", {"epochs": 3, "objective": 0.9, "horizon": 4})
    second.on_trial_result("t2", {"epochs": 2, "objective": 0.7, "horizon": 4})
    second.see(searches)
    second.suggest("t3")

    trials = logged(tmp_path / "sweep")
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "RUNNING", "RUNNING"]
    assert trials[0].value == 0.8
    assert trials[2].intermediate_values == {1: 0.2, 2: 0.7}
    assert trials[2].params == {key: searches[2].config[key] for key in ("k", "lambda")}


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / STUDY_FILE).write_text("this is no journal\nnor this\n")
    searcher = StudySearcher(SweepConfig(), log=StudyLog(tmp_path))
    for _ in range(2):
        searcher.see([])
        assert isinstance(searcher.suggest("t0"), dict)
        searcher.on_trial_result("t0", {"epochs": 1, "objective": 0.5, "horizon": 2})
    warned = [entry for entry in caplog.records if entry.name == "nasib_ray.study_log"]
    assert len(warned) == 1
    assert "optuna.log is not written any further" in warned[0].getMessage()
    assert (tmp_path / STUDY_FILE).read_text() == "this is no journal\nnor this\n"
