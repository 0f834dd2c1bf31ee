"""What an hour of a device counts, by its type: a budget buys more hours of cheaper devices."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

ACCELERATOR = "accelerator_type:"
"""What the names of those of Ray's resources begin with that tell the type of a node's accelerators."""


@dataclass(frozen=True)
class DeviceRates:
    """Device-seconds that one second of one device counts, by the accelerator type of its node.

    Attributes:
        rates: By Ray's names of the types, as in {"A100": 1.0, "T4": 0.25}; 1.0 for what is not named.

    Raises:
        ValueError: If one is not a number above 0.
    """

    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"device_rates: {name} counts {rate!r}, but must count a number above 0, such as 0.25")

    def check_types(self, known: Collection[str]) -> None:
        """Make sure that there are such accelerator types.

        Raises:
            ValueError: If one is not known; names what it may have meant.
        """
        for name in self.rates:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
                raise ValueError(f"device_rates: {name!r} is no accelerator type of Ray's or of a live node: {meant}")

    @property
    def dearest(self) -> float:
        """The most that any device may count."""
        return max(1.0, *self.rates.values()) if self.rates else 1.0

    def of(self, device: str) -> float:
        """What a device of this type counts; of no type: the empty text."""
        return float(self.rates.get(device, 1.0))


def accelerator_of(resources: Iterable[str]) -> str:
    """The accelerator type of a node by the names of its resources; empty if it tells none."""
    return min((name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)), default="")


@dataclass(frozen=True)
class Prices:
    """Device-seconds that one wall second of a trial costs.

    Attributes:
        dearest: Where it costs most, of the devices that are there.
        mean: Over all slots.
    """

    dearest: float
    mean: float
