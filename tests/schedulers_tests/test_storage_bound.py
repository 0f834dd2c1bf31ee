"""Which checkpoints go under a bound, and that they are gone from a real disk before there is too much."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyarrow.fs import FileSystem, FileType, FSSpecHandler, LocalFileSystem, PyFileSystem

from schedulers.budget import Budget
from schedulers.checkpoint_keeper import CheckpointKeeper
from schedulers.checkpoint_store import CheckpointStore
from schedulers.search_record import CheckpointRecord, SearchRecord, SearchStatus
from schedulers.storage_bound import most_running, surplus, too_small
from schedulers.sweep_state import SweepState
from schedulers.terms import Terms
from tests.schedulers_tests.conftest import Sweep

SIZE = 100


def record(index: int, state: SearchStatus, value: float | None, kept: int = 2, epochs: int = 4) -> SearchRecord:
    made = [CheckpointRecord(f"s{index}/checkpoint_{at:06}", at, at, SIZE) for at in range(kept)]
    return SearchRecord(f"s{index}", index, {}, state, epochs, best_value=value, checkpoints=made)


def sweep(*searches: SearchRecord, mode: str = "max") -> SweepState:
    return SweepState(searches={one.id: one for one in searches}, mode=mode, largest_checkpoint_bytes=SIZE)


def order(state: SweepState, bound: int, results_stay: bool = True, at_work: str = "") -> list[str]:
    """What goes: a search's name for its older checkpoint, with an exclamation mark for its weights."""
    going = surplus(state, bound, lambda name: name == at_work, results_stay)
    return [one.search.id + "!" * one.last for one in going]


def test_nothing_goes_while_the_next_checkpoints_fit() -> None:
    state = sweep(record(0, "running", 0.5), record(1, "paused", 0.4))
    assert order(state, 5 * SIZE) == [], "four there are, and one comes"
    assert order(state, 5 * SIZE - 1) == ["s1"]


def test_older_checkpoints_go_first_and_then_the_worst_weights_but_never_those_that_run() -> None:
    state = sweep(
        record(0, "paused", 0.9),
        record(1, "paused", 0.2),
        record(2, "running", 0.1),
        record(3, "paused", None),
        record(4, "paused", 0.2, epochs=8),
    )
    everything = ["s3", "s1", "s4", "s0", "s2", "s3!", "s1!", "s4!", "s0!"]
    assert order(state, 0) == everything
    for going in range(len(everything) + 1):
        assert order(state, 11 * SIZE - going * SIZE) == everything[:going]
    assert "s1!" not in order(state, 0, at_work="s1"), "its process still saves, whatever the journal says"


def test_low_values_are_good_where_less_is_better() -> None:
    state = sweep(record(0, "paused", 0.9, 1), record(1, "paused", 0.2, 1), record(2, "paused", 0.5, 1), mode="min")
    assert order(state, 0) == ["s0!", "s2!", "s1!"]


def test_weights_of_ended_searches_go_first_unless_they_are_the_result() -> None:
    state = sweep(
        record(0, "finished", 0.8), record(1, "paused", 0.3), record(2, "failed", 0.9), record(3, "paused", 1.0)
    )
    assert order(state, 0) == ["s0", "s2", "s0!", "s2!", "s1", "s3", "s1!", "s3!"]
    assert order(state, 0, results_stay=False) == ["s0", "s2", "s1", "s3", "s1!", "s0!", "s2!", "s3!"]


def test_the_networks_of_the_present_selection_go_even_after_the_incumbent() -> None:
    trained, before = record(2, "finished", 0.1, kept=1), record(3, "finished", 0.1, kept=1)
    trained.kind = before.kind = "select"
    trained.round = 2
    state = sweep(record(0, "paused", 0.9, kept=1), record(1, "paused", 0.5, kept=1), trained, before)
    state.budgets = 2
    assert order(state, 0) == ["s3!", "s1!", "s0!", "s2!"]


def test_the_incumbent_goes_last_whatever_its_state() -> None:
    state = sweep(record(0, "finished", 0.8, 1), record(1, "paused", 0.3, 1))
    assert order(state, 0) == ["s1!", "s0!"]


def test_the_smallest_bound_that_would_do_is_named() -> None:
    state = SweepState(largest_checkpoint_bytes=415_000_000)
    assert most_running(SweepState(), 1) is None
    assert too_small(SweepState(), 1, 8) == "", "nobody knows yet"
    told = too_small(state, 2_000_000_000, 4)
    assert "max_storage is 2 GB" in told
    assert "4 running trials needs room for 2 checkpoints of 415 MB: 3.32 GB would do" in told
    assert too_small(state, 3_320_000_000, 4) == ""
    assert most_running(state, 3_319_999_999) == 3


