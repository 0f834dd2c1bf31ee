"""The command line where no Ray is started: what it refuses, and how it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nasib_ray.cli import app
from nasib_ray.version import __version__

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "examples" / "digits.yaml")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nasib_ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)


RUNNING = ["plan", "sweep", "search", "resume", "status", "results", "ledger"]
READING = ["report", "retrain", "compare", "export", "simulate"]


@pytest.mark.parametrize("command", [*RUNNING, *READING])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "100"}).output
    assert "Example" in shown
    assert f"nasib-ray {command}" in shown


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"nasib-ray {__version__}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", DIGITS, "--budget", "-1 cpu-minutes"], ["-1 cpu-minutes", "positive"]),
        (["sweep", DIGITS, "--budget", "5 parsecs"], ["5 parsecs", "gpu-days"]),
        (["sweep", DIGITS, "--set", "search.k=7"], ["search.k = 7", "at most 1"]),
        (["sweep", DIGITS, "--set", "k=7"], ["unknown key k", "search.k"]),
        (["sweep", DIGITS, "--set", "search.layerz=7"], ["search.layerz", "search.layers"]),
        (["sweep", "nowhere.yaml"], ["nowhere.yaml"]),
        (["sweep", "--data", "digits"], ["no budget"]),
        (["sweep", "--data", "/no/such/folder", "--budget", "1cpu-minute"], ["/no/such/folder", "Parquet"]),
        (["plan", DIGITS, "--budget", "1 cpu-second"], ["1 cpu-second", "too small", "would do"]),
        (["plan", DIGITS, "--max-storage", "10 kB"], ["10 kB", "checkpoints", "MB would do"]),
        (["sweep", DIGITS, "--max-storage", "20 gigs"], ["max_storage", "'20 gigs'", "20 GB"]),
        (["sweep", DIGITS, "--deadline", "soon"], ["deadline", "'soon'", "12 h"]),
        (["sweep", DIGITS, "--deadline", "2020-01-01 08:00"], ["2020-01-01 08:00", "has passed"]),
        (["sweep", DIGITS, "--set", "name={{x}}"], ["name", "unhashable key", "not valid YAML"]),
        (["plan", DIGITS, "--deadline", "2020-01-01 08:00"], ["2020-01-01 08:00", "has passed"]),
        (["plan", DIGITS, "--deadline", "1 s"], ["no time for one epoch", "give a later deadline"]),
        (["status", "/no/such/sweep"], ["/no/such/sweep", "STORAGE/NAME"]),
        (["resume", str(ROOT)], ["no journal", "STORAGE/NAME"]),
        (["report", "/no/such/sweep"], ["/no/such/sweep", "STORAGE/NAME"]),
        (["report", "s3://bucket/sweep"], ["s3://bucket/sweep", "-o report.html"]),
    ],
)
def test_a_mistake_is_told_in_a_line_without_a_traceback(arguments: list[str], told: list[str], tmp_path: Path) -> None:
    if arguments[0] == "sweep":
        arguments = [*arguments, "--storage", str(tmp_path)]
    done = run(*arguments)
    assert done.returncode == 2
    before, _, _ = f"\n{done.stderr}".partition("\nnasib-ray: ")
    assert before != f"\n{done.stderr}", "the mistake is told by name"
    assert arguments[0] == "plan" or not before, "only what takes its time is named before"
    assert "Traceback" not in done.stderr
    assert all(part in done.stderr for part in told), done.stderr
    assert not list(tmp_path.iterdir()), "nothing is begun"


def test_broken_yaml_names_the_file_and_the_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("budget: 1 cpu-minute\nsearch: {k: [\n")
    done = run("sweep", str(broken))
    assert done.returncode == 2
    assert "broken.yaml" in done.stderr
    assert "line" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_measures_and_spends_nothing(tmp_path: Path) -> None:
    more = ("--set", "price_per_hour=3.6", "--max-storage", "1 TB")
    done = run("plan", DIGITS, "--budget", "1000 cpu-seconds", *more)
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines() if line}
    assert set(rows) >= {"budget", "one epoch", "full search", "rungs", "memory", "disk", "wall-clock", "price"}
    assert "1.00" in rows["price"]
    assert "enough for all of them" in rows["max_storage"]
    assert "61,570 parameters" in rows["network"]


def test_results_of_a_sweep_that_is_not_there_print_no_table() -> None:
    done = run("results", "/no/such/sweep")
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.usefixtures("driver")
def test_status_is_json(sweep_folder: Path) -> None:
    done = run("status", str(sweep_folder), "--json")
    status = json.loads(done.stdout)
    assert status["device"] == "cpu"
    assert sum(status["spent_by_kind"].values()) == pytest.approx(status["spent_device_seconds"])
