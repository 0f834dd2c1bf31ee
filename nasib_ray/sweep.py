"""From a configuration to a sweep's results; a start and a resume are one path."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Callback, RunConfig, Trainable, TuneConfig, TuneError, Tuner, with_resources
from ray.tune.search import Searcher

from nasib_ray.budgeted_tuner import with_budget
from nasib_ray.config import SweepConfig, is_uri
from nasib_ray.deadline import check_ahead
from nasib_ray.joining import check_lasting
from nasib_ray.place import Place
from nasib_ray.quiet_ray import check_room, quiet_tune, ray_for_sweep
from nasib_ray.random_search import RandomSearcher
from nasib_ray.results import JOURNAL, Sweep, config_of, is_settled, is_shared_out, load_sweep, sweep_exists
from nasib_ray.searcher import StudySearcher, first_trial
from nasib_ray.selection import finalists
from nasib_ray.study_log import StudyLog
from nasib_ray.tensorboard import TensorBoardLogger
from nasib_ray.version import __version__
from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.budget import format_device_seconds
from schedulers.budget_scheduler import BudgetScheduler
from schedulers.lease import LeaseLostError, read_lease
from schedulers.lost_cluster import ClusterLostError
from schedulers.selection import WithSelection
from schedulers.sweep_state import SweepState
from trainables.data_place import check_place
from trainables.settings import TrialSettings

METRIC = "objective"

_PACKAGES = ("ray", "torch", "optuna", "pyarrow")


class SharedOutError(ValueError):
    """A sweep has shared its budget equally, and all searches have come to their ends: it has no use for more."""


class Watcher(Protocol):
    """Who is told how a sweep gets on."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Data are being prepared."""

    def update(self, state: SweepState, slots: int) -> None:
        """The sweep stands like this; called several times a second."""


def run_sweep(
    config: SweepConfig, place: Place | None = None, watcher: Watcher | None = None, address: str | None = None
) -> Sweep:
    """Run a sweep to the end of its budget, or go on with one that was interrupted.

    Args:
        config: All that the sweep is told. Its budget may be larger than the one the sweep was begun with.
        place: Where it is kept; by default where ``config`` says.
        watcher: Who is told how it gets on.
        address: Of the Ray cluster that it runs on: ``auto``, HOST:PORT, or ``local``: one of this machine alone is
            started. None: the one that this process is connected to or that RAY_ADDRESS names, else ``local``.

    Returns:
        The sweep as it ended; ``.state.end`` says how.

    Raises:
        ValueError: If no budget is given, the deadline has passed, the place holds another sweep, there is no such
            cluster, or none of its nodes can hold a trial.
    """
    held, budget = config.resources, config.budget
    assert budget is not None, "resources are known only under a budget"
    check_ahead(config.deadline, datetime.now().astimezone())
    place = place or Place.of(config)
    check_lasting(place.storage)
    known = check_same(config, place)
    if known is not None and is_settled(config, known.state):
        return known
    told = config if known is None else config.continuing(config_of(known))
    check_place(config.data)
    needs = {"CPU": held.cpus or 0.0, "GPU": held.gpus or 0.0}
    with quiet_tune(), ray_for_sweep(address) as cluster:
        check_room(needs, cluster)
        # Imported behind the start of Ray, whose workers import it meanwhile.
        from nasib_ray.this_machine import check_memory_here, slots_here
        from trainables.checkpoint import KEPT_FILES
        from trainables.data import load_dataset
        from trainables.fits import check_fits
        from trainables.manifest import verify_checkpoint
        from trainables.sweep_trainable import SweepTrainable

        dataset = load_dataset(config.data, None if watcher is None else watcher.preparing)
        first = TrialSettings.from_config(first_trial(config))
        check_fits(first, dataset)
        # On a GPU, and on nodes elsewhere, each trial looks for itself.
        if cluster.is_own and not held.gpus and config.method == "nasib":
            check_memory_here(config, first.search, dataset, slots_here(config, 0))
        cluster.await_workers()
        shown = sorted({"k", "lambda", *config.search.axes})
        searcher: Searcher = StudySearcher(config, METRIC, "max", _study_log(place))
        most = None if config.search.size is None else len(config.points) + config.search.size
        if config.method == "random-search":
            searcher, most = RandomSearcher(config, dataset, METRIC, "max"), None
        tune_config, run_config = with_budget(
            budget,
            TuneConfig(metric=METRIC, mode="max", search_alg=searcher),
            RunConfig(storage_path=place.storage, name=place.name, verbose=0, callbacks=[TensorBoardLogger(shown)]),
            allocator=allocator_of(config),
            searches=config.full_searches,
            most_searches=most,
            full_epochs=None,
            finalists=config.finalists,
            finalists_of=partial(finalists, config=config, dataset=dataset),
            epochs_key="epochs",
            horizon_key="horizon",
            slice_key="slice_seconds",
            compare_key="compare_at",
            max_concurrent=config.max_concurrent,
            device_rates=config.device_rates,
            deadline=None if config.deadline is None else config.deadline.timestamp(),
            max_storage_bytes=config.max_storage,
            kept_files=KEPT_FILES,
            verify=verify_checkpoint,
            settings={"config": told.to_plain(), "versions": versions()},
        )
        run_tuner(SweepTrainable, needs, tune_config, run_config, watcher)
    return load_sweep(place.path)


