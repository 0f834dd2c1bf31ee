"""What simulated sweeps came to, as tables and as curves."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasib_ray.simulate import SimulatedRun
from nasib_ray.tables import Signs, bare_table

_RESAMPLED = 2000
_WIDTH = 12
_UNBOUNDED = 1000
_OVER_THE_BUDGET = "over the budget"
_WALL = "wall: how long the sweep took, over what the budget lasts with all slots running"

Cell = tuple[float, int]
"""A budget in full trainings, and slots."""

Column = tuple[str, Sequence[str]]
"""A heading and what stands below it."""


def bootstrap(of: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """The 95% interval of a mean: tables are drawn with replacement, then the seeds of each.

    Args:
        of: The values of each table, one for each seed.
    """
    drawn, tables = random.Random(0), list(of.values())

    def resampled() -> float:
        some = drawn.choices(tables, k=len(tables))
        return statistics.fmean(drawn.choice(values) for values in some for _ in values)

    values = sorted(resampled() for _ in range(_RESAMPLED))
    return values[int(0.025 * _RESAMPLED)], values[int(0.975 * _RESAMPLED)]


def simulation_report(console: Console, runs: Sequence[SimulatedRun]) -> None:
    """Print a table for each budget and number of slots, every allocator compared with the first one.

    Where the console is too narrow for it, it is printed in two parts.
    """
    signs = Signs.of(console)
    for (budget, slots), cell in _cells(runs).items():
        first, *_ = allocators = list(dict.fromkeys(run.allocator for run in cell))
        names = {run.table for run in cell}
        tables, seeds = len(names), len({run.seed for run in cell})
        counted = f"{tables} table{'s' * (tables > 1)}" if tables > 1 else f"table {names.pop()}"
        counted += f", {seeds} seed{'s' * (seeds > 1)}"
        bought = f"{budget:g} full trainings, {slots} slot{'s' * (slots > 1)}"
        console.print(f"\nregret; {bought}; {counted}; 95% of the differences to {first}", highlight=False)
        each = [[run for run in cell if run.allocator == allocator] for allocator in allocators]
        column: Column = ("allocator", allocators)
        regrets: list[Column] = []
        for heading, measure in (("final", _final), ("over time", _anytime)):
            regrets.append((heading, [f"{statistics.fmean(map(measure, of)):.3f}" for of in each]))
            regrets.append(("difference", ["", *(_difference(measure, of, each[0]) for of in each[1:])]))
        rest: list[Column] = [
            ("used", [f"{statistics.fmean(run.budget_used for run in of):.1%}" for of in each]),
            ("wall", [f"{statistics.fmean(run.wall_clock for run in of):.2f}" for of in each]),
            ("trials", [f"{statistics.fmean(run.trials for run in of):.0f}" for of in each]),
            (
                "decisions/s",
                [f"{1 / max(1e-9, statistics.median(run.decision_seconds for run in of)):,.0f}" for of in each],
            ),
            (_OVER_THE_BUDGET, [_bars(mean_curve(of), signs.steps) for of in each]),
        ]
        whole = _table([column, *regrets, *rest], signs)
        if console.measure(whole, options=console.options.update(width=_UNBOUNDED)).maximum <= console.width:
            console.print(whole)
        else:
            console.print(_table([column, *regrets], signs), "", _table([column, *rest], signs))
    console.print(_WALL, style="dim", highlight=False)
    if failed := [run for run in runs if run.failure]:
        console.print(f"{len(failed)} of {len(runs)} sweeps failed: {failed[0].failure}", style="red", highlight=False)


def _table(columns: Sequence[Column], signs: Signs) -> Table:
    table = bare_table(signs)
    for heading, _ in columns:
        side: Literal["left", "right"] = "left" if heading in ("allocator", _OVER_THE_BUDGET) else "right"
        table.add_column(heading, justify=side, no_wrap=True, overflow=signs.overflow)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _difference(
    measure: Callable[[SimulatedRun], float], ours: Sequence[SimulatedRun], to: Sequence[SimulatedRun]
) -> str:
    """95% of the difference of two allocators on the same tables and seeds."""
    base, apart = {(run.table, run.seed): measure(run) for run in to}, defaultdict[str, list[float]](list)
    for run in ours:
        apart[run.table].append(measure(run) - base[run.table, run.seed])
    low, high = bootstrap(apart)
    return f"{low:+.3f} to {high:+.3f}"


def mean_curve(runs: Sequence[SimulatedRun]) -> list[float]:
    """Regret at each point of the budget, the mean over runs."""
    return [statistics.fmean(values) for values in zip(*(run.regrets for run in runs), strict=True)]


def write_curves(runs: Sequence[SimulatedRun], file: Path) -> None:
    """Write the curves of regret over the budget as one HTML page that needs nothing else."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    cells = _cells(runs)
    titles = [f"{budget:g} full trainings, {slots} slots: {_names(cell)}" for (budget, slots), cell in cells.items()]
    page = make_subplots(rows=len(cells), cols=1, subplot_titles=titles, vertical_spacing=0.3 / len(cells))
    allocators = list(dict.fromkeys(run.allocator for run in runs))
    for row, cell in enumerate(cells.values(), 1):
        for place, allocator in enumerate(allocators):
            curve = mean_curve([run for run in cell if run.allocator == allocator])
            spent = [(point + 1) / len(curve) for point in range(len(curve))]
            look = {"color": _COLOURS[place % len(_COLOURS)]}
            line = go.Scatter(x=spent, y=curve, name=allocator, legendgroup=allocator, showlegend=row == 1, line=look)
            page.add_trace(line, row=row, col=1)
    page.update_xaxes(title="share of the budget", tickformat=".0%")
    page.update_yaxes(title="regret", rangemode="tozero")
    page.update_layout(height=380 * len(cells), template="plotly_white", hovermode="x unified")
    file.write_text(page.to_html(include_plotlyjs=True), encoding="utf-8")


_COLOURS = (
    "#d9480f",
    "#2a6f97",
    "#52b788",
    "#8338ec",
    "#f4a261",
    "#90a4ae",
    "#263238",
    "#c1121f",
    "#7f5539",
    "#e05297",
)


def _cells(runs: Sequence[SimulatedRun]) -> dict[Cell, list[SimulatedRun]]:
    cells: dict[Cell, list[SimulatedRun]] = {}
    for run in runs:
        cells.setdefault((run.budget, run.slots), []).append(run)
    return cells


def _names(cell: Sequence[SimulatedRun]) -> str:
    return ", ".join(dict.fromkeys(run.table for run in cell))


def _final(run: SimulatedRun) -> float:
    return run.final_regret


def _anytime(run: SimulatedRun) -> float:
    return run.anytime_regret


def _bars(curve: Sequence[float], steps: str) -> str:
    """A curve in [0, 1] as a row of signs."""
    parts = [curve[round(place * (len(curve) - 1) / (_WIDTH - 1))] for place in range(_WIDTH)]
    return "".join(steps[min(len(steps) - 1, int(value * len(steps)))] for value in parts)
