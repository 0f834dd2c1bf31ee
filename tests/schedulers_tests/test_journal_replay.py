from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from schedulers import journal as journal_module
from schedulers.clock import SimulatedClock
from schedulers.journal import Journal, JournalError, read_journal
from schedulers.journal_folder import segment_name
from schedulers.sealed_json import seal

LOCAL = fs.LocalFileSystem()


def read(folder: Path) -> list[dict[str, Any]]:
    return read_journal(LOCAL, str(folder)).records


def line(number: int, run: int, flushed: int, **fields: object) -> bytes:
    return seal({"flushed": flushed, "number": number, "run": run, "time": 0.0, **fields})


def write(folder: Path, first: int, run: int, *lines: bytes) -> Path:
    path = folder / segment_name(first, run)
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture(scope="module")
def three_segments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[dict[str, Any]]]:
    """A journal of two runs: two segments of one and one of the other, flushed two records at a time.

    The second has not come to renew its lease, so that nothing but its segment says what it has written.
    """
    folder = tmp_path_factory.mktemp("three")
    clock = SimulatedClock(unix=1_700_000_000.0)
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module, "SEGMENT_BYTES", 420)
        for steps in (6, 4):
            journal = Journal.open(LOCAL, str(folder), clock)
            for step in range(steps):
                records.append(journal.append({"event": "grant", "step": step}))
                if step % 2:
                    journal.flush()
            if steps == 6:
                journal.close()
    segments = sorted(folder.glob("segment-*"))
    assert [path.name for path in segments] == [segment_name(1, 1), segment_name(5, 1), segment_name(7, 2)]
    return folder, segments, records


def test_a_cut_at_every_byte_gives_a_prefix_or_an_error(
    three_segments: tuple[Path, list[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, segments, records = three_segments
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for segment in segments:
        whole = segment.read_bytes()
        for size in range(len(whole)):
            (copy / segment.name).write_bytes(whole[:size])
            if segment is segments[-1]:
                assert read(copy) == records[: 6 + whole[:size].count(b"\n")]
            else:
                with pytest.raises(JournalError, match=segment.name):
                    read(copy)
        (copy / segment.name).write_bytes(whole)
    assert read(copy) == records


def test_a_flip_of_every_byte_gives_a_prefix_or_an_error(
    three_segments: tuple[Path, list[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, segments, records = three_segments
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    generator = random.Random(0)
    for segment in segments:
        whole = segment.read_bytes()
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= generator.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
            (copy / segment.name).write_bytes(damaged)
            lines = whole[:at].count(b"\n")
            if segment is segments[-1] and lines >= 2:
                # Only the last flush, of two lines, may be torn; what stands before the damage stays.
                assert read(copy) == records[: 6 + lines]
            else:
                with pytest.raises(JournalError, match=f"{segment.name}, line"):
                    read(copy)
        (copy / segment.name).write_bytes(whole)


def test_what_is_missing_is_an_error(
    three_segments: tuple[Path, list[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, segments, records = three_segments
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for segment, complaint in zip(segments, ["with which run 1 began", "records 5 to 6 are missing"], strict=False):
        shutil.move(copy / segment.name, tmp_path / "aside")
        with pytest.raises(JournalError, match=complaint):
            read(copy)
        shutil.move(tmp_path / "aside", copy / segment.name)
    assert read(copy) == records


@pytest.mark.parametrize("numbers", [[1, 1, 2], [1, 3], [2], [1, 2, 4, 3], [1, 2, 2]])
def test_numbers_without_order_are_an_error(tmp_path: Path, numbers: list[int]) -> None:
    path = write(tmp_path, 1, 1, *(line(number, 1, 0) for number in numbers))
    wrong = next(at for at, number in enumerate(numbers, 1) if at != number)
    with pytest.raises(JournalError, match=f"{path.name}, line {wrong}: it holds record {numbers[wrong - 1]}"):
        read(tmp_path)


def test_records_of_another_run_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, line(1, 2, 0))
    with pytest.raises(JournalError, match="record 1 of run 2"):
        read(tmp_path)


def test_a_segment_that_was_left_holds_nothing_more(tmp_path: Path) -> None:
    left = write(tmp_path, 1, 1, line(1, 1, 0), line(2, 1, 0))
    write(tmp_path, 2, 1, line(2, 1, 1))
    with pytest.raises(JournalError, match=f"{left.name}, line 2: something stands behind record 1"):
        read(tmp_path)


def test_a_torn_line_stays_behind_when_a_later_run_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, line(1, 1, 0), line(2, 1, 1)[:30])
    journal = Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    assert [record["number"] for record in journal.replay.records] == [1]
    journal.append({"event": "next"})
    journal.close()
    assert [(record["number"], record["run"]) for record in read(tmp_path)] == [(1, 1), (2, 2)]


def test_a_flush_torn_in_its_middle_ends_where_it_begins_to_be_damaged(tmp_path: Path) -> None:
    """Pages of one write may reach the disk in any order."""
    hole = b"\0" * 40
    write(tmp_path, 1, 1, line(1, 1, 0), hole + b"\n", line(3, 1, 1), line(4, 1, 1)[:-5])
    assert [record["number"] for record in read(tmp_path)] == [1]
    write(tmp_path, 1, 1, line(1, 1, 0), hole + b"\n", line(3, 1, 2))
    with pytest.raises(JournalError, match="line 2: record 2 is damaged"):
        read(tmp_path)


def test_what_an_overtaken_run_writes_is_void(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, line(1, 1, 0), line(2, 1, 0, event="late"), b"torn")
    write(tmp_path, 3, 1, line(3, 1, 2, event="later"))
    write(tmp_path, 2, 2, line(2, 2, 1), line(3, 2, 2))
    assert [(record["number"], record["run"]) for record in read(tmp_path)] == [(1, 1), (2, 2), (3, 2)]


def test_runs_that_wrote_nothing_whole_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, line(1, 1, 0))
    write(tmp_path, 2, 2)
    write(tmp_path, 2, 3, b'{"crc":"0000')
    assert [record["number"] for record in read(tmp_path)] == [1]
    write(tmp_path, 2, 4, line(2, 4, 1))
    assert [(record["number"], record["run"]) for record in read(tmp_path)] == [(1, 1), (2, 4)]


def test_the_snapshot_of_an_overtaken_run_is_void(tmp_path: Path) -> None:
    write(tmp_path, 1, 1, line(1, 1, 0), line(2, 1, 1, event="late"))
    (tmp_path / "snapshot-000000000002-run-0001.json").write_bytes(
        seal({"number": 2, "run": 1, "state": {"late": True}})
    )
    write(tmp_path, 2, 2, line(2, 2, 1))
    replay = read_journal(LOCAL, str(tmp_path))
    assert replay.snapshot is None
    assert [record["run"] for record in replay.records] == [1, 2]


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "segment-of-something.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(JournalError, match="There is no journal in"):
            read(folder)
    Journal.open(LOCAL, str(tmp_path), SimulatedClock())
    assert read(tmp_path) == []
