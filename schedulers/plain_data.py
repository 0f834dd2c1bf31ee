"""The part of results and configurations that a journal can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

Place = tuple[str | int, ...]
"""Keys and numbers that lead to a value, from outside to inside."""

FUNCTION = "__fn_ph"
"""What Tune's placeholder of a function begins with."""

LOST = object()
"""Stands for a value that JSON cannot hold."""

_NOT_FINITE = ("inf", "-inf", "nan")


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
    """The part of a configuration that JSON can hold, each value as :func:`kept_value` gives it."""
    kept = {key: kept_value(value) for key, value in config.items()}
    return {key: value for key, value in kept.items() if value is not LOST}


def kept_value(value: Any) -> Any:
    """A value as JSON can hold it: a tuple as a list, a number that is not finite as a text; LOST if it cannot."""
    if isinstance(value, Mapping):
        return jsonable(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [kept_value(item) for item in value]
        return items if all(item is not LOST for item in items) else LOST
    return kept_value(value.tolist()) if hasattr(value, "tolist") else LOST


def as_given(space: Any, kept: Any) -> Any:
    """What :func:`jsonable` has kept of a value, as it was written where it was drawn from.

    Args:
        space: What ``param_space`` has in its place: a constant, a mapping, or what Tune draws from.
        kept: What was kept.
    """
    if isinstance(space, Mapping) and set(space) == {"grid_search"}:
        return _written(space["grid_search"], kept)
    if isinstance(space, Mapping) and isinstance(kept, Mapping):
        there = {_own_key(space, key): value for key, value in kept.items()}
        given = {key: as_given(space[key], value) if key in space else value for key, value in there.items()}
        return {**space, **given}
    if isinstance(space, (list, tuple)) and isinstance(kept, list) and len(space) == len(kept):
        return type(space)(map(as_given, space, kept))
    return _written(getattr(space, "categories", [space]), kept)


def _written(values: Sequence[Any], kept: Any) -> Any:
    """Which of these has become the value that was kept; this value itself if none has."""
    for value in values:
        # A true value equals the number 1.
        if kept_value(value) == kept and isinstance(value, bool) == isinstance(kept, bool):
            return value
    return kept


def _own_key(mapping: Mapping[Any, Any], key: Any) -> Any:
    """The key of a mapping that JSON, which has none but texts, gives as this one; the same if there is none."""
    return key if key in mapping else next((own for own in mapping if str(own) == key), key)


def function_places(kept: Any, place: Place = ()) -> list[Place]:
    """Where a configuration that was kept has placeholders of functions, from which Tune draws when it adds a trial."""
    if isinstance(kept, list) and kept[:1] == [FUNCTION]:
        return [place]
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(kept, (Mapping, list)):
        inner = kept.items() if isinstance(kept, Mapping) else enumerate(kept)
    return [found for key, value in inner for found in function_places(value, (*place, key))]


def value_at(config: Any, place: Place) -> Any:
    """What a configuration has at a place.

    Raises:
        LookupError: It has no such place.
    """
    for key in place:
        config = config[_own_key(config, key) if isinstance(config, Mapping) else key]
    return config


def with_value(config: Any, place: Place, value: Any) -> Any:
    """A configuration with another value at a place that it has; it is not changed itself."""
    if not place:
        return value
    key, inner = place[0], place[1:]
    if isinstance(config, Mapping):
        key = _own_key(config, key)
        return {**config, key: with_value(config[key], inner, value)}
    return type(config)([with_value(one, inner, value) if at == key else one for at, one in enumerate(config)])


def in_form_of(kept: Any, other: Any) -> Any:
    """A value that was kept, with the type that another one has: what the same function returned later."""
    if isinstance(other, tuple) and isinstance(kept, list):
        return tuple(in_form_of(one, there) for one, there in zip_longest(kept, other[: len(kept)]))
    if isinstance(other, np.ndarray):
        return np.asarray(kept, other.dtype)
    if isinstance(other, (np.generic, float)) and (isinstance(kept, (int, float)) or kept in _NOT_FINITE):
        return type(other)(kept)  # type: ignore[call-arg,unused-ignore]
    return other.new_tensor(kept) if hasattr(other, "new_tensor") else kept
