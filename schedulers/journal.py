"""The durable record of everything that happened to a sweep, and the only truth after a crash.

Numbered segments of sealed JSON lines in one folder; :mod:`schedulers.journal_folder` says how the files are named and
made durable, :mod:`schedulers.journal_replay` how they are read, :mod:`schedulers.lease` who may write them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate, takewhile
from typing import Any

from pyarrow import fs

from schedulers.clock import Clock
from schedulers.journal_folder import JournalFolder, segment_name, snapshot_name
from schedulers.journal_replay import JournalError, Replay, read_journal, replay
from schedulers.lease import HeldLease, JournalBusyError, Lease, LeaseLostError, read_lease
from schedulers.sealed_json import seal, unseal

__all__ = [
    "Journal",
    "JournalBusyError",
    "JournalError",
    "JournalWriteError",
    "Lease",
    "LeaseLostError",
    "Replay",
    "read_journal",
    "read_lease",
]

_logger = logging.getLogger(__name__)

SEGMENT_BYTES = 256_000
SEGMENTS_PER_SNAPSHOT = 50

_OWN_FIELDS = ("crc", "flushed", "number", "run", "time")


class JournalWriteError(OSError):
    """The journal cannot be written now; what was appended is kept in memory and a later flush may succeed."""


class Journal:
    """The journal as its one writer sees it; made by :meth:`open`. Not for several threads.

    Attributes:
        run: The number of this run, from 1.
        replay: What the journal said when it was opened.
    """

    def __init__(self, folder: JournalFolder, clock: Clock, lease: HeldLease, replay: Replay) -> None:
        self.run = lease.run
        self.replay = replay
        self._folder = folder
        self._clock = clock
        self._lease = lease
        self._lines: list[bytes] = []
        self._flushed = replay.number
        self._segment = b""
        self._segment_name = ""
        self._segments = replay.segments
        self._take_snapshot: Callable[[], Mapping[str, Any]] | None = None
        self._closed = False

    @classmethod
    def open(cls, filesystem: fs.FileSystem, folder: str, clock: Clock, lease_seconds: float = 30.0) -> Journal:
        """Own a journal, new or old, as its next run; returns once no other process does.

        Args:
            filesystem: Where it is; on a local one (NFS included) it is appended to and synced, every other is taken
                for an object store, where objects are put whole.
            folder: Its folder there, made if need be.
            clock: What dates the records and measures the lease.
            lease_seconds: How long another run's lease must be seen unchanged before it is taken over; one that was
                released, or whose process died on this host, is taken at once.

        Raises:
            JournalBusyError: If another process is writing the journal.
            JournalError: If it is damaged; names file and line.
            JournalWriteError: If the folder cannot be read or written.
            ValueError: If ``lease_seconds`` is not finite and above 0.
        """
        files = JournalFolder.at(filesystem, folder)
        with _write_errors(files):
            files.create()
            lease = HeldLease.take(files, clock, lease_seconds)
            try:
                # Only now: once this run writes, whatever the run before it still adds is void.
                known = replay(files, from_start=False)
            except BaseException:
                lease.release()
                raise
            files.hurry()
            return cls(files, clock, lease, known)

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Add a record; durable only after :meth:`flush`.

        Args:
            record: Fields of JSON's types. The journal adds "number" (1, 2, ... over the whole journal), "run" and
                "time" (unix seconds); "crc" and "flushed" are also its own.

        Returns:
            The record just as a replay will give it.

        Raises:
            ValueError: If a field is one of the journal's own, or a value is not of JSON's types.
        """
        assert not self._closed, "a closed journal takes no records"
        taken = [name for name in _OWN_FIELDS if name in record]
        if taken:
            raise ValueError(f"A record may not have the fields {taken}: the journal sets {list(_OWN_FIELDS)} itself.")
        number = self._flushed + len(self._lines) + 1
        own = {"flushed": self._flushed, "number": number, "run": self.run, "time": self._clock.time()}
        try:
            line = seal({**own, **record})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The record {dict(record)!r} cannot be written as JSON ({error}): "
                "give numbers, strings, lists and dicts."
            ) from error
        self._lines.append(line)
        completed = unseal([line])[0]
        del completed["crc"], completed["flushed"]
        return completed

    def flush(self) -> None:
        """Make everything that was appended durable.

        Raises:
            JournalWriteError: If that fails (disk full, folder gone). Nothing is lost: the records that are not
                durable are kept, and written by the next flush that succeeds.
            LeaseLostError: If another run has taken the journal.
        """
        assert not self._closed, "a closed journal cannot be flushed"
        if not self._lines:
            return
        segments = self._segments
        with _write_errors(self._folder):
            self._lease.check()
            while self._lines:
                self._write_segment()
        if self._segments > max(segments, SEGMENTS_PER_SNAPSHOT):
            self._write_snapshot()

    def beat(self) -> None:
        """Show that this run is alive; to be called often, as it does nothing until a tenth of the lease has passed.

        Raises:
            JournalWriteError: If the lease cannot be renewed.
            LeaseLostError: If another run has taken the journal.
        """
        assert not self._closed, "a closed journal has no lease"
        with _write_errors(self._folder):
            self._lease.beat()

    def set_snapshot(self, take_snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Let snapshots be written, one after every 50 full segments, so that a replay need not read them.

        Args:
            take_snapshot: Called within a flush; gives, in JSON's types, the state after all records appended so far.
        """
        self._take_snapshot = take_snapshot

    def close(self) -> None:
        """Flush, and let the next run begin at once; a second call does nothing.

        Raises:
            JournalWriteError: If either fails; may be called again.
            LeaseLostError: If another run has taken the journal while records were waiting.
        """
        if self._closed:
            return
        self.flush()
        with _write_errors(self._folder):
            self._lease.release()
        self._closed = True

    def _write_segment(self) -> None:
        """Make durable as many of the waiting lines as the open segment, or else a new one, takes."""
        if len(self._segment) + len(self._lines[0]) > SEGMENT_BYTES:
            self._segment = b""
        if not self._segment:
            self._segment_name = segment_name(self._flushed + 1, self.run)
        sizes = accumulate(map(len, self._lines), initial=len(self._segment))
        # A line too long for any segment gets one for itself.
        count = max(1, sum(1 for _ in takewhile(lambda size: size <= SEGMENT_BYTES, sizes)) - 1)
        whole = self._segment + b"".join(self._lines[:count])
        self._folder.extend(self._segment_name, whole, done=len(self._segment))
        self._segments += not self._segment
        self._segment = whole
        self._flushed += count
        self._lease.wrote(self.replay.number + 1, self._flushed)
        del self._lines[:count]

    def _write_snapshot(self) -> None:
        if self._take_snapshot is None:
            return
        state = self._take_snapshot()
        assert not self._lines, "taking a snapshot appended records, which it cannot cover"
        sealed = seal({"number": self._flushed, "run": self.run, "state": state})
        try:
            self._folder.replace(snapshot_name(self._flushed, self.run), sealed)
            self._segments = 1
        except OSError as error:
            # The records are durable and a snapshot only spares reading them: the next full segment tries again.
            _logger.warning("No snapshot of the journal in %s was written: %s", self._folder.path, error)


@contextmanager
def _write_errors(folder: JournalFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalWriteError(
            f"The journal in {folder.path} cannot be read or written: {error}. Make room there, or make it reachable "
            "again; what was appended is kept in memory until then."
        ) from error
