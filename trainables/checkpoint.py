"""What a search saves, so that it goes on bit for bit: safetensors, JSON and Arrow, read without executing code.

Files: ``weights.safetensors`` (the supernet), ``momentum.safetensors`` (of the weights that were ever drawn),
``alpha_optimizer.safetensors`` (moments and steps, per entry), ``architecture.arrow`` (a row for each candidate of each
layer: alpha, frequency, sampling probability), ``history.arrow`` (the same after the epochs 1, 2, 4, 8, ...),
``search.json`` (position, sums over the running epoch, settings) and ``manifest.json``. Random states need no file of
their own: generators are functions of the seed and the position.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor

from trainables import manifest
from trainables.candidates import kernel_of
from trainables.manifest import MANIFEST, verify_checkpoint, write_manifest
from trainables.position import EpochResult, EpochTotals, Position, Snapshot
from trainables.search import Search
from trainables.settings import SearchSettings

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
MOMENTUM = "momentum.safetensors"
ALPHA_OPTIMIZER = "alpha_optimizer.safetensors"
ARCHITECTURE = "architecture.arrow"
HISTORY = "history.arrow"
SEARCH = "search.json"

KEPT_FILES = (ARCHITECTURE, HISTORY, SEARCH, MANIFEST)
"""What stays of a search whose weights are deleted, and is small: alpha, frequencies, position."""


def save_search(search: Search, directory: str | Path) -> None:
    """Write the whole state of a search into an existing folder."""
    folder = Path(directory)
    save_tensors(search.supernet.state_dict(), folder / WEIGHTS)
    save_tensors(search.optimizer.momentum, folder / MOMENTUM)
    parameters = search.parameters
    save_tensors(
        {
            "first_moment": parameters.first_moment,
            "second_moment": parameters.second_moment,
            "steps": parameters.steps,
        },
        folder / ALPHA_OPTIMIZER,
    )
    for name, snapshots in ((ARCHITECTURE, [search.snapshot()]), (HISTORY, search.snapshots)):
        table = candidates_table(search.settings.search, snapshots)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    (folder / SEARCH).write_text(json.dumps(_position(search), indent=2), encoding="utf-8")
    write_manifest(folder, (WEIGHTS, MOMENTUM, ALPHA_OPTIMIZER, ARCHITECTURE, HISTORY, SEARCH))


def load_search(search: Search, directory: str | Path) -> None:
    """Put a search into the state that was saved; then its settings' horizon is told to it.

    Args:
        search: Built from settings that agree with the saved ones in everything that gives tensors and batches their
            meaning. Other settings may differ, with a warning: the search is then no function of its settings alone.
        directory: What ``save_search`` wrote.

    Raises:
        ValueError: The checkpoint is damaged, or of another search.
    """
    folder = Path(directory)
    if verify_checkpoint(folder) != manifest.SEARCH:
        raise ValueError(f"{folder} is the checkpoint of a network's training, not of a search")
    saved: dict[str, Any] = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
    _check_identity(saved["identity"], _identity(search), folder)
    _warn_of_changes(saved["settings"], _settings(search))

    weights, momentum = search.supernet.state_dict(), search.optimizer.momentum
    saved_weights, saved_momentum = load_file(folder / WEIGHTS), load_file(folder / MOMENTUM)
    if saved_weights.keys() != weights.keys():
        raise ValueError(f"{folder / WEIGHTS} holds other weights than this search has, though all else agrees")
    # Thousands of small tensors: faster than load_state_dict by half a second.
    for name, tensor in saved_weights.items():
        weights[name].copy_(tensor)
    search.optimizer.momentum = {
        name: momentum.get(name, torch.empty_like(weights[name])).copy_(tensor)
        for name, tensor in saved_momentum.items()
    }
    parameters = search.parameters
    for name, moment in load_file(folder / ALPHA_OPTIMIZER).items():
        getattr(parameters, name).copy_(moment)
    (newest,) = _read_snapshots(folder / ARCHITECTURE, parameters.alpha.shape)
    parameters.alpha.copy_(newest.alpha)
    search.sampler.frequency.copy_(newest.frequency)
    search.snapshots = _read_snapshots(folder / HISTORY, parameters.alpha.shape)

    position, totals = saved["position"], saved["totals"]
    search.position = Position(
        batches=position["batches"],
        history=[(batches, horizon) for batches, horizon in position["history"]],
        last_epoch=EpochResult(**position["last_epoch"]) if position["last_epoch"] else None,
        best_val_accuracy=position["best_val_accuracy"],
        chosen=position["chosen"],
        measuring=position["measuring"],
    )
    search.totals = EpochTotals(
        weight_loss=torch.full_like(search.totals.weight_loss, totals["weight_loss"]),
        alpha_loss=torch.full_like(search.totals.alpha_loss, totals["alpha_loss"]),
        correct=torch.full_like(search.totals.correct, totals["correct"]),
        seconds=totals["seconds"],
    )
    search.leave_measurement()
    search.tell_horizon()


def candidates_table(settings: SearchSettings, snapshots: Sequence[Snapshot]) -> pa.Table:
    """All candidates of all layers after some epochs: epoch, layer (both from 1), i, j (null unless a kernel),
    operation, alpha, frequency, sampling_probability (that the layer's next first draw is this one)."""
    names, layers = settings.candidate_names, settings.layers
    kernels = [kernel_of(name) for name in names]
    times, size = len(snapshots), layers * len(names)

    def column(name: str) -> list[Any]:
        return [value for snapshot in snapshots for value in getattr(snapshot, name).flatten().tolist()]

    return pa.table(
        {
            "epoch": pa.array([snapshot.epoch for snapshot in snapshots for _ in range(size)], pa.int32()),
            "layer": pa.array([layer for layer in range(1, layers + 1) for _ in names] * times, pa.int32()),
            "i": pa.array([kernel and kernel[1] for kernel in kernels] * layers * times, pa.int32()),
            "j": pa.array([kernel and kernel[2] for kernel in kernels] * layers * times, pa.int32()),
            "operation": pa.array(list(names) * layers * times, pa.string()),
            "alpha": pa.array(column("alpha"), pa.float64()),
            "frequency": pa.array(column("frequency"), pa.int64()),
            "sampling_probability": pa.array(column("sampling_probability"), pa.float64()),
        }
    )


def _read_snapshots(file: Path, shape: torch.Size) -> list[Snapshot]:
    """What ``candidates_table`` wrote, of [layers, N] candidates."""
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all()
    size, columns = shape.numel(), ("alpha", "frequency", "sampling_probability")
    return [
        Snapshot(
            table["epoch"][start].as_py(),
            *(torch.from_numpy(table[name].slice(start, size).to_numpy().copy()).view(shape) for name in columns),
        )
        for start in range(0, len(table), size)
    ]


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors, wherever they are, as safetensors."""
    # As arrays: of thousands of small tensors safetensors writes these faster than the tensors.
    save_file({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}, path)


def _position(search: Search) -> dict[str, Any]:
    totals = search.totals
    return {
        "identity": _identity(search),
        "settings": _settings(search),
        "position": dataclasses.asdict(search.position),
        "totals": {
            "weight_loss": float(totals.weight_loss),
            "alpha_loss": float(totals.alpha_loss),
            "correct": int(totals.correct),
            "seconds": totals.seconds,
        },
    }


def _identity(search: Search) -> dict[str, Any]:
    """What gives the saved tensors and the number of batches their meaning."""
    settings = search.settings.search
    return {
        "candidates": list(settings.candidate_names),
        "macro": json.loads(json.dumps(dataclasses.asdict(search.supernet.shape))),
        "batch_norm": settings.batch_norm,
        "batch_size": settings.batch_size,
        "alternate": settings.alternate,
        "data": search.data_fingerprint,
        "splits": search.splits_fingerprint,
    }


def _settings(search: Search) -> dict[str, Any]:
    """Settings that make a search what it is: neither its horizon and slice nor where its data lie."""
    settings = search.settings.model_dump(mode="json", by_alias=True, include={"search", "data", "seed"})
    flat: dict[str, Any] = {**settings["search"], "seed": settings["seed"]}
    flat.update({f"data.{key}": settings["data"][key] for key in ("flip", "crop", "cutout")})
    del flat["checkpoint_seconds"]
    return flat


def _check_identity(saved: dict[str, Any], own: dict[str, Any], folder: Path) -> None:
    for key, value in saved.items():
        if own[key] != value:
            raise ValueError(
                f"{folder} is the checkpoint of another search: its {key} is {value}, this one's {own[key]}; a search "
                "goes on only with the candidates, network, data and batches that it began with"
            )


def _warn_of_changes(saved: dict[str, Any], own: dict[str, Any]) -> None:
    changed = {key: (value, own.get(key)) for key, value in saved.items() if own.get(key) != value}
    if changed:
        logger.warning("The search goes on with other settings than it was saved with (saved, now): %s", changed)
