"""What all figures share: colours, layout, how many points are drawn, and how one gets into the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from typing import Any, TypeVar

import plotly.graph_objects as go
from markupsafe import Markup

MOST_POINTS = 300
"""Points of one trace at most: a page must stay small, and nobody sees more."""

INK, FAINT, EMPHASIS = "#263238", "#90a4ae", "#d9480f"

KIND_COLOURS = {
    "setup": "#8ecae6",
    "train": "#2a6f97",
    "checkpoint": "#52b788",
    "idle": "#ced4da",
    "lost": "#c1121f",
    "select": "#f4a261",
}
"""Of the kinds of device-time."""

STATE_COLOURS = {
    "running": "#2f9e44",
    "paused": "#90a4ae",
    "not resumable": "#b39ddb",
    "finished": "#2a6f97",
    "failed": "#c1121f",
}
"""Of the states of trials."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Figure:
    """A figure as it stands in the page.

    Attributes:
        html: Its element and its data; plotly.js is not in it.
        caption: What it shows, in a sentence or two.
    """

    html: Markup
    caption: str


def figure(drawn: go.Figure, name: str, caption: str, height: int, tools: bool = True, **layout: Any) -> Figure:
    """Give a figure the looks that all have.

    Args:
        drawn: With its traces, axes and titles.
        name: The id of its element, unique in the page.
        caption: What it shows.
        height: In pixels; its width is the page's.
        tools: Whether it has buttons to zoom and the like, under the pointer.
        layout: Whatever differs from the others.
    """
    drawn.update_layout(
        **{
            "template": "plotly_white",
            "height": height,
            "font": {"family": _FONT, "size": 13, "color": INK},
            "margin": {"l": 70, "r": 20, "t": 30, "b": 50},
            # Ten pixels above the plot, however high it is.
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1 + 10 / (height - 80), "xanchor": "left", "x": 0},
            "hoverlabel": {"align": "left"},
            **layout,
        }
    )
    drawn.update_xaxes(automargin=True)
    drawn.update_yaxes(automargin=True)
    html = drawn.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={**_CONFIG, "displayModeBar": "hover" if tools else False},
    )
    return Figure(Markup(html), caption)


def thinned(items: Sequence[Item], most: int = MOST_POINTS) -> list[Item]:
    """Some of the items, evenly spaced, the first and the last among them; all if there are no more than ``most``."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / (most - 1)
    return [items[round(number * step)] for number in range(most)]


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis that is labelled at 1, 2 and 5 of each power of ten.

    Args:
        low: The smallest value to be shown, above 0.
        high: The largest one.
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def shown(text: object) -> str:
    """Text of a sweep as plotly shows it as it is: plotly takes some tags for its own."""
    return escape(str(text), quote=False)


def moment(unix_seconds: float) -> str:
    """A time as plotly's axes take it, in UTC."""
    return datetime.fromtimestamp(unix_seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def rounded(values: Sequence[float | None], digits: int = 4) -> list[float | None]:
    """Values with so many significant digits, so that they take little room in the page."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}") for value in values]
