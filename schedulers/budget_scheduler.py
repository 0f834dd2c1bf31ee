"""Tune's events on one side, the spending of a sweep on the other."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint, Trainable
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.schedulers import TrialScheduler

from schedulers.actor_watch import ActorWatch, NodeWatch
from schedulers.allocation import Allocator, Slice, SweepView
from schedulers.clock import WallClock
from schedulers.core import FAILURES_IN_A_ROW, Rules, SweepCore
from schedulers.interruption import Interruption
from schedulers.journal import Journal, JournalWriteError
from schedulers.lease import LeaseLostError
from schedulers.meter import Holding
from schedulers.sweep_state import SearchRecord, SweepState
from schedulers.terms import Terms
from schedulers.trial_source import TrialSource, jsonable, saves_checkpoints
from schedulers.tune_internals import ask_to_stop, drop_idle, error_of, forget_reset, pump, reuse_actors, unwrapped

logger = logging.getLogger(__name__)

JOURNAL_FOLDER = "journal"
IDLE_SECONDS = 5.0
"""A process that idles so long with nothing to grant is stopped."""

_UNSEEN_SECONDS = {True: 5.0, False: 60.0}
"""What a trial may have gone on for after its driver died, on a cluster of the driver's own and on another."""


class BudgetScheduler(TrialScheduler):  # type: ignore[misc]
    """A Tune scheduler that spends one budget of device-time over all trials and never more.

    Works together with :class:`~schedulers.trial_source.TrialSource` and :class:`SweepCallback`;
    ``nasib_ray.with_budget`` makes all three.

    Args:
        terms: The budget and how it is spent.
        allocator: Which trial gets the next slice.
    """

    def __init__(self, terms: Terms, allocator: Allocator) -> None:
        self.terms = terms
        self.interruption = Interruption()
        self.state = SweepState()
        self.ended = False
        self._allocator = allocator
        self._limit = terms.max_concurrent
        self._metric: str | None = None
        self._mode = "max"
        self._source: TrialSource | None = None
        self._journal: Journal | None = None
        self._core: SweepCore | None = None
        self._raw: TuneController | None = None
        self._clock = WallClock()
        self._folder = ""
        self._pausable = self._reusable = False
        self._needs: dict[str, float] = {}
        self._nodes = NodeWatch()
        self._watch = ActorWatch("CPU", lambda trial: None)
        self._held: dict[str, Holding] = {}
        self._active: set[str] = set()
        self._pausing: set[str] = set()
        self._asked: set[str] = set()
        self._reported: dict[str, int] = {}
        self._verified: set[str] = set()
        self._booked_in_step = False
        self._idle_since: float | None = None

    # Opening

    @property
    def metric(self) -> str | None:
        """The ranked metric."""
        return self._metric

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode over from the TuneConfig; called by Tune."""
        self._metric, self._mode = metric or self._metric, mode or self._mode
        return True

    def limit(self, max_concurrent: int) -> None:
        """Run no more than so many trials at once."""
        self._limit = min(max_concurrent, self._limit or max_concurrent)

    def open(self, experiment: Experiment, source: TrialSource) -> SweepState:
        """Take the sweep's journal, or begin one; called by the TrialSource.

        Raises:
            ValueError: If no metric is set, the budget is below what is spent, another driver has the sweep, or its
                journal is damaged.
        """
        if self._metric is None:
            raise ValueError("no metric is set: name what trials report, as TuneConfig(metric='accuracy', mode='max')")
        storage, trainable = experiment.storage, get_trainable_cls(experiment.run_identifier)
        self._folder = storage.experiment_fs_path
        self._source = source
        self._pausable = saves_checkpoints(trainable)
        self._reusable = trainable.reset_config is not Trainable.reset_config
        folder = f"{self._folder}/{JOURNAL_FOLDER}"
        self._journal = Journal.open(
            storage.storage_filesystem, folder, self._clock, lease_seconds=self.terms.lease_seconds
        )
        replay = self._journal.replay
        self.state = state = SweepState.replay(replay.snapshot, replay.records)
        budget = self.terms.budget
        if state.settings and state.settings["device"] != budget.device:
            raise ValueError(f"the sweep is paid in {state.settings['device']} time, so the budget cannot be {budget}")
        if state.end == "finished" and budget.device_seconds <= state.ledger.budget:
            logger.info("this sweep is finished; a larger budget would go on with it")
            self._leave(source)
        return state

    def begin(self, trial: Trial) -> None:
        """Enter this run in the journal, now that a trial says what it holds; called by the TrialSource.

        Raises:
            ValueError: If the trial holds none of the budget's device, or GPUs under a CPU budget.
        """
        if self._core is not None or self.ended:
            return
        assert self._journal is not None, "a run begins before its journal is open"
        trial.create_placement_group_factory()
        self._needs = dict(trial.placement_group_factory.required_resources)
        budget, terms = self.terms.budget, self.terms
        device = budget.device.upper()
        if budget.device == "cpu" and self._needs.get("GPU", 0.0) > 0:
            raise ValueError(f"the budget is {budget}, but a trial holds GPUs: give the budget in gpu-... units")
        if self._needs.get(device, 0.0) <= 0:
            raise ValueError(f"the budget is {budget}, but a trial holds no {device}; it holds {self._needs}")
        rules = Rules(
            devices=self._needs[device],
            metric=self._metric or "",
            mode=self._mode,
            epochs_key=terms.epochs_key,
            full_epochs=terms.full_epochs,
            searches=terms.searches,
            horizon_told=terms.horizon_key is not None,
            slice_told=terms.slice_key is not None,
        )
        state = self.state
        self._core = SweepCore(self._journal, state, self._allocator, self._clock, rules)
        self._watch = ActorWatch(device, lambda name: state.searches[name].grant)
        self._journal.set_snapshot(state.to_json)
        settings = {"device": budget.device, "trainable": trial.trainable_name, **terms.settings}
        self._core.enter_run(budget, settings, self.slots(), _UNSEEN_SECONDS[terms.own_cluster])

    def slots(self) -> int:
        """How many trials can run now on the live nodes."""
        fits = self._nodes.slots(self._needs)
        return fits if self._limit is None else min(fits, self._limit)

    @property
    def _opened(self) -> SweepCore:
        if self._core is None:
            raise ValueError(
                "BudgetScheduler got a trial that did not come through its TrialSource: install both by "
                "`tune_config, run_config = nasib_ray.with_budget(budget, tune_config, run_config)`"
            )
        return self._core

    # The two gates

    def start_new(self, source: TrialSource) -> Trial | None:
        """A new trial, its grant booked, if the allocator wants one now; called by the TrialSource."""
        trial = source.peek()
        if trial is not None:
            self.begin(trial)
        if self._core is None:
            self._leave(source)
            return None
        self._core.more_searches = trial is not None
        if self._booked_in_step:
            return None
        if self._raw is not None:
            self._tick(self._raw)
        offer = self._offer()
        if offer is None:
            # Tune waits here for minutes if no trial is left, so that the other gate would not end the sweep.
            self._rest()
            return None
        piece, view = offer
        if piece.search is not None or trial is None:
            return None
        source.take()
        search = self._core.add_search(trial.trial_id, jsonable(trial.config))
        trial.max_failures = FAILURES_IN_A_ROW - 1
        # In place: Tune resolves placeholders in the very dictionary that the trial was made with.
        trial.config.update(self._book(piece, search, view))
        self._booked_in_step = True
        return trial

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """The paused trial that the allocator wants to go on, its grant booked; called by Tune at every step."""
        if self.ended:
            return None
        raw = self._raw = unwrapped(controller)
        raw.update_max_pending_trials(self.slots() + 1)
        if self._reusable:
            reuse_actors(raw)
        self._tick(raw)
        if self._booked_in_step:
            self._booked_in_step = False
            return None
        offer = self._offer()
        if offer is None:
            self._rest()
            return None
        self._idle_since = None
        piece, view = offer
        if piece.search is None:
            return None
        trial = next(trial for trial in raw.get_trials() if trial.trial_id == piece.search)
        search = self.state.searches[piece.search]
        if not self._sound(trial, search):
            return None
        trial.set_config({**trial.config, **self._book(piece, search, view)})
        return trial

    def _offer(self) -> tuple[Slice, SweepView] | None:
        """The slice that a free slot should run now."""
        if self.interruption.wanted or self.ended:
            return None
        return self._opened.next_slice(self.slots(), self._busy(), self._watch.idle_grants(self._held))

    def _busy(self) -> list[str]:
        """One trial's name for each slot in use: those at work, and those that wait for a process."""
        at_work = self._watch.at_work(self._held)
        return [*at_work, *(name for name in self._active if name not in at_work)]

    def _book(self, piece: Slice, search: SearchRecord, view: SweepView) -> dict[str, Any]:
        """Book a grant durably; returns what the Trainable is told of it."""
        idle = self._watch.idle_grants(self._held)
        share = 1.0 / max(1, view.slots - len(self._busy()))
        seconds = self._opened.book(piece, search, view, idle[0] if idle else None, share)
        self._active.add(search.id)
        if idle:
            assert search.grant is not None, f"search {search.id} has no grant though one was booked"
            self._watch.hand_over(search.id, search.grant)
        self._flush_grant()
        return self.terms.told(piece.horizon, seconds)

    def _flush_grant(self) -> None:
        """Nothing runs on a grant that is not on disk: wait for the disk, and guard the cap meanwhile."""
        while True:
            try:
                self._opened.flush()
                return
            except JournalWriteError as error:
                logger.warning("%s; waiting for the journal before anything is started", error)
                time.sleep(1.0)
                if self._raw is not None:
                    self._tick(self._raw)

    def _sound(self, trial: Trial, search: SearchRecord) -> bool:
        """Whether a trial's newest checkpoint can be loaded; if not, it falls back to the one before."""
        newest = search.checkpoints[-1] if search.checkpoints else None
        if newest is None or newest.path in self._verified:
            return True
        try:
            with trial.checkpoint.as_directory() as folder:
                if not any(Path(folder).iterdir()):
                    raise ValueError(f"{newest.path} is empty")
                if self.terms.verify is not None:
                    self.terms.verify(folder)
        except (ValueError, OSError) as error:
            before = search.epochs
            self._opened.drop_checkpoint(search.id, str(error))
            lost = before - search.epochs
            logger.warning("trial %s: %s; %d epochs are lost, it goes on from %d", search.id, error, lost, search.epochs)
            assert self._source is not None, "a sweep runs without its TrialSource"
            self._source.give_checkpoints(trial, search)
            return False
        self._verified.add(newest.path)
        return True

    # Time

    def _tick(self, raw: TuneController) -> None:
        """Charge what is held, kill what has used its grant up, follow what came to rest."""
        core = self._opened
        self._held, closed = self._watch.look(raw)
        assert self._journal is not None, "a sweep ticks before its journal is open"
        try:
            core.tick(self._held)
            self._journal.beat()
        except JournalWriteError as error:
            logger.warning("%s", error)
        except LeaseLostError:
            self._watch.kill(raw, self._held)
            self.ended = True
            raise
        for name in self._watch.kill(raw, core.overdue(self._held)):
            logger.warning("trial %s was killed: its grant had only its grace left", name)
        for grant in closed:
            core.close(grant)
        if self._pausing:
            for trial in raw.get_trials():
                if trial.trial_id in self._pausing and trial.status == Trial.PAUSED:
                    self._came_to_rest(trial.trial_id, "paused", "slice ended")
        if self.interruption.wanted:
            self._interrupt(raw)

    def _came_to_rest(self, name: str, state: Any, why: str) -> None:
        self._active.discard(name)
        self._pausing.discard(name)
        self._opened.moved(name, state, why)

    def _interrupt(self, raw: TuneController) -> None:
        """Have running trials save and stop; those that have not begun are called off."""
        for trial in raw.get_trials():
            name = trial.trial_id
            if name not in self._active or name in self._asked:
                continue
            if trial.status == Trial.PENDING:
                raw.stop_trial(trial)
                self._watch.kill(raw, [key for key, held in self._held.items() if held.trial == name])
                self._came_to_rest(name, "paused", "interrupted")
            elif trial.status == Trial.RUNNING and self.terms.slice_key is not None and ask_to_stop(trial):
                self._asked.add(name)

    def _rest(self) -> None:
        """Nothing to start: stop processes that idle for long, and end the sweep when nothing is at work."""
        if self._busy():
            if self._raw is not None and self._watch.idle_grants(self._held):
                self._idle_since = self._idle_since or self._clock.monotonic()
                if self._clock.monotonic() - self._idle_since > IDLE_SECONDS:
                    drop_idle(self._raw)
        elif self.slots() > 0 or self.interruption.wanted:
            self._end()

    def _end(self) -> None:
        """Wait until no process holds anything, write the end, let Tune finish."""
        core, raw = self._opened, self._raw
        assert self._source is not None, "a sweep ends without its TrialSource"
        if raw is not None:
            drop_idle(raw)
            while self._held:
                pump(raw, 0.05)
                self._tick(raw)
        core.end(interrupted=self.interruption.wanted)
        self._leave(self._source)
        for trial in list(raw.get_trials()) if raw is not None else []:
            if trial.status in (Trial.PAUSED, Trial.PENDING):
                raw.stop_trial(trial)

    def _leave(self, source: TrialSource) -> None:
        self.ended = True
        source.set_finished()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    # What Tune tells

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Keep a trial that Tune queued again after a failure from starting without a grant."""
        known = self.ended or trial.trial_id in self._opened.state.searches
        assert known, f"trial {trial.trial_id} did not come through the TrialSource"
        if trial.status == Trial.PENDING and trial.trial_id not in self._active:
            unwrapped(controller)._set_trial_status(trial, Trial.PAUSED)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        """Enter a failure; the third in a row without a new checkpoint ended the trial."""
        if self.ended:
            return
        name, why = trial.trial_id, error_of(trial)
        forget_reset(unwrapped(controller), trial)
        self._opened.crashed(name, why)
        # Tune has marked the trial as failed already if it is about to queue it again.
        again = trial.status == Trial.ERROR
        self._came_to_rest(name, "paused" if again else "failed", why)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Enter a report and say whether the trial goes on."""
        name, core = trial.trial_id, self._opened
        self._tick(unwrapped(controller))
        self._reported[name] = result["training_iteration"]
        stopping = self.interruption.wanted
        verdict = core.report(name, result, stopping, self._pausable)
        search = self.state.searches[name]
        if verdict == "continue":
            if result.get("should_checkpoint"):
                core.saving(name)
            return str(TrialScheduler.CONTINUE)
        at_end = verdict == "stop" and core.complete(search)
        if not at_end and not stopping and self.terms.slice_key is None:
            if core.keep_slot(name, self.slots(), self._busy()):
                self._flush_grant()
                return str(TrialScheduler.CONTINUE)
        core.saving(name)
        if verdict == "pause":
            self._pausing.add(name)
            return str(TrialScheduler.PAUSE)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter the end of a trial, and its last result if it ended by itself: that one is not reported before."""
        if self.ended:
            return
        name = trial.trial_id
        if result.get("training_iteration") not in (None, self._reported.get(name)):
            self._opened.report(name, result, self.interruption.wanted, self._pausable)
        unfinished = self.interruption.wanted and not self._pausable
        self._came_to_rest(name, "paused" if unfinished else "finished", "interrupted" if unfinished else "complete")

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """Called for paused trials when the sweep ends: in the journal they stay paused."""

    def saved(self, trial: Trial, checkpoint: Checkpoint) -> None:
        """Enter a checkpoint; called by the SweepCallback."""
        if self.ended:
            return
        path = str(checkpoint.path).removeprefix(f"{self._folder}/")
        self._verified.add(path)
        iteration = self._reported.get(trial.trial_id) or trial.last_result.get("training_iteration", 0)
        self._opened.checkpointed(trial.trial_id, path, iteration)
        trial.max_failures = trial.num_failures + FAILURES_IN_A_ROW - 1

    def close(self) -> None:
        """Tune's loop has ended; called by the SweepCallback. Whatever was still at work is lost."""
        if not self.ended and self._core is not None and self._source is not None:
            if self._raw is not None:
                self._tick(self._raw)
            for name in list(self._active):
                self._opened.crashed(name, "the driver left")
                self._came_to_rest(name, "paused", "the driver left")
            self._opened.end(interrupted=True)
            self._leave(self._source)

    def debug_string(self) -> str:
        """One line for Tune's own reporters."""
        ledger = self.state.ledger
        return f"Budget: {ledger.spent:.0f} of {ledger.budget:.0f} device-seconds spent, {ledger.granted:.0f} granted"


class SweepCallback(Callback):  # type: ignore[misc]
    """Tells the scheduler of checkpoints, of Ctrl-C and of the end.

    Args:
        scheduler: The scheduler.
    """

    def __init__(self, scheduler: BudgetScheduler) -> None:
        self._scheduler = scheduler

    def setup(self, **info: Any) -> None:
        """Listen for Ctrl-C; Tune has installed its own handler by now, which the second Ctrl-C reaches."""
        self._scheduler.interruption.install()

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """A checkpoint is on disk."""
        self._scheduler.saved(trial, checkpoint)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """The experiment is over."""
        self._scheduler.interruption.remove()
        self._scheduler.close()
