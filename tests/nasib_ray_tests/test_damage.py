"""A checkpoint that is damaged between two runs: its search goes back, and the user is told what that cost."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nasib_ray import load_sweep
from schedulers.search_record import SearchRecord
from tests.nasib_ray_tests.command import Command, records_of, wait_for
from tests.nasib_ray_tests.test_exact import CONFIG, check_bits

pytestmark = pytest.mark.ray


def saves_in(path: Path, run: int, checkpoints: int) -> None:
    """Wait until a run has saved so often."""
    wait_for(lambda: sum(it["event"] == "checkpoint" and it["run"] == run for it in records_of(path)) >= checkpoints)


def interrupted(command: Command, path: Path, run: int) -> SearchRecord:
    """The only search of a sweep whose run was interrupted once it had saved twice."""
    saves_in(path, run, 2)
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 130, command.said
    (search,) = load_sweep(path).state.searches.values()
    return search


@pytest.mark.slow
def test_a_search_goes_back_to_the_checkpoint_before_and_then_to_its_beginning(
    tmp_path: Path, nasib_ray: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NASIB_RAY_CACHE", str(tmp_path / "cache"))
    config, path = tmp_path / "one.yaml", tmp_path / "s" / "one"
    config.write_text(json.dumps(CONFIG))
    begun = nasib_ray("search", str(config), "--storage", str(tmp_path / "s"), "--name", "one")
    before = interrupted(begun, path, 1)
    kept, newest = before.checkpoints
    weights = path / newest.path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])

    resumed = nasib_ray("resume", str(path))
    after = interrupted(resumed, path, 2)
    (lost,) = after.lost_checkpoints
    assert (lost.path, lost.epochs, lost.run) == (newest.path, newest.epochs - kept.epochs, 2)
    back = f"{lost.epochs} epoch" if lost.epochs else "part of an epoch"
    for said in resumed.said.split("trial     state"):
        assert f"damaged, {back}" in " ".join(said.split()), "while it runs and at the end"
        assert f"{lost.device_seconds:,.1f} cpu-seconds are lost" in " ".join(said.split())
        assert "bytes where its manifest says" in " ".join(said.split())
    records = [it for it in records_of(path) if it["run"] == 2]
    at = next(index for index, it in enumerate(records) if it["event"] == "checkpoint-lost")
    moved = itertools.takewhile(lambda it: it["event"] == "relabel", records[at + 1 :])
    assert sum(it["amount"] for it in moved if it["to"] == "lost") == pytest.approx(lost.device_seconds, abs=1e-4)
    assert lost.device_seconds > 0
    first = next(it for it in records_of(path) if it["event"] == "report" and it["run"] == 2)
    assert first["epochs"] == kept.epochs + 1
    check_bits(path, tmp_path)

    # Now both: one has lost a file, the other has nothing left.
    (path / after.checkpoints[0].path / "architecture.arrow").unlink()
    shutil.rmtree(path / after.checkpoints[1].path)
    (path / after.checkpoints[1].path).mkdir()
    again = nasib_ray("resume", str(path))
    final = interrupted(again, path, 3)
    assert [gone.run for gone in final.lost_checkpoints] == [2, 3, 3]
    assert sum(gone.epochs for gone in final.lost_checkpoints[1:]) == after.epochs
    assert f"trial {final.id} goes back to 0 epochs" in again.said
    assert "is empty" in " ".join(again.said.split())
    assert "lacks its file architecture.arrow" in " ".join(again.said.split())
    first = next(it for it in records_of(path) if it["event"] == "report" and it["run"] == 3)
    assert first["epochs"] == 1
    (status,) = load_sweep(path).status()["trials"]
    assert len(status["lost_checkpoints"]) == 3
    shutil.rmtree(tmp_path / f"again-{final.id}")
    check_bits(path, tmp_path)
    assert "Traceback" not in begun.said + resumed.said + again.said
