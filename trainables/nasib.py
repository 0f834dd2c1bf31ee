"""A NASIB search as a Trainable of Ray Tune: slices, horizons, signals, reports."""

from __future__ import annotations

import logging
import math
import os
import platform
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from ray.tune import Trainable

from trainables.checkpoint import load_search, save_search
from trainables.data import Dataset, load_dataset
from trainables.manifest import MANIFEST
from trainables.search import Search
from trainables.settings import DataSettings, TrialSettings
from trainables.supernet import count_parameters

logger = logging.getLogger(__name__)


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
            torch.set_num_threads(max(1, math.floor(self.trial_resources.required_resources.get("CPU", 0))))
        self._left, self._search = self._search or self._left, None
        if self._loaded is None or self._loaded[0] != settings.data:
            self._loaded = settings.data, load_dataset(settings.data, _log_progress)
        self._slice_ends: float | None = None
        self._saved_at = time.monotonic()

    def _build(self) -> Search:
        """A new search under the present configuration."""
        assert self._loaded is not None, "the trial was not set up"
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        if device.type == "cuda":
            _set_deterministic(self._settings.search.deterministic)
        left, self._left = self._left, None
        self._search = Search(self._settings, self._loaded[1], device, left)
        self._constant_metrics = {
            "parameters": count_parameters(self._search.supernet),
            "device_name": _device_name(device),
            "seed": self._settings.seed,
        }
        return self._search

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
        due = time.monotonic() - self._saved_at >= search.settings.search.checkpoint_seconds
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
            "architecture": list(search.architecture().operations),
            "epoch_seconds": whole.epoch_seconds if whole else None,
            "epoch_fraction": search.position.batches % len(search.plan) / len(search.plan) if cut else 1.0,
            "cut": cut,
            "interrupted": interrupted,
            "alpha_entropy": search.alpha_entropy(),
            "effective_candidates": effective,
            "effective_candidates_mean": sum(effective) / len(effective),
            "done": search.finished,
            "should_checkpoint": cut or interrupted or due,
            **self._constant_metrics,
        }

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
        else:
            load_search(self.search, checkpoint)

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


def _set_deterministic(deterministic: bool) -> None:
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def _device_name(device: torch.device) -> str:
    """The kind of device: epochs take as long on two of the same name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine() or "cpu")
