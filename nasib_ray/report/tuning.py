"""Figures of what the tuned settings did: Optuna's own, of a study built from the searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from nasib_ray.config import SweepConfig
from nasib_ray.report.figures import KIND_COLOURS, Figure, figure, log_axis
from nasib_ray.search_space import Range, SearchSpace
from nasib_ray.study_log import quiet_optuna
from nasib_ray.study_trials import distribution, told_trials
from nasib_ray.tables import Signs
from schedulers.sweep_state import SweepState

FEWEST = 4
"""Finished searches below which a plot over settings would show nothing but chance."""

_MOST_SETTINGS = 4
_SEED = 0


@dataclass(frozen=True)
class Tuning:
    """What can be said of the tuned settings.

    Attributes:
        figures: Optuna's plots; none where there is too little to draw.
        text: From how many searches they are, or why there are none.
    """

    figures: tuple[Figure, ...]
    text: str


def tuning(state: SweepState, config: SweepConfig) -> Tuning:
    """Optuna's plots of the tuned settings.

    Args:
        state: The sweep.
        config: Its configuration.
    """
    axes = config.search.axes
    if not axes:
        return Tuning((), "No setting of the searches was tuned: there is nothing to compare.")
    searches = [search for search in state.searches.values() if search.kind == "search"]
    told = told_trials(searches, config.search, {key: distribution(axis) for key, axis in axes.items()})
    finished = [trial for trial in told if trial.state == TrialState.COMPLETE]
    counts = f"{len(finished)} of {len(searches)} searches have come to their end"
    if len(finished) < FEWEST:
        return Tuning((), f"{counts}: too few to draw what {' and '.join(map(_sign, axes))} did (it takes {FEWEST}).")
    varied = [key for key in axes if len({repr(trial.params[key]) for trial in finished}) > 1]
    if not varied or len({trial.value for trial in finished}) < 2:
        return Tuning((), f"{counts}, but no tuned setting differs among them, or all ended equal: nothing to draw.")
    metric = str(state.settings.get("metric"))
    figures, least = _drawn(finished, varied, config.search, state.mode, metric)
    text = f"{counts}, and only they are drawn, with their last {metric}"
    text += "; an impression from few points, not a finding." if len(finished) < 10 * len(varied) else "."
    return Tuning(figures, text + least)


def _drawn(
    finished: Sequence[FrozenTrial], varied: Sequence[str], space: SearchSpace, mode: str, metric: str
) -> tuple[tuple[Figure, ...], str]:
    names = [_sign(key) for key in varied]
    with quiet_optuna():
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        study.add_trials([_renamed(trial) for trial in finished])
        evaluator = FanovaImportanceEvaluator(seed=_SEED)
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
        drawn = optuna.visualization.plot_param_importances(
            study, evaluator=FanovaImportanceEvaluator(seed=_SEED), params=names, target_name=metric
        )
        drawn.update_traces(marker_color=KIND_COLOURS["train"])
        drawn.update_layout(title=None)
        drawn.update_yaxes(title=None)
        drawn.update_xaxes(title=f"share of the variance of the {metric}")
        caption = f"How much of the variance of the last {metric} each setting explains (fANOVA, seed {_SEED})."
        bars = figure(drawn, "importances", caption, 150 + 36 * len(names), showlegend=False)
        if len(names) == 1:
            drawn = optuna.visualization.plot_slice(study, params=names, target_name=metric)
            caption = f"The last {metric} against {names[0]}, of each finished search."
            _label_logs(drawn, space)
            drawn.update_layout(title=None)
            return (figure(drawn, "slice", caption, 420), bars), ""
        # In the order of the configuration, k before lambda, whichever matters more.
        chosen = [name for name in names if name in list(importances)[:_MOST_SETTINGS]]
        drawn = optuna.visualization.plot_contour(study, params=chosen, target_name=metric)
    _label_logs(drawn, space)
    drawn.update_layout(title=None)
    caption = f"The last {metric} over {', '.join(chosen)}: Optuna's interpolation between finished searches (dots)."
    side = 480 if len(chosen) == 2 else 260 * len(chosen)
    left_out = [name for name in names if name not in chosen]
    least = f" The contours leave out what mattered least: {', '.join(left_out)}." if left_out else ""
    return (figure(drawn, "contour", caption, side), bars), least


def _label_logs(drawn: go.Figure, space: SearchSpace) -> None:
    """Label logarithmic axes so that their labels can be read."""
    logs = [axis for axis in space.axes.values() if isinstance(axis, Range) and axis.log]
    if logs:
        ticks = log_axis(min(axis.low for axis in logs), max(axis.high for axis in logs))
        drawn.update_xaxes(ticks, selector={"type": "log"})
        drawn.update_yaxes(ticks, selector={"type": "log"})


def _renamed(trial: FrozenTrial) -> FrozenTrial:
    """The trial with the sign of each setting in place of its key."""
    return create_trial(
        value=trial.value,
        params={_sign(key): value for key, value in trial.params.items()},
        distributions={_sign(key): value for key, value in trial.distributions.items()},
    )


def _sign(key: str) -> str:
    return Signs().named(key)
