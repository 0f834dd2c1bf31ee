"""Drivers that are killed or told to stop, and what an outside process sees of a sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from schedulers import SweepState
from tests.schedulers_tests.budgeted_sweep import Script
from tests.schedulers_tests.continuation import check_continuation, in_full_swing, records_of, when

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

ROOT = Path(__file__).parents[2]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def script(ray_address: str, tmp_path: Path) -> Script:
    return Script("Reusable", "36 cpu-seconds", str(tmp_path), address=ray_address, terms={"max_t": 16})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``python -m module arguments`` as a terminal would: in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def popen(module: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"tests.schedulers_tests.{module}", *arguments]
        with open(tmp_path / f"{module}.log", "w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_driver_is_resumed_by_the_same_script(script: Script, start: Start) -> None:
    """With Optuna, whose study must go on too; and while the driver lives nobody else may."""
    script = replace(script, optuna=True)
    driver = start("budgeted_sweep", json.dumps(asdict(script)))
    when(lambda: in_full_swing(script))
    with pytest.raises(ValueError, match=f"process {driver.pid}"):
        script.run()
    assert driver.poll() is None, "it was not disturbed"
    when(lambda: in_full_swing(script))
    driver.kill()
    driver.wait()
    before = SweepState.replay(None, records_of(script))
    assert before.ledger.grants
    after = script.run()
    check_continuation(script, before, after)
    assert (after.end, after.runs) == ("finished", 2)
    charged = [record for record in records_of(script) if record["event"] == "charge" and record["kind"] == "lost"]
    assert {record["grant"] for record in charged} == set(before.ledger.grants), "nobody saw how long they held on"
    assert after.ledger.spent_by_kind["lost"] > 0


def test_ctrl_c_saves_everything_and_the_same_script_goes_on(script: Script, start: Start) -> None:
    """In a Ray of the driver's own, whose processes a terminal's Ctrl-C reaches too."""
    driver = start("budgeted_sweep", json.dumps(asdict(replace(script, address=None))))
    when(lambda: in_full_swing(script))
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(60) == 0
    before = SweepState.replay(None, records_of(script))
    assert (before.end, before.ledger.grants) == ("interrupted", {})
    assert before.ledger.spent_by_kind["lost"] == 0.0, "all that ran was saved"
    for search in before.searches.values():
        assert search.state in ("paused", "finished")
        assert search.epochs == (search.checkpoints[-1].epochs if search.checkpoints else 0)
    after = script.run()
    check_continuation(script, before, after)
    assert (after.end, after.runs) == ("finished", 2)


def observed(script: Script, start: Start) -> tuple[float, SweepState]:
    """CPU-seconds that an outside process sees held while a script runs, and what the sweep came to."""
    assert script.address is not None
    end = Path(script.storage, "end")
    observer = start("placement_observer", script.address, str(end))
    assert observer.stdout is not None
    assert observer.stdout.readline().strip() == "ready"
    state = script.run()
    end.touch()
    return float(observer.communicate(timeout=30)[0]), state


@pytest.mark.parametrize("model", ["Reusable"])
def test_the_ledger_agrees_with_an_outside_observer(script: Script, start: Start, model: str) -> None:
    held, state = observed(replace(script, model=model), start)
    assert held <= state.ledger.budget
    assert state.ledger.spent == pytest.approx(held, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["Reusable", "Plain", "Unsaved", "FailsInStep"])
def test_the_ledger_agrees_with_an_outside_observer_for_a_minute(script: Script, start: Start, model: str) -> None:
    held, state = observed(replace(script, model=model, budget="2 cpu-minutes"), start)
    assert held <= state.ledger.budget
    assert state.ledger.spent == pytest.approx(held, rel=0.03)
