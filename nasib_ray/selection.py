"""Which networks compete for being a sweep's result, and how they are trained for that."""

from __future__ import annotations

from typing import Any

from nasib_ray.config import SweepConfig
from nasib_ray.found import PARTS, best_networks
from nasib_ray.searcher import derived_seed
from schedulers.sweep_state import SweepState
from trainables.data import Dataset
from trainables.training_settings import RetrainSettings


def finalists(state: SweepState, config: SweepConfig, dataset: Dataset) -> list[dict[str, Any]]:
    """The configurations of the trainings that select among the best searches' networks.

    They are trained from scratch on the images that trained weights and alpha, all by one seed, and judged on the
    selection part.

    Args:
        state: The sweep, its searches over.
        config: Its configuration.
        dataset: What it searched on.
    """
    seed = derived_seed(config.seed, "select", state.budgets)
    as_in_search = RetrainSettings()
    return [
        network.training(config, as_in_search, seed, **PARTS)
        for network in best_networks(state, dataset)[: config.finalists]
    ]
