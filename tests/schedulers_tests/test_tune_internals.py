"""Fails, naming the attribute, when a version of Ray has moved a private part that this project uses."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import ray
import ray._private.worker as ray_worker
from pyarrow.fs import LocalFileSystem
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.train._internal.storage import StorageContext
from ray.tune import Checkpoint, PlacementGroupFactory, Trainable, TuneConfig
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.impl.placeholder import _FunctionResolver
from ray.tune.registry import get_trainable_cls
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher, SearchGenerator

import schedulers
from schedulers.plain_data import FUNCTION
from schedulers.tune_internals import (
    cluster_is_own,
    drop_idle,
    error_of,
    forget_actors,
    forget_checkpoint,
    forget_reset,
    give_checkpoints,
    has_grid,
    live_actors,
    plain_environment,
    reuse_actors,
    unwrapped,
)

ROOM = Path(schedulers.__file__).parent


class Model(Trainable):  # type: ignore[misc]
    def step(self) -> dict[str, Any]:
        return {"value": 1.0}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageContext:
    """A place for trials; the folder that Tune takes from a running Ray is given, so that none has to run."""
    monkeypatch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: str(tmp_path / "session"))
    return StorageContext(storage_path=str(tmp_path), experiment_dir_name="sweep", trial_dir_name="t")


@pytest.fixture
def controller(storage: StorageContext, monkeypatch: pytest.MonkeyPatch) -> TuneController:
    """A controller that has never made a step."""
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    return TuneController(search_alg=BasicVariantGenerator(), scheduler=FIFOScheduler(), storage=storage)


@pytest.fixture
def trial(storage: StorageContext) -> Trial:
    Experiment.register_if_needed(Model)
    return Trial("Model", trial_id="t", storage=storage)


def used_of(owner: str) -> set[str]:
    """The private attributes that the room takes from what it calls ``owner`` (the last name before the dot)."""
    used = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                value = node.value
                name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
                if name == owner or (owner == "controller" and ast.unparse(value) == "unwrapped(controller)"):
                    used.add(node.attr)
    return used


CONTROLLER = {
    "_actor_cache": object,
    "_actor_manager": RayActorManager,
    "_actor_to_trial": dict,
    "_remove_actor": "tracked_actor",
    "_resetting_trials": set,
    "_reuse_actors": bool,
    "_set_trial_status": "status",
    "_started_actors": set,
    "_stopping_actors": dict,
    "_trial_to_actor": dict,
}


@pytest.mark.parametrize("name", sorted(CONTROLLER))
def test_the_controller_has(controller: TuneController, name: str) -> None:
    expected = CONTROLLER[name]
    assert hasattr(controller, name), f"ray.tune.execution.tune_controller.TuneController.{name} is gone"
    found = getattr(controller, name)
    if isinstance(expected, str):
        assert expected in inspect.signature(found).parameters, f"TuneController.{name} takes no {expected!r} any more"
    else:
        assert isinstance(found, expected), f"TuneController.{name} is a {type(found).__name__}"


@pytest.mark.parametrize(
    ("owner", "known"),
    [
        ("controller", set(CONTROLLER) | {"_tune_controller"}),
        ("raw", set(CONTROLLER)),
        ("trial", {"_default_result_or_future"}),
        ("_actor_manager", {"_live_actors_to_ray_actors_resources"}),
        ("_actor_cache", {"_cached_objects"}),
        ("cache", {"_cached_objects"}),
        ("actors", {"_resource_manager"}),
        ("handle", {"_actor_id"}),
    ],
)
def test_no_private_attribute_is_used_that_is_not_checked_here(owner: str, known: set[str]) -> None:
    assert used_of(owner) <= known


def test_private_names_are_imported_only_where_they_are_kept_together() -> None:
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ray."):
                private = "._" in (node.module or "") or any(alias.name.startswith("_") for alias in node.names)
                assert not private or path.name == "tune_internals.py", f"{path.name} imports from {node.module}"


def test_the_placeholder_of_a_function_begins_as_it_did() -> None:
    assert FUNCTION == _FunctionResolver.TOKEN


def test_the_actor_manager_has_live_actors_and_waits_so_long_at_most(controller: TuneController) -> None:
    manager = controller._actor_manager
    assert isinstance(getattr(manager, "_live_actors_to_ray_actors_resources", None), dict), (
        "RayActorManager._live_actors_to_ray_actors_resources is gone"
    )
    assert "timeout" in inspect.signature(manager.next).parameters, "RayActorManager.next takes no timeout any more"


def test_what_an_actor_has_acquired_names_its_placement_group() -> None:
    named = {field.name for field in dataclasses.fields(PlacementGroupAcquiredResources)}
    assert "placement_group" in named, "PlacementGroupAcquiredResources.placement_group is gone"


def test_the_cache_of_idle_actors_has_lists_by_resources(controller: TuneController) -> None:
    cache = controller._actor_cache
    assert isinstance(getattr(cache, "_cached_objects", None), dict), "_ObjectCache._cached_objects is gone"
    resources = PlacementGroupFactory([{"CPU": 1.0}])
    cache.increase_max(resources, by=3)
    for actor in "abc":
        cache.cache_object(resources, actor)
    assert list(cache._cached_objects[resources]) == ["a", "b", "c"]
    assert cache.pop_cached_object(resources) == "a", "the one that has idled longest is used first"
    assert (cache.num_cached_objects, cache.has_cached_object(resources)) == (2, True)


def test_a_controller_without_trials_has_no_processes(controller: TuneController) -> None:
    assert list(live_actors(controller)) == []
    drop_idle(controller)
    reuse_actors(controller)
    assert controller._reuse_actors is True


def test_a_controller_forgets_its_processes(controller: TuneController, trial: Trial) -> None:
    """As it must when Ray has died under it: it would ask for each of them and wait."""
    manager = controller._actor_manager
    resources = manager._resource_manager
    controller._actor_to_trial["actor"], controller._trial_to_actor[trial] = trial, "actor"
    controller._stopping_actors["actor"] = 0.0
    manager._live_actors_to_ray_actors_resources["actor"] = ("handle", "resources")
    resources._acquired_pgs.add("group")
    forget_actors(controller)
    assert manager.num_total_actors == 0
    assert not resources._acquired_pgs
    controller.cleanup()


def test_the_wrapper_that_hooks_are_given_is_unwrapped(controller: TuneController) -> None:
    wrapper = controller._wrapped()
    assert wrapper is not controller, "TuneController._wrapped gives no wrapper any more"
    assert unwrapped(wrapper) is controller, "the wrapper's _tune_controller is gone"
    assert unwrapped(controller) is controller


def test_a_reset_is_forgotten(controller: TuneController, trial: Trial) -> None:
    controller._resetting_trials.add(trial)
    forget_reset(controller, trial)
    forget_reset(controller, trial)
    assert trial not in controller._resetting_trials


def test_a_trial_goes_from_pending_to_paused(controller: TuneController, trial: Trial) -> None:
    controller.add_trial(trial)
    assert trial.status == Trial.PENDING
    controller._set_trial_status(trial, Trial.PAUSED)
    assert trial.status == Trial.PAUSED


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (TuneController, ["get_trials", "stop_trial", "update_max_pending_trials", "search_alg", "step"]),
        (TrialScheduler, ["CONTINUE", "PAUSE", "STOP", "choose_trial_to_run", "on_trial_add", "on_trial_error",
                          "on_trial_result", "on_trial_complete", "on_trial_remove", "set_search_properties",
                          "debug_string", "_supports_buffered_results"]),
        (SearchAlgorithm, ["set_search_properties", "add_configurations", "next_trial", "on_trial_result",
                           "on_trial_complete", "is_finished", "set_finished", "total_samples"]),
        (Searcher, ["save", "restore", "suggest"]),
        (Trainable, ["save_checkpoint", "reset_config", "step", "setup"]),
        (Trial, ["on_checkpoint", "set_config", "set_status", "create_placement_group_factory", "error_file",
                 "should_recover", "is_saving", "is_restoring"]),
    ],
    ids=lambda given: given.__name__ if isinstance(given, type) else "",
)  # fmt: skip
def test_classes_have(owner: type, names: list[str]) -> None:
    for name in names:
        assert hasattr(owner, name), f"{owner.__module__}.{owner.__name__}.{name} is gone"


@pytest.mark.parametrize(
    "name",
    ["trial_id", "custom_dirname", "relative_logdir", "storage", "run_metadata", "max_failures", "num_failures",
     "_default_result_or_future", "last_result", "evaluated_params", "placement_group_factory", "config", "status"],
)  # fmt: skip
def test_a_trial_has(trial: Trial, name: str) -> None:
    assert hasattr(trial, name), f"ray.tune.experiment.Trial.{name} is gone"


def test_a_trial_is_made_from_what_a_resume_knows() -> None:
    parameters = inspect.signature(Trial).parameters
    for name in ("config", "trial_id", "storage", "evaluated_params", "experiment_tag", "placement_group_factory",
                 "stopping_criterion", "checkpoint_config", "log_to_file"):  # fmt: skip
        assert name in parameters, f"Trial({name}=...) is not taken any more"


def test_an_experiment_has_what_the_source_reads(storage: StorageContext, tmp_path: Path) -> None:
    experiment = Experiment("sweep", Model, storage_path=str(tmp_path))
    assert get_trainable_cls(experiment.run_identifier) is Model
    assert experiment.storage.experiment_fs_path
    for key in ("run", "config", "num_samples", "stop", "checkpoint_config"):
        assert key in experiment.spec, f"Experiment.spec[{key!r}] is gone"


def test_search_generators_and_limiters_keep_what_they_wrap() -> None:
    class Suggests(Searcher):  # type: ignore[misc]
        pass

    searcher = Suggests(metric="value", mode="max")
    assert SearchGenerator(searcher).searcher is searcher
    limiter = ConcurrencyLimiter(searcher, max_concurrent=3)
    assert (limiter.searcher, limiter.max_concurrent) == (searcher, 3)


def test_a_trials_checkpoints_are_given_back(trial: Trial, tmp_path: Path) -> None:
    made = []
    for iteration in (5, 12):
        folder = tmp_path / f"checkpoint_{iteration:06d}"
        folder.mkdir()
        made.append((Checkpoint(str(folder), LocalFileSystem()), iteration))
    give_checkpoints(trial, made)
    assert isinstance(trial.run_metadata.checkpoint_manager, _CheckpointManager)
    assert trial.checkpoint.path == made[1][0].path
    assert trial.latest_checkpoint_result.metrics["training_iteration"] == 12
    assert trial.storage.current_checkpoint_index == 12
    forget_checkpoint(trial, made[0][0].path)
    assert [result.checkpoint.path for result in trial.run_metadata.checkpoint_manager.best_checkpoint_results] == [
        made[1][0].path
    ]
    assert trial.checkpoint.path == made[1][0].path
    forget_checkpoint(trial, made[1][0].path)
    assert trial.checkpoint is None
    assert trial.storage.current_checkpoint_index == 12
    assert all(Path(checkpoint.path).exists() for checkpoint, _ in made), "Tune has deleted nothing"
    give_checkpoints(trial, [])
    assert trial.checkpoint is None


def test_a_training_result_has_a_checkpoint_and_metrics() -> None:
    assert list(inspect.signature(_TrainingResult).parameters) == ["checkpoint", "metrics"]


def test_the_last_line_of_a_trials_error_is_found(trial: Trial, tmp_path: Path) -> None:
    assert error_of(trial) == "its process died"
    trial.init_local_path()
    trial.handle_error(RuntimeError("there is no data"))
    assert "there is no data" in error_of(trial)


def test_a_grid_is_told_from_other_spaces() -> None:
    from ray import tune

    assert has_grid({"x": tune.grid_search([1, 2]), "y": tune.uniform(0, 1)})
    assert has_grid({"nested": {"x": tune.grid_search([1, 2])}})
    assert not has_grid({"y": tune.uniform(0, 1), "z": 3})


def test_the_variables_of_a_trials_environment_are_where_they_were() -> None:
    assert "DEFAULT_ENV_VARS" in inspect.getsource(class_cache._ActorClassCache), "class_cache.DEFAULT_ENV_VARS"
    before = class_cache.DEFAULT_ENV_VARS
    with plain_environment() as variables:
        assert class_cache.DEFAULT_ENV_VARS == {}
    assert class_cache.DEFAULT_ENV_VARS is before
    assert variables == before


def test_whose_cluster_it_is_can_be_told() -> None:
    assert hasattr(ray_worker, "_global_node"), "ray._private.worker._global_node is gone"
    assert cluster_is_own() is (ray.is_initialized() and bool(ray_worker._global_node))


def test_fields_of_the_tune_config_that_are_set_exist() -> None:
    for name in ("metric", "mode", "scheduler", "search_alg", "num_samples", "max_concurrent_trials"):
        assert hasattr(TuneConfig(), name), f"TuneConfig.{name} is gone"