class Disk(RuleBasedStateMachine):
    """Trials that write to a real folder, as Tune has them do: the new one is there before the oldest one goes."""

    @initialize(room=st.integers(4, 7), kept=st.booleans())
    def begin(self, room: int, kept: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.bound = room * SIZE
        self.terms = Terms(
            Budget(1e6, "cpu"), max_storage_bytes=self.bound, kept_files=("alpha", "more") if kept else ()
        )
        self.kept = kept
        self.sweep = Sweep(1e6)
        self.working: dict[str, str] = {}
        self.made = 0
        self.keep()

    def keep(self) -> None:
        store = CheckpointStore(LocalFileSystem(), self.folder.name)
        self.keeper = CheckpointKeeper(self.sweep.core, store, self.terms, lambda name: name in self.working)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @property
    def core(self) -> Any:
        return self.sweep.core

    def forget(self, search: SearchRecord, path: str) -> None:
        flushed = self.sweep.book.records[: self.sweep.book.flushed]
        assert any(one["event"] == "weights-dropped" and one["path"] == path for one in flushed), "journal before disk"
        assert Path(self.folder.name, path).exists()

    @precondition(lambda self: len(self.working) < 2)
    @rule(data=st.data())
    def a_trial_begins(self, data: st.DataObject) -> None:
        paused = [search.id for search in self.sweep.state.searches.values() if search.state == "paused"]
        name = data.draw(st.sampled_from([*paused, f"t{len(self.sweep.state.searches)}"]))
        self.sweep.start(name)
        self.working[name] = self.sweep.search(name).grant or ""
        self.keeper.make_room(self.forget)

    @precondition(lambda self: self.working)
    @rule(
        data=st.data(),
        value=st.floats(0, 1),
        times=st.integers(1, 3),
        then=st.sampled_from(["continue", "paused", "finished"]),
    )
    def a_trial_reports_and_saves(self, data: st.DataObject, value: float, times: int, then: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.working)))
        for _ in range(times):
            self.save(name, value)
        if then != "continue":
            self.core.moved(name, then, "")
            self.core.close(self.working.pop(name))

    def save(self, name: str, value: float) -> None:
        search = self.sweep.search(name)
        self.sweep.report(search.epochs + 1, value, name=name)
        self.made += 1
        path = f"{name}/checkpoint_{self.made:06}"
        self.write(path)
        self.the_bound_holds()
        oldest = search.checkpoints[0].path if len(search.checkpoints) == 2 else None
        self.core.checkpointed(name, path, search.epochs, self.keeper.size(path))
        if oldest is not None:
            CheckpointStore(LocalFileSystem(), self.folder.name).delete(oldest)
        self.keeper.make_room(self.forget)

    def write(self, path: str, part: int = SIZE) -> None:
        folder = Path(self.folder.name, path)
        folder.mkdir(parents=True)
        (folder / "alpha").write_bytes(b"a" * min(part, 1))
        (folder / "weights").write_bytes(b"w" * (part - 1))

    @precondition(lambda self: self.working)
    @rule(data=st.data(), part=st.integers(2, SIZE))
    def a_process_dies_while_it_saves(self, data: st.DataObject, part: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.working)))
        self.made += 1
        self.write(f"{name}/checkpoint_{self.made:06}", part)
        self.core.crashed(name, "boom", blameless=True)
        self.keeper.crashed(name)
        self.core.moved(name, "paused", "boom")
        self.core.close(self.working.pop(name))
        self.keeper.make_room(self.forget)

    @rule(room=st.integers(4, 7), kept=st.floats(0, 1))
    def the_driver_dies_and_the_next_one_has_another_bound(self, room: int, kept: float) -> None:
        """Whatever was not flushed is lost, but not what was deleted."""
        book = self.sweep.book
        lost = [one for one in book.records[book.flushed :] if one["event"] == "checkpoint"]
        on_disk = len(book.records) if lost else book.flushed + int(kept * (len(book.records) - book.flushed))
        self.working = {}
        self.bound = room * SIZE
        self.terms = Terms(self.terms.budget, max_storage_bytes=self.bound, kept_files=self.terms.kept_files)
        self.sweep = Sweep(1e6, book.records[:on_disk])
        self.keep()
        self.keeper.make_room(lambda search, path: None)

    @invariant()
    def the_bound_holds(self) -> None:
        on_disk = sum(file.stat().st_size for file in Path(self.folder.name).rglob("*") if file.is_file())
        remains = sum(1 for search in self.sweep.state.searches.values() if search.remains)
        assert on_disk <= max(self.bound, 4 * SIZE + remains)

    @invariant()
    def the_journal_knows_what_is_on_disk(self) -> None:
        state = self.sweep.state
        for search in state.searches.values():
            assert search.given_up == []
            assert (search.state == "not resumable") <= (not search.checkpoints)
            for made in search.checkpoints:
                assert len(list(Path(self.folder.name, made.path).iterdir())) == 2
            if search.state == "not resumable":
                assert (search.remains is not None) == self.kept
                assert search.curve or search.epochs == 0
            if search.remains is not None:
                assert [file.name for file in Path(self.folder.name, search.remains.path).iterdir()] == ["alpha"]
        if not self.working:
            folders = {str(path.relative_to(self.folder.name)) for path in Path(self.folder.name).glob("*/*")}
            known = {made.path for search in state.searches.values() for made in search.checkpoints}
            assert folders == known | {search.remains.path for search in state.searches.values() if search.remains}


