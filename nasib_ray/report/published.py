"""Trained networks beside those of the paper's table."""

from __future__ import annotations

from dataclasses import dataclass

from nasib_ray.results import Sweep
from nasib_ray.trained import TrainedStatus, trained_networks, trained_status

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
        search_time: Device-days that the whole sweep held, with their unit; empty if that is not known.
        candidates: Of a layer in the sweep's search space; None if that is not known.
        warning: Why the rows are not comparable, or what still differs.
    """

    networks: list[TrainedStatus]
    search_time: str
    candidates: int | None
    warning: str


def comparison(sweep: Sweep | None, trainings: Sweep | None, candidates: int | None, data: str) -> Comparison:
    """Describe the networks that were trained from scratch.

    Args:
        sweep: The sweep that found them, if it is known.
        trainings: Their trainings; None if there were none.
        candidates: Of a layer in its search space.
        data: The name of its data set.
    """
    search_time = ""
    if sweep is not None:
        device = sweep.state.settings.get("device") or "device"
        search_time = f"{sweep.state.ledger.spent / _DAY:.2g} {device.upper()} days"
    told = [] if trainings is None else [trained_status(network) for network in trained_networks(trainings)]
    if data == "cifar10":
        warning = (
            "The data set is the paper's. Networks, epochs, augmentation and hardware still differ from row to row, so "
            "that small differences mean little."
        )
    else:
        warning = (
            f"The published rows are for CIFAR-10 and this sweep searched on {data}: other data, sizes and training "
            "make the rows not comparable. They are here to show what is usually told of a found network."
        )
    return Comparison(told, search_time, candidates, warning)


def parameters_told(parameters: int) -> str:
    """Trainable scalars as tables give them."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 100_000 else f"{parameters:,}"
