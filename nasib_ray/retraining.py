"""Training found networks from scratch: as trials of a Tuner of their own, under an account of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import RunConfig, TuneConfig
from ray.tune.search import Searcher

from nasib_ray.budgeted_tuner import with_budget
from nasib_ray.config import SweepConfig
from nasib_ray.controls import control_networks
from nasib_ray.found import FoundNetwork, best_networks
from nasib_ray.place import Place
from nasib_ray.quiet_ray import check_room, quiet_tune, ray_for_sweep
from nasib_ray.results import Sweep, config_of, load_sweep, sweep_exists
from nasib_ray.searcher import derived_seed
from nasib_ray.status import WITHOUT_LIMIT
from nasib_ray.sweep import Watcher, run_tuner, versions
from nasib_ray.tensorboard import TensorBoardLogger
from nasib_ray.trained import TRAININGS
from schedulers.allocators import AsyncHalving, EqualShare
from schedulers.budget import Budget, Device, format_device_seconds
from schedulers.search_record import SearchRecord
from trainables.training_settings import RetrainSettings

METRIC = "train_loss"
"""What Tune is told that trainings are about. Nothing is chosen by it, and nothing by the test set."""


@dataclass(frozen=True)
class RetrainPlan:
    """Which networks are trained, and how.

    Attributes:
        top: So many of the best networks.
        seeds: Trainings of each.
        settings: How each is trained; its epochs count only without a budget.
        budget: What all trainings together may hold; the epochs follow from it. None: as long as the epochs take.
        name: Of the folder in the sweep's.
        controls: Whether the networks of its controls are trained beside, as :mod:`nasib_ray.controls` says.
    """

    top: int = 1
    seeds: int = 3
    settings: RetrainSettings = field(default_factory=RetrainSettings)
    budget: Budget | None = None
    name: str = TRAININGS
    controls: bool = False


def retrain(path: str, plan: RetrainPlan, watcher: Watcher | None = None, address: str | None = None) -> Sweep:
    """Train the best networks of a sweep from scratch on all its training images; test each once, at its end.

    What was trained before is kept, and what was interrupted goes on; more networks and seeds may be asked for later.

    Args:
        path: The sweep.
        plan: Which networks, and how.
        watcher: Who is told how it gets on.
        address: Of the Ray cluster, as :func:`nasib_ray.sweep.run_sweep` takes it.

    Returns:
        The trainings as they ended, a sweep of their own; see :mod:`nasib_ray.trained`.

    Raises:
        ValueError: The sweep has found nothing yet, was not begun by nasib-ray, its trainings were begun otherwise, or
            have a budget that has no room for what is wanted.
    """
    known = load_sweep(path)
    config = config_of(known)
    place = Place.at(path).inside(plan.name)
    told: dict[str, Any] = {"retrain": plan.settings.model_dump(mode="json"), "by_budget": plan.budget is not None}
    before = _check_same(place, told)
    layers = config.search.fixed.get("layers")
    if layers is not None:
        plan.settings.check_layers(layers)
    device: Device = known.state.settings["device"]
    if plan.budget is not None and plan.budget.device != device:
        raise ValueError(f"{path} was paid in {device.upper()} time, so the budget cannot be {plan.budget}")
    held = config.trial.under(device)
    needs = {"CPU": held.cpus or 0.0, "GPU": held.gpus or 0.0}
    with quiet_tune(), ray_for_sweep(address) as cluster:
        check_room(needs, cluster)
        # Imported behind the start of Ray, whose workers import it meanwhile.
        from trainables.data import load_dataset
        from trainables.manifest import verify_checkpoint
        from trainables.retrain import RetrainTrainable

        dataset = load_dataset(config.data, None if watcher is None else watcher.preparing)
        found = best_networks(known.state, dataset)
        if not found:
            raise ValueError(f"{path} has found no network yet: no search has come to the end of an epoch")
        networks = found[: plan.top]
        if plan.controls:
            networks += control_networks(path, found[0], plan.settings, dataset)
        wanted = trainings(networks, plan, config)
        there = [] if before is None else [search.config for search in before.state.searches.values()]
        missing = [one for one in wanted if not any(_same(one, other) for other in there)]
        # Those of earlier commands keep their places, and under a budget their shares.
        total = len(there) + len(missing)
        budget = _allowance(plan, device, before, len(missing))
        cluster.await_workers()
        tune_config, run_config = with_budget(
            budget,
            TuneConfig(metric=METRIC, mode="min", search_alg=ListSearcher(wanted)),
            RunConfig(
                storage_path=place.storage, name=place.name, verbose=0, callbacks=[TensorBoardLogger(("name", "seed"))]
            ),
            allocator=EqualShare(total) if plan.budget else AsyncHalving(rungs=()),
            searches=total,
            most_searches=total,
            full_epochs=None if plan.budget else plan.settings.epochs,
            epochs_key="epochs",
            horizon_key="horizon" if plan.budget else None,
            slice_key="slice_seconds",
            max_concurrent=config.max_concurrent,
            device_rates=config.device_rates,
            verify=verify_checkpoint,
            settings={**told, "versions": versions()},
        )
        run_tuner(RetrainTrainable, needs, tune_config, run_config, watcher)
    return load_sweep(place.path)


def trainings(networks: Sequence[FoundNetwork], plan: RetrainPlan, config: SweepConfig) -> list[dict[str, Any]]:
    """The configurations of all trainings: every network with the first seed, then with the second, ..."""
    parts: dict[str, Any] = {"trained_on": "all", "judged_on": "test"}
    if plan.budget is None:
        parts["horizon"] = plan.settings.epochs
    seeds = [derived_seed(config.seed, "retrain", number) for number in range(plan.seeds)]
    return [network.training(config, plan.settings, seed, **parts) for seed in seeds for network in networks]


def _allowance(plan: RetrainPlan, device: Device, before: Sweep | None, missing: int) -> Budget:
    """What all trainings may hold, those of earlier commands too.

    Raises:
        ValueError: If they have come to their end under a budget, and it is not raised for what is missing, or is
            raised though nothing is.
    """
    had = 0.0 if before is None else before.state.ledger.budget
    if plan.budget is None:
        # Every training brings an allowance of its own that it cannot use up.
        return Budget(had + WITHOUT_LIMIT * missing, device)
    if before is None or before.state.end != "finished":
        return plan.budget
    raised, text = plan.budget.device_seconds > had, format_device_seconds(had, device)
    if missing and not raised:
        raise ValueError(
            f"{before.path} has used its budget of {text}, and {missing} of the trainings are not there: give a larger "
            "--budget, which pays for these too, or another --name"
        )
    if raised and not missing:
        raise ValueError(
            f"{before.path} has trained all that is wanted, for a budget of {text}: a larger one would train nothing "
            "longer; choose another --name"
        )
    return plan.budget


def _check_same(place: Place, told: Mapping[str, Any]) -> Sweep | None:
    """The trainings that are there, if any; raises ValueError if they were begun in another way."""
    if not sweep_exists(place.path):
        return None
    there = load_sweep(place.path)
    before = there.state.settings
    if not before:
        return None
    was = {**(before.get("retrain") or {}), "by_budget": before.get("by_budget")}
    now = {**told["retrain"], "by_budget": told["by_budget"]}
    if differing := [key for key in now if was.get(key) != now[key]]:
        listed = ", ".join(f"{key} (then {was.get(key)}, now {now[key]})" for key in differing)
        raise ValueError(f"{place.path} holds trainings that were begun otherwise, in {listed}: choose another --name")
    return there


class ListSearcher(Searcher):  # type: ignore[misc,unused-ignore]
    """Suggests the configurations of a list, each once, whatever was suggested in an earlier run.

    Args:
        wanted: The configurations, as JSON can hold them.
    """

    def __init__(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(metric=METRIC, mode="min")
        self._wanted = list(wanted)
        self._known: list[Mapping[str, Any]] = []

    def see(self, searches: Sequence[SearchRecord]) -> None:
        """Take note of the trainings that there are; called before each suggestion."""
        self._known = [search.config for search in searches]

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The first configuration of the list that no training has, or FINISHED."""
        missing = (dict(config) for config in self._wanted if not any(_same(config, known) for known in self._known))
        return next(missing, str(Searcher.FINISHED))

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt from a training."""


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(other.get(key) == value for key, value in one.items() if key != "checkpoint_seconds")
