"""Quantities and units of device-time: "1.5 gpu-days" -> 129,600 device-seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

Device = Literal["gpu", "cpu"]

_SECONDS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}
_QUANTITY = re.compile(r"\s*(?P<number>.*?)\s*(?P<device>gpu|cpu)-(?P<unit>[a-z]+?)s?\s*", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan", re.IGNORECASE | re.ASCII)
_RULE = 'a budget is a positive number and a unit, such as "1.5 gpu-days", "36 gpu-hours" or "20 cpu-minutes"'


@dataclass(frozen=True)
class Budget:
    """An amount of device-time to spend: one device-second is one device of the kind held for one second.

    ``str(budget)`` is text that :meth:`parse` turns into the same budget, exactly.

    Attributes:
        device_seconds: The amount, finite and above 0.
        device: The device that is counted.

    Raises:
        ValueError: If the amount is not finite and above 0, or there is no such device.
    """

    device_seconds: float
    device: Device

    def __post_init__(self) -> None:
        if self.device not in ("gpu", "cpu"):
            raise ValueError(f"Unknown device {self.device!r}: a budget counts 'gpu' or 'cpu'.")
        if not (math.isfinite(self.device_seconds) and self.device_seconds > 0):
            raise ValueError(f"A budget of {self.device_seconds} device-seconds buys nothing: {_RULE}.")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget as people write it.

        Args:
            text: A decimal number, "gpu-" or "cpu-", and days, hours, minutes or seconds, in the plural or the
                singular, in capitals or not, with or without a space between ("36 gpu-hours", "1.5GPU-days").

        Raises:
            ValueError: If the text is anything else, or the number is not finite and above 0.
        """
        quantity = _QUANTITY.fullmatch(f"{text}")
        if quantity is None:
            raise ValueError(f"{text!r} has no unit of device-time: {_RULE}.")
        number, unit = quantity["number"], quantity["unit"].lower()
        if unit not in _SECONDS:
            raise ValueError(f"{text!r} has the unknown unit {unit!r} (there are {', '.join(_SECONDS)}): {_RULE}.")
        if not _NUMBER.fullmatch(number):
            raise ValueError(f"{text!r} has {repr(number) if number else 'nothing'} for a number: {_RULE}.")
        device_seconds = float(number) * _SECONDS[unit]
        if not (math.isfinite(device_seconds) and device_seconds > 0):
            raise ValueError(f"{text!r} buys nothing: {_RULE}.")
        return cls(device_seconds, cast(Device, quantity["device"].lower()))

    def devices_of(self, needs: Mapping[str, float]) -> float:
        """How many of the budget's devices a trial holds.

        Args:
            needs: All that it holds, by Ray's resource names.

        Raises:
            ValueError: If that is none, or GPUs under a budget of CPU time.
        """
        devices = needs.get(self.device.upper(), 0.0)
        if self.device == "cpu" and needs.get("GPU", 0.0) > 0:
            raise ValueError(f"the budget is {self}, but a trial holds GPUs: give the budget in gpu-... units")
        if devices <= 0:
            raise ValueError(f"the budget is {self}, but a trial holds no {self.device}; it holds {dict(needs)}")
        return devices

    def __str__(self) -> str:
        seconds = float(self.device_seconds)
        for unit, size in _SECONDS.items():
            number = round(seconds / size, 4)
            # A number with a long tail of decimals is shown in a smaller unit; seconds are always exact.
            if number >= 1 and number * size == seconds:
                return f"{_shortest(number)} {self.device}-{unit}s"
        return f"{_shortest(seconds)} {self.device}-seconds"


def _shortest(number: float) -> str:
    return repr(number).removesuffix(".0")


def format_device_seconds(device_seconds: float, device: Device) -> str:
    """Device-time for people to read, rounded: in the largest unit of which there is at least one, "3.0 cpu-minutes".

    Args:
        device_seconds: Any amount; negative ones (a budget overdrawn) keep their sign.
        device: The device that is counted.
    """
    for unit, size in _SECONDS.items():
        if abs(device_seconds) >= size:
            return f"{device_seconds / size:.1f} {device}-{unit}s"
    return f"{device_seconds:.1f} {device}-seconds"
