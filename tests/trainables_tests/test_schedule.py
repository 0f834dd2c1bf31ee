from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.schedule import Schedule, cosine_learning_rate, exploration_probability
from trainables.settings import Anneal


def _p(schedule: Schedule, epoch: int, k: float = 0.1) -> float:
    return exploration_probability(schedule.clock(epoch), k)


@pytest.mark.parametrize("horizon", [2, 3, 30, 1000])
@pytest.mark.parametrize("k", [0.01, 0.1, 0.5, 1.0])
def test_p_is_1_in_the_first_epoch_and_k_in_the_last(horizon: int, k: float) -> None:
    schedule = Schedule.replay("endpoints", [(0, horizon)], 10)
    assert _p(schedule, 1, k) == 1.0
    assert _p(schedule, horizon, k) == k


def test_clock_is_a_straight_line() -> None:
    schedule = Schedule.replay("endpoints", [(0, 5)], 10)
    assert [schedule.clock(epoch) for epoch in range(1, 6)] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("anneal", ["endpoints", "paper"])
def test_a_horizon_of_one_epoch_only_explores(anneal: Anneal) -> None:
    schedule = Schedule.replay(anneal, [(0, 1)], 10)
    assert schedule.clock(1) == 0.0


def test_paper_annealing_is_beta_to_the_epoch_from_the_second_on() -> None:
    schedule, k, n = Schedule.replay("paper", [(0, 20)], 10), 0.1, 20
    beta = math.exp(math.log(k) / n)
    assert _p(schedule, 1) == 1.0
    assert [_p(schedule, epoch, k) for epoch in range(2, 21)] == pytest.approx([beta**epoch for epoch in range(2, 21)])


@pytest.mark.parametrize("anneal", ["endpoints", "paper"])
def test_a_horizon_told_after_the_first_epoch_is_as_good_as_told_at_once(anneal: Anneal) -> None:
    at_once = Schedule.replay(anneal, [(0, 12)], 10)
    later = Schedule.replay(anneal, [(10, 12)], 10)
    assert at_once == later


def test_a_changed_horizon_follows_the_formula() -> None:
    # Told in the middle of epoch 4 of 9 that there will be 14: c(e) = c0 + (1 - c0) (e - 4) / (14 - 4).
    schedule = Schedule.replay("endpoints", [(0, 9), (35, 14)], 10)
    c0 = 3 / 8
    assert [schedule.clock(e) for e in range(4, 15)] == pytest.approx(
        [c0 + (1 - c0) * (e - 4) / 10 for e in range(4, 15)]
    )


@st.composite
def _lives(draw: st.DrawFn) -> tuple[Anneal, float, list[tuple[int, int]]]:
    """A way of annealing, k, and the horizon that is told so many batches (10 an epoch) after the last one was."""
    changes = draw(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 60)), min_size=1, max_size=6))
    anneal: Anneal = draw(st.sampled_from(["endpoints", "paper"]))
    return anneal, draw(st.floats(0.01, 1.0)), changes


@given(_lives())
def test_the_clock_is_continuous_and_p_never_rises_whatever_horizons_are_told(
    life: tuple[Anneal, float, list[tuple[int, int]]],
) -> None:
    anneal, k, changes = life
    history: list[tuple[int, int | None]] = [(0, changes[0][1])]
    done, clocks = 0, [0.0]
    for batches, horizon in [*changes[1:], (10_000, changes[-1][1])]:
        schedule = Schedule.replay(anneal, history, 10)
        end = min(done + batches, max(10 * (schedule.horizon or 0), 10 * math.ceil(done / 10)))
        first, last = math.ceil(done / 10) + 1, math.ceil(end / 10)
        if done > 0:
            assert schedule.clock(math.ceil(done / 10)) == clocks[-1]
        clocks += [schedule.clock(epoch) for epoch in range(max(first, 2), last + 1)]
        done = end
        history.append((done, horizon))
    assert all(0.0 <= clock <= 1.0 for clock in clocks)
    ps = [exploration_probability(clock, k) for clock in clocks]
    assert all(later <= earlier for earlier, later in itertools.pairwise(ps))
    assert ps[0] == 1.0
    if schedule.anchor_epoch < len(clocks) == schedule.horizon and len(clocks) > 1:
        assert ps[-1] == pytest.approx(k)


def test_an_epoch_without_a_horizon_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"epoch 2 needs a horizon.*'horizon'"):
        Schedule.start("endpoints").clock(2)
    with pytest.raises(ValueError, match="beyond the horizon of 3"):
        Schedule.replay("endpoints", [(0, 3)], 10).clock(4)


def test_the_learning_rate_falls_on_a_cosine_to_its_fraction() -> None:
    assert cosine_learning_rate(0.0, 0.01, 0.1) == 0.01
    assert cosine_learning_rate(0.5, 0.01, 0.1) == pytest.approx(0.01 * (0.1 + 0.9 / 2))
    assert cosine_learning_rate(1.0, 0.01, 0.1) == pytest.approx(0.001)
