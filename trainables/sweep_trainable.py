"""What a sweep runs: searches, and at its end the trainings of what they found."""

from __future__ import annotations

from typing import Any

from trainables.data import Dataset
from trainables.nasib import NasibTrainable
from trainables.retrain import NetworkTraining, RetrainTrainable
from trainables.settings import TrialSettings
from trainables.sliced import Told, Work
from trainables.training_settings import TrainingSettings


class SweepTrainable(NasibTrainable, RetrainTrainable):
    """A search, or the training of a network if the configuration names an ``architecture``.

    One class for both, so that a process that searched can go on to train, and need not be started anew.
    """

    def read_settings(self, config: dict[str, Any]) -> TrialSettings | TrainingSettings:  # type: ignore[override]
        """The settings of a search or of a training.

        Raises:
            ValueError: The configuration breaks a rule.
        """
        return TrainingSettings.from_config(config) if "architecture" in config else TrialSettings.from_config(config)

    def make_work(self, settings: Told, dataset: Dataset, left: Work | None, to_be_loaded: bool) -> Any:
        """A new search or training.

        Raises:
            ValueError: It does not fit the data, or has no room in memory.
        """
        if isinstance(settings, TrainingSettings):
            return RetrainTrainable.make_work(self, settings, dataset, left, to_be_loaded)
        kept = None if isinstance(left, NetworkTraining) else left
        return NasibTrainable.make_work(self, settings, dataset, kept, to_be_loaded)
