from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.budget import Budget, Device, format_device_seconds

amounts = st.floats(min_value=1e-9, max_value=1e15)
devices = st.sampled_from(["gpu", "cpu"])


@pytest.mark.parametrize(
    ("text", "device_seconds", "device"),
    [
        ("1.5 gpu-days", 129_600.0, "gpu"),
        ("36 gpu-hours", 129_600.0, "gpu"),
        ("20 cpu-minutes", 1_200.0, "cpu"),
        ("900 cpu-seconds", 900.0, "cpu"),
        ("1.5gpu-days", 129_600.0, "gpu"),
        ("1 GPU-Day", 86_400.0, "gpu"),
        ("1 cpu-second", 1.0, "cpu"),
        ("  .5   CPU-HOURS ", 1_800.0, "cpu"),
        ("2e3 cpu-seconds", 2_000.0, "cpu"),
        ("+3. cpu-minutes", 180.0, "cpu"),
    ],
)
def test_parse(text: str, device_seconds: float, device: Device) -> None:
    assert Budget.parse(text) == Budget(device_seconds, device)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-1 gpu-days", "buys nothing"),
        ("0 gpu-days", "buys nothing"),
        ("nan gpu-days", "buys nothing"),
        ("inf gpu-days", "buys nothing"),
        ("1e308 gpu-days", "buys nothing"),
        ("gpu-days", "nothing for a number"),
        ("1,5 gpu-days", "'1,5' for a number"),
        ("1_000 gpu-days", "'1_000' for a number"),
        ("1 2 gpu-days", "'1 2' for a number"),
        ("3 gpu-weeks", "unknown unit 'week'"),
        ("3 tpu-days", "no unit"),
        ("3 days", "no unit"),
        ("36", "no unit"),
        ("", "no unit"),
        ("1 gpu-days 2", "no unit"),
    ],
)
def test_parse_refuses(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refusal:
        Budget.parse(text)
    assert repr(text) in str(refusal.value)
    assert '"1.5 gpu-days"' in str(refusal.value)


@pytest.mark.parametrize("device_seconds", [0.0, -1.0, math.nan, math.inf])
def test_amount_is_refused(device_seconds: float) -> None:
    with pytest.raises(ValueError, match="buys nothing"):
        Budget(device_seconds, "gpu")


def test_device_is_refused() -> None:
    with pytest.raises(ValueError, match="'tpu'"):
        Budget(1.0, "tpu")  # type: ignore[arg-type]


@given(amounts, devices)
def test_text_means_the_same_budget(device_seconds: float, device: Device) -> None:
    budget = Budget(device_seconds, device)
    assert Budget.parse(str(budget)) == budget


@given(st.decimals(min_value="0.01", max_value="999", places=2), devices, st.sampled_from(["days", "minutes"]))
def test_a_parsed_budget_keeps_its_value(number: object, device: Device, unit: str) -> None:
    budget = Budget.parse(f"{number} {device}-{unit}")
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["1.5 gpu-days", "7 cpu-hours", "20 cpu-minutes", "59 cpu-seconds", "0.1 gpu-seconds", "100000 gpu-seconds"]
)
def test_text_is_short(text: str) -> None:
    assert str(Budget.parse(text)) == text


@pytest.mark.parametrize(
    ("device_seconds", "text"),
    [
        (180.0, "3.0 cpu-minutes"),
        (129_600.0, "1.5 cpu-days"),
        (3_600.0, "1.0 cpu-hours"),
        (45.04, "45.0 cpu-seconds"),
        (0.0, "0.0 cpu-seconds"),
        (-90.0, "-1.5 cpu-minutes"),
    ],
)
def test_format(device_seconds: float, text: str) -> None:
    assert format_device_seconds(device_seconds, "cpu") == text


@given(amounts, devices)
def test_formatted_text_is_near(device_seconds: float, device: Device) -> None:
    text = format_device_seconds(device_seconds, device)
    if device_seconds >= 1:
        assert Budget.parse(text).device_seconds == pytest.approx(device_seconds, rel=0.051)
