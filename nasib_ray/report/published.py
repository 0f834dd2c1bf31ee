"""Trained networks beside those of the paper's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nasib_ray.comparison import FOUND, RANDOM, Estimate, by_method, pooled, relative_improvement
from nasib_ray.results import Sweep
from nasib_ray.trained import CONTROL, TrainedNetwork, TrainedStatus, ranking, trained_networks, trained_status

SOURCE = "Singh et al. 2019, Table 1 (search time in GPU days; #OPs is the number of candidate operations)"

_DAY = 86_400.0


@dataclass(frozen=True)
class Published:
    """A row of the paper's table.

    Attributes:
        network: As it is named there.
        parameters: In millions.
        test_error: On CIFAR-10, in per cent.
        candidates: Of the search space.
        gpu_days: Of the search.
    """

    network: str
    parameters: float
    test_error: float
    candidates: int
    gpu_days: float


PUBLISHED = (
    Published("NASNet-v3 (Zoph & Le 2017)", 37.4, 3.65, 13, 1800),
    Published("Block-QNN (Baker et al. 2016)", 39.8, 3.54, 8, 96),
    Published("AmoebaNet-B (Real et al. 2017)", 34.9, 2.13, 19, 3150),
    Published("PNAS (Liu et al. 2017)", 3.2, 3.41, 8, 225),
    Published("ENAS (Pham et al. 2018)", 4.6, 3.54, 6, 0.45),
    Published("DARTS (Liu et al. 2018)", 4.6, 2.76, 7, 4),
    Published("NAO (Luo et al. 2018)", 128, 2.07, 11, 200),
    Published("ProxylessNAS (Cai et al. 2019)", 5.7, 2.08, 6, 8.3),
    Published("SNAS (Xie et al. 2019)", 2.85, 2.8, 7, 1.5),
    Published("Graph Hypernetworks (Zhang et al. 2019)", 2.84, 5.7, 8, 0.84),
    Published("NASIB (Singh et al. 2019)", 6.71, 3.57, 81, 1.5),
)
"""All on CIFAR-10, as the paper gives them; it took most of them from the papers that it names."""


@dataclass(frozen=True)
class Comparison:
    """The networks that were trained, and what may be said of them beside published ones.

    Attributes:
        networks: In the order in which they were begun.
        search_times: Of each of them by name, device-days that the sweep or the control held, with their unit; empty
            if that is not known.
        methods: Of the sweep and its controls the name, the test error and the relative improvement over random search
            in percent, both with their 95% interval over trainings; none without controls.
        best: The name of the one that the sweep found best; empty if none of its own was trained.
        candidates: Of a layer in the sweep's search space; None if that is not known.
        warning: Why the rows are not comparable, or what still differs.
    """

    networks: list[TrainedStatus]
    search_times: dict[str, str]
    methods: list[tuple[str, Estimate, Estimate | None]]
    best: str
    candidates: int | None
    warning: str


def comparison(
    sweep: Sweep | None, trainings: Sweep | None, controls: Mapping[str, Sweep], candidates: int | None, data: str
) -> Comparison:
    """Describe the networks that were trained from scratch.

    Args:
        sweep: The sweep that found them, if it is known.
        trainings: Their trainings; None if there were none.
        controls: The sweeps that are its controls, by name.
        candidates: Of a layer in its search space.
        data: The name of its data set.
    """
    trained = [] if trainings is None else trained_networks(trainings)
    told = [trained_status(network) for network in trained]
    times = {network.name: _search_time(_searched_by(network, sweep, controls)) for network in trained}
    if data == "cifar10":  # With all of its images at their size.
        warning = (
            "The data set is the paper's. Networks, epochs, augmentation and hardware still differ from row to row, so "
            "that small differences mean little."
        )
    else:
        warning = (
            f"The published rows are for CIFAR-10 and this sweep searched on {data}: other data, sizes and training "
            "make the rows not comparable. They are here to show what is usually told of a found network."
        )
    methods = by_method(trained, [] if sweep is None else ranking(sweep.state))
    best = methods[FOUND].name if FOUND in methods else ""
    return Comparison(told, times, _methods(methods), best, candidates, warning)


def _searched_by(network: TrainedNetwork, sweep: Sweep | None, controls: Mapping[str, Sweep]) -> Sweep | None:
    """The sweep that found a network; None if that is not known, or none did."""
    if not network.name.startswith(CONTROL):
        return sweep
    return controls.get(network.name.removeprefix(CONTROL))


def _search_time(sweep: Sweep | None) -> str:
    if sweep is None:
        return ""
    device = sweep.state.settings.get("device") or "device"
    return f"{sweep.state.ledger.spent / _DAY:.2g} {device.upper()} days"


def _methods(methods: Mapping[str, TrainedNetwork]) -> list[tuple[str, Estimate, Estimate | None]]:
    accuracies = pooled([methods])
    if RANDOM not in accuracies:
        return []
    return [
        (
            method,
            Estimate.of([100 * (1.0 - value) for value in values]),
            None if method == RANDOM else relative_improvement(values, accuracies[RANDOM]),
        )
        for method, values in accuracies.items()
    ]


def parameters_told(parameters: int) -> str:
    """Trainable scalars as tables give them."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 100_000 else f"{parameters:,}"
