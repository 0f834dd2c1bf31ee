"""The searches of a sweep as trials of an Optuna study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasib_ray.search_space import Axis, Choice, Range, SearchSpace
from schedulers.search_record import SearchRecord

MOST_TOLD = 1000
"""So many searches are told to Optuna at most: the time of a suggestion grows with them."""


def told_trials(
    searches: Sequence[SearchRecord], space: SearchSpace, distributions: Mapping[str, BaseDistribution]
) -> list[FrozenTrial]:
    """The searches as Optuna is told of them, in the order in which they were made.

    Finished ones are complete, with the last value that they reported: all have come to clock 1 then, while the best
    value is a maximum over more looks the longer a search ran. Paused ones, resumable or not, are pruned, which TPE
    ranks by how far they came, then by their last value. Whoever may go on and has reported nothing yet counts as
    running. Of more than MOST_TOLD, all finished ones are taken first, then those that came furthest.
    """
    states = {"finished": 0, "paused": 1, "running": 1, "not resumable": 1, "failed": 2}
    ranked = sorted(searches, key=lambda search: (states[search.state], -search.epochs, -search.index))
    told = []
    for search in sorted(ranked[:MOST_TOLD], key=lambda search: search.index):
        point = space.point_of(search.config)
        if point is None:
            continue
        state, value = TrialState.RUNNING, None
        if search.state == "failed" or (not search.unfinished and not search.curve):
            state = TrialState.FAIL
        elif search.state == "finished" and search.curve[-1][0] == search.epochs:
            state, value = TrialState.COMPLETE, search.curve[-1][1]
        elif search.state in ("finished", "paused", "not resumable") and search.curve:
            state = TrialState.PRUNED
        told.append(
            create_trial(
                state=state,
                value=value,
                params={key: as_param(axis, point[key]) for key, axis in space.axes.items()},
                distributions=dict(distributions),
                intermediate_values=dict(search.curve),
            )
        )
    return told


def distribution(axis: Axis) -> BaseDistribution:
    """What Optuna calls the range or the choice."""
    match axis:
        case Choice():
            return CategoricalDistribution([as_param(axis, value) for value in axis.values])
        case Range(whole=True):
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        case Range():
            return FloatDistribution(axis.low, axis.high, log=axis.log)


def as_param(axis: Axis, value: Any) -> Any:
    """A setting's value as Optuna takes it: lists and mappings among choices become text."""
    return json.dumps(value) if isinstance(axis, Choice) and isinstance(value, (list, dict)) else value


def from_param(axis: Axis, param: Any) -> Any:
    """The setting's value that :func:`as_param` turned into this."""
    if isinstance(axis, Choice):
        return next(value for value in axis.values if as_param(axis, value) == param)
    return param
