"""Whole sweeps on real data, each driven by a process of its own as a user would."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.feather
import pytest

from nasib_ray import load_sweep, write_report
from tests.nasib_ray_tests.command import DIGITS, Command, reports, wait_for
from trainables.checkpoint import KEPT_FILES

pytestmark = pytest.mark.ray


def statuses(path: Path) -> list[Any]:
    try:
        return [*load_sweep(path).status()["trials"]]
    except ValueError:
        return []


def check_account(path: Path) -> dict[str, Any]:
    status: dict[str, Any] = dict(load_sweep(path).status())
    assert status["spent_device_seconds"] + status["granted_device_seconds"] <= status["budget_device_seconds"] + 1e-3
    assert sum(status["spent_by_kind"].values()) == pytest.approx(status["spent_device_seconds"])
    held = [trial["spent_device_seconds"] for trial in status["trials"]]
    assert sum(held) == pytest.approx(status["spent_device_seconds"])
    return status


def test_a_sweep_is_interrupted_resumed_killed_resumed_and_raised(tmp_path: Path) -> None:
    path = tmp_path / "s" / "digits"
    sweep = ("sweep", DIGITS, "--budget", "50 cpu-seconds", "--storage", str(tmp_path / "s"), "--name", "digits")

    first = Command(tmp_path, *sweep)
    wait_for(lambda: reports(path) >= 4)
    assert load_sweep(path).status()["state"] == "running"
    first.process.send_signal(signal.SIGINT)
    assert first.ends() == 130
    assert f"nasib-ray resume {path}" in first.said
    assert "Traceback" not in first.said
    status = check_account(path)
    assert status["state"] == "interrupted"
    assert status["granted_device_seconds"] == 0
    assert status["spent_by_kind"]["lost"] == 0, "Ctrl-C loses nothing"
    known = {trial["id"]: trial["epochs"] for trial in status["trials"]}

    second = Command(tmp_path, "resume", str(path))
    before = reports(path)
    wait_for(lambda: reports(path) >= before + 3)
    os.killpg(second.process.pid, signal.SIGKILL)
    second.ends()
    wait_for(lambda: load_sweep(path).status()["state"] == "interrupted")
    check_account(path)

    third = Command(tmp_path, *sweep)
    assert third.ends() == 0, third.said
    status = check_account(path)
    assert status["state"] == "finished"
    trials = {trial["id"]: trial for trial in status["trials"]}
    assert len(trials) == len(status["trials"])
    assert known.keys() <= trials.keys(), "no trial is forgotten"
    assert all(trials[name]["epochs"] >= epochs for name, epochs in known.items())
    assert status["spent_device_seconds"] >= 0.7 * 50
    incumbent = status["incumbent"]
    assert incumbent is not None
    assert len(incumbent["architecture"]) == 4
    best = [trial["best_value"] for trial in trials.values() if trial["best_value"] is not None]
    assert incumbent["value"] == max(best) < 0, "a likelihood"
    assert 0 < incumbent["val_accuracy"] <= 1

    journal = {file.name: file.read_bytes() for file in (path / "journal").iterdir()}
    again = Command(tmp_path, "resume", str(path))
    assert again.ends() == 0
    assert "is finished" in again.said
    assert {file.name: file.read_bytes() for file in (path / "journal").iterdir()} == journal

    raised = Command(tmp_path, "resume", str(path), "--budget", "65 cpu-seconds")
    assert raised.ends() == 0, raised.said
    status = check_account(path)
    assert status["budget_device_seconds"] == 65
    assert status["spent_device_seconds"] > 50

    other = Command(tmp_path, *sweep, "--set", "search.m=3")
    assert other.ends() == 2
    assert "search.m" in other.said


def stored(path: Path) -> int:
    """Bytes of all checkpoints on disk; what is being deleted counts for nothing."""
    sizes = []
    for file in path.glob("*/checkpoint_*/*"):
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return sum(sizes)


@pytest.mark.slow
def test_weights_are_bounded_and_alpha_stays_through_a_kill_and_a_resume(tmp_path: Path) -> None:
    path, bound = tmp_path / "s" / "digits", 3_500_000
    limits = ("--max-storage", "3.5 MB", "--set", "max_concurrent=2", "--set", "rungs=[0.1, 0.5]")
    place = ("--storage", str(tmp_path / "s"), "--name", "digits")
    first = Command(tmp_path, "sweep", DIGITS, "--budget", "60 cpu-seconds", *place, *limits)
    most = 0

    def over(state: str) -> bool:
        nonlocal most
        most = max(most, stored(path))
        return any(trial["state"] == state for trial in statuses(path))

    wait_for(lambda: over("not resumable"))
    os.killpg(first.process.pid, signal.SIGKILL)
    first.ends()
    before = {trial["id"]: trial for trial in statuses(path)}

    second = Command(tmp_path, "resume", str(path))
    wait_for(lambda: over("") or second.process.poll() is not None)
    assert second.ends() == 0, second.said
    assert 2_000_000 < most <= bound
    status = check_account(path)
    assert (status["state"], status["max_storage_bytes"]) == ("finished", bound), "a resume inherits the bound"
    assert stored(path) == status["stored_bytes"] <= bound
    assert "of the 3.5 MB that they may take" in second.said
    for trial in status["trials"]:
        newest = sorted(path.glob(f"{trial['id']}/checkpoint_*"))[-1]
        table = pyarrow.feather.read_table(newest / "architecture.arrow")
        assert table.num_rows == 4 * 25
        assert sum(table["frequency"].to_pylist()) > 0
        if trial["state"] == "not resumable":
            assert {file.name for file in newest.iterdir()} == set(KEPT_FILES)
            assert trial["best_val_accuracy"] is not None
        if (known := before.get(trial["id"])) and known["state"] == "not resumable":
            assert (trial["state"], trial["epochs"]) == ("not resumable", known["epochs"])


@pytest.mark.slow
def test_a_deadline_ends_a_sweep_which_then_goes_on_without_it(tmp_path: Path) -> None:
    place = ("--storage", str(tmp_path / "s"), "--name", "digits")
    began = time.time()
    first = Command(tmp_path, "sweep", DIGITS, *place, "--budget", "10 cpu-minutes", "--deadline", "40 s")
    assert first.ends() == 130, first.said
    assert time.time() < began + 42, "Ray's own end is no part of it"
    path = tmp_path / "s" / "digits"
    status = check_account(path)
    assert (status["state"], status["why"]) == ("interrupted", "its deadline is near")
    assert f"nasib-ray resume {path}" in first.said
    assert status["granted_device_seconds"] == status["spent_by_kind"]["lost"] == 0
    assert sum(trial["epochs"] for trial in status["trials"]) > 0
    wait_for(lambda: time.time() > began + 42)

    second = Command(tmp_path, "resume", str(path))
    wait_for(lambda: load_sweep(path).state.runs == 2)
    assert "has passed, so that this run has none" in second.said
    wait_for(lambda: load_sweep(path).status()["deadline"] is None)
    second.process.send_signal(signal.SIGINT)
    assert second.ends() == 130


def test_one_search_with_the_whole_budget_comes_to_its_end(tmp_path: Path) -> None:
    place = ("--storage", str(tmp_path / "s"), "--name", "one")
    command = Command(tmp_path, "search", DIGITS, "--budget", "15 cpu-seconds", *place)
    assert command.ends() == 0, command.said
    status = check_account(tmp_path / "s" / "one")
    (trial,) = status["trials"]
    # A machine that is busy with other things may come short of the last epochs; see the simulated sweeps for p = k.
    assert trial["epochs"] >= 0.8 * trial["horizon"]
    assert trial["clock"] >= 0.8
    assert trial["p"] == pytest.approx(trial["k"] ** trial["clock"])
    frame = load_sweep(tmp_path / "s" / "one").dataframe()
    assert list(frame["p"].dropna()) == sorted(frame["p"].dropna(), reverse=True), "p never rises"
    assert frame["p"].iloc[0] == 1.0


def test_random_search_is_a_sweep_as_any_other(tmp_path: Path) -> None:
    place = ("--storage", str(tmp_path / "s"), "--name", "random")
    method = ("--set", "method=random-search", "--set", "finalists=2", "--set", "selection_share=0.55")
    command = Command(tmp_path, "sweep", DIGITS, "--budget", "24 cpu-seconds", *method, *place)
    assert command.ends() == 0, command.said
    assert "trained from scratch" in command.said
    status = check_account(tmp_path / "s" / "random")
    assert status["state"] == "finished"
    searches = [trial for trial in status["trials"] if trial["kind"] == "search"]
    assert len(searches) > 2
    assert all("architecture" in trial["config"] for trial in status["trials"])
    assert status["incumbent"] is not None
    assert status["selected"] is not None
    assert status["selected"]["found_by"] in {trial["id"] for trial in searches}
    write_report(tmp_path / "s" / "random", tmp_path / "report.html")
    assert "random architectures" in (tmp_path / "report.html").read_text()


def test_what_the_user_named_by_import_path_is_found_from_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from torch import nn\n"
        "class Squeeze(nn.Sequential):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))\n"
        "def stripes(settings):\n"
        "    rng = np.random.default_rng(0)\n"
        "    labels = np.arange(600) % 2\n"
        "    images = rng.integers(0, 99, (600, 8, 8, 1), dtype=np.uint8)\n"
        "    images[labels == 1, ::2] += 150\n"
        "    return (images, labels), None\n"
    )
    config = tmp_path / "mine.yaml"
    settings = {
        "budget": "15 cpu-seconds",
        "data": {"name": "mine:stripes"},
        "search": {"layers": 2, "reductions": [], "channels": 4, "candidates": ["conv3x3", "identity", "mine:Squeeze"]},
        "storage": str(tmp_path / "s"),
        "name": "mine",
    }
    config.write_text(json.dumps(settings))
    command = Command(tmp_path, "sweep", str(config), cwd=tmp_path)
    assert command.ends() == 0, command.said
    status = check_account(tmp_path / "s" / "mine")
    assert status["incumbent"]["val_accuracy"] > 0.8


@pytest.mark.slow
def test_what_the_users_own_operation_raises_is_shown_and_ends_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "class OnlyHere(nn.Identity):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        if os.environ.get('RAY_JOB_ID') or 'ray::' in open('/proc/self/cmdline').read():\n"
        "            raise KeyError('no licence on this machine')\n"
    )
    config, path = tmp_path / "mine.yaml", tmp_path / "s" / "mine"
    settings = {
        "budget": "10 cpu-minutes",
        "data": "digits",
        "search": {"layers": 1, "reductions": [], "channels": 4, "candidates": ["conv1x1", "mine:OnlyHere"]},
        "storage": str(tmp_path / "s"),
        "name": "mine",
        "max_concurrent": 1,
    }
    config.write_text(json.dumps(settings))
    command = Command(tmp_path, "sweep", str(config), cwd=tmp_path)
    assert command.ends() == 1, command.said
    told = "KeyError: 'no licence on this machine' (mine.py:7, in __init__)"
    said = " ".join(command.said.split())
    assert f"state failed: the first searches all failed before they reported anything: {told}" in said
    assert f"crashed and goes on from 0 epochs: {told}" in said
    assert "Traceback" not in said
    assert "did not complete" not in said
    status = check_account(path)
    assert [trial["error"] for trial in status["trials"]] == [told] * 3
    assert status["granted_device_seconds"] == 0
    assert status["spent_device_seconds"] < 300, "half of it is left, and not locked in a grant that nobody holds"
