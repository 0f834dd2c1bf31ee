"""The core under any interleaving of what trials, processes, drivers and the disk can do."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyarrow import fs

from schedulers import journal as journal_module
from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.journal import Journal, read_journal
from schedulers.journal_folder import segment_name
from schedulers.ledger import KINDS
from schedulers.meter import Holding, Phase
from schedulers.rules import Rules
from schedulers.sweep_state import SweepState

LOCAL = fs.LocalFileSystem()
SLOTS = 3
TICK = 0.5


class DiskBook:
    """The journal of one driver in a folder, and what was appended to it; segments are short."""

    def __init__(self, folder: str, clock: SimulatedClock) -> None:
        self.folder = folder
        # The driver before is this very process, so that its lease must be seen unchanged: for no time that counts.
        self.journal = Journal.open(LOCAL, folder, clock, lease_seconds=1e-3)
        self.records = read_journal(LOCAL, folder, from_start=True).records
        self.flushed = len(self.records)

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        completed = self.journal.append(record)
        self.records.append(json.loads(json.dumps(completed, allow_nan=False)))
        return completed

    def flush(self) -> None:
        self.journal.flush()
        self.flushed = len(self.records)

    def crash(self, kept: float) -> list[dict[str, Any]]:
        """The driver dies: any part of what it had not flushed is on disk, cut at any byte. Returns what counts."""
        waiting = b"".join(self.journal._lines)
        part = waiting[: int(kept * len(waiting))]
        if part:
            name = self.journal._segment_name or segment_name(self.flushed + 1, self.journal.run)
            with open(f"{self.folder}/{name}", "ab") as segment:
                segment.write(part)
        return self.records[: self.flushed + part.count(b"\n")]


@dataclass
class Process:
    """A live process: at work for a trial, idle, or stopping (so told, or killed) and gone at the next reading."""

    trial: str
    grant: str
    phase: Phase = "setup"
    idle: bool = False
    stopping: bool = False


class Interleavings(RuleBasedStateMachine):
    """Drivers one after the other, on a journal on disk."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="journal")
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal_module, "SEGMENT_BYTES", 3_000)
        self.patch.setattr(journal_module, "SEGMENTS_PER_SNAPSHOT", 3)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    @initialize(
        budget=st.floats(5.0, 400.0),
        devices=st.sampled_from([0.5, 1.0, 2.0]),
        told=st.booleans(),
        equal=st.booleans(),
        mode=st.sampled_from(["max", "min"]),
    )
    def begin(self, budget: float, devices: float, told: bool, equal: bool, mode: str) -> None:
        self.budget = budget
        self.equal = equal
        self.spending = Rules(
            devices, "value", mode, "epochs", None if told else 9, 4, told, told, boot_seconds=4.0
        )  # fmt: skip
        self.clock = SimulatedClock(unix=1.7e9)
        self.seen = self.late = 0.0
        self.trials = 0
        self.drive()

    def drive(self) -> None:
        """A driver begins, with what the journal says."""
        self.processes: dict[str, Process] = {}
        self.read: set[str] = set()
        self.booted = 0
        self.closed: list[tuple[str, str]] = []
        self.book = DiskBook(self.folder, self.clock)
        allocator: Allocator = EqualShare(4) if self.equal else AsyncHalving()
        replay = self.book.journal.replay
        state = SweepState.replay(replay.snapshot, replay.records)
        assert state == SweepState.replay(None, self.book.records)
        self.book.journal.set_snapshot(state.to_json)
        self.core = SweepCore(self.book, state, allocator, self.clock, self.spending)
        self.core.enter_run(Budget(self.budget, "cpu"), {"device": "cpu"}, SLOTS, 5.0)
        self.core.tick({})

    def holdings(self) -> dict[str, Holding]:
        devices = self.spending.devices
        return {key: Holding(p.trial, p.grant, devices, p.phase) for key, p in self.processes.items()}

    def at_work(self) -> list[str]:
        return [key for key, p in self.processes.items() if not p.idle and not p.stopping]

    def gone(self, key: str) -> None:
        process = self.processes.pop(key)
        self.core.close(process.grant)
        self.closed.append((process.grant, process.trial))

    # What time does

    @rule(ticks=st.integers(1, 12))
    def time_passes(self, ticks: int) -> None:
        for _ in range(ticks):
            self.clock.advance(TICK)
            self.seen += TICK * self.spending.devices * len(self.read | set(self.processes))
            self.read = set(self.processes)
            self.core.tick(self.holdings())
            for key in [key for key, process in self.processes.items() if process.stopping]:
                self.gone(key)
            for key in self.core.overdue(self.holdings()):
                self.kill(key, "killed: only its grace was left")

    def kill(self, key: str, why: str) -> None:
        process = self.processes[key]
        if not process.idle and not process.stopping:
            search = self.core.state.searches[process.trial]
            self.core.crashed(search.id, why)
            self.core.moved(search.id, "failed" if search.failures >= 3 else "paused", why)
        process.stopping, process.idle = True, False

    # What the driver does

    @rule()
    def a_slot_is_filled(self) -> None:
        idle = [key for key, process in self.processes.items() if process.idle]
        busy = [process.trial for key, process in self.processes.items() if key not in idle]
        offer = self.core.next_slice(SLOTS, busy, [self.processes[key].grant for key in idle])
        if offer is None:
            return
        piece, view = offer
        if piece.search is None:
            self.trials += 1
            self.core.add_search(f"t{self.trials}", {})
        name = piece.search or f"t{self.trials}"
        search = self.core.state.searches[name]
        reuse = self.processes[idle[0]].grant if idle else None
        self.core.book(piece, search, view, reuse)
        self.core.flush()
        if not idle:
            self.booted += 1
        assert search.grant is not None
        self.processes[idle[0] if idle else f"p{self.booted}"] = Process(name, search.grant)

    @precondition(lambda self: self.at_work())
    @rule(data=st.data(), value=st.floats(-1, 1) | st.just(math.nan), cut=st.booleans(), step=st.floats(0.0, 6.0))
    def a_step_ends(self, data: st.DataObject, value: float, cut: bool, step: float) -> None:
        key = data.draw(st.sampled_from(self.at_work()))
        process = self.processes[key]
        search = self.core.state.searches[process.trial]
        cut = cut and self.spending.slice_told
        metrics = {
            "value": value, "epochs": search.epochs + (not cut), "cut": cut, "time_this_iter_s": step,
            "epoch_seconds": None if cut else step,
        }  # fmt: skip
        verdict = self.core.report(process.trial, metrics, stopping=False)
        process.phase = "train" if verdict == "continue" else "checkpoint"
        if verdict == "pause" and not self.spending.slice_told:
            busy = [process.trial for process in self.processes.values() if not process.idle]
            if self.core.keep_slot(process.trial, SLOTS, busy) is not None:
                assert search.grant is not None
                process.grant, process.phase = search.grant, "train"
                return
        if verdict != "continue":
            self.save(process)
            self.core.moved(process.trial, "paused" if verdict == "pause" else "finished", "")
            process.idle, process.phase = True, "idle"

    def save(self, process: Process) -> None:
        self.core.saving(process.trial)
        self.core.checkpointed(process.trial, f"{process.trial}/{len(self.book.records)}", len(self.book.records))

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def a_process_begins_to_train(self, data: st.DataObject) -> None:
        self.processes[data.draw(st.sampled_from(self.at_work()))].phase = "train"

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def a_trial_saves(self, data: st.DataObject) -> None:
        self.save(self.processes[data.draw(st.sampled_from(self.at_work()))])

    # What goes wrong

    @precondition(lambda self: self.at_work())
    @rule(data=st.data())
    def a_process_dies(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.at_work()))
        search = self.core.state.searches[self.processes[key].trial]
        self.core.post()
        ends = ("checkpoint", "checkpoint-lost", "failure")
        unsaved, before = 0.0, self.core.state.ledger.spent_by_kind["lost"]
        for record in self.book.records:
            if record.get("trial") == search.id and record["event"] in ends:
                unsaved = 0.0
            elif record.get("trial") == search.id and record["event"] == "charge" and record["kind"] != "lost":
                unsaved += record["amount"]
        self.kill(key, "boom")
        assert self.core.state.ledger.spent_by_kind["lost"] - before == pytest.approx(unsaved, abs=1e-4)
        kept = search.checkpoints[-1].epochs if search.checkpoints else 0
        assert search.epochs == kept

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def an_idle_process_is_stopped(self, data: st.DataObject) -> None:
        process = self.processes[data.draw(st.sampled_from(sorted(self.processes)))]
        if process.idle:
            process.idle, process.stopping = False, True

    @rule(kept=st.floats(0.0, 1.0))
    def the_driver_dies(self, kept: float) -> None:
        """All that was flushed is there, and any part of the rest; processes hold on for as long as is foreseen."""
        on_disk = self.book.crash(kept)
        known = SweepState.replay(None, on_disk)
        held = self.seen
        # What was not posted or flushed is at most a second's; then 5 seconds pass, or the rest of the grant.
        unseen = sum(min(grant.left, 6.0 * self.spending.devices) for grant in known.ledger.grants.values())
        # A late charge, of a grant that is closed, is foreseen by nobody.
        forgotten = sum(
            record["amount"]
            for record in self.book.records[len(on_disk) :]
            if record["event"] == "charge" and record["grant"] not in known.ledger.grants
        )
        self.seen = known.ledger.spent + unseen
        assert self.seen >= held - forgotten - 1e-3, "no less is spent than was held until the driver died"
        self.clock.advance(5.0)
        self.drive()
        assert self.book.records[: len(on_disk)] == on_disk
        assert self.core.state.ledger.spent == pytest.approx(self.seen)
        assert self.core.state.ledger.grants == {}
        for search in self.core.state.searches.values():
            assert search.state != "running"
            kept = search.checkpoints[-1].epochs if search.checkpoints else 0
            assert not search.unfinished or search.epochs == kept, "it goes on from what was saved"

    @rule(more=st.floats(0.0, 50.0))
    def the_driver_is_interrupted_and_the_budget_raised(self, more: float) -> None:
        for key in list(self.processes):
            self.kill(key, "interrupted")
            self.gone(key)
        self.time_passes(1)
        self.core.end("it was told to stop")
        assert self.core.state.ledger.granted == 0.0
        self.book.journal.close()
        self.budget += more
        self.drive()

    # What comes late, or twice

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), amount=st.floats(0.0, 1.0).map(lambda amount: round(amount, 6)))
    def a_charge_comes_after_its_release(self, data: st.DataObject, amount: float) -> None:
        grant, trial = data.draw(st.sampled_from(self.closed))
        self.core.append("charge", grant=grant, trial=trial, kind="train", amount=amount)
        self.seen += amount
        self.late += amount

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def a_release_comes_twice(self, data: st.DataObject) -> None:
        grant, trial = data.draw(st.sampled_from(self.closed))
        before = self.core.state.ledger.to_json()
        self.core.close(grant)
        self.core.append("release", grant=grant, trial=trial, amount=0.0)
        assert self.core.state.ledger.to_json() == before

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), step=st.floats(0.0, 3.0))
    def a_trial_reports_after_its_process_was_gone(self, data: st.DataObject, step: float) -> None:
        _, trial = data.draw(st.sampled_from(self.closed))
        if any(process.trial == trial for process in self.processes.values()):
            return
        self.core.post()
        spent = self.core.state.ledger.spent
        metrics = {"value": 0.5, "epochs": self.core.state.searches[trial].epochs, "time_this_iter_s": step}
        self.core.report(trial, metrics, stopping=False)
        assert self.core.state.ledger.spent == pytest.approx(spent)

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def a_checkpoint_comes_after_its_trial_was_paused(self, data: st.DataObject) -> None:
        _, trial = data.draw(st.sampled_from(self.closed))
        self.core.checkpointed(trial, f"{trial}/{len(self.book.records)}", len(self.book.records))
        assert self.core.state.ledger.unsaved.get(trial, {}) == {}

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def a_checkpoint_proves_to_be_damaged(self, data: st.DataObject) -> None:
        _, trial = data.draw(st.sampled_from(self.closed))
        search = self.core.state.searches[trial]
        if not search.checkpoints or search.state != "paused":
            return
        self.core.post()
        ledger = self.core.state.ledger
        lost = search.checkpoints[-1].path
        parts = (ledger.saved[trial][lost], ledger.unsaved.get(trial, {}))
        again = sum(held for part in parts for kind, held in part.items() if kind != "lost")
        spent, before = ledger.spent, ledger.spent_by_kind["lost"]
        self.core.drop_checkpoint(trial, "it is damaged")
        assert ledger.spent_by_kind["lost"] - before == pytest.approx(again, abs=1e-4)
        assert ledger.spent == pytest.approx(spent)
        assert lost not in ledger.saved[trial]

    @precondition(lambda self: self.book.records)
    @rule(data=st.data())
    def an_old_record_comes_again(self, data: st.DataObject) -> None:
        before = json.dumps(self.core.state.to_json())
        self.core.state.apply(data.draw(st.sampled_from(self.book.records)))
        assert json.dumps(self.core.state.to_json()) == before

    @rule(cut=st.floats(0.0, 1.0))
    def a_replay_gives_the_same_state(self, cut: float) -> None:
        at = int(cut * len(self.book.records))
        snapshot = json.dumps(SweepState.replay(None, self.book.records[:at]).to_json())
        for begin in (at, max(0, at - 5)):
            assert SweepState.replay(json.loads(snapshot), self.book.records[begin:]) == self.core.state

    # What must always be true

    @invariant()
    def the_budget_holds(self) -> None:
        ledger = self.core.state.ledger
        assert ledger.spent + ledger.granted <= self.budget + self.late + 1e-6

    @invariant()
    def kinds_sum_to_what_was_held(self) -> None:
        self.core.post()
        ledger = self.core.state.ledger
        assert ledger.spent == pytest.approx(self.seen, abs=1e-3)
        assert all(held >= -1e-4 for held in ledger.spent_by_kind.values()), ledger.spent_by_kind
        for kind in KINDS:
            of_trials = sum(kinds.get(kind, 0.0) for kinds in ledger.spent_by_trial.values())
            assert ledger.spent_by_kind[kind] == pytest.approx(of_trials, abs=1e-4)

    @invariant()
    def what_has_gone_is_what_ended_trials_held(self) -> None:
        state = self.core.state
        ended = [trial.id for trial in state.searches.values() if trial.kind == "search" and not trial.unfinished]
        held = sum(map(state.ledger.spent_on, ended)) + state.ledger.spent_by_kind["select"]
        assert self.core.view(1, (), ()).gone() == pytest.approx(held, abs=1e-6)

    @invariant()
    def what_is_saved_and_what_is_not_was_held(self) -> None:
        ledger = self.core.state.ledger
        for trial, held in ledger.spent_by_trial.items():
            parts = [ledger.unsaved.get(trial, {}), *ledger.saved.get(trial, {}).values()]
            for kind in KINDS:
                assert sum(part.get(kind, 0.0) for part in parts) <= held.get(kind, 0.0) + 1e-4
                assert all(part.get(kind, 0.0) >= -1e-4 for part in parts)

    @invariant()
    def what_runs_has_a_grant_on_disk(self) -> None:
        flushed: list[dict[str, Any]] = self.book.records[: self.book.flushed]
        booked = {record["grant"] for record in flushed if record["event"] == "grant"}
        if not self.spending.slice_told:
            return
        assert {process.grant for process in self.processes.values()} <= booked


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
