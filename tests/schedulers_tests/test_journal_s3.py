"""The journal on an object store, by a real server of its protocol and pyarrow's client."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from schedulers import journal as journal_module
from schedulers.brief_store import brief
from schedulers.clock import SimulatedClock, WallClock
from schedulers.journal import (
    Journal,
    JournalBusyError,
    JournalError,
    JournalWriteError,
    LeaseLostError,
    read_journal,
    read_lease,
)
from schedulers.journal_folder import lease_name, segment_name
from schedulers.storage_watch import StorageWatch
from tests.schedulers_tests.s3_server import BUCKET, S3Server, s3_server

ROOT = Path(__file__).parents[2]
SOON_SECONDS = 6.0
"""What a driver may be kept waiting by a store that does not answer."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as serving:
        yield serving


@pytest.fixture
def place(server: S3Server, request: pytest.FixtureRequest) -> tuple[fs.FileSystem, str]:
    """The store as Tune makes it of a URI, and a folder there of the test's own."""
    filesystem, bucket = fs.FileSystem.from_uri(f"s3://{BUCKET}")
    return filesystem, f"{bucket}/{request.node.name}/sweep/journal"


def put(place: tuple[fs.FileSystem, str], name: str, data: bytes) -> None:
    with place[0].open_output_stream(f"{place[1]}/{name}", compression=None) as stream:
        stream.write(data)


def get(place: tuple[fs.FileSystem, str], name: str) -> bytes:
    with place[0].open_input_stream(f"{place[1]}/{name}", compression=None) as stream:
        return bytes(stream.read())


def names(place: tuple[fs.FileSystem, str], kind: str) -> list[str]:
    found = place[0].get_file_info(fs.FileSelector(place[1]))
    return sorted(info.base_name for info in found if info.base_name.startswith(kind))


def events(records: list[dict[str, Any]]) -> list[str]:
    return [record["event"] for record in records]


def test_records_come_back_under_every_run_and_by_every_address(
    place: tuple[fs.FileSystem, str], server: S3Server
) -> None:
    written: list[dict[str, Any]] = []
    for run in (1, 2, 3):
        journal = Journal.open(*place, SimulatedClock(unix=1.7e9))
        assert (journal.run, journal.replay.records) == (run, written)
        for step in range(6):
            written.append(journal.append({"event": f"{run}.{step}"}))
            if step % 2:
                journal.flush()
                assert read_journal(*place).records == written
        journal.close()
    by_address, _ = fs.FileSystem.from_uri(server.uri("sweeps"))
    assert read_journal(by_address, place[1]).records == written


def test_segments_rotate_and_snapshots_spare_reading(
    place: tuple[fs.FileSystem, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 600)
    monkeypatch.setattr(journal_module, "SEGMENTS_PER_SNAPSHOT", 4)
    count = [0]
    for _ in range(2):
        journal = Journal.open(*place, SimulatedClock())
        journal.set_snapshot(lambda: {"count": count[0]})
        for _ in range(40):
            count[0] = journal.append({"event": "step"})["number"]
            journal.flush()
        journal.close()
    replay, whole = read_journal(*place), read_journal(*place, from_start=True)
    assert replay.snapshot is not None
    assert replay.snapshot["count"] + len(replay.records) == replay.number == whole.number == 80
    assert replay.segments < whole.segments == len(names(place, "segment"))
    assert len(names(place, "snapshot")) >= 2


def test_a_lease_is_held_taken_over_and_released(place: tuple[fs.FileSystem, str]) -> None:
    clock = SimulatedClock()
    first = Journal.open(*place, clock, lease_seconds=30.0)
    first.append({"event": "a"})
    first.flush()
    watched = SimulatedClock()
    sleep = watched.sleep

    def beat_meanwhile(seconds: float) -> None:
        sleep(seconds)
        clock.advance(seconds)
        first.beat()

    watched.sleep = beat_meanwhile  # type: ignore[method-assign]
    with pytest.raises(JournalBusyError, match="Stop process"):
        Journal.open(*place, watched, lease_seconds=30.0)
    second = Journal.open(*place, SimulatedClock(), lease_seconds=30.0)
    assert events(second.replay.records) == ["a"]
    first.append({"event": "late"})
    clock.advance(2.0)
    with pytest.raises(LeaseLostError, match="Run 1 no longer owns"):
        first.flush()
    second.append({"event": "b"})
    second.close()
    lease = read_lease(*place)
    assert lease is not None
    assert (lease.run, lease.released, lease.first, lease.flushed) == (2, True, 2, 2)
    third = Journal.open(*place, SimulatedClock())
    assert events(third.replay.records) == ["a", "b"]
    third.close()


def test_of_several_that_open_at_once_one_goes_on(place: tuple[fs.FileSystem, str]) -> None:
    begin = threading.Barrier(3)
    outcomes: list[int | str] = []

    def contend() -> None:
        filesystem, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}")
        begin.wait()
        try:
            outcomes.append(Journal.open(filesystem, place[1], WallClock()).run)
        except JournalBusyError:
            outcomes.append("refused")

    contenders = [threading.Thread(target=contend) for _ in range(3)]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join()
    assert sorted(outcomes, key=str) == [1, "refused", "refused"]


