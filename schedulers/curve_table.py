"""Learning curves in a table, one row for each configuration, to simulate sweeps over it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schedulers.search_record import Kind
from schedulers.workload import METRIC, Benchmark, Learner, Workload, share_of_median

CURVE = "curve"
EPOCH_SECONDS = "epoch_device_seconds"

_EPOCH_SECONDS = 600.0


@dataclass(frozen=True)
class CurveTable(Benchmark):
    """Learning curves of many configurations.

    Attributes:
        name: For people.
        mode: ``min`` or ``max``.
        configs: The configurations.
        curves: Of each, its value after epoch 1, 2, ..., at least one, and all finite: where training had diverged, the
            worst value of the table. One that is shorter than others is of a training that ends there.
        diverged: The numbers of those that have no last value of their own.
        epoch_seconds: Of each, device-seconds of an epoch; None: the table does not tell.
    """

    name: str
    mode: str
    configs: Sequence[Mapping[str, Any]]
    curves: Sequence[Sequence[float]]
    epoch_seconds: Sequence[float] | None
    diverged: frozenset[int] = frozenset()

    horizon_told = False

    @property
    def epoch_device_seconds(self) -> float:  # type: ignore[override]
        """What an epoch costs in the mean over all rows, if the table tells; else what it takes in simulations."""
        return fmean(self.epoch_seconds) if self.epoch_seconds is not None else _EPOCH_SECONDS

    @property
    def max_t(self) -> int:
        """Epochs of the longest training."""
        return max(map(len, self.curves))

    def workload(self, seed: int) -> TableWorkload:
        """Its rows in an order of the seed's."""
        return TableWorkload(self, seed)

    def regret(self, value: float | None) -> float:
        """How far a value is from the table's best final value, in [0, 1]: 1 is its median one, or no value at all.

        Where half of all trainings or more diverged the median is that of the others.
        """
        sign = 1.0 if self.mode == "min" else -1.0
        best, middle = self._finals
        return share_of_median(None if value is None else sign * value, best, middle)

    @cached_property
    def _finals(self) -> tuple[float, float]:
        """The best and the median final value, lower ones better."""
        sign = 1.0 if self.mode == "min" else -1.0
        final = [sign * curve[-1] for curve in self.curves]
        ended = [value for row, value in enumerate(final) if row not in self.diverged]
        return min(final), median(ended if ended and 2 * len(ended) <= len(final) else final)


def read_curve_table(path: str | Path, mode: str = "min") -> CurveTable:
    """Read a table of learning curves.

    Args:
        path: A Parquet file with a list column ``curve`` (one value an epoch), optionally a column
            ``epoch_device_seconds``, and any number of others, which are the configuration.
        mode: ``min`` if lower values are better, ``max`` if higher ones are.

    Raises:
        ValueError: The file is no such table.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: a table is one Parquet file")
    try:
        table = pq.read_table(path)
        rows = table.to_pylist()
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    if CURVE not in table.column_names or not _is_list(table.schema.field(CURVE).type):
        raise ValueError(f"{path} has no list column {CURVE!r} with a value after each epoch")
    raw = [row.pop(CURVE) or [] for row in rows]
    if not raw or not all(raw):
        empty = f"row {raw.index([]) + 1} has none" if raw else "it has no rows"
        raise ValueError(f"the curves of {path} must have a value for at least one epoch: {empty}")
    if wrong := [value for curve in raw for value in curve if not isinstance(value, (int, float, Decimal, type(None)))]:
        raise ValueError(f"the curves of {path} hold {wrong[0]!r}, but must hold numbers")
    numbers = [[math.nan if value is None else float(value) for value in curve] for curve in raw]
    finite = [value for curve in numbers for value in curve if math.isfinite(value)]
    if not finite:
        raise ValueError(f"the curves of {path} have no finite value")
    worst = max(finite) if mode == "min" else min(finite)
    curves = [[value if math.isfinite(value) else worst for value in curve] for curve in numbers]
    diverged = frozenset(row for row, curve in enumerate(numbers) if not math.isfinite(curve[-1]))
    seconds = [row.pop(EPOCH_SECONDS) for row in rows] if EPOCH_SECONDS in table.column_names else None
    for number, value in enumerate(seconds or (), 1):
        if not isinstance(value, (int, float, Decimal)) or not 0 < value < math.inf:
            raise ValueError(f"{EPOCH_SECONDS} of {path} is {value!r} in row {number}: it must be a number above 0")
    return CurveTable(Path(path).stem, mode, rows, curves, seconds and [float(value) for value in seconds], diverged)


def _is_list(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


class TableWorkload(Workload):
    """Trials that are rows of a table, in an order that is the same for every scheduler under one seed.

    Args:
        table: The table.
        seed: Of the order, and of what epochs take where the table does not tell.
        mean_epoch_seconds: What an epoch takes on the average over all rows, in simulated seconds: whatever it takes on
            a clock, so that the seconds that grants hold for killing and saving are few beside.
        cost_spread: Standard deviation of its logarithm over configurations, where the table does not tell.

    Attributes:
        epoch_seconds: The same average.
    """

    def __init__(
        self, table: CurveTable, seed: int, mean_epoch_seconds: float = _EPOCH_SECONDS, cost_spread: float = 0.5
    ) -> None:
        # Where names need a folder to tell them apart, a table has the draws that it has alone.
        drawn = random.Random(f"{table.name.rsplit('/', 1)[-1]} {seed}")
        self._table = table
        self._rows = list(range(len(table.curves)))
        drawn.shuffle(self._rows)
        if table.epoch_seconds is None:
            drift = -(cost_spread**2) / 2
            self._seconds = [math.exp(drawn.gauss(drift, cost_spread)) for _ in self._rows]
        else:
            self._seconds = list(table.epoch_seconds)
        self.epoch_seconds, mean = mean_epoch_seconds, fmean(self._seconds)
        self._seconds = [mean_epoch_seconds * seconds / mean for seconds in self._seconds]

    def draw(self, number: int, kind: Kind) -> tuple[Mapping[str, Any], Learner] | None:
        """The next row of the order; None behind the last one."""
        if kind != "search" or number >= len(self._rows):
            return None
        row = self._rows[number]
        return self._table.configs[row], _Curve(self._table.curves[row], self._seconds[row])


class _Curve(Learner):
    """A row of a table, so many epochs far."""

    def __init__(self, curve: Sequence[float], epoch_seconds: float) -> None:
        self._curve = curve
        self._epoch_seconds = epoch_seconds
        self._epochs = 0

    def epoch_seconds(self) -> float:
        """As the table has it."""
        return self._epoch_seconds

    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        """The next value of the curve."""
        self._epochs += 1
        return {METRIC: self._curve[self._epochs - 1]}

    @property
    def done(self) -> bool:
        """Whether the curve ends here."""
        return self._epochs >= len(self._curve)
