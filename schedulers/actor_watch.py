"""Which process holds devices, for which trial, on whose grant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from schedulers.clock import Clock
from schedulers.cluster_room import ClusterRoom
from schedulers.meter import Holding, Phase
from schedulers.node_watch import Asker
from schedulers.tune_internals import ActorPlace, LiveActor, bury, is_gone, kill, live_actors, node_of, place_of

_LONGEST_LEAVING_SECONDS = 2.0
"""So long a process that Tune does not know any more is charged at most, if Ray does not tell that it is gone."""


@dataclass(frozen=True)
class _Owner:
    trial: str
    grant: str


class ActorWatch:
    """Follows Tune's processes from birth to death, so that every one of them is always on somebody's grant.

    An idle or stopping process stays on the grant of the trial that it worked for last.

    Args:
        device: The budgeted device by Ray's name, ``CPU`` or ``GPU``.
        grant_of: The grant that a trial holds now, by the trial's id.
        clock: Tells when a process that Tune does not know any more is gone.
        room: Tells the accelerator types of the nodes, and what devices count there.
    """

    def __init__(self, device: str, grant_of: Callable[[str], str | None], clock: Clock, room: ClusterRoom) -> None:
        self._device = device
        self._grant_of = grant_of
        self._clock = clock
        self._room = room
        self._homes: dict[str, str] = {}
        self._homes_asker = Asker[dict[str, str | None]]()
        self._owners: dict[Any, _Owner] = {}
        self._live: dict[str, LiveActor] = {}
        self._killed: set[Any] = set()
        self._held: dict[str, Holding] = {}
        self._leaving: dict[str, tuple[LiveActor, Holding, float]] = {}
        self._ended: list[tuple[LiveActor, float]] = []
        self._asker = Asker[set[str]]()

    def look(self, controller: TuneController) -> dict[str, Holding]:
        """Take a look at the processes.

        Returns:
            What each live process holds, by a key of its own, idle ones first in order of use.
        """
        now, seen, before = self._clock.monotonic(), self._live, self._held
        self._live, held = {}, dict[str, Holding]()
        actors = list(live_actors(controller))
        self._find_homes({str(actor.key.actor_id): actor for actor in actors})
        for actor in actors:
            key = str(actor.key.actor_id)
            if actor.trial is not None:
                name = actor.trial.trial_id
                grant = self._grant_of(name)
                if grant is not None:
                    self._owners[key] = _Owner(name, grant)
            owner = self._owners.get(key)
            if owner is None:
                continue
            self._live[key] = actor
            devices = actor.resources.get(self._device, 0.0) * self._room.rate_of(self._homes.get(key))
            held[key] = Holding(owner.trial, owner.grant, devices, _phase(actor))
        self._owners = {key: self._owners[key] for key in self._live}
        for key in seen.keys() - self._live.keys():
            bury(seen[key])
            self._ended.append((seen[key], now))
            self._leaving[key] = seen[key], replace(before[key], phase="setup"), now + _LONGEST_LEAVING_SECONDS
        self._ended = [(actor, at) for actor, at in self._ended if now - at < _LONGEST_LEAVING_SECONDS]
        self._forget_gone(now)
        self._held = {**held, **{key: holding for key, (_, holding, _) in self._leaving.items()}}
        return self._held

    def _forget_gone(self, now: float) -> None:
        if self._leaving:
            actors = {key: actor for key, (actor, _, _) in self._leaving.items()}
            gone = self._asker.ask(lambda: {key for key, actor in actors.items() if is_gone(actor)}) or set()
            self._leaving = {
                key: leaving for key, leaving in self._leaving.items() if key not in gone and now < leaving[2]
            }

    def _find_homes(self, actors: dict[str, LiveActor]) -> None:
        """Learn on which nodes processes are, where these differ in what they count or how fast they are."""
        self._homes = {key: node for key, node in self._homes.items() if key in actors}
        unknown = {key: actor for key, actor in actors.items() if key not in self._homes}
        if unknown and (self._room.rates.rates or any(self._room.nodes.types().values())):
            found = self._homes_asker.ask(lambda: {key: node_of(actor) for key, actor in unknown.items()}) or {}
            self._homes |= {key: node for key, node in found.items() if node is not None}

    def device_of(self, trial: str) -> str:
        """The accelerator type of the node that a trial is at work on; empty if there is none, or it is not known."""
        working = (key for key, actor in self._live.items() if not actor.idle and self._owners[key].trial == trial)
        types = self._room.nodes.types()
        return next((types.get(self._homes.get(key, ""), "") for key in working), "")

    @property
    def leaving(self) -> bool:
        """Whether there are processes that Tune does not know any more, and that are not gone yet."""
        return bool(self._leaving)

    def idle_grants(self, held: dict[str, Holding]) -> list[str]:
        """The grants of idle processes, the one that Tune uses next first."""
        return [held[key].grant for key, actor in self._live.items() if actor.idle]

    def hand_over(self, trial: str, grant: str) -> None:
        """The idle process that Tune uses next now runs on this grant of this trial."""
        key = next(key for key, actor in self._live.items() if actor.idle)
        self._owners[key] = _Owner(trial, grant)

    def at_work(self, held: dict[str, Holding]) -> list[str]:
        """The trials of the processes that are not idle, one name for each."""
        return [held[key].trial for key, actor in self._live.items() if not actor.idle]

    def places(self) -> dict[str, ActorPlace]:
        """Where the processes of the trials that are at work are, by trial; those whose place Ray knows."""
        working = {self._owners[key].trial: actor for key, actor in self._live.items() if not actor.idle}
        places = {name: place_of(actor) for name, actor in working.items()}
        return {name: place for name, place in places.items() if place is not None}

    def take_ended(self) -> list[LiveActor]:
        """The processes that were told to end lately and since this was asked last."""
        ended, self._ended = self._ended, []
        return [actor for actor, _ in ended]

    def superfluous(self) -> list[str]:
        """Processes that were still booting for a trial when it was given an idle one instead; nobody wants them."""
        return [
            key for key, actor in self._live.items() if actor.trial is None and not actor.idle and not actor.started
        ]

    def kill(self, controller: TuneController, keys: Iterable[str]) -> list[str]:
        """Kill processes that are not being killed yet; returns the trials that they worked for."""
        killed = []
        for key in keys:
            if key in self._live and key not in self._killed:
                self._killed.add(key)
                kill(controller, self._live[key])
                self._ended.append((self._live[key], self._clock.monotonic()))
                killed.append(self._owners[key].trial)
        return killed


def _phase(actor: LiveActor) -> Phase:
    trial = actor.trial
    if trial is None:
        return "idle" if actor.idle else "setup"
    if trial.is_saving:
        return "checkpoint"
    return "train" if trial.status == Trial.RUNNING and not trial.is_restoring else "setup"
