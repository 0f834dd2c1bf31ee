"""What a search and its data can be told. No torch here: a configuration is checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from trainables.candidates import candidate_names, check_name

# Log-uniform ranges in which k and lambda are tuned by default.
DEFAULT_K_RANGE: tuple[float, float] = (0.01, 0.5)
DEFAULT_LAMBDA_RANGE: tuple[float, float] = (0.002, 0.1)

BUILTIN_NAMES = ("digits", "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn")
"""Data sets that are known by name; anything else is a path or an import path."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Switch = Literal["auto"] | bool
Anneal = Literal["endpoints", "paper"]
Alternate = Literal["epoch", "step"]
BatchNormPlace = Literal["candidate", "layer"]
PairScale = Literal["sum", "mean"]
Precision = Literal["float32", "bfloat16"]
Measure = Literal["accuracy", "likelihood"]
Objective = Literal[
    "shared-accuracy",
    "recalibrated-accuracy",
    "recalibrated-likelihood",
    "fine-tuned-accuracy",
    "fine-tuned-likelihood",
    "trained-accuracy",
    "trained-likelihood",
]


class Settings(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, validate_default=True)


class DataSettings(Settings):
    """A data set, its three disjoint parts and its augmentation (the section ``data`` of a configuration).

    Attributes:
        name: "digits", "cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", a path, or "package.module:function".
        root: Folder in which the data set's own files lie or are downloaded to. None: inside ``cache``.
        download: Whether files that are missing may be downloaded.
        image_size: Pixels to which images are brought: of both sides, or (height, width). None: as they are.
        subset: Number of training images used in all. None: every one.
        alpha_images: Images that train alpha: a count or a fraction. None: the data set's default.
        selection_images: Images on which an architecture is judged: a count or a fraction. None: the default.
        flip: Mirror half of the training images, "auto" where that makes sense.
        crop: Shift training images at random by padding and cropping.
        cutout: Blank a random square of half the image's side.
        cache: Folder of prepared data. None: the environment's NASIB_RAY_CACHE, else ~/.cache/nasib-ray.
    """

    name: str = Field(default="cifar10", min_length=1)
    root: str | None = None
    download: bool = True
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    subset: PositiveInt | None = None
    alpha_images: PositiveInt | Fraction | None = None
    selection_images: PositiveInt | Fraction | None = None
    flip: Switch = "auto"
    crop: Switch = "auto"
    cutout: Switch = "auto"
    cache: str | None = None


