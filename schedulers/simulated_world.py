"""What a simulated sweep runs on: slots, processes, and what these remember."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from schedulers.clock import Clock
from schedulers.meter import Phase
from schedulers.workload import Learner


@dataclass(frozen=True)
class World:
    """What a sweep runs on. All times are wall seconds.

    Attributes:
        slots: How many trials can run at once, at least 1.
        speed_spread: Standard deviation of the logarithm of the slots' speeds, whose median is 1.
        boot_seconds: From the start of a new process to its first step.
        boot_spread: A boot takes up to this share less or more, drawn uniformly.
        reset_seconds: The same of a process that is used again.
        restore_seconds: What loading a checkpoint takes besides.
        save_seconds: What a checkpoint takes.
        stop_seconds: What a process takes to end.
        reuse: Whether processes are used again.
        save_epochs: Whether trials save after each epoch; else when they leave their slot. It takes no time.
        preemptions_per_hour: How often a process is taken away, on the average; its slot comes back at once.
        seed: Of all that is drawn.
    """

    slots: int = 1
    speed_spread: float = 0.0
    boot_seconds: float = 5.0
    boot_spread: float = 0.1
    reset_seconds: float = 0.1
    restore_seconds: float = 0.5
    save_seconds: float = 0.5
    stop_seconds: float = 0.3
    reuse: bool = True
    save_epochs: bool = False
    preemptions_per_hour: float = 0.0
    seed: int = 0


@dataclass
class Process:
    """One process: what it does until when, for which trial, on whose grant.

    Attributes:
        key: Its own.
        slot: The slot that it holds.
        trial: The trial that it works for, or worked for last.
        grant: What pays for it.
        phase: As it is metered.
        doing: Counts what it has done, so that it is known when the present one ends.
        state: Whether it works, or idles until it is used again, or is on its way out.
        slice_seconds: What its trial may step on this grant, and ``stepped`` what of it is used up.
        step: What the present step takes, and whether it is the rest of an epoch rather than a part of it.
    """

    key: str
    slot: int
    trial: str
    grant: str
    phase: Phase = "setup"
    doing: int = 0
    state: Literal["working", "idle", "stopping"] = "working"
    slice_seconds: float = math.inf
    stepped: float = 0.0
    step: float = 0.0
    whole: bool = True


@dataclass
class SimulatedTrial:
    """What a trial's process remembers; ``duration`` and ``gone`` are those of the epoch that it is in, in seconds."""

    learner: Learner
    epochs: int = 0
    iteration: int = 0
    duration: float = 0.0
    beside: float = 0.0
    gone: float = 0.0

    @property
    def done(self) -> bool:
        """Whether it has come to an end of its own."""
        return self.learner.done and not self.gone

    def copy(self) -> SimulatedTrial:
        """What a checkpoint holds."""
        return replace(self, learner=copy.copy(self.learner))


class Unkept:
    """A journal that keeps nothing, as what is simulated is not resumed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._number = 0

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a record."""
        self._number += 1
        return {**record, "number": self._number, "run": 1, "time": self._clock.time()}

    def flush(self) -> None:
        """There is nothing to do."""
