"""How many trials a node has room for."""

from __future__ import annotations

from collections.abc import Mapping

_ROUNDING = 1e-9


def slots_of_node(has: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """How many processes with these needs fit a node; a part of a GPU lies in one GPU, as Ray places it.

    Args:
        has: The node's resources by Ray's names; GPUs are whole.
        needs: Of one process; at least one is above 0.
    """
    return min(_count(name, has.get(name, 0.0), needed) for name, needed in needs.items() if needed > 0)


def _count(name: str, has: float, needed: float) -> int:
    if name == "GPU" and needed < 1:
        return int(has + _ROUNDING) * int(1 / needed + _ROUNDING)
    return int(has / needed + _ROUNDING)
