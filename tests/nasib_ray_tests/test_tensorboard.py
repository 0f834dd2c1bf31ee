from __future__ import annotations

import logging
import pickle
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nasib_ray.tensorboard import TensorBoardLogger


class Trial:
    """What Tune's logger reads of a trial."""

    trial_id = "t"
    evaluated_params: ClassVar = {"k": 0.1}

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.local_path = str(folder)

    def init_local_path(self) -> None:
        """The folder is there."""


def test_every_report_is_in_tensorboards_files_when_the_experiment_ends(tmp_path: Path) -> None:
    logger, trial = TensorBoardLogger(), Trial(tmp_path / "trial")
    pickle.dumps(logger)
    logger.on_trial_start(0, [trial], trial)
    for epoch in range(1, 4):
        result = {"training_iteration": epoch, "val_accuracy": epoch / 10, "architecture": ("conv3x3",), "config": {}}
        logger.on_trial_result(0, [trial], trial, result)
        result["val_accuracy"] = -1.0  # What Tune does with it later is not waited for.
    logger.on_trial_complete(0, [trial], trial)
    logger.on_experiment_end([trial])
    events = EventAccumulator(str(tmp_path / "trial")).Reload()
    values = [event.value for event in events.Scalars("ray/tune/val_accuracy")]
    assert values == pytest.approx([0.1, 0.2, 0.3])
    assert events.Tags()["histograms"] == []


def test_nobody_waits_for_a_slow_disk_and_what_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger, trial, let_go = TensorBoardLogger(), Trial(tmp_path / "trial"), threading.Event()

    def write(self: Any, iteration: int, trial: Any, result: Any) -> None:
        let_go.wait(10)
        raise OSError("no space left")

    monkeypatch.setattr("ray.tune.logger.TBXLoggerCallback.log_trial_result", write)
    logger.on_trial_result(0, [trial], trial, {"training_iteration": 1})
    let_go.set()
    with caplog.at_level(logging.WARNING):
        logger.on_experiment_end([trial])
    assert "TensorBoard's files are not complete: OSError('no space left')" in caplog.text
