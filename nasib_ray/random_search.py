"""Random search: trainings of architectures that are drawn at random, in place of searches."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from nasib_ray.config import SweepConfig
from nasib_ray.found import PARTS, network_of
from nasib_ray.search_space import Axis, Choice
from nasib_ray.searcher import derived_seed
from schedulers.search_record import SearchRecord
from trainables.data import Dataset
from trainables.settings import TrialSettings
from trainables.training_settings import RetrainSettings


class RandomSearcher(Searcher):  # type: ignore[misc,unused-ignore]
    """Suggests trainings of random architectures, without end: every candidate of every layer is equally likely.

    Settings that are tuned are drawn, too; the sweep's points and grids are not looked at.

    Args:
        config: The sweep's configuration.
        dataset: What it trains on.
        metric: The metric that trainings are ranked by.
        mode: ``max`` or ``min``.

    References:
        Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019.
    """

    def __init__(self, config: SweepConfig, dataset: Dataset, metric: str, mode: str) -> None:
        super().__init__(metric=metric, mode=mode)
        self._config = config
        self._dataset = dataset
        self._number = 0

    def see(self, searches: Sequence[SearchRecord]) -> None:
        """Take note of how many there are; called before each suggestion."""
        self._number = len(searches)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The configuration of the next training."""
        config, number = self._config, self._number
        draw = random.Random(derived_seed(config.seed, "architecture", number))
        point = {key: _drawn(axis, draw) for key, axis in config.search.axes.items()}
        settings = {**config.search.settings_of(point), "data": config.data.model_dump(mode="json")}
        search = TrialSettings.from_config(settings).search
        operations = draw.choices(search.candidate_names, k=search.layers)
        network = network_of(settings, operations, f"random {number}", self._dataset)
        seed = derived_seed(config.seed, "search", number)
        return network.training(config, RetrainSettings(), seed, **PARTS)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from a training."""


def _drawn(axis: Axis, draw: random.Random) -> Any:
    """A value of a tuned setting, as :mod:`nasib_ray.search_space` describes its distribution."""
    if isinstance(axis, Choice):
        return draw.choice(axis.values)
    if axis.log:
        value = math.exp(draw.uniform(math.log(axis.low), math.log(axis.high)))
        return min(int(axis.high), max(int(axis.low), round(value))) if axis.whole else min(axis.high, value)
    return draw.randint(int(axis.low), int(axis.high)) if axis.whole else draw.uniform(axis.low, axis.high)
