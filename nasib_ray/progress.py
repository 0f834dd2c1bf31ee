"""What a sweep tells while it runs, and at its end."""

from __future__ import annotations

import math
import shlex
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.text import Text

from nasib_ray.results import Sweep
from nasib_ray.status import WITHOUT_LIMIT, LostCheckpointStatus, SweepStatus, lost_status, sweep_status
from nasib_ray.tables import (
    LABEL_WIDTH,
    STATE_STYLES,
    BudgetBar,
    Signs,
    account_table,
    at_edges,
    budget_line,
    count,
    described_settings,
    finalists_table,
    incumbent_facts,
    incumbent_value,
    memory_line,
    metric_value,
    selected_facts,
    states_line,
    storage_line,
    telling_settings,
    trials_table,
)
from schedulers.clock import Clock, WallClock
from schedulers.search_record import SearchRecord
from schedulers.sweep_state import SweepState

LINE_SECONDS = 10.0
"""Without a terminal, a line at least so often."""

_REFRESH_SECONDS = 0.25
_RATE_SECONDS = 60.0
_SURE_SECONDS = 5.0
_BEST_SHOWN = 8
_BEST_REPORTED = 20
_ERRORS_REPORTED = 3
_LINES_BESIDE_TRIALS = 13
_LINES_OF_SELECTION = 6
_LIKE_HORIZONS = math.log(1.2)