class SearchSettings(Settings):
    """One NASIB search (the section ``search`` of a configuration).

    Attributes:
        k: p, the probability of the exploring policy, in the last epoch (section 3.3).
        lambda_: Divisor of alpha in the exploiting policy P2 (eq. 4). Its key is ``lambda``.
        candidates: "superkernel" (m * m kernels), "narrow" (7 usual operations), or names of operations.
        m: Side of the superkernel (section 3.4).
        K: Kernels with more than K taps are depthwise separable (section 3.4).
        layers: Layers to be searched.
        reductions: Numbers of the layers, from 1, before which a factorized reduction stands (section 4.1).
        channels: Channels behind the stem; each reduction doubles them.
        batch_norm: Behind each "candidate", or once a "layer" behind their sum.
        pair_scale: The weight pass takes the "sum" of the two drawn candidates (eq. 1) or their "mean".
        alternate: The architecture pass follows the weight pass each "epoch", or their steps are interleaved ("step").
        anneal: "endpoints": p = k ** clock, 1 in the first and k in the last epoch. "paper": k ** (epoch / horizon).
        batch_size: Images of a batch.
        learning_rate: Of the weights, at clock 0.
        lr_min: Fraction of ``learning_rate`` that is left at clock 1.
        momentum: Of the weights, and of alpha where ``alpha_optimizer`` is "sgd".
        weight_decay: L2 penalty on the weights.
        gradient_clip: Largest norm of the weights' gradient.
        alpha_optimizer: "adam" with betas (0, 0.999), or "sgd" with momentum; state is kept per entry of alpha.
        alpha_learning_rate: Constant over the search.
        priors: Initial alpha of candidates by name; 0 where none is given.
        precision: Of convolutions and their outputs; weights, batch statistics and losses are "float32" in any case.
            "bfloat16" is meant for GPUs that compute in it.
        derive: The network that a search prefers: in each layer the candidate with the largest "alpha", or the best of
            some random architectures with shared weights on the selection part, "random-search" (Guo et al. 2020),
            drawn anew wherever searches are compared.
        derive_samples: How many random architectures.
        objective: What a sweep maximises, measured on the selection part where searches are compared: the "accuracy" of
            the preferred network, or its "likelihood" (mean log-probability of the right class, in nats), with
            "shared" weights, with batch norms "recalibrated" for it, "fine-tuned" from the shared weights, or
            "trained" alone.
        objective_epochs: Epochs of the fine-tuning or training for it.
        objective_trainings: How often that is done, each time with another seed; the objective is the mean.
        deterministic: Ask CUDA for deterministic kernels.
        checkpoint_seconds: A checkpoint is asked for at the end of the first epoch so long after the last one; later,
            up to ten times so long, where saving would take more than 2% of the time.
    """

    k: float = Field(default=0.1, gt=0, le=1)
    lambda_: PositiveFloat = Field(default=0.02, alias="lambda")
    candidates: Literal["superkernel", "narrow"] | tuple[str, ...] = "superkernel"
    m: PositiveInt = 9
    K: int = Field(default=9, ge=0)
    layers: PositiveInt = 12
    reductions: tuple[int, ...] = (4, 7, 10)
    channels: PositiveInt = 16
    batch_norm: BatchNormPlace = "candidate"
    pair_scale: PairScale = "sum"
    alternate: Alternate = "epoch"
    anneal: Anneal = "endpoints"
    batch_size: int = Field(default=64, ge=2)
    learning_rate: PositiveFloat = 0.01
    lr_min: float = Field(default=0.01, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    gradient_clip: PositiveFloat = 5.0
    alpha_optimizer: Literal["adam", "sgd"] = "adam"
    alpha_learning_rate: PositiveFloat = 0.01
    priors: dict[str, FiniteFloat] = Field(default_factory=dict)
    precision: Precision = "float32"
    derive: Literal["alpha", "random-search"] = "alpha"
    derive_samples: PositiveInt = 50
    objective: Objective = "trained-likelihood"
    objective_epochs: PositiveInt = 1
    objective_trainings: PositiveInt = 2
    deterministic: bool = False
    checkpoint_seconds: float = Field(default=60.0, ge=0)

    @property
    def measure(self) -> Measure:
        """What the objective is: "accuracy" or "likelihood"."""
        return "accuracy" if self.objective.endswith("accuracy") else "likelihood"

    @property
    def candidate_names(self) -> tuple[str, ...]:
        """Names of the N candidates of every layer, in the order of the columns of alpha."""
        return candidate_names(self.candidates, self.m, self.K)

    @model_validator(mode="after")
    def _check(self) -> SearchSettings:
        names = self.candidate_names
        for name in names:
            check_name(name)
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise ValueError(f"candidates must be at least two, all different, not {list(names)}")
        if sorted(set(self.reductions)) != list(self.reductions) or not all(
            1 <= layer <= self.layers for layer in self.reductions
        ):
            raise ValueError(
                f"reductions = {list(self.reductions)} must be rising numbers of layers between 1 and layers = "
                f"{self.layers}: a reduction stands before the layer of that number"
            )
        if unknown := sorted(set(self.priors) - set(names)):
            raise ValueError(f"priors names {unknown}, which are not among the candidates {list(names)}")
        return self


class TrialSettings(Settings):
    """All that one trial is told: the flat configuration of a Tune trial, checked.

    Attributes:
        search: How to search.
        data: What on.
        seed: The trial's own; all its randomness follows from it.
        split_seed: The sweep's; the three parts of the training set are drawn by it.
        horizon: Epochs that the search may expect over its whole life. None: not yet known, enough for epoch 1.
        slice_seconds: Wall seconds of stepping that are left from the first step after a set-up or reset. None: no end.
        compare_at: Epochs after which the search will be compared with others: from there on, and at its end, the
            objective is measured. None: after each one.
    """

    search: SearchSettings
    data: DataSettings
    seed: int = 0
    split_seed: int = 0
    horizon: PositiveInt | None = None
    slice_seconds: PositiveFloat | None = None
    compare_at: PositiveInt | None = None

    @property
    def deterministic(self) -> bool:
        """The search's."""
        return self.search.deterministic

    @property
    def checkpoint_seconds(self) -> float:
        """The search's."""
        return self.search.checkpoint_seconds

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialSettings:
        """The settings in a trial's flat configuration: search settings beside data, seed, horizon and slice.

        Raises:
            ValueError: A key is unknown (the message names it and those that are allowed) or a value breaks a rule.
        """
        own = {name: config[name] for name in cls.model_fields if name != "search" and name in config}
        search = {key: value for key, value in config.items() if key not in own}
        allowed = {field.alias or name for name, field in SearchSettings.model_fields.items()} | {"lambda_"}
        if unknown := sorted(set(search) - allowed):
            others = sorted((allowed | set(cls.model_fields)) - {"search", "lambda_"})
            raise ValueError(f"unknown configuration keys {unknown}; the allowed ones are {others}")
        return cls.model_validate({"data": {}, **own, "search": search})
