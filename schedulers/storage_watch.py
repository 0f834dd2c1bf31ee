"""Whether checkpoints and journal can be written: disks fill up, and network storage goes away and comes back."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable

from pyarrow import fs

from schedulers.clock import Clock

_PROBE = "storage-probe"
_PROBE_SECONDS = 1.0
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded")


def says_disk_full(error: str) -> bool:
    """Whether an error's text says that a disk, on whatever node, is full."""
    return any(words in error for words in _DISK_IS_FULL)


class StorageWatch:
    """Tries the sweep's folder when there is reason to doubt it, and then every second until it can be written.

    Args:
        filesystem: Where the folder is.
        folder: The sweep's folder there.
        needed: Bytes that must be free for the next checkpoints; asked only of a local disk.
        clock: Tells when a second has passed.
    """

    def __init__(self, filesystem: fs.FileSystem, folder: str, needed: Callable[[], int], clock: Clock) -> None:
        self._filesystem = filesystem
        self._folder = folder
        self._needed = needed
        self._clock = clock
        self._trouble = ""
        self._tried = -math.inf

    def doubt(self) -> str:
        """Something could not be written: try the folder now. Returns what is wrong with it, if anything is."""
        self._tried = self._clock.monotonic()
        self._trouble = self._try()
        return self._trouble

    def trouble(self) -> str:
        """What is wrong with the folder; empty as long as nothing gave reason to doubt it, or once it is well again."""
        if self._trouble and self._clock.monotonic() - self._tried >= _PROBE_SECONDS:
            self.doubt()
        return self._trouble

    def _try(self) -> str:
        path = f"{self._folder}/{_PROBE}"
        try:
            if isinstance(self._filesystem, fs.LocalFileSystem):
                free, needed = shutil.disk_usage(self._folder).free, self._needed()
                if free < needed:
                    return (
                        f"{self._folder} has {free / 1e6:.1f} MB free, and the next checkpoints need {needed / 1e6:.1f}"
                    )
            with self._filesystem.open_output_stream(path) as stream:
                stream.write(os.urandom(4096))
            self._filesystem.delete_file(path)
        except OSError as error:
            return f"{self._folder} cannot be written: {error}"
        return ""
