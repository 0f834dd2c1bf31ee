"""Asking a cluster that grows by itself for the nodes that a sweep has work for."""

from __future__ import annotations

import logging

from ray.autoscaler.sdk import request_resources

logger = logging.getLogger(__name__)


class NodeRequest:
    """What an autoscaler is asked for on behalf of a sweep.

    Trials come only when there is room for them, so that Tune never has one pending for which Ray would add a node. A
    request stands, and keeps idle nodes, until it is changed; on clusters that do not grow it has no effect.

    Args:
        needs: The resources of one trial, by Ray's names.
    """

    def __init__(self, needs: dict[str, float]) -> None:
        self._bundle = {name: amount for name, amount in needs.items() if amount > 0}
        self._asked = 0

    def ask(self, trials: int) -> None:
        """Have the cluster make room, and keep it, for so many trials; 0 withdraws the request."""
        if trials == self._asked:
            return
        request_resources(bundles=[self._bundle] * trials)
        logger.info("the cluster was asked for room for %d trials", trials)
        self._asked = trials
