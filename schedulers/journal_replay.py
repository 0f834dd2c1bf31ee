"""Reading a journal back: every record in order, or a clear error.

A segment holds one record a line, sealed (:mod:`schedulers.sealed_json`). Beside what :class:`~schedulers.journal.
Journal` documents, a line has "flushed": the number up to which records were durable when this one was appended.
What is read is unambiguous by four rules:

1. *Numbers* run from 1 without gap or repetition through all segments.
2. *A later run wins.* Where a run's first segment begins at number n, whatever earlier runs have written under n and
   above is void: a process that lost its lease may still have been writing. Every run begins a segment of its own,
   so nothing is ever appended behind a line that a crash has torn.
3. *Only the last write of the last run may be torn.* The newest segment ends before its first damaged line, unless a
   line behind that one says that the damaged record had been flushed. All else that is damaged is an error.
4. *What a lease says is there.* A lease names the records that its run had made durable when it was renewed: a file
   that is gone, or cut where no line shows it, is an error.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from schedulers.journal_folder import JournalFolder, NumberedFile, leased_runs, numbered_files, segment_name
from schedulers.lease import Lease, writers
from schedulers.sealed_json import is_intact, unseal, unseal_file

_logger = logging.getLogger(__name__)


class JournalError(ValueError):
    """A journal is damaged, or there is none."""


@dataclass(frozen=True)
class Replay:
    """What a journal says.

    Attributes:
        snapshot: The state at the newest valid snapshot; None if there is none, or it was not wanted.
        records: All records after the snapshot, in order.
        number: The number of the last record (that the snapshot covers, if there is none after it); 0 if there is none.
        segments: How many segments hold records after the snapshot.
    """

    snapshot: dict[str, Any] | None
    records: list[dict[str, Any]]
    number: int
    segments: int


@dataclass(frozen=True)
class _Segment:
    """A segment in its place: ``end`` is the number at which the next one begins (None: it is the newest), and
    ``rotated`` says that the next one is of the same run, so that this one was complete when it was left."""

    file: NumberedFile
    end: int | None
    rotated: bool


def read_journal(filesystem: fs.FileSystem, folder: str, from_start: bool = False) -> Replay:
    """Read a journal without owning it; safe while another process writes it.

    Args:
        filesystem: Where it is.
        folder: Its folder there.
        from_start: Give all records of the sweep rather than the newest snapshot and the records after it.

    Raises:
        JournalError: If there is no journal, or it is damaged; names file and line.
        OSError: If it cannot be read.
    """
    files = JournalFolder.at(filesystem, folder)
    names = files.names()
    if not any(numbered_files(names)) and not leased_runs(names):
        raise JournalError(f"There is no journal in {folder!r}: give the journal's folder in the folder of a sweep.")
    return replay(files, from_start)


def replay(folder: JournalFolder, from_start: bool) -> Replay:
    """As :func:`read_journal`, but a folder without a journal is an empty one."""
    # In this order: a run may go on writing meanwhile, and then says so.
    leases = writers(folder)
    segments, snapshots = numbered_files(folder.names())
    _check_runs(folder, segments, leases)
    chain = _chain(segments)
    number, state = 0, None
    if not from_start:
        number, state = _newest_snapshot(folder, segments, snapshots)
    rest = [segment for segment in chain if segment.end is None or segment.end > number + 1]
    first = rest[0].file.number if rest else number + 1
    if first > number + 1:
        raise _error(folder, rest[0].file.name, 1, f"records {number + 1} to {first - 1} are missing before it")
    records = [record for segment in rest for record in _read(folder, segment)]
    last = first + len(records) - 1
    if last < number:
        name = rest[-1].file.name if rest else "the last segment"
        raise _error(folder, name, last - first + 2, f"records {last + 1} to {number}, of a snapshot, are missing")
    durable = max((lease.flushed for lease in leases if chain and lease.run == chain[-1].file.run), default=0)
    if last < durable:
        line = last - chain[-1].file.number + 2
        raise _error(folder, chain[-1].file.name, line, f"records {last + 1} to {durable}, once durable, are missing")
    return Replay(state, records[number + 1 - first :], last, len(rest))


def _check_runs(folder: JournalFolder, segments: list[NumberedFile], leases: list[Lease]) -> None:
    """Without a run's first segment, what an earlier run has written in vain would count."""
    for lease in leases:
        name = segment_name(lease.first, lease.run)
        if all(file.name != name for file in segments):
            wrote = f"records {lease.first} to {lease.flushed}"
            raise _error(folder, name, 1, f"the file is missing, with which run {lease.run} began to write {wrote}")


def _chain(segments: list[NumberedFile]) -> list[_Segment]:
    """The segments that count, in order, without those that a later run has made void."""
    chain: list[_Segment] = []
    following: NumberedFile | None = None
    for file in reversed(segments):
        if following is None:
            chain.append(_Segment(file, None, False))
        elif file.number < following.number:
            chain.append(_Segment(file, following.number, file.run == following.run))
        else:
            continue
        following = file
    return chain[::-1]


def _newest_snapshot(
    folder: JournalFolder, segments: list[NumberedFile], snapshots: list[NumberedFile]
) -> tuple[int, dict[str, Any] | None]:
    """The number that the newest valid snapshot covers, and its state; (0, None) if there is none."""
    for file in sorted(snapshots, key=lambda file: file.number, reverse=True):
        if any(segment.run > file.run and segment.number <= file.number for segment in segments):
            continue
        fields = unseal_file(folder.read(file.name))
        whole = fields is not None and fields.keys() == {"number", "run", "state"}
        if fields is not None and whole and (fields["number"], fields["run"]) == (file.number, file.run):
            return file.number, fields["state"]
        _logger.warning("The snapshot %s is damaged; more of the journal is read instead.", folder.join(file.name))
    return 0, None


def _read(folder: JournalFolder, segment: _Segment) -> list[dict[str, Any]]:
    """The records of one segment that count."""
    name, begin, end = segment.file.name, segment.file.number, segment.end
    lines = (folder.read(name) or b"").split(b"\n")
    # What follows the last line feed is empty, or a line that was not finished.
    damaged = next((at for at, line in enumerate(lines[:-1]) if not is_intact(line)), len(lines) - 1)
    records = unseal(lines[:damaged])[: None if end is None else end - begin]
    for at, record in enumerate(records):
        if (record.get("number"), record.get("run")) != (begin + at, segment.file.run) or "flushed" not in record:
            found = f"record {record.get('number')} of run {record.get('run')}" if "flushed" in record else "no record"
            raise _error(folder, name, at + 1, f"it holds {found} instead of {begin + at} of {segment.file.run}")
        del record["crc"], record["flushed"]
    missing = begin + len(records)
    if end is not None and missing < end:
        raise _error(folder, name, damaged + 1, f"records {missing} to {end - 1} are missing or damaged")
    if segment.rotated and lines[len(records) :] != [b""]:
        raise _error(folder, name, len(records) + 1, f"something stands behind record {missing - 1}, its last")
    if end is None and any(line.get("flushed", 0) >= missing for line in unseal([*filter(is_intact, lines[damaged:])])):
        raise _error(folder, name, damaged + 1, f"record {missing} is damaged")
    return records


def _error(folder: JournalFolder, name: str, line: int, what: str) -> JournalError:
    return JournalError(
        f"The journal is damaged: {folder.join(name)}, line {line}: {what}. The accounts cannot be trusted without it: "
        "restore the file from a backup, or begin a new sweep in another folder."
    )
