"""What earlier sweeps found, as the first points of a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nasib_ray.config import SweepConfig
from nasib_ray.results import Sweep, config_of, load_sweep, sweep_exists
from nasib_ray.tables import short_value
from schedulers.search_record import SearchRecord

POINTS = 3
"""So many points are taken over in all, and at least one from each earlier sweep."""

_ALPHA_KEYS = ("alpha_optimizer", "alpha_learning_rate", "alternate", "batch_size", "candidates", "m", "priors")
"""Settings that decide how far alpha moves in an epoch, or what lambda divides it into."""

_DATA_KEYS = ("name", "subset", "alpha_images")
"""Settings of the data that decide how many steps of alpha an epoch has."""


def warm_started(config: SweepConfig, earlier: Sequence[Sweep], path: str) -> tuple[SweepConfig, list[str]]:
    """A configuration whose searches begin with the best points of earlier sweeps.

    Args:
        config: Of the new sweep; its own points follow behind.
        earlier: At least one sweep.
        path: Where the new sweep is kept. If it is there already, it goes on with the points that it was begun with.

    Returns:
        The configuration, and what its user should know: what is not taken over and what differs, a line each.

    Raises:
        ValueError: A sweep was not begun by nasib-ray, or none has a search that can be taken over.
    """
    if sweep_exists(path) and (there := load_sweep(path)).state.settings:
        begun = config_of(there)
        return config.model_copy(update={"points": begun.points}), [
            f"{path} goes on with the points that it was begun with"
        ]
    points, told = list[dict[str, Any]](), list[str]()
    for sweep in earlier:
        told += _differences(config, sweep)
        wanted = max(1, POINTS // len(earlier))
        for search in best_searches(sweep):
            if wanted == 0:
                break
            point = {key: search.config[key] for key in config.search.axes if key in search.config}
            strange = {key: value for key, value in point.items() if value not in config.search.axes[key]}
            if strange:
                outside = [f"{key} {short_value(value)}" for key, value in strange.items()]
                told.append(f"{sweep.path}: a search with {', '.join(outside)} lies outside of what is tuned here")
            elif point and point not in points:
                points.append(point)
                wanted -= 1
    if not points:
        raise ValueError(
            f"{' and '.join(sweep.path for sweep in earlier)}: no search there can be taken over, as none reported a "
            f"value with {', '.join(config.search.axes) or 'anything that is tuned'} in the ranges of this sweep"
        )
    more = [point for point in config.points if point not in points]
    # Checked as if the user had written them.
    return SweepConfig(**{**config.to_plain(), "points": [*points, *more]}), told


def best_searches(sweep: Sweep) -> Iterator[SearchRecord]:
    """A sweep's searches, the best first: the finished ones by their last value, then those that came furthest.

    Values are compared at equal clock or equal epochs only: what a search has before it has annealed says little.
    """
    state = sweep.state
    sign = 1.0 if state.mode == "max" else -1.0
    known = [search for search in state.searches.values() if search.kind == "search" and search.curve]

    def place(search: SearchRecord) -> tuple[bool, int, float, int]:
        unfinished = search.state != "finished"
        return unfinished, -search.epochs * unfinished, -sign * search.curve[-1][1], search.index

    yield from sorted(known, key=place)


def earlier_horizons(earlier: Sequence[Sweep]) -> dict[str, int]:
    """The epochs of a full search in each sweep that came so far as to plan one, by its path."""
    return {sweep.path: sweep.state.full_horizon for sweep in earlier if sweep.state.full_horizon is not None}


def _differences(config: SweepConfig, sweep: Sweep) -> list[str]:
    """A line on the settings under which λ meant something else there, if there are any."""
    keys = [*_ALPHA_KEYS]
    if "sgd" in (config.search.fixed.get("alpha_optimizer"), config_of(sweep).search.fixed.get("alpha_optimizer")):
        keys.append("momentum")
    here, there = (
        {key: "tuned" if key in one.search.axes else one.search.fixed[key] for key in keys}
        | {f"data.{key}": getattr(one.data, key) for key in _DATA_KEYS}
        for one in (config, config_of(sweep))
    )
    told = [f"{key} {there[key]} there and {value} here" for key, value in here.items() if there[key] != value]
    return [f"{sweep.path}: lambda may mean something else there, with {', '.join(told)}"] if told else []
