"""The simulated sweep with what goes wrong in a month: processes die or hang, nodes come and go, drivers die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from schedulers.allocation import Allocator
from schedulers.charging import FLUSH_SECONDS
from schedulers.simulated_world import Process, SimulatedTrial
from schedulers.simulator import UNSEEN_SECONDS
from tests.schedulers_tests.simulation import Simulation, World


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong: mean wall seconds between two such faults of the whole sweep.

    Attributes:
        death: A process dies, or its step raises.
        hang: A step never ends.
        nodes: Nodes are lost, or come back: any number of slots from 1 on is left.
        driver: The driver dies, with any part of what it has not flushed on disk.
    """

    death: float
    hang: float
    nodes: float
    driver: float


class FaultySimulation(Simulation):
    """As :class:`Simulation`, until the next fault; which, when and whom it strikes is drawn by the world's seed.

    Processes of a dead driver hold their devices for as long as is foreseen at most, or as their grants last.

    Attributes:
        struck: How many faults of each kind there were.
    """

    def __init__(self, world: World, budget: float, make_allocator: Callable[[], Allocator], faults: Faults) -> None:
        super().__init__(world, budget, make_allocator())
        self.make_allocator = make_allocator
        self.all_slots = world.slots
        self.struck: Counter[str] = Counter()
        self.kept: dict[str, dict[int, SimulatedTrial]] = {}
        for fault, mean in (
            (self.a_process_dies, faults.death),
            (self.a_step_hangs, faults.hang),
            (self.nodes_come_and_go, faults.nodes),
            (self.the_driver_dies, faults.driver),
        ):
            self.recur(fault, mean)

    def recur(self, fault: Callable[[], None], mean: float) -> None:
        """Have a fault strike again and again."""

        def strikes() -> None:
            fault()
            self.recur(fault, mean)

        self.schedule(self.random.expovariate(1 / mean), strikes)

    def at_work(self) -> list[Process]:
        return [process for process in self.processes.values() if process.state == "working"]

    def a_process_dies(self) -> None:
        if at_work := self.at_work():
            self.struck["death"] += 1
            self.gone(self.random.choice(at_work), "killed")

    def a_step_hangs(self) -> None:
        if stepping := [process for process in self.at_work() if process.phase == "train"]:
            self.struck["hang"] += 1
            self.random.choice(stepping).doing += 1

    def nodes_come_and_go(self) -> None:
        self.struck["nodes"] += 1
        self.world = replace(self.world, slots=self.random.randint(1, self.all_slots))
        alive = list(self.processes.values())
        for process in self.random.sample(alive, max(0, len(alive) - self.world.slots)):
            self.gone(process, "its node is lost", blameless=True)

    def the_driver_dies(self) -> None:
        self.struck["driver"] += 1
        # The last moments are on no disk: what is held in them, and whatever was not flushed.
        self.pass_time(self.random.uniform(0.0, FLUSH_SECONDS))
        ledger, devices = self.core.state.ledger, self.rules.devices
        for process in self.processes.values():
            rest = ledger.grants[process.grant].left / devices if process.grant in ledger.grants else 0.0
            self.held += devices * self.random.uniform(0.0, min(UNSEEN_SECONDS, max(0.0, rest - FLUSH_SECONDS)))
        self.clock.advance(UNSEEN_SECONDS)
        self.records = self.records[: self.random.randint(self.book.flushed, len(self.records))]
        self.drive(self.make_allocator())
        self.trials = {name: trial for name, trial in self.trials.items() if name in self.core.state.searches}
        for name in self.trials:
            self.restore(name)

    def restore(self, name: str) -> None:
        """Let a trial be what the journal knows of it."""
        search = self.core.state.searches[name]
        if search.checkpoints:
            self.saved[name] = self.kept[name][search.checkpoints[-1].iteration]
        else:
            drawn = self.workload.draw(search.index, "search")
            assert drawn is not None
            self.saved[name] = SimulatedTrial(drawn[1])
        self.trials[name] = self.saved[name].copy()

    def save(self, process: Process) -> None:
        """Keep what a checkpoint holds."""
        super().save(process)
        self.kept.setdefault(process.trial, {})[self.trials[process.trial].iteration] = self.saved[process.trial]
