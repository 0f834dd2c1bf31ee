"""A found network as a drawing: SVG, one block for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from trainables.candidates import is_import_path, kernel_of

_WIDTH, _MARGIN, _GAP = 1120, 12, 22
_HEIGHT, _ROW_GAP = 176, 34
_LAYER_WIDTH, _END_WIDTH, _REDUCTION_WIDTH = 104, 76, 70
_GRID = 72
_LONGEST_NAME = 13
_COLOURS = {
    "conv": "#2a6f97",
    "sepconv": "#52b788",
    "avg_pool": "#f4a261",
    "max_pool": "#e76f51",
    "identity": "#adb5bd",
    "own": "#9775fa",
}
MEANINGS = {
    "conv": "convolution",
    "sepconv": "depthwise separable convolution",
    "avg_pool": "average pooling",
    "max_pool": "max pooling",
    "identity": "identity",
    "own": "an operation of the user's own",
}


@dataclass(frozen=True)
class Skeleton:
    """A network but for its layers' operations; what is not known is None.

    Attributes:
        channels: Behind the stem; each reduction doubles them.
        reductions: Numbers of the layers, from 1, before which the resolution is halved.
        m: The largest height and width of a kernel that was searched.
        image_shape: (channels, height, width) of an image.
        classes: Number of classes.
    """

    channels: int
    reductions: tuple[int, ...]
    m: int
    image_shape: tuple[int, int, int] | None = None
    classes: int | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], macro: Mapping[str, Any] | None) -> Skeleton:
        """From a search's settings, and what is known of the network around its layers."""
        known = {**settings, **(macro or {})}
        shape = known.get("image_shape")
        return cls(
            int(known["channels"]),
            tuple(known["reductions"]),
            int(settings.get("m", 1)),
            None if shape is None else (shape[0], shape[1], shape[2]),
            known.get("classes"),
        )

    def size_at(self, layer: int) -> str:
        """Channels and resolution of a layer, from 1; of the stem for 0."""
        halved = sum(reduction <= layer for reduction in self.reductions)
        channels = f"{self.channels << halved} ch"
        if self.image_shape is None:
            return channels
        _, height, width = self.image_shape
        return f"{channels}, {height >> halved}x{width >> halved}"


