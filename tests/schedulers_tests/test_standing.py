"""What is kept up record by record is what a look at all trials would find."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from schedulers.ranking import Ranking
from schedulers.search_record import SearchRecord, SearchStatus
from schedulers.standing import Standing, Waiting

CHANGES = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(get_args(SearchStatus)),
        st.none() | st.integers(1, 50),
        st.lists(st.floats(0.1, 10.0), max_size=3),
    ),
    max_size=40,
)


@given(CHANGES, st.sets(st.integers(0, 9)))
def test_trials_are_filed_by_where_they_stand(changes: list[tuple[int, Any, Any, Any]], at_work: set[int]) -> None:
    standing, trials, horizons, held = Standing(), dict[int, SearchRecord](), [0], dict[str, float]()
    for index, state, horizon, seconds in changes:
        trial = trials.setdefault(index, SearchRecord(f"t{index}", index, {}))
        trial.state, trial.horizon, trial.epoch_seconds = state, horizon, seconds or trial.epoch_seconds
        horizons.append(horizon or 0)
        held[trial.id] = held.get(trial.id, 0.0) + 0.5
        standing.file(trial, held[trial.id])
    oldest_first = [trials[index] for index in sorted(trials)]
    paused = [trial for trial in oldest_first if trial.state == "paused"]
    waiting = Waiting(standing.paused, [f"t{index}" for index in at_work])
    assert list(waiting) == [trial for trial in paused if trial.index not in at_work]
    assert len(waiting) == len(list(waiting))
    assert [trial in waiting for trial in oldest_first] == [trial in list(waiting) for trial in oldest_first]
    assert set(standing.trials) == {trial.id for trial in oldest_first}
    assert standing.ended == {trial.id: held[trial.id] for trial in oldest_first if not trial.unfinished}
    assert standing.spent_on_ended == sum(standing.ended.values())
    assert (standing.longest_horizon or 0) == max(horizons)
    newest = sorted(trial.epoch_seconds[-1] for trial in [t for t in oldest_first if t.epoch_seconds][-5:])
    assert standing.epoch_seconds == (newest[len(newest) // 2] if newest else None)


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.floats(allow_nan=False)), max_size=40))
def test_names_are_ranked(changes: list[tuple[int, float | None]]) -> None:
    ranking, scores = Ranking(), dict[int, float]()
    for index, score in changes:
        if score is None:
            ranking.drop(f"n{index}")
            scores.pop(index, None)
        else:
            ranking.put(f"n{index}", score, index)
            scores[index] = score
    best_first = sorted(scores, key=lambda index: (-scores[index], index))
    assert list(ranking) == [f"n{index}" for index in best_first]
    assert [ranking.place(f"n{index}") for index in best_first] == list(range(len(best_first)))
    assert [ranking.score(f"n{index}") for index in best_first] == [scores[index] for index in best_first]
    assert len(ranking) == len(scores)
    assert "n10" not in ranking
