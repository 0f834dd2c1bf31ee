"""The annealing clock: p and the learning rate as functions of the epoch and the horizon (section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trainables.settings import Anneal


@dataclass(frozen=True)
class Schedule:
    """A clock that runs on a straight line from an anchor (epoch, clock) to (horizon, 1).

    Epochs are counted from 1. A new horizon sets a new anchor at the epoch after which it takes effect, so that the
    clock is continuous and never falls. An anchor at epoch 1, clock 0 makes the clock (e - 1) / (n - 1); one at
    epoch 0, clock 0 makes it e / n, which is the exponent that the paper prints (beta = exp(ln k / n)).

    Attributes:
        anchor_epoch: The epoch e0 of the last change of horizon.
        anchor_clock: The clock c0 of that epoch.
        horizon: Epochs n that the search may expect in all. None: not yet known.
    """

    anchor_epoch: int
    anchor_clock: float
    horizon: int | None

    @classmethod
    def start(cls, anneal: Anneal) -> Schedule:
        """The schedule of a search that has not been told a horizon."""
        return cls(anchor_epoch=1 if anneal == "endpoints" else 0, anchor_clock=0.0, horizon=None)

    @classmethod
    def replay(cls, anneal: Anneal, history: Iterable[tuple[int, int | None]], batches_per_epoch: int) -> Schedule:
        """The schedule after a history of horizon changes, each told when so many batches had been done."""
        schedule = cls.start(anneal)
        for batches, horizon in history:
            schedule = schedule.with_horizon(horizon, after_epoch=math.ceil(batches / batches_per_epoch))
        return schedule

    def with_horizon(self, horizon: int | None, after_epoch: int) -> Schedule:
        """The schedule once the horizon changes at the end of an epoch; 0 and 1 change the first one's meaning only."""
        if after_epoch <= 1:
            return Schedule(self.anchor_epoch, self.anchor_clock, horizon)
        return Schedule(after_epoch, self.clock(after_epoch), horizon)

    def clock(self, epoch: int) -> float:
        """0 in the first epoch, 1 in the last: c(e) = c0 + (1 - c0) (e - e0) / (n - e0).

        Raises:
            ValueError: The epoch needs a horizon and none is known, or it lies beyond the horizon.
        """
        if epoch == 1:
            return 0.0
        if epoch == self.anchor_epoch:
            return self.anchor_clock
        if self.horizon is None:
            raise ValueError(f"epoch {epoch} needs a horizon: only epoch 1 can run without; set the key 'horizon'")
        if epoch > self.horizon:
            raise ValueError(f"epoch {epoch} lies beyond the horizon of {self.horizon} epochs")
        assert epoch > self.anchor_epoch, f"epoch {epoch} lies before epoch {self.anchor_epoch} of the last change"
        fraction = (epoch - self.anchor_epoch) / (self.horizon - self.anchor_epoch)
        return self.anchor_clock + (1.0 - self.anchor_clock) * fraction


def exploration_probability(clock: float, k: float) -> float:
    """p = k ** clock, the probability of the exploring policy P1: 1 at clock 0 and k at clock 1."""
    return float(k**clock)


def cosine_learning_rate(clock: float, initial: float, lr_min: float) -> float:
    """The learning rate: a cosine from ``initial`` at clock 0 to ``lr_min * initial`` at clock 1 (section 4.1)."""
    return initial * (lr_min + (1.0 - lr_min) * (1.0 + math.cos(math.pi * clock)) / 2.0)
