"""Everything that this project takes from Tune's and Ray's private parts, in one place.

Tune has no public way to see which processes hold resources, to keep a requeued trial from starting, or to reach a
running trial. A test fails, naming the attribute, when a version of Ray has moved one of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.search.variant_generator import parse_spec_vars
from ray.util.accelerators import accelerators

from schedulers.trial_errors import is_exception, told_error


@dataclass(frozen=True)
class LiveActor:
    """A process that holds resources.

    Attributes:
        key: Its identity.
        handle: Ray's handle of it.
        group: The placement group that it is in.
        trial: The Tune trial that it works for; None if it is idle or stopping.
        resources: What it holds, by Ray's resource names.
        idle: Whether it is kept for another trial.
        started: Whether it has ever been ready to work.
    """

    key: Any
    handle: Any
    group: Any
    trial: Trial | None
    resources: dict[str, float]
    idle: bool
    started: bool


@dataclass(frozen=True)
class ActorPlace:
    """Where a process is.

    Attributes:
        node: The id of its node.
        address: The node's IP address.
        process: Its process id there.
    """

    node: str
    address: str
    process: int


def unwrapped(controller: Any) -> TuneController:
    """The controller itself: some hooks are given a wrapper."""
    return getattr(controller, "_tune_controller", controller)


def live_actors(controller: TuneController) -> Iterator[LiveActor]:
    """Every process that holds a placement group, also booting and stopping ones; idle ones first, in order of use."""
    idle = [actor for actors in controller._actor_cache._cached_objects.values() for actor in actors]
    live = controller._actor_manager._live_actors_to_ray_actors_resources
    for actor in [*idle, *(actor for actor in live if actor not in idle)]:
        if actor in live:
            handle, acquired = live[actor]
            held = dict(acquired.resource_request.required_resources)
            started = actor in controller._started_actors
            trial = controller._actor_to_trial.get(actor)
            yield LiveActor(actor, handle, acquired.placement_group, trial, held, actor in idle, started)


def kill(controller: TuneController, actor: LiveActor) -> None:
    """Kill a process at once; Tune then sees it die, and tells the scheduler if it worked for a trial."""
    ray.kill(actor.handle)
    if actor.idle:
        # Nothing waits for an idle actor, so that nobody would notice its death.
        drop_idle(controller)


def bury(actor: LiveActor) -> None:
    """Make sure that a process is gone for which Tune has already given its devices back.

    It was told to stop and has nothing more to do, but while it comes to its end, which may take seconds, it still
    has memory on the device.
    """
    ray.kill(actor.handle)


def node_of(actor: LiveActor) -> str | None:
    """The id of the node on which an actor's placement group is; None if it is not known yet, or any more."""
    nodes = ray.util.placement_group_table(actor.group).get("bundles_to_node_id", {})
    return next((node for node in nodes.values() if node), None)


def is_gone(actor: LiveActor) -> bool:
    """Whether Ray has taken a process's placement group away: some 0.2 s after Tune has given it back."""
    return bool(ray.util.placement_group_table(actor.group)["state"] == "REMOVED")


def drop_idle(controller: TuneController, keep: int = 0) -> None:
    """Stop the idle processes that were used longest ago, all but so many."""
    cache = controller._actor_cache
    for resources in list(cache._cached_objects):
        while cache.num_cached_objects > keep and cache.has_cached_object(resources):
            actor = cache.pop_cached_object(resources)
            # It works for no trial that could be told of its end.
            actor.set_on_stop(None)
            actor.set_on_error(None)
            controller._remove_actor(actor)


def dismiss_trials(controller: TuneController) -> None:
    """Let Tune come to its end: it waits for ever for trials that are paused."""
    controller.search_alg.set_finished()
    for trial in list(controller.get_trials()):
        if trial.status in (Trial.PAUSED, Trial.PENDING):
            controller.stop_trial(trial)


def forget_reset(controller: TuneController, trial: Trial) -> None:
    """Tune never starts a trial again whose process died while it was being reset, unless it forgets the reset."""
    controller._resetting_trials.discard(trial)


def reuse_actors(controller: TuneController) -> None:
    """Have processes used for one trial after another, as ``TuneConfig(reuse_actors=True)`` does."""
    controller._reuse_actors = True


def pump(controller: TuneController, seconds: float) -> None:
    """Wait so long at most for one event of a process and handle it."""
    controller._actor_manager.next(timeout=seconds)


def cluster_is_own() -> bool:
    """Whether this process started the Ray cluster, which then ends with it."""
    node = ray._private.worker._global_node
    return bool(node is not None and node.head)


def head_address(address: str) -> str:
    """HOST:PORT of a cluster's head, from that or from ``auto``.

    Raises:
        ConnectionError: If it is ``auto``, and no Ray runs on this machine.
        ValueError: If it is neither.
    """
    return str(ray._private.services.canonicalize_bootstrap_address(address))


