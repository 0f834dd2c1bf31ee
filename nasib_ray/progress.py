"""What a sweep tells while it runs, and at its end."""

from __future__ import annotations

import shlex
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from nasib_ray.results import Sweep
from nasib_ray.status import SweepStatus, sweep_status
from nasib_ray.tables import (
    STATE_STYLES,
    BudgetBar,
    Signs,
    account_table,
    count,
    incumbent_line,
    ranked_trials,
    short_time,
    trials_table,
)
from schedulers.budget import format_device_seconds
from schedulers.clock import Clock, WallClock
from schedulers.sweep_state import SweepState

LINE_SECONDS = 10.0
"""Without a terminal, a line at least so often."""

_REFRESH_SECONDS = 0.25
_RATE_SECONDS = 60.0
_BEST_SHOWN = 8
_BEST_REPORTED = 20
_ERRORS_SHOWN = 3


class Progress:
    """Shows a sweep while it runs: a live table on a terminal, plain lines elsewhere.

    Prints nothing of its own accord: whoever drives the sweep calls :meth:`update` as often as it likes.

    Args:
        console: Where to. While the live table is up, other output belongs above it, through this console or
            ``print``.
        name: The sweep's name.
        clock: Tells the time.
    """

    def __init__(self, console: Console, name: str, clock: Clock | None = None) -> None:
        self._console = console
        self._name = name
        self._clock = clock or WallClock()
        self._signs = Signs.of(console)
        self._live: Live | None = None
        self._began = self._clock.monotonic()
        self._shown: float | None = None
        self._spent: deque[tuple[float, float]] = deque()
        self._states: dict[str, tuple[str, int]] | None = None
        self._leader: str | None = None
        self._newest: tuple[SweepStatus, int] | None = None

    def start(self) -> None:
        """Begin to show; nothing is known of the sweep yet."""
        self._began = self._clock.monotonic()
        if self._console.is_terminal:
            waiting = Text(f"{self._name}: starting Ray and the first trials")
            # Without a thread that refreshes: it would read what the driver is changing.
            self._live = Live(waiting, console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)

    def update(self, state: SweepState, slots: int) -> None:
        """Show how the sweep stands, unless that was done just now; events are told at once.

        Args:
            state: The sweep.
            slots: How many trials can run now.
        """
        now = self._clock.monotonic()
        self._spent.append((now, state.ledger.spent))
        while len(self._spent) > 2 and now - self._spent[1][0] >= _RATE_SECONDS:
            self._spent.popleft()
        self._tell_events(state)
        wait = _REFRESH_SECONDS if self._live else LINE_SECONDS
        if self._shown is not None and now - self._shown < wait:
            return
        self._shown = now
        status = sweep_status(state, alive=True)
        if self._live is not None:
            self._live.update(self._view(status, state, slots), refresh=True)
        else:
            self._line(self._summary(status, state, slots))

    def stop(self) -> None:
        """Take the live table down; a second call does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None
