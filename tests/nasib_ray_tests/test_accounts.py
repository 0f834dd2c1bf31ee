"""The accounts as a table, and ``nasib-ray ledger``: what the columns promise holds, and terminals can show them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs, parquet
from rich.console import Console
from typer.testing import CliRunner

from nasib_ray.accounts import accounts_frame, accounts_report
from nasib_ray.cli import app
from nasib_ray.place import Place
from nasib_ray.results import load_sweep
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.clock import SimulatedClock
from schedulers.journal import Journal
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import Sweep
from tests.schedulers_tests.s3_server import S3Server, s3_server
from tests.schedulers_tests.simulation import Simulation, World

ROOT = Path(__file__).parents[2]
AMOUNT = "amount_device_seconds"


def sweep_with_losses() -> list[dict[str, Any]]:
    """Two drivers: the first is killed while a trial runs; a checkpoint is lost; the budget is raised."""
    first = Sweep(budget=300.0)
    first.start("a")
    first.hold(2.0, "setup")
    first.hold(3.0)
    first.report(1, seconds=2.5)
    first.checkpoint()
    first.hold(1.0)
    first.core.post()
    second = Sweep(budget=400.0, records=first.book.records)
    second.core.drop_checkpoint("a", "it is empty")
    second.start("a")
    second.hold(4.0, "setup")
    second.core.crashed("a", "boom")
    second.pause()
    second.core.end()
    return second.book.records


def simulated(told: bool, equal: bool, **world: Any) -> list[dict[str, Any]]:
    there = World(told=told, **world)
    simulation = Simulation(there, 800.0, EqualShare(3) if equal else AsyncHalving())
    simulation.run()
    return simulation.book.records


@pytest.fixture(
    scope="module",
    params=["losses", "halving", "equal shares", "booted anew", "half devices"],
)
def records(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    match request.param:
        case "losses":
            return sweep_with_losses()
        case "halving":
            return simulated(True, False)
        case "equal shares":
            return simulated(True, True)
        case "booted anew":
            return simulated(False, False, reuse=False)
    return simulated(True, False, devices=0.5, slots=4)


def test_amounts_sum_up_to_the_balances_of_every_row(records: list[dict[str, Any]]) -> None:
    frame = accounts_frame(records, "cpu")
    amounts = {event: frame[AMOUNT].where(frame["event"] == event, 0.0).cumsum() for event in frame["event"].unique()}
    spent, granted, free = (frame[f"{name}_device_seconds"] for name in ("spent", "granted", "free"))
    pd.testing.assert_series_equal(spent, amounts["charge"], check_names=False)
    pd.testing.assert_series_equal(spent + granted + free, amounts["budget"], check_names=False)
    # No charge went beyond its grant here, so that promises became charges or were given back.
    pd.testing.assert_series_equal(
        granted, amounts["grant"] - amounts["charge"] - amounts["release"], check_names=False, atol=1e-4
    )
    assert spent.is_monotonic_increasing
    assert (free > -1e-6).all()
    assert (frame[AMOUNT] >= 0).all()


def test_every_row_says_when_who_what_how_much_and_what_is_left(records: list[dict[str, Any]]) -> None:
    frame = accounts_frame(records, "cpu")
    assert frame["number"].is_monotonic_increasing
    assert str(frame["time"].dt.tz) == "UTC"
    touching = [record for record in records if record["event"] in set(frame["event"])]
    assert frame["number"].tolist() == [record["number"] for record in touching]
    assert (frame["time"].astype("int64") / 1e9).tolist() == pytest.approx([record["time"] for record in touching])
    trials = frame["event"].isin(["grant", "charge", "release", "relabel"])
    assert frame.loc[trials, "trial"].notna().all()
    assert frame.loc[frame["event"].isin(["charge", "relabel"]), "kind"].notna().all()
    assert frame.loc[~frame["event"].isin(["charge", "relabel"]), "kind"].isna().all()


def test_the_last_row_is_where_the_sweep_stands(records: list[dict[str, Any]]) -> None:
    frame, ledger = accounts_frame(records, "cpu"), SweepState.replay(None, records).ledger
    last = frame.iloc[-1]
    assert last["spent_device_seconds"] == ledger.spent
    assert last["granted_device_seconds"] == ledger.granted == 0.0
    assert last["free_device_seconds"] == ledger.free
    kinds = frame[frame["event"] == "charge"].groupby("kind")[AMOUNT].sum().to_dict()
    for kind, amount in frame[frame["event"] == "relabel"][["kind", AMOUNT]].itertuples(index=False):
        source, target = kind.split(" -> ")
        kinds[source], kinds[target] = kinds[source] - amount, kinds.get(target, 0.0) + amount
    for kind, held in ledger.spent_by_kind.items():
        assert kinds.get(kind, 0.0) == pytest.approx(held, abs=1e-4)


def test_what_nobody_saw_is_told_apart() -> None:
    frame = accounts_frame(sweep_with_losses(), "cpu")
    cautious = frame[frame["cautious"]]
    assert cautious[["event", "kind", AMOUNT]].to_numpy().tolist() == [["charge", "lost", 6.0]]
    assert frame[frame["event"] == "budget"][AMOUNT].tolist() == [300.0, 100.0]


# On the command line


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder, with the journal of the sweep that had losses."""
    folder = tmp_path_factory.mktemp("kept") / "sweep"
    clock = SimulatedClock(unix=1.7e9)
    journal = Journal.open(fs.LocalFileSystem(), str(folder / "journal"), clock)
    for record in sweep_with_losses():
        clock.advance(0.25)
        journal.append({name: value for name, value in record.items() if name not in ("number", "run", "time")})
    journal.close()
    return folder


