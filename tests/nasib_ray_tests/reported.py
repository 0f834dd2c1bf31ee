"""Sweeps to write reports of, and the page of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from plotly.offline import get_plotlyjs

from nasib_ray import write_report
from nasib_ray.config import SweepConfig
from tests.nasib_ray_tests.conftest import Driver


def plain_config(**values: Any) -> dict[str, Any]:
    return SweepConfig(**{"budget": "180 cpu-seconds", "data": "digits", **values}).to_plain()


def begin_sweep(driver: Driver, budget: float = 180.0, **values: Any) -> None:
    driver.begin(budget, config=plain_config(**values), metric="objective")


def add_search(driver: Driver, name: str, k: float, lambda_: float, **settings: Any) -> None:
    fixed = {"layers": 3, "reductions": [3], "channels": 8, "m": 7, "objective": "fine-tuned-likelihood"}
    driver.search(name, k=k, **{"lambda": lambda_}, seed=1, **{**fixed, **settings})


def page_of(folder: Path, tmp_path: Path) -> str:
    """The page of a sweep, without plotly.js."""
    file = tmp_path / "page.html"
    write_report(folder, file)
    page = file.read_text(encoding="utf-8")
    library = get_plotlyjs()
    assert page.count(library) == 1
    return page.replace(library, "")


def save_maps(folder: Path, names: Sequence[str], layers: int, epochs: Sequence[int]) -> None:
    """The part of a checkpoint of a search that says what it thought of its candidates."""
    folder.mkdir(parents=True, exist_ok=True)

    def table(at: Sequence[int]) -> pa.Table:
        rows = [
            {"epoch": epoch, "layer": layer, "i": size[0], "j": size[1], "operation": name}
            | {"alpha": math.sin(number * layer) * epoch / 50, "frequency": number * epoch}
            | {"sampling_probability": 1 / (1 + number)}
            for epoch in at
            for layer in range(1, layers + 1)
            for number, name in enumerate(names)
            for size in [_size(name)]
        ]
        return pa.Table.from_pylist(rows)

    for name, at in (("history", epochs), ("architecture", epochs[-1:])):
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink:
            written = table(at)
            with pa.ipc.new_file(sink, written.schema) as writer:
                writer.write_table(written)


def _size(name: str) -> tuple[int | None, int | None]:
    found = re.search(r"(\d+)x(\d+)", name)
    return (int(found[1]), int(found[2])) if found else (None, None)
