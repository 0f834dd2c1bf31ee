"""Figures of what the tuned settings did: Optuna's own, of a study built from the searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from nasib_ray.config import SweepConfig
from nasib_ray.report.figures import KIND_COLOURS, Figure, figure, log_axis
from nasib_ray.search_space import Range, SearchSpace
from nasib_ray.study_log import quiet_optuna
from nasib_ray.study_trials import as_param, distribution
from nasib_ray.tables import Signs
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState

FEWEST = 4
"""Searches below which a plot over settings would show nothing but chance."""

_FIRST_TOLD = 2
"""Before, k and lambda have had no effect."""

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
    at = _common_epochs(searches)
    if not at:
        return Tuning((), f"None of {len(searches)} searches was measured after {_FIRST_TOLD} epochs or more yet.")
    compared = _trials(searches, at, config.search)
    counts = f"{len(compared)} of {len(searches)} searches were measured after {at} epochs, more than after any others"
    if len(compared) < FEWEST:
        return Tuning((), f"{counts}: too few to draw what {' and '.join(map(_sign, axes))} did (it takes {FEWEST}).")
    varied = [key for key in axes if len({repr(trial.params[_sign(key)]) for trial in compared}) > 1]
    if not varied or len({trial.value for trial in compared}) < 2:
        return Tuning((), f"{counts}, but no tuned setting differs among them, or all are equal: nothing to draw.")
    metric = f"{state.settings.get('metric')} after {at} epochs"
    figures, least = _drawn(compared, varied, config.search, state.mode, metric)
    text = f"{counts}; only they are drawn, as they were then: values after different epochs are not comparable"
    text += ". An impression from few points, not a finding." if len(compared) < 10 * len(varied) else "."
    return Tuning(figures, text + least)


def _common_epochs(searches: Sequence[SearchRecord]) -> int:
    """After how many epochs, at least 2, the most searches have a value; of several the latest; 0: none has."""
    reached = Counter(epochs for search in searches for epochs, _ in search.curve if epochs >= _FIRST_TOLD)
    return max(reached, key=lambda epochs: (reached[epochs], epochs), default=0)


def _trials(searches: Sequence[SearchRecord], at: int, space: SearchSpace) -> list[FrozenTrial]:
    """The searches with the values that they had after so many epochs, their settings by their signs."""
    distributions = {_sign(key): distribution(axis) for key, axis in space.axes.items()}
    trials = []
    for search in searches:
        point, values = space.point_of(search.config), dict(search.curve)
        if point is not None and at in values:
            params = {_sign(key): as_param(axis, point[key]) for key, axis in space.axes.items()}
            trials.append(create_trial(value=values[at], params=params, distributions=distributions))
    return trials


def _drawn(
    compared: Sequence[FrozenTrial], varied: Sequence[str], space: SearchSpace, mode: str, metric: str
) -> tuple[tuple[Figure, ...], str]:
    names = [_sign(key) for key in varied]
    with quiet_optuna():
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        study.add_trials(compared)
        evaluator = FanovaImportanceEvaluator(seed=_SEED)
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
        drawn = optuna.visualization.plot_param_importances(
            study, evaluator=FanovaImportanceEvaluator(seed=_SEED), params=names, target_name=metric
        )
        drawn.update_traces(marker_color=KIND_COLOURS["train"])
        drawn.update_layout(title=None)
        drawn.update_yaxes(title=None)
        drawn.update_xaxes(title="importance beside the other settings")
        caption = (
            f"How much each setting matters for the {metric}, beside the others (fANOVA, seed {_SEED}): they sum to 1, "
            "whatever seeds do."
        )
        bars = figure(drawn, "importances", caption, 150 + 36 * len(names), showlegend=False)
        if len(names) == 1:
            drawn = optuna.visualization.plot_slice(study, params=names, target_name=metric)
            caption = f"The {metric} against {names[0]}."
            _label_logs(drawn, space)
            drawn.update_layout(title=None)
            return (figure(drawn, "slice", caption, 420), bars), ""
        # In the order of the configuration, k before lambda, whichever matters more.
        chosen = [name for name in names if name in list(importances)[:_MOST_SETTINGS]]
        drawn = optuna.visualization.plot_contour(study, params=chosen, target_name=metric)
    _label_logs(drawn, space)
    drawn.update_layout(title=None)
    caption = f"The {metric} over {', '.join(chosen)}: Optuna's interpolation between searches (dots)."
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


def _sign(key: str) -> str:
    return Signs().named(key)
