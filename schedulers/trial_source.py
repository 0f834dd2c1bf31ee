"""The only gate through which trials come to Tune, and the way back in for those of an earlier run."""

from __future__ import annotations

import copy
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pyarrow.fs import FileType
from ray.tune import Checkpoint, CheckpointConfig, Trainable
from ray.tune.experiment import Experiment, Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.search import (
    BasicVariantGenerator,
    ConcurrencyLimiter,
    SearchAlgorithm,
    Searcher,
    SearchGenerator,
    create_searcher,
)
from ray.tune.trainable import FunctionTrainable

from schedulers.ending import FAILURES_IN_A_ROW
from schedulers.plain_data import as_given, with_value
from schedulers.rules import Saving
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState
from schedulers.tune_internals import give_checkpoints, has_grid

if TYPE_CHECKING:
    from schedulers.budget_scheduler import BudgetScheduler

logger = logging.getLogger(__name__)

_SEARCHER_FILE = "searcher-state.pkl"


@runtime_checkable
class SeesSearches(Protocol):
    """A Searcher that is shown every search as it is before each suggestion, and so needs no state of its own."""

    def see(self, searches: Sequence[SearchRecord]) -> None:
        """Take note of all searches, also paused, running and failed ones, in the order in which they were made."""


class TrialSource(SearchAlgorithm):  # type: ignore[misc]
    """Hands a trial to Tune only when the allocator wants one and a slot is there.

    Tune starts every pending trial whether its scheduler wants it or not, so the scheduler alone cannot hold a
    budget. On a resume every search that the journal knows is handed out first, under its own id, paused at its newest
    checkpoint.

    Args:
        scheduler: The scheduler that decides.
        search_alg: What suggests configurations: any Searcher or SearchAlgorithm of Tune, its name, or None for
            grid and random sampling of ``param_space``. A ConcurrencyLimiter's limit is taken over.
    """

    def __init__(self, scheduler: BudgetScheduler, search_alg: Searcher | SearchAlgorithm | str | None) -> None:
        self._scheduler = scheduler
        if isinstance(search_alg, str):
            search_alg = create_searcher(search_alg)
        while isinstance(search_alg, ConcurrencyLimiter):
            scheduler.limit(search_alg.max_concurrent)
            search_alg = search_alg.searcher
        if isinstance(search_alg, Searcher):
            search_alg = SearchGenerator(search_alg)
        self._inner: SearchAlgorithm = search_alg or BasicVariantGenerator()
        self._experiment: Experiment | None = None
        self._drawn: Trial | None = None
        self._known: list[SearchRecord] = []

    @property
    def metric(self) -> str | None:
        """The metric of the wrapped algorithm."""
        metric: str | None = self._inner.metric
        return metric

    @property
    def total_samples(self) -> int:
        """The number of samples of the wrapped algorithm; 0 where it is without end, as Tune would print it."""
        return int(self._inner.total_samples) % sys.maxsize

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Pass metric, mode and search space on to the wrapped algorithm."""
        return bool(self._inner.set_search_properties(metric, mode, config, **spec))

    def add_configurations(self, experiments: Experiment | list[Experiment]) -> None:
        """Open the sweep's journal where the experiment is stored; called by Tune once, before the first step."""
        (experiment,) = experiments if isinstance(experiments, list) else [experiments]
        self._experiment = experiment
        trainable = get_trainable_cls(experiment.run_identifier)
        experiment.spec["checkpoint_config"] = _checkpoint_config(experiment, saving_of(trainable))
        spec = experiment.spec
        if spec.get("num_samples", 1) == 1 and not has_grid(spec.get("config") or {}):
            # Unless told otherwise the budget, and not a number of samples, ends the sweep.
            spec["num_samples"] = sys.maxsize
        self._inner.add_configurations([experiment])
        state = self._scheduler.open(experiment, self)
        self._known = list(state.searches.values())
        self._catch_up(state)

    def _catch_up(self, state: SweepState) -> None:
        """Bring the wrapped algorithm to where it stood when the last run ended."""
        if isinstance(self._inner, BasicVariantGenerator):
            for search in state.searches.values():
                if search.kind == "search":
                    self._inner.next_trial()
            return
        searcher, storage = getattr(self._inner, "searcher", None), self._storage
        if searcher is None or isinstance(searcher, SeesSearches):
            return
        path = f"{storage.experiment_fs_path}/{_SEARCHER_FILE}"
        if state.searches and storage.storage_filesystem.get_file_info(path).type == FileType.File:
            with tempfile.TemporaryDirectory() as folder:
                local = Path(folder, _SEARCHER_FILE)
                with storage.storage_filesystem.open_input_stream(path) as stream:
                    local.write_bytes(stream.read())
                searcher.restore(str(local))

    @property
    def _storage(self) -> Any:
        assert self._experiment is not None, "Tune asks for trials before it has passed its experiment"
        return self._experiment.storage

    def next_trial(self) -> Trial | None:
        """Hand out what an earlier run left, then a new trial whenever the scheduler has booked a grant for one."""
        if self._known:
            trial = self._again(self._known.pop(0))
            self._scheduler.begin(trial)
            return trial
        if self.is_finished():
            return None
        return self._scheduler.start_new(self)

    def peek(self) -> Trial | None:
        """The next new trial, without handing it out; None if there will be no more."""
        if self._drawn is None and not self._inner.is_finished():
            searcher = getattr(self._inner, "searcher", None)
            if isinstance(searcher, SeesSearches):
                known = self._scheduler.state.searches.values()
                searcher.see([search for search in known if search.kind == "search"])
            self._drawn = self._inner.next_trial()
            if self._drawn is not None:
                _name_folder(self._drawn)
                self._keep_searcher(searcher)
        return self._drawn

    def take(self) -> Trial | None:
        """The next new trial, to be handed out now; None if there is none."""
        trial, self._drawn = self.peek(), None
        return trial

    def take_finalist(self) -> Trial | None:
        """The next new trial of the selection, the best find first; None if there is none."""
        state, finalists_of = self._scheduler.state, self._scheduler.terms.finalists_of
        if finalists_of is None:
            return None
        begun = [trial.config for trial in state.searches.values() if trial.kind == "select" and state.counts(trial)]
        for config in finalists_of(state):
            if all(any(there.get(key) != value for key, value in config.items()) for there in begun):
                return self._made(Trial.generate_id(), config, len(state.searches))
        return None

    @property
    def exhausted(self) -> bool:
        """Whether the wrapped algorithm has no more configurations, ever."""
        return self._drawn is None and bool(self._inner.is_finished())

    def _keep_searcher(self, searcher: Searcher | None) -> None:
        if searcher is None or isinstance(searcher, SeesSearches):
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, _SEARCHER_FILE)
            try:
                searcher.save(str(local))
            except NotImplementedError:
                return
            path = f"{self._storage.experiment_fs_path}/{_SEARCHER_FILE}"
            with self._storage.storage_filesystem.open_output_stream(path) as stream:
                stream.write(local.read_bytes())

    def _again(self, search: SearchRecord) -> Trial:
        """A search of an earlier run as a Tune trial: paused at its newest checkpoint, or ended as it was."""
        config = search.config
        for place, placeholder in search.placeholders:
            config = with_value(config, place, placeholder)
        trial = self._made(search.id, config, search.index)
        self.give_checkpoints(trial, search)
        trial.run_metadata.last_result = {**search.latest, "trial_id": search.id}
        paused = Trial.TERMINATED if self._scheduler.ended else Trial.PAUSED
        ended = {"finished": Trial.TERMINATED, "not resumable": Trial.TERMINATED, "failed": Trial.ERROR}
        trial.set_status(ended.get(search.state, paused))
        trial.max_failures = FAILURES_IN_A_ROW - 1
        return trial

    def _made(self, name: str, config: Mapping[str, Any], index: int) -> Trial:
        """A Tune trial of this experiment."""
        assert self._experiment is not None, "a trial is made before the experiment is known"
        spec = self._experiment.spec
        space = copy.deepcopy(spec.get("config") or {})
        trial = Trial(
            spec["run"],
            config={**space, **as_given(space, copy.deepcopy(dict(config)))},
            trial_id=name,
            storage=self._storage,
            evaluated_params=dict(config),
            experiment_tag=str(index),
            placement_group_factory=spec.get("resources_per_trial"),
            stopping_criterion=spec.get("stop"),
            checkpoint_config=spec.get("checkpoint_config"),
            log_to_file=spec.get("log_to_file"),
        )
        _name_folder(trial)
        return trial

    def give_checkpoints(self, trial: Trial, search: SearchRecord) -> None:
        """Make the checkpoints that the journal knows of a search those of its trial."""
        storage = self._storage
        kept = [(f"{storage.experiment_fs_path}/{kept.path}", kept.iteration) for kept in search.checkpoints]
        give_checkpoints(trial, [(Checkpoint(path, storage.storage_filesystem), at) for path, at in kept])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a search's result on."""
        if self._searches(trial_id):
            self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a search on."""
        if self._searches(trial_id):
            self._inner.on_trial_complete(trial_id, result=result, error=error)

    def _searches(self, trial_id: str) -> bool:
        """Whether a trial is a search, which the wrapped algorithm has suggested."""
        known = self._scheduler.state.searches.get(trial_id)
        return known is None or known.kind == "search"


def _checkpoint_config(experiment: Experiment, saving: Saving) -> CheckpointConfig:
    """What the user wants kept, and at least what a resume needs: a last checkpoint, and the one before it.

    Tune asks every class Trainable for a last checkpoint, also one that cannot save, and cannot ask a function.
    """
    saves = saving != "never"
    config = copy.copy(experiment.spec.get("checkpoint_config") or CheckpointConfig())
    config.checkpoint_at_end = saving == "asked"
    if saves and config.num_to_keep is None and config.checkpoint_score_attribute is None:
        config.num_to_keep = 2
    elif saves and config.num_to_keep is not None:
        config.num_to_keep = max(2, config.num_to_keep)
    return config


def _name_folder(trial: Trial) -> None:
    """Name the trial's folder by its id, so that a later run finds it."""
    trial.custom_dirname = trial.relative_logdir = trial.storage.trial_dir_name = trial.trial_id


def saving_of(trainable: type[Trainable]) -> Saving:
    """When trials save: a class that implements ``save_checkpoint`` when it is asked, a function when it likes."""
    if issubclass(trainable, FunctionTrainable):
        return "reported"
    return "never" if trainable.save_checkpoint is Trainable.save_checkpoint else "asked"
