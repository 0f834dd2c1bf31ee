"""Whatever befalls a sweep, each of its searches is what one process would have made of it, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from nasib_ray import load_sweep
from schedulers.sweep_state import SweepState
from tests.nasib_ray_tests.command import Command, records_of, wait_for
from trainables.checkpoint import save_search
from trainables.data import Dataset, load_dataset
from trainables.manifest import MANIFEST
from trainables.search import Search
from trainables.settings import DataSettings, TrialSettings

pytestmark = pytest.mark.ray

CONFIG: dict[str, Any] = {
    "budget": "600 cpu-seconds",
    "data": {"name": "digits", "flip": True, "crop": True, "cutout": True},
    "searches": 100,
    "search": {
        "layers": 2,
        "reductions": [2],
        "m": 3,
        "K": 4,
        "channels": 4,
        "batch_size": 16,
        "learning_rate": 0.05,
        "checkpoint_seconds": 0.5,
    },
}


def state_in(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, tensors by the digest of their file, but for wall seconds."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    search = json.loads((folder / "search.json").read_text())
    del search["totals"]["seconds"]
    # Where it was measured is decided from outside; its values are compared apart.
    for measured in ("epoch_seconds", "objective", "objective_seconds"):
        (search["position"]["last_epoch"] or {}).pop(measured, None)
    del search["position"]["measuring"]
    # As text, for NaN differs from itself.
    return {name: entry["sha256"] for name, entry in files.items() if name != "search.json"} | {
        name: json.dumps(part) for name, part in search.items()
    }


def replay(
    config: dict[str, Any], dataset: Dataset, history: list[tuple[int, int | None]], batches: int
) -> tuple[Search, dict[int, float]]:
    """A search from its first batch in this process, told its horizons when it was told them.

    Returns:
        The search after so many batches, and the objective after each whole epoch.
    """
    settings = TrialSettings.from_config(config)
    search, objective = Search(settings, dataset, torch.device("cpu")), dict[int, float]()

    def advance(until: int) -> None:
        while search.position.batches < until or search.position.measuring:
            search.run_batch()
            if not search.in_epoch:
                assert search.position.last_epoch is not None
                objective[search.epochs] = search.position.last_epoch.objective

    for at, horizon in history:
        advance(at)
        search.settings = settings.model_copy(update={"horizon": horizon})
        search.tell_horizon()
    advance(batches)
    return search, objective


def check_bits(path: Path, tmp_path: Path) -> dict[str, list[tuple[int, int | None]]]:
    """Make every search that has a checkpoint again, and compare; returns the histories of horizons by trial."""
    state, records, histories, values = load_sweep(path).state, records_of(path), {}, 0
    torch.set_num_threads(1)
    dataset = load_dataset(DataSettings(**CONFIG["data"]))
    for name, search in state.searches.items():
        if not search.checkpoints:
            continue
        folder = path / search.checkpoints[-1].path
        position = json.loads((folder / "search.json").read_text())["position"]
        histories[name] = [(batches, horizon) for batches, horizon in position["history"]]
        again, objective = replay(search.config, dataset, histories[name], position["batches"])
        made = tmp_path / f"again-{name}"
        made.mkdir()
        save_search(again, made)
        expected, got = state_in(made), state_in(folder)
        differing = [part for part in expected if got.get(part) != expected[part]]
        assert not differing, f"trial {name} after {position['batches']} batches: {differing} of {histories[name]}"
        # Of an epoch that was done again, because it had not been saved, the last report counts.
        told = {
            record["epochs"]: record["value"]
            for record in records
            if record["event"] == "report" and record["trial"] == name and record["value"] is not None
        }
        compared = {epochs: value for epochs, value in told.items() if epochs in objective}
        values += len(compared)
        assert compared == {epochs: objective[epochs] for epochs in compared}, f"trial {name} reported something else"
    assert values > 2, "hardly any trial was compared"
    return histories


class Watched:
    """A sweep as its journal tells it from outside.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def all_of(self, event: str, after: int = 0, **fields: Any) -> list[dict[str, Any]]:
        """The records of an event behind a number, with these fields."""
        found = [it for it in records_of(self._path) if it["event"] == event and it["number"] > after]
        return [it for it in found if all(it[key] == value for key, value in fields.items())]

    def told(self, more: int) -> None:
        """Wait for so many more reports."""
        known = len(self.all_of("report"))
        wait_for(lambda: len(self.all_of("report")) >= known + more)

    def process_at_work(self, epochs: int) -> int:
        """Wait for a process in which a search has reported that has done so many epochs and runs, so far known."""

        def find() -> int | None:
            for search in SweepState.replay(None, records_of(self._path)).searches.values():
                booked, told = self.all_of("grant", trial=search.id), self.all_of("report", trial=search.id)
                ready = search.state == "running" and search.checkpoints and search.epochs >= epochs
                if ready and told[-1]["number"] > booked[-1]["number"]:
                    return int(search.latest["pid"])
            return None

        return int(wait_for(find))


