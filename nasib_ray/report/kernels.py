"""Maps of what a search thought of each kernel, epoch by epoch."""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from plotly.subplots import make_subplots
from pyarrow import fs

from nasib_ray.kernel_maps import MAPS, Map, kernel_maps, read_history
from nasib_ray.report.figures import EMPHASIS, INK, Figure, figure, rounded
from nasib_ray.results import Sweep
from schedulers.search_record import SearchRecord
from trainables.candidates import kernel_of

_ACROSS = 6
_MAP_HEIGHT = 190
_TITLES: dict[Map, str] = {
    "alpha": "Alpha",
    "frequency": "Sampling frequency",
    "sampling_probability": "Sampling probability",
}
_CAPTIONS: dict[Map, str] = {
    "alpha": "The architecture parameters: the candidate with the largest one is the layer's operation.",
    "frequency": "How often each candidate was drawn so far.",
    "sampling_probability": "With which chance the layer's next draw, exploring or exploiting, takes each candidate.",
}
_SCALES: dict[Map, str] = {"alpha": "RdBu", "frequency": "Blues", "sampling_probability": "Greens"}


@dataclass(frozen=True)
class KernelFigures:
    """The maps of one search.

    Attributes:
        search: Its id.
        figures: One for each kind of map, with a map for each layer, showing the newest epoch.
        titles: Of the figures.
        epochs: For which there are maps, rising.
        data: All values, as JSON for the page's slider: for each kind and epoch the maps of all layers, and the rows
            of ``sizeless``.
        sizeless: Candidates without a size at the newest epoch: layer, operation, alpha, frequency and probability.
    """

    search: str
    figures: tuple[Figure, ...]
    titles: tuple[str, ...]
    epochs: tuple[int, ...]
    data: Markup
    sizeless: list[list[Any]]


def kernel_history(sweep: Sweep, search: SearchRecord) -> dict[int, pa.Table]:
    """The tables of all candidates by epoch, of the newest checkpoint that has them; empty if none is there any more.

    Args:
        sweep: Where the checkpoints are.
        search: Whose.

    Raises:
        OSError: One is there and cannot be read.
    """
    kept = [*search.checkpoints, *([search.remains] if search.remains else [])]
    for checkpoint in sorted(kept, key=lambda checkpoint: -checkpoint.epochs):
        try:
            tables = read_history(sweep.filesystem, posixpath.join(sweep.folder, checkpoint.path))
        except (FileNotFoundError, pa.ArrowInvalid):
            # A driver at work deletes old checkpoints, and one that was cut short left a part of a file.
            continue
        if tables:
            return tables
    return {}


def macro_shape(sweep: Sweep, search: SearchRecord) -> Mapping[str, Any] | None:
    """The network around a search's layers, as its newest checkpoint describes it; None if none does any more."""
    kept = [*search.checkpoints, *([search.remains] if search.remains else [])]
    for checkpoint in reversed(kept):
        path = posixpath.join(sweep.folder, checkpoint.path, "search.json")
        try:
            if sweep.filesystem.get_file_info(path).type == fs.FileType.File:
                with sweep.filesystem.open_input_stream(path) as file:
                    macro: Mapping[str, Any] = json.loads(file.read())["identity"]["macro"]
                    return macro
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue
    return None


def kernel_figures(search: str, tables: Mapping[int, pa.Table], found: tuple[str, ...]) -> KernelFigures | None:
    """Draw the maps; None if no candidate has a size.

    Args:
        search: Its id.
        tables: What :func:`kernel_history` gave, at least one.
        found: Names of the operations that the result has, which are marked; may be empty.
    """
    epochs = tuple(sorted(tables))
    newest = epochs[-1]
    if not kernel_maps(tables[newest], "alpha"):
        return None
    values: dict[str, dict[str, Any]] = {kind: {} for kind in MAPS}
    for kind in MAPS:
        for epoch in epochs:
            maps = kernel_maps(tables[epoch], kind)
            values[kind][str(epoch)] = [[rounded(row) for row in maps[layer].tolist()] for layer in sorted(maps)]
    sizeless = {str(epoch): list(_sizeless(tables[epoch])) for epoch in epochs}
    data = {"epochs": epochs, "maps": values, "sizeless": sizeless}
    return KernelFigures(
        search,
        tuple(_drawn(kind, values[kind][str(newest)], found) for kind in MAPS),
        tuple(_TITLES[kind] for kind in MAPS),
        epochs,
        _script_json(data),
        sizeless[str(newest)],
    )


