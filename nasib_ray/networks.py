"""Trained networks of a sweep, for use: plain modules, with what one must know of them."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from nasib_ray.comparison import FOUND, by_method
from nasib_ray.place import Place
from nasib_ray.results import Sweep, config_of, load_sweep, sweep_exists
from nasib_ray.trained import TRAININGS, ranking, trained_networks
from schedulers.search_record import SearchRecord
from trainables.architecture import Architecture
from trainables.training_settings import TrainingSettings

if TYPE_CHECKING:
    from torch.fx import GraphModule


@dataclass(frozen=True)
class Network:
    """A trained network and what one must know to use it.

    Attributes:
        module: From images, float32 [B, C, H, W] in [0, 1], to logits [B, classes]; needs only PyTorch.
        source: Where its weights come from, in words.
        architecture: What it is.
        class_names: One for each logit.
        mean: Of each channel, in [0, 1]; the module subtracts it itself.
        std: Standard deviation; the module divides by it itself.
        data: The ``data`` section that it was trained on.
    """

    module: GraphModule
    source: str
    architecture: Architecture
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data: dict[str, Any]

    def described(self) -> dict[str, Any]:
        """All but the weights, as JSON can hold it."""
        from trainables.stock import count_multiply_adds
        from trainables.supernet import count_parameters

        return {
            "source": self.source,
            "architecture": self.architecture.to_plain(),
            "class_names": list(self.class_names),
            "input": {
                "shape": ["batch", *self.architecture.macro.image_shape],
                "range": [0.0, 1.0],
                "normalisation": {"mean": list(self.mean), "std": list(self.std), "included": True},
            },
            "parameters": count_parameters(self.module),
            "multiply_adds": count_multiply_adds(self.architecture),
        }


def read_network(path: str, name: str = TRAININGS) -> Network:
    """The network of a sweep that was trained from scratch, else the one that its selection chose.

    Of several that were trained from scratch it is the one that the sweep found best, and of its trainings that of the
    first seed: the test set chooses nothing.

    Args:
        path: The sweep.
        name: Of the folder of its trainings, as ``nasib-ray retrain`` was told.

    Raises:
        ValueError: Nothing was trained to its end, or the checkpoint is damaged.
    """
    sweep = load_sweep(path)
    place = Place.at(path).inside(name)
    if sweep_exists(place.path):
        trainings = load_sweep(place.path)
        if (found := by_method(trained_networks(trainings), ranking(sweep.state)).get(FOUND)) is not None:
            training = found.trainings[0]
            told = f"found by trial {found.name}, {training.epochs} epochs, seed {training.config['seed']}"
            return _read(trainings, training, f"retrained from scratch: {told}")
    if (selected := sweep.state.selected) is not None:
        told = f"found by trial {selected.config['name']}, trained for {selected.epochs} epochs"
        return _read(sweep, selected, f"chosen by the sweep's selection, not retrained: {told}")
    config_of(sweep)  # What is no sweep of searches has nothing to be trained.
    raise ValueError(f"{path} has no trained network yet: `nasib-ray retrain {shlex.quote(path)}` trains what it found")


def _read(sweep: Sweep, training: SearchRecord, source: str) -> Network:
    """The network of a finished training, from its newest checkpoint."""
    import torch
    from safetensors.torch import load_file

    from trainables.manifest import TRAINING, verify_checkpoint
    from trainables.plain_network import plain_network
    from trainables.retrain import NETWORK, WEIGHTS
    from trainables.supernet import build_network

    architecture = TrainingSettings.from_config(training.config).architecture
    if not training.checkpoints:
        raise ValueError(f"the weights of training {training.id} in {sweep.path} are gone: train it again")
    with _local_copy(sweep, training.checkpoints[-1].path) as folder:
        if verify_checkpoint(folder) != TRAINING:
            raise ValueError(f"{folder} is no checkpoint of a training")
        described = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
        network = build_network(architecture)
        network.load_state_dict(load_file(folder / WEIGHTS))
    network.to(memory_format=torch.contiguous_format)
    data = described["data"]
    return Network(
        module=plain_network(network, data["mean"], data["std"]),
        source=source,
        architecture=architecture,
        class_names=tuple(data["class_names"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        data=described["settings"]["data"],
    )


def load_network(path: str, name: str = TRAININGS) -> GraphModule:
    """The trained network of a sweep as a plain module, in evaluation mode, on the CPU.

    Args:
        path: The sweep.
        name: Of the folder of its trainings.

    Returns:
        A ``torch.fx.GraphModule`` from images, float32 [B, C, H, W] in [0, 1], to logits [B, classes]. It needs only
        PyTorch: ``torch.save(module, file)`` is read where this package is not installed. ``module.meta`` says what it
        is: ``source``, ``class_names``, ``architecture``, ...

    Raises:
        ValueError: Nothing was trained yet, or the checkpoint is damaged.
    """
    network = read_network(path, name)
    network.module.meta.update(network.described())
    return network.module


@contextmanager
def _local_copy(sweep: Sweep, relative: str) -> Iterator[Path]:
    """A folder of a sweep on this machine."""
    folder = posixpath.join(sweep.folder, relative)
    if isinstance(sweep.filesystem, fs.LocalFileSystem):
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="nasib-ray-") as local:
        fs.copy_files(folder, local, source_filesystem=sweep.filesystem)
        yield Path(local)
