"""What all Trainables of this room share: slices, horizons, signals, checkpoints in time."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from abc import abstractmethod
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from ray.tune import Trainable

from trainables.data import Dataset, load_dataset
from trainables.device import MemoryWatch, choose_algorithms, device_name, find_device, settle_process
from trainables.manifest import MANIFEST
from trainables.settings import DataSettings

logger = logging.getLogger(__name__)

LARGEST_SHARE_OF_SAVES = 0.02
"""Of the time of a trial, where it can choose: at the end of a slice it saves in any case."""

LONGEST_UNSAVED = 10
"""How many times ``checkpoint_seconds`` a trial goes on at most without a checkpoint, to keep to that share."""


TOLD = ("horizon", "slice_seconds", "compare_at")
"""What a trial is told with each slice: no part of what it is."""


class Told(Protocol):
    """The settings of a trial, as far as all kinds of work have them."""

    @property
    def data(self) -> DataSettings:
        """What on."""

    @property
    def seed(self) -> int:
        """The trial's own."""

    @property
    def horizon(self) -> int | None:
        """Epochs that it may expect."""

    @property
    def slice_seconds(self) -> float | None:
        """Wall seconds that it may step."""

    @property
    def compare_at(self) -> int | None:
        """Epochs after which it will be compared with others."""

    @property
    def deterministic(self) -> bool:
        """Whether CUDA is asked for deterministic kernels."""

    @property
    def checkpoint_seconds(self) -> float:
        """From one checkpoint to the next."""

    def model_dump(self, *, exclude: set[str]) -> dict[str, Any]:
        """All settings but these."""

    def model_copy(self, *, update: dict[str, Any]) -> Any:
        """The same settings, but for these."""


class Work(Protocol):
    """What a trial works on: a search, or the training of a network.

    Attributes:
        settings: Of the trial. Its horizon is told to the work; its slice is not looked at.
    """

    settings: Any

    @property
    def epochs(self) -> int:
        """Whole epochs done."""

    @property
    def batches(self) -> int:
        """Batches done, of all epochs."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch."""

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""

    @property
    def finished(self) -> bool:
        """Whether the epochs of the horizon are done."""

    @property
    def parameters_count(self) -> int:
        """Trainable scalars of its network."""

    @property
    def momentum_bytes(self) -> int:
        """What the momentum of its weights takes."""

    def run_batch(self) -> None:
        """Do the next batch."""

    def tell_horizon(self) -> None:
        """Take note of the settings' horizon."""

    def report(self) -> dict[str, Any]:
        """What it measured; NaN and None where the epoch is not whole."""

    def save(self, directory: Path) -> None:
        """Write all that it is a function of, and where it stands, with a manifest."""

    def load(self, directory: Path) -> None:
        """Come into the state that was saved.

        Raises:
            ValueError: The checkpoint is damaged, or of other work.
        """


