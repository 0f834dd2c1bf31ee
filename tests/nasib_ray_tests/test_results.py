from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import parquet
from rich.console import Console

from nasib_ray.progress import status_report
from nasib_ray.results import load_sweep
from schedulers.journal_replay import JournalError
from tests.nasib_ray_tests.conftest import ARCHITECTURE, Driver


def test_status_while_the_driver_is_at_work(driver: Any, sweep_folder: Path) -> None:
    status = load_sweep(sweep_folder).status()

    assert json.loads(json.dumps(status, allow_nan=False)) == status
    assert status["state"] == "running"
    assert (status["device"], status["budget_device_seconds"]) == ("cpu", 180.0)
    assert status["spent_by_kind"] == {
        **dict.fromkeys(("idle", "select"), 0.0),
        **{"setup": 8.0, "train": 5.0, "checkpoint": 0.5, "lost": 2.5},
    }
    assert status["spent_device_seconds"] == 16.0
    assert status["granted_device_seconds"] == 30.0 - 6.0
    assert status["left_device_seconds"] == 180.0 - 16.0 - 24.0
    assert (status["started"], status["updated"]) == ("2027-01-15T08:00:00+00:00", "2027-01-15T08:00:16+00:00")


def test_status_of_trials(driver: Any, sweep_folder: Path) -> None:
    finished, running, failed = load_sweep(sweep_folder).status()["trials"]

    assert finished == {
        "id": "s_00000",
        "index": 0,
        "state": "finished",
        "k": 0.1,
        "lambda": 0.01,
        "epochs": 3,
        "horizon": 3,
        "clock": 1.0,
        "p": pytest.approx(0.1),
        "val_accuracy": 0.8,
        "best_val_accuracy": 0.9,
        "metric": "val_accuracy",
        "value": 0.8,
        "best_value": 0.9,
        "spent_device_seconds": 7.5,
        "memory_bytes": 800_000_000,
        "step_memory_bytes": 50_000_000,
        "error": None,
        "lost_checkpoints": [],
        "kind": "search",
        "config": driver.state.searches["s_00000"].config,
    }
    # The part of an epoch that it reported last has no accuracy: the newest one is that of the epoch before.
    assert (running["state"], running["epochs"], running["val_accuracy"]) == ("running", 1, 0.6)
    assert (failed["state"], failed["error"]) == ("failed", "ValueError: k is 0.5")
    assert failed["val_accuracy"] is None
    assert failed["best_val_accuracy"] is None


def test_incumbent_is_told_as_it_was_at_its_best(driver: Any, sweep_folder: Path) -> None:
    incumbent = load_sweep(sweep_folder).status()["incumbent"]

    assert incumbent is not None
    assert (incumbent["trial"], incumbent["k"], incumbent["lambda"]) == ("s_00000", 0.1, 0.01)
    assert (incumbent["epochs"], incumbent["val_accuracy"], incumbent["val_accuracy_stderr"]) == (2, 0.9, 0.0125)
    assert incumbent["architecture"] == ["conv3x5", "sepconv7x2", "identity"]
    assert incumbent["looks"] == 4


def test_sweep_that_has_ended_says_how(driver: Any, sweep_folder: Path) -> None:
    driver.end("failed", "nothing works")

    status = load_sweep(sweep_folder).status()

    assert (status["state"], status["why"]) == ("failed", "nothing works")


def test_released_journal_without_an_end_was_interrupted(driver: Any, sweep_folder: Path) -> None:
    driver.journal.close()

    assert load_sweep(sweep_folder).status()["state"] == "interrupted"


def test_driver_that_died_without_a_word_was_interrupted(sweep_folder: Path) -> None:
    script = """
import os, sys
from pyarrow import fs
from schedulers.clock import WallClock
from schedulers.journal import Journal
journal = Journal.open(fs.LocalFileSystem(), sys.argv[1], WallClock())
journal.append({"event": "sweep", "device": "gpu", "metric": "loss", "mode": "min"})
journal.append({"event": "run", "slots": 1})
journal.flush()
os._exit(9)
"""
    root = str(Path(__file__).parents[2])
    died = subprocess.run([sys.executable, "-c", script, str(sweep_folder / "journal")], cwd=root, check=False)

    status = load_sweep(sweep_folder).status()

    assert died.returncode == 9
    assert (status["state"], status["device"], status["mode"]) == ("interrupted", "gpu", "min")


