"""Deadlines as people write them: a date and time, or how long from now."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_SHORT = {"s": "second", "sec": "second", "min": "minute", "m": "minute", "h": "hour", "d": "day"}
_DURATION = re.compile(r"(?P<number>\d+\.?\d*|\.\d+)\s*(?P<unit>[a-z]+)", re.IGNORECASE | re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_RULE = (
    'a deadline is a date and time, such as "2030-12-01 08:00" (local time) or "2030-12-01T08:00+01:00", or how long '
    'from now, such as "90 minutes" or "12 h"'
)


def parse_deadline(value: Any, now: datetime) -> datetime:
    """Read a deadline.

    Args:
        value: ISO 8601 text or a datetime, in local time unless it says its offset; or a decimal number of days, hours,
            minutes or seconds, counted from now.
        now: The present, with its offset.

    Returns:
        The deadline with its offset; it may have passed.

    Raises:
        ValueError: If the value is anything else.
    """
    if isinstance(value, datetime):
        return value.astimezone()
    text = value.strip() if isinstance(value, str) else ""
    if duration := _DURATION.fullmatch(text):
        unit = duration["unit"].lower()
        unit = _SHORT.get(unit, unit.removesuffix("s"))
        if unit not in _SECONDS:
            raise ValueError(f"{value!r} has the unknown unit {duration['unit']!r}: {_RULE}")
        try:
            return now + timedelta(seconds=round(float(duration["number"]) * _SECONDS[unit]))
        except OverflowError as error:
            raise ValueError(f"{value!r} is beyond all calendars: {_RULE}") from error
    if _DATE.fullmatch(f"{value}"):
        raise ValueError(f"{str(value)!r} has no time of day: {_RULE}")
    try:
        # Python 3.10 does not read the Z for UTC.
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)).astimezone()
    except ValueError as error:
        raise ValueError(f"{value!r} is no deadline: {_RULE}") from error


def check_ahead(deadline: datetime | None, now: datetime) -> None:
    """Make sure that a deadline has not passed.

    Raises:
        ValueError: If it has.
    """
    if deadline is not None and deadline <= now:
        told = f"deadline = {format_deadline(deadline)} has passed, as it is {format_deadline(now)}"
        raise ValueError(f"{told}: give a later one, or none")


def format_deadline(deadline: datetime) -> str:
    """A deadline in local time, with the offset."""
    return deadline.astimezone().isoformat(" ", "seconds")
