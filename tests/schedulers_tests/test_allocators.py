from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.allocation import SLICE_MARGIN, Allocator, Slice, SweepView, planned_horizon
from schedulers.allocators import AsyncHalving, EqualShare, geometric_rungs, halving_without_horizon, rungs_of_horizon
from schedulers.search_record import SearchRecord, SearchStatus


def search(index: int, epochs: int = 0, horizon: int | None = 16, state: SearchStatus = "paused") -> SearchRecord:
    known: dict[str, Any] = {"epoch_seconds": [1.0], "curve": [(epochs, 0.5)]} if epochs else {}
    return SearchRecord(f"t{index}", index, {}, state, epochs, epochs, horizon if epochs else None, **known)


PLENTY = SweepView(
    budget=1000.0,
    spent=0.0,
    free=1000.0,
    slots=1,
    devices=1.0,
    full_horizon=16,
    epoch_seconds=1.0,
    overhead_seconds=3.0,
    waiting=(),
    searches=0,
    ended=0,
    spent_on=lambda search: float(search.epochs),
    gone=lambda: 0.0,
    more_searches=True,
    pausable=True,
    horizon_told=True,
)


def ask(allocator: Allocator, *waiting: SearchRecord, **changes: Any) -> Slice | None:
    for one in waiting:
        allocator.moved(one)
    return allocator.next_slice(replace(PLENTY, waiting=waiting, **{"searches": len(waiting), **changes}))


def observe(allocator: Allocator, epochs: int, *values: float) -> None:
    for index, value in enumerate(values):
        allocator.observe(search(index, epochs), epochs, value)


class TestRungs:
    @pytest.mark.parametrize(
        ("horizon", "rungs"),
        [(1, []), (2, []), (3, [2]), (4, [2]), (5, [2]), (8, [2, 4]), (16, [4, 8]), (100, [25, 50])],
    )
    def test_a_quarter_and_a_half(self, horizon: int, rungs: list[int]) -> None:
        assert rungs_of_horizon(horizon, (0.25, 0.5)) == rungs

    @given(st.integers(1, 500), st.lists(st.floats(0.001, 0.999), max_size=5))
    def test_never_below_two_epochs_nor_at_the_end(self, horizon: int, fractions: list[float]) -> None:
        rungs = rungs_of_horizon(horizon, fractions)
        assert rungs == sorted(set(rungs))
        assert all(2 <= rung < horizon for rung in rungs)

    @pytest.mark.parametrize(
        ("grace_period", "eta", "max_t", "rungs"),
        [(1, 4, 100, [1, 4, 16, 64]), (1, 4, 64, [1, 4, 16]), (3, 3, 81, [3, 9, 27]), (1, 4, 1, []), (9, 2, 5, [])],
    )
    def test_those_of_asha(self, grace_period: int, eta: int, max_t: int, rungs: list[int]) -> None:
        assert geometric_rungs(grace_period, eta, max_t) == rungs

    @given(st.integers(1, 50), st.integers(2, 10), st.integers(1, 100_000))
    def test_all_powers_below_the_end(self, grace_period: int, eta: int, max_t: int) -> None:
        expected = [grace_period * eta**power for power in range(20) if grace_period * eta**power < max_t]
        assert geometric_rungs(grace_period, eta, max_t) == expected

    def test_a_first_rung_behind_the_end_means_no_rung(self) -> None:
        assert ask(AsyncHalving(rungs=[]), search(0, 5)) == Slice("t0", 11, 16, "continue")


@pytest.mark.parametrize("arguments", [{"eta": 1}, {"fractions": (0.5, 1.0)}, {"fractions": (0.0,)}])
def test_halving_refuses_what_is_no_rung(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"eta is 1|a rung at (1|0)\.0 of the horizon"):
        AsyncHalving(**arguments)


class TestMeasuring:
    """Before the first epoch's end nobody knows a horizon: one epoch each."""

    @pytest.mark.parametrize("allocator", [AsyncHalving(), EqualShare(4)])
    def test_new_searches_run_one_epoch(self, allocator: Allocator) -> None:
        unknown = {"full_horizon": None, "epoch_seconds": None}
        assert ask(allocator, **unknown) == Slice(None, 1, None, "measure")
        assert ask(allocator, search(0), **unknown) == Slice("t0", 1, None, "measure")
        assert ask(allocator, **unknown, more_searches=False) is None
        assert ask(allocator, **unknown, free=3.0) is None, "the overhead alone is 3 seconds"