Start = Callable[..., Command]


@pytest.fixture
def begin(tmp_path: Path, nasib_ray: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Command, Path]]:
    """Starts a sweep that has more budget than it will spend here; gives it and its folder."""
    monkeypatch.setenv("NASIB_RAY_CACHE", str(tmp_path / "cache"))

    def start(**config: Any) -> tuple[Command, Path]:
        file = tmp_path / "exact.yaml"
        file.write_text(json.dumps({**CONFIG, **config}))
        place = ("--storage", str(tmp_path / "s"), "--name", "exact")
        return nasib_ray("sweep", str(file), *place), tmp_path / "s" / "exact"

    return start


def interrupt(command: Command) -> None:
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 130, command.said
    assert "Traceback" not in command.said


def told_to_leave(sweep: Watched) -> dict[str, Any]:
    """The report of a trial whose process was told to stop; again if its slice had just ended by itself."""
    for _ in range(3):
        os.kill(sweep.process_at_work(epochs=2), signal.SIGTERM)
        with suppress(AssertionError):
            told = wait_for(lambda: [it for it in sweep.all_of("report") if it["metrics"]["interrupted"]], 30.0)
            return dict(told[0])
    pytest.fail("a process that is told to stop goes on")


def test_a_sweep_that_went_through_everything_is_exact(
    begin: Callable[..., tuple[Command, Path]], nasib_ray: Start, tmp_path: Path
) -> None:
    # A process dies: what its search had not saved is done again.
    first, path = begin()
    sweep = Watched(path)
    os.kill(sweep.process_at_work(epochs=2), signal.SIGKILL)
    killed = wait_for(lambda: sweep.all_of("failure"))[0]
    assert not killed["blameless"]
    assert "died without an exception" in killed["why"]

    # One that is told to leave saves at its next batch and gives its grant back, and that is no failure.
    left = told_to_leave(sweep)
    name = left["trial"]
    saved = wait_for(lambda: sweep.all_of("checkpoint", left["number"], trial=name))[0]
    position = json.loads((path / saved["path"] / "search.json").read_text())["position"]
    assert position["batches"] == left["metrics"]["batches"]
    rested = wait_for(lambda: sweep.all_of("state", saved["number"], trial=name))[0]
    assert (rested["state"], rested["why"]) == ("paused", "slice ended")
    assert wait_for(lambda: sweep.all_of("release", left["number"], trial=name))
    assert not [it for it in sweep.all_of("failure", left["number"], trial=name) if it["number"] < rested["number"]]

    # The driver dies with all its processes.
    sweep.process_at_work(epochs=3)
    first.kill()
    assert "Traceback" not in first.said

    # Fewer slots, then Ctrl-C, then more slots again.
    second = nasib_ray("resume", str(path), cpus={min(os.sched_getaffinity(0))})
    sweep.told(4)
    interrupt(second)
    assert [run["slots"] for run in sweep.all_of("run")][1] == 1
    third = nasib_ray("resume", str(path))
    sweep.told(12)
    interrupt(third)

    histories, told = check_bits(path, tmp_path), sweep.all_of("report")
    assert len(histories) >= 2
    assert any(report["metrics"]["cut"] for report in told)
    pairs = {(report["metrics"]["pid"], report["trial"]) for report in told}
    assert len({pid for pid, _ in pairs}) < len(pairs), "a process was used again"
    assert len({trial for _, trial in pairs}) < len(pairs), "a search has moved"
    assert sweep.all_of("report", rested["number"], trial=name), "it went on"


@pytest.mark.slow
def test_a_sweep_whose_horizons_are_planned_again_is_exact(
    begin: Callable[..., tuple[Command, Path]], nasib_ray: Start, tmp_path: Path
) -> None:
    # Equal shares are planned again at each of the four slices of a search, by what its epochs took so far.
    first, path = begin(allocator="equal-share", searches=40)
    sweep = Watched(path)

    def planned_again() -> bool:
        told = [(grant["trial"], grant["horizon"]) for grant in sweep.all_of("grant") if grant["horizon"]]
        return any(len({horizon for name, horizon in told if name == trial}) > 1 for trial, _ in told)

    wait_for(planned_again)
    sweep.told(4)
    interrupt(first)
    second = nasib_ray("resume", str(path), cpus={min(os.sched_getaffinity(0))})
    sweep.told(8)
    interrupt(second)
    histories = check_bits(path, tmp_path)
    assert any(len(history) > 1 for history in histories.values()), histories
