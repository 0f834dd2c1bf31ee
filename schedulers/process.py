"""Whether a process on this very machine is still there: what its process id alone cannot tell."""

from __future__ import annotations

import os
from pathlib import Path

_GONE = ("Z", "X")


def boot_id() -> str:
    """Where process ids of this process mean something: the boot of the kernel and the namespace of process ids.

    Two containers on one host may share the former, a container and its successor the latter. Empty on systems other
    than Linux, which do not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When a process started, in the kernel's ticks since boot; None if that cannot be told, or it is gone."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in _GONE else int(stat[19])


def is_running(pid: int, ticks: int | None) -> bool:
    """Whether the process with this id that started at these ticks is running; when in doubt, it is.

    Meaningful only under the same :func:`boot_id`.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It is another user's, but it is.
    stat = _stat(pid)
    if stat is None:
        return True
    return stat[0] not in _GONE and ticks in (None, int(stat[19]))


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything; the list begins at the third.
    return text.rpartition(")")[2].split()
