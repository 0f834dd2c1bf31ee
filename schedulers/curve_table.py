"""Learning curves in a table, one row for each configuration, to simulate sweeps over it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schedulers.sweep_state import Kind
from schedulers.workload import METRIC, Benchmark, Learner, Workload, share_of_median

CURVE = "curve"
EPOCH_SECONDS = "epoch_device_seconds"


@dataclass(frozen=True)
class CurveTable(Benchmark):
    """Learning curves of many configurations.

    Attributes:
        name: For people.
        mode: ``min`` or ``max``.
        configs: The configurations.
        curves: Of each, its value after epoch 1, 2, ...; equally many of each, and all finite: where training had
            diverged, the worst value of the table.
        epoch_seconds: Of each, device-seconds of an epoch; None: the table does not tell.
    """

    name: str
    mode: str
    configs: Sequence[Mapping[str, Any]]
    curves: Sequence[Sequence[float]]
    epoch_seconds: Sequence[float] | None

    horizon_told = False

    @property
    def max_t(self) -> int:
        """Epochs of a full training."""
        return len(self.curves[0])

    def workload(self, seed: int) -> TableWorkload:
        """Its rows in an order of the seed's."""
        return TableWorkload(self, seed)

    def regret(self, value: float | None) -> float:
        """How far a value is from the table's best final value, in [0, 1]: 1 is its median one, or no value at all."""
        sign = 1.0 if self.mode == "min" else -1.0
        final = [sign * curve[-1] for curve in self.curves]
        return share_of_median(None if value is None else sign * value, min(final), median(final))


def read_curve_table(path: str | Path, mode: str = "min") -> CurveTable:
    """Read a table of learning curves.

    Args:
        path: A Parquet file with a list column ``curve`` (one value an epoch), optionally a column
            ``epoch_device_seconds``, and any number of others, which are the configuration.
        mode: ``min`` if lower values are better, ``max`` if higher ones are.

    Raises:
        ValueError: The file is no such table, or all its configurations end alike.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} cannot be read as a Parquet file: {error}") from error
    if CURVE not in table.column_names or not pa.types.is_list(table.schema.field(CURVE).type):
        raise ValueError(f"{path} has no list column {CURVE!r} with a value after each epoch")
    rows = table.to_pylist()
    raw = [row.pop(CURVE) or [] for row in rows]
    lengths = {len(curve) for curve in raw}
    if len(lengths) != 1 or lengths == {0}:
        found = f"{min(lengths)} to {max(lengths)}" if lengths else "none"
        raise ValueError(f"the curves of {path} have {found} epochs: all must have equally many, at least 1")
    numbers = [[math.nan if value is None else float(value) for value in curve] for curve in raw]
    finite = [value for curve in numbers for value in curve if math.isfinite(value)]
    if not finite:
        raise ValueError(f"the curves of {path} have no finite value")
    worst = max(finite) if mode == "min" else min(finite)
    curves = [[value if math.isfinite(value) else worst for value in curve] for curve in numbers]
    seconds = [row.pop(EPOCH_SECONDS) for row in rows] if EPOCH_SECONDS in table.column_names else None
    if seconds is not None and not all(isinstance(value, (int, float)) and value > 0 for value in seconds):
        raise ValueError(f"{EPOCH_SECONDS} of {path} must be above 0 in every row")
    made = CurveTable(Path(path).stem, mode, rows, curves, seconds)
    final = [curve[-1] for curve in curves]
    if median(final) == (min(final) if mode == "min" else max(final)):
        raise ValueError(f"in {path} the median of the final values is the best one: there is nothing to search for")
    return made


class TableWorkload(Workload):
    """Trials that are rows of a table, in an order that is the same for every scheduler under one seed.

    Args:
        table: The table.
        seed: Of the order, and of what epochs take where the table does not tell.
        mean_epoch_seconds: What an epoch takes on the average, in that case.
        cost_spread: Standard deviation of its logarithm over configurations, in that case.

    Attributes:
        epoch_seconds: What an epoch takes on the average over all rows.
    """

    def __init__(
        self, table: CurveTable, seed: int, mean_epoch_seconds: float = 600.0, cost_spread: float = 0.5
    ) -> None:
        drawn = random.Random(f"{table.name} {seed}")
        self._table = table
        self._rows = list(range(len(table.curves)))
        drawn.shuffle(self._rows)
        if table.epoch_seconds is None:
            drift = -(cost_spread**2) / 2
            self._seconds = [mean_epoch_seconds * math.exp(drawn.gauss(drift, cost_spread)) for _ in self._rows]
        else:
            self._seconds = list(table.epoch_seconds)
        self.epoch_seconds = fmean(self._seconds)

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
