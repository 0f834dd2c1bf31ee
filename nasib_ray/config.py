"""What a sweep is told: one YAML file, or keyword arguments, checked in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from nasib_ray.config_file import SECTIONS, read_config_file, with_overrides, with_values
from nasib_ray.deadline import parse_deadline
from nasib_ray.problems import Problems, keys_of, problems_of, unknown_key, wrong_value
from nasib_ray.search_space import SearchSpace
from schedulers.budget import Budget, Device
from schedulers.sizes import parse_size
from trainables.settings import BUILTIN_NAMES, DataSettings, SearchSettings
from trainables.training_settings import RetrainSettings

DEFAULT_STORAGE = "~/nasib_ray_results"

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_OF_A_RUN = ("max_concurrent", "device_rates", "price_per_hour", "retrain")
# These may change when a sweep goes on.
_CHANGEABLE = ("budget", "storage", "name", "max_storage", "deadline", *_OF_A_RUN)


def _budget(value: Any) -> Budget:
    return value if isinstance(value, Budget) else Budget.parse(value)


def _budget_text(budget: Budget) -> str:
    return str(budget)


def _size(value: Any) -> int | None:
    return None if value in (None, "none") else parse_size(value)


def _deadline(value: Any) -> datetime | None:
    return None if value in (None, "none") else parse_deadline(value, datetime.now().astimezone())


def _search(value: Any) -> SearchSpace:
    return value if isinstance(value, SearchSpace) else SearchSpace.parse(value)


def _data(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        return {"name": os.fspath(value)}
    if not isinstance(value, (Mapping, DataSettings)):
        raise ValueError(f"{value!r} is neither a data set's name, nor a path, nor a mapping of settings")
    return value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Count = Annotated[int, Field(ge=1, strict=True)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]


class TrialResources(BaseModel):
    """What one trial holds; parts of a device may be shared, as in ``gpus: 0.5``.

    Attributes:
        cpus: Processors. None: one.
        gpus: GPUs. None: one if the budget is of GPU time, else none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: Amount | None = None
    gpus: Amount | None = None

    def under(self, device: Device) -> TrialResources:
        """What a trial holds under a budget of this device.

        Raises:
            ValueError: If it would hold none of the budget's device, or a GPU that nobody counts.
        """
        held = TrialResources(
            cpus=1.0 if self.cpus is None else self.cpus,
            gpus=float(device == "gpu") if self.gpus is None else self.gpus,
        )
        assert held.cpus is not None, "cpus were filled in"
        assert held.gpus is not None, "gpus were filled in"
        if device == "cpu" and held.gpus > 0:
            raise ValueError(
                f"gpus = {held.gpus:g} under a budget of CPU time: give the budget in GPU time, or no gpus"
            )
        if (held.gpus if device == "gpu" else held.cpus) == 0:
            raise ValueError(f"{device}s = 0 under a budget of {device.upper()} time: a trial must hold some of it")
        if held.gpus > 1 and held.gpus != int(held.gpus):
            raise ValueError(f"gpus = {held.gpus:g}: above 1 only whole GPUs can be held")
        return held