def test_new_run_of_a_sweep_that_was_interrupted_is_running(make_driver: Any, driver: Any, sweep_folder: Path) -> None:
    driver.end("interrupted", "it was told to stop")
    assert load_sweep(sweep_folder).status()["state"] == "interrupted"

    make_driver().write("run", slots=2)

    assert load_sweep(sweep_folder).status()["state"] == "running"


def test_sweep_that_has_only_just_begun(make_driver: Any, sweep_folder: Path) -> None:
    make_driver()

    sweep = load_sweep(sweep_folder)

    status = sweep.status()
    assert (status["state"], status["started"], status["trials"], status["incumbent"]) == ("running", None, [], None)
    assert sweep.dataframe().empty
    assert list(sweep.dataframe().columns[:4]) == ["trial", "index", "run", "epochs"]


def test_foreign_trainable_is_told_by_its_own_metric(make_driver: Any, sweep_folder: Path) -> None:
    driver = make_driver()
    driver.begin(metric="loss", mode="min", trainable="Model", device="gpu")
    driver.search("m_0", lr=0.1)
    driver.grant("m_0", 20.0, 2, None)
    for loss in (0.3, 0.2, 0.4):
        driver.write("report", trial="m_0", epochs=1, value=loss, epoch_seconds=1.0, metrics={"loss": loss, "lr": 0.05})

    sweep = load_sweep(sweep_folder)

    status = sweep.status()
    trial = status["trials"][0]
    assert (trial["metric"], trial["value"], trial["best_value"]) == ("loss", 0.4, 0.2)
    assert (trial["k"], trial["val_accuracy"], trial["best_val_accuracy"]) == (None, None, None)
    incumbent = status["incumbent"]
    assert incumbent is not None
    assert (incumbent["value"], incumbent["config"], incumbent["architecture"]) == (0.2, {"lr": 0.1}, None)
    # What it reports under the name of a setting does not hide the setting.
    assert sweep.dataframe()[["lr", "config/lr"]].drop_duplicates().to_numpy().tolist() == [[0.05, 0.1]]


def test_dataframe_has_a_row_for_each_report(driver: Any, sweep_folder: Path) -> None:
    frame = load_sweep(sweep_folder).dataframe()

    assert frame["trial"].tolist() == ["s_00000"] * 3 + ["s_00001"] * 2
    assert frame["epochs"].tolist() == [1, 2, 3, 1, 1]
    assert frame["value"].tolist()[:4] == [0.5, 0.9, 0.8, 0.6]
    assert frame["value"].isna().tolist() == [False] * 4 + [True]
    assert frame["cut"].tolist() == [False] * 4 + [True]
    assert frame["time"].dt.tz is not None
    assert frame["time"].iloc[0] == pd.Timestamp("2027-01-15T08:00:09Z")
    assert frame["k"].tolist() == [0.1] * 3 + [0.02] * 2
    assert frame["lambda"].tolist() == [0.01] * 3 + [0.05] * 2
    assert frame["architecture"].iloc[0] == ["conv3x5", "sepconv7x2", "identity"]
    assert (frame["device"].iloc[0], frame["data/name"].iloc[0]) == ("cpu", "digits")
    assert (frame["versions/nasib_ray"].iloc[0], frame["versions/torch"].iloc[0]) == ("0.1.0", "2.14.1")
    # The second search was configured with seed 8 and reported 7: neither is lost.
    assert frame["seed"].tolist() == [7] * 5
    assert frame["config/seed"].tolist() == [7] * 3 + [8] * 2


def test_dataframe_is_of_the_moment_of_loading(driver: Any, sweep_folder: Path) -> None:
    sweep = load_sweep(sweep_folder)
    driver.search("s_00003", k=0.3)
    driver.grant("s_00003", 5.0, 1, 3)
    driver.nasib_epochs("s_00003", 0.7)

    assert len(sweep.dataframe()) == 5
    assert len(load_sweep(sweep_folder).dataframe()) == 6


