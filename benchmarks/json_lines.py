"""Files of JSON lines that long studies append to, and go on with after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All records of a file, none if there is no file; a line that was cut by an interruption counts as none."""
    records = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record behind what a file holds, on a line of its own whatever is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as lines:
        if lines.tell():
            lines.seek(-1, 2)
            if lines.read(1) != b"\n":
                lines.write(b"\n")
        lines.write(json.dumps(record).encode() + b"\n")
