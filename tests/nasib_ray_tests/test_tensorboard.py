from __future__ import annotations

import io
import logging
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import fs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from nasib_ray.kernel_maps import kernel_maps, read_candidates
from nasib_ray.tensorboard import TensorBoardLogger


class Trial:
    """What a logger reads of a trial."""

    trial_id = "t"
    config: ClassVar = {"k": 0.1, "lambda": 0.02, "horizon": 5, "data": {"name": "digits", "subset": None}}

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.local_path = str(folder)
        self.checkpoint: Any = None


def _candidates(*rows: tuple[int, int | None, int | None, float]) -> pa.Table:
    layers, heights, widths, values = zip(*rows, strict=True)
    integers = {"layer": layers, "i": heights, "j": widths}
    return pa.table({name: pa.array(column, pa.int32()) for name, column in integers.items()}).append_column(
        "alpha", pa.array(values, pa.float64())
    )


def _write(table: pa.Table, folder: Path) -> None:
    for name in ("frequency", "sampling_probability"):
        table = table.append_column(name, table["alpha"])
    with pa.OSFile(str(folder / "architecture.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def test_every_report_is_in_tensorboards_files_when_the_experiment_ends(tmp_path: Path) -> None:
    logger, trial = TensorBoardLogger(("k", "lambda", "data/name")), Trial(tmp_path / "trial")
    pickle.dumps(logger)
    logger.on_trial_start(0, [trial], trial)
    for epoch in range(1, 4):
        result = {"training_iteration": 9, "epochs": epoch, "val_accuracy": epoch / 10, "done": False, "config": {}}
        logger.on_trial_result(0, [trial], trial, result)
        result["val_accuracy"] = -1.0  # What Tune does with it later is not waited for.
    logger.on_trial_result(0, [trial], trial, {"epochs": 3, "val_accuracy": float("nan")})
    logger.on_trial_complete(0, [trial], trial)
    logger.on_experiment_end([trial])
    events = EventAccumulator(str(tmp_path / "trial")).Reload()
    assert [event.value for event in events.Scalars("val_accuracy")] == pytest.approx([0.1, 0.2, 0.3])
    assert [event.step for event in events.Scalars("val_accuracy")] == [1, 2, 3]
    assert "done" not in events.Tags()["scalars"]


def test_k_and_lambda_are_hyperparameters(tmp_path: Path) -> None:
    logger, trial = TensorBoardLogger(("k", "lambda", "data/name")), Trial(tmp_path / "trial")
    logger.on_trial_result(0, [trial], trial, {"epochs": 1, "val_accuracy": 0.5})
    logger.on_experiment_end([trial])
    metadata = EventAccumulator(str(tmp_path / "trial")).Reload().summary_metadata["_hparams_/session_start_info"]
    told = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert told["k"].number_value == 0.1
    assert told["lambda"].number_value == 0.02
    assert told["data/name"].string_value == "digits"
    assert len(told) == 3


def test_kernel_maps_of_a_checkpoint_are_images(tmp_path: Path) -> None:
    logger, trial, saved = (
        TensorBoardLogger(("k", "lambda", "data/name")),
        Trial(tmp_path / "trial"),
        tmp_path / "checkpoint",
    )
    saved.mkdir()
    rows = [(layer, i, j, float(i * j * layer)) for layer in (1, 2) for i in (1, 2) for j in (1, 2)]
    _write(_candidates(*rows, (1, None, None, 9.0), (2, None, None, 9.0)), saved)
    trial.checkpoint = SimpleNamespace(filesystem=fs.LocalFileSystem(), path=str(saved))
    logger.on_trial_result(0, [trial], trial, {"epochs": 4, "val_accuracy": 0.5})
    logger.on_checkpoint(0, [trial], trial, trial.checkpoint)
    logger.on_experiment_end([trial])
    events = EventAccumulator(str(tmp_path / "trial")).Reload()
    kinds = ("alpha", "frequency", "sampling_probability")
    assert events.Tags()["images"] == [f"{kind}/layer {layer:02d}" for kind in kinds for layer in (1, 2)]
    (shown,) = events.Images("alpha/layer 02")
    assert shown.step == 4
    pixels = np.array(Image.open(io.BytesIO(shown.encoded_image_string)).convert("L"))
    assert (pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]) == (0, 85, 85, 255)


def test_a_map_holds_each_kernel_at_its_height_and_width(tmp_path: Path) -> None:
    maps = kernel_maps(_candidates((1, 1, 3, 5.0), (1, 3, 1, 7.0), (1, 3, 1, 6.0), (2, None, None, 1.0)), "alpha")
    expected = np.full((3, 3), np.nan)
    expected[0, 2], expected[2, 0] = 5.0, 7.0
    np.testing.assert_array_equal(maps[1], expected)
    assert np.isnan(maps[2]).all()
    assert kernel_maps(_candidates((1, None, None, 1.0)), "alpha") == {}
    assert read_candidates(fs.LocalFileSystem(), str(tmp_path)) is None


def test_nobody_waits_for_a_slow_disk_and_what_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger, trial, let_go = (
        TensorBoardLogger(("k", "lambda", "data/name")),
        Trial(tmp_path / "trial"),
        threading.Event(),
    )

    def write(*arguments: Any) -> None:
        let_go.wait(10)
        raise OSError("no space left")

    monkeypatch.setattr(logger, "_write_scalars", write)
    logger.on_trial_result(0, [trial], trial, {"epochs": 1, "val_accuracy": 0.5})
    let_go.set()
    with caplog.at_level(logging.WARNING):
        logger.on_experiment_end([trial])
    assert "TensorBoard's files are not complete: OSError('no space left')" in caplog.text
