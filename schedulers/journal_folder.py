"""The files of a journal: their names, and how they are made durable on a disk and on an object store.

Every file belongs to one run, has that run's number in its name, and is written by no other run:

* ``segment-<number of its first record>-run-<run>.jsonl``
* ``snapshot-<number of the last record that it covers>-run-<run>.json``
* ``lease-<run>.json``
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyarrow import fs

from schedulers.brief_store import brief

_SEGMENT_OR_SNAPSHOT = re.compile(r"(segment|snapshot)-(\d{12})-run-(\d{4,})\.jsonl?")
_LEASE = re.compile(r"lease-(\d{4,})\.json")


@dataclass(frozen=True, order=True)
class NumberedFile:
    """A segment or a snapshot, ordered by run and then by number.

    Attributes:
        run: The run that writes it.
        number: Of a segment's first record, or of the last record that a snapshot covers.
        name: The file's name.
    """

    run: int
    number: int
    name: str


def segment_name(number: int, run: int) -> str:
    """The name of the segment whose first record has this number."""
    return f"segment-{number:012}-run-{run:04}.jsonl"


def snapshot_name(number: int, run: int) -> str:
    """The name of the snapshot that covers the records up to this number."""
    return f"snapshot-{number:012}-run-{run:04}.json"


def lease_name(run: int) -> str:
    """The name of a run's lease."""
    return f"lease-{run:04}.json"


class JournalFolder(ABC):
    """A folder on a ``pyarrow.fs`` filesystem; whatever goes wrong in it is an ``OSError``.

    Attributes:
        path: The folder, as the filesystem knows it.
        exclusive: Whether :meth:`claim` lets exactly one of several processes through.
    """

    exclusive: bool

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._filesystem = filesystem
        self.path = path

    @staticmethod
    def at(filesystem: fs.FileSystem, path: str) -> JournalFolder:
        """The folder: of files for a local filesystem (NFS included), of objects for every other."""
        local, inner = path, filesystem
        while isinstance(inner, fs.SubTreeFileSystem):
            local, inner = posixpath.join(inner.base_path, local.lstrip("/")), inner.base_fs
        if isinstance(inner, fs.LocalFileSystem):
            return DiskFolder(inner, local)
        return StoreFolder(filesystem, path)

    def hurry(self) -> None:
        """Let calls fail soon from now on, if the folder does not answer: they will be made again."""
        self._filesystem = brief(self._filesystem)

    def names(self) -> list[str]:
        """The names of all files; empty if there is no such folder."""
        with _os_errors():
            found = self._filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
            return [info.base_name for info in found if info.type == fs.FileType.File]

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        with _os_errors():
            return bool(self._filesystem.get_file_info(self.join(name)).type != fs.FileType.NotFound)

    def read(self, name: str) -> bytes | None:
        """What a file holds; None if there is none."""
        try:
            with _os_errors(), self._filesystem.open_input_stream(self.join(name), compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def create(self) -> None:
        """Make the folder, and those above it, if it is not there yet."""
        with _os_errors():
            self._filesystem.create_dir(self.path, recursive=True)

    def join(self, name: str) -> str:
        """The path of a file in the folder."""
        return posixpath.join(self.path, name)

    @abstractmethod
    def extend(self, name: str, whole: bytes, done: int) -> None:
        """Make a file hold ``whole``, durably; called at every flush, and again with more after a failure.

        Args:
            name: The file, which nobody else writes.
            whole: All that it shall hold.
            done: How many leading bytes an earlier call has made durable; what is behind them is rubbish.
        """

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Make a file hold ``data``, durably and at one stroke: a reader sees the old bytes or the new ones."""

    @abstractmethod
    def claim(self, name: str, data: bytes) -> bool:
        """Make a file that is not there yet; False if it is. Called by each of several that want a run's number."""


class DiskFolder(JournalFolder):
    """A folder on a local disk or on NFS: appends and fsyncs."""

    exclusive = True

    def extend(self, name: str, whole: bytes, done: int) -> None:
        # A file that should be there and is not must not come into being again without its beginning.
        descriptor = os.open(self.join(name), os.O_WRONLY | os.O_CLOEXEC | (0 if done else os.O_CREAT), 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if size < done:
                raise OSError(errno.EIO, f"{done} bytes were written and {size} are left", self.join(name))
            if size > done:
                os.ftruncate(descriptor, done)
            os.lseek(descriptor, done, os.SEEK_SET)
            _write_all(descriptor, memoryview(whole)[done:])
        finally:
            os.close(descriptor)
        if not done:
            self._sync_names()

    def replace(self, name: str, data: bytes) -> None:
        temporary = self.join(f"{name}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write_all(descriptor, memoryview(data))
        finally:
            os.close(descriptor)
        os.replace(temporary, self.join(name))
        self._sync_names()

    def claim(self, name: str, data: bytes) -> bool:
        try:
            descriptor = os.open(self.join(name), os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            _write_all(descriptor, memoryview(data))
        finally:
            os.close(descriptor)
        self._sync_names()
        return True

    def _sync_names(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network filesystems cannot sync a folder, and need not.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


class StoreFolder(JournalFolder):
    """A folder on an object store: objects are put whole, which is atomic there.

    ``pyarrow.fs`` has no conditional put: two processes that claim the same run within the same instant both succeed,
    and the later put stays. :mod:`schedulers.lease` narrows that race.
    """

    exclusive = False

    def extend(self, name: str, whole: bytes, done: int) -> None:
        self.replace(name, whole)

    def replace(self, name: str, data: bytes) -> None:
        with _os_errors(), self._filesystem.open_output_stream(self.join(name), compression=None) as stream:
            stream.write(data)

    def claim(self, name: str, data: bytes) -> bool:
        if self.exists(name):
            return False
        self.replace(name, data)
        return True


def numbered_files(names: list[str]) -> tuple[list[NumberedFile], list[NumberedFile]]:
    """The segments and the snapshots among a folder's files, each in order."""
    found: dict[str, list[NumberedFile]] = {"segment": [], "snapshot": []}
    for name in names:
        if match := _SEGMENT_OR_SNAPSHOT.fullmatch(name):
            found[match[1]].append(NumberedFile(int(match[3]), int(match[2]), name))
    return sorted(found["segment"]), sorted(found["snapshot"])


def leased_runs(names: list[str]) -> list[int]:
    """The runs that have a lease among a folder's files, in order."""
    return sorted(int(match[1]) for match in map(_LEASE.fullmatch, names) if match)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


@contextmanager
def _os_errors() -> Iterator[None]:
    # Every kind of store brings exceptions of its own; the callers handle one kind.
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
