"""Figures of how a sweep's budget was spent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go

from nasib_ray.report.figures import EMPHASIS, FAINT, INK, KIND_COLOURS, Figure, figure, moment, rounded, shown, thinned
from nasib_ray.report.history import History, Holding, Run
from nasib_ray.status import WITHOUT_LIMIT
from schedulers.ledger import KINDS
from schedulers.sweep_state import SweepState

_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))
_MOST_BARS = 120
_MOST_ROWS = 400
_FEW_ROWS = 40
_LONG_GAP = 0.25
_GRANTS = {
    "measure": ("#8ecae6", "to measure an epoch"),
    "new": ("#90a4ae", "a new trial"),
    "continue": ("#2a6f97", "to the next rung"),
    "endgame": ("#d9480f", "endgame"),
    "share": ("#2a6f97", "its share"),
    "select": ("#f4a261", "selection"),
}


def burn_down(frame: pd.DataFrame, history: History, device: str) -> Figure:
    """What was held by kind, and promised beyond that, over wall-clock time.

    Args:
        frame: What :func:`nasib_ray.accounts.accounts_frame` gave; at least one row.
        history: Of the sweep.
        device: What the budget counts.
    """
    spent = held_by_kind(frame)
    budget = frame[["spent_device_seconds", "granted_device_seconds", "free_device_seconds"]].sum(axis=1)
    bounded = float(budget.max()) < WITHOUT_LIMIT
    rows = _shown_rows(frame)
    held = frame["spent_device_seconds"].iloc[rows]
    unit, size = _unit(float(budget.max()) if bounded else float(held.max()))
    times = [moment(time) for time in _unix(frame["time"].iloc[rows])]
    drawn = go.Figure()
    for kind in KINDS:
        if spent[kind].max() > 0:
            amounts = rounded([value / size for value in spent[kind].iloc[rows]])
            drawn.add_scatter(
                x=times, y=amounts, name=kind, stackgroup="held", mode="lines",
                line={"width": 0.5, "color": KIND_COLOURS[kind], "shape": "hv"},
                fillcolor=KIND_COLOURS[kind], hovertemplate="%{y:.4g}",
            )  # fmt: skip
    if bounded:
        granted = rounded([value / size for value in frame["granted_device_seconds"].iloc[rows]])
        drawn.add_scatter(
            x=times, y=granted, name="granted, not held yet", stackgroup="held", mode="lines",
            line={"width": 0.5, "color": FAINT, "shape": "hv"},
            fillcolor="rgba(144, 164, 174, 0.25)", hovertemplate="%{y:.4g}",
        )  # fmt: skip
        line = rounded([value / size for value in budget.iloc[rows]])
        drawn.add_scatter(
            x=times, y=line, name="budget", mode="lines", hovertemplate="%{y:.4g}",
            line={"color": INK, "width": 2, "dash": "dash", "shape": "hv"},
        )  # fmt: skip
    cut = _mark_runs(drawn, history.runs)
    drawn.update_xaxes(title="time (UTC)")
    drawn.update_yaxes(title=f"{device.upper()}-{unit}", rangemode="tozero")
    caption = (
        f"Device-time held, by kind, in {device.upper()}-{unit}"
        + (
            "; beyond that what is promised to running trials. What is held and promised never exceeds the budget."
            if bounded
            else "."
        )
        + (" A dotted line is the start of a run of the sweep." if len(history.runs) > 1 else "")
        + (" The time between two runs is left out." if cut else "")
    )
    return figure(drawn, "burn-down", caption, 440, hovermode="x unified")


def spent_by_trial(state: SweepState, device: str) -> Figure:
    """What each trial held, by kind."""
    held = state.ledger.spent_by_trial
    trials = [(search.id, held.get(search.id, {})) for search in state.searches.values()]
    ranked = sorted(trials, key=lambda trial: -sum(trial[1].values()))
    rows = ranked[:_MOST_BARS]
    if rest := ranked[_MOST_BARS:]:
        together = {kind: sum(kinds.get(kind, 0.0) for _, kinds in rest) for kind in KINDS}
        rows = [*rows, (f"{len(rest)} others", together)]
    unit, size = _unit(max(sum(kinds.values()) for _, kinds in rows))
    drawn = go.Figure()
    for kind in KINDS:
        amounts = [kinds.get(kind, 0.0) / size for _, kinds in rows]
        if any(amounts):
            drawn.add_bar(
                y=[shown(name) for name, _ in rows], x=rounded(amounts), name=kind, orientation="h",
                marker={"color": KIND_COLOURS[kind], "line": {"width": 0}},
                hovertemplate=f"%{{y}}: %{{x:.4g}} {unit} {kind}<extra></extra>",
            )  # fmt: skip
    _trial_axis(drawn, [name for name, _ in rows])
    drawn.update_xaxes(title=f"{device.upper()}-{unit}")
    caption = "Device-time that each trial held, by kind; the one that held most on top."
    return figure(drawn, "by-trial", caption, _height(rows), barmode="stack", bargap=0.25, showlegend=True)


def timeline(state: SweepState, history: History) -> Figure:
    """Which trial had a slot when, and why it was given it."""
    had = {holding.trial for holding in history.holdings}
    rows = [search.id for search in state.searches.values() if search.id in had][:_MOST_BARS]
    places = {trial: place for place, trial in enumerate(rows)}
    drawn = go.Figure()
    for why in dict.fromkeys(holding.why for holding in history.holdings):
        held = [holding for holding in history.holdings if holding.why == why and holding.trial in places]
        x: list[str | None] = []
        y: list[int | None] = []
        texts: list[str | None] = []
        for holding in thinned(held):
            x += [moment(holding.start), moment(holding.end), None]
            y += [places[holding.trial]] * 2 + [None]
            texts += [_told(holding)] * 2 + [None]
        colour, name = _GRANTS.get(why, (FAINT, why))
        drawn.add_scatter(
            x=x, y=y, mode="lines", name=shown(name), text=texts, hovertemplate="%{text}<extra></extra>",
            line={"width": 10 if len(rows) <= _FEW_ROWS else 7, "color": colour},
        )  # fmt: skip
    cut = _mark_runs(drawn, history.runs)
    drawn.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[shown(name) for name in rows], range=[len(rows) - 0.4, -0.6],
        tickfont={"size": _font(rows)}, showgrid=False, zeroline=False,
    )  # fmt: skip
    drawn.update_xaxes(title="time (UTC)")
    left_out, most = len(had) - len(rows), len(history.holdings)
    drawn_grants = sum(1 for trace in drawn.data for at in trace.y if at is None)
    caption = (
        "When each trial held a slot (from the booking of a grant to its release), by what the grant was for; trials "
        "in the order in which they were begun."
        + (f" {left_out} more trials are not shown." if left_out else "")
        + (f" Of {most:,} grants {drawn_grants:,} are drawn." if drawn_grants < most else "")
        + (" The time between two runs is left out." if cut else "")
    )
    return figure(drawn, "timeline", caption, _height(rows), hovermode="closest", showlegend=True)


def _shown_rows(frame: pd.DataFrame) -> list[int]:
    """The numbers of the rows that are drawn: some, the borders of runs among them, and the most that was promised."""
    borders = [place for place, (run, after) in enumerate(pairwise(frame["run"])) if run != after]
    kept = {*thinned(range(len(frame)), _MOST_ROWS), *borders, *(place + 1 for place in borders)}
    return sorted({*kept, int(frame["granted_device_seconds"].to_numpy().argmax())})


def held_by_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """The device-seconds held of each kind after each row."""
    kind, amount = frame["kind"].fillna(""), frame["amount_device_seconds"]
    held = {}
    for name in KINDS:
        moved = (
            kind.str.endswith(f"-> {name}").astype(float) - kind.str.startswith(f"{name} ->").astype(float)
        ) * amount
        held[name] = (amount.where((frame["event"] == "charge") & (kind == name), 0.0) + moved).cumsum().clip(lower=0.0)
    return pd.DataFrame(held)


def _mark_runs(drawn: go.Figure, runs: Sequence[Run]) -> bool:
    """Draw a line where a run begins; leave long waits between runs out. Returns whether there were any."""
    worked = sum(run.end - run.start for run in runs)
    gaps = [(before.end, after.start) for before, after in pairwise(runs)]
    cut = [(start, end) for start, end in gaps if end - start > _LONG_GAP * worked]
    if cut:
        # A little of each gap stays, so that lines on either side of it are apart.
        margin = 0.01 * worked
        drawn.update_xaxes(
            rangebreaks=[{"bounds": [moment(start + margin), moment(end - margin)]} for start, end in cut]
        )
    for run in runs[1:] if len(runs) <= _MOST_BARS else ():
        drawn.add_shape(
            type="line", x0=moment(run.start), x1=moment(run.start), y0=0, y1=1, yref="paper",
            line={"color": EMPHASIS, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
        if len(runs) <= 8:
            drawn.add_annotation(
                x=moment(run.start), y=1, yref="paper", text=f"run {run.number}", showarrow=False, xanchor="left",
                yanchor="top", font={"size": 11, "color": EMPHASIS}, bgcolor="rgba(255, 255, 255, 0.7)",
            )  # fmt: skip
    return bool(cut)


def _trial_axis(drawn: go.Figure, names: Sequence[str]) -> None:
    drawn.update_yaxes(
        type="category", categoryorder="array", categoryarray=[shown(name) for name in names][::-1],
        tickfont={"size": _font(names)}, dtick=1,
    )  # fmt: skip


def _height(rows: Sequence[object]) -> int:
    """Of a figure with a row for each trial, in pixels."""
    return 130 + (20 if len(rows) <= _FEW_ROWS else 13) * len(rows)


def _font(rows: Sequence[object]) -> int:
    return 11 if len(rows) <= _FEW_ROWS else 9


def _told(holding: Holding) -> str:
    horizon = "" if holding.horizon is None else f", horizon {holding.horizon}"
    state = "open" if holding.open else f"{holding.end - holding.start:,.1f} s"
    return (
        f"{shown(holding.trial)}, grant {shown(holding.grant)} ({shown(holding.why)}), {state}<br>"
        f"{holding.epochs} epochs planned{horizon}<br>"
        f"{holding.held:,.1f} of {holding.amount:,.1f} device-seconds held"
    )


def _unit(most: float) -> tuple[str, float]:
    return next(((name, size) for name, size in _UNITS if most >= 2 * size), _UNITS[-1])


def _unix(times: pd.Series) -> list[float]:
    return [time.timestamp() for time in times]
