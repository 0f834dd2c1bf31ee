"""Time as the scheduler reads it: of the machine, or simulated."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod


class Clock(ABC):
    """Where all of ``schedulers`` takes its time from, so that a test or the simulator can own it."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. Intervals are measured by it."""

    @abstractmethod
    def time(self) -> float:
        """Unix seconds. Records are dated by it; it may be set back, so no interval is measured by it."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Return after so many seconds (0 or more)."""


class WallClock(Clock):
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SimulatedClock(Clock):
    """A clock that moves only when it is told to.

    Args:
        unix: What :meth:`time` says at the beginning; :meth:`monotonic` begins at 0.
    """

    def __init__(self, unix: float = 0.0) -> None:
        self._unix = unix
        self._elapsed = 0.0

    def monotonic(self) -> float:
        return self._elapsed

    def time(self) -> float:
        return self._unix + self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: If ``seconds`` is negative or not finite.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"A clock cannot advance by {seconds} seconds: it takes 0 or more.")
        self._elapsed += seconds
