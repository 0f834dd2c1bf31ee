"""The reports of a sweep as a table: one row each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from nasib_ray.status import single_values
from schedulers.sweep_state import SweepState


def reports_frame(state: SweepState, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Every report of a sweep as a row, in the order in which they came.

    An epoch that was lost in a crash and done again has two rows. Where a name is taken by a column that differs, a
    metric is called ``metric/<name>`` and a setting ``config/<name>``.

    Args:
        state: The sweep.
        records: Its journal's records, from the start.

    Returns:
        Columns: ``trial``; ``index``, the trial's in the sweep; ``run``, the driver's, from 1; ``epochs``; ``value``,
        of the ranked metric, missing where the epoch was cut; ``time``, UTC; ``device``, that of the budget; every
        reported metric; every setting of the trial (``k``, ``lambda``, ``seed``, ``split_seed``, which is the sweep's,
        ``data/name``, ...; lists as JSON); ``versions/<package>``.
    """
    reports = [record for record in records if record["event"] == "report"]
    searches = [state.searches[report["trial"]] for report in reports]
    own = pd.DataFrame(
        {
            "trial": [search.id for search in searches],
            "index": [search.index for search in searches],
            "run": [report["run"] for report in reports],
            "epochs": [report["epochs"] for report in reports],
            "value": pd.Series([report["value"] for report in reports], dtype="float64"),
            "time": pd.to_datetime([report["time"] for report in reports], unit="s", utc=True),
            "device": state.settings.get("device"),
        }
    )
    metrics = pd.DataFrame([report["metrics"] for report in reports], index=own.index)
    settings = pd.DataFrame([single_values(search.config) for search in searches], index=own.index)
    versions = {f"versions/{name}": version for name, version in state.settings.get("versions", {}).items()}
    return _beside(_beside(own, metrics, "metric/"), settings, "config/").assign(**versions)


def write_csv(frame: pd.DataFrame, file: str | os.PathLike[str] | TextIO) -> None:
    """Write a table of reports as comma-separated values, with lists as JSON, to a path or an open file.

    Raises:
        OSError: If the file cannot be written.
    """
    frame.map(lambda cell: json.dumps(cell) if isinstance(cell, list) else cell).to_csv(file, index=False)


def write_parquet(frame: pd.DataFrame, file: str | os.PathLike[str]) -> None:
    """Write a table of reports as Parquet.

    Raises:
        OSError: If the file cannot be written.
    """
    table = pa.table({name: _arrow(frame[name]) for name in frame.columns})
    parquet.write_table(table, os.fspath(file))


def _beside(left: pd.DataFrame, right: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The columns of both; of those whose name is taken, none that says the same, the others with a prefix."""
    taken = [name for name in right.columns if name in left.columns]
    told = [name for name in taken if right[name].equals(left[name])]
    return pd.concat([left, right.drop(columns=told).rename(columns={name: prefix + name for name in taken})], axis=1)


def _arrow(column: pd.Series) -> pa.Array:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # A setting may be "auto" for one trial and True for another; a column of Parquet has one type.
        cells = zip(column, column.notna(), strict=True)
        return pa.array([str(cell) if known else None for cell, known in cells], pa.string())
