"""`nasib-ray` as a process of its own, as a user would start it, and what is seen of its sweep from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow import fs

from nasib_ray import load_sweep
from schedulers.journal_replay import JournalError, read_journal

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "examples" / "digits.yaml")


class Command:
    """A running `nasib-ray` with its output in a file.

    Args:
        tmp_path: Where the output and the prepared data go.
        arguments: Of the command line.
        cwd: Where it is started.
        cpus: The processors that it may use; None: as this process.
    """

    def __init__(self, tmp_path: Path, *arguments: str, cwd: Path = ROOT, cpus: set[int] | None = None) -> None:
        self.output = tmp_path / f"output-{time.monotonic_ns()}.txt"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NASIB_RAY_CACHE": str(tmp_path / "cache")}
        environment.pop("RAY_ADDRESS", None)
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nasib_ray", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                start_new_session=True,
                preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
            )

    def ends(self) -> int:
        try:
            return self.process.wait(timeout=180)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def kill(self) -> None:
        """Kill it with all the processes of its Ray."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        return self.output.read_text()


def wait_for(told: Callable[[], Any], seconds: float = 90.0) -> Any:
    """Wait until something is so, and return what was told."""
    until = time.monotonic() + seconds
    while not (answer := told()):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.1)
    return answer


def reports(path: Path) -> int:
    try:
        return len(load_sweep(path).dataframe())
    except ValueError:
        return 0


def records_of(path: Path) -> list[dict[str, Any]]:
    """The whole journal of a sweep; empty before there is one."""
    try:
        return read_journal(fs.LocalFileSystem(), str(path / "journal"), from_start=True).records
    except (JournalError, FileNotFoundError):
        return []
