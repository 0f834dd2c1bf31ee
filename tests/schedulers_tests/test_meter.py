from __future__ import annotations

from typing import Any

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


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 100.0),
            st.sampled_from("abc"),
            st.none() | st.tuples(st.floats(0.25, 4.0), st.sampled_from(["setup", "train"])),
        ),
        max_size=30,
    )
)
def test_processes_read_one_by_one_as_they_turn_held_what_they_held(steps: list[tuple[float, str, Any]]) -> None:
    meter, now = Meter(), 0.0
    held, exact, charged = dict[str, Holding](), 0.0, 0.0
    for seconds, key, turned in steps:
        now += seconds
        exact += seconds * sum(holding.devices for holding in held.values())
        assert charged + meter.unread(now) == pytest.approx(exact, abs=1e-6)
        holding = None if turned is None else Holding(key, f"g{key}", *turned)
        was = held.pop(key, None)
        if holding is not None:
            held[key] = holding
        charge = meter.turn(now, key, holding)
        assert (charge is None) == (was is None)
        if charge is not None and was is not None:
            assert charge[0] == (was.grant, was.trial, was.phase)
            charged += charge[1]
    now += 1.0
    exact += sum(holding.devices for holding in held.values())
    assert charged + sum(meter.read(now, held).values()) == pytest.approx(exact, abs=1e-6)
    assert meter.unread(now) == 0.0