def _drawn(kind: Map, maps: list[list[list[float | None]]], found: tuple[str, ...]) -> Figure:
    across = min(_ACROSS, len(maps))
    down = math.ceil(len(maps) / across)
    titles = [f"layer {number}" for number in range(1, len(maps) + 1)]
    drawn = make_subplots(
        rows=down, cols=across, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=0.22 / down
    )
    side = len(maps[0])
    sizes = list(range(1, side + 1))
    for number, values in enumerate(maps):
        place = {"row": number // across + 1, "col": number % across + 1}
        drawn.add_heatmap(
            z=values, x=sizes, y=sizes, coloraxis="coloraxis", hoverongaps=False, xgap=1, ygap=1,
            hovertemplate=f"layer {number + 1}, kernel %{{y}}x%{{x}}: %{{z}}<extra></extra>", **place,
        )  # fmt: skip
    for number in range(len(maps)):
        place = {"row": number // across + 1, "col": number % across + 1}
        kernel = kernel_of(found[number]) if number < len(found) else None
        if kernel is not None:
            _, i, j = kernel
            drawn.add_scatter(
                # An orange ring on a white one is seen on any colour.
                x=[j, j], y=[i, i], mode="markers", showlegend=False, hoverinfo="skip", **place,
                marker={"symbol": "circle-open", "size": 13, "color": ["#fff", EMPHASIS], "line": {"width": [6, 2.5]}},
            )  # fmt: skip
    drawn.update_xaxes(tickvals=sizes, range=[0.5, side + 0.5], showgrid=False, zeroline=False, tickfont={"size": 9})
    drawn.update_yaxes(tickvals=sizes, range=[side + 0.5, 0.5], showgrid=False, zeroline=False, tickfont={"size": 9})
    drawn.update_xaxes(title={"text": "width j", "font": {"size": 11}, "standoff": 4}, row=down)
    drawn.update_yaxes(title={"text": "height i", "font": {"size": 11}, "standoff": 4}, col=1)
    drawn.update_annotations(font={"size": 12, "color": INK})
    low, high = value_range(kind, maps)
    return figure(
        drawn, f"map-{kind}", _CAPTIONS[kind], 80 + _MAP_HEIGHT * down, tools=False,
        coloraxis={"colorscale": _SCALES[kind], "cmin": low, "cmax": high, "colorbar": {"thickness": 12, "len": 0.9}},
        margin={"l": 50, "r": 20, "t": 30, "b": 40},
    )  # fmt: skip


def value_range(kind: Map, maps: list[list[list[float | None]]]) -> tuple[float, float]:
    """Between which values the colours of a kind of map run: alpha about 0, the others from 0."""
    most = max((abs(value) for rows in maps for row in rows for value in row if value is not None), default=0.0) or 1.0
    return (-most if kind == "alpha" else 0.0), most


def _sizeless(table: pa.Table) -> Iterator[list[Any]]:
    """Rows of the candidates that have no size, such as identity."""
    plain = table.filter(pc.is_null(table["i"]))
    for row in plain.select(["layer", "operation", *MAPS]).to_pylist():
        yield [row["layer"], row["operation"], *rounded([row[kind] for kind in MAPS])]


def _script_json(data: Any) -> Markup:
    """JSON that may stand in a script element, whatever names are in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
