"""What a sweep is told: one YAML file, or keyword arguments, checked in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from nasib_ray.problems import Problems, keys_of, problems_of, unknown_key
from nasib_ray.search_space import SearchSpace
from schedulers.budget import Budget, Device
from trainables.candidates import is_import_path
from trainables.settings import DataSettings, SearchSettings

DEFAULT_STORAGE = "~/nasib_ray_results"

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# These may change when a sweep goes on.
_CHANGEABLE = ("budget", "storage", "name", "max_concurrent", "price_per_hour")


def _budget(value: Any) -> Budget:
    return value if isinstance(value, Budget) else Budget.parse(value)


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
            raise ValueError(f"gpus = {held.gpus:g} under a budget of CPU time: give the budget in GPU time, or no gpus")
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
        points: Partial points that are tried first. None: the paper's k = 0.1, if k is tuned.
        searches: How many full searches the budget is to buy.
        sampler: How tuned settings are drawn: "tpe" learns from the searches so far, "random" does not.
        allocator: Which search gets the next slice: "async-halving" or "equal-share".
        rungs: Shares of the horizon at which searches are compared.
        eta: One in ``eta`` goes on at a rung.
        continue_at_once: Whether a search that is the best at its rung so far goes on at once.
        trial: What one trial holds. None: one device of the budget's kind.
        max_concurrent: The most trials at once. None: as many as there is room for.
        seed: Of everything: suggestions, splits, and each trial's own seed.
        storage: The folder, or the URI, under which results are kept.
        name: Of the sweep: its folder in ``storage``. None: a new one is made.
        price_per_hour: Money for one hour of one device.

    Raises:
        ValueError: With one line for each problem.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    budget: Annotated[InstanceOf[Budget], BeforeValidator(_budget), PlainSerializer(str)] | None = None
    data: Annotated[DataSettings, BeforeValidator(_data)] = DataSettings()
    search: Annotated[InstanceOf[SearchSpace], BeforeValidator(_search), PlainSerializer(SearchSpace.plain)] = Field(
        default_factory=lambda: SearchSpace.parse({})
    )
    points: tuple[dict[str, Any], ...] = Field(default=(), validate_default=True)
    searches: Count = 8
    sampler: Literal["tpe", "random"] = "tpe"
    allocator: Literal["async-halving", "equal-share"] = "async-halving"
    rungs: tuple[Share, ...] = (0.25, 0.5)
    eta: Annotated[int, Field(ge=2, strict=True)] = 3
    continue_at_once: Annotated[bool, Field(strict=True)] = True
    trial: TrialResources = TrialResources()
    max_concurrent: Count | None = None
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    storage: Text = DEFAULT_STORAGE
    name: Text | None = None
    price_per_hour: Amount | None = None
