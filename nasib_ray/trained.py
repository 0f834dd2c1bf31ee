"""Networks that were trained from scratch, read back from the folder of their trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from rich.console import Console
from rich.text import Text

from nasib_ray.results import Sweep
from nasib_ray.tables import Signs, bare_table
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState
from trainables.architecture import Architecture
from trainables.training_settings import TrainingSettings

TRAININGS = "retrain"
"""The folder of a sweep's trainings in that of the sweep, unless it is told another name."""

CONTROLS = "controls"
"""The folder of a sweep's controls in that of the sweep."""

CONTROL = "control "
"""What the names of networks begin with that no search of the sweep found; the control's own name follows."""


def ranking(state: SweepState) -> list[str]:
    """The searches of a sweep by what they found, the best first: what its selection trained, then the others."""
    sign = -1.0 if state.mode == "max" else 1.0
    finalists = sorted(state.competing, key=lambda trial: sign * trial.curve[-1][1])
    searches = [search for search in state.searches.values() if search.kind == "search"]
    ranked = [search for search in searches if search.best_value is not None]
    ranked.sort(key=lambda search: (sign * (search.best_value or 0.0), search.index))
    return list(dict.fromkeys([*(trial.config["name"] for trial in finalists), *(search.id for search in ranked)]))


@dataclass(frozen=True)
class TrainedNetwork:
    """One network and its trainings that came to their end.

    Attributes:
        name: What it is called: the trial of the search that found it.
        architecture: As trained.
        trainings: Records of its trainings, one for each seed, in the order in which they were begun.
    """

    name: str
    architecture: Architecture
    trainings: tuple[SearchRecord, ...]

    @property
    def test_errors(self) -> list[float]:
        """Of each training, in [0, 1]."""
        return [1.0 - search.latest["test_accuracy"] for search in self.trainings]

    @property
    def test_error(self) -> float:
        """Their mean."""
        return statistics.fmean(self.test_errors)

    @property
    def test_error_std(self) -> float:
        """Their standard deviation over seeds; NaN for one."""
        return statistics.stdev(self.test_errors) if len(self.trainings) > 1 else math.nan

    @property
    def epochs(self) -> int:
        """The most that a training of it had."""
        return max(search.epochs for search in self.trainings)

    @property
    def parameters(self) -> int:
        """Trainable scalars."""
        return int(self.trainings[0].latest["parameters"])

    @property
    def multiply_adds(self) -> int:
        """For one image, of convolutions and linear layers."""
        from trainables.stock import count_multiply_adds

        return count_multiply_adds(self.architecture)


class TrainedStatus(TypedDict):
    """A trained network as plain data; errors in [0, 1], the spread None for a single seed."""

    name: str
    operations: list[str]
    channels: int
    epochs: int
    test_errors: list[float]
    test_error: float
    test_error_std: float | None
    parameters: int
    multiply_adds: int
    latency_seconds: float | None


def trained_networks(sweep: Sweep) -> list[TrainedNetwork]:
    """The networks that were trained to the end, in the order in which they were begun: the best found first.

    Args:
        sweep: The trainings, as :func:`nasib_ray.retraining.retrain` leaves them.
    """
    groups: dict[tuple[str, Architecture], list[SearchRecord]] = {}
    for search in sweep.state.searches.values():
        settings = TrainingSettings.from_config(search.config)
        if search.state == "finished" and search.latest.get("test_accuracy") is not None:
            groups.setdefault((settings.name, settings.architecture), []).append(search)
    return [TrainedNetwork(name, architecture, tuple(done)) for (name, architecture), done in groups.items()]


def trained_status(network: TrainedNetwork, latency_seconds: float | None = None) -> TrainedStatus:
    """Describe a trained network.

    Args:
        network: The network.
        latency_seconds: For one image, if it was measured.
    """
    std = network.test_error_std
    return {
        "name": network.name,
        "operations": list(network.architecture.operations),
        "channels": network.architecture.macro.channels,
        "epochs": network.epochs,
        "test_errors": network.test_errors,
        "test_error": network.test_error,
        "test_error_std": None if math.isnan(std) else std,
        "parameters": network.parameters,
        "multiply_adds": network.multiply_adds,
        "latency_seconds": latency_seconds,
    }


def trained_report(console: Console, networks: Sequence[TrainedStatus], device: str) -> None:
    """Print trained networks.

    Args:
        console: Where to.
        networks: The networks.
        device: The name of the device that latency was measured on.
    """
    signs = Signs.of(console)
    table = bare_table(signs)
    table.add_column("network", no_wrap=True, overflow=signs.overflow)
    for name in ("seeds", "epochs", "test error", "channels", "parameters", "multiply-adds", "latency"):
        table.add_column(name, justify="right", no_wrap=True)
    for network in networks:
        table.add_row(Text(network["name"]), *_cells(network, signs))
    table.caption = Text(f"mean and standard deviation over seeds; latency of one image on {device}", "dim")
    table.caption_justify = "left"
    console.print(table)
    for network in networks:
        console.print(Text(f"{network['name']}: {', '.join(network['operations'])}"), soft_wrap=True)


def _cells(network: TrainedStatus, signs: Signs) -> list[Any]:
    std, latency = network["test_error_std"], network["latency_seconds"]
    spread = "" if std is None else f" {signs.plus_minus} {100 * std:.2f}"
    return [
        str(len(network["test_errors"])),
        str(network["epochs"]),
        Text(f"{100 * network['test_error']:.2f}{spread} %", "bold cyan"),
        str(network["channels"]),
        f"{network['parameters']:,}",
        f"{network['multiply_adds'] / 1e6:,.2f} M",
        "" if latency is None else f"{1e3 * latency:.2f} ms",
    ]
