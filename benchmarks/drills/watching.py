"""What an outside process sees held, as a series over time, and what that comes to."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

OBSERVER = Path(__file__).parents[1] / "observer.py"
POLL_SECONDS = 0.05
LONGEST_GAP_SECONDS = 1.0
"""What a poll saw counts until the next one, but no longer than this: whoever is not answered any more sees nothing."""


def trial_processes(marker: str) -> list[int]:
    """The process ids of the actors of trials that run in an environment with this marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title = (folder / "cmdline").read_bytes()
            if not (title.startswith(b"ray::") and b"Trainable" in title):
                continue
            if marker.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


class Series:
    """Devices held, as polled.

    Args:
        points: (unix seconds, devices), in order.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._times = [at for at, _ in points]
        self._held = [held for _, held in points]

    def at(self, time: float) -> float:
        """What the last poll before a moment saw; nothing if that is too long ago."""
        place = bisect_right(self._times, time) - 1
        if place < 0 or time - self._times[place] > LONGEST_GAP_SECONDS:
            return 0.0
        return self._held[place]

    @property
    def times(self) -> list[float]:
        """When the polls were."""
        return self._times


def held_device_seconds(*views: Series, since: float = 0.0, until: float = math.inf) -> float:
    """Device-seconds held between two moments, according to whichever view saw most at each."""
    moments = sorted({at for view in views for at in view.times if since <= at <= until})
    total = 0.0
    for begin, end in pairwise(moments):
        total += max(view.at(begin) for view in views) * (end - begin)
    return total


class GroupWatch:
    """Follows the created placement groups of a cluster in a process of its own; see ``benchmarks/observer.py``.

    Args:
        address: Of the cluster.
        file: Where the observer writes.
    """

    def __init__(self, address: str, file: Path) -> None:
        self._file = file
        command = [sys.executable, str(OBSERVER), address, "--series", str(file)]
        with open(file.with_suffix(".log"), "w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None, "the observer's output is a pipe"
        said = self._process.stdout.readline()
        assert said == "watching\n", f"the observer of {address} did not start: see {file.with_suffix('.log')}"

    def series(self) -> Series:
        """What was seen so far."""
        lines = self._file.read_text().split("\n")[:-1]
        return Series([(float(at), float(held)) for at, held in (line.split() for line in lines)])

    def close(self) -> None:
        """Stop watching; a cluster that is gone does not answer, so that nobody waits for it."""
        self._process.kill()
        self._process.wait()


class ProcessWatch:
    """Follows the processes of trials by their titles, which needs no Ray that lives. Each holds one device.

    Args:
        marker: A text that only the environment of the processes to be watched has.
    """

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._points: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._points.append((time.time(), float(len(trial_processes(self._marker)))))

    def series(self) -> Series:
        """What was seen so far."""
        return Series(list(self._points))

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()