Disk.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDisk = Disk.TestCase


@pytest.mark.parametrize("remote", [False, True])
def test_a_store_measures_and_deletes_on_disks_and_elsewhere(tmp_path: Path, remote: bool) -> None:
    where: FileSystem = PyFileSystem(FSSpecHandler(MemoryFileSystem())) if remote else LocalFileSystem()
    folder = str(tmp_path)
    for path in ("t/checkpoint_000001", "t/checkpoint_000002", "t/checkpoint_000003/inner", "t/other"):
        where.create_dir(f"{folder}/{path}", recursive=True)
        for name, size in {"alpha": 1, "weights": 9}.items():
            with where.open_output_stream(f"{folder}/{path}/{name}") as stream:
                stream.write(b"x" * size)
    store = CheckpointStore(where, folder)
    assert [store.size(f"t/checkpoint_00000{number}") for number in (1, 3, 4)] == [10, 10, 0]
    assert store.delete("t/checkpoint_000001", ("alpha", "none")) == 1
    assert store.delete("t/checkpoint_000001", ("alpha", "none")) == 1, "a second time changes nothing"
    assert store.size("t/checkpoint_000001") == 1
    assert store.delete("t/checkpoint_000002") == store.delete("t/checkpoint_000002") == 0
    assert where.get_file_info(f"{folder}/t/checkpoint_000002").type == FileType.NotFound
    assert store.delete_others("t", {"t/checkpoint_000001"}) == ["t/checkpoint_000003"]
    assert store.delete_others("nobody", ()) == []
    assert (store.size("t/checkpoint_000001"), store.size("t/checkpoint_000003"), store.size("t/other")) == (1, 0, 10)


def test_what_a_driver_left_undeleted_is_deleted_by_the_next(tmp_path: Path) -> None:
    """The driver died between the journal's record and the deletion; the next one has no bound at all."""
    first = Sweep()
    first.start("a")
    first.report(2, 0.5)
    folder = tmp_path / "a" / "checkpoint_000002"
    folder.mkdir(parents=True)
    (folder / "alpha").write_bytes(b"alpha")
    (folder / "weights").write_bytes(b"weights")
    first.core.checkpointed("a", "a/checkpoint_000002", 2, 12)
    first.pause("a")
    spent = first.state.ledger.spent_by_kind
    first.core.append("weights-dropped", trial="a", path="a/checkpoint_000002", why="room")
    assert first.search("a").state == "not resumable"

    later = Sweep(records=first.book.records)
    assert later.search("a").state == "not resumable"
    terms = Terms(Budget(1000.0, "cpu"), kept_files=("alpha",))
    keeper = CheckpointKeeper(later.core, CheckpointStore(LocalFileSystem(), str(tmp_path)), terms, lambda name: False)
    keeper.make_room(lambda search, path: None)
    assert [file.name for file in folder.iterdir()] == ["alpha"]
    assert (later.search("a").given_up, later.state.stored_bytes) == ([], 5)
    assert later.search("a").curve == [(2, 0.5)]
    assert later.state.ledger.spent_by_kind == spent, "it was used, and is not lost"
    assert SweepState.from_json(later.state.to_json()) == later.state
