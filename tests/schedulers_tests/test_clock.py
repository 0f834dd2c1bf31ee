from __future__ import annotations

import math
import time

import pytest

from schedulers.clock import SimulatedClock, WallClock


def test_wall_clock_is_the_machines() -> None:
    clock = WallClock()
    before = clock.monotonic()
    clock.sleep(0.002)
    assert clock.monotonic() - before >= 0.002
    assert abs(clock.time() - time.time()) < 1.0


def test_simulated_clock_moves_only_when_told() -> None:
    clock = SimulatedClock(unix=1_700_000_000.0)
    assert (clock.monotonic(), clock.time()) == (0.0, 1_700_000_000.0)
    clock.advance(90_000.0)
    clock.sleep(0.5)
    assert (clock.monotonic(), clock.time()) == (90_000.5, 1_700_090_000.5)


@pytest.mark.parametrize("seconds", [-1e-9, math.nan, math.inf])
def test_simulated_clock_never_goes_back(seconds: float) -> None:
    clock = SimulatedClock()
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(seconds)
    assert clock.monotonic() == 0.0
