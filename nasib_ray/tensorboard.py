"""TensorBoard's files of a sweep, written while the searches go on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from nasib_ray.kernel_maps import MAPS, kernel_maps, read_candidates
from nasib_ray.status import single_values

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

HPARAM_METRICS = ("objective", "val_accuracy", "best_val_accuracy", "train_loss", "test_accuracy")
"""What TensorBoard's table of hyperparameters shows beside them, of what a trial reports."""

_PIXELS = 8
"""Of an image, for each kernel of a map."""


class TensorBoardLogger(LoggerCallback):  # type: ignore[misc]
    """Scalars at every report, the settings as hyperparameters, kernel maps of each layer at every checkpoint.

    All of it is written on a thread: Tune lets a process wait for its next step until all loggers are done. Where
    writing fails, a warning is logged; no sweep stops for it.

    Args:
        hyperparameters: The settings that TensorBoard's table of trials shows.
    """

    def __init__(self, hyperparameters: Sequence[str]) -> None:
        self._hyperparameters = tuple(hyperparameters)
        self._thread: ThreadPoolExecutor | None = None
        self._writers: dict[str, SummaryWriter] = {}
        self._epochs: dict[str, int] = {}

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write the numbers of a report, at its count of whole epochs."""
        name, step = trial.trial_id, int(result.get("epochs", iteration))
        self._epochs[name] = step
        numbers = {
            key: float(value)
            for key, value in result.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        }
        self._later(self._write_scalars, name, trial.local_path, dict(trial.config), numbers, step)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """Write the kernel maps of a checkpoint that a trial has just made."""
        name = trial.trial_id
        place = name, trial.local_path, dict(trial.config), checkpoint
        self._later(self._write_maps, *place, self._epochs.get(name, 0))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's file."""
        self._later(self._close, trial.trial_id)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Wait until all is written."""
        if self._thread is not None:
            self._later(self._close_all)
            self._thread.shutdown()
            self._thread = None

    def _later(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._thread is None:
            # Not before: Tune pickles its callbacks at the start.
            self._thread = ThreadPoolExecutor(1, "tensorboard")
        self._thread.submit(write, *arguments).add_done_callback(_warn_of_failure)

    def _writer(self, name: str, folder: str, config: Mapping[str, Any]) -> SummaryWriter:
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            writer = self._writers[name] = SummaryWriter(folder, flush_secs=10)
            shown = {key: value for key, value in single_values(config).items() if key in self._hyperparameters}
            told: Any = hparams(shown, dict.fromkeys(HPARAM_METRICS, 0.0))  # type: ignore[no-untyped-call]
            for part in told:
                # SummaryWriter.add_hparams would make a run of its own for them.
                writer._get_file_writer().add_summary(part)  # type: ignore[no-untyped-call]
        return self._writers[name]

    def _write_scalars(
        self, name: str, folder: str, config: Mapping[str, Any], numbers: Mapping[str, float], step: int
    ) -> None:
        writer = self._writer(name, folder, config)
        for tag, value in numbers.items():
            writer.add_scalar(tag, value, step)

    def _write_maps(self, name: str, folder: str, config: Mapping[str, Any], checkpoint: Checkpoint, step: int) -> None:
        candidates = read_candidates(checkpoint.filesystem, checkpoint.path)
        if candidates is None:
            return
        writer = self._writer(name, folder, config)
        for kind in MAPS:
            for layer, values in kernel_maps(candidates, kind).items():
                shown = _grey(values).repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)
                writer.add_image(f"{kind}/layer {layer:02d}", shown, step, dataformats="HW")

    def _close_all(self) -> None:
        for name in list(self._writers):
            self._close(name)

    def _close(self, name: str) -> None:
        if (writer := self._writers.pop(name, None)) is not None:
            writer.close()


def _grey(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values from 0, the least, to 1, the largest; kernels that are no candidates are 0."""
    low, high = np.nanmin(values), np.nanmax(values)
    return np.nan_to_num((values - low) / (high - low if high > low else 1.0))


def _warn_of_failure(written: Future[None]) -> None:
    if (error := written.exception()) is not None:
        logger.warning("TensorBoard's files are not complete: %r", error)
