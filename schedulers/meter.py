"""Device-time held, integrated from readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["setup", "train", "checkpoint", "idle"]


@dataclass(frozen=True)
class Holding:
    """What one live process holds at the moment of a reading.

    Attributes:
        trial: The trial that it works for, or the last one that it worked for.
        grant: The grant that pays for it.
        devices: Budgeted devices that it holds, 0.5 for half a GPU.
        phase: What it is doing, as far as can be seen from outside.
    """

    trial: str
    grant: str
    devices: float
    phase: Phase


class Meter:
    """Integrates device-seconds over readings of who holds what.

    The interval between two readings is charged to everything that was held at either end of it: a meter that
    guards a cap rounds up. What is held at both ends is charged by its present phase, and once.
    """

    def __init__(self) -> None:
        self._time: float | None = None
        self._held: dict[str, tuple[Holding, float]] = {}
        self._devices = self._since = 0.0

    def read(self, now: float, held: Mapping[str, Holding]) -> dict[tuple[str, str, Phase], float]:
        """Take a reading.

        Args:
            now: Monotonic seconds; not before the last reading's.
            held: Every live process by a key of its own.

        Returns:
            Device-seconds since the last reading, by (grant, trial, phase).
        """
        assert self._time is None or now >= self._time, "a monotonic clock went backwards"
        last = now if self._time is None else self._time
        before = {key: holding for key, (holding, _) in self._held.items()}
        charges: dict[tuple[str, str, Phase], float] = {}
        for key, holding in {**before, **held}.items():
            since = self._held[key][1] if key in self._held else last
            account = (holding.grant, holding.trial, holding.phase)
            if now > since:
                charges[account] = charges.get(account, 0.0) + holding.devices * (now - since)
        self._time, self._held = now, {key: (holding, now) for key, holding in held.items()}
        self._devices = sum(holding.devices for holding in held.values())
        self._since = self._devices * now
        return charges

    def turn(self, now: float, key: str, holding: Holding | None) -> tuple[tuple[str, str, Phase], float] | None:
        """Take a reading of one process at the very moment at which it turns to something else.

        Args:
            now: Monotonic seconds; not before the last reading's.
            key: The process.
            holding: What it holds from now on; None: it is gone.

        Returns:
            (grant, trial, phase) of what it held until now, and device-seconds; None if it held nothing.
        """
        before, self._time = self._held.pop(key, None), now
        if holding is not None:
            self._held[key] = (holding, now)
            self._devices += holding.devices
            self._since += holding.devices * now
        if before is None:
            return None
        was, since = before
        self._devices -= was.devices
        self._since -= was.devices * since
        return (was.grant, was.trial, was.phase), was.devices * (now - since)

    def holds(self, key: str) -> bool:
        """Whether a process was there at the last reading."""
        return key in self._held

    def unread(self, now: float) -> float:
        """Device-seconds that were held since each process was read."""
        return max(0.0, self._devices * now - self._since)