class Progress:
    """Shows a sweep while it runs: a live table on a terminal, plain lines elsewhere.

    Whoever drives the sweep calls :meth:`update`, as often as it likes; nothing is shown between two calls.

    Args:
        console: Where to. While the live table is up, ``print`` and this console write above it.
        name: The sweep's name.
        clock: Tells the time.
        choosing: Whether the best trial is of interest.
        earlier_horizons: The horizons of earlier sweeps that the first points are from, by their paths.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        clock: Clock | None = None,
        choosing: bool = True,
        earlier_horizons: Mapping[str, int] | None = None,
    ) -> None:
        self._console = console
        self._name = name
        self._choosing = choosing
        self._earlier_horizons = dict(earlier_horizons or {})
        self._clock = clock or WallClock()
        self._signs = Signs.of(console)
        self._live: Live | None = None
        self._began = self._clock.monotonic()
        self._shown: float | None = None
        self._spent: deque[tuple[float, float]] = deque()
        self._known: dict[str, tuple[str, int, int]] | None = None
        self._leader: str | None = None

    def start(self) -> None:
        """Begin to show, before anything is known of the sweep."""
        self._began = self._clock.monotonic()
        if self._console.is_terminal:
            waiting = Spinner("line", Text(f"{self._name}: starting Ray and the first trials", "dim"))
            # Its thread turns the spinner; what update() hands it is never changed behind its back.
            self._live = Live(waiting, console=self._console, transient=True)
            self._live.start(refresh=True)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show how far the data are prepared.

        Args:
            what: What is being done.
            done: How much of it is done, of ``total``.
        """
        if done not in (0, total) and not self._is_time(_REFRESH_SECONDS if self._live else LINE_SECONDS):
            return
        self._shown = self._clock.monotonic()
        text = f"{what}: {done:,} of {total:,}" if total > 1 else what if done == 0 else f"{what}: done"
        if self._live is not None:
            bar = ProgressBar(total=max(total, 1), completed=done)
            self._live.update(Group(Text(f"{self._name}: {text}", "dim"), bar), refresh=True)
        else:
            self._line(text)

    def update(self, state: SweepState, slots: int) -> None:
        """Show how the sweep stands, unless that was done a moment ago; events are told at once.

        Args:
            state: The sweep.
            slots: How many trials can run now.
        """
        self._tell_events(state)
        if not self._is_time(_REFRESH_SECONDS if self._live else LINE_SECONDS):
            return
        now = self._shown = self._clock.monotonic()
        self._spent.append((now, state.ledger.spent))
        while len(self._spent) > 2 and now - self._spent[1][0] >= _RATE_SECONDS:
            self._spent.popleft()
        status = sweep_status(state, alive=True)
        left = self._time_left(state, slots)
        if self._live is not None:
            self._live.update(self._view(status, slots, left), refresh=True)
        else:
            shown = status["incumbent"] and self._choosing
            best = f"best {status['metric']} {incumbent_value(status, self._signs)}" if shown else ""
            told = (budget_line(status), states_line(status, slots), best, left)
            self._line("; ".join(part for part in told if part))

    def stop(self) -> None:
        """Take the live table down; a second call does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _view(self, status: SweepStatus, slots: int, left: str) -> RenderableType:
        width, height = self._console.size
        head = f"{self._name}: {states_line(status, slots)}"
        rows = max(1, min(_BEST_SHOWN, height - _LINES_BESIDE_TRIALS))
        parts: list[RenderableType] = [
            at_edges(Text(head, "bold"), Text(self._elapsed(), "dim"), self._signs),
            BudgetBar(status),
            at_edges(Text(budget_line(status)), Text(left, "dim"), self._signs),
        ]
        if status["incumbent"] and self._choosing:
            parts += [Text(), incumbent_facts(status, self._signs, whole=False)]
        if any(trial["kind"] == "select" for trial in status["trials"]):
            parts += [Text(), finalists_table(status, self._signs)]
            rows = max(1, rows - _LINES_OF_SELECTION)
        if status["trials"]:
            parts += [Text(), trials_table(status, self._signs, width, rows)]
        return Group(*parts)

    def _time_left(self, state: SweepState, slots: int) -> str:
        """How long the budget lasts at the rate of the last minute, in words; empty while nothing runs."""
        if state.ledger.budget >= WITHOUT_LIMIT:
            return ""
        (then, before), (now, spent) = self._spent[0], self._spent[-1]
        if now - then >= _SURE_SECONDS:
            rate = (spent - before) / (now - then)
        else:
            rate = slots * float(state.settings.get("devices_per_trial", 1.0))
        seconds = max(0.0, state.ledger.budget - spent)
        return f"about {_clock_text(seconds / rate)} to go" if rate > 0 else ""

    def _tell_horizons(self, full_horizon: int) -> None:
        """Compare the horizon, once it is planned, with those under which earlier sweeps found the first points."""
        for path, horizon in self._earlier_horizons.items():
            if abs(math.log(horizon / full_horizon)) > _LIKE_HORIZONS:
                here, there = (count(epochs, "epoch") for epochs in (full_horizon, horizon))
                self._line(f"a full search has {here} here, and had {there} in {path}: its k and lambda may fit worse")
        self._earlier_horizons = {}

    def _tell_events(self, state: SweepState) -> None:
        if state.full_horizon is not None:
            self._tell_horizons(state.full_horizon)
        known = self._known
        self._known = {name: (it.state, it.failures, len(it.lost_checkpoints)) for name, it in state.searches.items()}
        leader, self._leader = self._leader, state.incumbent.id if state.incumbent else None
        if known is None:
            known = {}
            if state.runs > 1:  # What a resumed sweep did before is no news.
                leader = self._leader
                for name, it in state.searches.items():
                    known[name] = it.state, it.failures, sum(lost.run < state.runs for lost in it.lost_checkpoints)
        for name, search in state.searches.items():
            before = known.get(name)
            for lost in search.lost_checkpoints[before[2] if before else 0 :]:
                text = lost_text(lost_status(lost), state.settings.get("device"))
                self._line(f"trial {name} goes back to {count(search.epochs, 'epoch')}: {text}")
            if (before or ())[:2] != (search.state, search.failures) and (told := self._news(search, before, state)):
                self._line(told)
        if self._leader not in (None, leader) and self._live is None and self._choosing:
            best = incumbent_value(sweep_status(state, alive=True), self._signs)
            self._line(f"new incumbent: trial {self._leader}, {state.settings.get('metric')} {best}")

    def _news(self, search: SearchRecord, before: tuple[str, int, int] | None, state: SweepState) -> str:
        """What is to be told of a trial that has changed; on a terminal only what the table does not show."""
        epochs = count(search.epochs, "epoch")
        if search.state == "failed":
            return f"trial {search.id} failed after {epochs}: {search.why}"
        if before is not None and search.failures > before[1]:
            return f"trial {search.id} crashed and goes on from {epochs}: {search.why}"
        if self._live is not None:
            return ""
        if before is None and search.kind == "select":
            return f"trial {search.id} begins: trains what trial {search.config['name']} found, to select"
        if before is None:
            names = telling_settings(sweep_status(state, alive=True))
            return f"trial {search.id} begins: {described_settings(search.config, names, self._signs)}"
        if search.state == "not resumable":
            return f"trial {search.id} cannot be resumed any more after {epochs}: {search.why}"
        if search.state == "finished":
            metric = state.settings.get("metric")
            best = f": best {metric} {metric_value(metric, search.best_value)}" if self._choosing else ""
            return f"trial {search.id} finished after {epochs}{best}"
        return ""

    def _is_time(self, seconds: float) -> bool:
        return self._shown is None or self._clock.monotonic() - self._shown >= seconds

    def _line(self, text: str) -> None:
        line = Text(f"[{self._elapsed()}] {text}")
        self._console.print(line, soft_wrap=True)

    def _elapsed(self) -> str:
        return _clock_text(self._clock.monotonic() - self._began)


def final_report(console: Console, state: SweepState, path: str) -> None:
    """Tell how a sweep has ended: its trials, the incumbent, the account, where the results are and what comes next.

    Args:
        console: Where to.
        state: The sweep.
        path: Its folder or URI.
    """
    _report(console, sweep_status(state, alive=False), path)


def status_report(console: Console, sweep: Sweep) -> None:
    """Tell where a sweep stands, whether it runs or has ended."""
    _report(console, sweep.status(), sweep.path)


def _report(console: Console, status: SweepStatus, path: str) -> None:
    signs = Signs.of(console)
    if status["state"] == "running":
        console.print(BudgetBar(status))
        console.print(Text(f"{budget_line(status)}; {states_line(status)}"))
        console.print()
    if status["trials"]:
        console.print(trials_table(status, signs, console.width, _BEST_REPORTED))
        for trial in [trial for trial in status["trials"] if trial["error"]][:_ERRORS_REPORTED]:
            console.print(Text(f"trial {trial['id']} failed: {trial['error']}", "red"))
        for trial in status["trials"]:
            for lost in trial["lost_checkpoints"]:
                console.print(Text(f"trial {trial['id']}: {lost_text(lost, status['device'])}", "yellow"))
        console.print()
    if any(trial["kind"] == "select" for trial in status["trials"]):
        console.print(finalists_table(status, signs))
        console.print()
    if status["incumbent"] and status["chooses"]:
        console.print(incumbent_facts(status, signs, whole=True))
        console.print()
    if status["selected"]:
        console.print(selected_facts(status["selected"], signs))
        console.print()
    console.print(account_table(status, signs))
    console.print()
    _tell(console, "results", path)
    _tell(console, "storage", storage_line(status))
    if (memory := memory_line(status)) is not None:
        _tell(console, "memory", memory)
    if status["state"] == "running" and status["deadline"] is not None:
        _tell(console, "deadline", status["deadline"])
    why = f": {status['why']}" if status["why"] else ""
    _tell(console, "state", f"{status['state']}{why}", STATE_STYLES[status["state"]])
    place = shlex.quote(path)
    match status["state"]:
        case "running":
            _tell(console, "next", f"nasib-ray status {place}")
        case "interrupted":
            again = {"sweep": f"nasib-ray resume {place}", "retrain": "the same nasib-ray retrain again"}
            _tell(console, "next", again.get(status["begun_by"], "its own script again, which goes on with it"))
        case _:
            _tell(console, "next", f"nasib-ray results {place} --csv reports.csv")


def lost_text(lost: LostCheckpointStatus, device: str | None) -> str:
    """What a damaged checkpoint has cost."""
    epochs = count(lost["epochs"], "epoch") if lost["epochs"] else "part of an epoch"
    seconds = f"{lost['device_seconds']:,.1f} {device or 'device'}-seconds"
    return f"its newest checkpoint was damaged, {epochs} and {seconds} are lost ({lost['why']})"


def _tell(console: Console, label: str, text: str, style: str = "") -> None:
    # Never wrapped: what is told here is to be copied.
    console.print(Text.assemble((f"{label:<{LABEL_WIDTH}}", "bold"), (text, style)), soft_wrap=True)


def _clock_text(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
