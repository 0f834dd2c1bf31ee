"""The way to a running trial's process: SIGTERM, which has it finish its batch, save and report."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from schedulers.node_watch import Asker
from schedulers.tune_internals import ActorPlace, LiveActor, place_of


def send(process: int, number: int) -> None:
    """Send a signal to a process of this machine, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(process, number)


class _Messenger:
    """Lives on another node, holds none of its devices."""

    def send(self, process: int, number: int) -> None:
        send(process, number)


class Messengers:
    """Reaches the processes of trials on all nodes.

    A node that is about to go takes no new work, so that somebody must be there before.
    """

    def __init__(self) -> None:
        self._there: dict[str, Any] = {}
        self._asker = Asker[list[ActorPlace | None]]()

    def send_to(self, nodes: Mapping[str, str]) -> None:
        """Have a messenger on each node (by id, with its IP address) that is not this machine, and on no other."""
        here = ray.util.get_node_ip_address()
        away = {node for node, address in nodes.items() if address != here}
        self._there = {node: actor for node, actor in self._there.items() if node in away}
        for node in away - set(self._there):
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "scheduling_strategy": where, "max_restarts": -1}
            self._there[node] = ray.remote(_Messenger).options(**options).remote()

    def ask_to_stop(self, place: ActorPlace) -> None:
        """Have a process finish its batch, save and report; nothing happens if it, or its node, is gone."""
        self._send(place, signal.SIGTERM)

    def end_on(self, nodes: Collection[str], ended: Sequence[LiveActor]) -> None:
        """End those processes at once that are, or were, on nodes that are about to go; Ray was told to end them.

        On such a node Ray 2.60 leaves those alive that handle SIGTERM themselves.
        """
        if ended:
            for place in self._asker.ask(lambda: [place_of(actor, ended=True) for actor in ended], late=False) or ():
                if place is not None and place.node in nodes:
                    self._send(place, signal.SIGKILL)

    def _send(self, place: ActorPlace, number: int) -> None:
        if messenger := self._there.get(place.node):
            messenger.send.remote(place.process, number)
        elif place.address == ray.util.get_node_ip_address():
            send(place.process, number)
