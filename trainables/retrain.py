"""The training of a found network as a Trainable of Ray Tune."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from trainables.augmentation import BatchTransform
from trainables.checkpoint import save_tensors
from trainables.data import Dataset, make_splits
from trainables.manifest import TRAINING, verify_checkpoint, write_manifest
from trainables.sampling import seeded_torch, stream_seed
from trainables.sliced import TOLD, SlicedTrainable, Told, Work
from trainables.supernet import build_network, count_parameters
from trainables.training import Judgement, LabelledImages, Training, judge
from trainables.training_settings import TrainingSettings

WEIGHTS = "weights.safetensors"
MOMENTUM = "momentum.safetensors"
NETWORK = "network.json"

_APART = {*TOLD, "checkpoint_seconds"}


class RetrainTrainable(SlicedTrainable):
    """A network, from scratch; ``training_settings.TrainingSettings`` describes its configuration."""

    def read_settings(self, config: dict[str, Any]) -> TrainingSettings:
        """The settings of one training.

        Raises:
            ValueError: The configuration breaks a rule.
        """
        return TrainingSettings.from_config(config)

    def make_work(self, settings: Told, dataset: Dataset, left: Work | None, to_be_loaded: bool) -> NetworkTraining:
        """A new training of a new network.

        Raises:
            ValueError: Network and data do not fit.
        """
        assert isinstance(settings, TrainingSettings), "a training has a training's settings"
        return NetworkTraining(settings, dataset, self.device)

    @property
    def training(self) -> NetworkTraining:
        """The training as it stands."""
        return cast(NetworkTraining, self.work)


class NetworkTraining(Training):
    """The training of an architecture's network as the work of a trial.

    Args:
        settings: Of the trial.
        dataset: The data; the test part is read once, after the last epoch, and only if it is to be judged on.
        device: Where to compute.

    Attributes:
        settings: Of the trial.
        judged: What the network did on the part that it is judged on; None where that was not asked yet.

    Raises:
        ValueError: Network and data do not fit.
    """

    def __init__(self, settings: TrainingSettings, dataset: Dataset, device: torch.device) -> None:
        self.settings = settings
        self._dataset = dataset
        macro = settings.architecture.macro
        image_shape, classes = tuple(dataset.train.images.shape[1:]), len(dataset.class_names)
        if (macro.image_shape, macro.classes) != (image_shape, classes):
            raise ValueError(
                f"the network is for images of {macro.image_shape} and {macro.classes} classes, but "
                f"{settings.data.name} has {image_shape} and {classes}: give the data that it was found on"
            )
        with seeded_torch(stream_seed(settings.seed, "initial weights")):
            network = build_network(settings.architecture).to(device)
        network.drop_paths(settings.recipe.drop_path)
        splits = make_splits(dataset.train.labels, settings.data, settings.split_seed)
        parts = {
            "weights": splits.weights,
            "weights and alpha": torch.cat([splits.weights, splits.alpha]).sort().values,
            "all": torch.arange(len(dataset.train.labels)),
        }
        self._transform = BatchTransform(dataset, settings.data, device)
        self._images, self._labels = dataset.train.images.to(device), dataset.train.labels.to(device)
        trained_on = self._part(parts[settings.trained_on])
        super().__init__(network, settings.recipe, trained_on, settings.seed, settings.horizon)
        self._selection = self._part(splits.selection)
        self.judged: Judgement | None = None

    def _part(self, part: torch.Tensor) -> LabelledImages:
        return LabelledImages(self._images, self._labels, part.to(self._images.device), self._transform)

    @property
    def parameters_count(self) -> int:
        """Trainable scalars of the network."""
        return count_parameters(self.network)

    @property
    def momentum_bytes(self) -> int:
        """What the momentum of the weights takes."""
        return self.optimizer.momentum_bytes

    def tell_horizon(self) -> None:
        """Anneal over the settings' horizon from here on."""
        self.horizon = self.settings.horizon

    def run_batch(self) -> None:
        """Train on the next batch; behind the last one of an epoch, or of all, the network is judged."""
        super().run_batch()
        if not self.in_epoch:
            began = time.perf_counter()
            self.judged = self._judge()
            self.seconds += time.perf_counter() - began

    def _judge(self) -> Judgement | None:
        recipe = self.settings.recipe
        if self.settings.judged_on == "selection":
            return judge(self.network, self._selection, 4 * recipe.batch_size, recipe.precision)
        if not self.finished:
            return None
        test, device = self._dataset.test, self._images.device
        part = LabelledImages(
            test.images.to(device),
            test.labels.to(device),
            torch.arange(len(test.labels), device=device),
            self._transform,
        )
        return judge(self.network, part, 4 * recipe.batch_size, recipe.precision)

    def report(self) -> dict[str, Any]:
        """What the training measured; NaN where it did not.

        ``val_accuracy`` is on the selection part, ``test_accuracy`` on the test set.
        """
        whole = not self.in_epoch and self.batches > 0
        accuracy = self.judged.accuracy if whole and self.judged else math.nan
        stderr = math.sqrt(accuracy * (1 - accuracy) / self.judged.images) if whole and self.judged else math.nan
        selects = self.settings.judged_on == "selection"
        return {
            "clock": self.clock,
            "learning_rate": self.learning_rate,
            "train_loss": self.mean_loss if whole else math.nan,
            "val_accuracy": accuracy if selects else math.nan,
            "val_accuracy_stderr": stderr if selects else math.nan,
            "test_accuracy": math.nan if selects else accuracy,
            "test_accuracy_stderr": math.nan if selects else stderr,
            "objective": self._objective() if whole and selects else math.nan,
            "architecture": self.settings.architecture.operations,
            "epoch_seconds": self.seconds if whole else None,
        }

    def _objective(self) -> float:
        if self.judged is None:
            return math.nan
        return self.judged.accuracy if self.settings.ranked_by == "accuracy" else -self.judged.loss

    def save(self, directory: Path) -> None:
        """Write the network and where its training stands into an existing folder."""
        save_tensors(self.network.state_dict(), directory / WEIGHTS)
        save_tensors(self.optimizer.momentum, directory / MOMENTUM)
        dataset = self._dataset
        described = {
            "settings": self.settings.model_dump(mode="json", exclude=_APART),
            "data": {
                "fingerprint": dataset.fingerprint,
                "class_names": dataset.class_names,
                "mean": dataset.mean,
                "std": dataset.std,
            },
            "position": {
                "batches": self.batches,
                "clock": self.clock,
                "loss": float(self.loss),
                "seconds": self.seconds,
                "judged": dataclasses.asdict(self.judged) if self.judged else None,
            },
        }
        (directory / NETWORK).write_text(json.dumps(described, indent=2), encoding="utf-8")
        write_manifest(directory, (WEIGHTS, MOMENTUM, NETWORK), TRAINING)

    def load(self, directory: Path) -> None:
        """Come into the state that was saved.

        Raises:
            ValueError: The checkpoint is damaged, or of another training.
        """
        if verify_checkpoint(directory) != TRAINING:
            raise ValueError(f"{directory} is the checkpoint of a search, not of a network's training")
        saved: dict[str, Any] = json.loads((directory / NETWORK).read_text(encoding="utf-8"))
        own = self.settings.model_dump(mode="json", exclude=_APART)
        own_data, saved_data = own.pop("data"), saved["settings"].get("data", {})
        differing = [key for key in own if saved["settings"].get(key) != own[key]]
        # They may lie elsewhere now; what they hold is told by their fingerprint.
        used = [key for key in own_data if key not in ("name", "root", "cache", "download")]
        differing += [f"data.{key}" for key in used if saved_data.get(key) != own_data[key]]
        if saved["data"]["fingerprint"] != self._dataset.fingerprint:
            differing.append("data")
        if differing:
            raise ValueError(f"{directory} is the checkpoint of another training, which differs in {differing}")
        self.network.load_state_dict(load_file(directory / WEIGHTS))
        weights = dict(self.network.named_parameters())
        self.optimizer.momentum = {
            name: torch.empty_like(weights[name]).copy_(tensor).requires_grad_(False)
            for name, tensor in load_file(directory / MOMENTUM).items()
        }
        position = saved["position"]
        self.batches, self.clock, self.seconds = position["batches"], position["clock"], position["seconds"]
        self.loss = torch.full_like(self.loss, position["loss"])
        self.judged = Judgement(**position["judged"]) if position["judged"] else None
        self.tell_horizon()
