"""What a cluster has room for, what that costs, and what a cluster that grows by itself is asked for."""

from __future__ import annotations

import logging
import math
import time

from ray.autoscaler.sdk import request_resources

from schedulers.clock import Clock
from schedulers.device_rates import DeviceRates, Prices
from schedulers.node_watch import Asker, NodeWatch
from schedulers.tune_internals import cluster_is_own

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0
_RETRY_SECONDS = 5.0
_WITHDRAWING_SECONDS = 5.0


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
        self._tried: int | None = None
        self._tried_at = -math.inf
        self._asked: int | None = 0
        self._complained = False
        self._asker = Asker[int | None]()

    def trials(self) -> int:
        """How many trials can run now."""
        fits = self.nodes.slots(self._needs)
        return fits if self._limit is None else min(fits, self._limit)

    def rate_of(self, node: str | None) -> float:
        """What a device of a node counts; None, of one that is not known yet: the most that any there counts."""
        types = self.nodes.types()
        if node is not None:
            return self.rates.of(types[node]) if node in types else self.rates.dearest
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

    def ask_at_least(self, trials: int) -> None:
        """Ask for so many trials' room, if it is not for more already."""
        if trials > self._wanted:
            self.ask(trials)

    def withdraw(self) -> None:
        """Ask for nothing any more; waits for some seconds until that is heard, as nodes stay for a request."""
        self.ask(0)
        until = time.monotonic() + _WITHDRAWING_SECONDS
        while self._asked != 0 and time.monotonic() < until:
            time.sleep(0.1)
            self._tried = None
            self.ask_again()

    def ask_again(self) -> None:
        """Repeat the request now and then: the cluster has but one, which whoever else uses it may have replaced."""
        now, wanted, heard = self._clock.monotonic(), self._wanted, self._asked == self._wanted
        if cluster_is_own() or (heard and wanted == 0):
            return
        if wanted == self._tried and now - self._tried_at < (_AGAIN_SECONDS if heard else _RETRY_SECONDS):
            return
        bundles = [{name: amount for name, amount in self._needs.items() if amount}] * wanted

        def request() -> int | None:
            try:
                request_resources(bundles=bundles)
            except Exception as error:
                # Of whatever kind: the next one may succeed, and the sweep goes on with the nodes that are there.
                if not self._complained:
                    logger.warning("the cluster could not be asked for nodes: %s", error)
                self._complained = True
                return None
            self._complained = False
            return wanted

        self._tried, self._tried_at = wanted, now
        self._asked = self._asker.ask(request)

    def missing(self) -> str:
        """That there is no room; empty if there is some."""
        held = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items() if amount)
        return "" if self.trials() else f"no live node has room for a trial, which holds {held}"
