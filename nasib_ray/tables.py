"""How a sweep is shown on a terminal: its trials, its incumbent, its budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nasib_ray.status import IncumbentStatus, SweepStatus, TrialStatus, single_values

STATE_STYLES = {"running": "green", "paused": "", "finished": "cyan", "failed": "red", "interrupted": "yellow"}

_WIDE = 100
_KINDS = {
    "setup": "starting, loading, restoring",
    "train": "epochs",
    "checkpoint": "saving",
    "idle": "processes kept ready",
    "lost": "crashed since the last checkpoint",
    "select": "choosing the result",
}


@dataclass(frozen=True)
class Signs:
    """What not every terminal can show.

    Attributes:
        lambda_: The hyperparameter's name.
        plus_minus: What stands before a standard error.
        bar: What a bar is made of: the spent part, the granted part, the rest.
        overflow: What becomes of text that is too long.
    """

    lambda_: str = "λ"
    plus_minus: str = "±"
    bar: str = "█▒─"
    overflow: OverflowMethod = "ellipsis"

    @classmethod
    def of(cls, console: Console) -> Signs:
        """The signs that a console can show."""
        return cls("lambda", "+/-", "#=-", "crop") if console.options.ascii_only else cls()

    def setting(self, name: str) -> str:
        """What a setting is called."""
        return self.lambda_ if name == "lambda" else name


@dataclass(frozen=True)
class BudgetBar:
    """A bar as wide as there is room: the part of a budget that is spent, the part that is granted, the rest."""

    status: SweepStatus

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, budget = options.max_width, self.status["budget_device_seconds"]
        spent = self.status["spent_device_seconds"]
        parts = (spent, spent + self.status["granted_device_seconds"], budget)
        ends = [0, *(round(width * min(1.0, part / budget)) if budget else width for part in parts)]
        styles = ("green", "yellow", "bright_black")
        for sign, style, begin, end in zip(Signs.of(console).bar, styles, ends[:-1], ends[1:], strict=True):
            yield Segment(sign * (end - begin), Style.parse(style))
        yield Segment.line()


def trials_table(status: SweepStatus, signs: Signs, width: int, best: int) -> Table:
    """The best trials and all that are running, the best one first.

    Args:
        status: The sweep.
        signs: What the console can show.
        width: Its width in characters.
        best: How many of the best trials are shown.
    """
    ranked = ranked_trials(status)
    shown = [trial for rank, trial in enumerate(ranked) if rank < best or trial["state"] == "running"]
    settings = _telling_settings(ranked)[: 5 if width >= _WIDE else 2]
    annealed = any(trial["p"] is not None for trial in ranked)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("trial", no_wrap=True, overflow=signs.overflow, ratio=None)
    table.add_column("state", no_wrap=True, overflow=signs.overflow)
    right = [*map(signs.setting, settings), "epochs", *(["p"] if annealed else []), _metric_name(status), "best", "spent"]
    for name in right:
        table.add_column(name, justify="right", no_wrap=True, overflow=signs.overflow)
    for trial in shown:
        values = single_values(trial["config"])
        horizon = trial["horizon"] or status["full_horizon"]
        table.add_row(
            Text(trial["id"]),
            Text(trial["state"], STATE_STYLES[trial["state"]]),
            *(Text(short(values.get(name))) for name in settings),
            f"{trial['epochs']}/{horizon}" if horizon else f"{trial['epochs']}",
            *([short(trial["p"])] if annealed else []),
            metric_value(status["metric"], trial["value"]),
            metric_value(status["metric"], trial["best_value"]),
            short_time(trial["spent_device_seconds"]),
        )
    if len(shown) < len(ranked):
        table.add_row(Text(f"and {len(ranked) - len(shown)} more", "dim"))
    return table


def ranked_trials(status: SweepStatus) -> list[TrialStatus]:
    """All trials, the best one first; those without a value in the order in which they were made, at the end."""
    sign = -1.0 if status["mode"] == "max" else 1.0

    def rank(trial: TrialStatus) -> tuple[bool, float, int]:
        best = trial["best_value"]
        return best is None, 0.0 if best is None else sign * best, trial["index"]

    return sorted(status["trials"], key=rank)


def incumbent_line(incumbent: IncumbentStatus, signs: Signs) -> str:
    """The incumbent's value, with its standard error if it has one, and its settings."""
    name = incumbent["metric"] or "value"
    error = incumbent["val_accuracy_stderr"] if name == "val_accuracy" else None
    spread = "" if error is None else f" {signs.plus_minus} {error:.3f}"
    after = f" after {count(incumbent['epochs'], 'epoch')}" if incumbent["epochs"] else ""
    settings = single_values(incumbent["config"])
    telling = [name for name in ("k", "lambda") if name in settings] or [name for name in settings if name != "seed"]
    described = "".join(f", {signs.setting(name)} {short(settings[name])}" for name in telling[:6])
    return f"{name} {metric_value(name, incumbent['value'])}{spread}{after}{described}"


def account_table(status: SweepStatus, signs: Signs) -> Table:
    """The budget's account: what was held by kind, what is granted, what is left."""
    budget, granted = status["budget_device_seconds"], status["granted_device_seconds"]
    rows = [(kind, amount, _KINDS[kind]) for kind, amount in status["spent_by_kind"].items() if amount]
    sums = [("spent", status["spent_device_seconds"], "all of these")]
    sums += [("granted", granted, "promised to running trials")] if granted else []
    sums += [("left", status["left_device_seconds"], "")]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("budget", no_wrap=True)
    table.add_column(f"{status['device'] or 'device'}-seconds", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("", overflow=signs.overflow, no_wrap=True, style="dim")
    for part in (rows, sums):
        for name, amount, meaning in part:
            share = f"{100 * amount / budget:.1f} %" if budget else ""
            table.add_row(name, f"{amount:,.1f}", share, meaning, end_section=name == part[-1][0])
    table.add_row("budget", f"{budget:,.1f}", "100.0 %", "", style="bold")
    return table


def metric_value(name: str | None, value: float | None) -> str:
    """A value of the ranked metric, with the digits that mean something."""
    if value is None:
        return ""
    return f"{value:.3f}" if name == "val_accuracy" else f"{value:.4g}"


def short(value: Any) -> str:
    """A setting's value in a few characters; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_time(seconds: float) -> str:
    """Seconds for people, in three or four digits."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _metric_name(status: SweepStatus) -> str:
    return "accuracy" if status["metric"] == "val_accuracy" else status["metric"] or "value"


def _telling_settings(trials: Sequence[TrialStatus]) -> list[str]:
    """The settings that tell trials apart: k and lambda, then the others that differ."""
    configs = [single_values(trial["config"]) for trial in trials]
    names = list(dict.fromkeys(name for config in configs for name in config))
    differ = [name for name in names if name != "seed" and len({repr(config.get(name)) for config in configs}) > 1]
    return [name for name in ("k", "lambda") if name in names] + [name for name in differ if name not in ("k", "lambda")]
