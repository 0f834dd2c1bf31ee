"""Where the records of a sweep go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class RecordBook(Protocol):
    """Where records go; the journal, or a list in a simulation."""

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Complete a record with number, time and run, and keep it."""

    def flush(self) -> None:
        """Return when all that was appended is durable."""
