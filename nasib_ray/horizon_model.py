"""A model of searches whose values depend on the horizon that they were told, fitted to real ones."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schedulers.population import Heritable
from schedulers.search_record import Kind
from schedulers.workload import METRIC, Benchmark, Learner, share_of_median
from trainables.schedule import Schedule, cosine_learning_rate, exploration_probability

_RUNS, _BEST = 300, 0.995
"""Regret 0 is this quantile of so many runs that were told the full horizon; 1 is their median."""

_RESAMPLED, _FACTORS = 0.25, (0.8, 1.2)
"""How a copy's k and lambda are changed: drawn anew this often, else by one of the factors (as Ray Tune's PBT does)."""

Positive = Annotated[float, Field(gt=0)]
Bounds = tuple[Positive, Positive]


class HorizonModel(BaseModel, Benchmark):
    """The value of a search after each epoch, as a random process.

    With g epochs' worth of the full learning rate behind it and the exploring policy at p = k^c, a search is worth

        v = level + L (learnt + u) + (1 - p) (exploited L + exploited_early) + z,   L = 1 - exp(-g / learning_epochs)

    where u = effects . (x, y, x^2, y^2, x y) + N(0, trial_spread^2), with x and y the logarithms of k and lambda scaled
    so that their bounds are -1 and 1, and z is a stationary AR(1) process. The horizon acts through the clock c alone:
    on the learning rate, which is a cosine of it, and on p.

    Attributes:
        metric: What it was fitted to, for people.
        comparing_epochs: What is reported is measured where searches are compared alone, and takes as long as so many
            epochs; None: it is reported after every epoch, for nothing.
        full_horizon: Epochs of a full search.
        level: See above, as ``learnt``, ``exploited``, ``exploited_early``, ``effects``.
        learning_epochs: See above, in epochs at the full learning rate.
        trial_spread: Standard deviation of u between searches of the same k and lambda.
        noise_spread: Standard deviation of z.
        noise_correlation: Of z from one epoch to the next, in [0, 1).
        k: Lowest and highest value; drawn log-uniformly between them.
        lambda_: The same of lambda.
        epoch_device_seconds: What an epoch takes in the mean.
        cost_spread: Standard deviation of its logarithm over searches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["nasib horizon model"] = "nasib horizon model"
    name: str
    mode: Literal["min", "max"] = "max"
    horizon_told: bool = True
    metric: str
    comparing_epochs: float | None = Field(ge=0)
    full_horizon: int = Field(ge=2)
    level: float
    learnt: float
    exploited: float
    exploited_early: float
    learning_epochs: Positive
    effects: tuple[float, float, float, float, float]
    trial_spread: float = Field(ge=0)
    noise_spread: float = Field(ge=0)
    noise_correlation: float = Field(ge=0, lt=1)
    k: Bounds
    lambda_: Bounds = Field(alias="lambda")
    epoch_device_seconds: Positive
    cost_spread: float = Field(ge=0)

    @field_validator("k", "lambda_")
    @classmethod
    def _rising(cls, bounds: Bounds) -> Bounds:
        if bounds[0] >= bounds[1]:
            raise ValueError(f"its lowest value is {bounds[0]:g}, which must be below its highest, {bounds[1]:g}")
        return bounds

    @property
    def max_t(self) -> int:
        """The full horizon."""
        return self.full_horizon

    def workload(self, seed: int) -> ModelWorkload:
        """Searches with k and lambda drawn at random."""
        return ModelWorkload(self, seed)

    def regret(self, value: float | None) -> float:
        """How far a value is from the best of 300 runs that were told the full horizon (their 99.5% quantile)."""
        sign = 1.0 if self.mode == "min" else -1.0
        return share_of_median(None if value is None else sign * value, *self._ends)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """Best and median end of those runs, lower being better."""
        sign = 1.0 if self.mode == "min" else -1.0
        trials = ModelWorkload(self, -1)
        ends = []
        for number in range(_RUNS):
            _, learner = trials.draw(number, "search")
            values = [learner.learn(self.full_horizon, True)[METRIC] for _ in range(self.full_horizon)]
            ends.append(sign * values[-1])
        ends.sort()
        at = (1 - _BEST) * (_RUNS - 1)
        below = math.floor(at)
        return ends[below] + (at - below) * (ends[below + 1] - ends[below]), median(ends)

    def features(self, k: float, lambda_: float) -> tuple[float, float, float, float, float]:
        """x, y, x^2, y^2 and x y: the logarithms of k and lambda, -1 and 1 at their bounds."""
        x, y = _scaled(k, self.k), _scaled(lambda_, self.lambda_)
        return x, y, x * x, y * y, x * y


def read_model(path: Path) -> HorizonModel:
    """Read a model.

    Raises:
        ValueError: The file is none.
    """
    try:
        return HorizonModel.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path} is no horizon model: {f'{where}: ' if where else ''}{first['msg']}") from error