class SweepConfig(BaseModel):
    """All that a sweep is told (keys of a YAML file, or keyword arguments).

    Attributes:
        budget: Device-time for all of it, as in "1.5 gpu-days" or "20 cpu-minutes".
        data: What to search on: a name, a path, or a mapping of DataSettings.
        search: SearchSettings, each fixed or tuned as :meth:`SearchSpace.parse` says.
        method: "nasib": NASIB searches; "random-search": trainings of random architectures, in their place.
        points: Partial points that searches try first. None: the paper's k = 0.1, if k is tuned, and a lambda from
            mid-range.
        searches: How many full searches the budget is to buy; if all is fixed or grids, no more than there are to try.
        sampler: How tuned settings are drawn: "tpe" learns from the searches so far, "random" does not.
        allocator: Which search gets the next slice: "async-halving" or "equal-share".
        finalists: How many of the found networks are trained side by side at the end, to select one; 0: none.
        selection_share: Of the budget, for these trainings.
        rungs: Shares of the horizon at which searches are compared.
        eta: One in ``eta`` goes on at a rung.
        continue_at_once: Whether a search that is the best at its rung so far goes on at once.
        retrain: How found networks are trained from scratch; may be told when that is asked for.
        trial: What one trial holds. None: one device of the budget's kind.
        max_concurrent: The most trials at once, and how many a cluster that adds nodes by itself is asked to make room
            for. None: as many as there is room for, and it is asked for one.
        device_rates: Device-seconds that a second of a device counts, by its accelerator type, as Ray names it, as in
            {A100: 1.0, T4: 0.25}; 1.0 for what is not named.
        max_storage: What all checkpoints may take, as in "20 GB"; in bytes. None: no bound.
        deadline: When everything must be saved and no device held any more; a duration, as in "12 h", counts from the
            moment when the configuration is made. None: there is none.
        seed: Of everything: suggestions, splits, and each trial's own seed.
        storage: The folder, or the URI, under which results are kept.
        name: Of the sweep: its folder in ``storage``. None: a new one is made.
        price_per_hour: Money for one hour of one device.

    Raises:
        ValueError: With one line for each problem.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    budget: Annotated[InstanceOf[Budget], BeforeValidator(_budget), PlainSerializer(_budget_text)] | None = None
    data: Annotated[DataSettings, BeforeValidator(_data)] = DataSettings()
    search: Annotated[InstanceOf[SearchSpace], BeforeValidator(_search), PlainSerializer(SearchSpace.plain)] = Field(
        default_factory=lambda: SearchSpace.parse({})
    )
    method: Literal["nasib", "random-search"] = "nasib"
    points: tuple[dict[str, Any], ...] = cast(Any, None)
    searches: Count = 8
    sampler: Literal["tpe", "random"] = "tpe"
    allocator: Literal["async-halving", "equal-share"] = "async-halving"
    finalists: Annotated[int, Field(ge=0, strict=True)] = 4
    selection_share: Share = 0.1
    rungs: tuple[Share, ...] = (0.25, 0.5)
    eta: Annotated[int, Field(ge=2, strict=True)] = 3
    continue_at_once: Annotated[bool, Field(strict=True)] = True
    retrain: RetrainSettings = RetrainSettings()
    trial: TrialResources = TrialResources()
    max_concurrent: Count | None = None
    device_rates: dict[str, Rate] = Field(default_factory=dict)
    max_storage: Annotated[int | None, BeforeValidator(_size)] = None
    deadline: Annotated[datetime | None, BeforeValidator(_deadline)] = None
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    storage: Text = DEFAULT_STORAGE
    name: Text | None = None
    price_per_hour: Amount | None = None

    def __init__(self, /, **values: Any) -> None:
        known, problems = _known_keys(), list[str]()
        kept: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known[""]:
                problems.append(unknown_key("", key, known))
            elif key in SECTIONS and isinstance(value, Mapping):
                problems += [unknown_key(key, str(inner), known) for inner in value if inner not in known[key]]
                kept[key] = {inner: value[inner] for inner in value if inner in known[key]}
            elif key not in SECTIONS or value is not None:  # A section may stand empty in a file.
                kept[key] = value
        try:
            super().__init__(**kept)
        except ValidationError as error:
            raise Problems("\n".join([*problems, *problems_of(error, SweepConfig, kept)])) from error
        if problems:
            raise Problems("\n".join(problems))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = (), **values: Any
    ) -> SweepConfig:
        """A configuration from a file, with keyword arguments over it, and ``key=value`` texts over these.

        Args:
            path: A YAML file. None: everything is at its default, or given otherwise.
            overrides: Texts such as "searches=4" and "search.channels=8"; the value is YAML.
            **values: Keys of a configuration. The keys of a section are put beside those of the file.

        Raises:
            ValueError: If the file or a text cannot be read; else with one line for each problem.
        """
        read = {} if path is None else read_config_file(path)
        return cls(**with_overrides(with_values(read, values), overrides))

    @field_validator("data")
    @classmethod
    def _anchor_paths(cls, data: DataSettings) -> DataSettings:
        # Trials work in folders of their own, where a relative path would lead elsewhere.
        places = {"name": data.name if _is_relative_path(data.name) else None, "root": data.root, "cache": data.cache}
        given = {key: Path(place) for key, place in places.items() if place and not place.startswith("~")}
        return data.model_copy(update={key: str(place.absolute()) for key, place in given.items()})

    @field_validator("points", mode="before")
    @classmethod
    def _check_points(cls, points: Any, info: ValidationInfo) -> Any:
        search: SearchSpace | None = info.data.get("search")
        if search is None:
            return ()
        if points is None:
            return search.default_points()
        if not isinstance(points, (list, tuple)):
            raise Problems(wrong_value("points", points, "a list of points, such as [{k: 0.1}, {k: 0.2}]"))
        checked, problems = [], []
        for place, point in enumerate(points):
            try:
                checked.append(search.check_point(f"points[{place}]", point))
            except Problems as problem:
                problems.append(str(problem))
        if problems:
            raise Problems("\n".join(problems))
        return checked

    @field_validator("trial")
    @classmethod
    def _check_trial(cls, trial: TrialResources, info: ValidationInfo) -> TrialResources:
        if budget := info.data.get("budget"):
            trial.under(budget.device)
        return trial

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (name.startswith(".") or "/" in name or "\\" in name):
            raise ValueError(f"{name!r} cannot name a folder: no slashes, and no dot in front; folders go in `storage`")
        return name

    @property
    def resources(self) -> TrialResources:
        """What one trial holds, with cpus and gpus filled in.

        Raises:
            ValueError: If no budget was given, which decides it.
        """
        if self.budget is None:
            raise Problems('there is no budget: give one, such as "1.5 gpu-days" or "20 cpu-minutes"')
        return self.trial.under(self.budget.device)

    @property
    def full_searches(self) -> int:
        """``searches``, or as many as there are to try: shares for searches that cannot come would stay unspent."""
        if self.search.size is None or self.method == "random-search":
            return self.searches
        return min(self.searches, len(self.points) + self.search.size)

    @property
    def storage_path(self) -> str:
        """``storage`` as Tune takes it: a URI as it is, a local folder absolute."""
        return self.storage if is_uri(self.storage) else str(Path(self.storage).expanduser().absolute())

    def to_plain(self) -> dict[str, Any]:
        """All keys as JSON can hold them; ``SweepConfig(**plain)`` is the same configuration again."""
        return self.model_dump(mode="json")

    def told_anew(self, begun: SweepConfig) -> list[str]:
        """The keys in which this one tells a later run otherwise than an earlier configuration of the same sweep."""
        return [key for key in _OF_A_RUN if getattr(self, key) != getattr(begun, key)]

    def continuing(self, begun: SweepConfig) -> SweepConfig:
        """The configuration that a sweep was begun with, with what this one may tell its later runs.

        Args:
            begun: That one, which differs in nothing else.
        """
        return begun.model_copy(update={key: getattr(self, key) for key in _OF_A_RUN})

    def same_sweep(self, other: SweepConfig) -> list[str]:
        """The dotted keys in which another configuration is another sweep; empty if a sweep may go on with it."""
        device = next((config.budget.device for config in (self, other) if config.budget), None)
        mine, theirs = self._compared(device), other._compared(device)
        return [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]

    def _compared(self, device: Device | None) -> dict[str, Any]:
        plain = {**self.to_plain(), "searches": self.full_searches}
        if self.budget is not None:
            device = self.budget.device
        if device is not None:
            plain["trial"] = self.trial.under(device).model_dump()
        flat: dict[str, Any] = {}
        for key, value in plain.items():
            if key in _CHANGEABLE:
                continue
            if key in SECTIONS:
                flat.update({f"{key}.{inner}": content for inner, content in value.items()})
            else:
                flat[key] = value
        return flat


def is_uri(place: str) -> bool:
    """Whether a place is a URI, such as s3://bucket/folder, and no local path."""
    return _URI.match(place) is not None


@cache
def _known_keys() -> dict[str, tuple[str, ...]]:
    """The keys of every section; those of the top level under the empty name."""
    sections: dict[str, type[BaseModel]] = {
        "search": SearchSettings,
        "data": DataSettings,
        "retrain": RetrainSettings,
        "trial": TrialResources,
    }
    return {"": keys_of(SweepConfig), **{name: keys_of(model) for name, model in sections.items()}}


def _is_relative_path(name: str) -> bool:
    """Whether data.name is a path that trials could not find from their own folders."""
    path = Path(name)
    if path.is_absolute() or not path.exists():
        return False
    if len(path.parts) == 1:
        # A word: a built-in set goes before a folder of its name.
        return name not in BUILTIN_NAMES
    return True
