"""What becomes of a search's horizon on another type of device than the one that full searches were planned by."""

from __future__ import annotations

from schedulers.sweep_state import SearchRecord, SweepState

_ALIKE = 0.95
"""Devices on which a search comes so far of the whole way or farther are taken for equals."""


def full_on_device(search: SearchRecord, state: SweepState, price: float, wall_seconds_left: float) -> int | None:
    """The horizon of a full search for one that has come to another type of device, now that an epoch was measured.

    As many device-seconds as a full search has left where it was planned buy fewer epochs on a device whose epochs
    cost more; and no slot can run for longer than the budget lasts.

    Args:
        search: The search, a whole epoch of it just entered.
        state: The sweep, full searches planned.
        price: Device-seconds that a wall second of the search costs there.
        wall_seconds_left: For which the rest of the budget keeps all slots running.

    Returns:
        Epochs in all, more than it has done and no more than those of the sweep; None if it is on the device that its
        horizon was planned for.
    """
    full, reference = state.full_horizon, state.epoch_device_seconds
    planned_on = search.planned_on or state.plan_device
    if search.device in ("", planned_on) or not search.epoch_seconds or full is None or not reference:
        return None
    seconds = max(search.epoch_seconds[-1], 1e-9)
    left = full - search.epochs
    reach = min(left * reference / (seconds * price), wall_seconds_left / seconds)
    if reach >= _ALIKE * left:
        return max(full, search.epochs + 1)
    return search.epochs + max(1, int(reach))