class TestHalving:
    def test_a_new_search_runs_to_the_first_rung(self) -> None:
        assert ask(AsyncHalving()) == Slice(None, 4, 16, "new")

    def test_what_is_between_rungs_goes_on_to_the_next(self) -> None:
        assert ask(AsyncHalving(), search(0, 1)) == Slice("t0", 3, 16, "continue")
        assert ask(AsyncHalving(), search(0, 5)) == Slice("t0", 3, 16, "continue")
        assert ask(AsyncHalving(), search(0, 9)) == Slice("t0", 7, 16, "continue")

    def test_the_best_so_far_at_a_rung_goes_on_at_once(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 4, 0.5)
        assert ask(allocator, search(0, 4)) == Slice("t0", 4, 16, "continue")

    def test_with_queued_promotion_it_waits_for_eta_of_them(self) -> None:
        allocator = AsyncHalving(continue_at_once=False)
        waiting = [search(index, 4) for index in range(3)]
        observe(allocator, 4, 0.5, 0.6)
        assert ask(allocator, *waiting[:2]) == Slice(None, 4, 16, "new")
        allocator.observe(waiting[2], 4, 0.4)
        assert ask(allocator, *waiting) == Slice("t1", 4, 16, "continue")

    @pytest.mark.parametrize("mine", [0.3, 0.5])
    def test_a_loser_waits_and_goes_on_when_worse_ones_have_come_by(self, mine: float) -> None:
        allocator = AsyncHalving()
        observe(allocator, 4, 0.9, mine)
        loser = search(1, 4)
        assert ask(allocator, loser) == Slice(None, 4, 16, "new")
        for index in range(2, 5):
            allocator.observe(search(index, 4), 4, 0.1)
        assert ask(allocator, loser) == Slice(None, 4, 16, "new"), "a third of 5 is 1"
        allocator.observe(search(5, 4), 4, 0.1)
        assert ask(allocator, loser) == Slice("t1", 4, 16, "continue"), "a third of 6 is 2"

    def test_the_highest_rung_comes_first(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 4, 0.5, 0.6)
        observe(allocator, 8, 0.5)
        assert ask(allocator, search(1, 4), search(0, 8)) == Slice("t0", 8, 16, "continue")

    def test_equal_values_are_ranked_by_age(self) -> None:
        allocator = AsyncHalving()
        allocator.observe(search(1, 4), 4, 0.5)
        allocator.observe(search(0, 4), 4, 0.5)
        assert ask(allocator, search(0, 4), search(1, 4)) == Slice("t0", 4, 16, "continue")

    def test_a_search_that_was_not_ranked_never_passes_a_rung(self) -> None:
        assert ask(AsyncHalving(), search(0, 4)) == Slice(None, 4, 16, "new")

    @pytest.mark.parametrize("slots", [1, 8])
    def test_one_that_has_diverged_keeps_nobody_from_passing_its_rung(self, slots: int) -> None:
        allocator = halving_without_horizon(16)
        diverged = replace(search(0, 4), curve=[(3, 0.9)])
        observe(allocator, 3, 0.9)
        for index in range(1, 5):
            allocator.observe(search(index, 4), 4, 0.1 * index)
        waiting = [diverged, *(search(index, 4) for index in range(1, 5))]
        seen = {"slots": slots, "horizon_told": False}
        assert ask(allocator, *waiting, **seen) == Slice("t4", 12, 16, "continue")
        assert ask(allocator, *waiting[:-1], **seen, more_searches=False) == Slice("t3", 12, 16, "continue")

    def test_one_that_was_stopped_before_its_slice_ended_has_not_diverged(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 5, 0.1)
        stopped = replace(search(1, 6), target=8, curve=[(5, 0.9)])
        allocator.observe(stopped, 5, 0.9)
        assert ask(allocator, search(0, 6), stopped, more_searches=False) == Slice("t1", 2, 16, "continue")

    def test_a_search_that_crashed_and_comes_again_is_entered_once(self) -> None:
        allocator = AsyncHalving(continue_at_once=False)
        for _ in range(3):
            allocator.observe(search(0, 4), 4, 0.5)
        assert ask(allocator, search(0, 4)) == Slice(None, 4, 16, "new")

    def test_where_a_horizon_is_told_the_value_at_the_rung_decides(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 3, 0.9, 0.1)
        observe(allocator, 4, 0.4, 0.5)
        assert ask(allocator, search(0, 4), search(1, 4)) == Slice("t1", 4, 16, "continue")

    def test_at_fixed_rungs_too_unless_the_best_so_far_is_to_decide(self) -> None:
        allocator = AsyncHalving(rungs=[4, 8])
        observe(allocator, 3, 0.9, 0.1)
        observe(allocator, 4, 0.4, 0.5)
        assert ask(allocator, search(0, 4), search(1, 4)) == Slice("t1", 4, 16, "continue")

    def test_the_best_so_far_decides_where_that_is_asked_for(self) -> None:
        allocator = AsyncHalving(rungs=[4, 8], by_best=True)
        observe(allocator, 3, 0.9, 0.1)
        observe(allocator, 4, 0.4, 0.5)
        assert ask(allocator, search(0, 4), search(1, 4)) == Slice("t0", 4, 16, "continue")

    def test_what_was_seen_before_the_plan_counts_at_the_rungs(self) -> None:
        allocator = AsyncHalving(rungs=[1, 4])
        observe(allocator, 1, 0.5, 0.6)
        assert ask(allocator, search(0, 1), search(1, 1)) == Slice("t1", 3, 16, "continue")

    def test_a_search_at_its_horizon_is_not_asked_again(self) -> None:
        assert ask(AsyncHalving(), search(0, 16), more_searches=False) is None
        assert ask(AsyncHalving(), search(0, 5, horizon=5), more_searches=False) is None

    def test_a_slice_is_no_longer_than_what_is_free(self) -> None:
        assert ask(AsyncHalving(), free=3.0 + 2 * SLICE_MARGIN + 0.01) == Slice(None, 2, 16, "new")
        assert ask(AsyncHalving(), free=3.0 + SLICE_MARGIN - 0.01) is None

    def test_the_order_of_reports_does_not_matter_to_a_replay(self) -> None:
        values = {index: random.Random(index).random() for index in range(9)}
        waiting = [search(index, 4) for index in values]
        answers = set()
        for seed in range(5):
            allocator = AsyncHalving()
            for index in random.Random(seed).sample(list(values), len(values)):
                allocator.observe(waiting[index], 4, values[index])
            answers.add(ask(allocator, *waiting))
        assert len(answers) == 1


