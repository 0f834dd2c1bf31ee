from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nasib_ray.report.figures import thinned
from nasib_ray.report.history import sweep_history
from nasib_ray.report.spending import held_by_kind
from nasib_ray.results import load_sweep
from tests.nasib_ray_tests.conftest import Driver


def test_history_tells_what_befell_a_trial(driver: Driver, sweep_folder: Path) -> None:
    driver.search("s_00003", k=0.2, **{"lambda": 0.01}, seed=10)
    driver.grant("s_00003", 20.0, 1, 6)
    driver.nasib_epochs("s_00003", 0.5)
    driver.write("state", trial="s_00003", state="paused", why="slice ended")
    driver.write("release", grant=driver.state.searches["s_00003"].grant, trial="s_00003", amount=0.0)
    driver.grant("s_00003", 20.0, 1, 6, "continue")
    driver.nasib_epochs("s_00003", 0.6)
    driver.rest("s_00003")
    driver.clock.advance(30.0)
    driver.grant("s_00003", 20.0, 2, 9, "endgame")
    driver.nasib_epochs("s_00003", 0.7, None)
    driver.crash("s_00003", "paused", "its process died")
    driver.write("checkpoint-lost", trial="s_00003", path="s_00003/checkpoint", epochs=0, why="not what it was")

    history = sweep_history(load_sweep(sweep_folder).records())

    told = [
        (happening.kind, happening.epoch, happening.text)
        for happening in history.happenings
        if happening.trial == "s_00003"
    ]
    assert told == [
        ("paused", 2, "paused after 2 epochs: slice ended"),
        ("horizon changed", 2, "horizon 6 -> 9 (endgame)"),
        ("promoted", 2, "goes on after 30 s (endgame)"),
        ("cut", 3, "cut within epoch 4, as its slice had no time left"),
        ("failed", 0, "failed, back to 0 epochs: its process died"),
        ("checkpoint lost", 0, "a checkpoint was damaged, 0 epochs lost: not what it was"),
    ]
    assert history.curves["s_00003"].points("val_accuracy") == [(1, 0.5), (2, 0.6), (3, 0.7)]
    assert [holding.open for holding in history.holdings if holding.trial == "s_00001"] == [True]


def test_history_of_a_later_run(make_driver: Any, sweep_folder: Path) -> None:
    first = make_driver()
    first.begin()
    first.search("s_00000", k=0.1, **{"lambda": 0.01}, seed=7)
    first.grant("s_00000", 30.0, 4, 4)
    first.nasib_epochs("s_00000", 0.4)
    first.charge("s_00000", "train", 0.5)
    first.report("s_00000", None, interrupted=True, epoch_fraction=0.25)
    first.rest("s_00000")
    first.end("interrupted", "it was told to stop")
    second = make_driver()
    second.clock.advance(5000.0)
    second.write("run", slots=2)
    second.grant("s_00000", 30.0, 3, 4, "continue")
    second.nasib_epochs("s_00000", 0.5)

    history = sweep_history(load_sweep(sweep_folder).records())

    assert [(happening.kind, happening.epoch) for happening in history.happenings] == [
        ("cut", 1.25),
        ("paused", 1),
        ("resumed", 1),
    ]
    assert [run.how for run in history.runs] == ["interrupted: it was told to stop", ""]
    assert history.runs[1].start - history.runs[0].end > 4000


def test_an_epoch_that_was_done_again_counts_once(driver: Driver, sweep_folder: Path) -> None:
    driver.nasib_epochs("s_00001", 0.7)
    driver.write("failure", trial="s_00001", epochs=1, why="gone")
    driver.nasib_epochs("s_00001", 0.65)

    curve = sweep_history(load_sweep(sweep_folder).records()).curves["s_00001"]

    assert curve.points("val_accuracy") == [(1, 0.6), (2, 0.65)]


def test_what_was_held_by_kind_is_what_the_ledger_says(driver: Driver, sweep_folder: Path) -> None:
    driver.write("relabel", trial="s_00001", **{"from": "train", "to": "lost"}, amount=1.5)
    sweep = load_sweep(sweep_folder)

    held = held_by_kind(sweep.accounts()).iloc[-1].to_dict()

    assert held == pytest.approx(sweep.state.ledger.spent_by_kind)
    assert held["lost"] == 4.0


def test_thinned_keeps_both_ends() -> None:
    assert thinned(range(5), 10) == [0, 1, 2, 3, 4]
    few = thinned(range(1001), 11)
    assert few == [*range(0, 1001, 100)]
