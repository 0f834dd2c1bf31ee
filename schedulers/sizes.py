"""Amounts of storage: "20 GB" -> 20,000,000,000 bytes."""

from __future__ import annotations

import math
import re

_DECIMAL = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_BINARY = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_BYTES = {unit.lower(): size for unit, size in {**_DECIMAL, **_BINARY}.items()}
_SIZE = re.compile(r"\s*(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[a-z]*)\s*", re.IGNORECASE | re.ASCII)
_RULE = 'a size is a number above 0 and a unit, such as "500 MB", "20 GB" or "3 GiB", or a whole number of bytes'


def parse_size(size: str | int) -> int:
    """Read a size as people write it.

    Args:
        size: A decimal number and one of the units B, kB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (of 1,024), in
            capitals or not, with or without a space between; or a whole number of bytes.

    Returns:
        Bytes, at least 1.

    Raises:
        ValueError: If it is anything else.
    """
    if isinstance(size, bool) or not isinstance(size, (str, int)):
        raise ValueError(f"{size!r} is no size: {_RULE}")
    written = _SIZE.fullmatch(f"{size}")
    if written is None:
        raise ValueError(f"{size!r} is no size: {_RULE}")
    number, unit = written["number"], written["unit"].lower()
    if not unit and isinstance(size, str) and not size.strip().isdigit():
        raise ValueError(f"{size!r} has no unit: {_RULE}")
    if unit and unit not in _BYTES:
        raise ValueError(f"{size!r} has the unknown unit {written['unit']!r} (there are {_units()}): {_RULE}")
    whole = int(number) if number.isdigit() else float(number)
    # A product of floats may lie just below the whole number that was meant.
    read = math.floor(round(whole * _BYTES[unit or "b"], 6))
    if read < 1:
        raise ValueError(f"{size!r} is less than one byte: {_RULE}")
    return read


def format_size(size: float) -> str:
    """Bytes for people to read, rounded to three digits: "415 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if abs(size) < 999.5 else f"{size:,.0f} TB"


def format_least_size(size: int) -> str:
    """The same, but never rounded down: what is asked for must do when it is given."""
    for unit, factor in reversed(_DECIMAL.items()):
        if size >= factor:
            return f"{math.ceil(100 * size / factor) / 100:.10g} {unit}"
    return f"{size} B"


def _units() -> str:
    return ", ".join([*_DECIMAL, *_BINARY])
