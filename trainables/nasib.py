"""A NASIB search as a Trainable of Ray Tune: slices, horizons, signals, reports."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ray.tune import Trainable

from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset, load_dataset
from trainables.device import (
    MemoryWatch,
    choose_algorithms,
    device_memory,
    device_name,
    find_device,
    settle_process,
)
from trainables.fits import check_memory_of
from trainables.manifest import MANIFEST
from trainables.search import Search
from trainables.settings import DataSettings, TrialSettings
from trainables.supernet import count_parameters

logger = logging.getLogger(__name__)

LARGEST_SHARE_OF_SAVES = 0.02
"""Of the time of a search, where it can choose: at the end of a slice it saves in any case."""

LONGEST_UNSAVED = 10
"""How many times ``checkpoint_seconds`` a search goes on at most without a checkpoint, to keep to that share."""


class NasibTrainable(Trainable):  # type: ignore[misc]
    """One NASIB search. A step is an epoch, or the part of one that the slice has time for.

    The configuration is described by ``settings.TrialSettings``. Horizon and slice come from it, never from a
    checkpoint: a new horizon is told by resetting or restarting the trial with another configuration. SIGTERM to the
    worker process makes the running step end behind its batch and ask for a checkpoint.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Load the data and build the search. Tune calls this once for each worker process.

        Raises:
            ValueError: The configuration breaks a rule.
        """
        self._loaded: tuple[DataSettings, Dataset] | None = None
        self._search: Search | None = None
        self._left: Search | None = None
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

        The data are kept if they are the same. The search that was left is kept only until it is known whether its own
        newest checkpoint is loaded next: a trial that goes on in its process need not be read back.
        """
        self._interrupted = False
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        settings = self._settings = TrialSettings.from_config(config)
        if self.trial_resources is not None:
            settle_process(self._holds("CPU"), self._holds("GPU"))
        self._left, self._search = self._search or self._left, None
        if self._loaded is None or self._loaded[0] != settings.data:
            self._loaded = settings.data, load_dataset(settings.data, _log_progress)
        self._slice_ends: float | None = None
        self._saved_at = time.monotonic()

    def _build(self, to_be_loaded: bool = False) -> Search:
        """A new search under the present configuration."""
        assert self._loaded is not None, "the trial was not set up"
        device = find_device()
        check_memory_of(self._settings.search, self._loaded[1], device_memory(device, self._holds("GPU")), "its device")
        choose_algorithms(device, self._settings.search.deterministic)
        left, self._left = self._left, None
        self._search = Search(self._settings, self._loaded[1], device, left, to_be_loaded)
        self._constant_metrics = {
            "parameters": count_parameters(self._search.supernet),
            "device_name": device_name(device),
            "seed": self._settings.seed,
        }
        # A process keeps what it freed: what its first search needs for a batch, all have.
        if self._memory is None or device.type == "cuda":
            self._memory = MemoryWatch(device)
        return self._search

    def _holds(self, resource: str) -> float:
        """How much of a resource of Ray's the trial holds; 0 outside of Ray."""
        given = self.trial_resources
        return 0.0 if given is None else float(given.required_resources.get(resource, 0))

    @property
    def search(self) -> Search:
        """The search as it stands."""
        return self._search or self._build()

    def step(self) -> dict[str, Any]:
        """Run to the end of the epoch, of the slice, or to a SIGTERM; at least one batch unless the search is done.

        Returns:
            The report. ``val_accuracy`` is NaN where the epoch was cut.

        Raises:
            ValueError: The epoch needs a horizon and none was given.
        """
        search, now = self.search, time.monotonic()
        if self._slice_ends is None:
            self._slice_ends = now + (search.settings.slice_seconds or math.inf)
        while not search.finished:
            began = now
            search.run_batch()
            now = time.monotonic()
            # The next batch is expected to take as long as this one.
            if not search.in_epoch or self._interrupted or now + (now - began) > self._slice_ends:
                break
        interrupted, self._interrupted = self._interrupted, False
        return self._report(interrupted)

    def go_on(self, told: dict[str, Any]) -> None:
        """Take another horizon and slice between two steps, without being paused, saved and reset for it.

        Args:
            told: ``horizon`` and ``slice_seconds``, as in the configuration.
        """
        self._settings = self._settings.model_copy(update=told)
        self.search.settings = self._settings
        self.search.tell_horizon()
        self._slice_ends = None

    def _report(self, interrupted: bool) -> dict[str, Any]:
        search = self.search
        cut = search.in_epoch
        epoch = search.position.last_epoch
        effective = search.effective_candidates()
        due = time.monotonic() - self._saved_at >= self._seconds_between_saves()
        assert self._memory is not None, "the search was built"
        memory, of_a_step = self._memory.peaks(search.optimizer.momentum_bytes)
        whole = epoch if not cut else None
        return {
            "epochs": search.epochs,
            "batches": search.position.batches,
            "horizon": search.settings.horizon,
            "clock": search.clock,
            "p": search.p,
            "learning_rate": search.learning_rate,
            "train_loss": whole.train_loss if whole else math.nan,
            "architecture_loss": whole.architecture_loss if whole else math.nan,
            "val_accuracy": whole.val_accuracy if whole else math.nan,
            "val_accuracy_stderr": whole.val_accuracy_stderr if whole else math.nan,
            "best_val_accuracy": search.position.best_val_accuracy,
            "architecture": search.architecture().operations,
            "epoch_seconds": whole.epoch_seconds if whole else None,
            "epoch_fraction": search.position.batches % len(search.plan) / len(search.plan) if cut else 1.0,
            "cut": cut,
            "interrupted": interrupted,
            "alpha_entropy": search.alpha_entropy(),
            "effective_candidates": tuple(effective),  # Of a list Tune's TensorBoard logger makes a slow histogram.
            "effective_candidates_mean": sum(effective) / len(effective),
            "memory_bytes": memory,
            "step_memory_bytes": of_a_step,
            "done": search.finished,
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
        shortest = self._settings.search.checkpoint_seconds
        return max(shortest, min(self._save_seconds / LARGEST_SHARE_OF_SAVES, LONGEST_UNSAVED * shortest))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write everything that the search is a function of, and where it stands."""
        save_search(self.search, checkpoint_dir)
        self._saved = Path(checkpoint_dir, MANIFEST).read_bytes(), self.search.position.batches
        self._saved_at = time.monotonic()

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on from a saved state under the present configuration's horizon and slice.

        Raises:
            ValueError: The checkpoint is damaged, or of another search.
        """
        left = self._left
        if left is not None and self._is_state_of(left, Path(checkpoint)):
            self._search, self._left = left, None
            left.settings = self._settings
            left.tell_horizon()
            return
        search = self._search or self._build(to_be_loaded=True)
        # What could not be loaded is no search, new or old.
        self._search = None
        load_search(search, checkpoint)
        self._search = search

    def _is_state_of(self, left: Search, checkpoint: Path) -> bool:
        """Whether a checkpoint holds just what a search that was left in memory is."""
        told = {"horizon", "slice_seconds"}
        if left.settings.model_dump(exclude=told) != self._settings.model_dump(exclude=told):
            return False
        manifest = checkpoint / MANIFEST
        # The manifest has the checksum of every file.
        return manifest.is_file() and self._saved == (manifest.read_bytes(), left.position.batches)

    def cleanup(self) -> None:
        """Give SIGTERM back. Tune calls this when the worker stops."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
            self._previous_handler = None

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self._interrupted = True


def _log_progress(what: str, done: int, total: int) -> None:
    logger.info("%s: %d of %d", what, done, total)
