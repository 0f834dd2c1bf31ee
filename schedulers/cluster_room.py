"""What a cluster has room for, what that costs, and what a cluster that grows by itself is asked for."""

from __future__ import annotations

import logging
import math

from ray.autoscaler.sdk import request_resources

from schedulers.clock import Clock
from schedulers.device_rates import DeviceRates, Prices
from schedulers.node_watch import Asker, NodeWatch
from schedulers.tune_internals import cluster_is_own

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0


class ClusterRoom:
    """Room for the trials of a sweep.

    Trials come only when there is room for them, so that Tune never has one pending for which Ray would add a node: an
    autoscaler must be asked. Such a request stands, and keeps idle nodes, until it is changed; on clusters that do not
    grow it has no effect.

    Args:
        needs: The resources of one trial, by Ray's names.
        devices: How many of the budgeted devices that is.
        limit: The most trials at once, and how many a cluster that grows by itself is asked to make room for; None: as
            many as fit the live nodes, and one.
        rates: What devices count.
        clock: Tells when the nodes must be looked at again.

    Attributes:
        nodes: The nodes.
        rates: As given.
    """

    def __init__(
        self, needs: dict[str, float], devices: float, limit: int | None, rates: DeviceRates, clock: Clock
    ) -> None:
        self.nodes = NodeWatch(clock)
        self.rates = rates
        self._needs = needs
        self._devices = devices
        self._limit = limit
        self._clock = clock
        self._wanted = 0
        self._asked: int | None = 0
        self._asked_at = -math.inf
        self._asker = Asker[bool]()

    def trials(self) -> int:
        """How many trials can run now."""
        fits = self.nodes.slots(self._needs)
        return fits if self._limit is None else min(fits, self._limit)

    def rate_of(self, node: str | None) -> float:
        """What a device of a node counts; None, of one that is not known yet: the most that any there counts."""
        types = self.nodes.types()
        if node in types:
            return self.rates.of(types[node])
        return max((self.rates.of(device) for device in self.nodes.live_types()), default=self.rates.dearest)

    def prices(self) -> Prices | None:
        """What a trial's wall second costs on the devices that are there; None if there is no room."""
        slots = self.nodes.slots_by_type(self._needs)
        rates = [self.rates.of(device) for device, count in slots.items() for _ in range(count)]
        if not rates:
            return None
        return Prices(max(rates) * self._devices, sum(rates) / len(rates) * self._devices)

    def ask(self, trials: int | None = None) -> None:
        """Have a cluster that grows make room for so many trials, and keep it; None: for as many as may run at once."""
        self._wanted = (self._limit or 1) if trials is None else trials
        self.ask_again()

    def ask_again(self) -> None:
        """Repeat the request now and then: the cluster has but one, which whoever else uses it may have replaced."""
        if cluster_is_own():
            return
        now, wanted = self._clock.monotonic(), self._wanted
        if wanted == self._asked and (wanted == 0 or now - self._asked_at < _AGAIN_SECONDS):
            return
        bundles = [{name: amount for name, amount in self._needs.items() if amount}] * wanted

        def request() -> bool:
            try:
                request_resources(bundles=bundles)
            except Exception as error:
                # Of whatever kind: the next one may succeed, and the sweep goes on with the nodes that are there.
                logger.warning("the cluster could not be asked for nodes: %s", error)
                return False
            return True

        self._asked, self._asked_at = (wanted if self._asker.ask(request) else None), now

    def missing(self) -> str:
        """That there is no room; empty if there is some."""
        held = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items() if amount)
        return "" if self.trials() else f"no live node has room for a trial, which holds {held}"