def endgame(left: float, **changes: Any) -> dict[str, Any]:
    """A sweep of one slot that has so many wall seconds left, all of them free."""
    return {"budget": 1000.0, "spent": 1000.0 - left, "free": left, **changes}


class TestPlan:
    def test_the_budget_buys_so_many_full_searches(self) -> None:
        assert planned_horizon(800.0, 0.0, 8, 1.0) == 100
        assert planned_horizon(800.0, 80.0, 8, 1.0) == 90, "booting costs, too"
        assert planned_horizon(800.0, 0.0, 8, 2.0, beside=10.0) == 45
        assert planned_horizon(800.0, 0.0, 8, 1.0, in_time=60.0) == 60, "the deadline is nearer"

    def test_a_small_budget_has_fewer_searches_that_can_be_compared(self) -> None:
        assert planned_horizon(6.0, 0.0, 8, 1.0) == 4
        assert planned_horizon(6.0, 0.0, 8, 1.0, in_time=3.0) == 3
        assert planned_horizon(0.5, 0.0, 8, 1.0) == 1


class TestEndgame:
    """Begins below 0.4 of a full search: here 6.4 epochs of a second each, of 16."""

    def test_no_new_search_begins_while_another_waits(self) -> None:
        assert ask(AsyncHalving(), **endgame(6.45)) == Slice(None, 3, 16, "new"), "not yet"
        allocator = AsyncHalving()
        observe(allocator, 4, 0.9, 0.5)
        piece = ask(allocator, search(1, 4), **endgame(6.35, overhead_seconds=0.5))
        assert piece == Slice("t1", 4, 9, "endgame"), "it would be paused at its rung otherwise"

    def test_the_horizon_is_what_is_done_and_what_the_slot_can_run(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5)
        assert ask(allocator, search(0, 8), **endgame(6.35)) == Slice("t0", 3, 11, "endgame")
        piece = ask(allocator, search(0, 8), **endgame(6.35, overhead_seconds=0.0))
        assert piece == Slice("t0", 4, 14, "endgame"), "a slice is a quarter of the full horizon"

    def test_a_horizon_is_never_lengthened(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5)
        shortened = search(0, 8, horizon=10)
        assert ask(allocator, shortened, **endgame(6.35, overhead_seconds=0.0)) == Slice("t0", 2, 10, "endgame")

    def test_a_horizon_that_is_not_told_stays(self) -> None:
        allocator = AsyncHalving(rungs=[1, 4])
        observe(allocator, 4, 0.5)
        piece = ask(allocator, search(0, 4), **endgame(6.35, horizon_told=False))
        assert piece == Slice("t0", 3, 16, "endgame")

    def test_a_search_keeps_its_slot_unless_another_leads(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5, 0.4)
        mine, other = search(0, 8), search(1, 8)
        piece = ask(allocator, other, mine, **endgame(6.0, overhead_seconds=0.0))
        assert piece is not None
        assert piece.search == "t0"
        allocator.observe(search(1, 9), 9, 0.6)
        piece = ask(allocator, other, mine, **endgame(6.0, overhead_seconds=0.0))
        assert piece is not None
        assert piece.search == "t1"

    def test_slots_for_which_the_budget_does_not_suffice_stay_empty(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5, 0.4)
        best, other = search(0, 8), search(1, 8)
        two = endgame(12.5, slots=2, overhead_seconds=0.0)
        assert ask(allocator, best, other, **two) == Slice("t0", 4, 16, "endgame"), "it can be finished"
        allocator.moved(replace(best, state="running"))
        assert ask(allocator, other, **two) == Slice("t1", 3, 11, "endgame"), "4.1 s are left when the best has ended"
        assert ask(allocator, other, **{**two, "spent": 991.0}) is None, "the best one needs what is left"

    def test_without_new_searches_what_no_other_needs_makes_horizons_longer(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5, 0.4)
        last = {"more_searches": False, "slots": 2, "overhead_seconds": 0.0}
        best, other = search(0, 8), search(1, 8)
        assert ask(allocator, best, other, **endgame(42.5), **last) == Slice("t0", 4, 28, "endgame"), "half for each"
        assert ask(allocator, best, other, **endgame(9.0), **last) == Slice("t0", 4, 16, "endgame"), "it is finished"
        allocator.moved(replace(best, state="running"))
        assert ask(allocator, other, **{**endgame(9.0), **last, "searches": 2}) is None, "nothing is to spare"

    def test_no_horizon_is_cut_as_others_have_more_in_their_grants_than_they_need(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5, 0.4)
        allocator.moved(search(0, 8, state="running"))
        much = {**endgame(30.0, slots=8, overhead_seconds=0.0), "free": 3.5, "searches": 2}
        assert ask(allocator, search(1, 8), **much) is None, "more will be free"
        alone = AsyncHalving()
        observe(alone, 8, 0.0, 0.4)
        assert ask(alone, search(1, 8), **{**much, "searches": 1}) == Slice("t1", 3, 16, "endgame")

    def test_it_goes_on_when_slots_go_that_it_leaves_empty(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5)
        many, few = endgame(25.0, slots=8, overhead_seconds=0.0), endgame(25.0, slots=2, overhead_seconds=0.0)
        assert ask(allocator, search(0, 8), **many) == Slice("t0", 4, 16, "endgame")
        piece = ask(allocator, search(0, 8), **few)
        assert piece == Slice("t0", 4, 16, "endgame")
        assert ask(AsyncHalving(), search(0, 8), **few) != piece

    def test_a_rest_too_small_for_every_slot_is_spent_in_one(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5)
        assert ask(allocator, search(0, 8), **endgame(6.0, slots=4)) == Slice("t0", 2, 10, "endgame")

    def test_it_ends_when_no_epoch_fits(self) -> None:
        allocator = AsyncHalving()
        observe(allocator, 8, 0.5)
        assert ask(allocator, search(0, 8), **endgame(4.0)) is None

    def test_with_nothing_to_finish_a_short_search_is_better_than_none(self) -> None:
        assert ask(AsyncHalving(), **endgame(6.0)) == Slice(None, 2, 2, "endgame")
        assert ask(AsyncHalving(), **endgame(5.0)) is None, "one epoch at p = 1 finds nothing"

    def test_with_nothing_to_finish_no_more_searches_begin_than_the_budget_can_finish(self) -> None:
        allocator = AsyncHalving()
        many = endgame(20.0, slots=8, overhead_seconds=0.0)
        assert ask(allocator, **many) == Slice(None, 16, 16, "endgame")
        allocator.moved(search(0, state="running"))
        assert ask(allocator, **many) == Slice(None, 3, 3, "endgame")
        allocator.moved(search(1, 1, horizon=3, state="running"))
        assert ask(allocator, **many) is None

    def test_a_full_search_longer_than_the_budget_does_not_begin_it_at_once_in_one_slot(self) -> None:
        foreign = {"budget": 60.0, "full_horizon": 1000, "horizon_told": False}
        allocator = AsyncHalving(rungs=[1, 4], continue_at_once=False)
        observe(allocator, 1, 0.5)
        piece = ask(allocator, search(0, 1, 1000), **foreign, spent=35.0, free=25.0)
        assert piece == Slice(None, 1, 1000, "new")
        piece = ask(allocator, search(0, 1, 1000), **foreign, spent=37.0, free=23.0)
        assert piece == Slice("t0", 18, 1000, "endgame")


