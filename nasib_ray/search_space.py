"""Which settings of a search are tuned, in which ranges, and which are fixed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from pydantic import ValidationError

from nasib_ray.problems import Problems, allowed_values, keys_of, rule_of, unknown_key, wrong_value
from trainables.settings import DEFAULT_K_RANGE, DEFAULT_LAMBDA_RANGE, SearchSettings

PAPER_K = 0.1
"""k in the experiments of Singh et al. (2019)."""

_KEYS = keys_of(SearchSettings)
_RANGES = ("uniform", "log_uniform", "int", "log_int")
_CHOICES = ("choice", "grid")
_MEASURING = ("objective", "objective_epochs", "objective_trainings")
_SAME_FOR_ALL = "one value for the whole sweep: searches are compared by it"
_SYNTAX = (
    "{uniform: [low, high]}, {log_uniform: [low, high]}, {int: [low, high]}, {log_int: [low, high]}, "
    "{choice: [value, ...]} or {grid: [value, ...]}"
)
# More combinations of extremes than this are not all tried when a space is checked.
_MOST_CORNERS = 4096


@dataclass(frozen=True)
class Range:
    """An interval, both ends included, from which a number is drawn.

    Attributes:
        low: The lower end.
        high: The upper end, above ``low``.
        log: Whether the number's logarithm is uniform, not the number; ``low`` is then above 0.
        whole: Whether only whole numbers are drawn.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, (int, float))
            and self.low <= value <= self.high
            and (not self.whole or value == int(value))
        )

    def plain(self) -> dict[str, Any]:
        """The range as it is written in a configuration."""
        kind = ("log_int" if self.log else "int") if self.whole else ("log_uniform" if self.log else "uniform")
        return {kind: [self.low, self.high]}


@dataclass(frozen=True)
class Choice:
    """Values of which one is taken.

    Attributes:
        values: At least one, all different.
        grid: Whether they are tried one after the other, in combination with those of every other grid, before
            anything is drawn.
    """

    values: tuple[Any, ...]
    grid: bool = False

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def plain(self) -> dict[str, Any]:
        """The choice as it is written in a configuration."""
        return {"grid" if self.grid else "choice": list(self.values)}


Axis = Range | Choice


