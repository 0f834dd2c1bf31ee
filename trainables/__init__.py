"""Everything that learns: NASIB searches (Singh et al., 2019) as a Trainable, their data and what they find.

Names are imported when they are first used, so that settings can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.architecture import Architecture as Architecture
    from trainables.architecture import MacroShape as MacroShape
    from trainables.data import BatchTransform as BatchTransform
    from trainables.data import Dataset as Dataset
    from trainables.data import ImageSet as ImageSet
    from trainables.data import Splits as Splits
    from trainables.data import load_dataset as load_dataset
    from trainables.data import make_splits as make_splits
    from trainables.manifest import verify_checkpoint as verify_checkpoint
    from trainables.nasib import NasibTrainable as NasibTrainable
    from trainables.settings import DataSettings as DataSettings
    from trainables.settings import SearchSettings as SearchSettings
    from trainables.settings import TrialSettings as TrialSettings
    from trainables.supernet import build_network as build_network

_HOMES = {
    "Architecture": "architecture",
    "BatchTransform": "data",
    "DataSettings": "settings",
    "Dataset": "data",
    "ImageSet": "data",
    "MacroShape": "architecture",
    "NasibTrainable": "nasib",
    "SearchSettings": "settings",
    "Splits": "data",
    "TrialSettings": "settings",
    "build_network": "supernet",
    "load_dataset": "data",
    "make_splits": "data",
    "verify_checkpoint": "manifest",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
