"""The model of how a search depends on its horizon: fitted to real searches, and what allocators come to under it.

    python benchmarks/horizon_model.py fit benchmarks/results/nasib-curves-digits.jsonl
    python benchmarks/horizon_model.py variants benchmarks/results/nasib-model-*.json
    python benchmarks/horizon_model.py slots benchmarks/results/nasib-model-*.json

`fit` estimates `nasib_ray.horizon_model.HorizonModel` by maximum likelihood from the records of nasib_curves.py, once
for the objective and once for the accuracy with shared weights, writes both models into benchmarks/results, and prints
how well a fit to the searches of one horizon foretells those whose horizon changed in mid-flight.

`variants` simulates sweeps over models (budgets of 10 and 30 full searches, 1, 4 and 16 slots) under variants of
asynchronous halving: other rungs, another share that goes on, no endgame. `allocators.py tables` compares the default
with other allocators.

`slots` simulates what becomes of a budget of 8 full searches on more slots than that, with whole horizons and with such
as one slot can run while all of them do.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from json_lines import read_lines
from nasib_curves import OBJECTIVE_EPOCHS
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from nasib_ray.horizon_model import Course, HorizonModel, read_model
from nasib_ray.simulate import Setting, simulate
from schedulers.allocation import Allocator
from schedulers.allocators import AsyncHalving
from schedulers.workload import Benchmark, Workload

RESULTS = Path(__file__).parent / "results"
MEASURES = {"objective": "curve", "accuracy": "val_accuracy"}
"""What is fitted, and its column in the records."""

RUNGS = ((0.25, 0.5), (0.1, 0.3), (0.1, 0.4), (0.0625, 0.25), (0.05, 0.2), (0.05, 0.1, 0.4))
AXES = {"k": "k", "lambda": "lambda_"}
SEARCHES, MANY_SLOTS = 8, (8, 16, 32, 64)
EPOCH_SECONDS = 600.0
"""Of the models, as of tables that do not tell: what was measured is small, and has epochs of seconds."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """One real search.

    Attributes:
        k, lambda_: Its settings.
        history: (epochs done, horizon that was told then).
        values: After each epoch.
        seconds: Of an epoch, in the mean.
    """

    k: float
    lambda_: float
    history: tuple[tuple[int, int], ...]
    values: Vector
    seconds: float

    @classmethod
    def of(cls, record: dict[str, Any], column: str) -> Observed:
        """As it was recorded."""
        settings = record["cell"]["settings"]
        history = tuple((after, to) for after, to in settings["horizons"])
        seconds = sum(record["seconds"]) / len(record["seconds"])
        return cls(settings["k"], settings["lambda"], history, np.array(record[column]), seconds)

    def terms(self, model: HorizonModel) -> NDArray[np.float64]:
        """What each coefficient is multiplied by, after each epoch: [epochs, 4 + effects]."""
        course, told = Course(self.k, model.learning_epochs), dict(self.history)
        features, horizon, rows = model.features(self.k, self.lambda_), 0, []
        for done in range(len(self.values)):
            horizon = told.get(done, horizon)
            course.advance(horizon)
            learnt, exploiting = course.learnt, course.exploiting
            rows.append([1.0, learnt, exploiting * learnt, exploiting, *(learnt * value for value in features)])
        return np.array(rows)


@dataclass(frozen=True)
class Measured:
    """What the study of objectives knows of measuring the objective.

    Attributes:
        epochs: What it takes, in epochs of a search; None: nothing.
        random: What it is for networks drawn at random, as those are that a search prefers at its beginning.
    """

    epochs: float | None = None
    random: tuple[float, ...] = ()

    @classmethod
    def of(cls, setup: str) -> Measured:
        """By its records."""
        records = read_lines(RESULTS / f"objective-{setup}.jsonl")
        by = {study: [one for one in records if one["cell"]["study"] == study] for study in ("objective", "random")}

        def trained(record: dict[str, Any], measure: str) -> list[float]:
            names = [f"trained {OBJECTIVE_EPOCHS[setup]}, seed {seed}" for seed in (0, 1)]
            return [float(record["end"][name][measure]) for name in names]

        epochs = (sum(trained(one, "seconds")) * len(one["curve"]) / one["search_seconds"] for one in by["objective"])
        return cls(statistics.median(epochs), tuple(-statistics.fmean(trained(one, "loss")) for one in by["random"]))


def fit(searches: Sequence[Observed], name: str, metric: str, measured: Measured) -> HorizonModel:
    """The most likely model."""
    searched = {key: [getattr(search, name) for search in searches] for key, name in AXES.items()}
    blank = HorizonModel.model_validate(
        {
            "name": name,
            "metric": metric,
            "comparing_epochs": measured.epochs,
            "full_horizon": max(horizon for search in searches for _, horizon in search.history),
            **dict.fromkeys(("level", "learnt", "exploited", "exploited_early", "trial_spread", "noise_spread"), 0.0),
            "learning_epochs": 1.0,
            "effects": (0.0,) * 5,
            "noise_correlation": 0.0,
            **{key: (min(values), max(values)) for key, values in searched.items()},
            "epoch_device_seconds": EPOCH_SECONDS,
            "cost_spread": statistics.pstdev(math.log(search.seconds) for search in searches),
        }
    )

    def model_of(at: Vector) -> tuple[HorizonModel, float]:
        """The model with the likeliest coefficients for these four numbers, and minus its log-likelihood."""
        learning, trial, noise = (math.exp(value) for value in at[:3])
        spreads = {"trial_spread": trial, "noise_spread": noise, "noise_correlation": 1 / (1 + math.exp(-at[3]))}
        model = blank.model_copy(update={"learning_epochs": learning, **spreads})
        parts = [whitened(search, model) for search in searches]
        if measured.random:
            alone = np.zeros((len(measured.random), parts[0][0].shape[1]))
            alone[:, 0] = 1.0 / noise
            parts.append((alone, np.array(measured.random) / noise, len(alone) * math.log(noise)))
        design, values = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        found, *_ = np.linalg.lstsq(design, values, rcond=None)
        unlikely = 0.5 * float(np.sum((values - design @ found) ** 2)) + sum(part[2] for part in parts)
        names = ("level", "learnt", "exploited", "exploited_early")
        update = {**dict(zip(names, map(float, found), strict=False)), "effects": tuple(map(float, found[4:]))}
        return model.model_copy(update=update), unlikely

    spread = float(np.std(np.concatenate([search.values for search in searches])))
    starts = [np.array([math.log(epochs), math.log(spread), math.log(spread / 2), 1.0]) for epochs in (3.0, 30.0)]
    bounds = [
        (0.0, math.log(10.0 * blank.full_horizon)),
        *[(math.log(spread / 1e3), math.log(10 * spread))] * 2,
        (-5.0, 5.0),
    ]
    ends = [minimize(lambda at: model_of(at)[1], start, method="L-BFGS-B", bounds=bounds) for start in starts]
    return model_of(min(ends, key=lambda end: float(end.fun)).x)[0]


def whitened(search: Observed, model: HorizonModel) -> tuple[Vector, Vector, float]:
    """A search's terms and values with errors made independent, and half the logarithm of what that scales by."""
    terms = search.terms(model)
    # In its first epoch a search owes nothing to k, lambda and horizon: all those of one seed are the same one.
    terms, values = terms[1:], search.values[1:]
    learnt, epochs = terms[:, 1], np.arange(len(values))
    noise = model.noise_spread**2 * model.noise_correlation ** np.abs(np.subtract.outer(epochs, epochs))
    factor = np.linalg.cholesky(model.trial_spread**2 * np.outer(learnt, learnt) + noise)
    return np.linalg.solve(factor, terms), np.linalg.solve(factor, values), float(np.log(np.diag(factor)).sum())


