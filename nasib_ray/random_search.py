"""Random search: trainings of architectures that are drawn at random, in place of searches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from nasib_ray.config import SweepConfig
from nasib_ray.found import network_of
from nasib_ray.searcher import StudySearcher, derived_seed
from schedulers.sweep_state import SearchRecord
from trainables.data import Dataset
from trainables.settings import TrialSettings
from trainables.training_settings import RetrainSettings

PARTS = {"trained_on": "weights and alpha", "judged_on": "selection"}
"""What networks are trained on and judged on to be compared within a sweep."""


class RandomSearcher(StudySearcher):
    """Suggests trainings of random architectures: every candidate of every layer is equally likely.

    Other settings than k and lambda that are tuned are drawn, too, as of a sweep's searches.

    Args:
        config: The sweep's configuration.
        dataset: What it trains on.

    References:
        Li and Talwalkar, Random Search and Reproducibility for Neural Architecture Search, UAI 2019.
    """

    def __init__(self, config: SweepConfig, dataset: Dataset) -> None:
        super().__init__(config)
        self._dataset = dataset
        self._number = 0

    def see(self, searches: Sequence[SearchRecord]) -> None:
        """Take note of how many there are."""
        super().see(searches)
        self._number = len(searches)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The configuration of the next training, or FINISHED when nothing is left to try."""
        config = super().suggest(trial_id)
        if isinstance(config, str):
            return config
        search = TrialSettings.from_config(config).search
        draw = random.Random(derived_seed(self._config.seed, "architecture", self._number))
        operations = draw.choices(search.candidate_names, k=search.layers)
        network = network_of(config, operations, f"random {self._number}", self._dataset)
        return network.training(self._config, RetrainSettings(), config["seed"], **PARTS)
