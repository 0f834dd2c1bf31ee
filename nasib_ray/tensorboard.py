"""TensorBoard's files of a sweep, written while the searches go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback

logger = logging.getLogger(__name__)


class TensorBoardLogger(TBXLoggerCallback):  # type: ignore[misc]
    """Tune's logger on a thread of its own: Tune lets a process wait for its next step until all loggers are done.

    Where writing fails, a warning is logged; no sweep stops for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: ThreadPoolExecutor | None = None

    def log_trial_start(self, trial: Trial) -> None:
        """Open the trial's file."""
        self._later(super().log_trial_start, trial)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write the numbers of a report."""
        start, write = super().log_trial_start, super().log_trial_result

        def write_started(copy: dict[str, Any]) -> None:
            if trial not in self._trial_writer:
                start(trial)
            write(iteration, trial, copy)

        self._later(write_started, dict(result))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's file."""
        self._later(super().log_trial_end, trial, failed)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Wait until all is written."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _later(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._thread is None:
            # Not before: Tune pickles its callbacks at the start.
            self._thread = ThreadPoolExecutor(1, "tensorboard")
        self._thread.submit(write, *arguments).add_done_callback(_warn_of_failure)


def _warn_of_failure(written: Future[None]) -> None:
    if (error := written.exception()) is not None:
        logger.warning("TensorBoard's files are not complete: %r", error)
