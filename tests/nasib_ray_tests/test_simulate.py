"""``nasib-ray simulate`` as its user calls it."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nasib_ray.cli import app, main
from nasib_ray.simulate import ALLOCATORS, Setting, allocators_for, settings_of, simulate
from nasib_ray.simulation_report import bootstrap
from schedulers.curve_table import CurveTable
from tests.schedulers_tests.tables import made_table

Run = Callable[..., str]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    made = made_table(rows=60, epochs=9)
    rows = [{**config, "curve": curve} for config, curve in zip(made.configs, made.curves, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "task.parquet")
    return tmp_path / "task.parquet"


@pytest.fixture
def nasib_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, status: int = 0) -> str:
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setattr(sys, "argv", ["nasib-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == status
        said = capsys.readouterr()
        return said.err if status else said.out

    return run


def test_allocators_are_simulated_and_written(nasib_ray: Run, table: Path, tmp_path: Path) -> None:
    of_tables = allocators_for([made_table()])
    names = [part for name in of_tables for part in ("--allocator", name)]
    files = ("--json", tmp_path / "runs.json", "--plot", tmp_path / "regret.html")
    said = nasib_ray(
        "simulate", table, "--mode", "max", "--full-trainings", 6, "--slots", 1, "--slots", 3, "--seeds", 3,
        "--jobs", 1, *names, *files,
    )  # fmt: skip
    runs: list[dict[str, Any]] = json.loads((tmp_path / "runs.json").read_text())["runs"]
    kinds = {(run["table"], run["allocator"], run["budget"], run["slots"], run["seed"]) for run in runs}
    assert kinds == {("task", name, 6.0, slots, seed) for name in of_tables for slots in (1, 3) for seed in range(3)}
    for run in runs:
        assert 0 <= run["final_regret"] <= run["anytime_regret"] <= 1
        assert run["anytime_regret"] == pytest.approx(statistics.fmean(run["regrets"]))
        # No more than so many full trainings begin under equal shares, and some cost less than their share.
        assert (0.8 if run["allocator"] == "equal-share" else 0.95) < run["budget_used"] <= 1
    begun = {name: statistics.fmean(run["trials"] for run in runs if run["allocator"] == name) for name in of_tables}
    assert begun.pop("equal-share") == 6
    assert min(begun.values()) == begun["fifo"]
    assert begun["async-halving"] > 2 * begun["fifo"], "what is stopped early leaves room for more"
    assert said.count("6 full trainings") == 2
    assert all(name in said for name in of_tables)
    assert "Plotly.newPlot" in (tmp_path / "regret.html").read_text()


def test_a_simulation_is_a_function_of_its_setting() -> None:
    made = made_table(mode="max")
    setting = Setting("made", "async-halving", 5, 4, seed=1, preemptions_per_hour=0.2)
    one, same = (simulate(made, setting) for _ in range(2))
    assert (one.regrets, one.budget_used, one.trials) == (same.regrets, same.budget_used, same.trials)
    assert one.preemptions == same.preemptions > 0


def test_a_budget_of_device_time_needs_the_times_of_epochs(nasib_ray: Run, table: Path, tmp_path: Path) -> None:
    assert "does not tell epoch_device_seconds" in nasib_ray("simulate", table, "--budget", "1 gpu-hour", status=2)
    rows = [{**row, "epoch_device_seconds": 20.0} for row in pq.read_table(table).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), table)
    out = tmp_path / "runs.json"
    hour = ("--mode", "max", "--budget", "1 gpu-hour", "--seeds", 1, "--jobs", 1, "--allocator", "asha", "--json", out)
    nasib_ray("simulate", table, *hour)
    (run,) = json.loads(out.read_text())["runs"]
    assert run["budget_device_seconds"] == pytest.approx(3600)
    assert run["budget"] == pytest.approx(3600 / (9 * 20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the budget either as --full-trainings"),
        (("--full-trainings", 3, "--budget", "1 gpu-hour"), "give the budget either as --full-trainings"),
        (("--full-trainings", 0), "0 full trainings: it must be a finite number above 0"),
        (("--full-trainings", "inf"), "inf full trainings"),
        (("--full-trainings", 3, "--slots", 0), "0 slots: it must be a number from 1 to 1,000,000"),
        (("--full-trainings", 3, "--slots", 10**400), "it must be a number from 1 to 1,000,000"),
        (("--full-trainings", 3, "--allocator", "best"), "no allocator is called best: there are async-halving"),
        (
            ("--full-trainings", 3, "--allocator", "pbt"),
            "pbt cannot be simulated over these: ",
        ),
        (("--full-trainings", 3, "--mode", "low"), "--mode low"),
        (("--full-trainings", 3, "--preemptions-per-hour", "inf"), "inf preemptions an hour"),
        (("--full-trainings", 3, "--preemptions-per-hour", "nan"), "greater than or equal to 0"),
        (("--full-trainings", 3, "--json", "no/folder/runs.json"), "there is no folder no/folder"),
        (("--full-trainings", 3, "--plot", "."), "it is a folder"),
    ],
)
def test_mistakes_are_told(nasib_ray: Run, table: Path, arguments: tuple[Any, ...], message: str) -> None:
    said = nasib_ray("simulate", table, *arguments, status=2)
    assert message in said
    assert "Traceback" not in said


def test_a_budget_of_device_time_buys_in_each_table_what_it_costs_there(
    nasib_ray: Run, table: Path, tmp_path: Path
) -> None:
    rows, out = pq.read_table(table).to_pylist(), tmp_path / "runs.json"
    for name, seconds in (("one", 20.0), ("other", 30.0)):
        told = [{**row, "epoch_device_seconds": seconds} for row in rows]
        pq.write_table(pa.Table.from_pylist(told), tmp_path / f"{name}.parquet")
    tables = (tmp_path / "one.parquet", tmp_path / "other.parquet")
    few = ("--mode", "max", "--seeds", 1, "--jobs", 1, "--allocator", "fifo", "--json", out)
    nasib_ray("simulate", *tables, "--budget", "1 gpu-hour", *few)
    runs = json.loads(out.read_text())["runs"]
    assert [run["budget_device_seconds"] for run in runs] == [pytest.approx(3600)] * 2
    assert runs[0]["budget"] == pytest.approx(1.5 * runs[1]["budget"])


def test_a_folder_is_no_table(nasib_ray: Run, tmp_path: Path) -> None:
    assert "is a folder" in nasib_ray("simulate", tmp_path, "--full-trainings", 3, status=2)


def test_processes_that_are_taken_away_at_once_end_a_sweep(nasib_ray: Run, table: Path) -> None:
    few = ("--full-trainings", 3, "--seeds", 1, "--jobs", 1, "--allocator", "asha")
    said = nasib_ray("simulate", table, *few, "--preemptions-per-hour", 1_000_000)
    assert "1 of 1 sweeps failed: the first searches all failed before they reported anything" in said


def test_every_allocator_is_named_in_the_help() -> None:
    said = CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "100"}).output
    assert all(name in "".join(said.split()) for name in ALLOCATORS)


def test_a_table_twice_is_refused(nasib_ray: Run, table: Path) -> None:
    said = nasib_ray("simulate", table, table, "--full-trainings", 3, status=2)
    assert "two tables or models have the same name" in said


def test_a_bootstrap_covers_the_mean_and_widens_with_what_tables_differ_by() -> None:
    alike = bootstrap({"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.3]})
    apart = bootstrap({"a": [0.0, 0.1, 0.2], "b": [0.2, 0.3, 0.4]})
    assert alike[0] < 0.2 < alike[1]
    assert apart[1] - apart[0] > alike[1] - alike[0]
    assert bootstrap({"a": [0.5]}) == (0.5, 0.5)


def table_of(rows: list[dict[str, Any]]) -> CurveTable:
    seconds = [row["epoch_device_seconds"] for row in rows] if "epoch_device_seconds" in rows[0] else None
    return CurveTable("made", "min", [{}] * len(rows), [row["curve"] for row in rows], seconds)


@pytest.mark.parametrize("allocator", ["async-halving", "asha", "hyperband", "median", "fifo", "equal-share"])
def test_shorter_curves_are_of_trainings_that_end_there(allocator: str) -> None:
    rows = [{"curve": [1.0 / (row + epoch) for epoch in range(1, 3 + 6 * (row % 3))]} for row in range(40)]
    table = table_of(rows)
    assert table.max_t == 14
    (setting,) = settings_of([table], [allocator], [8.0], [2], seeds=1)
    run = simulate(table, setting)
    assert 0.5 < run.budget_used <= 1.0
    assert run.final_regret < 1.0


@pytest.mark.parametrize("slots", [100, 10_000])
def test_so_many_slots_that_the_budget_is_no_epoch_for_each(slots: int) -> None:
    rows = [{"curve": [row + 10.0 / epoch for epoch in range(1, 21)]} for row in range(400)]
    table = table_of(rows)
    run = simulate(table, settings_of([table], ["async-halving"], [5.0], [slots], seeds=1)[0])
    assert run.regrets[-1] < 0.5
    assert run.budget_used <= 1.0


def test_simulations_do_not_depend_on_how_long_epochs_take() -> None:
    rows = [{"curve": [row + 10.0 / epoch for epoch in range(1, 21)]} for row in range(50)]
    runs = []
    for unit in (0.05, 5_000.0):
        told = [{**row, "epoch_device_seconds": unit * (1 + number % 3)} for number, row in enumerate(rows)]
        table = table_of(told)
        runs.append(simulate(table, settings_of([table], ["async-halving"], [6.0], [4], 1, 60 / unit)[0]))
    assert runs[0].preemptions == runs[1].preemptions > 0
    assert runs[0].regrets == runs[1].regrets
    assert runs[0].budget_device_seconds == pytest.approx(6.0 * 20 * 0.05 * 1.98)
    assert runs[1].budget_device_seconds == pytest.approx(1e5 * runs[0].budget_device_seconds)


def test_tables_of_one_file_name_are_told_by_their_folders(nasib_ray: Run, table: Path, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        shutil.copy(table, tmp_path / folder / "task.parquet")
    tables = [tmp_path / folder / "task.parquet" for folder in ("one", "other")]
    nasib_ray(
        "simulate", *tables, "--full-trainings", 2, "--allocator", "fifo", "--seeds", 1, "--jobs", 1,
        "--json", tmp_path / "runs.json",
    )  # fmt: skip
    runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert [run["table"] for run in runs] == ["one/task", "other/task"]
