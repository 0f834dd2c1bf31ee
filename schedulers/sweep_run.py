"""One driver's work on a sweep: the core, the processes that it sees, the journal that it holds."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from schedulers.actor_watch import ActorWatch
from schedulers.allocation import Slice, SweepView
from schedulers.checkpoint_keeper import CheckpointKeeper
from schedulers.checkpoint_store import CheckpointStore
from schedulers.clock import Clock
from schedulers.cluster_room import ClusterRoom
from schedulers.core import SweepCore
from schedulers.ending import OUT_OF_TIME
from schedulers.interruption import Interruption
from schedulers.journal import Journal, JournalWriteError
from schedulers.lease import LeaseLostError
from schedulers.lost_cluster import lose_cluster
from schedulers.messenger import Messengers
from schedulers.meter import Holding
from schedulers.node_watch import Asker
from schedulers.search_record import SearchRecord, SearchStatus
from schedulers.storage_watch import StorageWatch, says_disk_full
from schedulers.terms import Terms
from schedulers.trial_errors import lost_its_node
from schedulers.tune_internals import (
    ActorPlace,
    dismiss_trials,
    drop_idle,
    error_of,
    forget_checkpoint,
    pump,
)

logger = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
"""A process that idles so long with nothing to grant is stopped."""

_NOTHING_NEW = "Nothing new is started before it can be written."
_WARNING_SECONDS = 60.0
_WAITING_SECONDS = 0.5


class SweepRun:
    """Between Tune's controller and the core: charges what is held, books what is offered, ends what is over.

    Args:
        core: The spending.
        journal: Held by this driver.
        terms: The budget and how it is spent.
        room: What the cluster has room for.
        interruption: Tells whether the sweep should stop.
        storage: Tells whether the sweep's folder can be written.
        store: The checkpoints there.

    Attributes:
        controller: Tune's, once it has called.
        keeper: Keeps checkpoints within their bound.
        ended: Whether the end is written; nothing may be entered after it.
    """

    def __init__(
        self,
        core: SweepCore,
        journal: Journal,
        terms: Terms,
        room: ClusterRoom,
        interruption: Interruption,
        storage: StorageWatch,
        store: CheckpointStore,
        clock: Clock,
    ) -> None:
        self.core = core
        self.controller: TuneController | None = None
        self.ended = False
        self.keeper = CheckpointKeeper(core, store, terms, self.active)
        self._journal = journal
        self._terms = terms
        self._room = room
        self._interruption = interruption
        self._storage = storage
        self._clock = clock
        room.ask()
        self._messengers = Messengers()
        self._asker = Asker[dict[str, ActorPlace]]()
        self._watch = ActorWatch(terms.budget.device.upper(), lambda name: core.state.searches[name].grant, clock, room)
        self._held: dict[str, Holding] = {}
        self._active: set[str] = set()
        self._pausing: set[str] = set()
        self._out_of_time: set[str] = set()
        self._end_entered = False
        self._leaving: set[str] = set()
        self._idle_since: float | None = None
        self._warned = -_WARNING_SECONDS

    def slots(self) -> int:
        """How many trials can run now on the live nodes; the core learns what they cost there."""
        self.core.prices = self._room.prices() or self.core.prices
        return self.keeper.slots(self._room.trials())

    def device_of(self, name: str) -> str:
        """The accelerator type that a trial is at work on; empty if it is not known."""
        return self._watch.device_of(name)

    def active(self, name: str) -> bool:
        """Whether a trial has a grant that it has not come to rest on."""
        return name in self._active

    def leaving(self, name: str) -> bool:
        """Whether a trial must save and leave: the sweep stops, its node is about to go, or its grant is used up."""
        return bool(self._interruption.wanted) or name in self._leaving

    def storage_fails(self) -> bool:
        """Whether the sweep's folder cannot be reached or written now, after something there went wrong."""
        return bool(self._storage.doubt())

    def cannot_save(self, error: str) -> bool:
        """Whether a trial failed because nothing could be saved: then the sweep waits until it can be, or stops."""
        if self.storage_fails():
            return True
        if says_disk_full(error):
            # Not the disk of the sweep's folder, so that nobody can tell when there is room again.
            self._interruption.want(f"a trial found a disk full ({error})")
            return True
        return False

    def busy(self) -> list[str]:
        """One trial's name for each slot in use: those at work, and those that wait for a process."""
        at_work = self._watch.at_work(self._held)
        seen = set(at_work)
        return [*at_work, *(name for name in self._active if name not in seen)]

    # Starting

    def offer(self) -> tuple[Slice, SweepView] | None:
        """The slice that a free slot should run now; if there is none, whatever should rest or end does."""
        self._notice_silent_ends()
        if not self._interruption.wanted and not self._storage.trouble():
            offer = self.core.next_slice(self.slots(), self.busy(), self._watch.idle_grants(self._held))
            if offer is not None:
                return offer
        self._rest()
        return None

    def book(self, piece: Slice, search: SearchRecord, view: SweepView) -> dict[str, Any]:
        """Book the grant for a slice, durably; returns what the Trainable is told of it."""
        self._idle_since = None
        if piece.leaves_slots_empty:
            self._room.ask_at_least(len(self.busy()) + 1)
        else:
            self._room.ask()
        idle = self._watch.idle_grants(self._held)
        seconds = self.core.book(piece, search, view, idle[0] if idle else None)
        self._active.add(search.id)
        if idle:
            assert search.grant is not None, f"search {search.id} has no grant though one was booked"
            self._watch.hand_over(search.id, search.grant)
        self._flush_grant()
        self.make_room()
        return self._terms.told(search.horizon, seconds, search.target)

    def goes_on_at_once(self, name: str) -> dict[str, Any] | None:
        """What a trial at the end of its slice is told if it keeps its process; its next grant is booked, durably."""
        if self.leaving(name):
            return None
        seconds = self.core.keep_slot(name, self.slots(), self.busy())
        if seconds is None:
            return None
        self._flush_grant()
        search = self.core.state.searches[name]
        return self._terms.told(search.horizon, seconds, search.target)

    def _flush_grant(self) -> None:
        """Nothing runs on a grant that is not on disk: wait for the disk, and guard the cap meanwhile."""
        while True:
            try:
                self.core.flush()
                return
            except JournalWriteError as error:
                if self._interruption.wanted:
                    raise
                self._warn(f"{error} {_NOTHING_NEW}")
                time.sleep(1.0)
                self.tick()

    def _warn(self, what: str) -> None:
        """Say once a minute why nothing is started."""
        now = self._clock.monotonic()
        if now - self._warned >= _WARNING_SECONDS:
            self._warned = now
            logger.warning("%s", what)

    # Storage

    def make_room(self) -> None:
        """Keep checkpoints within their bound; the sweep stops if it cannot go on under it."""
        raw = self.controller
        if raw is None or self.ended:
            return
        if why := self.keeper.refusal(self._room.trials()):
            self._interruption.want(why)
            return
        trials = {trial.trial_id: trial for trial in raw.get_trials()}

        def forget(search: SearchRecord, path: str) -> None:
            trial = trials.get(search.id)
            if trial is None:
                return  # Of an earlier run, and not handed out again yet.
            forget_checkpoint(trial, f"{trial.storage.experiment_fs_path}/{path}")
            if search.state == "not resumable":
                raw.stop_trial(trial)

        self.keeper.make_room(forget)

    # Time

    def tick(self) -> None:
        """Charge what is held, kill what has used its grant up, follow what came to rest."""
        raw = self.controller
        if raw is None or self.ended:
            return
        if why := self._room.nodes.lost(stopping=bool(self._interruption.wanted)):
            self.ended = True
            lose_cluster(raw, self.core, self._journal, why)
        self._held = self._watch.look(raw)
        try:
            self.core.tick(self._held)
            self._journal.beat()
        except JournalWriteError as error:
            self._storage.doubt()
            self._warn(f"{error} {_NOTHING_NEW}")
        except LeaseLostError:
            self._watch.kill(raw, self._held)
            self.ended = True
            raise
        self._room.ask_again()
        self._watch.kill(raw, self._watch.superfluous())
        for name in self._watch.kill(raw, self.core.overdue(self._held)):
            if name in self._active:
                self._out_of_time.add(name)
                logger.warning("trial %s was killed: its grant had only its grace left", name)
        for grant in self._abandoned_grants():
            self.core.close(grant)
        if self._pausing:
            for trial in raw.get_trials():
                if trial.trial_id in self._pausing and trial.status == Trial.PAUSED:
                    self.came_to_rest(trial.trial_id, "paused", "slice ended")
        self._mind_deadline(raw)
        self._usher_out(raw)

    def _abandoned_grants(self) -> list[str]:
        """Grants of trials at rest that no process holds: it is gone, or died before anybody had seen it.

        That of a trial at work stays: where its process was taken away before it began, Tune starts another one for it.
        """
        held = {holding.grant for holding in self._held.values()}
        grants = self.core.state.ledger.grants
        return [name for name, grant in grants.items() if name not in held and grant.trial not in self._active]

    def _mind_deadline(self, raw: TuneController) -> None:
        """Stop ahead of the deadline, so that everything is saved when it comes; kill what is not."""
        if self._terms.deadline is None:
            return
        steps = [self.core.state.searches[name].slowest_seconds for name in self._active]
        # A trial that cannot be told to stop ends its step first.
        ending = 0.0 if self._terms.slice_key else 1.5 * max(steps, default=0.0)
        if self.core.deadline_seconds <= ending:
            self._interruption.want(OUT_OF_TIME)
        if self._terms.deadline - self._clock.time() <= self.core.rules.grace_seconds:
            for name in self._watch.kill(raw, self._held):
                logger.warning("trial %s was killed: it had not saved when the deadline came", name)

    def _notice_silent_ends(self) -> None:
        """Enter trials that Tune ended without telling: those whose ``reset_config`` answered False."""
        for trial in self.controller.get_trials() if self.controller is not None and self._active else ():
            if trial.trial_id in self._active and trial.status == Trial.ERROR:
                why = error_of(trial)
                self.core.crashed(trial.trial_id, why)
                self.came_to_rest(trial.trial_id, "failed", why)

    def pausing(self, name: str) -> None:
        """Take note that a trial was told to pause: it comes to rest when it has saved."""
        self._pausing.add(name)

    def lost_its_node(self, name: str, error: str) -> bool:
        """Whether a trial failed as its node was lost, rather than because it was killed for its time."""
        return lost_its_node(error) and name not in self._out_of_time

    def came_to_rest(self, name: str, state: SearchStatus, why: str) -> None:
        """Enter that a trial is no longer at work."""
        self._active.discard(name)
        self._pausing.discard(name)
        self._leaving.discard(name)
        self._out_of_time.discard(name)
        if state == "paused":
            self.core.rest(name, why)
        else:
            self.core.moved(name, state, why)

    def _usher_out(self, raw: TuneController) -> None:
        """Have trials save and stop that must leave; those that have not begun are called off if the sweep stops."""
        draining, expiring = self._room.nodes.draining(), set[str]()
        if self._terms.slice_key is not None:
            self._messengers.send_to(self._room.nodes.addresses())
            expiring = self.core.expiring(self._held) & self._active - self._leaving
        if not draining and not expiring and not self._interruption.wanted:
            return
        wanted, places = bool(self._interruption.wanted), self._asker.ask(self._watch.places, late=False) or {}
        for trial in list(raw.get_trials()):
            name = trial.trial_id
            if name not in self._active or name in self._leaving:
                continue
            place = places.get(name)
            if trial.status == Trial.PENDING and wanted:
                self.came_to_rest(name, "paused", "interrupted")
                raw.stop_trial(trial)
                self._watch.kill(raw, [key for key, held in self._held.items() if held.trial == name])
            elif trial.status == Trial.RUNNING and place and (wanted or name in expiring or place.node in draining):
                self._leaving.add(name)
                if self._terms.slice_key is not None:
                    self._messengers.ask_to_stop(place)
        if draining:
            # An idle process may be on a node that goes; which one Tune uses next cannot be chosen.
            drop_idle(raw)
            self._messengers.end_on(draining, self._watch.take_ended())

    # The end

    def _rest(self) -> None:
        """Nothing to start: stop processes that idle for long, and end the sweep when nothing is at work."""
        if 0 < len(self.busy()) < self.slots():
            # The other nodes may go.
            self._room.ask(len(self.busy()))
        if self.controller is not None and not self._active and (self.busy() or self._watch.leaving):
            # Only processes on their way out; while Tune waits for a new trial it does not attend to them. What they
            # leave of their grants may buy another slice.
            while self.busy() or self._watch.leaving:
                self._attend(self.controller)
        elif self.busy():
            if self.controller is None or not self._watch.idle_grants(self._held):
                self._idle_since = None
            else:
                self._idle_since = self._idle_since or self._clock.monotonic()
                if self._clock.monotonic() - self._idle_since > IDLE_SECONDS:
                    drop_idle(self.controller)
        elif self.controller is not None and len(self._watch.idle_grants(self._held)) > 1:
            # What lies in their grants may buy another slice for the one that stays.
            drop_idle(self.controller, keep=1)
            self.tick()
        elif self._interruption.wanted:
            self.end()
        elif waits_for := self._storage.trouble() or self._room.missing():
            # Both come and go; without this pause Tune would turn in circles as fast as it can.
            self._warn(f"{waits_for}: waiting until it is otherwise")
            if self.controller is not None:
                drop_idle(self.controller)
                pump(self.controller, 0.0)
            time.sleep(_WAITING_SECONDS)
        else:
            self.end()

    def _attend(self, raw: TuneController) -> None:
        """Let processes come to their end."""
        pump(raw, 0.05)
        # With no process left that Tune knows, there is nothing to wait for above.
        time.sleep(0.01)
        self.tick()

    def end(self) -> None:
        """Wait until no process holds anything, write the end, let Tune finish."""
        raw = self.controller
        if raw is not None:
            drop_idle(raw)
            while self._held:
                self._attend(raw)
        self._room.withdraw()
        while not self._write_end(self._interruption.wanted) and not self._interruption.wanted:
            time.sleep(_WAITING_SECONDS)
        self.ended = True
        if raw is not None:
            dismiss_trials(raw)

    def abandon(self, why: str) -> None:
        """Tune's loop has ended before the sweep did: whatever was at work is lost."""
        if self.ended:
            return
        self.tick()
        for name in list(self._active):
            self.core.crashed(name, why)
            self.came_to_rest(name, "paused", why)
        self._write_end(why)
        self.ended = True
        self._room.withdraw()

    def _write_end(self, interrupted: str) -> bool:
        """Write the end and let go of the journal; whether that could be done."""
        try:
            if not self._end_entered:
                self._end_entered = True
                self.core.end(interrupted)
            self._journal.close()
        except JournalWriteError as error:
            self._warn(f"{error} What was held since the last record will be charged when the sweep goes on.")
            return False
        return True
