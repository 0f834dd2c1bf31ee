"""The part of results and configurations that a journal can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that JSON can hold: numbers (not finite: None), texts, booleans, lists of such."""

    def convert(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        # NumPy's arrays and scalars and torch's tensors all have it.
        return convert(value.tolist()) if hasattr(value, "tolist") else str(value)

    return {key: convert(value) for key, value in metrics.items() if not key.startswith("config/")}


def jsonable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that JSON can hold; the rest comes from ``param_space`` again on a resume."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            kept[key] = jsonable(value)
        elif _fits(value):
            kept[key] = value
        elif isinstance(value, (list, tuple)) and all(map(_fits, value)):
            kept[key] = list(value)
        elif hasattr(value, "item") and _fits(value.item()):
            kept[key] = value.item()
    return kept


def _fits(value: Any) -> bool:
    return value is None or isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value))
