"""What Tune tells callbacks, and not schedulers: checkpoints, and the end."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial

from schedulers.budget_scheduler import BudgetScheduler


class SweepCallback(Callback):  # type: ignore[misc]
    """Tells the scheduler of checkpoints, of Ctrl-C and of the end.

    Args:
        scheduler: The scheduler.
    """

    def __init__(self, scheduler: BudgetScheduler) -> None:
        self._scheduler = scheduler

    def setup(self, **info: Any) -> None:
        """Listen for Ctrl-C; Tune has installed its own handler by now, which the second Ctrl-C reaches."""
        self._scheduler.interruption.install()

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """A checkpoint is on disk."""
        self._scheduler.saved(trial, checkpoint)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tune has taken note of a checkpoint, and deleted the oldest one."""
        self._scheduler.make_room()

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """The experiment is over."""
        self._scheduler.interruption.remove()
        self._scheduler.leave()
