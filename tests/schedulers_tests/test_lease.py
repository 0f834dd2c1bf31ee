from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pyarrow import fs

from schedulers.clock import SimulatedClock, WallClock
from schedulers.journal import Journal, JournalBusyError, LeaseLostError, read_journal, read_lease
from schedulers.journal_folder import lease_name
from schedulers.lease import Lease
from schedulers.sealed_json import seal

ROOT = Path(__file__).parents[2]
LOCAL = fs.LocalFileSystem()


class WatchedClock(SimulatedClock):
    """A simulated clock that lets something happen whenever somebody sleeps by it."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept += seconds
        self.meanwhile()


def lease_of(folder: Path) -> Lease:
    lease = read_lease(LOCAL, str(folder))
    assert lease is not None
    return lease


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python on some code and arguments, and ends what still runs after the test."""
    started: list[subprocess.Popen[str]] = []

    def popen(code: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-u", "-c", code, *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def on_another_host(folder: Path) -> None:
    """Make the newest lease look as if its holder ran elsewhere."""
    lease = replace(lease_of(folder), host="node7", boot_id="another")
    (folder / lease_name(lease.run)).write_bytes(seal(asdict(lease)))


def test_a_lease_says_who_holds_it(tmp_path: Path) -> None:
    assert read_lease(LOCAL, str(tmp_path)) is None
    Journal.open(LOCAL, str(tmp_path), SimulatedClock(unix=5.0))
    lease = lease_of(tmp_path)
    assert (lease.run, lease.host, lease.pid, lease.time) == (1, socket.gethostname(), os.getpid(), 5.0)
    assert not lease.released
    assert lease.alive(now=1e9)
    assert lease.is_held()
    assert not any(other.is_held() for other in (replace(lease, host="node7"), replace(lease, released=True)))


def test_alive(tmp_path: Path) -> None:
    Journal.open(LOCAL, str(tmp_path), SimulatedClock(unix=1_000.0))
    here = lease_of(tmp_path)
    elsewhere = replace(here, host="node7")
    assert elsewhere.alive(now=1_029.0)
    assert not elsewhere.alive(now=1_031.0)
    assert elsewhere.alive(now=1_031.0, lease_seconds=60.0)
    assert not replace(elsewhere, released=True).alive(now=1_000.0)
    assert not replace(here, released=True).alive(now=1_000.0)
    # The same process id, but of a process that started at another time.
    assert not replace(here, started_ticks=1).alive(now=1_000.0)
    # Where the boot is unknown, a process id says nothing.
    assert not replace(here, boot_id="").alive(now=1_031.0)


def test_a_released_lease_is_taken_at_once(tmp_path: Path) -> None:
    clock = WatchedClock()
    for run in (1, 2, 3):
        journal = Journal.open(LOCAL, str(tmp_path), clock)
        assert journal.run == run
        journal.close()
    assert clock.slept == 0.0


def test_an_unchanged_lease_is_taken_after_its_time(tmp_path: Path) -> None:
    clock = WatchedClock()
    Journal.open(LOCAL, str(tmp_path), clock)
    on_another_host(tmp_path)
    assert Journal.open(LOCAL, str(tmp_path), clock, lease_seconds=30.0).run == 2
    assert clock.slept == pytest.approx(30.0, abs=1.0)


def test_a_heartbeat_keeps_others_out(tmp_path: Path) -> None:
    clock = WatchedClock()
    first = Journal.open(LOCAL, str(tmp_path), clock, lease_seconds=30.0)
    clock.meanwhile = first.beat
    with pytest.raises(JournalBusyError, match=f"process {os.getpid()} on host {socket.gethostname()}"):
        Journal.open(LOCAL, str(tmp_path), clock, lease_seconds=30.0)
    assert 0.0 < clock.slept < 10.0
    assert lease_of(tmp_path).heartbeat == 1


def test_a_lease_released_while_it_is_watched_is_taken(tmp_path: Path) -> None:
    clock = WatchedClock()
    first = Journal.open(LOCAL, str(tmp_path), clock)
    clock.meanwhile = first.close
    assert Journal.open(LOCAL, str(tmp_path), clock).run == 2
    assert clock.slept < 1.0


def test_a_lease_that_another_takes_meanwhile_is_refused(tmp_path: Path) -> None:
    clock = WatchedClock()
    Journal.open(LOCAL, str(tmp_path), clock)
    on_another_host(tmp_path)

    def overtake() -> None:
        clock.meanwhile = lambda: None
        Journal.open(LOCAL, str(tmp_path), SimulatedClock())

    clock.meanwhile = overtake
    with pytest.raises(JournalBusyError, match="Run 2"):
        Journal.open(LOCAL, str(tmp_path), clock)


def test_a_heartbeat_is_written_only_when_due(tmp_path: Path) -> None:
    clock = SimulatedClock()
    journal = Journal.open(LOCAL, str(tmp_path), clock, lease_seconds=30.0)
    for _ in range(100):
        clock.advance(0.1)
        journal.beat()
    assert lease_of(tmp_path).heartbeat == 3
    assert lease_of(tmp_path).time == pytest.approx(9.0, abs=0.5)


def test_a_late_heartbeat_finds_out_and_harms_nobody(tmp_path: Path) -> None:
    clock = SimulatedClock()
    first = Journal.open(LOCAL, str(tmp_path), clock)
    clock.advance(100.0)
    second = Journal.open(LOCAL, str(tmp_path), clock)
    with pytest.raises(LeaseLostError, match="Run 2"):
        first.beat()
    first.close()
    assert (lease_of(tmp_path).run, lease_of(tmp_path).released) == (2, False)
    clock.advance(100.0)
    second.beat()


def test_a_lease_cut_short_counts_as_held_by_somebody(tmp_path: Path) -> None:
    clock = WatchedClock()
    journal = Journal.open(LOCAL, str(tmp_path), clock)
    journal.append({"event": "a"})
    journal.close()
    lease = tmp_path / lease_name(1)
    lease.write_bytes(lease.read_bytes()[:-1])
    assert Journal.open(LOCAL, str(tmp_path), clock, lease_seconds=30.0).run == 2
    assert clock.slept == pytest.approx(30.0, abs=1.0)


def test_a_deleted_lease_does_not_give_its_number_away(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
        journal.append({"event": "a"})
        journal.close()
    for lease in tmp_path.glob("lease-*"):
        lease.unlink()
    assert Journal.open(LOCAL, str(tmp_path), SimulatedClock()).run == 3


@pytest.mark.parametrize("lease_seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_lease_seconds_are_checked(tmp_path: Path, lease_seconds: float) -> None:
    with pytest.raises(ValueError, match="lease_seconds"):
        Journal.open(LOCAL, str(tmp_path), SimulatedClock(), lease_seconds)


def test_of_two_that_put_the_same_lease_the_first_gives_way() -> None:
    store = fs._MockFileSystem()
    clock, other = WatchedClock(), WatchedClock()

    def put_too() -> None:
        # Another process looked before this one put its lease, and puts its own behind it.
        clock.meanwhile = lambda: None
        store.delete_file("journal/lease-0001.json")
        assert Journal.open(store, "journal", other).run == 1

    clock.meanwhile = put_too
    with pytest.raises(JournalBusyError):
        Journal.open(store, "journal", clock)


def test_of_two_that_hold_the_same_lease_the_first_to_beat_leaves() -> None:
    store = fs._MockFileSystem()
    clock = SimulatedClock()
    first = Journal.open(store, "journal", clock)
    store.delete_file("journal/lease-0001.json")
    second = Journal.open(store, "journal", clock)
    assert first.run == second.run == 1
    clock.advance(10.0)
    with pytest.raises(LeaseLostError):
        first.beat()
    second.beat()


HOLD = """
import sys, time
from pyarrow import fs
from schedulers.clock import WallClock
from schedulers.journal import Journal
journal = Journal.open(fs.LocalFileSystem(), sys.argv[1], WallClock(), lease_seconds=float(sys.argv[2]))
while True:
    print(journal.append({"event": "x" * 1000})["number"], flush=True)
    journal.flush()
    journal.beat()
    time.sleep(0.001)
"""

RACE = """
import sys, time
from pyarrow import fs
from schedulers.clock import WallClock
from schedulers.journal import Journal, JournalBusyError
print("ready", flush=True)
sys.stdin.readline()
try:
    journal = Journal.open(fs.LocalFileSystem(), sys.argv[1], WallClock(), lease_seconds=5.0)
except JournalBusyError as error:
    sys.exit(f"busy: {error}")
while True:
    journal.beat()
    time.sleep(0.1)
"""


def test_a_second_process_is_refused_and_a_killed_one_followed_at_once(tmp_path: Path, start: Start) -> None:
    writer = start(HOLD, str(tmp_path), "5.0")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    with pytest.raises(JournalBusyError, match=f"Stop process {writer.pid} on"):
        Journal.open(LOCAL, str(tmp_path), WallClock(), lease_seconds=5.0)
    assert lease_of(tmp_path).alive(time.time())
    os.kill(writer.pid, signal.SIGKILL)
    output, _ = writer.communicate()
    assert not lease_of(tmp_path).alive(time.time())
    begun = time.monotonic()
    journal = Journal.open(LOCAL, str(tmp_path), WallClock(), lease_seconds=60.0)
    assert time.monotonic() - begun < 5.0
    assert journal.run == 2
    # All but the last number that was printed had been flushed.
    printed = int(output.split()[-1])
    assert printed - 1 <= journal.replay.number <= printed
    journal.append({"event": "next"})
    journal.close()
    assert read_journal(LOCAL, str(tmp_path)).number == journal.replay.number + 1


def test_a_journal_is_read_while_it_is_written(tmp_path: Path, start: Start) -> None:
    writer = start(HOLD, str(tmp_path), "5.0")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    seen = [0]
    while seen[-1] < 600:
        replay = read_journal(LOCAL, str(tmp_path))
        assert [record["number"] for record in replay.records] == list(range(1, replay.number + 1))
        seen.append(replay.number)
    writer.kill()
    writer.communicate()
    assert seen == sorted(seen)
    assert len(list(tmp_path.glob("segment-*"))) >= 3
    assert len(set(seen)) > 10


def test_a_stopped_process_loses_its_lease_and_notices_when_it_goes_on(tmp_path: Path, start: Start) -> None:
    writer = start(HOLD, str(tmp_path), "1.0")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    os.kill(writer.pid, signal.SIGSTOP)
    journal = Journal.open(LOCAL, str(tmp_path), WallClock(), lease_seconds=1.0)
    assert journal.run == 2
    written = journal.append({"event": "next"})
    journal.flush()
    os.kill(writer.pid, signal.SIGCONT)
    _, errors = writer.communicate(timeout=30)
    assert "LeaseLostError: Run 1 no longer owns" in errors
    assert read_journal(LOCAL, str(tmp_path)).records == [*journal.replay.records, written]


def test_of_processes_that_open_at_once_one_wins(tmp_path: Path, start: Start) -> None:
    racers = [start(RACE, str(tmp_path)) for _ in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    time.sleep(0.5)
    deadline = time.monotonic() + 20.0
    while sum(racer.poll() is None for racer in racers) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    (winner,) = [racer for racer in racers if racer.poll() is None]
    assert lease_of(tmp_path).pid == winner.pid
    assert lease_of(tmp_path).run == 1
    winner.kill()
    for racer in racers:
        _, errors = racer.communicate()
        assert racer is winner or "busy: " in errors