def mean_value(search: Observed, model: HorizonModel) -> Vector:
    """What the model expects after each epoch."""
    found = [model.level, model.learnt, model.exploited, model.exploited_early, *model.effects]
    return np.asarray(search.terms(model) @ np.array(found))


def report_fit(searches: Sequence[Observed], model: HorizonModel, measured: Measured, console: Console) -> None:
    """Print the model, how much it explains, and how it foretells changed horizons when fitted without them."""
    console.print(f"\n{model.name}: {model.metric}", style="bold")
    hidden = {"kind", "name", "mode", "horizon_told", "metric"}
    for name, value in model.model_dump(exclude=hidden, by_alias=True).items():
        if value is None:
            continue
        shown = ", ".join(f"{one:.4g}" for one in value) if isinstance(value, tuple) else f"{value:.4g}"
        console.print(f"  {name:22} {shown}", highlight=False)
    values = np.concatenate([search.values[1:] for search in searches])
    left = values - np.concatenate([mean_value(search, model)[1:] for search in searches])
    console.print(f"  explains {1 - left.var() / values.var():.0%} of the variance of all values", highlight=False)
    if measured.random:
        mean, error = statistics.fmean(measured.random), statistics.stdev(measured.random) / len(measured.random) ** 0.5
        console.print(f"  random networks have {mean:.3f} +- {error:.3f}", highlight=False)
    one = [search for search in searches if len(search.history) == 1]
    without = fit(one, model.name, model.metric, measured)
    table = Table(box=None, header_style="bold")
    table.add_column("at the end of searches told")
    for heading in ("searches", "observed", "foretold", "difference"):
        table.add_column(heading, justify="right")
    for history in dict.fromkeys(search.history for search in searches):
        some = [search for search in searches if search.history == history]
        seen = np.array([search.values[-1] for search in some])
        apart = seen - np.array([mean_value(search, without)[-1] for search in some])
        error = float(apart.std(ddof=1)) / math.sqrt(len(some))
        told = ", then ".join(f"{to} after {after}" if after else str(to) for after, to in history)
        foretold = f"{seen.mean() - apart.mean():.3f}"
        table.add_row(told, str(len(some)), f"{seen.mean():.3f}", foretold, f"{apart.mean():+.3f} +- {error:.3f}")
    console.print(table)


