"""Whether a sweep whose driver was killed went on as if nothing had happened; on disks and object stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyarrow import fs

from schedulers import JournalError, SweepState, read_journal
from tests.schedulers_tests.budgeted_sweep import Script


def place_of(script: Script) -> tuple[fs.FileSystem, str]:
    """The sweep's folder, and the filesystem where it is."""
    filesystem, storage = fs.FileSystem.from_uri(script.storage)
    return filesystem, f"{storage}/{script.name}"


def records_of(script: Script) -> list[dict[str, Any]]:
    """The whole journal; empty before there is one."""
    filesystem, folder = place_of(script)
    try:
        return read_journal(filesystem, f"{folder}/journal", from_start=True).records
    except (JournalError, FileNotFoundError):
        return []


def when(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Return as soon as a condition is met."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def in_full_swing(script: Script) -> bool:
    """Whether several trials have been saved and one is running."""
    state = SweepState.replay(None, records_of(script))
    saved = sum(bool(search.checkpoints) for search in state.searches.values())
    return saved >= 4 and any(search.state == "running" for search in state.searches.values())


def check_continuation(script: Script, before: SweepState, after: SweepState) -> None:
    """Nothing was forgotten, nothing begun again, nothing entered twice."""
    assert after.ledger.grants == {}
    assert before.ledger.spent < after.ledger.spent <= after.ledger.budget
    assert list(after.searches)[: len(before.searches)] == list(before.searches)
    assert [search.index for search in after.searches.values()] == list(range(len(after.searches)))
    filesystem, folder = place_of(script)
    found = filesystem.get_file_info(fs.FileSelector(folder))
    folders = {info.base_name for info in found if info.type == fs.FileType.Directory}
    # An object store has no folder of a trial that has stored nothing yet.
    saved_ones = {name for name, search in after.searches.items() if search.checkpoints}
    assert saved_ones <= folders - {"journal"} <= set(after.searches), "every trial has one folder, by its id"
    for name, search in before.searches.items():
        assert after.searches[name].config == search.config
        saved = search.checkpoints[-1].epochs if search.checkpoints else 0
        assert after.searches[name].epochs >= saved
        reported = [record for record in records_of(script) if record["event"] == "report" and record["trial"] == name]
        later = [record["epochs"] for record in reported if record["run"] == 2]
        assert not later or later[0] == saved + 1, "it goes on from its checkpoint"
