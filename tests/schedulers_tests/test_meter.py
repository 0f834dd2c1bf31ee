from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.meter import Holding, Meter, Phase

DAY = 86_400.0


def holding(trial: str = "a", devices: float = 1.0, phase: Phase = "train", grant: str | None = None) -> Holding:
    return Holding(trial, grant or f"g-{trial}", devices, phase)


def test_the_first_reading_begins_the_first_interval() -> None:
    meter = Meter()
    assert meter.read(100.0, {"p": holding()}) == {}
    assert meter.read(102.5, {"p": holding()}) == {("g-a", "a", "train"): 2.5}


def test_half_a_device_costs_half() -> None:
    meter = Meter()
    meter.read(0.0, {})
    assert meter.read(10.0, {"p": holding(devices=0.5)}) == {("g-a", "a", "train"): 5.0}


def test_what_came_or_went_in_between_is_charged_for_the_whole_interval() -> None:
    meter = Meter()
    meter.read(0.0, {"p": holding("a")})
    assert meter.read(1.0, {"q": holding("b")}) == {("g-a", "a", "train"): 1.0, ("g-b", "b", "train"): 1.0}
    assert meter.read(2.0, {}) == {("g-b", "b", "train"): 1.0}
    assert meter.read(3.0, {}) == {}


def test_a_process_that_changed_is_charged_once_by_what_it_is_now() -> None:
    meter = Meter()
    meter.read(0.0, {"p": holding("a", phase="idle")})
    assert meter.read(1.0, {"p": holding("b", phase="setup")}) == {("g-b", "b", "setup"): 1.0}


def test_two_processes_on_one_grant_are_both_charged() -> None:
    meter = Meter()
    held = {"p": holding("a", phase="idle"), "q": holding("a", phase="idle")}
    meter.read(0.0, held)
    assert meter.read(1.5, held) == {("g-a", "a", "idle"): 3.0}


def test_a_second_reading_at_the_same_moment_charges_nothing() -> None:
    meter = Meter()
    meter.read(5.0, {"p": holding()})
    assert meter.read(5.0, {"p": holding()}) == {}


def test_whole_days_count() -> None:
    meter = Meter()
    meter.read(0.0, {"p": holding(devices=2.0)})
    assert meter.read(30 * DAY + 1.0, {"p": holding(devices=2.0)}) == {("g-a", "a", "train"): 60 * DAY + 2.0}


def test_a_clock_that_goes_backwards_is_an_error() -> None:
    meter = Meter()
    meter.read(1.0, {})
    with pytest.raises(AssertionError, match="backwards"):
        meter.read(0.5, {})


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.sets(st.sampled_from("pqrs"))), min_size=1))
def test_it_rounds_up_and_by_no_more_than_the_intervals_of_change(readings: list[tuple[float, set[str]]]) -> None:
    """Between two readings a process held something for none, part or all of the time: the most is charged."""
    meter, now, before = Meter(), 0.0, frozenset[str]()
    meter.read(now, {})
    for elapsed, live in readings:
        now += elapsed
        charged = sum(meter.read(now, {key: holding(key) for key in live}).values())
        both, either = len(before & live), len(before | live)
        assert both * elapsed - 1e-9 <= charged <= either * elapsed + 1e-9
        assert charged == pytest.approx(either * elapsed, abs=1e-6)
        before = frozenset(live)
