"""The networks that a sweep found, the best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nasib_ray.config import SweepConfig
from schedulers.sweep_state import SearchRecord, SweepState
from trainables.architecture import Architecture, MacroShape
from trainables.data import Dataset
from trainables.settings import SearchSettings, TrialSettings
from trainables.training_settings import RetrainSettings


@dataclass(frozen=True)
class FoundNetwork:
    """A network that a search preferred when it had its best value.

    Attributes:
        trial: The search's id.
        architecture: As searched, of ``search.channels`` channels.
        value: The search's best value, which is a maximum over many looks.
        search: The search's settings.
    """

    trial: str
    architecture: Architecture
    value: float
    search: SearchSettings

    def training(self, config: SweepConfig, retrain: RetrainSettings, seed: int, **parts: Any) -> dict[str, Any]:
        """The configuration of a trial that trains the network from scratch.

        Args:
            config: The sweep's.
            retrain: How; its epochs are not looked at.
            seed: Of the training.
            **parts: ``trained_on`` and ``judged_on``, as in TrainingSettings; ``horizon``, if it is known.
        """
        return {
            "name": self.trial,
            "architecture": retrain.scaled(self.architecture).to_plain(),
            "recipe": retrain.recipe(self.search).model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "seed": seed,
            "split_seed": config.seed,
            "deterministic": self.search.deterministic,
            "checkpoint_seconds": self.search.checkpoint_seconds,
            **parts,
        }


def best_networks(state: SweepState, dataset: Dataset) -> list[FoundNetwork]:
    """What each search found: the networks of the selection first, the best of them in front, then the others.

    Args:
        state: The sweep.
        dataset: What it searched on.
    """
    found = found_networks(state, dataset)
    sign = -1.0 if state.mode == "max" else 1.0
    ranks = {
        trial.config["name"]: sign * trial.curve[-1][1]
        for trial in state.searches.values()
        if trial.kind == "select" and state.counts(trial) and trial.state == "finished" and trial.curve
    }
    return sorted(found, key=lambda network: (network.trial not in ranks, ranks.get(network.trial, 0.0)))


def found_networks(state: SweepState, dataset: Dataset) -> list[FoundNetwork]:
    """What each search found, the best first; of searches that found the same the best one.

    Args:
        state: The sweep.
        dataset: What it searched on.
    """
    sign = -1.0 if state.mode == "max" else 1.0
    ranked = sorted(
        (search for search in state.searches.values() if search.kind == "search" and search.best_value is not None),
        key=lambda search: (sign * (search.best_value or 0.0), search.index),
    )
    found: dict[Architecture, FoundNetwork] = {}
    for search in ranked:
        network = _found_by(search, dataset)
        found.setdefault(network.architecture, network)
    return list(found.values())


def _found_by(record: SearchRecord, dataset: Dataset) -> FoundNetwork:
    assert record.best_value is not None, "a search without a value found nothing"
    channels, height, width = dataset.train.images.shape[1:]
    search = TrialSettings.from_config(record.config).search
    macro = MacroShape(
        (channels, height, width), len(dataset.class_names), search.layers, search.reductions, search.channels
    )
    operations = tuple(record.best_metrics["architecture"])
    return FoundNetwork(record.id, Architecture(operations, macro), record.best_value, search)
