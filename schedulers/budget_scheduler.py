"""Tune's events on one side, the spending of a sweep on the other."""

from __future__ import annotations

import copy
import logging
from typing import Any

from ray.tune import Checkpoint, Trainable
from ray.tune.experiment import Experiment, Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.schedulers import TrialScheduler

from schedulers.allocation import Allocator
from schedulers.brief_store import brief
from schedulers.checkpoint_store import CheckpointStore, check_loadable
from schedulers.clock import WallClock
from schedulers.cluster_room import ClusterRoom
from schedulers.core import SweepCore
from schedulers.device_rates import DeviceRates
from schedulers.ending import FAILURES_IN_A_ROW, MISHAPS_IN_A_ROW
from schedulers.interruption import Interruption, ctrl_c_at_once
from schedulers.journal import Journal
from schedulers.node_watch import NodeWatch
from schedulers.plain_data import in_form_of, jsonable, value_at, with_value
from schedulers.rules import Rules, Saving
from schedulers.search_record import SearchRecord
from schedulers.storage_reach import check_reach
from schedulers.storage_watch import StorageWatch
from schedulers.sweep_run import SweepRun
from schedulers.sweep_state import SweepState
from schedulers.terms import Terms
from schedulers.trial_source import TrialSource, saving_of
from schedulers.tune_internals import (
    accelerator_types,
    cluster_is_own,
    dismiss_trials,
    error_of,
    forget_reset,
    has_raised,
    reuse_actors,
    tell,
    unwrapped,
)

logger = logging.getLogger(__name__)

JOURNAL_FOLDER = "journal"

_UNSEEN_SECONDS = {True: 5.0, False: 60.0}
"""What a trial may have gone on for after its driver died, on a cluster of the driver's own and on another."""


