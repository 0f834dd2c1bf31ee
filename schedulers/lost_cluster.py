"""What is done when Ray has died under a sweep."""

from __future__ import annotations

import logging

import ray
from ray.tune.execution.tune_controller import TuneController

from schedulers.core import SweepCore
from schedulers.journal import Journal, JournalWriteError
from schedulers.tune_internals import cluster_is_own, forget_actors, kill_own_ray

logger = logging.getLogger(__name__)


class ClusterLostError(RuntimeError):
    """Ray has died under the sweep, which must be resumed on another one."""


def lose_cluster(controller: TuneController, core: SweepCore, journal: Journal, why: str) -> None:
    """End what is left of Ray, and this run; open grants stay open, as what they hold is not seen.

    Args:
        controller: Tune's.
        core: The sweep's.
        journal: It is closed.
        why: What happened.

    Raises:
        ClusterLostError: Always.
    """
    own = cluster_is_own()
    forget_actors(controller)
    kill_own_ray()
    logger.error("%s: all that was saved is kept, and the sweep can be resumed", why)
    try:
        core.forsake(why)
        journal.close()
    except JournalWriteError as error:
        logger.error("%s", error)
    if own:
        # Whatever asks it from now on would wait for a minute, also when Python ends.
        ray.shutdown()
    raise ClusterLostError(f"{why}: resume the sweep")
