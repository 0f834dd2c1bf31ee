"""Ray for one sweep: started here or joined, and without its own tables and warnings."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ray

from nasib_ray.joining import join_cluster
from schedulers.tune_internals import no_raylet_messages, plain_environment

logger = logging.getLogger(__name__)

READY_FOLDER = "NASIB_RAY_READY_FOLDER"
"""The environment variable by which workers are told where to say that they are ready."""

_LONGEST_WAIT_SECONDS = 60.0

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # The journal has every report; of Tune's own files TensorBoard's are the ones that nothing else has.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Keep Tune's tables, warnings and tracebacks off the screen; errors of its own still show.

    Not that trials did not complete, which Tune says of every one that failed: the sweep tells that, and why.
    """
    loggers = {logging.getLogger("ray"): logging.ERROR, logging.getLogger("ray.tune.tune"): logging.CRITICAL}
    levels = {chatty: chatty.level for chatty in loggers}
    for chatty, level in loggers.items():
        chatty.setLevel(level)
    try:
        with _environment(_QUIET), no_raylet_messages():
            yield
    finally:
        for chatty, level in levels.items():
            chatty.setLevel(level)


@dataclass(frozen=True)
class SweepCluster:
    """The Ray cluster that a sweep runs on.

    Attributes:
        ready: Where its workers tell that they have imported what they preload; None if it was there before.
    """

    ready: Path | None = None

    @property
    def is_own(self) -> bool:
        """Whether it was started here, and is this machine."""
        return self.ready is not None

    def await_workers(self) -> None:
        """Wait until the workers have imported what they preload; a trial would hold its device meanwhile.

        They are watched from outside: a worker that has run a task is not used for a trial.
        """
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        while self.ready is not None and len(list(self.ready.iterdir())) < usable_cpus():
            if time.monotonic() > until:
                logger.warning("the workers have not imported torch within %.0f s", _LONGEST_WAIT_SECONDS)
                return
            time.sleep(0.1)


@contextmanager
def ray_for_sweep(address: str | None = None) -> Iterator[SweepCluster]:
    """A Ray cluster: the one that this process is connected to, or that is named, else one of our own.

    Args:
        address: As :func:`nasib_ray.joining.join_cluster` takes it, or ``local``: one of our own. None: what
            RAY_ADDRESS names, if it is set.

    Raises:
        ValueError: If no cluster is there.
    """
    if ray.is_initialized():
        yield SweepCluster()
        return
    try:
        named = address or os.environ.get("RAY_ADDRESS") or "local"
        if named != "local":
            join_cluster(named)
            yield SweepCluster()
            return
        with TemporaryDirectory(prefix="nasib-ray-") as folder, plain_environment() as variables:
            with _environment({**variables, **_own_settings(folder)}):
                ray.init(
                    address="local",
                    num_cpus=usable_cpus(),
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            yield SweepCluster(Path(folder))
    finally:
        ray.shutdown()


def _own_settings(ready: str) -> dict[str, str]:
    """The environment of an own cluster's processes, which is also the workers'."""
    # Our own rooms go first: where the user is there may be others of such general names. What the user named by
    # import path is found behind them.
    home = Path(__file__).resolve().parents[1]
    paths = [str(home), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_preload_python_modules": "nasib_ray.preloaded",
        READY_FOLDER: ready,
        # Ray ends idle workers above this number, by default that of the processors, and counts busy ones in.
        "RAY_num_workers_soft_limit": str(2 * usable_cpus()),
    }


def usable_cpus() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_room(needs: Mapping[str, float], cluster: SweepCluster) -> None:
    """Make sure that some node can hold a trial. On a cluster that was joined nodes may come: the sweep waits for them.

    Args:
        needs: What a trial holds, by Ray's names.
        cluster: Where it is to run.

    Raises:
        ValueError: If none can; names what there is.
    """
    if not cluster.is_own:
        return
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
