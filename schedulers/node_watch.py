"""The nodes of a cluster: how many trials they hold, which are about to go, whether the driver's own lives."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ray

from schedulers.clock import Clock
from schedulers.device_rates import accelerator_of
from schedulers.node_room import slots_of_node
from schedulers.tune_internals import cluster_is_own, dead_ray_process, draining_nodes

_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 1.0
_SILENCE_SECONDS = {False: 15.0, True: 4.0}
"""A Ray of the driver's own that has not answered for so long is taken for dead; sooner if the driver is to stop."""

Answer = TypeVar("Answer")


class Asker(Generic[Answer]):
    """Asks Ray, which does not answer for a minute after its control store has died, without waiting for that."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._asked = 0.0
        self._answer: Answer | None = None
        self._late = False

    def ask(
        self, question: Callable[[], Answer], patience: float = _ANSWER_SECONDS, late: bool = True
    ) -> Answer | None:
        """The answer; None if it does not come within these seconds, or that of an earlier question is still awaited.

        Args:
            question: To Ray.
            patience: In seconds.
            late: Whether the answer to the question before is as good, if that has come since.
        """

        def answer() -> None:
            self._answer = question()

        if self._thread is not None and self._thread.is_alive():
            return None
        if self._late and late:
            self._late = False
            return self._answer
        self._answer, self._asked = None, time.monotonic()
        self._thread = threading.Thread(target=answer, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not dead_ray_process() and self.silent_seconds < patience:
            self._thread.join(0.05)
        self._late = self._thread.is_alive()
        return None if self._late else self._answer

    @property
    def silent_seconds(self) -> float:
        """For how long an answer has been awaited."""
        waiting = self._thread is not None and self._thread.is_alive()
        return time.monotonic() - self._asked if waiting else 0.0


class NodeWatch:
    """Looks at the nodes, at most once a second.

    Args:
        clock: Tells when a second has passed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked = -math.inf
        self._nodes: dict[str, dict[str, float]] = {}
        self._addresses: dict[str, str] = {}
        self._types: dict[str, str] = {}
        self._draining: set[str] = set()
        self._home_is_dead = False
        self._asker = Asker[tuple[list[dict[str, Any]], set[str]]]()

    def slots(self, needs: dict[str, float]) -> int:
        """How many processes with these resources fit all nodes together, node by node, that live and stay."""
        return sum(self.slots_by_type(needs).values())

    def slots_by_type(self, needs: dict[str, float]) -> Counter[str]:
        """The same by the accelerator type of the nodes, empty for those that tell none."""
        self._look()
        fits = Counter[str]()
        for name, node in self._nodes.items():
            if name not in self._draining:
                fits[accelerator_of(node)] += slots_of_node(node, needs)
        return fits

    def live_types(self) -> set[str]:
        """The accelerator types of the nodes that are there; the empty text stands for those that tell none."""
        self._look()
        return {self._types[name] for name in self._nodes}

    def types(self) -> dict[str, str]:
        """The accelerator types of all nodes that were ever seen, by id; empty for those that tell none."""
        self._look()
        return self._types

    def addresses(self) -> dict[str, str]:
        """The IP addresses of the live nodes, by id."""
        self._look()
        return self._addresses

    def draining(self) -> set[str]:
        """The ids of the live nodes that were told to go: a spot node's warning, ``ray drain-node``, an autoscaler."""
        self._look()
        return self._draining

    def lost(self, stopping: bool) -> str:
        """Why nothing can be run any more: Ray's own processes beside the driver have died. Empty if they live.

        Whatever asks Ray then waits for a minute and more, so this must be known before anything is asked.

        Args:
            stopping: Whether the driver was told to stop, and so maybe was Ray.
        """
        if dead := dead_ray_process():
            return f"Ray's {dead} has died"
        if cluster_is_own() and self._asker.silent_seconds > _SILENCE_SECONDS[stopping]:
            return "Ray does not answer any more"
        return "the driver's own node has left the cluster" if self._home_is_dead else ""

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked <= _LOOK_SECONDS:
            return
        self._looked = now
        # Without a first look there would be no room for anything, and sweeps would be refused for it.
        patience = _ANSWER_SECONDS if self._nodes else _SILENCE_SECONDS[False]
        answer = self._asker.ask(lambda: (ray.nodes(), draining_nodes()), patience)
        if answer is None:
            return
        nodes, draining = {node["NodeID"]: node for node in answer[0]}, answer[1]
        live = {name: node for name, node in nodes.items() if node["Alive"]}
        self._nodes = {name: dict(node["Resources"]) for name, node in live.items()}
        self._addresses = {name: node["NodeManagerAddress"] for name, node in live.items()}
        self._types |= {name: accelerator_of(node) for name, node in self._nodes.items()}
        self._draining = draining & set(self._nodes)
        home = nodes.get(ray.get_runtime_context().get_node_id())
        self._home_is_dead = home is not None and not home["Alive"]