class TestLeader:
    def test_with_many_slots_the_best_so_far_goes_on_whatever_its_rung_says(self) -> None:
        allocator = halving_without_horizon(16)
        observe(allocator, 1, 0.3, 0.9)
        waiting = [search(0, 1), search(1, 1)]
        assert ask(allocator, *waiting, slots=7) == Slice(None, 1, 16, "new"), "it is not in the best fourth"
        assert ask(allocator, *waiting, slots=8) == Slice("t1", 3, 16, "continue")

    def test_while_it_runs_nobody_takes_its_place(self) -> None:
        allocator = halving_without_horizon(16)
        observe(allocator, 1, 0.3, 0.9)
        allocator.moved(search(1, 1, state="running"))
        assert ask(allocator, search(0, 1), slots=8) == Slice(None, 1, 16, "new")

    def test_a_leader_at_its_end_leaves_the_slot_to_others(self) -> None:
        allocator = halving_without_horizon(16)
        observe(allocator, 16, 0.3, 0.9)
        assert ask(allocator, search(1, 16, state="finished"), slots=8) == Slice(None, 1, 16, "new")


@pytest.mark.parametrize("eta", [0, 1])
def test_one_in_less_than_two_is_refused(eta: int) -> None:
    with pytest.raises(ValueError, match=f"eta is {eta}, but must be 2 or more"):
        AsyncHalving(eta=eta)
    with pytest.raises(ValueError, match=f"eta is {eta}, but must be 2 or more"):
        halving_without_horizon(16, eta=eta)


