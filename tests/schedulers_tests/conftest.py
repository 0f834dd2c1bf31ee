"""What the tests of this room share: a core with its book in memory, and a Ray for those that need one."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
import ray

from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.core import SweepCore
from schedulers.meter import Holding, Phase
from schedulers.rules import Rules, Saving
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.budgeted_sweep import start_ray

UNSEEN_SECONDS = 5.0


class MemoryBook:
    """A journal in memory."""

    def __init__(self, clock: SimulatedClock, records: list[dict[str, Any]]) -> None:
        self.records = list(records)
        self.flushed = len(records)
        self._clock = clock

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        completed = {**record, "number": len(self.records) + 1, "run": 1, "time": self._clock.time()}
        self.records.append(json.loads(json.dumps(completed, allow_nan=False)))
        return self.records[-1]

    def flush(self) -> None:
        self.flushed = len(self.records)


class Always(Allocator):
    """Goes on with whatever waits, two epochs at a time, then asks for a new search."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, float]] = []
        self.asked = 0

    def observe(self, search: SearchRecord, epochs: int, value: float) -> None:
        self.seen.append((search.id, epochs, value))

    def next_slice(self, sweep: SweepView) -> Slice | None:
        self.asked += 1
        for search in sweep.waiting:
            if sweep.affordable(search):
                return Slice(search.id, min(2, sweep.affordable(search)), 8, "continue")
        return Slice(None, 2, 8, "new") if sweep.more_searches and sweep.affordable(None) else None


class Sweep:
    """A core, and the one process of each trial."""

    def __init__(
        self,
        budget: float = 1000.0,
        records: list[dict[str, Any]] | None = None,
        allocator: Allocator | None = None,
        seconds_unseen: float = UNSEEN_SECONDS,
        **rules: Any,
    ) -> None:
        self.clock = SimulatedClock(unix=1.7e9)
        self.book = MemoryBook(self.clock, records or [])
        self.allocator = Always()
        state = SweepState.replay(None, self.book.records)
        self.core = SweepCore(
            self.book,
            state,
            allocator or self.allocator,
            self.clock,
            Rules(**{"devices": 1.0, "metric": "value", **rules}),
        )
        self.core.enter_run(Budget(budget, "cpu"), {"device": "cpu"}, 1, seconds_unseen)
        self.held: dict[str, Holding] = {}
        self.core.tick(self.held)

    @property
    def state(self) -> SweepState:
        return self.core.state

    def search(self, name: str = "a") -> SearchRecord:
        return self.state.searches[name]

    def offer(self, slots: int = 1) -> tuple[Slice, SweepView]:
        offer = self.core.next_slice(slots, [], [])
        assert offer is not None
        return offer

    def start(self, name: str = "a", epochs: int = 2, horizon: int | None = 8, why: str = "new") -> float:
        """Book a grant; returns the seconds that the trial may step."""
        _, view = self.offer()
        search = self.state.searches.get(name) or self.core.add_search(name, {})
        return self.core.book(Slice(name, epochs, horizon, why), search, view, None)

    def hold(self, seconds: float, phase: Phase = "train", name: str = "a", every: float = 0.1) -> None:
        """Let a trial's process, which began at the last reading, hold its devices; readings come every so often."""
        grant = self.search(name).grant
        assert grant is not None
        self.held[name] = Holding(name, grant, self.core.rules.devices, phase)
        self.wait(seconds, every)

    def wait(self, seconds: float, every: float = 0.1) -> None:
        """Let time go by, with readings of who holds what."""
        for _ in range(round(seconds / every)):
            self.clock.advance(every)
            self.core.tick(self.held)

    def report(
        self, epochs: int, value: Any = 0.5, seconds: float = 1.0, name: str = "a", stopping: bool = False,
        saves: Saving = "asked", **metrics: Any,
    ) -> str:  # fmt: skip
        known = {"value": value, "training_iteration": epochs, "time_this_iter_s": seconds}
        self.core.rules = replace(self.core.rules, saves=saves)
        return self.core.report(name, {**known, **metrics}, stopping)

    def pause(self, name: str = "a") -> None:
        """Let a trial that has saved leave, and its process be gone."""
        grant = self.search(name).grant
        self.core.rest(name, "slice ended")
        self.held.pop(name, None)
        self.core.tick(self.held)
        self.core.close(grant or "")

    def checkpoint(self, name: str = "a") -> None:
        self.core.checkpointed(name, f"{name}/{self.search(name).epochs}", self.search(name).epochs)

    def kinds(self) -> dict[str, float]:
        self.core.post()
        return {kind: round(held, 3) for kind, held in self.state.ledger.spent_by_kind.items() if round(held, 3)}

    def events(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.book.records if record["event"] == event]


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """The address of a Ray of 2 CPUs that is the module's own."""
    start_ray(None)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def time_limit() -> Iterator[None]:
    """Fail a test that hangs, rather than all that come after it."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