def test_a_store_that_goes_away_loses_nothing_and_keeps_nobody_waiting(
    place: tuple[fs.FileSystem, str], server: S3Server
) -> None:
    journal = Journal.open(*place, SimulatedClock(unix=1.7e9))
    watch = StorageWatch(brief(place[0]), place[1], lambda: 0, SimulatedClock())
    written = [journal.append({"event": "before"})]
    journal.flush()
    assert watch.doubt() == ""
    server.stop()
    try:
        for step in range(2):
            written.append(journal.append({"event": f"meanwhile {step}"}))
            begun = time.monotonic()
            with pytest.raises(JournalWriteError, match=r"cannot be read or written: .* make it reachable again"):
                journal.flush()
            assert time.monotonic() - begun < SOON_SECONDS
        assert "cannot be written" in watch.doubt()
        with pytest.raises(JournalWriteError):
            journal.close()
    finally:
        server.start()
    assert events(read_journal(*place).records) == ["before"]
    journal.flush()
    assert watch.doubt() == ""
    written.append(journal.append({"event": "after"}))
    journal.close()
    assert read_journal(*place).records == written


def test_a_store_that_hangs_is_given_up_soon(place: tuple[fs.FileSystem, str], server: S3Server) -> None:
    journal = Journal.open(*place, SimulatedClock())
    written = [journal.append({"event": "a"})]
    server.stop()
    try:
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            silent.bind(("127.0.0.1", server.port))
            silent.listen(64)
            begun = time.monotonic()
            with pytest.raises(JournalWriteError):
                journal.flush()
            assert 1.0 < time.monotonic() - begun < SOON_SECONDS
    finally:
        server.start()
    journal.close()
    assert read_journal(*place).records == written


def test_a_store_that_is_away_at_the_start_is_said(server: S3Server, place: tuple[fs.FileSystem, str]) -> None:
    with pytest.raises(JournalWriteError, match=r"nobucket.*not found"):
        Journal.open(place[0], "nobucket/sweep/journal", SimulatedClock())


WRITE_AND_DIE = """
import os, sys
from pyarrow import fs
from schedulers.clock import WallClock
from schedulers.journal import Journal
filesystem, folder = fs.FileSystem.from_uri(sys.argv[1])
journal = Journal.open(filesystem, folder, WallClock())
for number in range(5):
    journal.append({"event": f"{number}"})
journal.flush()
journal.append({"event": "not flushed"})
os._exit(9)
"""


def test_a_writer_that_is_killed_has_written_what_it_flushed(
    place: tuple[fs.FileSystem, str], server: S3Server
) -> None:
    uri = server.uri(place[1].removeprefix(f"{BUCKET}/"))
    died = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, uri], cwd=ROOT, timeout=60, check=False)
    assert died.returncode == 9
    journal = Journal.open(*place, SimulatedClock())
    assert (journal.run, events(journal.replay.records)) == (2, ["0", "1", "2", "3", "4"])
    journal.close()


@pytest.fixture
def three_flushes(place: tuple[fs.FileSystem, str]) -> list[dict[str, Any]]:
    """A journal whose writer has died after three flushes of two records, none of which its lease tells of."""
    journal = Journal.open(*place, SimulatedClock())
    written = []
    for _ in range(3):
        written += [journal.append({"event": "a"}), journal.append({"event": "b"})]
        journal.flush()
    return written


def test_damaged_objects_give_a_prefix_or_an_error(
    place: tuple[fs.FileSystem, str], three_flushes: list[dict[str, Any]]
) -> None:
    segment = segment_name(1, 1)
    whole = get(place, segment)
    lines = whole.splitlines(keepends=True)
    put(place, segment, whole[:-20])
    assert read_journal(*place).records == three_flushes[:5], "the last write may be torn"
    put(place, segment, b"".join([*lines[:2], lines[2][:-9] + b"}\n", *lines[3:]]))
    with pytest.raises(JournalError, match=rf"{place[1]}/{segment}, line 3: record 3 is damaged.*backup"):
        read_journal(*place)
    put(place, segment, whole)
    clock = SimulatedClock()
    journal = Journal.open(*place, clock)
    journal.append({"event": "c"})
    journal.close()
    place[0].delete_file(f"{place[1]}/{segment_name(7, 2)}")
    with pytest.raises(JournalError, match="the file is missing, with which run 2 began to write records 7 to 7"):
        read_journal(*place)
    place[0].delete_file(f"{place[1]}/{lease_name(2)}")
    put(place, segment, b"")
    assert read_journal(*place).records == [], "nothing that is left says that there was more"