class TestEqualShare:
    def test_every_search_gets_the_same(self) -> None:
        piece = ask(EqualShare(4))
        assert piece == Slice(None, 59, 235, "share"), "250 s, less 3 for a grant, in epochs of 1.05 s; a quarter first"

    def test_a_search_is_planned_again_from_what_is_left_of_its_share(self) -> None:
        half_way = search(0, 100, 235)
        piece = ask(EqualShare(4), half_way, spent_on=lambda _: 150.0)
        assert piece == Slice("t0", 48, 192, "share")

    def test_the_last_slice_ends_at_the_horizon(self) -> None:
        piece = ask(EqualShare(4), search(0, 190, 192), spent_on=lambda _: 244.0)
        assert piece == Slice("t0", 2, 192, "share")

    def test_what_ended_searches_did_not_use_goes_to_the_others(self) -> None:
        piece = ask(EqualShare(4), searches=3, ended=3, gone=lambda: 30.0)
        assert piece is not None
        assert 0.9 * 967 <= (piece.horizon or 0) <= 967, "970 s are left to one, 3 of them for its next grant"

    def test_no_more_searches_than_were_asked_for(self) -> None:
        view = replace(PLENTY, searches=4, waiting=())
        assert EqualShare(4).next_slice(view) is None
        assert EqualShare(5).next_slice(view) is not None

    def test_one_search_has_the_whole_budget(self) -> None:
        piece = ask(EqualShare(1))
        assert piece is not None
        assert 0.9 * 997 <= (piece.horizon or 0) <= 997

    def test_a_share_that_buys_no_epoch_ends_it(self) -> None:
        assert ask(EqualShare(4), search(0, 190), spent_on=lambda _: 246.5, more_searches=False) is None

    def test_no_search_cannot_share(self) -> None:
        with pytest.raises(ValueError, match="searches is 0"):
            EqualShare(0)

    @given(st.integers(1, 6), st.floats(40.0, 1000.0), st.floats(0.5, 1.5), st.floats(0.0, 3.0))
    def test_the_whole_share_is_used_and_ends_at_the_horizon(
        self, searches: int, share: float, seconds: float, overhead: float
    ) -> None:
        """A search alone, epochs of constant length: its last epoch is its horizon's, so that p = k there."""
        allocator, budget = EqualShare(searches), share * searches
        mine, held = search(0), 0.0
        while True:
            piece = ask(
                allocator, mine, budget=budget, spent=held, free=budget - held, epoch_seconds=seconds,
                overhead_seconds=overhead, spent_on=lambda _, held=held: held, more_searches=False,
            )  # fmt: skip
            assert piece is not None, "it ends at its horizon, not because nothing fits"
            held += overhead + piece.epochs * seconds
            mine.epochs, mine.horizon, mine.epoch_seconds = mine.epochs + piece.epochs, piece.horizon, [seconds]
            if mine.epochs == mine.horizon:
                break
        assert held <= share
        assert held >= share * 0.97 - 2 * seconds - overhead
