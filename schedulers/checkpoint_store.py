"""The checkpoints of a sweep where they are stored: their sizes, and their deletion."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from pyarrow import fs

_CHECKPOINT = re.compile(r"checkpoint_\d+")
"""As Tune names their folders."""


class CheckpointStore:
    """Reads and deletes below a sweep's folder, on a disk or an object store.

    Args:
        filesystem: Where the folder is.
        folder: The sweep's folder there; all paths are relative to it.
    """

    def __init__(self, filesystem: fs.FileSystem, folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder

    def size(self, path: str) -> int:
        """The bytes of all files of a checkpoint; 0 if there is none.

        Raises:
            OSError: If it cannot be read.
        """
        return sum(file.size or 0 for file in self._files(path))

    def delete(self, path: str, keep: Collection[str] = ()) -> int:
        """Delete a checkpoint; one that is gone already is none to fail for.

        Args:
            path: Its folder.
            keep: The names of the files that stay.

        Returns:
            The bytes of what stays.

        Raises:
            OSError: If that cannot be done, or only in part.
        """
        files = self._files(path)
        staying = [file for file in files if file.base_name in keep]
        if staying:
            for file in files:
                if file not in staying:
                    self._filesystem.delete_file(file.path)
        elif self._filesystem.get_file_info(f"{self._folder}/{path}").type == fs.FileType.Directory:
            self._filesystem.delete_dir(f"{self._folder}/{path}")
        return sum(file.size or 0 for file in staying)

    def delete_others(self, search: str, known: Collection[str]) -> list[str]:
        """Delete a search's checkpoints that nobody knows of: what was being written when its process died.

        Args:
            search: The search's folder.
            known: The paths of the checkpoints that stay.

        Returns:
            What was deleted.

        Raises:
            OSError: If that cannot be done.
        """
        inner = self._filesystem.get_file_info(fs.FileSelector(f"{self._folder}/{search}", allow_not_found=True))
        paths = [f"{search}/{info.base_name}" for info in inner if _CHECKPOINT.fullmatch(info.base_name)]
        unknown = [path for path in paths if path not in known]
        for path in unknown:
            self.delete(path)
        return unknown

    def _files(self, path: str) -> list[fs.FileInfo]:
        selector = fs.FileSelector(f"{self._folder}/{path}", allow_not_found=True, recursive=True)
        return [info for info in self._filesystem.get_file_info(selector) if info.type == fs.FileType.File]


def check_loadable(folder: str, path: str, verify: Callable[[str], object] | None) -> None:
    """Make sure that a checkpoint can be loaded.

    Args:
        folder: A local folder that holds it.
        path: Where it is stored, to name it by.
        verify: Raises ValueError if the checkpoint in a local folder is damaged.

    Raises:
        ValueError: It is empty or damaged.
        OSError: It cannot be read.
    """
    if not any(Path(folder).iterdir()):
        raise ValueError(f"{path} is empty")
    if verify is not None:
        verify(folder)
