"""Whether a sweep that is there is the one that is meant, and what it takes over of what it is told now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nasib_ray.config import SweepConfig
from nasib_ray.place import Place
from nasib_ray.results import config_of, load_sweep
from nasib_ray.retraining import RetrainPlan, _allowance
from nasib_ray.status import WITHOUT_LIMIT
from nasib_ray.sweep import check_same
from schedulers.budget import Budget

Make = Callable[[], Any]


def meant(**changes: Any) -> SweepConfig:
    return SweepConfig(**{"data": "digits", "budget": "180 cpu-seconds", "searches": 2, **changes})


def ended(driver: Any, config: SweepConfig, finished: int) -> None:
    driver.begin(config=config.to_plain())
    for number in range(2):
        driver.search(f"s_{number}", k=0.1, **{"lambda": 0.01})
        driver.grant(f"s_{number}", 50.0, 3, 3)
        driver.nasib_epochs(f"s_{number}", 0.5, 0.6, 0.7)
        driver.rest(f"s_{number}", "finished" if number < finished else "paused")
    driver.end()


def test_a_folder_without_a_sweep_or_with_one_that_never_began_is_free(make_driver: Make, sweep_folder: Path) -> None:
    place = Place.at(str(sweep_folder))
    assert check_same(meant(), place) is None
    make_driver().journal.close()
    assert check_same(meant(), place) is None


def test_a_sweep_of_somebody_else_is_refused(make_driver: Make, sweep_folder: Path) -> None:
    driver = make_driver()
    driver.begin(metric="objective")
    driver.end()
    with pytest.raises(ValueError, match=r"was not begun by nasib-ray: choose another --name"):
        check_same(meant(), Place.at(str(sweep_folder)))


@pytest.mark.parametrize(("finished", "refused"), [(2, True), (1, False)])
def test_what_was_shared_equally_has_no_use_for_more(
    make_driver: Make, sweep_folder: Path, finished: int, refused: bool
) -> None:
    config = meant(allocator="equal-share", finalists=0)
    ended(make_driver(), config, finished)
    place = Place.at(str(sweep_folder))
    assert check_same(config, place) is not None
    raised = meant(allocator="equal-share", finalists=0, budget="360 cpu-seconds")
    if not refused:
        assert check_same(raised, place) is not None
        return
    with pytest.raises(ValueError, match=r"shared its budget of 3.0 cpu-minutes equally.*under another --name"):
        check_same(raised, place)


def test_halving_has_use_for_more(make_driver: Make, sweep_folder: Path) -> None:
    ended(make_driver(), meant(), 2)
    assert check_same(meant(budget="360 cpu-seconds"), Place.at(str(sweep_folder))) is not None


def test_what_a_later_run_is_told_is_remembered(make_driver: Make, sweep_folder: Path) -> None:
    ended(make_driver(), meant(), 1)
    begun = config_of(load_sweep(sweep_folder))
    now = meant(budget="1 cpu-hour", retrain={"epochs": 7}, device_rates={"A100": 2.0}, deadline="12 h")
    assert now.told_anew(begun) == ["device_rates", "retrain"]
    assert begun.told_anew(begun) == []
    driver = make_driver()
    driver.write("config", config=now.continuing(begun).to_plain())
    driver.end()
    known = config_of(load_sweep(sweep_folder))
    assert (known.retrain.epochs, known.device_rates) == (7, {"A100": 2.0})
    assert (known.budget, known.deadline) == (begun.budget, None), "these are told by records of their own"


class TestAllowance:
    """What trainings may hold."""

    def test_each_brings_its_own_unless_there_is_a_budget(self, make_driver: Make, sweep_folder: Path) -> None:
        assert _allowance(RetrainPlan(), "cpu", None, 3).device_seconds == 3 * WITHOUT_LIMIT
        make_driver().begin(3 * WITHOUT_LIMIT)
        before = load_sweep(sweep_folder)
        assert _allowance(RetrainPlan(), "cpu", before, 2).device_seconds == 5 * WITHOUT_LIMIT
        assert _allowance(RetrainPlan(), "cpu", before, 0).device_seconds == 3 * WITHOUT_LIMIT

    def test_what_is_missing_needs_a_larger_budget(self, make_driver: Make, sweep_folder: Path) -> None:
        driver = make_driver()
        driver.begin(60.0)
        same, more = (RetrainPlan(budget=Budget(seconds, "cpu")) for seconds in (60.0, 90.0))
        assert _allowance(same, "cpu", load_sweep(sweep_folder), 2) == same.budget, "it goes on"
        driver.end()
        before = load_sweep(sweep_folder)
        assert _allowance(same, "cpu", before, 0) == same.budget
        assert _allowance(more, "cpu", before, 2) == more.budget
        with pytest.raises(ValueError, match=r"2 of the trainings are not there: give a larger --budget"):
            _allowance(same, "cpu", before, 2)
        with pytest.raises(ValueError, match="a larger one would train nothing longer"):
            _allowance(more, "cpu", before, 0)
