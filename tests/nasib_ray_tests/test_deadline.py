from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from nasib_ray.config import SweepConfig
from nasib_ray.deadline import check_ahead, format_deadline, parse_deadline
from nasib_ray.plan import Measured, Plan, make_plan

NOW = datetime(2030, 6, 1, 12, 0, 0, 500_000, timezone(timedelta(hours=2)))


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    """Local time is that of a zone with a summer time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()
    assert os.environ.get("TZ") != "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2030-12-01T08:00", "2030-12-01T07:00"),
        ("2030-07-01 08:00:30", "2030-07-01T06:00:30"),
        ("2030-12-01 08:00+05:30", "2030-12-01T02:30"),
        ("2030-12-01T08:00Z", "2030-12-01T08:00"),
        (datetime(2030, 12, 1, 8), "2030-12-01T07:00"),
        (datetime(2030, 12, 1, 8, tzinfo=timezone.utc), "2030-12-01T08:00"),
        ("2020-01-01 00:00", "2019-12-31T23:00"),
        ("90 minutes", "2030-06-01T11:30:00.5"),
        ("12 h", "2030-06-01T22:00:00.5"),
        ("1.5days", "2030-06-02T22:00:00.5"),
        ("45 s", "2030-06-01T10:00:45.5"),
        ("1 Hour", "2030-06-01T11:00:00.5"),
    ],
)
def test_deadlines_are_read(written: Any, utc: str) -> None:
    read = parse_deadline(written, NOW)
    assert read.utcoffset() is not None
    assert read == datetime.fromisoformat(f"{utc}00000" if utc.endswith(".5") else utc).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "written", ["2030-12-01", "soon", "", "8:00", 750, 3.5, True, "12 parsecs", "9e9 h", "1e999 d"]
)
def test_what_is_no_deadline_is_refused_with_the_rule(written: Any) -> None:
    with pytest.raises(ValueError, match="a deadline is a date and time") as caught:
        parse_deadline(written, NOW)
    assert str(written) in str(caught.value)


def test_one_beyond_all_calendars_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond all calendars"):
        parse_deadline("9999999999999 days", NOW)


def test_one_that_has_passed_is_refused() -> None:
    check_ahead(None, NOW)
    check_ahead(NOW + timedelta(seconds=1), NOW)
    with pytest.raises(ValueError, match=r"2030-06-01 12:00:00\+02:00 has passed.*give a later one"):
        check_ahead(NOW, NOW)
    assert format_deadline(datetime(2030, 12, 1, 7, tzinfo=timezone.utc)) == "2030-12-01 08:00:00+01:00"


def test_a_plan_has_what_can_be_spent_before_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(10.0, 1.0, 1.0, 1_000_000, 0.1, None, 10**8, 10**6, 10_000, "a CPU")
    monkeypatch.setattr("nasib_ray.plan.measure", lambda *_: (2, measured))

    def planned(deadline: str | None) -> Plan:
        return make_plan(SweepConfig(data="digits", budget="10 cpu-hours", deadline=deadline))

    free, bound = planned(None), planned("30 minutes")
    assert free.usable == 36_000
    assert bound.usable == pytest.approx(2 * 1800, abs=30), "two slots until then"
    assert bound.horizon < free.horizon / 5
    assert bound.wall_seconds[0] <= 1800
    late = planned("50 h")
    assert (late.horizon, late.usable, late.deadline) == (free.horizon, free.usable, None)
