from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.allocation import Slice
from schedulers.allocators import AsyncHalving
from schedulers.charging import FLUSH_SECONDS
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.ending import FAILURES_IN_A_ROW
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import UNSEEN_SECONDS, MemoryBook, Sweep


class TestCrash:
    def test_what_was_held_since_the_last_checkpoint_is_lost_and_nothing_else(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.hold(2.0)
        sweep.report(1, seconds=2.0)
        sweep.checkpoint()
        sweep.hold(4.0)
        sweep.report(2, seconds=4.0)
        sweep.hold(1.5)
        sweep.core.crashed("a", "boom")
        assert sweep.kinds() == {"setup": 3.0, "train": 2.0, "lost": 5.5}
        assert (sweep.search().epochs, sweep.search().failures) == (1, 1)

    def test_training_that_was_booked_as_setup_before_a_checkpoint_is_not_lost(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.hold(1.0)
        sweep.report(1, seconds=1.0)
        sweep.checkpoint()
        sweep.hold(0.5)
        sweep.report(2, seconds=1.0)
        sweep.core.crashed("a", "boom")
        assert sweep.kinds()["lost"] == 0.5, "only half a second was held since the checkpoint"

    def test_a_crash_without_any_checkpoint_begins_again(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.core.crashed("a", "boom")
        sweep.core.crashed("a", "boom")
        assert sweep.kinds() == {"lost": 3.0}
        assert (sweep.search().epochs, sweep.search().failures) == (0, 2)

    def test_a_damaged_checkpoint_gives_way_to_the_one_before(self) -> None:
        sweep = Sweep()
        sweep.start()
        for epochs in (1, 2):
            sweep.report(epochs)
            sweep.checkpoint()
        sweep.core.drop_checkpoint("a", "a/2 is empty")
        assert (sweep.search().epochs, [kept.epochs for kept in sweep.search().checkpoints]) == (1, [1])
        sweep.core.drop_checkpoint("a", "a/1 is empty")
        assert (sweep.search().epochs, sweep.search().checkpoints) == (0, [])

    def test_what_a_damaged_checkpoint_cost_is_entered(self) -> None:
        sweep = Sweep()
        sweep.start()
        for epochs, seconds in ((1, 2.0), (2, 3.0)):
            sweep.hold(seconds)
            sweep.report(epochs, seconds=seconds)
            sweep.checkpoint()
        sweep.hold(0.5, "idle")
        sweep.core.post()
        for why in ("newest", "the one before"):
            sweep.core.drop_checkpoint("a", why)
        newest, before = sweep.search().lost_checkpoints
        assert (newest.epochs, newest.run, newest.why, before.epochs) == (1, 1, "newest", 1)
        assert (newest.device_seconds, before.device_seconds) == pytest.approx((3.5, 2.0), abs=1e-4)
        assert sweep.kinds() == {"lost": 5.5}
        again = SweepState.from_json(json.loads(json.dumps(sweep.state.to_json())))
        assert again == sweep.state

    def test_a_boot_that_was_killed_gives_the_next_one_more_time(self) -> None:
        sweep = Sweep(full_epochs=50)
        sweep.start()
        sweep.hold(1.0, "setup")
        sweep.hold(1.0)
        sweep.report(1, seconds=1.0)
        sweep.checkpoint()
        sweep.pause()
        sweep.core.close("g0")
        granted = []
        for _ in range(2):
            sweep.start(epochs=2)
            granted.append(sweep.state.ledger.granted)
            sweep.hold(12.0, "setup")
            sweep.core.crashed("a", "killed")
            sweep.pause()
            sweep.core.close(sweep.search().grant or "")
        assert granted[1] > granted[0] + 5.0, "it took more than 12 s in vain"


class TestResume:
    def crashed(self, **rules: Any) -> Sweep:
        """A sweep whose driver died while trial a, with a checkpoint at epoch 1, was in its second epoch."""
        sweep = Sweep(budget=400.0, full_epochs=50, **rules)
        sweep.start(epochs=4)
        sweep.hold(3.0, "setup")
        sweep.hold(10.0)
        sweep.report(1, seconds=10.0)
        sweep.checkpoint()
        sweep.hold(4.0)
        sweep.kinds()
        return sweep

    def test_open_grants_are_charged_for_what_nobody_saw_and_closed(self) -> None:
        before = self.crashed()
        after = Sweep(budget=400.0, full_epochs=50, records=before.book.records)
        unseen = FLUSH_SECONDS + UNSEEN_SECONDS
        assert after.kinds() == {"setup": 3.0, "train": 10.0, "lost": 4.0 + unseen}
        assert (after.state.ledger.granted, after.state.ledger.grants) == (0.0, {})
        assert (after.search().state, after.search().epochs, after.search().grant) == ("paused", 1, None)
        assert after.state.runs == 2

    def test_no_more_than_the_rest_of_a_grant_is_charged(self) -> None:
        before = self.crashed()
        left = before.state.ledger.granted
        before.hold(left - 2.5)
        before.kinds()
        after = Sweep(budget=400.0, full_epochs=50, records=before.book.records)
        assert after.state.ledger.spent == pytest.approx(before.state.ledger.spent + 2.5)

    def test_resuming_again_charges_nothing_more(self) -> None:
        once = Sweep(budget=400.0, full_epochs=50, records=self.crashed().book.records)
        again = Sweep(budget=400.0, full_epochs=50, records=once.book.records)
        assert again.kinds() == once.kinds()
        assert again.search() == once.search()
        assert again.state.runs == 3

    def test_the_account_goes_on_where_it_was_and_names_no_grant_twice(self) -> None:
        before = self.crashed()
        after = Sweep(budget=400.0, full_epochs=50, records=before.book.records)
        after.start(epochs=1)
        assert after.search().grant == "g1"
        after.hold(2.0, "setup")
        assert sum(after.kinds().values()) == pytest.approx(sum(before.kinds().values()) + 6.0 + 2.0)

    def test_a_raised_budget_is_entered_and_a_lowered_one_only_if_it_covers_what_is_spent(self) -> None:
        records = self.crashed().book.records
        assert Sweep(budget=500.0, records=records).state.ledger.budget == 500.0
        assert Sweep(budget=300.0, records=records).state.ledger.budget == 300.0
        with pytest.raises(ValueError, match=r"the budget 15 cpu-seconds is below the 2\.\d cpu-minutes"):
            Sweep(budget=15.0, records=records)

    def test_a_sweep_that_a_late_kill_overdrew_can_still_be_resumed_and_ended(self) -> None:
        before = Sweep(budget=30.0)
        before.start(epochs=1, horizon=None)
        before.hold(30.2, "setup")
        before.core.post()
        after = Sweep(budget=30.0, records=before.book.records)
        assert after.core.next_slice(1, [], []) is None
        after.core.end()
        assert after.state.ledger.spent == pytest.approx(30.2)

    def test_under_another_number_of_devices_the_old_grant_is_charged_all_the_same(self) -> None:
        before = self.crashed(devices=2.0)
        after = Sweep(budget=400.0, records=before.book.records, devices=1.0)
        assert after.state.ledger.spent > before.state.ledger.spent
        assert after.state.ledger.grants == {}


class TestMeasuring:
    @given(st.floats(1.0, 2000.0), st.integers(1, 16), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.integers(0, 3))
    def test_a_first_grant_leaves_seconds_to_step(
        self, budget: float, slots: int, devices: float, failures: int
    ) -> None:
        """Whatever the budget, if a grant is offered at all."""
        sweep = Sweep(budget=budget, devices=devices, slice_told=True)
        names = [f"t{index}" for index in range(slots)]
        for index, name in enumerate(names):
            offer = sweep.core.next_slice(slots, names[:index], [])
            if offer is None:
                break
            search = sweep.core.add_search(name, {})
            search.failures = failures
            assert sweep.core.book(Slice(name, 1, None, "measure"), search, offer[1], None) > 0
        assert sweep.state.ledger.granted <= budget + 1e-6

    @pytest.mark.parametrize("slots", [1, 2, 4])
    def test_first_grants_of_a_small_budget_are_all_of_it(self, slots: int) -> None:
        sweep = Sweep(100.0 * slots, allocator=AsyncHalving(), slice_told=True, horizon_told=True)
        for index in range(slots):
            offer = sweep.core.next_slice(slots, [f"t{busy}" for busy in range(index)], [])
            assert offer is not None
            sweep.core.book(offer[0], sweep.core.add_search(f"t{index}", {}), offer[1], None)
        granted = [grant.amount for grant in sweep.state.ledger.grants.values()]
        assert granted == pytest.approx([100.0] * slots)

    @pytest.mark.parametrize("boot_seconds", [12.0, 300.0])
    def test_a_first_grant_is_enough_for_a_boot(self, boot_seconds: float) -> None:
        sweep = Sweep(budget=30_000.0, allocator=AsyncHalving(), boot_seconds=boot_seconds)
        piece, view = sweep.offer(slots=16)
        stepping = sweep.core.book(piece, sweep.core.add_search("a", {}), view, None)
        assert stepping > boot_seconds

    def test_after_a_failure_the_next_is_twice_as_large(self) -> None:
        sweep = Sweep(budget=86_400.0)
        amounts = []
        for _ in range(2):
            sweep.start(epochs=1, horizon=None, why="measure")
            amounts.append(sweep.state.ledger.granted)
            sweep.core.crashed("a", "killed")
            sweep.pause()
        assert amounts[1] == 2 * amounts[0]


class TestTheEnd:
    def test_a_budget_too_small_for_an_epoch_is_an_error_with_the_number_that_would_do(self) -> None:
        sweep = Sweep(budget=30.0, slice_told=True, horizon_told=True)
        seconds = sweep.start(epochs=1, horizon=None)
        sweep.hold(5.0, "setup")
        sweep.hold(seconds)
        assert sweep.report(0, seconds=seconds, cut=True, epoch_seconds=None, epoch_fraction=0.1) == "pause"
        sweep.checkpoint()
        sweep.pause()
        sweep.core.end()
        assert sweep.state.end == "failed"
        found = re.search(r"30.0 cpu-seconds is too small .* about ([\d.]+) cpu-minutes would do", sweep.state.end_why)
        assert found is not None, sweep.state.end_why
        assert 10 * seconds <= 60 * float(found[1]) <= 20 * seconds, "a tenth of an epoch took so many seconds"

    def test_what_remains_is_said(self) -> None:
        sweep = Sweep(budget=100.0)
        sweep.start()
        sweep.hold(3.0, "setup")
        sweep.hold(7.0)
        sweep.report(1, seconds=7.0)
        sweep.core.end()
        assert (sweep.state.end, sweep.state.ledger.grants) == ("finished", {})
        assert sweep.state.end_why.startswith("1.5 cpu-minutes remain")
        assert sweep.book.flushed == len(sweep.book.records)

    def test_an_interruption_is_not_an_end(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.core.end("it was told to stop")
        assert sweep.state.end == "interrupted"

    def test_one_search_that_fails_is_named_and_not_the_budget(self) -> None:
        sweep = Sweep()
        sweep.start()
        sweep.core.crashed("a", "no data")
        sweep.core.moved("a", "failed", "no data")
        sweep.core.end()
        assert sweep.state.end == "failed"
        assert "no data" in sweep.state.end_why
        assert "too small" not in sweep.state.end_why


def test_three_searches_that_all_failed_before_any_report_end_the_sweep() -> None:
    sweep = Sweep()
    for name in "abc":
        assert sweep.core.next_slice(1, [], []) is not None
        sweep.start(name)
        for _ in range(FAILURES_IN_A_ROW):
            sweep.core.crashed(name, f"{name} has no data")
        sweep.core.moved(name, "failed", f"{name} has no data")
    assert sweep.core.next_slice(1, [], []) is None
    sweep.core.end()
    assert (sweep.state.end, "c has no data" in sweep.state.end_why) == ("failed", True)


def test_halving_decides_the_same_after_a_replay() -> None:
    sweep = Sweep(full_epochs=16)
    for index, name in enumerate("abcd"):
        sweep.start(name, epochs=4)
        for epochs in range(1, 5):
            sweep.report(epochs, index / epochs, name=name)
        sweep.core.moved(name, "paused", "slice ended")
        sweep.core.close(sweep.search(name).grant or "")
    answers = set()
    for _ in range(2):
        again, clock = SweepState.replay(None, sweep.book.records), SimulatedClock()
        core = SweepCore(MemoryBook(clock, sweep.book.records), again, AsyncHalving(), clock, sweep.core.rules)
        offer = core.next_slice(1, [], [])
        assert offer is not None
        answers.add(offer[0])
    assert answers == {Slice("d", 4, 16, "continue")}


def test_a_journal_that_ends_while_a_trial_was_to_keep_its_slot_loses_what_was_not_saved() -> None:
    sweep = Sweep(budget=400.0, full_epochs=8)
    sweep.start(epochs=2)
    sweep.hold(3.0, "setup")
    sweep.hold(4.0)
    sweep.report(2, seconds=4.0)
    sweep.core.flush()
    assert sweep.core.keep_slot("a", 1, ["a"]) is not None
    paused = next(record["number"] for record in sweep.book.records if record.get("state") == "paused")
    after = Sweep(budget=400.0, records=sweep.book.records[:paused])
    assert (after.search().state, after.search().epochs) == ("paused", 0)
    assert after.kinds().keys() == {"lost"}


def test_a_driver_that_dies_while_a_trial_leaves_its_slot_loses_what_was_not_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = Sweep(budget=400.0, full_epochs=8)
    sweep.start(epochs=2)
    sweep.hold(3.0, "setup")
    sweep.hold(4.0)
    sweep.report(2, seconds=4.0)
    sweep.core.no_more_searches()
    monkeypatch.setattr(sweep.allocator, "next_slice", lambda view: None)
    assert sweep.core.keep_slot("a", 1, ["a"]) is None
    sweep.core.saving("a")
    sweep.core.flush()
    after = Sweep(budget=400.0, records=sweep.book.records)
    assert (after.search().state, after.search().epochs) == ("paused", 0)
    assert after.kinds() == {"lost": 7.0 + FLUSH_SECONDS + UNSEEN_SECONDS}
