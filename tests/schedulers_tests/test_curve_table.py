from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schedulers.curve_table import CurveTable, read_curve_table


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "task.parquet")
    return folder / "task.parquet"


def test_a_table_is_read(tmp_path: Path) -> None:
    rows = [{"k": 0.1 * row, "opt": "sgd", "curve": [2.0, 1.0 + row], "epoch_device_seconds": 3.0} for row in range(3)]
    table = read_curve_table(written(tmp_path, rows))
    assert (table.name, table.mode, table.max_t, table.epoch_seconds) == ("task", "min", 2, [3.0] * 3)
    assert table.configs[1] == {"k": 0.1, "opt": "sgd"}
    assert table.curves[2] == [2.0, 3.0]


def test_what_diverged_has_the_worst_value_of_all(tmp_path: Path) -> None:
    rows = [{"curve": curve} for curve in ([1.0, math.nan], [math.inf, None], [7.0, 0.0], [0.0, 0.5])]
    assert read_curve_table(written(tmp_path, rows)).curves == [[1.0, 7.0], [7.0, 7.0], [7.0, 0.0], [0.0, 0.5]]
    assert read_curve_table(written(tmp_path, rows), "max").curves[0] == [1.0, 0.0]


def test_where_half_diverged_they_have_no_part_in_the_median(tmp_path: Path) -> None:
    rows = [{"curve": curve} for curve in ([1e12, math.nan], [1.0, None], [3.0, 4.0], [3.0, 2.0])]
    table = read_curve_table(written(tmp_path, rows))
    assert [table.regret(value) for value in (2.0, 2.5, 3.0, 1e12)] == [0.0, 0.5, 1.0, 1.0]
    fewer = read_curve_table(written(tmp_path, [*rows[1:], {"curve": [5.0, 6.0]}]))
    assert fewer.regret(3.5) == 0.5, "of 6, 4, 2 and 6 the median is 5"
    nothing_else = read_curve_table(written(tmp_path, [{"curve": [1.0, math.nan]}]))
    assert nothing_else.regret(1.0) == 0.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"loss": [1.0]}], "no list column 'curve'"),
        ([{"curve": 1.0}], "no list column 'curve'"),
        ([{"curve": [1.0, 2.0]}, {"curve": []}], "at least one epoch: row 2 has none"),
        ([{"curve": ["a"]}], "hold 'a', but must hold numbers"),
        ([{"curve": [math.nan]}], "no finite value"),
        ([{"curve": [1.0], "epoch_device_seconds": 0.0}], "0.0 in row 1: it must be a number above 0"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_curve_table(written(tmp_path, rows))


def test_a_file_that_is_not_there_or_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    for name in ("text.parquet", "none.parquet"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a Parquet file"):
            read_curve_table(tmp_path / name)


def test_a_column_that_python_cannot_hold_is_refused(tmp_path: Path) -> None:
    beyond = pa.array([2**60], pa.timestamp("ms"))
    pq.write_table(pa.table({"when": beyond, "curve": [[1.0]]}), tmp_path / "task.parquet")
    with pytest.raises(ValueError, match=r"task.parquet cannot be read as a Parquet file"):
        read_curve_table(tmp_path / "task.parquet")


@pytest.mark.parametrize("kind", [pa.large_list(pa.float32()), pa.list_(pa.float64(), 2)], ids=str)
def test_other_lists_are_lists(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"curve": pa.array([[1.0, 2.0], [0.5, 0.25]], kind)}), tmp_path / "task.parquet")
    assert read_curve_table(tmp_path / "task.parquet").curves == [[1.0, 2.0], [0.5, 0.25]]


def test_where_the_median_is_the_best_it_is_all_or_nothing(tmp_path: Path) -> None:
    table = read_curve_table(written(tmp_path, [{"curve": [1.0]}, {"curve": [1.0]}, {"curve": [2.0]}]))
    assert [table.regret(value) for value in (1.0, 1.5, 2.0, None)] == [0.0, 1.0, 1.0, 1.0]


def test_values_may_be_as_large_as_numbers_are(tmp_path: Path) -> None:
    table = read_curve_table(written(tmp_path, [{"curve": [value]} for value in (-1.7e308, 0.0, 1.7e308)]))
    assert [table.regret(value) for value in (-1.7e308, -0.85e308, 1.7e308)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_regret_is_0_at_the_best_and_1_at_the_median(sign: float) -> None:
    curves = [[sign * 9.0, sign * final] for final in (4.0, 2.0, 8.0)]
    table = CurveTable("", "min" if sign > 0 else "max", [{}] * 3, curves, None)
    assert [table.regret(value) for value in (sign * 2.0, sign * 3.0, sign * 4.0, sign * 9.0, sign * 1.0)] == [
        0.0, 0.5, 1.0, 1.0, 0.0,
    ]  # fmt: skip
    regrets = table.regrets([(10.0, sign * 9.0), (50.0, sign * 3.0), (99.0, sign * 2.0)], 100.0)
    assert len(regrets) == 50
    assert (regrets[0], regrets[23], regrets[24], regrets[48], regrets[49]) == (1.0, 1.0, 0.5, 0.5, 0.0)
