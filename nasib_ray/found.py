"""The networks that a sweep found, the best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nasib_ray.config import SweepConfig
from nasib_ray.trained import ranking
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState
from trainables.architecture import Architecture, MacroShape
from trainables.data import Dataset
from trainables.settings import Measure, TrialSettings
from trainables.training_settings import Recipe, RetrainSettings, TrainingSettings

PARTS = {"trained_on": "weights and alpha", "judged_on": "selection"}
"""What networks are trained on and judged on to be compared within a sweep."""


@dataclass(frozen=True)
class FoundNetwork:
    """A network that a search preferred when it had its best value.

    Attributes:
        name: The search's id, or what else it is called.
        architecture: As searched, of ``search.channels`` channels.
        recipe: As the search trained its weights.
        measure: What the search's objective is.
        deterministic: Whether CUDA was asked for deterministic kernels.
        checkpoint_seconds: As in the search.
        as_it_is: Whether it is trained with the channels and layers that it has, whatever ``retrain`` says of them.
    """

    name: str
    architecture: Architecture
    recipe: Recipe
    measure: Measure
    deterministic: bool
    checkpoint_seconds: float
    as_it_is: bool = False

    def training(self, config: SweepConfig, retrain: RetrainSettings, seed: int, **parts: Any) -> dict[str, Any]:
        """The configuration of a trial that trains the network from scratch.

        Args:
            config: The sweep's.
            retrain: How; its epochs are not looked at.
            seed: Of the training.
            **parts: ``trained_on`` and ``judged_on``, as in TrainingSettings; ``horizon``, if it is known.
        """
        architecture = self.architecture if self.as_it_is else retrain.scaled(self.architecture)
        return {
            "name": self.name,
            "architecture": architecture.to_plain(),
            "recipe": retrain.recipe(self.recipe).model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "ranked_by": self.measure,
            "seed": seed,
            "split_seed": config.seed,
            "deterministic": self.deterministic,
            "checkpoint_seconds": self.checkpoint_seconds,
            **parts,
        }


def best_networks(state: SweepState, dataset: Dataset) -> list[FoundNetwork]:
    """What each search found, the best first as :func:`nasib_ray.trained.ranking` has it; what several found once.

    Args:
        state: The sweep.
        dataset: What it searched on.
    """
    found: dict[Architecture, FoundNetwork] = {}
    for name in ranking(state):
        network = _found_by(state.searches[name], dataset)
        found.setdefault(network.architecture, network)
    return list(found.values())


def network_of(config: Mapping[str, Any], operations: Sequence[str], name: str, dataset: Dataset) -> FoundNetwork:
    """The network of some operations, in the macro network and with the recipe of a search's configuration.

    Args:
        config: Of a trial that searches.
        operations: One for each layer.
        name: What it is called.
        dataset: What is searched on.
    """
    channels, height, width = dataset.train.images.shape[1:]
    search = TrialSettings.from_config(config).search
    classes = len(dataset.class_names)
    macro = MacroShape((channels, height, width), classes, search.layers, search.reductions, search.channels)
    architecture, recipe = Architecture(tuple(operations), macro), Recipe.of_search(search)
    return FoundNetwork(name, architecture, recipe, search.measure, search.deterministic, search.checkpoint_seconds)


def _found_by(record: SearchRecord, dataset: Dataset) -> FoundNetwork:
    if "architecture" not in record.config:
        return network_of(record.config, record.best_metrics["architecture"], record.id, dataset)
    told = TrainingSettings.from_config(record.config)
    return FoundNetwork(
        record.id, told.architecture, told.recipe, told.ranked_by, told.deterministic, told.checkpoint_seconds
    )