class ModelWorkload(Heritable):
    """Searches of a model.

    Args:
        model: The model.
        seed: Of everything that is drawn.
    """

    def __init__(self, model: HorizonModel, seed: int) -> None:
        self.epoch_seconds = model.epoch_device_seconds
        self._model = model
        self._seed = seed

    def draw(self, number: int, kind: Kind = "search") -> tuple[Mapping[str, Any], Learner]:
        """A search with its own k, lambda, worth and cost."""
        drawn = self._random(number)
        config = {"k": _drawn(drawn, self._model.k), "lambda": _drawn(drawn, self._model.lambda_)}
        spread = self._model.cost_spread
        seconds = self._model.epoch_device_seconds * math.exp(drawn.gauss(-(spread**2) / 2, spread))
        own = drawn.gauss(0.0, self._model.trial_spread)
        return config, ModelledSearch(self._model, config, f"{self._seed} {number}", own, seconds)

    def inherit(self, learner: Learner, number: int) -> tuple[Mapping[str, Any], Learner]:
        """The same search with another k and lambda, within their bounds."""
        assert isinstance(learner, ModelledSearch), "searches of a model begin as copies of such"
        drawn, config = self._random(number), dict[str, float]()
        for key, bounds in (("k", self._model.k), ("lambda", self._model.lambda_)):
            anew = drawn.random() < _RESAMPLED
            near = min(max(learner.config[key] * drawn.choice(_FACTORS), bounds[0]), bounds[1])
            config[key] = _drawn(drawn, bounds) if anew else near
        return config, learner.copied(config, f"{self._seed} {number}")

    def _random(self, number: int) -> random.Random:
        return random.Random(f"{self._model.name} {self._seed} {number}")


class Course:
    """How far a search has learnt, and how much it exploits.

    Args:
        k: Of the search, in (0, 1].
        learning_epochs: See :class:`HorizonModel`.

    Attributes:
        learnt: L, in [0, 1).
        exploiting: 1 - p, in [0, 1).
    """

    def __init__(self, k: float, learning_epochs: float) -> None:
        self.k = k
        self._learning_epochs = learning_epochs
        self._schedule = Schedule.start("endpoints")
        self._rated = 0.0
        self.epochs = 0
        self.learnt = 0.0
        self.exploiting = 0.0

    def advance(self, horizon: int | None) -> None:
        """Do an epoch under a horizon."""
        if horizon != self._schedule.horizon:
            self._schedule = self._schedule.with_horizon(horizon, after_epoch=self.epochs)
        self.epochs += 1
        clock = self._schedule.clock(self.epochs)
        self._rated += cosine_learning_rate(clock, 1.0, 0.0)
        self.learnt = 1.0 - math.exp(-self._rated / self._learning_epochs)
        self.exploiting = 1.0 - exploration_probability(clock, self.k)


class ModelledSearch(Learner):
    """A search of a model, so many epochs far; it can go on as a copy of itself."""

    def __init__(self, model: HorizonModel, config: Mapping[str, float], key: str, own: float, seconds: float) -> None:
        self.config = config
        self._model = model
        self._key = key
        self._own = own
        self._seconds = seconds
        self._course = Course(config["k"], model.learning_epochs)
        self._noise = 0.0
        self._worth = self._worth_of(config)

    def __copy__(self) -> ModelledSearch:
        other = object.__new__(ModelledSearch)
        other.__dict__.update(self.__dict__)
        other._course = copy.copy(self._course)
        return other

    def copied(self, config: Mapping[str, float], key: str) -> ModelledSearch:
        """A search that goes on from here with another k and lambda."""
        other = copy.copy(self)
        other.config, other._key = config, key
        other._course.k = config["k"]
        other._worth = self._worth_of(config)
        return other

    def _worth_of(self, config: Mapping[str, float]) -> float:
        features = self._model.features(config["k"], config["lambda"])
        return self._own + sum(effect * value for effect, value in zip(self._model.effects, features, strict=True))

    def epoch_seconds(self) -> float:
        """As long as each of its epochs."""
        return self._seconds

    def compare_seconds(self) -> float:
        """What it takes to measure what is compared."""
        return (self._model.comparing_epochs or 0.0) * self._seconds

    def learn(self, horizon: int | None, compared: bool) -> Mapping[str, Any]:
        """An epoch more under a horizon: a function of what was drawn and of the horizons so far."""
        model = self._model
        first = self._course.epochs == 0
        self._course.advance(horizon)
        drawn = random.Random(f"{model.name} {self._key} {self._course.epochs}").gauss(0.0, model.noise_spread)
        kept = 0.0 if first else model.noise_correlation
        self._noise = kept * self._noise + math.sqrt(1.0 - kept**2) * drawn
        learnt, exploiting = self._course.learnt, self._course.exploiting
        if model.comparing_epochs is not None and not compared:
            return {}
        value = model.level + learnt * (model.learnt + self._worth) + self._noise
        return {METRIC: value + exploiting * (learnt * model.exploited + model.exploited_early)}


def _scaled(value: float, bounds: Bounds) -> float:
    low, high = (math.log(bound) for bound in bounds)
    return 2.0 * (math.log(value) - low) / (high - low) - 1.0


def _drawn(drawn: random.Random, bounds: Bounds) -> float:
    return math.exp(drawn.uniform(*(math.log(bound) for bound in bounds)))
