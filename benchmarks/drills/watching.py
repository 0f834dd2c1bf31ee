"""What an outside process sees held, as a series over time, and what it comes to in an interval."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from pathlib import Path

OBSERVER = Path(__file__).parents[1] / "observer.py"
POLL_SECONDS = 0.05


def trial_processes(marker: str) -> list[int]:
    """The process ids of the actors of trials that run in an environment with this marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title = (folder / "cmdline").read_bytes()
            if (
                title.startswith(b"ray::")
                and b"Trainable" in title
                and marker.encode() in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Series:
    """Devices held over time: each value holds until the next one.

    Args:
        points: (unix seconds, devices), in order.
    """

    def __init__(self, points: list[tuple[float, float]]) -> None:
        self._points = points

    def between(self, begin: float, end: float) -> float:
        """Device-seconds held in an interval."""
        times = [time for time, _ in self._points]
        total = 0.0
        for at in range(max(0, bisect_right(times, begin) - 1), len(times)):
            since, held = self._points[at]
            until = times[at + 1] if at + 1 < len(times) else end
            total += held * max(0.0, min(until, end) - max(since, begin))
        return total


class GroupWatch:
    """Follows the placement groups of a cluster by a process of its own; see ``benchmarks/observer.py``."""

    def __init__(self, address: str, file: Path) -> None:
        self._file = file
        command = [sys.executable, str(OBSERVER), address, "--series", str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None, "the observer's output is a pipe"
        assert self._process.stdout.readline() == "watching\n", "the observer did not start"

    def series(self) -> Series:
        """What was seen so far."""
        lines = self._file.read_text().splitlines()
        return Series([(float(at), float(held)) for at, held in (line.split() for line in lines)])

    def close(self) -> None:
        """Stop watching."""
        self._process.communicate()


class ProcessWatch:
    """Follows the processes of trials by their titles, which needs no Ray that lives.

    Args:
        marker: An environment variable's text that only the processes to be watched have.
        devices: Devices that each holds.
    """

    def __init__(self, marker: str, devices: float = 1.0) -> None:
        self._marker = marker
        self._devices = devices
        self._points = [(time.time(), 0.0)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            held = len(trial_processes(self._marker)) * self._devices
            if held != self._points[-1][1]:
                self._points.append((time.time(), held))

    def series(self) -> Series:
        """What was seen so far."""
        return Series(list(self._points))

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()


def kill(process: int, number: int) -> bool:
    """Send a signal; whether the process was there."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True
