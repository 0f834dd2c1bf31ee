"""Where a drill is played: a Ray cluster, drivers that come and go, and observers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.cluster_utils import Cluster

from schedulers import JournalError, SweepState, read_journal

from .watching import GroupWatch, ProcessWatch, Series, held_device_seconds

ROOT = Path(__file__).parents[2]
NAME = "drill"
MARKER = "NASIB_RAY_DRILL"
_NASIB_SETTINGS = (
    "search.layers=2",
    "search.reductions=[]",
    "search.m=3",
    "search.channels=4",
    "search.checkpoint_seconds=2",
    "sampler=random",
)


class DrillFailed(Exception):
    """A drill did not come to its end; says at what."""


@dataclass(frozen=True)
class Scene:
    """What a drill is played with.

    Attributes:
        fault: What goes wrong.
        trainable: ``nasib``, played by the command line, or one of the driver's.
        own: Whether the driver starts a Ray of its own; else it joins a cluster.
        nodes: Whether that has a node for each slot; else one has them all.
        slots: Trials at once.
        budget: CPU-seconds.
        seed: Of everything that is left to chance.
    """

    fault: str
    trainable: str
    own: bool
    nodes: bool
    slots: int
    budget: float
    seed: int


@dataclass
class Stage:
    """A scene being played in a folder.

    Attributes:
        scene: What is played.
        folder: For everything; a short path, as Ray keeps sockets in it.
        random: Everything that is left to chance.
        slots: The slots of the next driver's own Ray.
        budget: CPU-seconds that the next driver is given.
        began: Unix seconds of the sweep's beginning.
        nodes: The nodes of the cluster, if the drivers join one.
        before: The sweep as it stood when something went wrong.
        moment: Unix seconds of then.
    """

    scene: Scene
    folder: Path
    random: Random
    slots: int
    budget: float
    began: float = 0.0
    cluster: Any = None
    nodes: list[Any] = field(default_factory=list)
    before: SweepState | None = None
    moment: float = 0.0
    _drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    _watches: list[GroupWatch | ProcessWatch] = field(default_factory=list)

    @property
    def storage(self) -> Path:
        """The parent of the sweep's folder."""
        return self.folder / "storage"

    @property
    def sweep(self) -> Path:
        """The sweep's folder."""
        return self.storage / NAME

    @property
    def nasib(self) -> bool:
        """Whether NASIB searches are run, by the command line."""
        return self.scene.trainable == "nasib"

    # Ray

    def open(self) -> None:
        """Start the observers, and the cluster unless the drivers start their own."""
        self.storage.mkdir()
        self._watches.append(ProcessWatch(f"{MARKER}={self.folder}"))
        if self.scene.own:
            return
        slots = 0 if self.scene.nodes else self.slots
        arguments = {"num_cpus": slots, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=arguments)
        for _ in range(self.slots - slots):
            self.add_node()
        self._watch_groups(self.cluster.address)

    def add_node(self) -> None:
        """Let the cluster have room for one more trial."""
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def _watch_groups(self, address: str) -> None:
        file = self.folder / f"groups-{len(self._watches)}"
        self._watches.append(GroupWatch(address, file))

    def close(self) -> None:
        """Stop everything that was started."""
        for driver in self._drivers:
            driver.kill()
            driver.wait()
        for watch in self._watches:
            watch.close()
        if self.cluster is not None:
            self.cluster.shutdown()
        for process in self.ray_processes(""):
            signalled(process, signal.SIGKILL)

    def views(self) -> list[Series]:
        """What the observers have seen."""
        return [watch.series() for watch in self._watches]

    def held(self) -> float:
        """CPU-seconds that outside processes have seen held since the sweep's beginning."""
        return held_device_seconds(*self.views(), since=self.began)

    def ray_processes(self, name: str) -> list[int]:
        """The process ids of this drill's processes with a name in their program's path: raylet, gcs_server, ..."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                marked = f"{MARKER}={self.folder}\0".encode() in (folder / "environ").read_bytes()
                program = (folder / "cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2].decode()
            except OSError:
                continue
            if marked and program.startswith(name):
                found.append(int(folder.name))
        return found

    # Drivers

    def driver(self, terms: dict[str, Any] | None = None, seconds: float | None = None) -> subprocess.Popen[str]:
        """Start the sweep, or go on with it.

        Args:
            terms: Further arguments of ``with_budget``.
            seconds: Of an epoch, on this driver's devices.
        """
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        environment.pop("RAY_ADDRESS", None)
        if self.cluster is not None:
            environment["RAY_ADDRESS"] = self.cluster.address
        environment["NASIB_RAY_CACHE"] = str(self.folder / "cache")
        observed = self.folder / "observed"
        observed.unlink(missing_ok=True)
        before = set(self.ray_processes("raylet"))
        command = self._nasib_command() if self.nasib else self._script_command(terms or {}, seconds)
        with open(self.folder / f"driver-{len(self._drivers)}.log", "w") as log:
            started = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
            )
        self._drivers.append(started)
        if self.scene.own:
            self.until(lambda: set(self.ray_processes("raylet")) - before, "Ray to run", 60)
            raylet = min(set(self.ray_processes("raylet")) - before)
            arguments = Path(f"/proc/{raylet}/cmdline").read_text().split("\0")
            address = next(text.partition("=")[2] for text in arguments if text.startswith("--gcs-address="))
            self._watch_groups(address)
        observed.touch()
        return started

    def _script_command(self, terms: dict[str, Any], seconds: float | None) -> list[str]:
        told = {
            "trainable": self.scene.trainable,
            "fault": self.scene.fault,
            "budget": f"{self.budget} cpu-seconds",
            "storage": str(self.storage),
            "name": NAME,
            "folder": str(self.folder),
            "slots": self.slots,
            "address": None if self.cluster is None else self.cluster.address,
            "seconds": seconds or 0.4,
            "terms": {"lease_seconds": 6.0, **terms},
        }
        return [sys.executable, "-m", "benchmarks.drills.driver", json.dumps(told)]

    def _nasib_command(self) -> list[str]:
        program = [sys.executable, "-m", "nasib_ray"]
        if self.sweep.exists():
            return [*program, "resume", str(self.sweep)]
        settings = [part for setting in _NASIB_SETTINGS for part in ("--set", setting)]
        limit = ["--set", f"max_concurrent={self.scene.slots}"]
        budget = ["--budget", f"{self.budget} cpu-seconds"]
        place = ["--storage", str(self.storage), "--name", NAME]
        return [*program, "sweep", "--data", "digits", *budget, *place, *settings, *limit]

    def log_of(self, driver: subprocess.Popen[str]) -> str:
        """What a driver has said."""
        return (self.folder / f"driver-{self._drivers.index(driver)}.log").read_text(errors="replace")

    def finish(self, driver: subprocess.Popen[str], seconds: float = 240.0) -> int:
        """Wait for a driver to come to its end; its exit status.

        Raises:
            DrillFailed: If it does not.
        """
        try:
            return driver.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise DrillFailed(f"a driver did not end within {seconds:.0f} s") from error

    # What is known

    def records(self) -> list[dict[str, Any]]:
        """The whole journal; empty before there is one."""
        folder = str(self.sweep / "journal")
        try:
            return read_journal(LocalFileSystem(), folder, from_start=True).records
        except (JournalError, FileNotFoundError):
            return []

    def state(self) -> SweepState:
        """The sweep by its journal."""
        return SweepState.replay(None, self.records())

    def until(self, condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
        """Return as soon as a condition is met.

        Raises:
            DrillFailed: If that takes too long, or no driver is alive to bring it about.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or all(driver.poll() is not None for driver in self._drivers):
                raise DrillFailed(f"waited in vain for {what}")
            time.sleep(0.05)

    def in_swing(self, saved: int = 1) -> None:
        """Return when so many searches have been saved, some have reported, and one is at work; a moment later."""
        reports = self.random.randint(3, 7)

        def swinging() -> bool:
            records = self.records()
            state = SweepState.replay(None, records)
            enough = sum(record["event"] == "report" for record in records) >= reports
            have = sum(bool(search.checkpoints) for search in state.searches.values()) >= saved
            return enough and have and any(search.state == "running" for search in state.searches.values())

        self.until(swinging, "the sweep to be in full swing")
        time.sleep(self.random.uniform(0.0, 1.0))

    def begin_again(self, budget: float) -> None:
        """Forget the sweep; the next driver begins another one."""
        shutil.rmtree(self.sweep)
        self.budget, self.began, self.before = budget, time.time(), None

    def mark(self) -> None:
        """Take note of the sweep as it stands: something goes wrong now."""
        self.moment, self.before = time.time(), self.state()


def signalled(process: int, number: int) -> bool:
    """Send a signal; whether the process was there."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def played(scene: Scene, folder: Path) -> Iterator[Stage]:
    """A stage for a scene; everything is stopped in the end."""
    # Ray keeps the address of the latest cluster that was started in its folder, and `ray.init()` joins it.
    os.environ.update({MARKER: str(folder), "RAY_TMPDIR": str(folder)})
    stage = Stage(scene, folder, Random(scene.seed), scene.slots, scene.budget)
    try:
        stage.open()
        yield stage
    finally:
        stage.close()