@dataclass(frozen=True)
class SearchSpace:
    """The settings of a search: each is tuned or fixed.

    A *point* is a mapping from keys of tuned settings to values; a partial one leaves some of them out.

    Attributes:
        axes: What is tuned, by key.
        fixed: All other settings.
    """

    axes: Mapping[str, Axis]
    fixed: Mapping[str, Any]

    @classmethod
    def parse(cls, section: Mapping[str, Any]) -> SearchSpace:
        """Read the section ``search`` of a configuration.

        A value is fixed, or says how the setting is tuned: ``{uniform: [low, high]}``, ``{log_uniform: [low, high]}``,
        ``{int: [low, high]}``, ``{log_int: [low, high]}``, ``{choice: [value, ...]}`` or ``{grid: [value, ...]}``.
        k and lambda are tuned in their default ranges if they are not given, all else is fixed at its default.

        Raises:
            ValueError: For each key that is unknown, and each value, bound and choice that SearchSettings refuses,
                there is a line; where none is wrong, for the first combination of them that is refused.
        """
        if not isinstance(section, Mapping):
            raise Problems(wrong_value("search", section, f"a mapping with the keys {', '.join(_KEYS)}"))
        given = {
            "k": {"log_uniform": list(DEFAULT_K_RANGE)},
            "lambda": {"log_uniform": list(DEFAULT_LAMBDA_RANGE)},
            **section,
        }
        axes: dict[str, Axis] = {}
        fixed: dict[str, Any] = {}
        problems: list[str] = []
        for key, value in given.items():
            try:
                if key not in _KEYS:
                    raise Problems(unknown_key("search", key, {"search": _KEYS}))
                kind = next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else None
                if key in _MEASURING and kind in (*_RANGES, *_CHOICES):
                    raise Problems(wrong_value(f"search.{key}", value, _SAME_FOR_ALL))
                if kind in _RANGES:
                    axes[key] = _range(key, kind, value[kind])
                elif kind in _CHOICES:
                    axes[key] = _choice(key, kind, value[kind])
                else:
                    hint = f", or tuned as in {_SYNTAX}" if isinstance(value, Mapping) else ""
                    fixed[key] = _checked(f"search.{key}", key, value, hint)
            except Problems as problem:
                problems.append(str(problem))
        if problems:
            raise Problems("\n".join(problems))
        # All that a later version may take for the default is written down.
        defaults = SearchSettings().model_dump(mode="json", by_alias=True)
        space = cls(axes, {key: value for key, value in {**defaults, **fixed}.items() if key not in axes})
        for corner in islice(space._corners(), _MOST_CORNERS):
            try:
                space.settings_of(corner)
            except ValueError as error:
                raise Problems(f"search: {error}") from error
        return space

    def settings_of(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of the search at a point: the keys of SearchSettings with values that JSON can hold.

        Args:
            point: Values of all tuned settings; it may name fixed ones too, and then overrides them.

        Raises:
            ValueError: If SearchSettings refuses them.
        """
        assert set(self.axes) <= set(point), f"a point without {sorted(set(self.axes) - set(point))}"
        try:
            settings = SearchSettings.model_validate({**self.fixed, **point})
        except ValidationError as error:
            causes = [detail.get("ctx", {}).get("error", detail["msg"]) for detail in error.errors()]
            raise ValueError("; ".join(map(str, causes))) from error
        return settings.model_dump(mode="json", by_alias=True)

    def point_of(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point of a trial's configuration; None if it lies outside of this space."""
        point = {key: config[key] for key in self.axes if key in config}
        return point if len(point) == len(self.axes) and all(point[key] in self.axes[key] for key in point) else None

    def check_point(self, name: str, point: Mapping[str, Any]) -> dict[str, Any]:
        """A partial point as the user wrote it, checked.

        Args:
            name: What to call it in messages, such as ``points[0]``.
            point: Values of any settings, also of fixed ones; those of tuned ones must lie in their ranges.

        Raises:
            ValueError: With a line for each key that is unknown and each value that is not allowed.
        """
        if not isinstance(point, Mapping):
            raise Problems(wrong_value(name, point, "a mapping, such as {k: 0.1}"))
        checked: dict[str, Any] = {}
        problems: list[str] = []
        for key, value in point.items():
            try:
                if key not in _KEYS:
                    raise Problems(unknown_key(name, key, {name: _KEYS}))
                checked[key] = _checked(f"{name}.{key}", key, value)
                if key in _MEASURING and checked[key] != self.fixed[key]:
                    raise Problems(wrong_value(f"{name}.{key}", value, _SAME_FOR_ALL))
                if key in self.axes and checked[key] not in self.axes[key]:
                    allowed = f"in the range in which it is tuned, search.{key} = {json.dumps(self.axes[key].plain())}"
                    raise Problems(wrong_value(f"{name}.{key}", value, allowed))
            except Problems as problem:
                problems.append(str(problem))
        if not problems:
            try:
                self.settings_of({**next(self._corners()), **checked})
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise Problems("\n".join(problems))
        return checked

    def default_points(self) -> list[dict[str, Any]]:
        """What is tried first unless the user says otherwise: the paper's k and a lambda from mid-range, if drawn.

        None where k is tuned over other values.
        """
        low, high = DEFAULT_LAMBDA_RANGE
        candidates = {"k": PAPER_K, "lambda": float(f"{math.sqrt(low * high):.2g}")}
        point = {key: value for key, value in candidates.items() if self._draws(key) and value in self.axes[key]}
        return [point] if point and ("k" in point or "k" not in self.axes) else []

    @property
    def size(self) -> int | None:
        """How many searches the space holds; None if something is drawn, so that there is always one more."""
        if any(map(self._draws, self.axes)):
            return None
        return math.prod(len(values) for values in self._grids().values())

    def given(self, number: int) -> dict[str, Any] | None:
        """The partial point that the grids prescribe for a search.

        Args:
            number: 0 for the first search that follows the user's points.

        Returns:
            The combination of grid values of that number, the last grid varying fastest; behind the last combination
            an empty point if something is left to be drawn, else None: nothing is left to try.
        """
        grids = self._grids()
        values = next(islice(product(*grids.values()), number, None), None)
        if values is None:
            return {} if self.size is None else None
        return dict(zip(grids, values, strict=True))

    def plain(self) -> dict[str, Any]:
        """The section as it is written in a configuration, with every default written out."""
        return {key: self.axes[key].plain() if key in self.axes else self.fixed[key] for key in _KEYS}

    def _draws(self, key: str) -> bool:
        axis = self.axes.get(key)
        return isinstance(axis, Range) or (isinstance(axis, Choice) and not axis.grid)

    def _grids(self) -> dict[str, tuple[Any, ...]]:
        return {key: axis.values for key, axis in self.axes.items() if isinstance(axis, Choice) and axis.grid}

    def _corners(self) -> Iterator[dict[str, Any]]:
        """Points at which rules between settings may break: those are about names and whole numbers."""
        extremes = {
            key: axis.values if isinstance(axis, Choice) else (axis.low, axis.high) if axis.whole else (axis.low,)
            for key, axis in self.axes.items()
        }
        return (dict(zip(extremes, values, strict=True)) for values in product(*extremes.values()))


def _checked(name: str, key: str, value: Any, hint: str = "") -> Any:
    """The value of one setting as JSON can hold it; raises Problems if the setting's own rule refuses it."""
    rule = rule_of(SearchSettings, key)
    try:
        # Strictly as JSON: "true" is no number, and a text is none either.
        return rule.dump_python(rule.validate_json(json.dumps(value, default=str), strict=True), mode="json")
    except ValidationError as error:
        raise Problems(wrong_value(name, value, allowed_values(rule.json_schema()) + hint)) from error


def _range(key: str, kind: str, bounds: Any) -> Range:
    name = f"search.{key}.{kind}"
    log, whole = kind.startswith("log_"), kind.endswith("int")
    numbers = int if whole else (int, float)
    if not (
        isinstance(bounds, Sequence)
        and len(bounds) == 2
        and all(isinstance(bound, numbers) and not isinstance(bound, bool) for bound in bounds)
        and bounds[0] < bounds[1]
    ):
        what = "whole numbers" if whole else "numbers"
        raise Problems(wrong_value(name, bounds, f"two {what} [low, high], low below high"))
    low, high = (_checked(name, key, bound) for bound in bounds)
    if log and low <= 0:
        raise Problems(wrong_value(name, bounds, "a range above 0, as its logarithm is drawn"))
    if whole:
        return Range(int(low), int(high), log, whole)
    try:
        _checked(name, key, low + (high - low) / math.pi)
    except Problems as problem:
        raise Problems(wrong_value(name, bounds, "written with int or log_int: these are whole numbers")) from problem
    return Range(low, high, log, whole)


def _choice(key: str, kind: str, values: Any) -> Choice:
    name = f"search.{key}.{kind}"
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise Problems(wrong_value(name, values, "a list of at least one value"))
    checked = [_checked(f"{name}[{place}]", key, value) for place, value in enumerate(values)]
    if any(value in checked[:place] for place, value in enumerate(checked)):
        raise Problems(wrong_value(name, values, "a list in which no value occurs twice"))
    return Choice(tuple(checked), grid=kind == "grid")
