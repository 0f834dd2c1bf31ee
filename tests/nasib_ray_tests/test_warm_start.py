"""A sweep that begins with what earlier ones found."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nasib_ray.config import SweepConfig
from nasib_ray.progress import Progress
from nasib_ray.results import load_sweep
from nasib_ray.warm_start import earlier_horizons, warm_started
from schedulers.clock import SimulatedClock
from schedulers.sweep_state import SweepState
from tests.nasib_ray_tests.conftest import Driver

SMALL = {"data": "digits", "searches": 4}


@pytest.fixture
def earlier(make_driver: Callable[[], Any], sweep_folder: Path) -> str:
    """Four searches: two finished (the second better), one paused with the best value of all, one failed."""
    driver = make_driver()
    config = SweepConfig(**SMALL, budget="3 cpu-minutes")
    driver.begin(config=config.to_plain())
    driver.write("plan", epoch_device_seconds=1.0, full_horizon=3)
    points = {"a": (0.3, 0.01, "finished"), "b": (0.05, 0.02, "finished"), "c": (0.1, 0.03, "paused")}
    for (name, (k, lambda_, state)), values in zip(
        points.items(), [(0.1, 0.2, 0.3), (0.2, 0.3, 0.4), (0.9,)], strict=True
    ):
        driver.search(name, k=k, **{"lambda": lambda_})
        driver.grant(name, 20.0, len(values), 3)
        driver.nasib_epochs(name, *values)
        driver.rest(name, state)
    driver.search("d", k=0.2, **{"lambda": 0.01})
    driver.grant("d", 20.0, 1, 3)
    driver.crash("d", "failed", "out of memory")
    driver.end()
    return str(sweep_folder)


def test_it_begins_with_the_best_of_those_that_came_furthest(earlier: str, tmp_path: Path) -> None:
    config, told = warm_started(SweepConfig(**SMALL), [load_sweep(earlier)], str(tmp_path / "new"))
    found = [{"k": 0.05, "lambda": 0.02}, {"k": 0.3, "lambda": 0.01}, {"k": 0.1, "lambda": 0.03}]
    assert list(config.points) == [*found, *SweepConfig(**SMALL).points]
    assert told == []


def test_points_outside_and_other_settings_of_alpha_are_told(earlier: str, tmp_path: Path) -> None:
    data = {"name": "digits", "alpha_images": 100}
    other = SweepConfig(**{**SMALL, "data": data}, search={"k": {"uniform": [0.04, 0.2]}, "lambda": 0.01, "m": 3})
    config, told = warm_started(other, [load_sweep(earlier)], str(tmp_path / "new"))
    assert list(config.points)[:2] == [{"k": 0.05}, {"k": 0.1}]
    differs = "m 9 there and 3 here, data.alpha_images None there and 100 here"
    assert f"{earlier}: lambda may mean something else there, with {differs}" in told
    assert f"{earlier}: a search with k 0.3 lies outside of what is tuned here" in told


def test_momentum_counts_where_alpha_is_updated_with_it(earlier: str, tmp_path: Path) -> None:
    for optimizer, tells in (("adam", False), ("sgd", True)):
        other = SweepConfig(**SMALL, search={"alpha_optimizer": optimizer, "momentum": 0.5})
        _, told = warm_started(other, [load_sweep(earlier)], str(tmp_path / optimizer))
        assert any("momentum 0.9 there and 0.5 here" in line for line in told) == tells


def test_words_outside_are_told_as_they_are(make_driver: Callable[[], Any], sweep_folder: Path, tmp_path: Path) -> None:
    driver = make_driver()
    driver.begin(config=SweepConfig(**SMALL, budget="3 cpu-minutes").to_plain())
    for name, k, pair_scale in (("a", 0.1, "sum"), ("b", 0.2, "mean")):
        driver.search(name, k=k, pair_scale=pair_scale, **{"lambda": 0.01})
        driver.grant(name, 20.0, 1, 3)
        driver.nasib_epochs(name, 0.5)
        driver.rest(name)
    driver.end()
    other = SweepConfig(**SMALL, search={"pair_scale": {"choice": ["mean"]}})
    config, told = warm_started(other, [load_sweep(sweep_folder)], str(tmp_path / "new"))
    assert config.points[0] == {"k": 0.2, "lambda": 0.01, "pair_scale": "mean"}
    assert f"{sweep_folder}: a search with pair_scale sum lies outside of what is tuned here" in told


def test_if_there_is_nothing_to_begin_with_that_is_an_error(earlier: str, tmp_path: Path) -> None:
    elsewhere = SweepConfig(**SMALL, search={"k": {"uniform": [0.4, 0.5]}})
    with pytest.raises(ValueError, match="no search there can be taken over"):
        warm_started(elsewhere, [load_sweep(earlier)], str(tmp_path / "new"))


def test_a_sweep_that_is_there_goes_on_with_its_own_points(
    earlier: str, tmp_path: Path, make_driver: Callable[[], Any]
) -> None:
    begun, told = warm_started(SweepConfig(**SMALL, points=[{"k": 0.2}]), [load_sweep(earlier)], earlier)
    assert begun.points == SweepConfig(**SMALL).points, "those that it was begun with"
    assert told == [f"{earlier} goes on with the points that it was begun with"]


def test_a_sweep_that_ended_before_its_first_trial_is_begun_anew(earlier: str, tmp_path: Path) -> None:
    Driver(tmp_path / "new").journal.close()
    config, told = warm_started(SweepConfig(**SMALL), [load_sweep(earlier)], str(tmp_path / "new"))
    assert len(config.points) == 4
    assert told == []


def test_of_a_small_space_there_are_as_many_searches_as_the_points_make(earlier: str, tmp_path: Path) -> None:
    grids = {"k": {"grid": [0.05, 0.1, 0.3]}, "lambda": {"grid": [0.01, 0.02, 0.03]}}
    config = SweepConfig(data="digits", searches=20, search=grids)
    assert config.full_searches == 9
    assert warm_started(config, [load_sweep(earlier)], str(tmp_path / "new"))[0].full_searches == 12


@pytest.mark.parametrize(("horizon", "says"), [(3, False), (30, True)])
def test_another_horizon_is_told_once_it_is_planned(earlier: str, horizon: int, says: bool) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    progress = Progress(console, "new", SimulatedClock(), earlier_horizons=earlier_horizons([load_sweep(earlier)]))
    state = SweepState(settings={"metric": "objective", "device": "cpu"})
    progress.update(state, 2)
    assert earlier not in printed.getvalue()
    state.full_horizon = horizon
    progress.update(state, 2)
    progress.update(state, 2)
    expected = f"a full search has {horizon} epochs here, and had 3 epochs in {earlier}: its k and lambda may fit worse"
    assert printed.getvalue().count(expected) == says
