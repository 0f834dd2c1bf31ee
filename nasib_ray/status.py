"""What ``nasib-ray status --json`` says of a sweep: its journal's fold as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

from schedulers.search_record import Kind, LostCheckpoint, SearchRecord, SearchStatus
from schedulers.sweep_state import SweepState

WITHOUT_LIMIT = 1e9
"""Device-seconds from which on a budget, of 31 years and more, is none."""

Beginner = Literal["sweep", "retrain", "script"]
SweepPhase = Literal["running", "interrupted", "finished", "failed"]

# "lambda" is no identifier, so that a class cannot have it as an attribute.
_Lambda = TypedDict("_Lambda", {"lambda": float | None})


class LostCheckpointStatus(TypedDict):
    """A checkpoint that was found damaged; its search went back to the one before, or to its beginning.

    Attributes:
        path: Its folder, relative to the sweep's.
        epochs: Whole epochs that the search went back.
        device_seconds: What they had held, charged as lost since.
        why: What is wrong with it.
    """

    path: str
    epochs: int
    device_seconds: float
    why: str


class TrialStatus(_Lambda):
    """One search. Whatever it has not reported yet, or never reports, is None.

    Attributes:
        id: The trial's id, also the name of its folder.
        index: 0 for the first trial, 1 for the second, ...
        kind: ``search``, or ``select``: the training of a network that a search found, at the end of the sweep.
        state: ``running`` while it holds a grant, else ``paused``, ``finished``, ``failed``, or ``not resumable``: it
            was paused, and its weights made room.
        k: The exploring policy's share in the last epoch; in (0, 1].
        lambda: The exploiting policy's divisor of alpha; above 0.
        epochs: Whole epochs done.
        horizon: Epochs that it may expect over its whole life.
        clock: 0 in its first epoch, 1 in its last.
        p: The present share of the exploring policy.
        val_accuracy: The newest accuracy on the selection split; in [0, 1].
        best_val_accuracy: The highest one: selected, so optimistic.
        metric: The name of the metric that searches are ranked by.
        value: Its newest value.
        best_value: Its best one.
        spent_device_seconds: Device-time held so far.
        memory_bytes: The most memory that it held: of its GPU, else of its whole process.
        step_memory_bytes: The part of it that a batch needed.
        error: Why it failed.
        lost_checkpoints: Those that were found damaged, the newest last.
        config: Its whole configuration.
    """

    id: str
    index: int
    kind: Kind
    state: SearchStatus
    k: float | None
    epochs: int
    horizon: int | None
    clock: float | None
    p: float | None
    val_accuracy: float | None
    best_val_accuracy: float | None
    metric: str | None
    value: float | None
    best_value: float | None
    spent_device_seconds: float
    memory_bytes: int | None
    step_memory_bytes: int | None
    error: str | None
    lost_checkpoints: list[LostCheckpointStatus]
    config: dict[str, Any]


class IncumbentStatus(_Lambda):
    """The best search so far, at its best report. Its value is a maximum over many looks, and so optimistic.

    Attributes:
        trial: The trial's id.
        k: The exploring policy's share in the last epoch; in (0, 1].
        lambda: The exploiting policy's divisor of alpha; above 0.
        epochs: Whole epochs after which it had its best value.
        looks: How many ranked reports, of all searches, it is the best of.
        val_accuracy: The accuracy on the selection split; in [0, 1].
        val_accuracy_stderr: Its standard error.
        architecture: The operation of each layer, as in "conv3x5", "sepconv7x2".
        metric: The name of the metric that searches are ranked by.
        value: Its value.
        config: The whole configuration.
    """

    trial: str
    k: float | None
    epochs: int | None
    looks: int
    val_accuracy: float | None
    val_accuracy_stderr: float | None
    architecture: list[str] | None
    metric: str | None
    value: float
    config: dict[str, Any]


class SelectedStatus(TypedDict):
    """The network that the selection chose, trained for a short while from scratch.

    Attributes:
        trial: Its training.
        found_by: The search that found it.
        epochs: Of its training.
        val_accuracy: After the last one, on the selection split, which chose among ``finalists``, so optimistic.
        val_accuracy_stderr: Its standard error.
        finalists: How many networks were trained to the end.
        selected_by: Of what they did on that split, that which was the best: ``accuracy`` or ``likelihood``.
        architecture: Names of the layers' operations, in order.
    """

    trial: str
    found_by: str
    epochs: int
    val_accuracy: float
    val_accuracy_stderr: float | None
    finalists: int
    selected_by: str
    architecture: list[str]


class SweepStatus(TypedDict):
    """A sweep as JSON can hold it; device-time is in device-seconds of ``device``, times are ISO 8601 in UTC.

    Attributes:
        state: ``running`` as long as its driver is alive, else how the newest driver ended; one that died without a
            word has been ``interrupted``.
        why: Why it ended so; empty while it runs.
        started: When the sweep began; None before its first record.
        updated: When its journal was last written to.
        device: What the budget counts: "gpu" or "cpu".
        metric: The name of the metric that searches are ranked by.
        mode: Whether the best value is the highest ("max") or the lowest ("min").
        budget_device_seconds: What all trials together may hold.
        spent_device_seconds: What they have held.
        spent_by_kind: The same for each kind; the kinds sum to it.
        granted_device_seconds: What is promised to running trials beyond that.
        left_device_seconds: Neither held nor promised.
        epoch_device_seconds: What the sweep's first epoch took; None before.
        full_horizon: Epochs of a full search; None before an epoch was measured.
        stored_bytes: What its checkpoints take.
        max_storage_bytes: What they may take; None: no bound.
        deadline: When everything must be saved, of its newest run; None: there is none.
        chooses: Whether it is to find the best trial; trainings of found networks are not.
        begun_by: What began it, and goes on with it: a command of nasib-ray (a ``search`` is a sweep), or a script.
        trials: Every trial, in the order in which they were made.
        incumbent: The best search; None before the first ranked report.
        selected: The trained network that did best in the selection; None before there is one.
    """

    state: SweepPhase
    why: str
    started: str | None
    updated: str | None
    device: str | None
    metric: str | None
    mode: str
    budget_device_seconds: float
    spent_device_seconds: float
    spent_by_kind: dict[str, float]
    granted_device_seconds: float
    left_device_seconds: float
    epoch_device_seconds: float | None
    full_horizon: int | None
    stored_bytes: int
    max_storage_bytes: int | None
    deadline: str | None
    chooses: bool
    begun_by: Beginner
    trials: list[TrialStatus]
    incumbent: IncumbentStatus | None
    selected: SelectedStatus | None


def sweep_status(state: SweepState, alive: bool) -> SweepStatus:
    """Describe a sweep.

    Args:
        state: What its journal says.
        alive: Whether its driver seems to be at work.
    """
    ledger = state.ledger
    phase, why = sweep_phase(state, alive)
    return {
        "state": phase,
        "why": why,
        "started": _iso(state.first_time),
        "updated": _iso(state.last_time),
        "device": state.settings.get("device"),
        "metric": state.settings.get("metric"),
        "mode": state.mode,
        "budget_device_seconds": ledger.budget,
        "spent_device_seconds": ledger.spent,
        "spent_by_kind": dict(ledger.spent_by_kind),
        "granted_device_seconds": float(ledger.granted),
        "left_device_seconds": max(0.0, ledger.free),
        "epoch_device_seconds": state.epoch_device_seconds,
        "full_horizon": state.full_horizon,
        "stored_bytes": state.stored_bytes,
        "max_storage_bytes": state.max_storage_bytes,
        "deadline": _iso(state.deadline or 0.0),
        "chooses": "retrain" not in state.settings,
        "begun_by": begun_by(state),
        "trials": [trial_status(state, search) for search in state.searches.values()],
        "incumbent": incumbent_status(state),
        "selected": selected_status(state),
    }


def begun_by(state: SweepState) -> Beginner:
    """What began a sweep."""
    return "sweep" if "config" in state.settings else "retrain" if "retrain" in state.settings else "script"


def sweep_phase(state: SweepState, alive: bool) -> tuple[SweepPhase, str]:
    """How a sweep stands, and why if it has ended."""
    match state.end:
        case "finished" if state.ledger.budget >= WITHOUT_LIMIT:
            return "finished", "all trials are done"
        case "finished" | "interrupted" | "failed" as end:
            return end, state.end_why
    return ("running", "") if alive else ("interrupted", "its driver is gone")


def trial_status(state: SweepState, search: SearchRecord) -> TrialStatus:
    """Describe one search of a sweep."""
    metric, latest = state.settings.get("metric"), search.latest
    value = search.curve[-1][1] if search.curve else None
    judged = metric == "val_accuracy"
    return {
        "id": search.id,
        "index": search.index,
        "kind": search.kind,
        "state": search.state,
        "k": search.config.get("k"),
        "lambda": search.config.get("lambda"),
        "epochs": search.epochs,
        "horizon": search.horizon,
        "clock": latest.get("clock"),
        "p": latest.get("p"),
        "val_accuracy": value if judged else latest.get("val_accuracy"),
        "best_val_accuracy": search.best_value if judged else latest.get("best_val_accuracy"),
        "metric": metric,
        "value": value,
        "best_value": search.best_value,
        "spent_device_seconds": state.ledger.spent_on(search.id),
        "memory_bytes": latest.get("memory_bytes"),
        "step_memory_bytes": latest.get("step_memory_bytes"),
        "error": search.why if search.state == "failed" else None,
        "lost_checkpoints": [lost_status(lost) for lost in search.lost_checkpoints],
        "config": search.config,
    }


def lost_status(lost: LostCheckpoint) -> LostCheckpointStatus:
    """Describe a damaged checkpoint."""
    return {"path": lost.path, "epochs": lost.epochs, "device_seconds": lost.device_seconds, "why": lost.why}


def incumbent_status(state: SweepState) -> IncumbentStatus | None:
    """Describe the best search of a sweep at its best report, if there is one."""
    search = state.incumbent
    if search is None or search.best_value is None:
        return None
    metrics = search.best_metrics
    return {
        "trial": search.id,
        "k": search.config.get("k"),
        "lambda": search.config.get("lambda"),
        "epochs": metrics.get("epochs", next((at for at, value in search.curve if value == search.best_value), None)),
        "looks": sum(len(other.curve) for other in state.searches.values() if other.kind == "search"),
        "val_accuracy": metrics.get("val_accuracy"),
        "val_accuracy_stderr": metrics.get("val_accuracy_stderr"),
        "architecture": metrics.get("architecture"),
        "metric": state.settings.get("metric"),
        "value": search.best_value,
        "config": search.config,
    }


def selected_status(state: SweepState) -> SelectedStatus | None:
    """Describe the network that the selection chose, if it has."""
    trial = state.selected
    if trial is None:
        return None
    competing = [other for other in state.searches.values() if other.kind == "select" and state.counts(other)]
    return {
        "trial": trial.id,
        "found_by": trial.config["name"],
        "epochs": trial.epochs,
        "val_accuracy": trial.latest.get("val_accuracy", trial.curve[-1][1]),
        "val_accuracy_stderr": trial.latest.get("val_accuracy_stderr"),
        "finalists": sum(other.state == "finished" for other in competing),
        "selected_by": trial.config.get("ranked_by", "accuracy"),
        "architecture": list(trial.latest["architecture"]),
    }


def single_values(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings, those of a section as ``section/name``; lists as JSON."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values.update(single_values(value, f"{prefix}{name}/"))
        else:
            values[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, (list, tuple)) else value
    return values


def _iso(unix_seconds: float) -> str | None:
    return datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat() if unix_seconds else None
