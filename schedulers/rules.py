"""What a sweep spends by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Saving = Literal["asked", "reported", "never"]


@dataclass(frozen=True)
class Rules:
    """What a sweep spends by.

    Attributes:
        devices: Budgeted devices that one trial holds.
        metric: Name of the ranked metric in a report.
        mode: ``max`` or ``min``.
        epochs_key: Name of the count of whole epochs in a report; Tune's count of reports unless told.
        full_epochs: Epochs of a full search where none is planned from the budget (a foreign Trainable's max_t).
        searches: How many full searches the budget is to buy where a horizon is planned from it.
        most_searches: How many searches there are to try, if that is known.
        finalists: How many trials take part in the selection at the end; 0: there is none.
        saves: When trials save: whenever they are ``asked`` to, with reports of their own choice (``reported``), or
            ``never``. One that has not saved cannot be paused: it goes on at once, or is stopped.
        horizon_told: Whether searches are told their horizon.
        slice_told: Whether searches are told how many seconds they may step, and stop by themselves.
        told_at_work: Whether they can be told another horizon and slice in the middle of a slice.
        grace_seconds: The last part of every grant: what a kill may take until the device is free.
        boot_seconds: A first guess at the wall seconds from the start of a new process to its first step.
        reset_seconds: The same of a process that is used again.
        save_seconds: A first guess at the wall seconds of a checkpoint.
    """

    devices: float
    metric: str
    mode: str = "max"
    epochs_key: str = "training_iteration"
    full_epochs: int | None = None
    searches: int = 8
    most_searches: int | None = None
    finalists: int = 0
    saves: Saving = "asked"
    horizon_told: bool = False
    slice_told: bool = False
    told_at_work: bool = False
    grace_seconds: float = 2.0
    boot_seconds: float = 20.0
    reset_seconds: float = 1.0
    save_seconds: float = 1.0
