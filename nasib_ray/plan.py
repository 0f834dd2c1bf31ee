"""What a budget would buy, from one epoch measured on this machine."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nasib_ray.config import SweepConfig
from nasib_ray.deadline import check_ahead, format_deadline
from schedulers.allocation import SLICE_MARGIN, planned_horizon
from schedulers.allocators import ENDGAME_START, rungs_of_horizon
from schedulers.budget import Budget, format_device_seconds
from schedulers.ledger import KEPT_CHECKPOINTS
from schedulers.rules import Rules
from schedulers.selection import kept_back
from schedulers.sizes import format_size
from schedulers.storage_bound import told_too_small
from trainables.memory import MemoryEstimate
from trainables.settings import TrialSettings


@dataclass(frozen=True)
class Measured:
    """One trial on this machine.

    Attributes:
        epoch_seconds: Wall seconds of the first epoch: both passes and the evaluation.
        objective_seconds: Wall seconds that measuring the objective takes beside.
        setup_seconds: Wall seconds of loading prepared data and building the supernet.
        checkpoint_bytes: Size of a checkpoint, and ``checkpoint_seconds`` the wall seconds of writing it.
        estimate: What it was expected to need in memory; None: that is not known of trainings.
        memory_bytes: What it needed at most: the GPU's if it has one, else that of the whole process.
        step_memory_bytes: The part of it that a batch needs.
        parameters: Parameters of the supernet.
        device_name: What it was measured on.
    """

    epoch_seconds: float
    objective_seconds: float
    setup_seconds: float
    checkpoint_bytes: int
    checkpoint_seconds: float
    estimate: MemoryEstimate | None
    memory_bytes: int
    step_memory_bytes: int
    parameters: int
    device_name: str


@dataclass(frozen=True)
class Plan:
    """What a budget buys here.

    Attributes:
        budget: The budget.
        devices: Budgeted devices that one trial holds.
        slots: Trials that this machine runs at once.
        measured: One trial.
        horizon: Epochs of a full search.
        full_searches: How many full searches the budget buys.
        begun: About how many searches will be begun, if one in eta goes on at every rung.
        rungs: Epochs at which searches are compared.
        selection: Device-seconds that are kept for the selection, and how many networks compete in it.
        wall_seconds: How long the sweep takes, at least and at most: as long as the budget keeps all slots running, and
            until the last search of the endgame can have ended.
        disk_bytes: What the checkpoints of all searches take without a bound, the next ones included.
        max_storage: What they may take, in bytes; None: no bound.
        price: Money for the whole budget, if a price is set.
        usable: Device-seconds of the budget that can be spent before the deadline.
        deadline: When everything must be saved; None: there is no deadline, or the budget is used up before it.
    """

    budget: Budget
    devices: float
    slots: int
    measured: Measured
    horizon: int
    full_searches: int
    begun: int
    rungs: list[int]
    selection: tuple[float, int]
    wall_seconds: tuple[float, float]
    disk_bytes: int
    max_storage: int | None
    price: float | None
    usable: float
    deadline: datetime | None


def make_plan(config: SweepConfig, progress: Callable[[str, int, int], None] | None = None) -> Plan:
    """Measure one epoch of the configuration's first search and plan with it.

    Args:
        config: The sweep's configuration, with a budget.
        progress: Told of data that are being prepared.

    Raises:
        ValueError: If there is no budget, this machine cannot hold a trial, the budget buys no epoch, the deadline has
            passed or leaves no time for one, or `max_storage` cannot hold the checkpoints of what runs at once.
    """
    # Before imports that take seconds.
    check_ahead(config.deadline, datetime.now().astimezone())
    from nasib_ray.sweep import allocator_of

    held, budget = config.resources, config.budget
    assert budget is not None, "resources are known only under a budget"
    cpus, gpus = held.cpus or 0.0, held.gpus or 0.0
    slots, measured = measure(config, cpus, gpus, progress)
    devices = gpus if budget.device == "gpu" else cpus
    epoch, beside = measured.epoch_seconds * devices, measured.objective_seconds * devices
    boots = measured.setup_seconds * devices * min(slots, config.full_searches)
    least = devices * (measured.setup_seconds + measured.checkpoint_seconds + Rules.grace_seconds) + SLICE_MARGIN * (
        epoch + beside
    )
    if budget.device_seconds < least:
        enough = format_device_seconds(math.ceil(1.5 * least), budget.device)
        raise ValueError(f"a budget of {budget} is too small for one epoch of one search; about {enough} would do")
    bound, room = config.max_storage, KEPT_CHECKPOINTS * measured.checkpoint_bytes * slots
    if bound is not None and bound < room:
        raise ValueError(told_too_small(bound, measured.checkpoint_bytes, slots))
    kept = 0.0
    until = _seconds_to(config.deadline)
    usable = min(budget.device_seconds, until * slots * devices)
    if config.deadline is not None and until * devices < least:
        raise ValueError(
            f"until {format_deadline(config.deadline)} there is no time for one epoch of one search, which takes about "
            f"{math.ceil(least / devices)} s: give a later deadline"
        )
    if config.finalists:
        share, finalists = config.selection_share, config.finalists
        kept = kept_back(usable, share, finalists, measured.epoch_seconds, devices)
    for_searches = usable - kept
    of_a_search = allocator_of(config).comparisons * SLICE_MARGIN * beside
    in_time = (until - kept / (slots * devices)) * devices
    horizon = planned_horizon(for_searches, boots, config.full_searches, epoch, of_a_search, in_time)
    epochs = (for_searches - boots) / epoch
    full_searches, equal = max(1, int(epochs / horizon)), config.allocator == "equal-share"
    searching, full_search = for_searches / (slots * devices), horizon * measured.epoch_seconds + of_a_search / devices
    # With so many slots the endgame begins at once.
    rungs = [] if equal or searching < ENDGAME_START * full_search else rungs_of_horizon(horizon, config.rungs)
    begun = max(1, round(epochs / _epochs_of_one(horizon, rungs, config.eta)))
    if equal:
        begun = config.full_searches
        soonest = latest = math.ceil(begun / slots) * for_searches / (begun * devices)
    else:
        soonest = max(searching, full_search)
        latest = soonest if slots == 1 else max(0.0, searching - ENDGAME_START * full_search) + full_search
    selecting = kept / (min(slots, max(1, config.finalists)) * devices)
    return Plan(
        budget=budget,
        devices=devices,
        slots=slots,
        measured=measured,
        horizon=horizon,
        full_searches=full_searches,
        begun=begun,
        rungs=rungs,
        selection=(kept, config.finalists),
        wall_seconds=(min(until, soonest + selecting), min(until, latest + selecting)),
        disk_bytes=measured.checkpoint_bytes * (KEPT_CHECKPOINTS * begun + slots),
        max_storage=config.max_storage,
        price=None if config.price_per_hour is None else config.price_per_hour * budget.device_seconds / 3600,
        usable=usable,
        deadline=None if usable == budget.device_seconds else config.deadline,
    )


def _seconds_to(deadline: datetime | None) -> float:
    return math.inf if deadline is None else max(0.0, deadline.timestamp() - time.time())


def _epochs_of_one(horizon: int, rungs: list[int], eta: int) -> float:
    """Epochs that a search runs on average, if one in eta goes on at every rung."""
    borders = [0, *rungs, horizon]
    steps = [upper - lower for lower, upper in pairwise(borders)]
    return float(sum(step / eta**passed for passed, step in enumerate(steps)))


def measure(
    config: SweepConfig, cpus: float, gpus: float, progress: Callable[[str, int, int], None] | None = None
) -> tuple[int, Measured]:
    """Run one epoch of the configuration's first search here, and save it once.

    Returns:
        How many trials run here at once, and one of them.

    Raises:
        ValueError: If not even one can, or they have no room in memory.
    """
    import torch
    from ray.tune import PlacementGroupFactory

    from nasib_ray.random_search import RandomSearcher
    from nasib_ray.searcher import first_trial
    from nasib_ray.this_machine import check_memory_here, slots_here
    from trainables.data import load_dataset
    from trainables.sweep_trainable import SweepTrainable

    class Held(SweepTrainable):
        """A trial that holds what it will hold, without Ray."""

        @property
        def trial_resources(self) -> PlacementGroupFactory:
            return PlacementGroupFactory([{"CPU": cpus, "GPU": gpus}])

    slots = slots_here(config, torch.cuda.device_count())
    dataset = load_dataset(config.data, progress)
    told = first_trial(config)
    first = TrialSettings.from_config(told)
    searches = config.method == "nasib"
    estimate = check_memory_here(config, first.search, dataset, slots) if searches else None
    if not searches:
        told = RandomSearcher(config, dataset, "objective", "max").suggest("first")
    started = time.perf_counter()
    trial = Held(told)
    setup_seconds = time.perf_counter() - started
    try:
        report: dict[str, Any] = trial.step()
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            trial.save_checkpoint(folder)
            checkpoint_seconds = time.perf_counter() - started
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    finally:
        trial.stop()
    return slots, Measured(
        epoch_seconds=report["epoch_seconds"],
        objective_seconds=report.get("objective_seconds") or 0.0,
        setup_seconds=setup_seconds,
        checkpoint_bytes=size,
        checkpoint_seconds=checkpoint_seconds,
        estimate=estimate,
        memory_bytes=report["memory_bytes"],
        step_memory_bytes=report["step_memory_bytes"],
        parameters=report["parameters"],
        device_name=report["device_name"],
    )


def plan_report(console: Console, plan: Plan) -> None:
    """Print a plan."""
    measured, device = plan.measured, plan.budget.device
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    rungs = f"after {', '.join(map(str, plan.rungs))} epochs" if plan.rungs else "none, every search runs to its end"
    rows = {
        "budget": f"{plan.budget}, all trials together",
        "one trial": f"{plan.devices:g} {device.upper()}; {plan.slots} at once here ({measured.device_name})",
        "network": f"{measured.parameters:,} parameters",
        "one epoch": f"{measured.epoch_seconds:.2f} s ({measured.epoch_seconds * plan.devices:.2f} {device}-seconds); "
        f"measuring the objective where it is compared takes {measured.objective_seconds:.2f} s",
        "full search": f"{plan.horizon} epochs; the budget buys {plan.full_searches} of them",
        "rungs": f"{rungs}; about {plan.begun} searches will be begun",
        **({"selection": _selection_text(plan)} if plan.selection[0] else {}),
        "wall-clock": _wall_text(*map(_duration, plan.wall_seconds)) + _deadline_text(plan),
        "memory": f"{format_size(measured.memory_bytes)} a trial, {format_size(measured.step_memory_bytes)} of it for "
        f"a batch{_estimate_text(measured.estimate)}",
        "disk": f"up to {format_size(plan.disk_bytes)} of checkpoints, {format_size(measured.checkpoint_bytes)} each",
        **({} if plan.max_storage is None else {"max_storage": _bound_text(plan, plan.max_storage)}),
    }
    if plan.price is not None:
        rows["price"] = f"{plan.price:,.2f}"
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _wall_text(soonest: str, latest: str) -> str:
    return soonest if soonest == latest else f"{soonest} to {latest}: fewer trials run towards the end"


def _deadline_text(plan: Plan) -> str:
    if plan.deadline is None:
        return ""
    return f", until the deadline: time for {format_device_seconds(plan.usable, plan.budget.device)} of the budget"


def _estimate_text(estimate: MemoryEstimate | None) -> str:
    return "" if estimate is None else f" (estimated: {format_size(estimate.total)}, {format_size(estimate.step)})"


def _selection_text(plan: Plan) -> str:
    kept, finalists = plan.selection
    return f"{format_device_seconds(kept, plan.budget.device)} are kept to train the {finalists} best networks"


def _bound_text(plan: Plan, bound: int) -> str:
    """What a bound on storage does to the searches that do not run."""
    if plan.disk_bytes <= bound:
        return f"{format_size(bound)}, which is enough for all of them"
    others = max(0, plan.begun - plan.slots)
    keep = min(others, bound // plan.measured.checkpoint_bytes - KEPT_CHECKPOINTS * plan.slots)
    return f"{format_size(bound)}, which holds the weights of {keep} of {others} searches that do not run, the best"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
