"""What the trials of a simulated sweep are: how long their epochs take, and what values they come to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from schedulers.search_record import Kind

METRIC = "value"
"""What the trials of a benchmark report."""

_POINTS = 50
"""Regret over time is a mean over so many equally spaced points of the budget."""


class Learner(ABC):
    """What one trial has learnt so far. A checkpoint is a shallow copy of it, so its attributes must not be mutable."""

    @abstractmethod
    def epoch_seconds(self) -> float:
        """Wall seconds of its next epoch on a device of speed 1; called once for each epoch that is begun."""

    @abstractmethod
    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        """Do an epoch; called when its time is over.

        Args:
            horizon: The epochs that the trial was told to expect; None: it was told none.
            compared: Whether it is compared with others now, as its slice ends.

        Returns:
            What it reports, the ranked metric included.
        """

    @property
    def done(self) -> bool:
        """Whether it has come to an end of its own, before that of a full training."""
        return False

    def compare_seconds(self) -> float:
        """Wall seconds that it steps besides, behind the last epoch of a slice, to measure what it is compared by."""
        return 0.0


class Workload(ABC):
    """Where the trials of a simulated sweep come from.

    Attributes:
        epoch_seconds: What an epoch of a trial takes on the average on a device of speed 1.
    """

    epoch_seconds: float

    @abstractmethod
    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        """A new trial; called when the allocator asks for one.

        Args:
            number: How many were drawn before.
            kind: Whether a search is asked for, or a trial of the selection.

        Returns:
            Its configuration, and its learner before the first epoch; None: there are no more of this kind.
        """


class Benchmark(ABC):
    """A problem that sweeps are simulated over, and what they are judged by.

    Attributes:
        name: For people.
        mode: ``min`` or ``max``.
        horizon_told: Whether its trials are told their horizon.
        epoch_device_seconds: What an epoch costs in the mean; simulations may count in other seconds.
    """

    name: str
    mode: str
    horizon_told: bool
    epoch_device_seconds: float

    @property
    @abstractmethod
    def max_t(self) -> int:
        """Epochs of a full training."""

    @abstractmethod
    def workload(self, seed: int) -> Workload:
        """Its trials, in an order that is the same for every scheduler under one seed."""

    @abstractmethod
    def regret(self, value: float | None) -> float:
        """How far the best value so far is from what there is to find, in [0, 1]; 1 is the median, or no value yet."""

    def regrets(self, best: Sequence[tuple[float, float]], budget: float) -> list[float]:
        """Regret at equally spaced points of a budget, the last of them its end.

        Args:
            best: (device-seconds spent, value) whenever a better value came.
            budget: Device-seconds.
        """
        seen, came, regrets = list(best), 0, list[float]()
        for point in range(1, _POINTS + 1):
            while came < len(seen) and seen[came][0] <= budget * point / _POINTS + 1e-9:
                came += 1
            regrets.append(self.regret(seen[came - 1][1] if came else None))
        return regrets


def share_of_median(value: float | None, best: float, middle: float) -> float:
    """A value's distance from the best one, as a share of the middle one's, clipped to [0, 1]; 1 if there is none."""
    if value is None:
        return 1.0
    if value <= best:
        return 0.0
    # In halves, as the difference of two numbers may be too large for one.
    return min(1.0, (value / 2 - best / 2) / (middle / 2 - best / 2)) if middle > best else 1.0
