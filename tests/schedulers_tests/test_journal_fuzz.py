"""A journal's files with any bytes of any of them changed, added or gone: what was durable, in order, or an error."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from schedulers import journal as journal_module
from schedulers.clock import SimulatedClock
from schedulers.journal import Journal, JournalError, read_journal
from schedulers.journal_folder import lease_name, segment_name
from schedulers.journal_replay import Replay

LOCAL = fs.LocalFileSystem()


@dataclass(frozen=True)
class Written:
    """A journal whose last driver died: all that it holds, the bytes of its files, what must be found whatever else."""

    folder: Path
    records: list[dict[str, Any]]
    files: dict[str, bytes]
    last_flush: int
    vouched: int


def write(folder: Path, closed: bool) -> Written:
    """Three runs of several segments and a snapshot; the snapshot's state is the list of all records until then."""
    clock = SimulatedClock(unix=1.7e9)
    records: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT_BYTES", 700)
        patch.setattr(journal_module, "SEGMENTS_PER_SNAPSHOT", 3)
        for run in (1, 2, 3):
            clock.advance(100.0)
            journal = Journal.open(LOCAL, str(folder), clock)
            assert (journal.run, journal.replay.number) == (run, len(records))
            journal.set_snapshot(lambda: {"records": json.loads(json.dumps(records))})
            vouched = 0
            for step in range(16):
                records.append(journal.append({"event": "charge", "trial": f"t{step % 3}", "amount": step / 7}))
                if step % 2:
                    journal.flush()
                if step == 11:
                    clock.advance(10.0)
                    journal.beat()
                    vouched = len(records)
            if closed:
                journal.close()
                vouched = len(records)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.startswith("snapshot") for name in files) >= 2
    assert sum(name.startswith("segment") for name in files) >= 9
    return Written(folder, records, files, 2, vouched)


@pytest.fixture(scope="module", params=["closed", "crashed"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(tmp_path_factory.mktemp("journal"), request.param == "closed")


@pytest.fixture(scope="module")
def copy(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "journal"
    shutil.copytree(written.folder, folder)
    return folder


def whole(replay: Replay) -> list[dict[str, Any]]:
    """All records, those that a snapshot covers among them."""
    return [*(replay.snapshot or {"records": []})["records"], *replay.records]


POSITION = st.floats(0.0, 1.0, exclude_max=True)
BYTES = st.binary(min_size=1, max_size=80)
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), POSITION, st.integers(1, 255)),
    st.tuples(st.just("insert"), POSITION, BYTES | st.just(b"\n")),
    st.tuples(st.just("overwrite"), POSITION, BYTES),
    st.tuples(st.just("zero"), POSITION, st.integers(1, 300)),
    st.tuples(st.just("cut out"), POSITION, st.integers(1, 300)),
    st.tuples(st.just("cut off"), POSITION, st.none()),
    st.tuples(st.just("append"), st.none(), BYTES),
    st.tuples(st.just("copy a line"), POSITION, POSITION),
    st.tuples(st.just("delete"), st.none(), st.none()),
    st.tuples(st.just("swap"), st.none(), POSITION),
    st.tuples(st.just("be another"), st.none(), POSITION),
)


def damage(files: dict[str, bytes], name: str, what: str, where: Any, how: Any) -> None:
    """One kind of damage to one file; to another one too if they are swapped."""
    data, names = files[name], sorted(files)
    at = int((where or 0.0) * len(data))
    match what:
        case "flip" if data:
            files[name] = data[:at] + bytes([data[at] ^ how]) + data[at + 1 :]
        case "insert":
            files[name] = data[:at] + how + data[at:]
        case "overwrite":
            files[name] = data[:at] + how + data[at + len(how) :]
        case "zero":
            files[name] = data[:at] + bytes(len(data[at : at + how])) + data[at + how :]
        case "cut out":
            files[name] = data[:at] + data[at + how :]
        case "cut off":
            files[name] = data[:at]
        case "append":
            files[name] = data + how
        case "copy a line":
            lines = data.splitlines(keepends=True)
            lines.insert(int(where * len(lines)), (lines or [b"\n"])[int(how * len(lines))])
            files[name] = b"".join(lines)
        case "delete":
            del files[name]
        case "swap":
            other = names[int(how * len(names))]
            files[name], files[other] = files[other], data
        case "be another":
            files[name] = files[names[int(how * len(names))]]


def put(folder: Path, files: dict[str, bytes]) -> None:
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in there.keys() - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        if there.get(name) != data:
            (folder / name).write_bytes(data)


