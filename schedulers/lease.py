"""The lease that lets one process at a time write a journal, and gives each such run its number.

A run takes the lease by making ``lease-<run>.json``, under the next number; on a disk the file is made exclusively, so
that one of several wins. It renews only its own lease, so no delayed write can undo a later run's. A run is over as
soon as there is a lease with a higher number; it looks for one before it writes.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from pyarrow import fs

from schedulers.clock import Clock
from schedulers.journal_folder import JournalFolder, lease_name, leased_runs, numbered_files
from schedulers.process import boot_id, is_running, start_ticks
from schedulers.sealed_json import seal, unseal_file

_logger = logging.getLogger(__name__)

_BEATS_PER_LEASE = 10
_POLLS_PER_LEASE = 60
_CHECK_SECONDS = 1.0
_SETTLE_SECONDS = 2.0


class JournalBusyError(ValueError):
    """Another process is writing the journal."""


class LeaseLostError(RuntimeError):
    """Another run has taken the journal: this one must stop what it has started and leave."""


@dataclass(frozen=True)
class Lease:
    """Who writes, or last wrote, a journal.

    Attributes:
        run: The run's number, from 1.
        host: The host's name.
        boot_id: The boot and the namespace under which ``pid`` means something; empty if unknown.
        pid: The process.
        started_ticks: When the process started, in ticks since boot; None if unknown.
        heartbeat: How often the lease has been renewed.
        time: Unix seconds of the last renewal, by the holder's clock.
        released: Whether the holder has closed the journal.
        token: Tells apart two processes that believe to be the same run.
        first: The number of the first record that the run has written; 0 as long as there is none.
        flushed: The number of the last one that was durable when the lease was renewed; a replay must find it.
    """

    run: int
    host: str
    boot_id: str
    pid: int
    started_ticks: int | None
    heartbeat: int
    time: float
    released: bool
    token: str
    first: int = 0
    flushed: int = 0

    def alive(self, now: float, lease_seconds: float = 30.0) -> bool:
        """Whether the holder seems to be at work.

        Certain if the holder runs, or ran, on this host and boot. Elsewhere a lease renewed less than ``lease_seconds``
        before ``now`` (unix seconds, by this host's clock) counts as alive: a clock that is wrong misleads it.
        """
        if self.released:
            return False
        if self._is_here():
            return is_running(self.pid, self.started_ticks)
        return now - self.time < lease_seconds

    def is_free(self) -> bool:
        """Whether the lease may be taken at once: released, or its holder is a dead process of this host and boot."""
        return self.released or (self._is_here() and not is_running(self.pid, self.started_ticks))

    def is_held(self) -> bool:
        """Whether the holder is certainly at work: its process runs on this host."""
        return not self.released and self._is_here() and is_running(self.pid, self.started_ticks)

    def _is_here(self) -> bool:
        return self.boot_id != "" and (self.host, self.boot_id) == (socket.gethostname(), boot_id())


def read_lease(filesystem: fs.FileSystem, folder: str) -> Lease | None:
    """The newest lease of a journal; None if no run has ever opened one there."""
    return next(_leases(JournalFolder.at(filesystem, folder)), None)


def writers(folder: JournalFolder) -> list[Lease]:
    """The leases of all runs that say that they have written records, the newest first."""
    return [lease for lease in _leases(folder) if lease.first]


def _leases(folder: JournalFolder) -> Iterator[Lease]:
    """The leases that can be read, the newest first."""
    for run in reversed(leased_runs(folder.names())):
        lease = _parse(folder.read(lease_name(run)))
        if lease is not None and lease.run == run:
            yield lease


class HeldLease:
    """The lease as its holder sees it; made by :meth:`take`.

    On object stores a race remains, as ``pyarrow.fs`` cannot put an object on condition that it is new. Two processes
    that take the same run at the same time put the same object; each waits two seconds and reads back whose it has
    become. Both go on only if one of them takes more than that between looking and putting; then the first to renew
    its lease finds the other's and leaves with :class:`LeaseLostError`.
    """

    def __init__(self, folder: JournalFolder, clock: Clock, lease_seconds: float, lease: Lease) -> None:
        self._folder = folder
        self._clock = clock
        self._lease = lease
        self._beat_seconds = lease_seconds / _BEATS_PER_LEASE
        self._beaten = self._checked = clock.monotonic()

    @property
    def run(self) -> int:
        """The holder's run number."""
        return self._lease.run

    @classmethod
    def take(cls, folder: JournalFolder, clock: Clock, lease_seconds: float) -> HeldLease:
        """Wait until no other run holds the lease, and take it under the next run number.

        Args:
            folder: The journal's folder, which exists.
            clock: What the wait is measured by.
            lease_seconds: How long the lease must be seen unchanged, unless it is free (:meth:`Lease.is_free`).

        Raises:
            ValueError: If ``lease_seconds`` is not finite and above 0.
            JournalBusyError: If the lease changes while it is watched, or another process is quicker to take it.
            OSError: If the folder cannot be read or written.
        """
        if not (math.isfinite(lease_seconds) and lease_seconds > 0):
            raise ValueError(f"lease_seconds is {lease_seconds}: it must be finite and above 0.")
        run = _wait_until_free(folder, clock, lease_seconds) + 1
        pid = os.getpid()
        lease = Lease(
            run=run,
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid=pid,
            started_ticks=start_ticks(pid),
            heartbeat=0,
            time=clock.time(),
            released=False,
            token=uuid.uuid4().hex,
        )
        if not folder.claim(lease_name(run), seal(asdict(lease))):
            raise _busy(folder, run)
        if not folder.exclusive:
            clock.sleep(_SETTLE_SECONDS)
            stored = _parse(folder.read(lease_name(run)))
            if stored is None or stored.token != lease.token:
                raise _busy(folder, run)
        return cls(folder, clock, lease_seconds, lease)

    def wrote(self, first: int, last: int) -> None:
        """Take note of the records that this run has made durable so far; the next renewal says so."""
        self._lease = replace(self._lease, first=first, flushed=last)

    def check(self) -> None:
        """Make sure that no later run has begun; looks at most once a second.

        Raises:
            LeaseLostError: If one has.
            OSError: If the folder cannot be read.
        """
        if self._clock.monotonic() - self._checked >= _CHECK_SECONDS:
            self._look_for_later_run()

    def beat(self) -> None:
        """Renew the lease if that is due, at a tenth of ``lease_seconds``.

        Raises:
            LeaseLostError: If another run has taken the journal.
            OSError: If the folder cannot be read or written.
        """
        if self._clock.monotonic() - self._beaten < self._beat_seconds:
            return
        self._look_for_later_run()
        stored = _parse(self._folder.read(lease_name(self.run)))
        if stored is not None and stored.token != self._lease.token:
            raise self._lost(stored)
        self._put(replace(self._lease, heartbeat=self._lease.heartbeat + 1, time=self._clock.time()))
        self._beaten = self._clock.monotonic()

    def release(self) -> None:
        """Let the next run take the lease at once.

        Raises:
            OSError: If the folder cannot be written.
        """
        self._put(replace(self._lease, released=True, time=self._clock.time()))

    def _put(self, lease: Lease) -> None:
        self._folder.replace(lease_name(self.run), seal(asdict(lease)))
        self._lease = lease

    def _look_for_later_run(self) -> None:
        later = lease_name(self.run + 1)
        if self._folder.exists(later):
            raise self._lost(_parse(self._folder.read(later)))
        self._checked = self._clock.monotonic()

    def _lost(self, winner: Lease | None) -> LeaseLostError:
        return LeaseLostError(
            f"Run {self.run} no longer owns the journal in {self._folder.path}: {_who(winner)} has taken it. "
            "Nothing more may be written; stop what this run has started."
        )


def _wait_until_free(folder: JournalFolder, clock: Clock, lease_seconds: float) -> int:
    """The newest run's number, 0 if there is none, once its lease may be taken."""
    run, stored = _newest(folder)
    end = clock.monotonic() + lease_seconds
    if not _may_take(stored):
        _logger.info(
            "%s holds the journal in %s; it is taken over if it gives no sign of life for %g s.",
            _who(_parse(stored)),
            folder.path,
            lease_seconds,
        )
    while not _may_take(stored) and clock.monotonic() < end:
        clock.sleep(lease_seconds / _POLLS_PER_LEASE)
        before = (run, stored)
        run, stored = _newest(folder)
        if (run, stored) != before and not _may_take(stored):
            raise _busy(folder, run)
    return run


def _newest(folder: JournalFolder) -> tuple[int, bytes | None]:
    # A lease that someone has deleted must not give its run's number, and so its files, to another run.
    names = folder.names()
    segments, snapshots = numbered_files(names)
    run = max([0, *leased_runs(names), *(file.run for file in segments + snapshots)])
    return run, folder.read(lease_name(run))


def _may_take(stored: bytes | None) -> bool:
    if stored is None:
        return True
    lease = _parse(stored)
    return lease is not None and lease.is_free()


def _parse(stored: bytes | None) -> Lease | None:
    fields = unseal_file(stored)
    if fields is None:
        return None
    try:
        return Lease(**fields)
    except TypeError:  # It is another version's.
        return None


def _busy(folder: JournalFolder, run: int) -> JournalBusyError:
    lease = _parse(folder.read(lease_name(run)))
    stop = "Stop that process" if lease is None else f"Stop process {lease.pid} on {lease.host}"
    return JournalBusyError(
        f"{_who(lease)} is writing the journal in {folder.path}; only one process may. "
        f"{stop} first, or give this sweep another folder."
    )


def _who(lease: Lease | None) -> str:
    return "Another process" if lease is None else f"Run {lease.run} (process {lease.pid} on host {lease.host})"
