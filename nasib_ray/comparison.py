"""Trained networks of one or several sweeps side by side, with intervals."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from nasib_ray.trained import CONTROL, TrainedNetwork

FOUND = "found"
"""What the best network of a sweep is called beside those of its controls."""

RANDOM = f"{CONTROL}random-search"

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval by Student's t.

    Attributes:
        mean: Over ``count`` values.
        low: The lower end; NaN where values are one or all the same, and ``high`` too.
        high: The upper end.
        count: How many values.
    """

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The estimate from independent values, at least one."""
        mean, count = statistics.fmean(values), len(values)
        if len(set(values)) < 2:
            return cls(mean, math.nan, math.nan, count)
        half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
        return cls(mean, mean - half, mean + half, count)


def difference(of: Sequence[float], to: Sequence[float]) -> Estimate:
    """How much larger the mean of the first values is than that of the others, by Welch's t; the ends may be NaN."""
    mean, count = statistics.fmean(of) - statistics.fmean(to), min(len(of), len(to))
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    parts = [statistics.variance(values) / len(values) for values in (of, to)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Estimate(mean, math.nan, math.nan, count)
    # Welch's and Satterthwaite's degrees of freedom.
    freedom = error**4 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (of, to), strict=True))
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, count)


def relative_improvement(accuracy: Sequence[float], random: Sequence[float]) -> Estimate:
    """100 (accuracy - random) / random, in percent, with the interval of the difference.

    Stricter than that of Yang et al. (NAS Evaluation is Frustratingly Hard, ICLR 2020), who compare with the mean of
    random architectures: these were searched for with a budget as large. That the divisor is an estimate, too, does not
    count.

    Args:
        accuracy: Of the networks of a method, in (0, 1].
        random: Of those of random search.
    """
    scale, change = 100 / statistics.fmean(random), difference(accuracy, random)
    return Estimate(scale * change.mean, scale * change.low, scale * change.high, change.count)


def by_method(networks: Iterable[TrainedNetwork], ranked: Sequence[str]) -> dict[str, TrainedNetwork]:
    """The network of each method: of those that the sweep itself found the best, of a control's the newest.

    Args:
        networks: In the order in which their trainings were begun.
        ranked: The sweep's searches, as :func:`nasib_ray.trained.ranking` has them.
    """
    known = list(networks)
    ranks = {name: rank for rank, name in enumerate(ranked)}
    found = [network for network in known if not network.name.startswith(CONTROL)]
    chosen = {FOUND: min(found, key=lambda network: ranks.get(network.name, len(ranks)))} if found else {}
    return chosen | {network.name: network for network in known if network.name.startswith(CONTROL)}


def pooled(sweeps: Iterable[Mapping[str, TrainedNetwork]]) -> dict[str, list[float]]:
    """Accuracies of each method over sweeps: of each sweep the mean over its trainings.

    Of a single sweep the accuracies of the trainings themselves, as there is no other spread.
    """
    known = list(sweeps)
    accuracies: dict[str, list[float]] = defaultdict(list)
    for methods in known:
        for method, network in methods.items():
            of_trainings = [1.0 - error for error in network.test_errors]
            accuracies[method] += of_trainings if len(known) == 1 else [statistics.fmean(of_trainings)]
    return dict(accuracies)