def run_tuner(
    trainable: type[Trainable],
    needs: Mapping[str, float],
    tune_config: TuneConfig,
    run_config: RunConfig,
    watcher: Watcher | None,
) -> None:
    """Run a Tuner under a budget to its end; its journal tells how that was.

    Args:
        trainable: Of its trials.
        needs: What a trial holds, by Ray's names.
        tune_config: As ``with_budget`` made it, and ``run_config`` too.
        run_config: Likewise.
        watcher: Who is told how it gets on.
    """
    if watcher is not None:
        run_config.callbacks.append(_Watch(tune_config.scheduler, watcher.update))
    held = with_resources(trainable, {name.lower(): amount for name, amount in needs.items()})
    try:
        Tuner(held, tune_config=tune_config, run_config=run_config).fit()
    except ClusterLostError:
        pass  # What happened is in the journal, as after every other end.
    except (LeaseLostError, TuneError) as error:
        # Tune tells an error of a callback by its traceback alone.
        if not isinstance(error, LeaseLostError) and LeaseLostError.__name__ not in str(error):
            raise
        raise ValueError(
            f"another process has taken the sweep in {run_config.storage_path}/{run_config.name} over, as this one had "
            "been silent for too long: this one has stopped, and that one goes on"
        ) from error


def check_same(config: SweepConfig, place: Place) -> Sweep | None:
    """Make sure that a place is empty or holds the sweep that a configuration describes.

    Returns:
        The sweep as it stands; None if there is none.

    Raises:
        ValueError: If it holds another one, is being run, or had a larger budget.
        SharedOutError: If it has no use for a larger one.
    """
    if not sweep_exists(place.path):
        return None
    sweep = load_sweep(place.path)
    lease = read_lease(sweep.filesystem, f"{sweep.folder}/{JOURNAL}")
    if lease is not None and lease.is_held():
        # A driver elsewhere can only be watched, which is done when the journal is opened.
        raise ValueError(f"process {lease.pid} on this host is running {place.path}: stop it first, or let it end")
    if not sweep.state.settings:
        return None  # A driver has opened the journal, and ended before it had a trial.
    if "config" not in sweep.state.settings:
        raise ValueError(f"{place.path} holds a sweep that was not begun by nasib-ray: choose another --name")
    differing = config_of(sweep).same_sweep(config)
    if differing:
        raise ValueError(
            f"{place.path} holds a sweep with another configuration, which differs in {', '.join(differing)}: "
            f"choose another --name, or go on with that sweep by `nasib-ray resume {shlex.quote(place.path)}`"
        )
    had = sweep.state.ledger.budget
    if config.budget is not None and config.budget.device_seconds < had:
        raise ValueError(
            f"{place.path} has a budget of {format_device_seconds(had, config.budget.device)}, so {config.budget} is "
            "too little: it can only be raised"
        )
    if config.budget is not None and config.budget.device_seconds > had and is_shared_out(config, sweep.state):
        raise SharedOutError(
            f"{place.path} has shared its budget of {format_device_seconds(had, config.budget.device)} equally, and "
            "all searches have annealed to their ends: a larger one would train none of them longer. Begin another "
            f"sweep under another --name; --warm-start {shlex.quote(place.path)} begins it with what was learnt"
        )
    return sweep


def allocator_of(config: SweepConfig) -> Allocator:
    """The rule that a configuration names."""
    searching: Allocator = AsyncHalving(config.rungs, config.eta, config.continue_at_once)
    if config.allocator == "equal-share":
        searching = EqualShare(config.full_searches)
    if config.finalists == 0:
        return searching
    return WithSelection(searching, config.selection_share, config.finalists)


def _study_log(place: Place) -> StudyLog | None:
    """What optuna-dashboard reads; None if the storage is no local folder, as Optuna writes to nothing else."""
    return None if is_uri(place.storage) else StudyLog(Path(place.path))


def versions() -> dict[str, str]:
    """The versions that results depend on, and the machine."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "nasib-ray": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class _Watch(Callback):  # type: ignore[misc]
    """Passes the sweep's state on after every step of Tune's."""

    def __init__(self, scheduler: BudgetScheduler, tell: Callable[[SweepState, int], None]) -> None:
        self._scheduler = scheduler
        self._tell = tell

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks for a Tuner.restore, which is never done, and a terminal has no pickle."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._tell(self._scheduler.state, self._scheduler.slots)