def variants() -> dict[str, Callable[[], Allocator]]:
    """Allocators by what they are."""
    made: dict[str, Callable[[], Allocator]] = {}
    for rungs, eta in product(RUNGS, (2, 3, 4)):
        name = f"rungs at {' and '.join(f'{rung:g}' for rung in rungs)}, one in {eta}"
        made[name] = partial(AsyncHalving, rungs, eta)
    made["the default without continue_at_once"] = partial(AsyncHalving, continue_at_once=False)
    made["the default without new horizons"] = partial(AsyncHalving, replan=False)
    made["the default without an endgame"] = partial(AsyncHalving, endgame=False)
    return made


def mean_regrets(model: HorizonModel, seeds: int, variant: str) -> tuple[float, float]:
    """Final regret and regret over time, the mean over cells and seeds."""
    settings = [
        Setting(model.name, variant, budget, slots, seed)
        for budget, slots, seed in product((10.0, 30.0), (1, 4, 16), range(seeds))
    ]
    runs = [simulate(model, setting, variants()[variant]()) for setting in settings]
    return statistics.fmean(run.final_regret for run in runs), statistics.fmean(run.anytime_regret for run in runs)


def report_variants(models: Sequence[HorizonModel], seeds: int, jobs: int, console: Console) -> None:
    """Print all variants, those with the least final regret first."""
    pairs = list(product(variants(), models))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = [pool.submit(mean_regrets, model, seeds, variant) for variant, model in pairs]
        regrets = {(variant, model.name): one.result() for (variant, model), one in zip(pairs, futures, strict=True)}
    table = Table(box=None, header_style="bold", title=f"final regret / over time; {seeds} seeds", title_justify="left")
    table.add_column("variant", no_wrap=True)
    for heading in ("mean", *(model.name for model in models)):
        table.add_column(heading, justify="right", no_wrap=True)

    def means(variant: str) -> tuple[float, float]:
        each = [regrets[variant, model.name] for model in models]
        return statistics.fmean(final for final, _ in each), statistics.fmean(over for _, over in each)

    for variant in sorted(variants(), key=means):
        shown = [means(variant), *(regrets[variant, model.name] for model in models)]
        table.add_row(variant, *(f"{final:.3f} / {over:.3f}" for final, over in shown))
    console.print(table)


