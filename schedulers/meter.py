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
        self._held: dict[str, Holding] = {}

    def read(self, now: float, held: Mapping[str, Holding]) -> dict[tuple[str, str, Phase], float]:
        """Take a reading.

        Args:
            now: Monotonic seconds; not before the last reading's.
            held: Every live process by a key of its own.

        Returns:
            Device-seconds since the last reading, by (grant, trial, phase).
        """
        assert self._time is None or now >= self._time, "a monotonic clock went backwards"
        elapsed = 0.0 if self._time is None else now - self._time
        charges: dict[tuple[str, str, Phase], float] = {}
        if elapsed > 0:
            for holding in {**self._held, **held}.values():
                account = (holding.grant, holding.trial, holding.phase)
                charges[account] = charges.get(account, 0.0) + holding.devices * elapsed
        self._time, self._held = now, dict(held)
        return charges
