"""Sweeps side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from nasib_ray.comparison import FOUND, RANDOM, Estimate, by_method, difference, pooled, relative_improvement
from nasib_ray.config import SweepConfig
from nasib_ray.place import Place
from nasib_ray.results import Sweep, config_of, load_sweep, sweep_exists
from nasib_ray.tables import STATE_STYLES, Signs, accuracy_text, bare_table, metric_value
from nasib_ray.trained import TRAININGS, TrainedNetwork, ranking, trained_networks


@dataclass(frozen=True)
class Compared:
    """One sweep, as it is compared.

    Attributes:
        path: As it was given.
        sweep: The sweep.
        config: What it was told.
        methods: The trained network of each method, by its name.
        trained_as: How they were trained; None: none was.
    """

    path: str
    sweep: Sweep
    config: SweepConfig
    methods: Mapping[str, TrainedNetwork]
    trained_as: Mapping[str, Any] | None


def read_compared(paths: Sequence[str], name: str = TRAININGS) -> list[Compared]:
    """Sweeps and the networks of theirs that were trained from scratch.

    Args:
        paths: Of the sweeps.
        name: Of the folders of their trainings.

    Raises:
        ValueError: A path holds no sweep of nasib-ray, or is given twice.
    """
    found, folders = list[Compared](), dict[str, str]()
    for path in paths:
        sweep, place = load_sweep(path), Place.at(path).inside(name)
        if (first := folders.setdefault(os.path.realpath(sweep.folder), path)) is not path:
            raise ValueError(f"{path} is {first} once more: a sweep can be compared with others only")
        trainings = load_sweep(place.path) if sweep_exists(place.path) else None
        methods = {} if trainings is None else by_method(trained_networks(trainings), ranking(sweep.state))
        trained_as = None if trainings is None else trainings.state.settings.get("retrain")
        found.append(Compared(path, sweep, config_of(sweep), methods, trained_as))
    return found


def differing_keys(compared: Sequence[Compared]) -> list[str]:
    """In which keys of the configuration, but for the seed, any sweep differs from the first one; also how trained."""
    first, differing = compared[0], dict[str, None]()
    for other in compared[1:]:
        differing |= dict.fromkeys(first.config.same_sweep(other.config))
        for name, apart in {
            "budget": first.sweep.state.ledger.budget != other.sweep.state.ledger.budget,
            "retrain": None not in (first.trained_as, other.trained_as) and first.trained_as != other.trained_as,
        }.items():
            differing |= {name: None} if apart else {}
    return [key for key in differing if key != "seed"]


def comparison(compared: Sequence[Compared]) -> dict[str, Any]:
    """The sweeps as plain data: each by itself, and every method over sweeps that differ in nothing but their seed.

    Accuracies and errors lie in [0, 1], relative improvements are in percent; an interval that cannot be told is None.
    """
    differing, accuracies = differing_keys(compared), {}
    seeds = [one.config.seed for one in compared]
    if not differing and len(set(seeds)) == len(seeds):
        accuracies = pooled(one.methods for one in compared)
    reference = compared[0].methods.get(FOUND)
    return {
        "differing": differing,
        "sweeps": [_described(one, reference) for one in compared],
        "methods": described_methods(accuracies),
    }


def described_methods(accuracies: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The methods as plain data, as :func:`comparison` has them.

    Args:
        accuracies: Of each method, in [0, 1]: one of each sweep, or of each training where there is one sweep.
    """
    return [
        {
            "method": method,
            "test_error": _plain(Estimate.of([1.0 - value for value in values])),
            "relative_improvement": _plain(relative_improvement(values, accuracies[RANDOM]))
            if RANDOM in accuracies and method != RANDOM
            else None,
        }
        for method, values in accuracies.items()
    ]


