from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from schedulers import journal as journal_module
from schedulers.clock import SimulatedClock
from schedulers.journal import (
    Journal,
    JournalError,
    JournalWriteError,
    LeaseLostError,
    read_journal,
)

LOCAL = fs.LocalFileSystem()


def memory_filesystem() -> tuple[fs.FileSystem, str]:
    """fsspec's memory, which is one for all tests, and a folder of the test's own."""
    fsspec = pytest.importorskip("fsspec")
    return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("memory"))), f"{uuid.uuid4().hex}/journal"


@pytest.fixture(params=["local", "subtree of local", "mock store", "fsspec store", "subtree of store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[fs.FileSystem, str]:
    if request.param == "local":
        return LOCAL, str(tmp_path / "sweep" / "journal")
    if request.param == "subtree of local":
        return fs.SubTreeFileSystem(str(tmp_path), LOCAL), "sweep/journal"
    if request.param == "mock store":
        return fs._MockFileSystem(), "sweep/journal"
    if request.param == "fsspec store":
        return memory_filesystem()
    return fs.SubTreeFileSystem("sweep", fs._MockFileSystem()), "journal"


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 400)
    monkeypatch.setattr(journal_module, "SEGMENTS_PER_SNAPSHOT", 5)


def events(records: list[dict[str, Any]]) -> list[Any]:
    return [record["event"] for record in records]


def test_records_come_back_in_order_under_every_run(place: tuple[fs.FileSystem, str]) -> None:
    clock = SimulatedClock(unix=1_700_000_000.0)
    written: list[dict[str, Any]] = []
    for run in (1, 2, 3):
        journal = Journal.open(*place, clock)
        assert journal.run == run
        assert journal.replay.records == written
        for step in range(4):
            clock.advance(1.0)
            written.append(journal.append({"event": f"{run}.{step}"}))
            if step % 2:
                journal.flush()
        journal.close()
    replay = read_journal(*place)
    assert replay.records == written
    assert [record["number"] for record in written] == list(range(1, 13))
    assert [record["run"] for record in written] == [1] * 4 + [2] * 4 + [3] * 4
    assert written[0]["time"] == pytest.approx(1_700_000_001.0, abs=10.0)
    assert (replay.snapshot, replay.number) == (None, 12)


def test_only_flushed_records_are_read(place: tuple[fs.FileSystem, str]) -> None:
    journal = Journal.open(*place, SimulatedClock())
    assert read_journal(*place).records == []
    journal.append({"event": "a"})
    journal.flush()
    journal.append({"event": "b"})
    assert events(read_journal(*place).records) == ["a"]
    journal.flush()
    journal.flush()
    assert events(read_journal(*place).records) == ["a", "b"]


def test_an_append_returns_what_a_replay_will_give(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    nested = {"pair": (1, 2), "by_layer": {3: "conv3x5"}, "name": "λ\n\r\u2028\ud800", "huge": 1e300, "none": None}
    completed = journal.append({"event": "report", "metrics": nested, "value": math.nan})
    nested["pair"] = (0, 0)
    journal.flush()
    (read,) = read_journal(LOCAL, str(tmp_path)).records
    assert math.isnan(read.pop("value"))
    assert math.isnan(completed.pop("value"))
    assert read == completed
    assert read["metrics"]["pair"] == [1, 2]
    assert set(read) == {"event", "metrics", "number", "run", "time"}


@pytest.mark.parametrize("field", ["number", "time", "run", "crc", "flushed"])
def test_the_journals_own_fields_are_refused(tmp_path: Path, field: str) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    with pytest.raises(ValueError, match=field):
        journal.append({"event": "a", field: 1})


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_what_is_not_json_is_refused_and_leaves_no_trace(tmp_path: Path, value: object) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        journal.append({"event": "a", "value": value})
    journal.append({"event": "b"})
    journal.close()
    assert [record["number"] for record in read_journal(LOCAL, str(tmp_path)).records] == [1]


def test_every_line_is_plain_json(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    journal.append({"event": "λ"})
    journal.close()
    (segment,) = tmp_path.glob("segment-*.jsonl")
    (line,) = segment.read_text(encoding="ascii").splitlines()
    assert json.loads(line)["event"] == "λ"


def test_segments_stay_below_256_kilobytes(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    for _ in range(3):
        for number in range(1_500):
            journal.append({"event": "report", "text": "x" * (number % 200)})
        journal.flush()
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("segment-*"))]
    assert len(sizes) > 3
    assert max(sizes) <= 256_000
    assert min(sizes[:-1]) > 250_000
    assert read_journal(LOCAL, str(tmp_path)).number == 4_500


def test_a_record_too_long_for_a_segment_gets_its_own(place: tuple[fs.FileSystem, str]) -> None:
    journal = Journal.open(*place, SimulatedClock())
    for text in ("a", "b" * 300_000, "c"):
        journal.append({"event": text})
    journal.close()
    assert events(read_journal(*place).records) == ["a", "b" * 300_000, "c"]
    assert sum(info.base_name.startswith("segment") for info in place[0].get_file_info(fs.FileSelector(place[1]))) == 3


def counting(journal: Journal) -> Callable[[], None]:
    """Append-and-flush of a journal whose state is how many records there are."""
    snapshot = journal.replay.snapshot or {"count": 0}
    count = [snapshot["count"] + len(journal.replay.records)]

    def step() -> None:
        count[0] = journal.append({"event": "step"})["number"]
        journal.flush()

    journal.set_snapshot(lambda: {"count": count[0]})
    return step


def names(place: tuple[fs.FileSystem, str], kind: str) -> list[str]:
    found = place[0].get_file_info(fs.FileSelector(place[1]))
    return sorted(info.base_name for info in found if info.base_name.startswith(kind))


@pytest.mark.usefixtures("small_segments")
def test_snapshots_spare_reading_and_change_nothing(place: tuple[fs.FileSystem, str]) -> None:
    for run in range(1, 5):
        journal = Journal.open(*place, SimulatedClock())
        step = counting(journal)
        for _ in range(20 * run):
            step()
        journal.close()
    replay = read_journal(*place)
    whole = read_journal(*place, from_start=True)
    assert replay.snapshot is not None
    assert replay.snapshot["count"] + len(replay.records) == replay.number == whole.number == 200
    assert whole.snapshot is None
    assert whole.records[replay.snapshot["count"] :] == replay.records
    assert replay.segments <= 7 < whole.segments
    assert len(names(place, "snapshot")) == pytest.approx(whole.segments / 5, abs=3)
    assert not names(place, "lease-0001.json.tmp")


@pytest.mark.usefixtures("small_segments")
def test_damaged_snapshots_are_ignored(tmp_path: Path) -> None:
    place = (LOCAL, str(tmp_path))
    journal = Journal.open(*place, SimulatedClock())
    step = counting(journal)
    for _ in range(100):
        step()
    journal.close()
    snapshots = sorted(tmp_path.glob("snapshot-*"), reverse=True)
    assert len(snapshots) > 2
    before = read_journal(*place)
    for path in snapshots:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        replay = read_journal(*place)
        assert replay.segments > before.segments
        assert (replay.snapshot or {"count": 0})["count"] + len(replay.records) == 100
        before = replay
    assert before.snapshot is None
    assert Journal.open(*place, SimulatedClock()).replay == before


@pytest.mark.usefixtures("small_segments")
def test_a_snapshot_of_records_that_are_gone_is_an_error(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    step = counting(journal)
    while not list(tmp_path.glob("snapshot-*")):
        step()
    journal.close()
    newest = max(tmp_path.glob("segment-*"))
    newest.write_bytes(b"")
    with pytest.raises(JournalError, match=f"{newest.name}.* of a snapshot, are missing"):
        read_journal(LOCAL, str(tmp_path))


@pytest.mark.usefixtures("small_segments")
def test_a_snapshot_that_cannot_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    step = counting(journal)
    os_replace = os.replace

    def refuse(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(os, "replace", refuse)
    while "No snapshot" not in caplog.text:
        step()
    monkeypatch.setattr(os, "replace", os_replace)
    segments = len(list(tmp_path.glob("segment-*")))
    assert not list(tmp_path.glob("snapshot-*.json"))
    while not list(tmp_path.glob("snapshot-*.json")):
        step()
    assert len(list(tmp_path.glob("segment-*"))) == segments + 1


def test_a_flush_finds_out_that_the_lease_is_lost(place: tuple[fs.FileSystem, str]) -> None:
    clock = SimulatedClock()
    first = Journal.open(*place, clock, lease_seconds=30.0)
    first.append({"event": "a"})
    first.flush()
    clock.advance(3_600.0)
    second = Journal.open(*place, clock, lease_seconds=30.0)
    assert events(second.replay.records) == ["a"]
    first.append({"event": "late"})
    with pytest.raises(LeaseLostError, match="Run 1 no longer owns"):
        first.flush()
    with pytest.raises(LeaseLostError, match="Run 2 "):
        first.close()
    with pytest.raises(LeaseLostError):
        first.beat()
    second.append({"event": "b"})
    second.close()
    assert events(read_journal(*place).records) == ["a", "b"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["append", "flush", "fail"]), st.integers(0, 300)))),
    st.sampled_from(["disk", "store"]),
)
def test_what_was_flushed_is_read_whatever_happened(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, int]]], kind: str
) -> None:
    """Runs that end by crash: all that was flushed is there, and what else there is was appended, in order."""
    base = tmp_path_factory.mktemp("any")
    place = (LOCAL, str(base / "journal")) if kind == "disk" else (fs._MockFileSystem(), "journal")
    clock = SimulatedClock()
    known: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT_BYTES", 500)
        for steps in runs:
            clock.advance(100.0)
            journal = Journal.open(*place, clock)
            assert journal.replay.records == known
            waiting: list[dict[str, Any]] = []
            for action, size in steps:
                if action == "append":
                    waiting.append(journal.append({"event": "x" * size}))
                elif action == "flush":
                    journal.flush()
                    known, waiting = known + waiting, []
                elif kind == "disk" and waiting:
                    (base / "journal").rename(base / "elsewhere")
                    with pytest.raises(JournalWriteError):
                        journal.flush()
                    (base / "elsewhere").rename(base / "journal")
                assert read_journal(*place).records == known
