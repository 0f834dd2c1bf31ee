"""How far a search is: what it has done, what the last epoch measured, and the sums over the running one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class EpochTotals:
    """Sums over the part of the running epoch that is done, kept on the device until the epoch ends.

    Attributes:
        weight_loss: Losses of the weight pass, each times its number of images; float64 scalar.
        alpha_loss: The same of the architecture pass.
        correct: Correctly classified images of the selection part; int64 scalar.
        seconds: Wall seconds.
    """

    weight_loss: Tensor
    alpha_loss: Tensor
    correct: Tensor
    seconds: float = 0.0

    @classmethod
    def zero(cls, device: torch.device) -> EpochTotals:
        """Nothing done."""
        return cls(
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.int64, device=device),
        )


@dataclass(frozen=True)
class EpochResult:
    """What a whole epoch measured.

    Attributes:
        train_loss: Mean loss of the weight pass.
        architecture_loss: Mean loss of the architecture pass.
        val_accuracy: Of the argmax network with shared weights, on the selection part.
        val_accuracy_stderr: Its standard error, sqrt(a (1 - a) / n) for n images.
        epoch_seconds: Wall seconds of both passes and the evaluation, over all slices.
        objective: What the sweep maximises; NaN where it was not measured.
        objective_seconds: Wall seconds that measuring it took besides.
    """

    train_loss: float
    architecture_loss: float
    val_accuracy: float
    val_accuracy_stderr: float
    epoch_seconds: float
    objective: float = math.nan
    objective_seconds: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """What a search thought of its candidates after an epoch.

    Attributes:
        epoch: The epoch, from 1.
        alpha: float64 [layers, N].
        frequency: How often each was drawn, int64 [layers, N].
        sampling_probability: That a layer's first draw is this one, float64 [layers, N].
    """

    epoch: int
    alpha: Tensor
    frequency: Tensor
    sampling_probability: Tensor


@dataclass
class Position:
    """How far a search is, without its tensors.

    Attributes:
        batches: Batches done, of all passes and epochs.
        history: Every horizon that the search was told, as (batches done by then, horizon).
        last_epoch: What the last whole epoch measured.
        best_val_accuracy: Over all epochs; NaN before the first is done.
        chosen: The columns of the random architecture that is preferred; None where alpha decides.
        measuring: Whether the objective must be measured before the last epoch counts as done.
    """

    batches: int = 0
    history: list[tuple[int, int | None]] = field(default_factory=list)
    last_epoch: EpochResult | None = None
    best_val_accuracy: float = math.nan
    chosen: list[int] | None = None
    measuring: bool = False
