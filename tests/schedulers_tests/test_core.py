from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schedulers.charging import FLUSH_SECONDS
from schedulers.meter import Holding
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import Sweep


class TestCharging:
    def test_the_kinds_of_a_trials_life_sum_to_what_it_held(self) -> None:
        sweep = Sweep(devices=0.5)
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.hold(10.0, "train")
        sweep.report(1, seconds=9.0)
        sweep.core.saving("a")
        sweep.hold(1.0, "checkpoint")
        sweep.checkpoint()
        sweep.hold(2.0, "idle")
        assert sweep.kinds() == {"setup": 2.0, "train": 4.5, "checkpoint": 0.5, "idle": 1.0}
        assert sweep.state.ledger.spent == pytest.approx(8.0)

    def test_a_step_that_began_before_it_was_seen_is_still_training(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.hold(2.0, "train")
        sweep.report(1, seconds=2.4)
        assert sweep.kinds() == {"setup": 2.6, "train": 2.4}

    def test_a_trial_longer_than_a_day_is_charged_in_full(self) -> None:
        sweep = Sweep(budget=10 * 86_400.0, full_epochs=5)
        sweep.start(epochs=1, horizon=None)
        sweep.hold(5.0, "setup")
        sweep.hold(30 * 3600.0, "train", every=60.0)
        sweep.report(1, seconds=30 * 3600.0)
        assert sweep.state.ledger.spent == pytest.approx(30 * 3600.0 + 5.0)
        assert sweep.kinds()["train"] == pytest.approx(30 * 3600.0)

    def test_charges_reach_the_journal_within_a_second(self) -> None:
        sweep = Sweep()
        sweep.start()
        for tenths in range(1, 50):
            sweep.hold(0.1, "setup")
            durable = SweepState.replay(None, sweep.book.records[: sweep.book.flushed])
            assert tenths / 10 - durable.ledger.spent <= FLUSH_SECONDS + 0.11

    def test_the_longest_boot_and_save_are_noted(self) -> None:
        sweep = Sweep()
        for name, boot, save in (("a", 4.0, 0.5), ("b", 2.0, 1.5)):
            sweep.start(name)
            sweep.hold(boot, "setup", name)
            sweep.hold(0.1, "train", name)
            sweep.core.saving(name)
            sweep.hold(save, "checkpoint", name)
            sweep.checkpoint(name)
            del sweep.held[name]
        assert sweep.state.boot_seconds == pytest.approx(4.1)
        assert sweep.state.save_seconds == pytest.approx(1.5)

    def test_waiting_for_a_node_is_no_part_of_a_boot(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.wait(46.0)
        sweep.hold(2.0, "setup")
        sweep.hold(0.1, "train")
        assert sweep.state.boot_seconds == pytest.approx(2.1)

    def test_an_idle_process_is_reused_also_by_a_trial_that_waited_for_a_new_one(self) -> None:
        sweep = Sweep()
        sweep.start("a")
        sweep.hold(3.0, "setup", "a")
        sweep.hold(0.1, "train", "a")
        sweep.start("b")
        process = sweep.held.pop("a")
        sweep.held["a"] = replace(process, trial="b", grant=sweep.search("b").grant or "", phase="setup")
        sweep.wait(0.5)
        sweep.held["a"] = replace(sweep.held["a"], phase="train")
        sweep.wait(0.1)
        assert sweep.state.boot_seconds == pytest.approx(3.1)
        assert sweep.state.reset_seconds == pytest.approx(0.6)


class TestEnforcement:
    def test_a_process_is_overdue_when_only_its_grace_is_left(self) -> None:
        sweep = Sweep(budget=20.0, grace_seconds=2.0)
        sweep.start(epochs=1, horizon=None)
        assert sweep.state.ledger.granted == 20.0
        sweep.hold(17.8, "setup")
        assert sweep.core.overdue(sweep.held) == []
        sweep.hold(0.3, "setup")
        assert sweep.core.overdue(sweep.held) == ["a"]

    def test_what_holds_devices_on_no_open_grant_is_overdue(self) -> None:
        sweep = Sweep()
        assert sweep.core.overdue({"p": Holding("a", "g9", 1.0, "idle")}) == ["p"]

    def test_a_foreign_trial_leaves_when_its_slowest_step_might_not_fit(self) -> None:
        sweep = Sweep(full_epochs=100, boot_seconds=5.0, save_seconds=0.5, grace_seconds=2.0)
        sweep.start(epochs=50, horizon=100)
        amount = sweep.state.ledger.granted
        sweep.hold(5.0, "setup")
        epochs = 0
        while True:
            epochs += 1
            sweep.hold(10.0)
            if sweep.report(epochs, seconds=10.0) == "pause":
                break
        left = sweep.state.ledger.granted
        assert amount == 250.0, "a quarter of the budget while nobody knows the length of an epoch"
        assert 2.0 <= left < 1.5 * 10.0 + 10.0

    def test_a_grant_has_room_for_what_a_search_measures_where_it_is_compared(self) -> None:
        stepping, amounts = [], []
        for beside in (0.0, 40.0):
            sweep = Sweep(budget=10_000.0, slice_told=True, horizon_told=True)
            sweep.start(epochs=1, horizon=None)
            sweep.hold(10.0 + beside)
            sweep.report(1, seconds=10.0 + beside, epoch_seconds=10.0, objective_seconds=beside)
            assert sweep.state.compare_seconds == [beside] * bool(beside)
            assert sweep.state.epoch_device_seconds == 10.0
            told = sweep.core.keep_slot("a", 1, ["a"])
            assert told is not None
            stepping.append(told)
            amounts.append(sweep.state.ledger.granted)
        assert stepping[1] - stepping[0] == pytest.approx(44.0)
        assert amounts[1] - amounts[0] == pytest.approx(44.0)

    def test_a_trial_that_stops_by_itself_is_not_stopped_for_its_slowest_step(self) -> None:
        sweep = Sweep(slice_told=True, full_epochs=100)
        sweep.start(epochs=50)
        sweep.hold(240.0)
        assert sweep.report(1, seconds=240.0) == "continue"


class TestVerdict:
    @pytest.mark.parametrize(
        ("epochs", "more", "verdict"),
        [
            (1, {}, "continue"),
            (2, {}, "pause"),
            (2, {"saves": "never"}, "stop"),
            (2, {"saves": "reported"}, "stop"),
            (2, {"saves": "reported", "should_checkpoint": True}, "pause"),
            (1, {"saves": "reported"}, "continue"),
            (8, {}, "stop"),
            (1, {"stopping": True}, "pause"),
            (1, {"stopping": True, "saves": "never"}, "stop"),
            (1, {"stopping": True, "saves": "reported"}, "stop"),
            (1, {"stopping": True, "saves": "reported", "should_checkpoint": True}, "pause"),
            (1, {"cut": True, "epoch_seconds": None}, "pause"),
            (8, {"cut": True, "epoch_seconds": None}, "pause"),
            (1, {"interrupted": True}, "pause"),
        ],
    )
    def test_what_a_report_leads_to(self, epochs: int, more: dict[str, Any], verdict: str) -> None:
        sweep = Sweep(slice_told=True, horizon_told=True)
        sweep.start(epochs=2, horizon=8)
        assert sweep.report(epochs, **{"epoch_seconds": 1.0, **more}) == verdict

    def test_a_trial_that_chooses_when_to_save_goes_on_until_it_does(self) -> None:
        sweep = Sweep(budget=200.0, saves="reported", full_epochs=16)

        def report(epochs: int, **more: Any) -> str:
            sweep.hold(5.0)
            return sweep.report(epochs, seconds=5.0, saves="reported", **more)

        sweep.start(epochs=1)
        assert report(1) == "stop", "nobody knows that it will ever save"
        assert not sweep.offer()[1].pausable
        assert sweep.core.keep_slot("a", 1, ["a"]) is not None
        assert report(2) == "continue"
        assert report(3, should_checkpoint=True) == "pause"
        sweep.checkpoint()
        sweep.pause()
        assert sweep.offer()[1].pausable
        sweep.start(epochs=1)
        assert sweep.state.ledger.granted > 3 * 5.0, "what it does until it saves again is paid for"
        assert [report(4), report(5), report(6, should_checkpoint=True)] == ["continue", "continue", "pause"]

    def test_what_a_trial_did_since_its_checkpoint_is_lost_when_it_leaves_without_another(self) -> None:
        sweep = Sweep(saves="reported", full_epochs=16)
        sweep.start(epochs=4)
        sweep.hold(3.0)
        sweep.report(1, saves="reported", should_checkpoint=True)
        sweep.checkpoint()
        sweep.hold(5.0)
        assert sweep.report(2, saves="reported", stopping=True) == "pause"
        sweep.pause()
        assert (sweep.search().epochs, sweep.search().failures, sweep.search().state) == (1, 0, "paused")
        assert sweep.kinds()["lost"] == pytest.approx(5.0, abs=0.2)

    def test_a_foreign_trial_is_complete_after_the_full_horizon(self) -> None:
        sweep = Sweep(full_epochs=3)
        sweep.start(epochs=9)
        assert [sweep.report(epochs) for epochs in (1, 2, 3)] == ["continue", "continue", "stop"]

    def test_a_trial_keeps_its_slot_if_the_allocator_asks_for_it_again(self) -> None:
        sweep = Sweep(full_epochs=50)
        sweep.start(epochs=1)
        sweep.hold(1.0)
        assert sweep.report(1) == "pause"
        assert sweep.core.keep_slot("a", 1, ["a"]) is not None
        assert [record["grant"] for record in sweep.events("grant")] == ["g0", "g1"]
        assert [record["grant"] for record in sweep.events("release")] == ["g0"]
        assert (sweep.search().state, sweep.search().grant, sweep.search().target) == ("running", "g1", 3)

    def test_a_trial_leaves_its_slot_to_another_that_leads(self) -> None:
        sweep = Sweep(full_epochs=50)
        sweep.start("a", epochs=1)
        sweep.report(1)
        sweep.pause("a")
        sweep.start("b", epochs=1)
        sweep.report(1, name="b")
        assert sweep.core.keep_slot("b", 1, ["b"]) is None, "the allocator asks for the oldest"
        assert sweep.search("b").state == "running", "until it has saved"
        assert sweep.search("b").grant == "g1", "its process still runs on it, and saves"


class TestReport:
    @pytest.mark.parametrize(
        "value", [0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), np.array([0.25]).sum()]
    )
    def test_any_number_is_ranked(self, value: Any) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.report(1, value)
        assert sweep.allocator.seen == [("a", 1, 0.25)]
        assert sweep.search().best_value == 0.25

    @pytest.mark.parametrize("value", [math.nan, math.inf, None, "good", np.float32("nan")])
    def test_anything_else_is_not(self, value: Any) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.report(1, value)
        assert sweep.allocator.seen == []
        assert (sweep.search().best_value, sweep.search().epochs) == (None, 1)

    def test_arrays_and_strangers_do_not_stop_the_sweep(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.report(1, 0.5, per_class=np.array([0.5, math.nan]), model=object, config={"x": {1, 2}})
        assert sweep.search().latest["per_class"] == [0.5, None]
        assert sweep.search().best_value == 0.5

    def test_a_cut_epoch_is_not_ranked_and_measures_nothing(self) -> None:
        sweep = Sweep(slice_told=True)
        sweep.start()
        sweep.report(0, 0.9, cut=True, epoch_seconds=None)
        assert sweep.allocator.seen == []
        assert sweep.state.full_horizon is None
        assert sweep.search().epoch_seconds == []

    def test_under_min_the_allocator_sees_the_sign_turned(self) -> None:
        sweep = Sweep(mode="min")
        sweep.start()
        sweep.report(1, 0.75)
        assert sweep.allocator.seen == [("a", 1, -0.75)]
        assert sweep.search().best_value == 0.75

    def test_the_first_whole_epoch_fixes_the_horizon_of_all(self) -> None:
        sweep = Sweep(budget=1000.0, devices=0.5, searches=4, horizon_told=True, slice_told=True)
        sweep.start(epochs=1, horizon=None)
        sweep.hold(5.0, "setup")
        sweep.hold(4.0)
        sweep.report(1, seconds=1.0, epoch_seconds=4.0)
        assert sweep.state.epoch_device_seconds == 2.0, "the whole epoch, not the part since the last cut"
        assert sweep.state.full_horizon in (124, 125), "a quarter of 1000 device-seconds buys 125, less the boot"
        sweep.report(2, seconds=9.0, epoch_seconds=9.0)
        assert len(sweep.events("plan")) == 1


class TestAsking:
    def test_after_none_it_is_asked_again_only_when_something_has_changed(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.core.no_more_searches()
        assert [sweep.core.next_slice(2, ["a"], []) for _ in range(3)] == [None, None, None]
        asked = sweep.allocator.asked
        sweep.hold(3.0)
        assert sweep.core.next_slice(2, ["a"], []) is None
        assert sweep.allocator.asked == asked, "charges change nothing"
        sweep.report(1)
        sweep.core.moved("a", "paused", "slice ended")
        assert sweep.core.next_slice(2, [], []) is not None

    def test_without_a_free_slot_nobody_is_asked(self) -> None:
        sweep = Sweep()
        assert sweep.core.next_slice(1, ["x"], []) is None
        assert sweep.allocator.asked == 0

    def test_an_idle_process_gives_its_grant_for_the_next(self) -> None:
        sweep = Sweep(budget=100.0)
        sweep.start("a", epochs=1)
        sweep.hold(1.0)
        sweep.report(1)
        sweep.core.moved("a", "paused", "slice ended")
        free = sweep.state.ledger.free
        offer = sweep.core.next_slice(1, [], ["g0"])
        assert offer is not None
        assert offer[1].free == pytest.approx(free + sweep.state.ledger.granted)
        sweep.core.book(offer[0], sweep.search(), offer[1], "g0")
        assert list(sweep.state.ledger.grants) == ["g1"]


def test_a_trial_whose_start_took_too_long_is_told_to_save_while_there_is_time() -> None:
    sweep = Sweep(save_seconds=3.0, grace_seconds=2.0, boot_seconds=1.0)
    sweep.start()
    grant = sweep.state.ledger.grants["g0"]
    sweep.hold(grant.amount - 6.0, "setup")
    assert sweep.core.expiring(sweep.held) == set(), "it has not begun to train"
    sweep.hold(0.5, "train")
    assert sweep.core.expiring(sweep.held) == set()
    sweep.hold(0.7, "train")
    assert sweep.core.expiring(sweep.held) == {"a"}
    assert sweep.core.overdue(sweep.held) == []
    sweep.hold(3.0, "train")
    assert sweep.core.overdue(sweep.held) == ["a"]


def test_one_that_was_killed_for_its_time_is_given_more() -> None:
    sweep = Sweep(1000.0)
    sweep.start()
    sweep.hold(1.0)
    sweep.report(1, seconds=1.0)
    sweep.report(2, seconds=1.0)
    sweep.checkpoint()
    sweep.pause()
    amounts = []
    for _ in range(3):
        sweep.start(why="continue")
        amounts.append(sweep.state.ledger.grants[sweep.search().grant or ""].amount)
        sweep.core.crashed("a", "killed")
        sweep.pause()
    assert amounts == sorted(set(amounts)), amounts