@settings(max_examples=250, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_any_damage_gives_what_was_durable_or_an_error(
    written: Written, copy: Path, data: st.DataObject, times: int
) -> None:
    files = dict(written.files)
    for _ in range(times):
        name = data.draw(st.sampled_from(sorted(files)))
        damage(files, name, *data.draw(DAMAGE))
    put(copy, files)
    leases = {name for name in written.files if name.startswith("lease")}
    vouched = written.vouched if all(files.get(name) == written.files[name] for name in leases) else 0
    for from_start in (True, False):
        try:
            found = whole(read_journal(LOCAL, str(copy), from_start))
        except JournalError as error:
            assert_helpful(str(error), copy)
            continue
        assert found == written.records[: len(found)], "never other records than were written"
        assert len(found) >= vouched, "what a lease vouches for is not lost in silence"
        if files == written.files:
            assert len(found) == len(written.records)


def assert_helpful(told: str, folder: Path) -> None:
    if "There is no journal" in told:
        assert not any(path.name.startswith(("segment", "snapshot", "lease")) for path in folder.iterdir())
        return
    assert f"{folder}/segment-" in told
    assert ", line " in told
    assert "restore the file from a backup" in told


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_done_to_the_newest_segment_only_its_last_write_may_be_gone(
    written: Written, copy: Path, data: st.DataObject
) -> None:
    """The lease vouches for what was there at its renewal, each line for what was durable before it."""
    newest = max(name for name in written.files if name.startswith("segment"))
    files = dict(written.files)
    kind = DAMAGE.filter(lambda drawn: drawn[0] in ("flip", "zero", "overwrite"))
    damage(files, newest, *data.draw(kind))
    put(copy, files)
    try:
        found = whole(read_journal(LOCAL, str(copy)))
    except JournalError as error:
        told = str(error)
    else:
        told = ""
    assert newest in told or found == written.records[: len(found)]
    assert told or len(found) >= len(written.records) - written.last_flush
    assert told or len(found) >= written.vouched


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_run_goes_on_from_whatever_is_read(written: Written, copy: Path, data: st.DataObject) -> None:
    """What a driver is told when it opens is what it builds on: records that it was not told of stay void."""
    files = dict(written.files)
    damage(files, max(name for name in files if name.startswith("segment")), *data.draw(DAMAGE))
    put(copy, files)
    clock = SimulatedClock()
    try:
        journal = Journal.open(LOCAL, str(copy), clock)
    except JournalError:
        return
    known = whole(journal.replay)
    added = [journal.append({"event": "next"}) for _ in range(5)]
    journal.close()
    assert known == written.records[: len(known)]
    assert whole(read_journal(LOCAL, str(copy))) == [*known, *added]
    assert read_journal(LOCAL, str(copy), from_start=True).number == len(known) + 5


def overtaken(folder: Path) -> list[dict[str, Any]]:
    """A journal in which each of two runs has written on after the next one had begun; what counts of it."""
    clock = SimulatedClock()
    journals: list[Journal] = []
    counted: list[dict[str, Any]] = []
    for run in (1, 2, 3):
        clock.advance(100.0)
        journals.append(Journal.open(LOCAL, str(folder), clock))
        for step in range(2):
            counted.append(journals[-1].append({"event": f"{run}.{step}"}))
        journals[-1].flush()
    for late in journals[:2]:
        segment = folder / segment_name(1 + 2 * (late.run - 1), late.run)
        late.append({"event": "late"})
        late.append({"event": "late"})
        late.append({"event": "late"})
        late.append({"event": "late"})
        segment.write_bytes(segment.read_bytes() + b"".join(late._lines))
    clock.advance(100.0)
    journals[-1].close()
    return counted


def test_what_was_written_in_vain_does_not_come_back_if_the_run_that_counts_is_gone(tmp_path: Path) -> None:
    counted = overtaken(tmp_path)
    assert read_journal(LOCAL, str(tmp_path)).records == counted
    newest = tmp_path / segment_name(5, 3)
    kept = newest.read_bytes()
    newest.unlink()
    with pytest.raises(JournalError, match=f"{newest.name}, line 1: the file is missing, with which run 3 began"):
        read_journal(LOCAL, str(tmp_path))
    newest.write_bytes(kept.splitlines(keepends=True)[0])
    with pytest.raises(JournalError, match=f"{newest.name}, line 2: records 6 to 6, once durable, are missing"):
        read_journal(LOCAL, str(tmp_path))


def test_a_lease_that_is_gone_or_of_an_earlier_version_vouches_for_nothing(written: Written, copy: Path) -> None:
    for lease in (b"", b"rubbish\n", None):
        files = dict(written.files)
        if lease is None:
            del files[lease_name(3)]
        else:
            files[lease_name(3)] = lease
        put(copy, files)
        assert whole(read_journal(LOCAL, str(copy))) == written.records