class CutShort(Benchmark):
    """A model whose full searches are shorter; what they come to is judged by the model's own."""

    def __init__(self, model: HorizonModel, horizon: int) -> None:
        self.name, self.mode, self.horizon_told = model.name, model.mode, model.horizon_told
        self.epoch_device_seconds = model.epoch_device_seconds
        self._model, self._horizon = model, horizon

    @property
    def max_t(self) -> int:
        """The shorter horizon."""
        return self._horizon

    def workload(self, seed: int) -> Workload:
        """The model's."""
        return self._model.workload(seed)

    def regret(self, value: float | None) -> float:
        """The model's."""
        return self._model.regret(value)


def report_slots(models: Sequence[HorizonModel], seeds: int, console: Console) -> None:
    """Print final regret and wall-clock of one budget on more and more slots."""
    table = Table(
        box=None, header_style="bold", title=f"final regret (wall-clock); {seeds} seeds", title_justify="left"
    )
    table.add_column("slots: horizons")
    for heading in ("mean", *(model.name for model in models)):
        table.add_column(heading, justify="right", no_wrap=True)
    for slots, cut in product(MANY_SLOTS, (True, False)):
        row = []
        for model in models:
            horizon = max(2, round(model.max_t * SEARCHES / slots)) if cut else model.max_t
            setting = Setting(model.name, "async-halving", SEARCHES * model.max_t / horizon, slots, 0)
            runs = [simulate(CutShort(model, horizon), replace(setting, seed=seed)) for seed in range(seeds)]
            lasts = statistics.fmean(run.wall_clock for run in runs) * SEARCHES / slots
            row.append((statistics.fmean(run.final_regret for run in runs), lasts))
        row.insert(0, (statistics.fmean(final for final, _ in row), statistics.fmean(lasts for _, lasts in row)))
        cells = (f"{final:.3f} ({lasts:.2f})" for final, lasts in row)
        table.add_row(f"{slots}: {f'{SEARCHES}/{slots} of the whole' if cut else 'whole'}", *cells)
    console.print(table)
    console.print("wall-clock: in full searches, one after the other")


def main() -> None:
    """Fit, or simulate variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    of_fit = parts.add_parser("fit")
    of_fit.add_argument("curves", type=Path, nargs="+", help="records of nasib_curves.py")
    of_variants = parts.add_parser("variants")
    of_variants.add_argument("model", type=Path, nargs="+")
    of_variants.add_argument("--seeds", type=int, default=20)
    of_variants.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    of_slots = parts.add_parser("slots")
    of_slots.add_argument("model", type=Path, nargs="+")
    of_slots.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.part == "variants":
        models = [read_model(file) for file in options.model]
        report_variants(models, options.seeds, options.jobs, Console(width=190))
        return
    if options.part == "slots":
        report_slots([read_model(file) for file in options.model], options.seeds, Console(width=150))
        return
    for file in options.curves:
        setup = file.stem.rpartition("-")[2]
        for metric, column in MEASURES.items():
            searches = [Observed.of(record, column) for record in read_lines(file)]
            measured = Measured.of(setup) if metric == "objective" else Measured()
            model = fit(searches, f"{setup}-{metric}", metric, measured)
            target = RESULTS / f"nasib-model-{model.name}.json"
            target.write_text(model.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")
            report_fit(searches, model, measured, Console(width=120))


if __name__ == "__main__":
    main()