def accelerator_types() -> set[str]:
    """The accelerator types that Ray has names for."""
    return {value for name, value in vars(accelerators).items() if name[0] != "_" and isinstance(value, str)}


def dead_ray_process() -> str:
    """Which of Ray's vital processes that this driver has started is dead; empty if none is, or others started them."""
    node = ray._private.worker._global_node
    started = node.all_processes if node is not None else {}
    for name in ("gcs_server", "raylet"):
        if any(info.process.poll() is not None for info in started.get(name, ())):
            return name
    return ""


def kill_own_ray() -> None:
    """Kill the Ray processes that this driver has started, and with them all of its workers, which hold devices."""
    node = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def forget_actors(controller: TuneController) -> None:
    """Let Tune come to its end without asking a Ray that has died, which it would wait for."""
    actors = controller._actor_manager
    resources = actors._resource_manager
    # As they do themselves, once everything is given back.
    resources.__init__(update_interval_s=resources.update_interval_s)
    actors.__init__(resource_manager=resources)
    controller._actor_cache.flush_cached_objects(force_all=True)
    for known in (controller._actor_to_trial, controller._trial_to_actor, controller._stopping_actors):
        known.clear()


def draining_nodes() -> set[str]:
    """The ids of the nodes that Ray was told will go."""
    return set(ray._private.state.state.get_draining_nodes())


def place_of(actor: LiveActor, ended: bool = False) -> ActorPlace | None:
    """On which node and in which process an actor runs; None if it does not run yet, or any more.

    Args:
        actor: The actor.
        ended: Whether one that Ray takes for dead has a place: where it ran.
    """
    known = ray._private.state.state.actor_table(actor.handle._actor_id.hex())
    if not known.get("Pid") or (known.get("State") != "ALIVE" and not ended):
        return None
    return ActorPlace(known["Address"]["NodeID"], known["Address"]["IPAddress"], known["Pid"])


def tell(trial: Trial, told: dict[str, Any]) -> None:
    """Have ``go_on(told)`` called in a running trial's process, before its next step: tasks of an actor keep order."""
    trial.temporary_state.ray_actor.go_on.remote(told)


def give_checkpoints(trial: Trial, checkpoints: Sequence[tuple[Checkpoint, int]]) -> None:
    """Make these the checkpoints that a trial has.

    Args:
        trial: The trial, not running.
        checkpoints: Each with Tune's ``training_iteration`` of it, oldest first; their folders are named as Tune
            names them, ``checkpoint_000012``.
    """
    config = trial.run_metadata.checkpoint_manager.checkpoint_config
    trial.run_metadata.checkpoint_manager = _CheckpointManager(checkpoint_config=config)
    for checkpoint, iteration in checkpoints:
        trial.on_checkpoint(_TrainingResult(checkpoint=checkpoint, metrics={"training_iteration": iteration}))
        trial.storage.current_checkpoint_index = int(str(checkpoint.path).rsplit("_", 1)[1])


def forget_checkpoint(trial: Trial, path: str) -> None:
    """Let a trial have this checkpoint no more, so that Tune neither loads nor deletes it; the trial may be running."""
    manager = trial.run_metadata.checkpoint_manager
    kept = [result for result in manager._checkpoint_results if str(result.checkpoint.path) != path]
    manager._checkpoint_results = kept
    manager._latest_checkpoint_result = kept[-1] if kept else None
    trial.invalidate_json_state()
    trial.run_metadata.invalidate_cache()


def has_grid(space: dict[str, Any]) -> bool:
    """Whether a ``param_space`` has a grid search in it."""
    return bool(parse_spec_vars(space)[2])


@contextmanager
def plain_environment() -> Iterator[dict[str, str]]:
    """Let trials start in the cluster's own environment, so that processes which wait already can take them.

    Tune gives every trial a runtime environment of its own, for which Ray always starts a new process.

    Yields:
        The variables that Tune would have set for each trial; the cluster's processes must have them instead.
    """
    variables = class_cache.DEFAULT_ENV_VARS
    class_cache.DEFAULT_ENV_VARS = {}
    try:
        yield dict(variables)
    finally:
        class_cache.DEFAULT_ENV_VARS = variables


def error_of(trial: Trial) -> str:
    """A trial's newest error in one line; see :func:`schedulers.trial_errors.told_error`."""
    return told_error(_error_text(trial))


def has_raised(trial: Trial) -> bool:
    """Whether a trial's newest error was raised in its process, which did not die."""
    return is_exception(_error_text(trial))


def _error_text(trial: Trial) -> str:
    """What Tune has written of a trial's errors, the newest one last."""
    try:
        with open(trial.error_file or "", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


@contextmanager
def no_raylet_messages() -> Iterator[None]:
    """Keep what Ray says of workers that died off the screen; the sweep tells it in a line."""
    worker = ray._private.worker
    printing = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *data, **options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing
