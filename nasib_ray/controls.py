"""What a sweep must be better than: runs with its budget and its selection, and a network without any search."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nasib_ray.config import SweepConfig
from nasib_ray.found import FoundNetwork, best_networks
from nasib_ray.place import Place
from nasib_ray.results import load_sweep, sweep_exists
from nasib_ray.search_space import PAPER_K
from nasib_ray.searcher import first_trial
from nasib_ray.trained import CONTROL, CONTROLS
from schedulers.budget import Budget
from trainables.architecture import Architecture
from trainables.data import Dataset
from trainables.training_settings import RetrainSettings

PLAIN = "conv3x3"
"""The operation of the network that no search chose."""

MEANINGS = {
    "one-search": "one NASIB with the whole budget and k = 0.1",
    "best-of-n": "as many full NASIBs as the budget buys, all with k = 0.1",
    "random-search": "random architectures, trained and compared as searches are (Li and Talwalkar 2019)",
    "uniform-supernet": "one supernet trained uniformly, and random search over it (Guo et al. 2020)",
}


@dataclass(frozen=True)
class Control:
    """A sweep that is run beside another one, to compare.

    Attributes:
        name: Of its folder.
        meaning: In words.
        config: All that it is told.
        place: Where it is kept.
    """

    name: str
    meaning: str
    config: SweepConfig
    place: Place


def controls_of(config: SweepConfig, place: Place) -> list[Control]:
    """The controls of a sweep: its data, its search space, its budget and its selection.

    Args:
        config: The sweep's.
        place: The sweep's.
    """
    # Whatever is tuned is as in the sweep's first search, but for k.
    first = first_trial(config)
    fixed = {**{key: first[key] for key in config.search.axes}, "k": PAPER_K}
    full = {"method": "nasib", "allocator": "equal-share", "points": []}
    # One search finds one network: there is nothing to select, and it has the whole budget.
    alone = {**full, "searches": 1, "finalists": 0}
    # Of a space in which all is fixed a sweep has one search; of seeds and architectures there are more.
    several = config.full_searches if config.full_searches > 1 else int(SweepConfig.model_fields["searches"].default)
    told: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "one-search": (alone, fixed),
        "best-of-n": ({**full, "points": [{}] * several, "searches": several}, fixed),
        "random-search": ({"method": "random-search", "points": [], "searches": several}, fixed),
        "uniform-supernet": (alone, {**fixed, "k": 1.0, "derive": "random-search"}),
    }
    return [
        Control(name, MEANINGS[name], _changed(config, *changes), place.inside(CONTROLS).inside(name))
        for name, changes in told.items()
    ]


def whole_budget(config: SweepConfig) -> Budget:
    """What a sweep and its controls may hold together."""
    assert config.budget is not None, "a sweep has a budget"
    return replace(config.budget, device_seconds=config.budget.device_seconds * (1 + len(MEANINGS)))


def control_networks(path: str, found: FoundNetwork, retrain: RetrainSettings, dataset: Dataset) -> list[FoundNetwork]:
    """What the controls of a sweep found, and the network of 3 x 3 convolutions, as wide as agrees with the sweep's.

    Their channels are those at which multiply-adds come nearest to those of the network that the sweep found, as that
    one is trained.

    Args:
        path: The sweep's folder.
        found: What it found.
        retrain: How networks are trained.
        dataset: What on.

    Raises:
        ValueError: A control has found nothing yet.
    """
    from trainables.stock import count_multiply_adds

    target = count_multiply_adds(retrain.scaled(found.architecture))
    networks = {}
    for name in MEANINGS:
        place = Place.at(path).inside(CONTROLS).inside(name)
        known = best_networks(load_sweep(place.path).state, dataset) if sweep_exists(place.path) else []
        if not known:
            raise ValueError(
                f"the control {name} of {path} has found nothing yet: `nasib-ray resume {shlex.quote(path)} "
                "--controls` runs it"
            )
        networks[name] = known[0]
    macro = found.architecture.macro
    networks[f"all {PLAIN}"] = replace(found, architecture=Architecture((PLAIN,) * macro.layers, macro))
    return [_as_costly(network, target, CONTROL + name, retrain) for name, network in networks.items()]


def _as_costly(network: FoundNetwork, multiply_adds: int, name: str, retrain: RetrainSettings) -> FoundNetwork:
    from trainables.stock import widened

    wide = widened(retrain.scaled(network.architecture), multiply_adds)
    return replace(network, name=name, architecture=wide, as_it_is=True)


def _changed(config: SweepConfig, keys: Mapping[str, Any], search: Mapping[str, Any]) -> SweepConfig:
    plain = config.to_plain()
    return SweepConfig(**{**plain, **keys, "search": {**plain["search"], **search}})
