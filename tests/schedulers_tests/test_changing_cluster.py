"""What a sweep makes of nodes that come, go, hang, or are of another type."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from schedulers import cluster_room
from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.budget import Budget
from schedulers.clock import SimulatedClock
from schedulers.cluster_room import ClusterRoom
from schedulers.core import SweepCore
from schedulers.device_rates import DeviceRates, Prices
from schedulers.meter import Holding, Phase
from schedulers.node_watch import Asker, NodeWatch
from schedulers.simulated_world import Process
from schedulers.sweep_state import SweepState
from tests.schedulers_tests.conftest import Sweep
from tests.schedulers_tests.simulation import Simulation, World


class Drained(Simulation):
    """A node is told to go: the trial that is on it saves and leaves, and there is a slot less."""

    def __init__(self, world: World, budget: float, drained_at: float) -> None:
        self.drained_at = drained_at
        super().__init__(world, budget, AsyncHalving())

    def _keep(self, name: str) -> float | None:
        if self.clock.monotonic() < self.drained_at:
            return super()._keep(name)
        self.world, self.drained_at = replace(self.world, slots=self.world.slots - 1), math.inf
        return None


@pytest.mark.parametrize("searches", [2, 4])
def test_the_last_searches_go_on_when_there_is_no_slot_for_each_any_more(searches: int) -> None:
    world = World(slots=searches, epoch=10.0, boot_seconds=5.0, limit=searches, searches=8)
    simulation = Drained(world, 20_000.0, drained_at=3_000.0)
    state = simulation.run()
    assert simulation.world.slots == searches - 1
    longest = max(search.epochs for search in state.searches.values())
    assert longest > (state.full_horizon or 0), "while each had a slot they were told more than a full search"
    assert [search.state for search in state.searches.values()] == ["finished"] * searches
    assert state.ledger.spent >= 0.9 * 20_000.0


class HungBoot(Simulation):
    """One boot never ends by itself; after ``dies`` seconds its node is lost."""

    def __init__(self, world: World, budget: float, boot: int, dies: float) -> None:
        self.boot, self.dies = boot, dies
        super().__init__(world, budget, AsyncHalving())

    def _do(self, process: Process, phase: Phase, seconds: float) -> None:
        if phase == "setup" and process.key == f"p{self.boot}" and seconds > 2:
            seconds = 1e9
            if self.dies < math.inf:
                self._schedule(self.dies, process, lambda: self.gone(process, "its node has died", blameless=True))
        super()._do(process, phase, seconds)


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("dies", [65.0, math.inf])
def test_a_boot_that_hangs_does_not_make_all_later_ones_dear(reuse: bool, dies: float) -> None:
    world = World(slots=4, epoch=60.0, boot_seconds=5.0, reuse=reuse, searches=4)
    simulation = HungBoot(world, 24_000.0, 4, dies)
    state = simulation.run()
    assert state.boot_seconds is not None
    assert state.boot_seconds < 12.0
    assert state.ledger.spent > 0.99 * 24_000.0
    ends = [(search.best_value or 0.0, search.state) for search in state.searches.values()]
    finished = [value for value, end in ends if end == "finished"]
    assert len(finished) >= 3
    assert max(ends)[1] == "finished", "the best one"


class OneSearch:
    """A search that is driven by hand through an allocator."""

    def __init__(self, allocator: Allocator, budget: float, prices: Prices | None = None, most: int | None = None):
        rules: dict[str, Any] = {
            "horizon_told": True,
            "slice_told": True,
            "searches": 8 if most else 1,
            "epochs_key": "epochs",
        }
        self.sweep = Sweep(budget, allocator=allocator, most_searches=most, **rules)
        self.sweep.core.prices = prices or self.sweep.core.prices
        self.price = self.sweep.core.prices.dearest

    @property
    def core(self) -> SweepCore:
        return self.sweep.core

    def book(self) -> bool:
        offer = self.core.next_slice(1, [], [])
        if offer is None:
            return False
        piece, view = offer
        self.core.book(piece, self.sweep.state.searches.get("a") or self.core.add_search("a", {}), view, None)
        return True

    def step(self, seconds: float, device: str, cut: bool = False) -> str:
        search = self.sweep.search()
        self.sweep.held["a"] = Holding("a", search.grant or "", self.price, "train")
        self.core.tick(self.sweep.held)
        self.sweep.wait(seconds)
        metrics = {"value": None if cut else 0.5, "epochs": search.epochs + (not cut), "cut": cut}
        metrics |= {"time_this_iter_s": seconds, "epoch_seconds": None if cut else seconds}
        return self.core.report("a", metrics, False, device)

    def rest(self) -> None:
        self.sweep.checkpoint()
        self.sweep.pause()
        if self.core.complete(self.sweep.search()):
            self.core.moved("a", "finished", "")


class TestAnotherType:
    @pytest.mark.parametrize(("allocator", "most"), [(AsyncHalving(), 1), (EqualShare(1), None)], ids=["halving", ""])
    def test_part_of_an_epoch_there_leaves_what_is_known(self, allocator: Allocator, most: int | None) -> None:
        one = OneSearch(allocator, 2000.0, most=most)
        one.book()
        one.step(10.0, "A100")
        one.rest()
        for _ in range(2):
            one.book()
            while one.step(10.0, "A100") == "continue":
                pass
            one.rest()
        search = one.sweep.search()
        before = search.horizon
        assert before is not None
        one.book()
        assert one.step(30.0, "T4", cut=True) == "pause"
        assert (search.epoch_seconds[-1], search.device) == (10.0, "A100")
        one.core.crashed("a", "its node has died")
        one.sweep.pause()
        one.book()
        assert search.horizon is not None
        assert 0.9 * before < search.horizon <= before + 1

    def test_a_search_that_stays_on_a_cheap_device_is_not_priced_at_the_dearest(self) -> None:
        epochs = []
        for prices in (Prices(0.25, 0.25), Prices(1.0, 0.625)):
            one = OneSearch(EqualShare(1), 600.0, prices)
            one.price = 0.25
            while one.book():
                while one.step(40.0, "T4") == "continue":
                    pass
                one.rest()
            assert one.sweep.search().state == "finished"
            epochs.append(one.sweep.search().epochs)
        assert epochs[1] >= epochs[0] - 1


class TestDeadDrivers:
    def resumed(self, sweep: Sweep, seconds_unseen: float, devices: float) -> SweepState:
        state = SweepState.replay(None, sweep.book.records)
        rules = replace(sweep.core.rules, devices=devices)
        core = SweepCore(sweep.book, state, AsyncHalving(), sweep.clock, rules)
        core.enter_run(Budget(state.ledger.budget, "cpu"), {"device": "cpu"}, 1, seconds_unseen)
        return state

    def test_what_was_held_after_its_death_is_told_by_its_own_cluster(self) -> None:
        sweep = Sweep(1000.0, seconds_unseen=60.0)
        sweep.start()
        sweep.hold(2.0)
        sweep.core.post()
        state = self.resumed(sweep, 5.0, 1.0)
        assert state.ledger.spent_by_kind["lost"] == pytest.approx(2.0 + 60.0 + 1.0)
        assert state.seconds_unseen == 5.0

    def test_trials_may_have_held_more_in_a_run_between(self) -> None:
        sweep = Sweep(1000.0)
        self.resumed(sweep, 5.0, 4.0)
        state = SweepState.replay(None, sweep.book.records)
        assert state.most_devices == 4.0


@pytest.mark.parametrize(
    ("gpus", "needed", "slots"),
    [(4, 0.4, 8), (2, 0.6, 2), (4, 0.5, 8), (1, 0.1, 10), (4, 1.0, 4), (4, 2.0, 2), (3, 2.0, 1), (0, 0.5, 0)],
)
def test_parts_of_a_gpu_lie_in_one_gpu(monkeypatch: pytest.MonkeyPatch, gpus: int, needed: float, slots: int) -> None:
    watch = NodeWatch(SimulatedClock())
    monkeypatch.setattr(watch, "_look", lambda: None)
    monkeypatch.setattr(watch, "_nodes", {"node": {"CPU": 64.0, "GPU": float(gpus)}})
    assert watch.slots({"CPU": 1.0, "GPU": needed}) == slots


class TestAsking:
    def test_an_answer_that_comes_late_is_taken_the_next_time(self) -> None:
        asker, asked = Asker[int](), []

        def slow() -> int:
            asked.append(1)
            time.sleep(0.3)
            return len(asked)

        assert asker.ask(slow, patience=0.05) is None
        assert asker.ask(slow, patience=0.05) is None, "that of the first question is still awaited"
        time.sleep(0.4)
        assert asker.ask(slow, patience=0.05) == 1
        assert len(asked) == 1

    def test_it_is_asked_anew_where_only_the_present_counts(self) -> None:
        asker, seconds = Asker[int](), iter([0.3, 0.0])

        def answer() -> int:
            took = next(seconds)
            time.sleep(took)
            return round(10 * took)

        assert asker.ask(answer, patience=0.05, late=False) is None
        time.sleep(0.4)
        assert asker.ask(answer, patience=0.5, late=False) == 0

    def room(self, monkeypatch: pytest.MonkeyPatch, fails: int) -> tuple[ClusterRoom, SimulatedClock, list[int]]:
        asked: list[int] = []

        def request(bundles: list[dict[str, Any]]) -> None:
            asked.append(len(bundles))
            if len(asked) <= fails:
                raise ConnectionError("the control store does not answer")

        monkeypatch.setattr(cluster_room, "request_resources", request)
        monkeypatch.setattr(cluster_room, "cluster_is_own", lambda: False)
        clock = SimulatedClock(0.0)
        return ClusterRoom({"CPU": 1.0}, 1.0, 4, DeviceRates(), clock), clock, asked

    def test_a_request_that_fails_is_repeated_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room, clock, asked = self.room(monkeypatch, fails=2)
        room.ask()
        for _ in range(200):
            clock.advance(0.1)
            room.ask_again()
        assert asked == [4, 4, 4], "at once, after 5 s, after 10 s; then it was heard"
        clock.advance(60.0)
        room.ask_again()
        assert asked == [4] * 4

    def test_the_last_one_is_repeated_until_it_is_heard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room, _, asked = self.room(monkeypatch, fails=3)
        room.ask()
        room.withdraw()
        assert asked == [4, 0, 0, 0]
        room.withdraw()
        assert len(asked) == 4

    def test_what_leaves_slots_empty_asks_for_no_nodes_that_were_let_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        room, _, asked = self.room(monkeypatch, fails=0)
        room.ask()
        room.ask_at_least(3)
        room.ask(1)
        room.ask_at_least(2)
        assert asked == [4, 1, 2]
