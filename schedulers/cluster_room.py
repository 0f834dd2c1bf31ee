"""What a cluster has room for, what that costs, and what a cluster that grows by itself is asked for."""

from __future__ import annotations

import logging

from ray.autoscaler.sdk import request_resources

from schedulers.clock import Clock
from schedulers.device_rates import DeviceRates, Prices
from schedulers.node_watch import NodeWatch
from schedulers.tune_internals import cluster_is_own

logger = logging.getLogger(__name__)


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
        self._asked = 0

    def trials(self) -> int:
        """How many trials can run now."""
        fits = self.nodes.slots(self._needs)
        return fits if self._limit is None else min(fits, self._limit)

    def prices(self) -> Prices | None:
        """What a trial's wall second costs on the devices that are there; None if there is no room."""
        slots = self.nodes.slots_by_type(self._needs)
        rates = [self.rates.of(device) for device, count in slots.items() for _ in range(count)]
        if not rates:
            return None
        return Prices(max(rates) * self._devices, sum(rates) / len(rates) * self._devices)

    def ask(self, trials: int | None = None) -> None:
        """Have a cluster that grows make room for so many trials, and keep it; None: for as many as may run at once."""
        wanted = (self._limit or 1) if trials is None else trials
        if wanted == self._asked or cluster_is_own():
            return
        request_resources(bundles=[{name: amount for name, amount in self._needs.items() if amount}] * wanted)
        logger.info("the cluster was asked for room for %d trials", wanted)
        self._asked = wanted

    def missing(self) -> str:
        """That there is no room; empty if there is some."""
        held = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items() if amount)
        return "" if self.trials() else f"no live node has room for a trial, which holds {held}"
