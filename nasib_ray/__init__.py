"""Budgeted neural architecture search on Ray Tune: many NASIB searches, one global budget of device-time.

Names are imported when they are first used, so that what is light stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nasib_ray.own_rooms import check_own_rooms
from nasib_ray.version import __version__ as __version__

if TYPE_CHECKING:
    from nasib_ray.budgeted_tuner import with_budget as with_budget
    from nasib_ray.config import SweepConfig as SweepConfig
    from nasib_ray.joining import runtime_env as runtime_env
    from nasib_ray.networks import load_network as load_network
    from nasib_ray.report.page import write_report as write_report
    from nasib_ray.results import Sweep as Sweep
    from nasib_ray.results import load_sweep as load_sweep
    from nasib_ray.sweep import run_sweep as run_sweep

check_own_rooms()

_HOMES = {
    "Sweep": "results",
    "SweepConfig": "config",
    "load_network": "networks",
    "load_sweep": "results",
    "run_sweep": "sweep",
    "runtime_env": "joining",
    "with_budget": "budgeted_tuner",
    "write_report": "report.page",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