class BudgetScheduler(TrialScheduler):  # type: ignore[misc]
    """A Tune scheduler that spends one budget of device-time over all trials and never more.

    Works together with :class:`~schedulers.trial_source.TrialSource` and
    :class:`~schedulers.sweep_callback.SweepCallback`;
    ``nasib_ray.with_budget`` makes all three.

    Args:
        terms: The budget and how it is spent.
        allocator: Which trial gets the next slice.

    Attributes:
        state: What the sweep has come to.
        interruption: Noted Ctrl-C.
    """

    # A buffered Trainable would step on behind the report at which it is paused.
    _supports_buffered_results = False

    def __init__(self, terms: Terms, allocator: Allocator) -> None:
        self.terms = terms
        self.state = SweepState()
        self.interruption = Interruption()
        self._allocator = allocator
        self._limit = terms.max_concurrent
        self._metric: str | None = None
        self._mode = "max"
        self._source: TrialSource | None = None
        self._journal: Journal | None = None
        self._run: SweepRun | None = None
        self._clock = WallClock()
        self._folder = ""
        self._saves: Saving = "never"
        self._reusable = self._goes_on = False
        self._reported: dict[str, int] = {}
        self._verified: set[str] = set()
        self._unheard: set[str] = set()
        self._stopped: set[str] = set()
        self._booked_in_step = self._complete = self._said = False

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
            ValueError: If no metric is set, the budget is in another device's time than before, another driver has
                the sweep, or its journal is damaged.
        """
        if self._metric is None:
            raise ValueError("no metric is set: name what trials report, as TuneConfig(metric='accuracy', mode='max')")
        storage, trainable = experiment.storage, get_trainable_cls(experiment.run_identifier)
        self._folder = storage.experiment_fs_path
        self._source = source
        self._saves = saving_of(trainable)
        # A function is ended as its thread does, and Tune gives its trial up where that lasts.
        self._reusable = self._saves != "reported" and trainable.reset_config is not Trainable.reset_config
        self._goes_on = self.terms.slice_key is None or hasattr(trainable, "go_on")
        if not cluster_is_own():
            check_reach(storage.storage_filesystem, self._folder)
        if self.terms.device_rates:
            there = set(NodeWatch(self._clock).types().values()) - {""}
            DeviceRates(self.terms.device_rates).check_types(accelerator_types() | there)
        folder = f"{self._folder}/{JOURNAL_FOLDER}"
        # Tune, which only notes a Ctrl-C, would find it when another driver's lease was awaited for half a minute.
        with ctrl_c_at_once():
            self._journal = Journal.open(
                storage.storage_filesystem, folder, self._clock, lease_seconds=self.terms.lease_seconds
            )
            try:
                return self._read(self._journal)
            except BaseException:
                self._journal.close()
                raise

    def _read(self, journal: Journal) -> SweepState:
        """The sweep as its journal has it; nothing is left to do if it is finished."""
        replay, budget = journal.replay, self.terms.budget
        self.state = state = SweepState.replay(replay.snapshot, replay.records)
        if state.settings and state.settings["device"] != budget.device:
            raise ValueError(f"the sweep is paid in {state.settings['device']} time, so the budget cannot be {budget}")
        if state.end == "finished" and budget.device_seconds <= state.ledger.budget:
            logger.info("this sweep is finished; a larger budget would go on with it")
            self.leave()
        return state

    @property
    def ended(self) -> bool:
        """Whether the end of the sweep is written."""
        return self._complete or (self._run is not None and self._run.ended)

    def begin(self, trial: Trial) -> None:
        """Enter this run in the journal, now that a trial says what it holds; called by the TrialSource.

        Raises:
            ValueError: If the trial holds none of the budget's device, GPUs under a CPU budget, or more than any node
                of the driver's own cluster has.
        """
        if self._run is not None or self.ended:
            return
        assert self._journal is not None, "a run begins before its journal is open"
        trial.create_placement_group_factory()
        needs = dict(trial.placement_group_factory.required_resources)
        budget, terms = self.terms.budget, self.terms
        devices = budget.devices_of(needs)
        if cluster_is_own() and NodeWatch(self._clock).slots(needs) == 0:
            raise ValueError(f"a trial holds {needs}, but no node of this Ray has so much: let trials hold less")
        rules = Rules(
            devices=devices,
            metric=self._metric or "",
            mode=self._mode,
            epochs_key=terms.epochs_key,
            full_epochs=terms.full_epochs,
            searches=terms.searches,
            most_searches=terms.most_searches,
            finalists=terms.finalists,
            saves=self._saves,
            horizon_told=terms.horizon_key is not None,
            slice_told=terms.slice_key is not None,
            told_at_work=terms.slice_key is not None and self._goes_on,
        )
        core = SweepCore(self._journal, self.state, self._allocator, self._clock, rules)
        filesystem = brief(trial.storage.storage_filesystem)
        storage = StorageWatch(filesystem, self._folder, self.state.next_saves_bytes, self._clock)
        store = CheckpointStore(filesystem, self._folder)
        rates = DeviceRates(terms.device_rates)
        room = ClusterRoom(needs, devices, self._limit, rates, self._clock)
        self._run = SweepRun(core, self._journal, terms, room, self.interruption, storage, store, self._clock)
        self._journal.set_snapshot(self.state.to_json)
        settings = {"device": budget.device, "trainable": trial.trainable_name, **terms.settings}
        core.enter_run(budget, settings, self._run.slots(), _UNSEEN_SECONDS[cluster_is_own()], rates.dearest)
        core.append("limits", max_storage_bytes=terms.max_storage_bytes, deadline=terms.deadline)
        core.flush()

    @property
    def _running(self) -> SweepRun:
        if self._run is None:
            raise ValueError(
                "BudgetScheduler got a trial that did not come through its TrialSource: install both by "
                "`tune_config, run_config = nasib_ray.with_budget(budget, tune_config, run_config)`"
            )
        return self._run

    # The two gates

    def start_new(self, source: TrialSource) -> Trial | None:
        """A new trial, its grant booked, if the allocator wants one now; called by the TrialSource."""
        if self._run is None and (first := source.peek()) is not None:
            self.begin(first)
        if self._run is None:
            if source.exhausted:
                self.leave()
            return None
        if self._booked_in_step:
            return None
        self._run.tick()
        # If no trial is left Tune waits here for minutes, and the other gate would not be asked: so this one ends it.
        offer = self._run.offer()
        if self._run.ended:
            source.set_finished()
        if offer is None or offer[0].search is not None:
            return None
        # Drawn only now, so that the searcher knows all that was reported until a slot is free.
        piece, view = offer
        trial = source.take() if piece.kind == "search" else source.take_finalist()
        if trial is None:
            if piece.kind == "select":
                self._run.core.no_more_finalists()
            elif source.exhausted:
                self._run.core.no_more_searches()
            return None
        search = self._run.core.add_search(trial.trial_id, jsonable(trial.config), piece.kind)
        trial.max_failures = FAILURES_IN_A_ROW - 1
        # In place: Tune resolves placeholders in the very dictionary that the trial was made with.
        trial.config.update(self._run.book(piece, search, view))
        self._booked_in_step = True
        self._unheard.add(trial.trial_id)
        return trial

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """The paused trial that the allocator wants to go on, its grant booked; called by Tune at every step."""
        raw = unwrapped(controller)
        if self.ended:
            # The end may have come before Tune's loop began.
            dismiss_trials(raw)
            return None
        run = self._running
        begins, run.controller = run.controller is None, raw
        if begins:
            run.make_room()
        raw.update_max_pending_trials(run.slots() + 1)
        if self._reusable:
            reuse_actors(raw)
        run.tick()
        if self._booked_in_step:
            self._booked_in_step = False
            return None
        offer = run.offer()
        if offer is None or offer[0].search is None:
            return None
        piece, view = offer
        trial = next(trial for trial in raw.get_trials() if trial.trial_id == piece.search)
        search = self.state.searches[trial.trial_id]
        if not self._sound(trial, search):
            return None
        trial.set_config({**trial.config, **run.book(piece, search, view)})
        self._unheard.add(trial.trial_id)
        return trial

    def _sound(self, trial: Trial, search: SearchRecord) -> bool:
        """Whether a trial's newest checkpoint can be loaded; if not, it falls back to the one before."""
        newest = search.checkpoints[-1] if search.checkpoints else None
        if newest is None or newest.path in self._verified:
            return True
        try:
            with trial.checkpoint.as_directory() as folder:
                check_loadable(folder, newest.path, self.terms.verify)
        except (ValueError, OSError) as error:
            if self._running.storage_fails():
                return False
            self._drop_checkpoint(trial, search, str(error))
            return False
        self._verified.add(newest.path)
        return True

    def _drop_checkpoint(self, trial: Trial, search: SearchRecord, why: str) -> None:
        self._running.core.drop_checkpoint(search.id, why)
        lost = search.lost_checkpoints[-1]
        told = (search.id, why, lost.epochs, lost.device_seconds, search.epochs)
        logger.warning("trial %s: %s; %d epochs and %.1f device-seconds are lost, it is at epoch %d", *told)
        assert self._source is not None, "a sweep runs without its TrialSource"
        self._source.give_checkpoints(trial, search)
        self._forgive(trial)

    def _forgive(self, trial: Trial) -> None:
        """Count the failures of a trial anew."""
        trial.max_failures = trial.num_failures + FAILURES_IN_A_ROW - 1

    # What Tune tells

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Take note of what Tune has drawn from functions, or give it back to a trial of an earlier run.

        One that Tune queued again after a failure must not start without a grant.
        """
        search = self.state.searches.get(trial.trial_id)
        if search is not None and trial.status != Trial.PENDING:
            for place, _ in search.placeholders:
                drawn, anew = copy.deepcopy(value_at(search.config, place)), value_at(trial.config, place)
                trial.config = with_value(trial.config, place, in_form_of(drawn, anew))
            if search.placeholders:
                # What it holds may follow from them.
                trial.create_placement_group_factory()
            trial.run_metadata.last_result["config"] = trial.config
        if trial.status != Trial.PENDING or self._running.active(trial.trial_id):
            if search is not None and not self.ended and not search.placeholders and search.unfinished:
                self._running.core.drawn(trial.trial_id, trial.config)
            return
        unwrapped(controller)._set_trial_status(trial, Trial.PAUSED)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        """Enter a failure; the third in a row without a new checkpoint ended the trial."""
        if self.ended:
            return
        run, name, why = self._running, trial.trial_id, error_of(trial)
        search = self.state.searches[name]
        forget_reset(unwrapped(controller), trial)
        run.tick()
        run.keeper.crashed(name)
        unlucky = run.lost_its_node(name, why) and search.mishaps < MISHAPS_IN_A_ROW
        blameless = run.cannot_save(why) or unlucky
        run.core.crashed(name, why, blameless)
        if blameless:
            trial.max_failures += 1
        self._reported.pop(name, None)
        # Tune has marked the trial as failed already if it is about to queue it again.
        again = trial.status == Trial.ERROR
        run.came_to_rest(name, "paused" if again else "failed", why)
        if again and search.checkpoints and not blameless:
            self._doubt_checkpoint(trial, search, why)

    def _doubt_checkpoint(self, trial: Trial, search: SearchRecord, why: str) -> None:
        """A trial that fails before it reports may have been given a checkpoint that was damaged since it was saved."""
        self._verified.discard(search.checkpoints[-1].path)
        if self.terms.verify is None and search.failures > 1 and search.id in self._unheard and has_raised(trial):
            self._drop_checkpoint(trial, search, f"it cannot go on from its newest checkpoint: {why}")

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Enter a report and say whether the trial goes on."""
        name, run = trial.trial_id, self._running
        run.tick()
        self._unheard.discard(name)
        self._reported[name] = result["training_iteration"]
        search = self.state.searches[name]
        horizon = search.horizon
        verdict = run.core.report(name, result, run.leaving(name), run.device_of(name))
        if verdict == "continue":
            if self._goes_on and self.terms.slice_key is not None and search.horizon != horizon:
                tell(trial, self.terms.told(search.horizon, run.core.stepping_seconds(name), search.target))
            if result.get("should_checkpoint"):
                run.core.saving(name)
            return str(TrialScheduler.CONTINUE)
        complete = verdict == "stop" and run.core.complete(self.state.searches[name])
        stays = self._goes_on and not complete and not result.get("interrupted")
        if stays and (told := run.goes_on_at_once(name)) is not None:
            if self.terms.slice_key is not None:
                tell(trial, told)
            return str(TrialScheduler.CONTINUE)
        run.core.saving(name)
        if verdict == "pause":
            run.pausing(name)
            return str(TrialScheduler.PAUSE)
        if not complete:
            self._stopped.add(name)
            self._say_that_none_is_paused()
        return str(TrialScheduler.STOP)

    def _say_that_none_is_paused(self) -> None:
        """Say once that what was stopped will not go on; after an interruption it begins again."""
        if not self._said and not self.interruption.wanted:
            self._said = True
            missing = "no save_checkpoint"
            if self._saves == "reported":
                missing = (
                    "no checkpoint with its report (one that comes by the first rung, after grace_period, would do)"
                )
            logger.warning("a trial is not paused but stopped for good, as it has %s to go on from later", missing)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Enter the end of a trial, and its last result if it ended by itself: that one is not reported before."""
        if self.ended:
            return
        name, stopping = trial.trial_id, bool(self.interruption.wanted)
        if result.get("training_iteration") not in (None, self._reported.get(name)):
            self._running.core.report(name, result, stopping, self._running.device_of(name))
        stopped = name in self._stopped
        self._stopped.discard(name)
        if stopped and stopping:
            self._running.came_to_rest(name, "paused", "interrupted")
        else:
            self._running.came_to_rest(name, "finished", "stopped at a rung" if stopped else "complete")

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """Called for paused trials when the sweep ends: in the journal they stay paused."""

    def saved(self, trial: Trial, checkpoint: Checkpoint) -> None:
        """Enter a checkpoint; called by the SweepCallback."""
        if self.ended:
            return
        path = str(checkpoint.path).removeprefix(f"{self._folder}/")
        self._verified.add(path)
        iteration = self._reported.get(trial.trial_id) or trial.last_result.get("training_iteration", 0)
        self._running.core.checkpointed(trial.trial_id, path, iteration, self._running.keeper.size(path))
        self._forgive(trial)

    def make_room(self) -> None:
        """Keep checkpoints within their bound; called by the SweepCallback once Tune knows a new one too."""
        if not self.ended:
            self._running.make_room()

    def leave(self) -> None:
        """Nothing is left to do, or Tune's loop has ended: whatever was still at work is lost."""
        if self._run is not None:
            self._run.abandon("the driver left")
        elif self._journal is not None:
            self._journal.close()
        self._complete = True
        if self._source is not None:
            self._source.set_finished()

    @property
    def slots(self) -> int:
        """How many trials can run now."""
        return 0 if self._run is None else self._run.slots()

    def debug_string(self) -> str:
        """One line for Tune's own reporters."""
        ledger = self.state.ledger
        return f"Budget: {ledger.spent:.0f} of {ledger.budget:.0f} device-seconds spent, {ledger.granted:.0f} granted"
