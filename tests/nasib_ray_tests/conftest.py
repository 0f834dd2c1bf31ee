from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from schedulers.clock import SimulatedClock
from schedulers.journal import Journal
from schedulers.sweep_state import SweepState
from tests.nasib_ray_tests.command import Command

ARCHITECTURE = ["conv3x5", "sepconv7x2", "identity"]


class Driver:
    """Writes, through the real journal, what a driver of a sweep writes; by a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock(1_800_000_000.0)
        self.journal = Journal.open(fs.LocalFileSystem(), str(folder / "journal"), self.clock)
        self.state = SweepState.replay(self.journal.replay.snapshot, self.journal.replay.records)

    def write(self, event: str, **fields: Any) -> None:
        self.state.apply(self.journal.append({"event": event, **fields}))
        self.journal.flush()

    def begin(self, budget: float = 180.0, **settings: Any) -> None:
        nasib = {"metric": "val_accuracy", "mode": "max", "trainable": "NasibTrainable"}
        versions = {"nasib_ray": "0.1.0", "torch": "2.14.1"}
        self.write("sweep", **{"device": "cpu", "devices_per_trial": 1.0, "versions": versions, **nasib, **settings})
        self.write("budget", device_seconds=budget, text=f"{budget} cpu-seconds")
        self.write("run", slots=2)

    def search(self, name: str, **config: Any) -> None:
        self.write("search", trial=name, index=len(self.state.searches), config=config)

    def grant(self, name: str, amount: float, epochs: int, horizon: int | None, why: str = "new") -> str:
        grant = f"g{self.state.booked}"
        self.write("grant", grant=grant, trial=name, amount=amount, epochs=epochs, horizon=horizon, why=why)
        return grant

    def charge(self, name: str, kind: str, amount: float) -> None:
        self.clock.advance(amount)
        self.write("charge", grant=self.state.searches[name].grant, trial=name, kind=kind, amount=amount)

    def report(self, name: str, value: float | None, **metrics: Any) -> None:
        """A report of one more epoch; of a part of one if it has no value."""
        search = self.state.searches[name]
        done = search.epochs + (value is not None)
        shown = {"val_accuracy": value, "epochs": done, "cut": value is None, **metrics}
        seconds = None if value is None else 1.0
        self.write("report", trial=name, epochs=done, value=value, epoch_seconds=seconds, metrics=shown)

    def nasib_epochs(self, name: str, *values: float | None) -> None:
        horizon = self.state.searches[name].horizon or 1
        for value in values:
            self.charge(name, "train", 1.0)
            done = self.state.searches[name].epochs
            self.report(
                name,
                value,
                horizon=horizon,
                clock=done / max(1, horizon - 1),
                p=0.1 ** (done / max(1, horizon - 1)),
                val_accuracy_stderr=None if value is None else 0.0125,
                architecture=ARCHITECTURE,
                memory_bytes=800_000_000,
                step_memory_bytes=50_000_000,
                seed=7,
            )

    def rest(self, name: str, state: str = "paused", why: str = "slice ended") -> None:
        search = self.state.searches[name]
        self.write("checkpoint", trial=name, path=f"{name}/checkpoint", epochs=search.epochs, iteration=search.epochs)
        self.leave(name, state, why)

    def crash(self, name: str, state: str, why: str) -> None:
        self.write("failure", trial=name, epochs=0, why=why)
        self.leave(name, state, why)

    def leave(self, name: str, state: str, why: str) -> None:
        self.write("release", grant=self.state.searches[name].grant, trial=name, amount=0.0)
        self.write("state", trial=name, state=state, why=why)

    def end(self, state: str = "finished", why: str = "2.0 cpu-seconds remain, too little for another slice") -> None:
        self.write("end", state=state, why=why)
        self.journal.close()


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    return tmp_path / "digits"


@pytest.fixture
def make_driver(sweep_folder: Path) -> Iterator[Callable[[], Driver]]:
    drivers: list[Driver] = []

    def make() -> Driver:
        drivers.append(Driver(sweep_folder))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.journal.close()


@pytest.fixture
def driver(make_driver: Callable[[], Driver]) -> Driver:
    """A driver at work on a sweep of three searches: one finished, one running, one failed."""
    made = make_driver()
    made.begin()
    made.search("s_00000", k=0.1, **{"lambda": 0.01}, seed=7, data={"name": "digits", "cutout": "auto"}, reductions=[2])
    made.search("s_00001", k=0.02, **{"lambda": 0.05}, seed=8, data={"name": "digits", "cutout": True}, reductions=[2])
    made.search(
        "s_00002", k=0.5, **{"lambda": 0.001}, seed=9, data={"name": "digits", "cutout": "auto"}, reductions=[2]
    )
    made.grant("s_00000", 30.0, 3, 3)
    made.grant("s_00001", 30.0, 2, 3)
    made.charge("s_00000", "setup", 4.0)
    made.charge("s_00001", "setup", 4.0)
    made.nasib_epochs("s_00000", 0.5, 0.9, 0.8)
    made.charge("s_00000", "checkpoint", 0.5)
    made.rest("s_00000", "finished", "complete")
    made.nasib_epochs("s_00001", 0.6, None)
    made.grant("s_00002", 30.0, 2, 3)
    made.charge("s_00002", "lost", 2.5)
    made.crash("s_00002", "failed", "ValueError: k is 0.5")
    return made


@pytest.fixture
def nasib_ray(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts `nasib-ray` with these arguments; see :class:`Command`. What still runs behind the test is killed."""
    started: list[Command] = []

    def start(*arguments: str, **options: Any) -> Command:
        started.append(Command(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.kill()
