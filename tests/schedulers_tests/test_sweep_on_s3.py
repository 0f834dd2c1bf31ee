"""A whole sweep whose checkpoints and journal are on an object store, by a real server of its protocol."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from nasib_ray import load_sweep
from schedulers import SweepState
from tests.schedulers_tests.budgeted_sweep import Script
from tests.schedulers_tests.continuation import check_continuation, in_full_swing, records_of, when
from tests.schedulers_tests.s3_server import S3Server, s3_server

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("time_limit")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as serving:
        yield serving


@pytest.fixture(scope="module")
def address(server: S3Server, request: pytest.FixtureRequest) -> str:
    """That of a Ray whose workers know where the store is."""
    return str(request.getfixturevalue("ray_address"))


@pytest.mark.parametrize("by", ["environment", pytest.param("options", marks=pytest.mark.slow)])
def test_a_killed_driver_is_resumed_and_nothing_is_forgotten(
    address: str, server: S3Server, tmp_path: Path, by: str
) -> None:
    storage = server.uri(f"sweeps/{by}") if by == "options" else f"s3://bucket/sweeps/{by}"
    script = Script("Reusable", "24 cpu-seconds", storage, str(tmp_path), address=address, terms={"max_t": 16})
    command = [sys.executable, "-m", "tests.schedulers_tests.budgeted_sweep", json.dumps(asdict(script))]
    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        when(lambda: in_full_swing(script))
        with pytest.raises(ValueError, match=f"process {driver.pid}"):
            script.run()
        assert driver.poll() is None, (tmp_path / "log").read_text()
    finally:
        driver.kill()
        driver.wait()
    before = SweepState.replay(None, records_of(script))
    assert before.ledger.grants
    after = script.run()
    check_continuation(script, before, after)
    assert (after.end, after.runs) == ("finished", 2)
    base, mark, options = storage.partition("?")
    known = load_sweep(f"{base}/{script.name}{mark}{options}")
    assert (known.state.ledger, known.alive) == (after.ledger, False)
    assert known.accounts().iloc[-1]["spent_device_seconds"] == pytest.approx(after.ledger.spent)
