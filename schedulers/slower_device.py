"""What becomes of a search's horizon on another type of device than the one that it was planned for."""

from __future__ import annotations

from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState

_ALIKE = 0.95
"""Devices on which a search comes so far of its way are taken for equals."""

_MEASURED_EPOCHS = 2
"""The first epoch on another device may be slow, as its process is new; so many are measured, if there are so many."""


def full_on_device(search: SearchRecord, state: SweepState, price: float, deadline_seconds: float) -> int | None:
    """The horizon of a full search for one that has come to another type of device, once epochs were measured there.

    What the rest of a full search would cost on the type that was planned for, less what it paid more elsewhere, buys
    fewer epochs on a device where an epoch costs more; and none can be run after the deadline.

    Args:
        search: The search, a whole epoch of it just entered.
        state: The sweep, full searches planned.
        price: Device-seconds that a wall second of the search costs there.
        deadline_seconds: Wall seconds that it may still step, by the sweep's deadline; infinite without one.

    Returns:
        Epochs in all, more than it has done and no more than those of the sweep. None: it is not known yet, the search
        is on the device that its horizon was planned for, or it has another horizon than that of a full search, which
        is planned again for every slice.
    """
    if state.full_horizon is None or not state.epoch_device_seconds:
        return None
    planned_on, full = search.planned_on or state.plan_device, search.full or state.full_horizon
    left = full - search.epochs
    if "" in (search.device, planned_on) or search.device == planned_on or search.horizon != full or left < 1:
        return None
    if len(search.epoch_seconds) < min(_MEASURED_EPOCHS, left):
        return None
    seconds = max(search.epoch_seconds[-1], 1e-9)
    at_home = (state.full_horizon - search.epochs) * (search.epoch_device_seconds or state.epoch_device_seconds)
    reach = max(0.0, min((at_home - search.paid_elsewhere) / (seconds * price), deadline_seconds / seconds))
    for alike in (full, state.full_horizon):
        ahead = alike - search.epochs
        if _ALIKE * ahead <= reach <= ahead / _ALIKE:
            return alike
    return min(state.full_horizon, search.epochs + max(1, int(reach)))