def test_parquet_keeps_lists_and_makes_mixed_types_text(driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "reports.parquet"

    load_sweep(sweep_folder).to_parquet(file)

    table = parquet.read_table(file)
    assert table.column("architecture").to_pylist()[0] == ["conv3x5", "sepconv7x2", "identity"]
    assert table.column("data/cutout").to_pylist() == ["auto"] * 3 + ["True"] * 2
    assert table.column("value").to_pylist() == [0.5, 0.9, 0.8, 0.6, None]
    assert str(table.schema.field("time").type).endswith("tz=UTC]")


def test_csv_has_lists_as_json(driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"

    load_sweep(sweep_folder).to_csv(file)

    frame = pd.read_csv(file)
    assert json.loads(frame["architecture"][0]) == ["conv3x5", "sepconv7x2", "identity"]
    assert frame["epochs"].tolist() == [1, 2, 3, 1, 1]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_path_may_be_a_string_or_a_uri(driver: Any, sweep_folder: Path, prefix: str) -> None:
    assert len(load_sweep(f"{prefix}{sweep_folder}/").status()["trials"]) == 3


def test_path_may_be_relative_or_begin_at_home(
    driver: Any, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sweep_folder.parent)
    monkeypatch.setenv("HOME", str(sweep_folder.parent))

    for path in ("digits", "./digits", "~/digits", Path("digits")):
        assert len(load_sweep(path).state.searches) == 3


def test_path_that_is_no_sweep(driver: Any, sweep_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")

    with pytest.raises(ValueError, match=r"There is no '.*/missing'"):
        load_sweep(tmp_path / "missing")
    with pytest.raises(ValueError, match="is a file: give the folder of a sweep"):
        load_sweep(tmp_path / "file")
    with pytest.raises(ValueError, match="is not the folder of a sweep: there is no journal in it"):
        load_sweep(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"it has those of the sweeps digits\. Give STORAGE/NAME"):
        load_sweep(tmp_path)
    with pytest.raises(ValueError, match="'nothing://here' is no place that can be read"):
        load_sweep("nothing://here")


def test_damaged_journal_is_an_error_that_names_the_file(driver: Any, sweep_folder: Path) -> None:
    driver.journal.close()
    segment = next(sweep_folder.glob("journal/segment-*"))
    segment.write_bytes(segment.read_bytes().replace(b'"val_accuracy"', b'"val_bccuracy"', 1))

    with pytest.raises(JournalError, match=r"segment-.*line \d+"):
        load_sweep(sweep_folder)


def test_reading_touches_nothing(driver: Any, sweep_folder: Path) -> None:
    def look() -> dict[str, tuple[int, int]]:
        files = (path for path in sweep_folder.rglob("*") if path.is_file())
        return {str(path): (os.stat(path).st_mtime_ns, os.stat(path).st_size) for path in files}

    before = look()
    load_sweep(sweep_folder).dataframe()

    assert look() == before


def test_reading_a_sweep_starts_neither_ray_nor_torch(driver: Any, sweep_folder: Path) -> None:
    script = (
        "import sys; from nasib_ray import load_sweep; sweep = load_sweep(sys.argv[1]); sweep.status();"
        "sweep.dataframe(); print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", script, str(sweep_folder)], cwd=root, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == "[]"


def _train(driver: Driver, name: str, found_by: str, *values: float) -> None:
    config = {"name": found_by, "ranked_by": "likelihood"}
    driver.write("search", trial=name, index=len(driver.state.searches), config=config, kind="select")
    driver.grant(name, 10.0, len(values), len(values), "select")
    driver.charge(name, "select", 3.0)
    driver.nasib_epochs(name, *values)
    driver.rest(name, "finished", "complete")


def test_the_selection_is_told_beside_the_incumbent(driver: Driver, sweep_folder: Path) -> None:
    _train(driver, "n_0", "s_00001", 0.95, 0.90)
    _train(driver, "n_1", "s_00000", 0.70, 0.93)
    status = load_sweep(sweep_folder).status()
    assert status["incumbent"] is not None
    assert status["incumbent"]["trial"] == "s_00000"
    assert status["selected"] == {
        "trial": "n_1",
        "found_by": "s_00000",
        "epochs": 2,
        "val_accuracy": 0.93,
        "val_accuracy_stderr": 0.0125,
        "finalists": 2,
        "selected_by": "likelihood",
        "architecture": ARCHITECTURE,
    }
    shown = io.StringIO()
    status_report(Console(file=shown, width=100), load_sweep(sweep_folder))
    said = shown.getvalue()
    assert "found by trial s_00000; trained from scratch, 2 epochs" in said
    assert "selected by likelihood among 2 networks" in said


def test_a_raised_budget_makes_a_new_selection(driver: Driver, sweep_folder: Path) -> None:
    _train(driver, "n_0", "s_00001", 0.95)
    driver.write("budget", device_seconds=500.0, text="500 cpu-seconds")
    assert load_sweep(sweep_folder).status()["selected"] is None
    _train(driver, "n_1", "s_00001", 0.90)
    selected = load_sweep(sweep_folder).status()["selected"]
    assert selected is not None
    assert (selected["trial"], selected["finalists"]) == ("n_1", 1)
