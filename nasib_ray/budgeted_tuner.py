"""One call that puts a budget around somebody's own Tuner."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

from ray.tune import RunConfig, TuneConfig
from ray.tune.schedulers import FIFOScheduler

from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving, halving_without_horizon
from schedulers.budget import Budget
from schedulers.budget_scheduler import BudgetScheduler
from schedulers.ledger import KEPT_CHECKPOINTS
from schedulers.sweep_callback import SweepCallback
from schedulers.terms import Terms
from schedulers.trial_source import TrialSource


def with_budget(
    budget: str | Budget,
    tune_config: TuneConfig | None = None,
    run_config: RunConfig | None = None,
    *,
    allocator: Allocator | None = None,
    max_t: int = 100,
    grace_period: int = 1,
    eta: int = 4,
    **terms: Any,
) -> tuple[TuneConfig, RunConfig]:
    """Make a Tuner spend one budget of device-time over all its trials, and resume when its script is run again.

    Works with any Trainable, class or function, that reports the metric at every step. Trials are compared at the
    rungs of asynchronous halving (``grace_period``, ``grace_period * eta``, ... reports); the worse ones are paused,
    and go on later if they are among the best after all. What cannot be saved is stopped instead: a class without
    ``save_checkpoint``, a function that reports no checkpoints. One that reports them now and then is paused where it
    does.

    Args:
        budget: What all trials together may hold, as in ``"20 cpu-minutes"`` or ``"1.5 gpu-days"``.
        tune_config: The Tuner's; ``metric`` and ``mode`` must be set, ``scheduler`` must not be.
        run_config: The Tuner's. Its ``name`` is what a resume goes by; by default the name of the script.
        allocator: The rule that gives slices to trials; asynchronous halving unless told, with the rungs of NASIB
            searches for trials that are told a horizon.
        max_t: Reports after which a trial is complete.
        grace_period: Reports at the first rung.
        eta: One trial in ``eta`` goes on at a rung.
        **terms: Further fields of :class:`schedulers.terms.Terms`.

    Returns:
        The two configurations for ``Tuner``; those that were passed are left as they are.

    Raises:
        ValueError: If the budget, the metric, the mode or another argument is not usable.

    Example:
        >>> tune_config, run_config = with_budget("20 cpu-minutes", TuneConfig(metric="accuracy", mode="max"))
        >>> Tuner(Model, tune_config=tune_config, run_config=run_config).fit()  # doctest: +SKIP
    """
    tune_config = copy.copy(tune_config or TuneConfig())
    run_config = copy.copy(run_config or RunConfig())
    if tune_config.metric is None or tune_config.mode not in ("min", "max"):
        raise ValueError(
            f"metric {tune_config.metric!r} and mode {tune_config.mode!r}: name what trials report and whether more "
            "of it is better, as in TuneConfig(metric='accuracy', mode='max')"
        )
    if tune_config.scheduler is not None and not isinstance(tune_config.scheduler, FIFOScheduler):
        raise ValueError(
            f"the TuneConfig has a scheduler, {type(tune_config.scheduler).__name__}, but the budget needs its own: "
            "leave `scheduler` out"
        )
    for name, value in {"max_t": max_t, "grace_period": grace_period}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, but must be 1 or more")
    kept = run_config.checkpoint_config
    more = kept is not None and ((kept.num_to_keep or 0) > KEPT_CHECKPOINTS or kept.checkpoint_score_attribute)
    if more and terms.get("max_storage_bytes") is not None:
        raise ValueError(
            f"max_storage_bytes is given, and a CheckpointConfig with num_to_keep {kept.num_to_keep} and "
            f"checkpoint_score_attribute {kept.checkpoint_score_attribute!r}: under a bound each trial keeps its "
            f"newest {KEPT_CHECKPOINTS} checkpoints at most, so leave these two out"
        )
    terms.setdefault("max_concurrent", tune_config.max_concurrent_trials)
    terms.setdefault("full_epochs", max_t)
    if allocator is None:
        told = terms.get("horizon_key") is not None
        allocator = AsyncHalving() if told else halving_without_horizon(max_t, grace_period, eta)
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    scheduler = BudgetScheduler(Terms(budget=budget, **terms), allocator)
    tune_config.scheduler = scheduler
    tune_config.search_alg = TrialSource(scheduler, tune_config.search_alg)
    tune_config.max_concurrent_trials = None
    run_config.callbacks = [*(run_config.callbacks or []), SweepCallback(scheduler)]
    run_config.name = run_config.name or _script_name()
    return tune_config, run_config


def _script_name() -> str:
    """A name that the same script has when it is run again."""
    stem = Path(sys.argv[0] or "sweep").stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "sweep"
