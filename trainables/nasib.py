"""A NASIB search as a Trainable of Ray Tune."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset
from trainables.device import device_memory
from trainables.fits import check_memory_of
from trainables.search import Search
from trainables.settings import TrialSettings
from trainables.sliced import SlicedTrainable, Told, Work
from trainables.supernet import count_parameters


class NasibTrainable(SlicedTrainable):
    """One NASIB search; ``settings.TrialSettings`` describes its configuration."""

    def read_settings(self, config: dict[str, Any]) -> TrialSettings:
        """The settings of one search.

        Raises:
            ValueError: The configuration breaks a rule.
        """
        return TrialSettings.from_config(config)

    def make_work(self, settings: Told, dataset: Dataset, left: Work | None, to_be_loaded: bool) -> SearchWork:
        """A new search, in the network of the one that was left, if that fits.

        Raises:
            ValueError: The search has no room in the device's memory.
        """
        assert isinstance(settings, TrialSettings), "a search has a search's settings"
        memory = device_memory(self.device, self.holds("GPU"))
        check_memory_of(settings.search, dataset, memory, "its device")
        return SearchWork(settings, dataset, self.device, left if isinstance(left, Search) else None, to_be_loaded)

    @property
    def search(self) -> Search:
        """The search as it stands."""
        return cast(Search, self.work)


class SearchWork(Search):
    """A search as the work of a trial: it reports, and it is saved and loaded."""

    @property
    def parameters_count(self) -> int:
        """Trainable scalars of the supernet."""
        return count_parameters(self.supernet)

    @property
    def momentum_bytes(self) -> int:
        """What the momentum of the weights takes."""
        return self.optimizer.momentum_bytes

    def report(self) -> dict[str, Any]:
        """What the search measured; ``val_accuracy`` and the like are NaN where the epoch is not whole.

        ``objective`` is NaN, too, where it was not measured, as the search is not compared there.
        """
        epoch = None if self.in_epoch else self.position.last_epoch
        effective = self.effective_candidates()
        return {
            "clock": self.clock,
            "p": self.p,
            "learning_rate": self.learning_rate,
            "train_loss": epoch.train_loss if epoch else math.nan,
            "architecture_loss": epoch.architecture_loss if epoch else math.nan,
            "val_accuracy": epoch.val_accuracy if epoch else math.nan,
            "val_accuracy_stderr": epoch.val_accuracy_stderr if epoch else math.nan,
            "best_val_accuracy": self.position.best_val_accuracy,
            "objective": epoch.objective if epoch else math.nan,
            "objective_seconds": epoch.objective_seconds if epoch else None,
            "architecture": self.architecture().operations,
            "epoch_seconds": epoch.epoch_seconds if epoch else None,
            "alpha_entropy": self.alpha_entropy(),
            "effective_candidates": tuple(effective),  # Of a list Tune's TensorBoard logger makes a slow histogram.
            "effective_candidates_mean": sum(effective) / len(effective),
        }

    def save(self, directory: Path) -> None:
        """Write everything that the search is a function of, and where it stands, into an existing folder."""
        save_search(self, directory)

    def load(self, directory: Path) -> None:
        """Come into the state that was saved; then the settings' horizon is told.

        Raises:
            ValueError: The checkpoint is damaged, or of another search.
        """
        load_search(self, directory)
