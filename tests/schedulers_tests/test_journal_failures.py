from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from pyarrow import fs

from schedulers.clock import SimulatedClock
from schedulers.journal import Journal, JournalError, JournalWriteError, read_journal, read_lease

ROOT = Path(__file__).parents[2]
LOCAL = fs.LocalFileSystem()


def events(records: list[dict[str, Any]]) -> list[Any]:
    return [record["event"] for record in records]


@pytest.fixture
def moved_away(tmp_path: Path) -> Callable[[], None]:
    """Moves the journal's folder away, and back at the next call."""
    here, there = tmp_path / "journal", tmp_path / "elsewhere"

    def toggle() -> None:
        source, target = (here, there) if here.exists() else (there, here)
        shutil.move(source, target)

    return toggle


def test_a_failed_flush_loses_nothing(tmp_path: Path, moved_away: Callable[[], None]) -> None:
    folder = str(tmp_path / "journal")
    journal = Journal.open(LOCAL, folder, SimulatedClock())
    for text in ("a", "b"):
        journal.append({"event": text})
        moved_away()
        for _ in range(2):
            with pytest.raises(JournalWriteError, match=folder):
                journal.flush()
        moved_away()
        journal.flush()
    journal.append({"event": "c"})
    moved_away()
    with pytest.raises(JournalWriteError, match="No such file"):
        journal.close()
    moved_away()
    journal.close()
    journal.close()
    assert events(read_journal(LOCAL, folder).records) == ["a", "b", "c"]
    lease = read_lease(LOCAL, folder)
    assert lease is not None
    assert lease.released


def test_a_segment_that_lost_its_beginning_is_not_written_on(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    journal.append({"event": "a"})
    journal.flush()
    (segment,) = tmp_path.glob("segment-*")
    whole = segment.read_bytes()
    journal.append({"event": "b"})
    segment.write_bytes(whole[:10])
    with pytest.raises(JournalWriteError, match="10 are left"):
        journal.flush()
    segment.unlink()
    with pytest.raises(JournalWriteError, match="No such file"):
        journal.flush()
    segment.write_bytes(whole + b'{"crc":"rubbish of a failed write')
    journal.flush()
    assert events(read_journal(LOCAL, str(tmp_path)).records) == ["a", "b"]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


FULL_DISK = """
import resource, sys
from pyarrow import fs
from schedulers.clock import WallClock
from schedulers.journal import Journal, JournalWriteError, read_journal
place = fs.LocalFileSystem(), sys.argv[1]
journal = Journal.open(*place, WallClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
flushed = 0
try:
    while True:
        for _ in range(7):
            journal.append({"event": "x" * 100})
        journal.flush()
        flushed += 7
except JournalWriteError as error:
    assert "File too large" in str(error), error
for _ in range(2):
    journal.append({"event": "kept"})
    try:
        journal.flush()
        raise SystemExit("a flush beyond the limit succeeded")
    except JournalWriteError:
        pass
torn = read_journal(*place)
assert flushed <= torn.number < flushed + 7, (flushed, torn.number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append({"event": "last"})
if sys.argv[2] == "flush":
    journal.flush()
    assert read_journal(*place).number == flushed + 10
"""


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    done = run_python(FULL_DISK, str(tmp_path), "flush")
    assert done.returncode == 0, done.stderr
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    assert events(journal.replay.records)[-3:] == ["kept", "kept", "last"]


def test_a_writer_that_dies_on_a_full_disk_leaves_a_journal_that_goes_on(tmp_path: Path) -> None:
    done = run_python(FULL_DISK, str(tmp_path), "die")
    assert done.returncode == 0, done.stderr
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    kept = journal.replay.records
    written = journal.append({"event": "next"})
    journal.close()
    assert read_journal(LOCAL, str(tmp_path)).records == [*kept, written]


def test_a_failed_put_loses_nothing() -> None:
    fsspec = pytest.importorskip("fsspec")
    place = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("memory"))), "failed-put/journal"
    journal = Journal.open(*place, SimulatedClock())
    journal.append({"event": "a"})
    journal.flush()
    journal.append({"event": "b"})

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("503 Slow Down")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(place[0].handler.fs), "open", refuse)  # memory never fails by itself
        with pytest.raises(JournalWriteError, match="503 Slow Down"):
            journal.flush()
    journal.flush()
    assert events(read_journal(*place).records) == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalWriteError, match="file/journal"):
        Journal.open(LOCAL, str(tmp_path / "file" / "journal"), SimulatedClock())


def test_a_damaged_journal_is_not_opened_and_its_lease_released(tmp_path: Path) -> None:
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    for text in ("a", "b"):
        journal.append({"event": text})
        journal.flush()
    journal.close()
    (segment,) = tmp_path.glob("segment-*")
    segment.write_bytes(b" " + segment.read_bytes())
    for _ in range(2):
        with pytest.raises(JournalError, match=f"{segment.name}, line 1: record 1 is damaged"):
            Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    lease = read_lease(LOCAL, str(tmp_path))
    assert lease is not None
    assert lease.released


@pytest.mark.parametrize("times", [1, 5, 6])
def test_a_file_that_another_host_replaces_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As NFS tells it: reading what was opened before fails, and whoever opens again finds the new file."""
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    journal.append({"event": "a"})
    journal.close()
    open_file = open
    failed: list[str] = []

    def stale(path: str, mode: str = "r") -> IO[Any]:
        if len(failed) < times:
            failed.append(path)
            raise OSError(errno.ESTALE, "Stale file handle", path)
        return open_file(path, mode)

    monkeypatch.setattr("builtins.open", stale)
    if times < 6:
        assert events(read_journal(LOCAL, str(tmp_path)).records) == ["a"]
    else:
        with pytest.raises(OSError, match="Stale file handle"):
            read_journal(LOCAL, str(tmp_path))
    assert len(failed) == times
