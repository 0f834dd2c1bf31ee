"""A sweep read back from its folder: while it runs and afterwards, without Ray and without touching it."""

from __future__ import annotations

import os
import posixpath
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pyarrow import fs

from nasib_ray.config import SweepConfig, is_uri
from nasib_ray.status import SweepStatus, sweep_status
from schedulers.journal_replay import read_journal
from schedulers.lease import read_lease
from schedulers.sweep_state import SweepState

if TYPE_CHECKING:
    import pandas as pd

JOURNAL = "journal"
"""The folder of the journal in the folder of a sweep."""

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stood when :func:`load_sweep` read it.

    Attributes:
        path: The folder or URI that was given.
        state: What its journal says.
        alive: Whether its driver seemed to be at work.
        filesystem: Where it is, and ``folder`` its folder there.
    """

    path: str
    state: SweepState
    alive: bool
    filesystem: fs.FileSystem
    folder: str

    def status(self) -> SweepStatus:
        """Where the sweep stands, as plain data."""
        return sweep_status(self.state, self.alive)

    def dataframe(self) -> pd.DataFrame:
        """Every report as a row, in the order in which they came; :func:`nasib_ray.reports.reports_frame` says more.

        Raises:
            JournalError: If the journal has been damaged since.
            OSError: If it cannot be read any more.
        """
        from nasib_ray.reports import reports_frame

        return reports_frame(self.state, self.records())

    def accounts(self) -> pd.DataFrame:
        """Every grant, charge and what else touches the budget as a row, with the balances after it, in device-seconds.

        :func:`nasib_ray.accounts.accounts_frame` names the columns; :func:`nasib_ray.reports.write_csv` and
        :func:`nasib_ray.reports.write_parquet` write such a table.

        Raises:
            JournalError: If the journal has been damaged since.
            OSError: If it cannot be read any more.
        """
        from nasib_ray.accounts import accounts_frame

        return accounts_frame(self.records(), self.state.settings.get("device"))

    def records(self) -> list[dict[str, Any]]:
        """The journal's records from the start, up to the moment of loading.

        Raises:
            JournalError: If the journal has been damaged since.
            OSError: If it cannot be read any more.
        """
        records = read_journal(self.filesystem, posixpath.join(self.folder, JOURNAL), from_start=True).records
        return [record for record in records if record["number"] <= self.state.last_number]

    def to_csv(self, file: str | os.PathLike[str] | TextIO) -> None:
        """Write :meth:`dataframe` as comma-separated values to a path or an open file; lists are JSON.

        Raises:
            JournalError: If the journal has been damaged since.
            OSError: If it cannot be read any more, or the file cannot be written.
        """
        from nasib_ray.reports import write_csv

        write_csv(self.dataframe(), file)

    def to_parquet(self, file: str | os.PathLike[str]) -> None:
        """Write :meth:`dataframe` as Parquet; lists are lists, a column of mixed types is text.

        Raises:
            JournalError: If the journal has been damaged since.
            OSError: If it cannot be read any more, or the file cannot be written.
        """
        from nasib_ray.reports import write_parquet

        write_parquet(self.dataframe(), file)


def load_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Read a sweep from its folder, without Ray; safe while it is running.

    Args:
        path: The sweep's folder (STORAGE/NAME), or its URI as in "s3://bucket/sweeps/digits".

    Raises:
        ValueError: If there is no such folder, it is no sweep's, or the sweep's journal is damaged.
        OSError: If it cannot be read.

    Example:
        >>> load_sweep("~/nasib-ray/digits").dataframe().groupby("trial")["value"].max()  # doctest: +SKIP
    """
    given = os.fspath(path)
    filesystem, folder = _locate(given)
    _check_folder(given, filesystem, folder)
    journal = posixpath.join(folder, JOURNAL)
    # In this order: a driver writes the end before it lets go of the lease.
    lease = read_lease(filesystem, journal)
    alive = lease is not None and lease.alive(time.time())
    replay = read_journal(filesystem, journal)
    return Sweep(given, SweepState.replay(replay.snapshot, replay.records), alive, filesystem, folder)


def config_of(sweep: Sweep) -> SweepConfig:
    """The configuration that a sweep was begun with, and what later runs were told in its place.

    Raises:
        ValueError: It was not begun by nasib-ray.
    """
    plain = sweep.state.settings.get("config")
    if plain is None:
        raise ValueError(
            f"{sweep.path} was not begun by `nasib-ray sweep` or `nasib-ray search`: no networks are in it"
        )
    return SweepConfig(**plain)


def is_settled(config: SweepConfig, state: SweepState) -> bool:
    """Whether a sweep is finished, and has no larger budget to go on with."""
    wanted = None if config.budget is None else config.budget.device_seconds
    return state.end == "finished" and wanted == state.ledger.budget


def is_shared_out(config: SweepConfig, state: SweepState) -> bool:
    """Whether a sweep has finished all that equal shares of its budget were for, and no selection could use more."""
    searches = [search for search in state.searches.values() if search.kind == "search"]
    done = len(searches) >= config.full_searches and not any(search.unfinished for search in searches)
    alone = config.allocator == "equal-share" and config.finalists == 0
    return alone and state.end == "finished" and done


def sweep_exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a sweep in a folder, or at a URI.

    Raises:
        ValueError: If it is a URI that names no kind of storage.
        OSError: If it cannot be read.
    """
    filesystem, folder = _locate(os.fspath(path))
    return bool(filesystem.get_file_info(fs.FileSelector(posixpath.join(folder, JOURNAL), allow_not_found=True)))


def _locate(given: str) -> tuple[fs.FileSystem, str]:
    if not is_uri(given):
        return fs.LocalFileSystem(), Path(given).expanduser().absolute().as_posix()
    try:
        filesystem, folder = fs.FileSystem.from_uri(given)
    except ValueError as error:
        raise ValueError(f"{given!r} is no place that can be read: {error}.") from error
    return filesystem, folder


def _check_folder(given: str, filesystem: fs.FileSystem, folder: str) -> None:
    """Raise ValueError unless a folder is a sweep's."""
    found, journal = filesystem.get_file_info([folder, posixpath.join(folder, JOURNAL)])
    if journal.type == fs.FileType.Directory:
        return
    if found.type == fs.FileType.NotFound:
        raise ValueError(f"There is no {given!r}: give the folder of a sweep, STORAGE/NAME.")
    if found.type != fs.FileType.Directory:
        raise ValueError(f"{given!r} is a file: give the folder of a sweep, STORAGE/NAME.")
    sweeps = _sweeps_in(filesystem, folder)
    hint = f"it has those of the sweeps {', '.join(sweeps)}" if sweeps else "there is no journal in it"
    raise ValueError(f"{given!r} is not the folder of a sweep: {hint}. Give STORAGE/NAME.")


def _sweeps_in(filesystem: fs.FileSystem, folder: str) -> list[str]:
    """The names of some sweeps whose folders are in a folder."""
    inner = [info for info in filesystem.get_file_info(fs.FileSelector(folder)) if info.type == fs.FileType.Directory]
    journals = filesystem.get_file_info([posixpath.join(info.path, JOURNAL) for info in inner])
    names = [
        info.base_name for info, journal in zip(inner, journals, strict=True) if journal.type == fs.FileType.Directory
    ]
    more = len(names) - _NAMED_AT_MOST
    return sorted(names)[:_NAMED_AT_MOST] + ([f"and {more} more"] if more > 0 else [])
