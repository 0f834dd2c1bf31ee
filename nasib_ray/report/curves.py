"""Figures of what searches reported, epoch by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from nasib_ray.report.figures import (
    EMPHASIS,
    FAINT,
    INK,
    STATE_COLOURS,
    Figure,
    figure,
    log_axis,
    rounded,
    shown,
    thinned,
)
from nasib_ray.report.history import Curve, HappeningKind, History
from nasib_ray.status import single_values
from nasib_ray.tables import short_value
from schedulers.allocators import rungs_of_horizon
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState

_ACCURACY = "val_accuracy"
_MARKS: dict[HappeningKind, tuple[str, str]] = {
    "paused": ("square-open", "#607d8b"),
    "promoted": ("triangle-up", "#2f9e44"),
    "resumed": ("triangle-right", "#2a6f97"),
    "horizon changed": ("diamond", "#7048e8"),
    "cut": ("x", "#e8890c"),
    "failed": ("x", "#c1121f"),
    "checkpoint lost": ("hexagram", "#c1121f"),
    "weights given up": ("circle-open", "#b39ddb"),
}
_TOLD_SETTINGS = 4
_FEW_MARKS = 40
_OTHERS = ("#2a6f97", "#52b788", "#9775fa", "#607d8b", "#8ecae6", "#adb5bd")


def learning_curves(
    state: SweepState, history: History, settings: Sequence[str], incumbent: SearchRecord | None
) -> Figure | None:
    """The ranked metric, and the accuracy besides, against epochs; None as long as nothing was reported.

    Args:
        state: The sweep.
        history: What happened to it.
        settings: Names of those that tell its trials apart.
        incumbent: The search that is emphasised, if one is.
    """
    metric = state.settings.get("metric") or "value"
    searches = [search for search in state.searches.values() if search.kind == "search" and search.id in history.curves]
    metrics = [metric] if metric == _ACCURACY else [metric, _ACCURACY]
    points = {name: {search.id: history.curves[search.id].points(name) for search in searches} for name in metrics}
    metrics = [name for name in metrics if any(points[name].values())]
    if not metrics:
        return None
    drawn = make_subplots(rows=len(metrics), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    # The emphasised one is drawn last, above the others.
    for search in sorted(searches, key=lambda search: search is incumbent):
        for row, name in enumerate(metrics, 1):
            _add_curve(drawn, row, name, search, points[name][search.id], settings, search is incumbent)
    for number in _rungs(state):
        for row in range(1, len(metrics) + 1):
            drawn.add_vline(x=number, row=row, col=1, line={"color": FAINT, "width": 1, "dash": "dash"})
        drawn.add_annotation(
            x=number, y=1, yref="paper", yanchor="bottom", text=f"rung {number}", showarrow=False,
            font={"size": 11, "color": "#607d8b"},
        )  # fmt: skip
    # Where each epoch has a value, a happening stands on its trial's line.
    marked = metrics[-1]
    _add_marks(drawn, len(metrics), history, points[marked])
    noun = "trial" if state.settings.get("config") is None else "search"
    _add_states(drawn, noun, searches, incumbent)
    for row, name in enumerate(metrics, 1):
        drawn.update_yaxes(title=shown(name), row=row, col=1)
    drawn.update_xaxes(title="epochs", rangemode="tozero", row=len(metrics), col=1)
    leads = "" if incumbent is None else "; the incumbent is emphasised"
    caption = (
        f"A line for each {noun}, coloured by its state now{leads}. {_measured(state, metrics)}"
        "Marks say what happened and when; their texts are under the pointer. A click in the legend hides "
        "or shows."
    )
    legend = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
    return figure(drawn, "curves", caption, 200 + 280 * len(metrics), hovermode="closest", legend=legend)


def finalists(state: SweepState, history: History) -> Figure | None:
    """The curves of the trainings among which the selection chooses; None if there are none."""
    trained = [trial for trial in state.searches.values() if trial.kind == "select" and trial.id in history.curves]
    metric = _ACCURACY
    points = {trial.id: history.curves[trial.id].points(metric) for trial in trained}
    if not any(points.values()):
        return None
    drawn = go.Figure()
    chosen = state.selected
    for number, trial in enumerate(sorted(trained, key=lambda trial: trial is chosen)):
        best = trial is chosen
        found_by = trial.config.get("name", "")
        x, y = zip(*thinned(points[trial.id]), strict=True) if points[trial.id] else ((), ())
        drawn.add_scatter(
            x=x, y=rounded(y), mode="lines", name=f"found by {shown(found_by)}" + (", selected" if best else ""),
            line={"width": 3, "color": EMPHASIS} if best else {"width": 1.5, "color": _OTHERS[number % len(_OTHERS)]},
            hovertemplate="epoch %{x}: %{y:.3f}",
        )  # fmt: skip
    drawn.update_xaxes(title="epochs of the training from scratch", rangemode="tozero")
    drawn.update_yaxes(title=metric)
    caption = (
        "The networks of the best searches, trained from scratch side by side to select one. The accuracy is on the "
        "selection split, which trained none of them: selected among several, so optimistic."
    )
    return figure(drawn, "finalists", caption, 360, hovermode="x unified")


def effective_candidates(state: SweepState, history: History, search: SearchRecord | None) -> Figure | None:
    """How many candidates a layer still draws from, of one search by layer and of all on average."""
    curve = history.curves.get(search.id) if search is not None else None
    layers = _by_layer(curve) if curve is not None else []
    means = {
        other.id: history.curves[other.id].points("effective_candidates_mean")
        for other in state.searches.values()
        if other.kind == "search" and other.id in history.curves
    }
    if not layers and not any(means.values()):
        return None
    titles = (f"by layer, search {shown(search.id)}" if search is not None else "by layer", "mean over layers")
    drawn = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=titles)
    colours = sample_colorscale("Viridis", [number / max(1, len(layers) - 1) * 0.9 for number in range(len(layers))])
    for number, (points, colour) in enumerate(zip(layers, colours, strict=True), 1):
        x, y = zip(*thinned(points), strict=True)
        drawn.add_scatter(
            x=x, y=rounded(y), mode="lines", name=f"layer {number}", line={"color": colour, "width": 1.8}, row=1, col=1,
            hovertemplate="epoch %{x}: %{y:.3g}",
        )  # fmt: skip
    by_epoch: dict[int, list[float]] = {}
    for number, (name, points) in enumerate((name, points) for name, points in means.items() if points):
        x, y = zip(*thinned(points), strict=True)
        drawn.add_scatter(
            x=x, y=rounded(y), mode="lines", name="a search", legendgroup="a search", showlegend=number == 0,
            line={"color": FAINT, "width": 1}, opacity=0.7, row=1, col=2,
            hovertemplate=f"{shown(name)}, epoch %{{x}}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
        for epoch, value in points:
            by_epoch.setdefault(epoch, []).append(value)
    averages = thinned(sorted((epoch, statistics.fmean(values)) for epoch, values in by_epoch.items()))
    if averages:
        x, y = zip(*averages, strict=True)
        drawn.add_scatter(
            x=x, y=rounded(y), mode="lines", name="all searches", line={"color": INK, "width": 3}, row=1, col=2,
            hovertemplate="all searches, epoch %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
    drawn.update_xaxes(title="epochs", rangemode="tozero")
    drawn.update_yaxes(**log_axis(1.0, 1000.0))
    drawn.update_yaxes(title="effective candidates", row=1, col=1)
    caption = (
        "The exponential of the entropy of the exploiting policy: as many equally likely candidates would be as "
        "undecided. All candidates at the start (where alpha says nothing yet), 1 where a layer has made up its mind. "
        "The mean of all searches is over those that came to an epoch."
    )
    legend = {"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top", "tracegroupgap": 0}
    return figure(drawn, "effective", caption, max(400, 160 + 20 * len(layers)), hovermode="closest", legend=legend)


def _add_curve(
    drawn: go.Figure,
    row: int,
    metric: str,
    search: SearchRecord,
    points: Sequence[tuple[int, float]],
    settings: Sequence[str],
    best: bool,
) -> None:
    if not points:
        return
    x, y = zip(*thinned(points), strict=True)
    values = single_values(search.config)
    told = ", ".join(f"{name} {short_value(values[name])}" for name in settings[:_TOLD_SETTINGS] if name in values)
    drawn.add_scatter(
        x=x, y=rounded(y), row=row, col=1, showlegend=False, name=shown(search.id),
        mode="lines+markers" if best or len(points) <= 4 else "lines",
        line={"width": 3, "color": EMPHASIS} if best else {"width": 1.2, "color": STATE_COLOURS[search.state]},
        marker={"size": 6 if best else 4},
        opacity=1.0 if best else 0.55,
        hovertemplate=f"{shown(search.id)}, epoch %{{x}}: {shown(metric)} %{{y:.4g}}<br>{shown(told)}<extra></extra>",
    )  # fmt: skip


def _add_marks(drawn: go.Figure, row: int, history: History, points: dict[str, list[tuple[int, float]]]) -> None:
    lowest = min(value for curve in points.values() for _, value in curve)
    for kind, (symbol, colour) in _MARKS.items():
        happened = thinned([happening for happening in history.of_kind(kind) if happening.trial in points])
        if not happened:
            continue
        heights = [_height(points[happening.trial], happening.epoch, lowest) for happening in happened]
        drawn.add_scatter(
            x=rounded([happening.epoch for happening in happened]), y=rounded(heights), mode="markers", name=kind,
            marker={"symbol": symbol, "color": colour, "size": 9 if len(happened) <= _FEW_MARKS else 6},
            text=[f"{shown(happening.trial)}: {shown(happening.text)}" for happening in happened],
            hovertemplate="%{text}<extra></extra>", row=row, col=1,
        )  # fmt: skip


def _add_states(drawn: go.Figure, noun: str, searches: Sequence[SearchRecord], incumbent: SearchRecord | None) -> None:
    """Entries of the legend for the lines, which have none of their own."""
    states = [state for state in STATE_COLOURS if any(search.state == state for search in searches)]
    entries = [(f"{state} {noun}", STATE_COLOURS[state], 1.5) for state in states]
    if incumbent is not None:
        entries = [(f"incumbent {shown(incumbent.id)}", EMPHASIS, 3.0), *entries]
    for name, colour, width in entries:
        drawn.add_scatter(x=[None], y=[None], mode="lines", name=name, line={"color": colour, "width": width})


def _height(points: Sequence[tuple[int, float]], epoch: float, otherwise: float) -> float:
    """Where a trial's line is at an epoch: its value at the last one that had any."""
    return next((value for at, value in reversed(points) if at <= epoch), points[0][1] if points else otherwise)


def _rungs(state: SweepState) -> list[int]:
    config = state.settings.get("config")
    if config is None or state.full_horizon is None or config.get("allocator") != "async-halving":
        return []
    return rungs_of_horizon(state.full_horizon, config["rungs"])


def _measured(state: SweepState, metrics: Sequence[str]) -> str:
    if "objective" not in metrics:
        return ""
    config = next(iter(state.searches.values())).config
    if "ranked_by" in config:
        return f"The objective is the {config['ranked_by']} of the network as it is trained from scratch. "
    how = config.get("objective")
    return f"The objective ({how}) is measured only where searches may be compared, as at rungs and at their ends. "


def _by_layer(curve: Curve) -> list[list[tuple[int, float]]]:
    """For each layer the effective candidates by epoch."""
    rows = [
        (epoch, metrics["effective_candidates"])
        for epoch, metrics in zip(curve.epochs, curve.metrics, strict=True)
        if isinstance(metrics.get("effective_candidates"), list)
    ]
    return [
        list(zip([epoch for epoch, _ in rows], layer, strict=True)) for layer in zip(*(v for _, v in rows), strict=True)
    ]
