"""Ray for one sweep: started here or joined, and without its own tables and warnings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

PRELOADED = "trainables.nasib"
"""Workers import this while they wait for work, so that no trial holds a device while it imports."""

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Keep Tune's tables, warnings and tracebacks off the screen; errors of its own still show."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with _environment(_QUIET):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def ray_for_sweep(preload: bool = True) -> Iterator[bool]:
    """A Ray cluster to run on: the one that RAY_ADDRESS names or this process is connected to, else one of our own.

    Args:
        preload: Whether the workers of an own cluster import torch and the Trainable before they have work.

    Yields:
        Whether the cluster is our own, and so ends with this process.
    """
    if ray.is_initialized():
        yield False
        return
    own = not os.environ.get("RAY_ADDRESS")
    # The workers import what the user named by import path from where the user is.
    paths = [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"PYTHONPATH": os.pathsep.join(paths)}
    if "RAY_AUTH_MODE" not in os.environ and own:
        # With the mode unset Ray makes a token as well, and warns.
        settings["RAY_AUTH_MODE"] = "token"
    if preload:
        settings["RAY_preload_python_modules"] = PRELOADED
    try:
        with _environment(settings if own else {}):
            if own:
                ray.init(
                    address="local",
                    num_cpus=usable_cpus(),
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            else:
                ray.init(logging_level=logging.ERROR, log_to_driver=False)
            yield own
    finally:
        ray.shutdown()


def usable_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_room(needs: Mapping[str, float]) -> None:
    """Make sure that some node can hold a trial.

    Args:
        needs: What a trial holds, by Ray's names.

    Raises:
        ValueError: If none can; names what there is.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {name: amount for name, amount in needs.items() if amount > 0}
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    asked = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
    largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU")}
    there = " and ".join(f"{amount:g} {name}" for name, amount in largest.items())
    raise ValueError(
        f"a trial holds {asked}, but the largest node has {there}: give the budget in time of a device that is there, "
        "or set trial.cpus and trial.gpus"
    )


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