class SlicedTrainable(Trainable):  # type: ignore[misc]
    """A trial whose step is an epoch, or the part of one that the slice has time for.

    Horizon and slice come from the configuration, never from a checkpoint: a new horizon is told by resetting or
    restarting the trial with another configuration. SIGTERM to the worker process makes the running step end behind its
    batch and ask for a checkpoint.
    """

    @abstractmethod
    def read_settings(self, config: dict[str, Any]) -> Told:
        """The checked settings of a configuration; called at every set-up and reset.

        Raises:
            ValueError: The configuration breaks a rule.
        """

    @abstractmethod
    def make_work(self, settings: Told, dataset: Dataset, left: Work | None, to_be_loaded: bool) -> Work:
        """New work; called when a trial takes its first step in a process.

        Args:
            settings: What ``read_settings`` read.
            dataset: The data that they name.
            left: Work of the same process that will not be used any more.
            to_be_loaded: Whether its state will be loaded next.
        """

    def setup(self, config: dict[str, Any]) -> None:
        """Load the data and build the work. Tune calls this once for each worker process.

        Raises:
            ValueError: The configuration breaks a rule.
        """
        self._loaded: tuple[DataSettings, Dataset] | None = None
        self._work: Work | None = None
        self._left: Work | None = None
        self._saved: tuple[bytes, int] | None = None
        self._save_seconds = 0.0
        self._memory: MemoryWatch | None = None
        self._interrupted = False
        self._previous_handler: Any = None
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        self._begin(config)
        self._build()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, or this one with another horizon and slice.

        The data are kept if they are the same. The work that was left is kept only until it is known whether its own
        newest checkpoint is loaded next: a trial that goes on in its process need not be read back.
        """
        self._interrupted = False
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        settings = self._settings = self.read_settings(config)
        if self.trial_resources is not None:
            settle_process(self.holds("CPU"), self.holds("GPU"))
        self._left, self._work = self._work or self._left, None
        if self._loaded is None or self._loaded[0] != settings.data:
            self._loaded = settings.data, load_dataset(settings.data, _log_progress)
        self._slice_ends: float | None = None
        self._saved_at = time.monotonic()

    def _build(self, to_be_loaded: bool = False) -> Work:
        """New work under the present configuration."""
        assert self._loaded is not None, "the trial was not set up"
        device = self.device
        choose_algorithms(device, self._settings.deterministic)
        left, self._left = self._left, None
        if device.type != "cpu":
            # Once for all trials of the process: the work that is left holds them too.
            self._loaded = self._loaded[0], self._loaded[1].with_images_on(device)
        self._work = self.make_work(self._settings, self._loaded[1], left, to_be_loaded)
        del left
        self._constant_metrics = {
            "parameters": self._work.parameters_count,
            "device_name": device_name(device),
            "seed": self._settings.seed,
        }
        # A process keeps what it freed: what its first work needs for a batch, all have.
        if self._memory is None or device.type == "cuda":
            self._memory = MemoryWatch(device)
        return self._work

    @property
    def device(self) -> torch.device:
        """Where it computes: on a GPU only if it holds some of one, as Ray hides none from those that do not."""
        return find_device() if self.trial_resources is None or self.holds("GPU") else torch.device("cpu")

    def holds(self, resource: str) -> float:
        """How much of a resource of Ray's the trial holds; 0 outside of Ray."""
        given = self.trial_resources
        return 0.0 if given is None else float(given.required_resources.get(resource, 0))

    @property
    def work(self) -> Work:
        """The work as it stands."""
        return self._work or self._build()

    def step(self) -> dict[str, Any]:
        """Run to the end of the epoch, of the slice, or to a SIGTERM; at least one batch unless all is done.

        Returns:
            The report.

        Raises:
            ValueError: The epoch needs a horizon and none was given.
        """
        work, now = self.work, time.monotonic()
        if self._slice_ends is None:
            self._slice_ends = now + (work.settings.slice_seconds or math.inf)
        while not work.finished:
            began = now
            work.run_batch()
            now = time.monotonic()
            # The next batch is expected to take as long as this one.
            if not work.in_epoch or self._interrupted or now + (now - began) > self._slice_ends:
                break
        interrupted, self._interrupted = self._interrupted, False
        return self._report(work, interrupted)

    def go_on(self, told: dict[str, Any]) -> None:
        """Take another horizon and slice between two steps, without being paused, saved and reset for it.

        Args:
            told: ``horizon``, ``slice_seconds`` and ``compare_at``, as in the configuration.
        """
        self._settings = self._settings.model_copy(update=told)
        self.work.settings = self._settings
        self.work.tell_horizon()
        self._slice_ends = None

    def _report(self, work: Work, interrupted: bool) -> dict[str, Any]:
        cut = work.in_epoch
        due = time.monotonic() - self._saved_at >= self._seconds_between_saves()
        assert self._memory is not None, "the work was built"
        memory, of_a_step = self._memory.peaks(work.momentum_bytes)
        return {
            "epochs": work.epochs,
            "batches": work.batches,
            "horizon": work.settings.horizon,
            **work.report(),
            "epoch_fraction": work.batches / work.batches_per_epoch - work.epochs if cut else 1.0,
            "cut": cut,
            "interrupted": interrupted,
            "memory_bytes": memory,
            "step_memory_bytes": of_a_step,
            "done": work.finished,
            "should_checkpoint": cut or interrupted or due,
            **self._constant_metrics,
        }

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save and measure how long that takes, the storage's part included."""
        began = time.monotonic()
        saved = super().save(checkpoint_dir)
        self._save_seconds = time.monotonic() - began
        return saved

    def _seconds_between_saves(self) -> float:
        """As set; longer where saving would take more than its share, up to a limit: it is what a crash can lose."""
        shortest = self._settings.checkpoint_seconds
        return max(shortest, min(self._save_seconds / LARGEST_SHARE_OF_SAVES, LONGEST_UNSAVED * shortest))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that the work is a function of, and where it stands."""
        self.work.save(Path(checkpoint_dir))
        self._saved = Path(checkpoint_dir, MANIFEST).read_bytes(), self.work.batches
        self._saved_at = time.monotonic()

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a saved state under the present configuration's horizon and slice.

        Raises:
            ValueError: The checkpoint is damaged, or of another trial.
        """
        left = self._left
        if left is not None and self._is_state_of(left, Path(checkpoint)):
            self._work, self._left = left, None
            left.settings = self._settings
            left.tell_horizon()
            return
        del left  # What it holds is needed for the other one.
        work = self._work or self._build(to_be_loaded=True)
        # What could not be loaded is no work, new or old.
        self._work = None
        work.load(Path(checkpoint))
        self._work = work

    def _is_state_of(self, left: Work, checkpoint: Path) -> bool:
        """Whether a checkpoint holds just what work that was left in memory is."""
        told = set(TOLD)
        if type(left.settings) is not type(self._settings):
            return False
        if left.settings.model_dump(exclude=told) != self._settings.model_dump(exclude=told):
            return False
        manifest = checkpoint / MANIFEST
        # The manifest has the checksum of every file.
        return manifest.is_file() and self._saved == (manifest.read_bytes(), left.batches)

    def cleanup(self) -> None:
        """Give SIGTERM back. Tune calls this when the worker stops."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self._interrupted = True


def _log_progress(what: str, done: int, total: int) -> None:
    logger.info("%s: %d of %d", what, done, total)
