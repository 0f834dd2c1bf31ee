"""What the trials of a simulated sweep are: how long their epochs take, and what values they come to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from schedulers.sweep_state import Kind


class Learner(ABC):
    """What one trial has learnt so far. A checkpoint is a shallow copy of it, so its attributes must not be mutable."""

    @abstractmethod
    def epoch_seconds(self) -> float:
        """Wall seconds of its next epoch on a device of speed 1; called once for each epoch that is begun."""

    @abstractmethod
    def learn(self, horizon: int | None) -> Mapping[str, Any]:
        """Do an epoch; called when its time is over.

        Args:
            horizon: The epochs that the trial was told to expect; None: it was told none.

        Returns:
            What it reports, the ranked metric included.
        """

    def compare_seconds(self) -> float:
        """Wall seconds that it steps besides, behind the last epoch of a slice, to measure what it is compared by."""
        return 0.0


class Workload(ABC):
    """Where the trials of a simulated sweep come from."""

    @abstractmethod
    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        """A new trial; called when the allocator asks for one.

        Args:
            number: How many were drawn before.
            kind: Whether a search is asked for, or a trial of the selection.

        Returns:
            Its configuration, and its learner before the first epoch; None: there are no more of this kind.
        """