def _described(one: Compared, reference: TrainedNetwork | None) -> dict[str, Any]:
    status, network = one.sweep.status(), one.methods.get(FOUND)
    incumbent, selected = status["incumbent"], status["selected"]
    compared = None
    if network is not None and reference is not None and network is not reference:
        compared = _plain(difference(network.test_errors, reference.test_errors))
    return {
        "path": one.path,
        "state": status["state"],
        "seed": one.config.seed,
        "budget_device_seconds": status["budget_device_seconds"],
        "spent_device_seconds": status["spent_device_seconds"],
        "device": status["device"],
        "searches": sum(trial["kind"] == "search" for trial in status["trials"]),
        "objective": None if incumbent is None else incumbent["value"],
        "metric": status["metric"],
        "selected_accuracy": None if selected is None else selected["val_accuracy"],
        "selected_accuracy_stderr": None if selected is None else selected["val_accuracy_stderr"],
        "test_error": None if network is None else _plain(Estimate.of(network.test_errors)),
        "test_error_above_first": compared,
        "parameters": None if network is None else network.parameters,
        "multiply_adds": None if network is None else network.multiply_adds,
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in asdict(estimate).items()}


def compare_report(console: Console, told: Mapping[str, Any]) -> None:
    """Print sweeps side by side.

    Args:
        console: Where to.
        told: What :func:`comparison` says.
    """
    signs = Signs.of(console)
    table = bare_table(signs)
    table.add_column("sweep", overflow="fold", min_width=12)
    table.add_column("state", no_wrap=True)
    columns = ("seed", "spent", "searches", "objective", "selected", "test error", "above the first")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    paths = [sweep["path"] for sweep in told["sweeps"]]
    names = {path: Place.at(path).name for path in paths}
    if len(set(names.values())) < len(paths):
        names = {path: path for path in paths}
    for sweep in told["sweeps"]:
        selected, stderr = sweep["selected_accuracy"], sweep["selected_accuracy_stderr"]
        table.add_row(
            Text(names[sweep["path"]]),
            Text(sweep["state"], STATE_STYLES[sweep["state"]]),
            str(sweep["seed"]),
            f"{sweep['spent_device_seconds']:,.0f} {sweep['device']}-s",
            str(sweep["searches"]),
            metric_value(sweep["metric"], sweep["objective"]),
            "" if selected is None else accuracy_text(selected, stderr, signs),
            estimate_text(sweep["test_error"], 100, " %"),
            estimate_text(sweep["test_error_above_first"], 100, " %", signed=True),
        )
    table.caption = Text(
        "objective and selected: the best of many looks, so optimistic; test errors: means and 95% intervals "
        "(Student's t) over the trainings of each sweep's best network",
        "dim",
    )
    table.caption_justify = "left"
    console.print(table)
    if told["differing"]:
        console.print(Text(f"they differ in {', '.join(told['differing'])}"), soft_wrap=True)
    methods_report(console, told["methods"], len(told["sweeps"]))


def methods_report(console: Console, methods: Sequence[Mapping[str, Any]], sweeps: int) -> None:
    """Print the methods of one sweep and its controls, or of several that differ in their seed alone."""
    if len(methods) < 2:
        return
    signs = Signs.of(console)
    table = bare_table(signs)
    table.add_column("method")
    for column in ("values", "test error", "relative improvement over random search"):
        table.add_column(column, justify="right", no_wrap=True)
    for method in methods:
        improvement = estimate_text(method["relative_improvement"], 1, " %", signed=True)
        error = method["test_error"]
        table.add_row(method["method"], str(error["count"]), estimate_text(error, 100, " %"), improvement)
    over = "the trainings of one sweep, which say nothing of other sweeps" if sweeps == 1 else "sweeps"
    table.caption = Text(f"means and 95% intervals (Student's t) over {over}", "dim")
    table.caption_justify = "left"
    console.print(table)


def estimate_text(estimate: Mapping[str, Any] | None, scale: float, unit: str, signed: bool = False) -> str:
    """A mean with its interval; nothing for None."""
    if estimate is None:
        return ""
    sign = "+" if signed else ""
    mean = f"{scale * estimate['mean']:{sign}.2f}"
    if estimate["low"] is None:
        return f"{mean}{unit}"
    return f"{mean} ({scale * estimate['low']:{sign}.2f} to {scale * estimate['high']:{sign}.2f}){unit}"