def ledger(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(
        [sys.executable, "-m", "nasib_ray", "ledger", *arguments],
        cwd=ROOT, env={**known, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def rows_of(printed: str) -> list[str]:
    """The lines of the newest rows: those between the last table's head and its caption."""
    lines = printed.splitlines()
    head = max(at for at, line in enumerate(lines) if "amount" in line and "granted" in line)
    return [line for line in lines[head + 2 :] if line.strip() and not line.startswith("in cpu-seconds")]


def test_piped_it_shows_all_columns(kept: Path) -> None:
    done = ledger(str(kept))
    assert done.returncode == 0, done.stderr
    frame = load_sweep(kept).accounts()
    assert all(name in done.stdout for name in ("row", "date", "UTC", "run", "grant", "kind", "cautious"))
    assert len(rows_of(done.stdout)) == min(20, len(frame))
    assert f"the newest 20 of {len(frame)} rows" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("last", "rows"), [("3", 3), ("1000", None), ("0", None)])
def test_last_says_how_many_rows(kept: Path, last: str, rows: int | None) -> None:
    shown = CliRunner().invoke(app, ["ledger", str(kept), "--last", last], env={"COLUMNS": "140"}).output
    every = len(load_sweep(kept).accounts())
    assert len(rows_of(shown)) == (rows or every)
    assert ("the newest" in shown) == (rows is not None)


def test_last_is_none_below_zero(kept: Path) -> None:
    done = CliRunner().invoke(app, ["ledger", str(kept), "--last", "-1"])
    assert done.exit_code == 2
    assert "greater than or equal to 0" in done.output


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_every_width_shows_amounts_and_balances_whole(kept: Path, width: int, encoding: str) -> None:
    known = load_sweep(kept)
    console = Console(file=_encoded(encoding), width=width, force_terminal=False, color_system=None)
    accounts_report(console, known.accounts(), known.status(), 0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert width < 80 or max(map(len, shown.splitlines())) <= width
    lines = rows_of(shown)
    for line, row in zip(lines, known.accounts().itertuples(), strict=True):
        assert f"{row.amount_device_seconds:,.3f}" in line
        assert line.rstrip().endswith(f"{row.free_device_seconds + 0.0:,.2f}")
        assert row.event in line


class _Named(StringIO):
    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._named = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._named


def _encoded(encoding: str) -> StringIO:
    return _Named(encoding)


def test_files_have_every_row(kept: Path, tmp_path: Path) -> None:
    csv, pq = tmp_path / "accounts.csv", tmp_path / "accounts.parquet"
    done = ledger(str(kept), "--csv", str(csv), "--parquet", str(pq), "--last", "1")
    assert done.returncode == 0, done.stderr
    assert f"wrote {csv} and {pq}" in done.stdout
    frame = load_sweep(kept).accounts()
    table = parquet.read_table(pq)
    pd.testing.assert_frame_equal(table.to_pandas(), frame, check_dtype=False)
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert str(table.schema.field(AMOUNT).type) == "double"
    read = pd.read_csv(csv, parse_dates=["time"])
    assert read["number"].tolist() == frame["number"].tolist()
    assert read[AMOUNT].tolist() == frame[AMOUNT].tolist()


def test_a_sweep_without_rows_has_an_empty_table(tmp_path: Path) -> None:
    Journal.open(fs.LocalFileSystem(), str(tmp_path / "new" / "journal"), SimulatedClock()).close()
    pq = tmp_path / "accounts.parquet"
    done = ledger(str(tmp_path / "new"), "--parquet", str(pq))
    assert done.returncode == 0, done.stderr
    assert "amount" in done.stdout
    assert parquet.read_table(pq).num_rows == 0
    assert parquet.read_table(pq).column_names[:3] == ["number", "time", "run"]


def test_a_file_that_cannot_be_written_is_told_in_a_line(kept: Path) -> None:
    done = ledger(str(kept), "--parquet", "/no/such/folder/accounts.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith("nasib-ray: ")
    assert "Traceback" not in done.stderr


def test_a_damaged_journal_is_told_with_file_and_line(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "journal"
    folder.mkdir(parents=True)
    for path in (kept / "journal").iterdir():
        (folder / path.name).write_bytes(path.read_bytes().replace(b'"amount":6.0', b'"amount":0.6'))
    done = ledger(str(tmp_path / "sweep"))
    assert done.returncode == 2
    assert "segment-000000000001-run-0001.jsonl, line " in done.stderr
    assert "backup" in done.stderr
    assert done.stdout == ""


# On an object store


@pytest.fixture(scope="module")
def server(kept: Path) -> Iterator[S3Server]:
    with s3_server() as serving:
        fs.copy_files(str(kept), "s3://bucket/sweeps/kept")
        yield serving


@pytest.mark.parametrize("options", [False, True])
def test_a_uri_is_read_as_a_folder_is(server: S3Server, kept: Path, options: bool) -> None:
    """With the server's address in the environment, or in the URI."""
    uri = server.uri("sweeps/kept") if options else "s3://bucket/sweeps/kept"
    here, there = ledger(str(kept)), ledger(uri)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    status = CliRunner().invoke(app, ["status", uri, "--json"])
    assert json.loads(status.output)["budget_device_seconds"] == 400.0
    assert load_sweep(uri).state == load_sweep(kept).state


def test_a_uri_of_no_sweep_is_told_in_a_line(server: S3Server) -> None:
    for path, told in (("sweeps/none", "There is no"), ("sweeps", "those of the sweeps kept")):
        done = ledger(f"s3://bucket/{path}")
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("path", "storage", "name"),
    [
        ("s3://bucket/sweeps/a", "s3://bucket/sweeps", "a"),
        ("s3://bucket/a/", "s3://bucket", "a"),
        ("s3://b/s/a?endpoint_override=h:1&scheme=http", "s3://b/s?endpoint_override=h:1&scheme=http", "a"),
        ("/here/there?/a", "/here/there?", "a"),
    ],
)
def test_a_place_is_its_path_again(path: str, storage: str, name: str) -> None:
    place = Place.at(path)
    assert place == Place(storage, name)
    assert place.path == path.rstrip("/")