def used_kinds(operations: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The kinds of operations among these: what they mean and how they are coloured."""
    kinds = {_kind(name) for name in operations}
    return {kind: (MEANINGS[kind], _COLOURS[kind]) for kind in MEANINGS if kind in kinds}


def architecture_svg(operations: Sequence[str], skeleton: Skeleton) -> Markup:
    """Draw a network, in as many rows as it takes.

    Args:
        operations: Names of the layers' operations, in order.
        skeleton: What is around them.
    """
    side = max([skeleton.m, *(size for name in operations for size in (kernel_of(name) or ("", 1, 1))[1:])])
    blocks = _blocks(operations, skeleton, side)
    fewest = len(_wrapped(blocks, _WIDTH))
    # As narrow as as many rows allow: so they are about equally long.
    rows = next(rows for limit in range(300, _WIDTH + 1, 10) if len(rows := _wrapped(blocks, limit)) == fewest)
    height = len(rows) * (_HEIGHT + _ROW_GAP) - _ROW_GAP + 2 * _MARGIN
    width = max(_MARGIN * 2 + 8 + sum(w + _GAP for w, _ in row) - _GAP for row in rows)
    parts = [
        f'<svg class="architecture" role="img" viewBox="0 0 {width} {height}" width="{width}" '
        'xmlns="http://www.w3.org/2000/svg"><title>The found network</title>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#546e7a"/></marker></defs>'
    ]
    for number, row in enumerate(rows):
        x, y = _MARGIN + (8 if number else 0), _MARGIN + number * (_HEIGHT + _ROW_GAP)
        middle = y + _HEIGHT // 2
        for place, (block_width, body) in enumerate(row):
            parts.append(f'<g transform="translate({x} {y})">{body}</g>')
            x += block_width
            if place < len(row) - 1:
                parts.append(_arrow(f"M{x} {middle}H{x + _GAP}"))
                x += _GAP
        if number < len(rows) - 1:
            # Into the next row from its left, where blocks of all heights are met in their middle.
            turn, next_middle = y + _HEIGHT + _ROW_GAP // 2, middle + _HEIGHT + _ROW_GAP
            parts.append(_arrow(f"M{x} {middle}h8V{turn}H4V{next_middle}H{_MARGIN + 8}"))
    return Markup("".join([*parts, "</svg>"]))


def _wrapped(blocks: Sequence[tuple[int, str]], limit: int) -> list[list[tuple[int, str]]]:
    """The blocks in rows that are no wider than a limit, if their blocks are not."""
    rows: list[list[tuple[int, str]]] = [[]]
    for block in blocks:
        taken = sum(width + _GAP for width, _ in rows[-1])
        if rows[-1] and _MARGIN * 2 + taken + block[0] > limit:
            rows.append([])
        rows[-1].append(block)
    return rows


def _blocks(operations: Sequence[str], skeleton: Skeleton, side: int) -> list[tuple[int, str]]:
    """Width and drawing of each part of the network."""
    shape = skeleton.image_shape
    image = [] if shape is None else [f"{shape[0]} ch", f"{shape[1]}x{shape[2]}"]
    blocks = [
        (_END_WIDTH, _plain(_END_WIDTH, "image", image)),
        (_END_WIDTH, _plain(_END_WIDTH, "stem", ["conv3x3", *skeleton.size_at(0).split(", ")])),
    ]
    for number, name in enumerate(operations, 1):
        if number in skeleton.reductions:
            told = ["half the", "resolution,", "twice the", "channels"]
            blocks.append((_REDUCTION_WIDTH, _plain(_REDUCTION_WIDTH, "reduce", told)))
        blocks.append((_LAYER_WIDTH, _layer(number, name, skeleton.size_at(number), side)))
    classes = [] if skeleton.classes is None else [f"{skeleton.classes} classes"]
    return [*blocks, (_END_WIDTH, _plain(_END_WIDTH, "head", ["average,", "linear", *classes]))]


def _plain(width: int, title: str, lines: Sequence[str]) -> str:
    height = 40 + 16 * len(lines)
    top = (_HEIGHT - height) // 2
    texts = "".join(_text(width / 2, top + 42 + 16 * number, line, 11, "#546e7a") for number, line in enumerate(lines))
    frame = f'<rect y="{top}" width="{width}" height="{height}" rx="6" fill="#f1f3f5" stroke="#adb5bd"/>'
    return frame + _text(width / 2, top + 22, title, 13, "#263238", bold=True) + texts


def _layer(number: int, name: str, size: str, side: int) -> str:
    """A layer: its number, its kernel in the grid of all sizes, its operation, and what comes out of it."""
    colour, centre = _COLOURS[_kind(name)], _LAYER_WIDTH / 2
    return (
        f"<title>{escape(f'layer {number}: {name}')}</title>"
        f'<rect y="8" width="{_LAYER_WIDTH}" height="{_HEIGHT - 8}" rx="6" fill="#fff" stroke="{colour}" '
        'stroke-width="1.5"/>'
        # The shortcut around the operation.
        f'<path d="M8 8C8 -5 {_LAYER_WIDTH - 8} -5 {_LAYER_WIDTH - 8} 8" fill="none" stroke="#adb5bd"/>'
        + _text(centre, 27, f"layer {number}", 11, "#546e7a")
        + _window(name, side, colour)
        + _text(centre, 134, _short_name(name), 13 if len(_short_name(name)) < 12 else 11, "#263238", bold=True)
        + _text(centre, 155, size, 11, "#546e7a")
    )


def _window(name: str, side: int, colour: str) -> str:
    """The kernel as a window of i rows and j columns in the middle of the grid; a sign for what has no size."""
    left, top = (_LAYER_WIDTH - _GRID) / 2, 38
    kernel = kernel_of(name)
    if kernel is None:
        y = top + _GRID / 2
        if name == "identity":
            return f'<path d="M{left} {y}H{left + _GRID}" stroke="{colour}" stroke-width="3" marker-end="url(#tip)"/>'
        frame = f'<rect x="{left}" y="{top + 12}" width="{_GRID}" height="{_GRID - 24}" rx="4" fill="{colour}"/>'
        return frame + _text(left + _GRID / 2, y + 4, "own", 12, "#fff", bold=True)
    kind, i, j = kernel
    cell = _GRID / side
    x, y = left + (side - j) // 2 * cell, top + (side - i) // 2 * cell
    lines = "".join(
        f"M{left + at * cell:.2f} {top}v{_GRID}M{left} {top + at * cell:.2f}h{_GRID}" for at in range(side + 1)
    )
    dash = ' stroke-dasharray="3 2"' if kind == "sepconv" else ""
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{j * cell:.2f}" height="{i * cell:.2f}" fill="{colour}" '
        f'fill-opacity="{0.45 if kind == "sepconv" else 0.85}" stroke="{colour}" stroke-width="2"{dash}/>'
        f'<path d="{lines}" fill="none" stroke="#cfd8dc" stroke-width=".7"/>'
    )


def _kind(name: str) -> str:
    kernel = kernel_of(name)
    return kernel[0] if kernel else "identity" if name == "identity" else "own"


def _short_name(name: str) -> str:
    """The class of a user's own operation; its whole path is in the block's title."""
    short = name.rpartition(":")[2] if is_import_path(name) else name
    return short if len(short) <= _LONGEST_NAME else short[: _LONGEST_NAME - 1] + "…"


def _text(x: float, y: float, text: str, size: int, colour: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="{size}" fill="{colour}"{weight}>'
        f"{escape(text)}</text>"
    )


def _arrow(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="#546e7a" stroke-width="1.3" marker-end="url(#tip)"/>'
