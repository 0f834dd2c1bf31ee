"""Optuna as a Tune Searcher that is built anew for every suggestion, from the searches as they are."""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.search import Searcher

from nasib_ray.config import SweepConfig
from nasib_ray.search_space import SearchSpace
from nasib_ray.study_log import StudyLog, quiet_optuna
from nasib_ray.study_trials import as_param, distribution, from_param, told_trials
from schedulers.search_record import SearchRecord

# Optuna draws ten at random first; a budget that buys eight full searches sees no more than some twenty in all.
_RANDOM_AT_FIRST = 5


class StudySearcher(Searcher):  # type: ignore[misc,unused-ignore]
    """Suggests the configurations of NASIB searches: first the user's points, then the grids, then what Optuna samples.

    It keeps nothing from one suggestion to the next: :meth:`see` shows it all searches, and a suggestion is a function
    of these and of the sweep's seed. So a resumed sweep needs no state of it.

    Args:
        config: The sweep's configuration.
        metric: The metric that searches are ranked by.
        mode: ``max`` or ``min``.
        log: Where to write along for optuna-dashboard; None: nowhere.
    """

    def __init__(
        self, config: SweepConfig, metric: str = "objective", mode: str = "max", log: StudyLog | None = None
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._config = config
        self._log = log
        self._searches: Sequence[SearchRecord] | None = None

    def see(self, searches: Sequence[SearchRecord]) -> None:
        """Take note of all searches, in the order in which they were made; called before each suggestion."""
        self._searches = searches

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The whole configuration of the next search, or FINISHED when nothing is left to try.

        Raises:
            ValueError: If it was not shown the searches since its last suggestion.
        """
        if self._searches is None:
            raise ValueError(
                "StudySearcher was not shown the searches before a suggestion: hand it to a Tuner by "
                "with_budget(budget, TuneConfig(search_alg=...)), whose TrialSource does that"
            )
        searches, self._searches = self._searches, None
        number, space = len(searches), self._config.search
        points = self._config.points
        given = points[number] if number < len(points) else space.given(number - len(points))
        if given is None:
            return str(Searcher.FINISHED)
        distributions = {key: distribution(axis) for key, axis in space.axes.items()}
        point = {**given}
        if not set(distributions) <= set(given):
            seed = derived_seed(self._config.seed, "suggestion", number)
            drawn = sampled_point(searches, space, seed=seed, mode=self._mode, sampler=self._config.sampler)
            point = {**drawn, **given}
        if self._log is not None:
            tuned = {key: as_param(axis, point[key]) for key, axis in space.axes.items()}
            self._log.suggested(trial_id, tuned, distributions)
        seed = self._config.seed
        return {
            **space.settings_of(point),
            "data": self._config.data.model_dump(mode="json"),
            "seed": derived_seed(seed, "search", number),
            "split_seed": seed,
        }

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Write a ranked value to the log."""
        if self._log is not None and (value := self._ranked(result)) is not None:
            self._log.reported(trial_id, result["epochs"], value)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Write the end of a search to the log; one that was only stopped may go on in a later run."""
        if self._log is None:
            return
        if error:
            self._log.ended(trial_id, None)
        elif result:
            self.on_trial_result(trial_id, result)
            horizon = result.get("horizon")
            if horizon is not None and result["epochs"] >= horizon:
                self._log.ended(trial_id, self._ranked(result))

    def _ranked(self, result: Mapping[str, Any]) -> float | None:
        value = result.get(self._metric)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def sampled_point(
    searches: Sequence[SearchRecord], space: SearchSpace, *, seed: int, mode: str, sampler: Literal["tpe", "random"]
) -> dict[str, Any]:
    """What Optuna suggests next, by a study that is built from the searches as they are.

    Args:
        searches: All of them, in the order in which they were made.
        space: Every one of its axes is sampled.
        seed: Of this suggestion.
        mode: ``max`` or ``min``.
        sampler: As in :class:`nasib_ray.config.SweepConfig`.
    """
    distributions = {key: distribution(axis) for key, axis in space.axes.items()}
    with quiet_optuna(), _no_garbage_collection():
        # The searches that run are in the study, but weigh nothing: TPE's constant liar would count them among the
        # bad ones whatever they report, and those that run longest are the best. On simulated sweeps with 8 slots
        # that cost a tenth of the suggestions' quality, while nothing was lost with 2.
        made: BaseSampler = (
            TPESampler(seed=seed, n_startup_trials=_RANDOM_AT_FIRST, multivariate=True, constant_liar=False)
            if sampler == "tpe"
            else RandomSampler(seed=seed)
        )
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize", sampler=made)
        study.add_trials(told_trials(searches, space, distributions))
        params = study.ask(dict(distributions)).params
    return {key: from_param(axis, params[key]) for key, axis in space.axes.items()}


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Where tens of thousands of objects are made that all stay for the moment: looking among them for garbage, and
    among all that the driver has, would take longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def first_trial(config: SweepConfig) -> dict[str, Any]:
    """The whole configuration of a sweep's first search."""
    searcher = StudySearcher(config)
    searcher.see([])
    first = searcher.suggest("first")
    assert isinstance(first, dict), "every configuration has a first search"
    return first


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A seed of 31 bits for one of many uses of a sweep's seed, the same on every machine."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
