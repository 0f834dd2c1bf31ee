"""The simulated sweep with what goes wrong in a month: processes die or hang, nodes come and go, drivers die."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from schedulers.allocation import Allocator
from schedulers.charging import FLUSH_SECONDS
from tests.schedulers_tests.conftest import UNSEEN_SECONDS, MemoryBook
from tests.schedulers_tests.simulation import Process, Simulation, Trial, World


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
        self.make_allocator = make_allocator
        self.all_slots = world.slots
        self.struck: Counter[str] = Counter()
        self.kept: dict[str, dict[int, tuple[int, float, float]]] = {}
        self.means = {
            self.a_process_dies: faults.death,
            self.a_step_hangs: faults.hang,
            self.nodes_come_and_go: faults.nodes,
            self.the_driver_dies: faults.driver,
        }
        super().__init__(world, budget, make_allocator())
        self.due = {fault: self.random.expovariate(1 / mean) for fault, mean in self.means.items()}

    def pass_time(self, seconds: float) -> None:
        """Let time pass, but not beyond the next fault."""
        super().pass_time(min(seconds, max(0.0, min(self.due.values()) - self.clock.monotonic())))

    def advance(self) -> None:
        """What is simulated anyway, then the fault that is due, if one is."""
        super().advance()
        fault = min(self.due, key=self.due.__getitem__)
        if self.due[fault] <= self.clock.monotonic():
            self.due[fault] = self.clock.monotonic() + self.random.expovariate(1 / self.means[fault])
            fault()

    def at_work(self) -> list[Process]:
        return [process for process in self.processes.values() if process.state == "working"]

    def a_process_dies(self) -> None:
        if at_work := self.at_work():
            self.struck["death"] += 1
            self.gone(self.random.choice(at_work), killed=True)

    def a_step_hangs(self) -> None:
        if stepping := [process for process in self.at_work() if process.phase == "train"]:
            self.struck["hang"] += 1
            self.random.choice(stepping).ends = math.inf

    def nodes_come_and_go(self) -> None:
        self.struck["nodes"] += 1
        self.world = replace(self.world, slots=self.random.randint(1, self.all_slots))
        alive = list(self.processes.values())
        for process in self.random.sample(alive, max(0, len(alive) - self.world.slots)):
            self.gone(process, killed=True, blameless=True)

    def the_driver_dies(self) -> None:
        self.struck["driver"] += 1
        # The last moments are on no disk: what is held in them, and whatever was not flushed.
        self.pass_time(self.random.uniform(0.0, FLUSH_SECONDS))
        ledger, devices = self.core.state.ledger, self.world.devices
        for process in self.processes.values():
            rest = ledger.grants[process.grant].left / devices if process.grant in ledger.grants else 0.0
            self.held += devices * self.random.uniform(0.0, min(UNSEEN_SECONDS, max(0.0, rest - FLUSH_SECONDS)))
        self.clock.advance(UNSEEN_SECONDS)
        self.processes.clear()
        on_disk = self.random.randint(self.book.flushed, len(self.book.records))
        self.book = MemoryBook(self.clock, self.book.records[:on_disk])
        self.drive(self.make_allocator())
        self.trials = {name: trial for name, trial in self.trials.items() if name in self.core.state.searches}
        for name, trial in self.trials.items():
            self.restore(trial, name)

    def restore(self, trial: Trial, name: str) -> None:
        """Let a trial be what the journal knows of it."""
        checkpoints = self.core.state.searches[name].checkpoints
        trial.saved = self.kept[name][checkpoints[-1].iteration] if checkpoints else (0, 0.0, 0.0)
        trial.epochs, trial.duration, trial.gone = trial.saved

    def saved(self, process: Process) -> None:
        """Keep what a checkpoint holds."""
        name = process.trial
        super().saved(process)
        self.kept.setdefault(name, {})[self.trials[name].iteration] = self.trials[name].saved
