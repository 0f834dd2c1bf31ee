"""How a sweep is shown on a terminal: its trials, its incumbent, its budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, OverflowMethod, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from nasib_ray.status import WITHOUT_LIMIT, SelectedStatus, SweepStatus, TrialStatus, single_values
from schedulers.sizes import format_size

LABEL_WIDTH = 13
"""Characters before what a label is about."""

STATE_STYLES = {
    "running": "green",
    "paused": "",
    "not resumable": "dim",
    "finished": "cyan",
    "failed": "red",
    "interrupted": "yellow",
}

_WIDE = 100
_LONGEST_METRIC = 10
_NOTHING = 1e-3
_GAP = (0, 1, 0, 0)
_ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_UNITS = (("day", "d", 86_400), ("hour", "h", 3_600), ("minute", "min", 60), ("second", "s", 1))
_KINDS = {
    "setup": "starting, loading, restoring",
    "train": "epochs",
    "checkpoint": "saving",
    "idle": "processes kept ready",
    "lost": "crashed before the next checkpoint",
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
        head: What separates a table from its head.
        steps: Heights, the lowest first.
    """

    lambda_: str = "λ"
    plus_minus: str = "±"
    bar: str = "█▒─"
    overflow: OverflowMethod = "ellipsis"
    head: box.Box = box.SIMPLE_HEAD
    steps: str = "▁▂▃▄▅▆▇█"

    @classmethod
    def of(cls, console: Console) -> Signs:
        """The signs that a console can show."""
        return cls("lambda", "+/-", "#=-", "crop", _ASCII_HEAD, "_.:-=+*#") if console.options.ascii_only else cls()

    def named(self, setting: str) -> str:
        """What a setting is called."""
        return self.lambda_ if setting == "lambda" else setting


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
    """The best searches and all that are running, the best one first.

    Args:
        status: The sweep.
        signs: What the console can show.
        width: Its width in characters.
        best: How many of the best trials are shown.
    """
    ranked = [trial for trial in _ranked(status) if trial["kind"] == "search"]
    shown = [trial for rank, trial in enumerate(ranked) if rank < best or trial["state"] == "running"]
    wide = width >= _WIDE
    settings = telling_settings(status)[: 5 if wide else 2]
    annealed = ["p"] if wide and any(trial["p"] is not None for trial in ranked) else []
    table = bare_table(signs)
    for name in ("trial", "state"):
        table.add_column(name, no_wrap=True, overflow=signs.overflow)
    for name in (*map(signs.named, settings), "epochs", *annealed, _metric_label(status), "best", "spent"):
        table.add_column(name, justify="right", no_wrap=True, overflow=signs.overflow)
    for trial in shown:
        values = single_values(trial["config"])
        horizon = trial["horizon"] or status["full_horizon"]
        table.add_row(
            Text(trial["id"]),
            Text(trial["state"], STATE_STYLES[trial["state"]]),
            *(Text(short_value(values.get(name))) for name in settings),
            f"{trial['epochs']}/{horizon}" if horizon else f"{trial['epochs']}",
            *(short_value(trial["p"]) for _ in annealed),
            metric_value(status["metric"], trial["value"]),
            metric_value(status["metric"], trial["best_value"]),
            _short_time(trial["spent_device_seconds"]),
        )
    if len(shown) < len(ranked):
        table.caption = Text(f"and {len(ranked) - len(shown)} more", "dim")
        table.caption_justify = "left"
    return table


def incumbent_facts(status: SweepStatus, signs: Signs, whole: bool) -> Table:
    """Who the incumbent is and what it has found; its value is a maximum over many looks, and labelled so.

    Args:
        status: The sweep.
        signs: What the console can show.
        whole: Whether a long architecture is shown in full, over several lines.
    """
    facts = Table.grid(padding=0)
    facts.add_column(width=LABEL_WIDTH, min_width=LABEL_WIDTH, overflow=signs.overflow, style="bold")
    facts.add_column(overflow="fold" if whole else signs.overflow, no_wrap=not whole)
    incumbent = status["incumbent"]
    if incumbent is None:
        return facts
    after = f" after {count(incumbent['epochs'], 'epoch')}" if incumbent["epochs"] else ""
    facts.add_row("incumbent", Text(f"trial {incumbent['trial']}{after}"))
    value, looks = incumbent_value(status, signs), count(incumbent["looks"], "look")
    label = _metric_label(status)
    name = f"{status['metric']} " if label == "value" else ""
    # Of a search, or of a training in its place: a stranger's Trainable may have a metric of that name, too.
    measured = incumbent["config"].get("objective") or incumbent["config"].get("ranked_by")
    measured = measured if status["metric"] == "objective" else None
    looks += f"; {measured}" if measured is not None else ""
    facts.add_row(label, Text.assemble(name, (value, "bold cyan"), f" (selected, optimistic: the best of {looks})"))
    facts.add_row("settings", Text(described_settings(incumbent["config"], telling_settings(status), signs)))
    accuracy = incumbent["val_accuracy"]
    if measured is not None and accuracy is not None:
        how = "trained from scratch" if "ranked_by" in incumbent["config"] else "with shared weights"
        facts.add_row("accuracy", Text(f"{accuracy_text(accuracy, incumbent['val_accuracy_stderr'], signs)} {how}"))
    if incumbent["architecture"]:
        facts.add_row("architecture", Text(", ".join(incumbent["architecture"])))
    return facts


def finalists_table(status: SweepStatus, signs: Signs) -> Table:
    """The networks that are trained side by side to select one, the best one first.

    Args:
        status: The sweep.
        signs: What the console can show.
    """
    table = bare_table(signs)
    for name in ("trained", "state", "found by"):
        table.add_column(name, no_wrap=True, overflow=signs.overflow)
    for name in ("epochs", _metric_label(status), "accuracy", "spent"):
        table.add_column(name, justify="right", no_wrap=True, overflow=signs.overflow)
    finalists = [trial for trial in status["trials"] if trial["kind"] == "select"]
    unranked = -math.inf
    for trial in sorted(finalists, key=lambda trial: unranked if trial["value"] is None else trial["value"])[::-1]:
        table.add_row(
            Text(trial["id"]),
            Text(trial["state"], STATE_STYLES[trial["state"]]),
            Text(trial["config"]["name"]),
            f"{trial['epochs']}/{trial['horizon']}" if trial["horizon"] else f"{trial['epochs']}",
            metric_value(status["metric"], trial["value"]),
            metric_value("val_accuracy", trial["val_accuracy"]),
            _short_time(trial["spent_device_seconds"]),
        )
    return table


def selected_facts(selected: SelectedStatus, signs: Signs) -> Table:
    """The network that the selection chose."""
    facts = Table.grid(padding=0)
    facts.add_column(width=LABEL_WIDTH, min_width=LABEL_WIDTH, overflow=signs.overflow, style="bold")
    facts.add_column(overflow="fold")
    value = accuracy_text(selected["val_accuracy"], selected["val_accuracy_stderr"], signs)
    trained = f"from scratch, {count(selected['epochs'], 'epoch')}"
    facts.add_row("selected", Text(f"found by trial {selected['found_by']}; trained {trained}"))
    among = count(selected["finalists"], "network")
    chosen = f" (optimistic: selected by {selected['selected_by']} among {among})"
    facts.add_row("accuracy", Text.assemble((value, "bold cyan"), chosen))
    facts.add_row("architecture", Text(", ".join(selected["architecture"])))
    return facts


def account_table(status: SweepStatus, signs: Signs) -> Table:
    """The budget's account: what was held by kind, what is granted, what is left."""
    budget, granted = status["budget_device_seconds"], status["granted_device_seconds"]
    # What is left of a kind by rounding is nothing.
    kinds = [(kind, held, _KINDS[kind]) for kind, held in status["spent_by_kind"].items() if abs(held) > _NOTHING]
    sums = [("spent", status["spent_device_seconds"], "")]
    sums += [("granted", granted, "promised to running trials")] if granted and budget < WITHOUT_LIMIT else []
    sums += [("left", status["left_device_seconds"], "")] if budget < WITHOUT_LIMIT else []
    table = bare_table(signs)
    table.add_column("account", no_wrap=True, overflow=signs.overflow, min_width=LABEL_WIDTH - 1)
    # What is cut where there is no room is the last column.
    for name in (f"{status['device'] or 'device'}-seconds", "share"):
        table.add_column(
            name, justify="right", no_wrap=True, min_width=max(map(len, (name, f"{budget:,.1f}", "100.0 %")))
        )
    table.add_column(no_wrap=True, overflow=signs.overflow, style="dim")
    whole = status["spent_device_seconds"] if budget >= WITHOUT_LIMIT else budget
    for part in (kinds, sums):
        for name, amount, meaning in part:
            share = f"{100 * amount / whole:.1f} %" if whole else ""
            table.add_row(name, f"{amount:,.1f}", share, meaning)
        table.add_section()
    if budget >= WITHOUT_LIMIT:
        table.add_row("budget", "without", "a limit", style="bold")
    else:
        table.add_row("budget", f"{budget:,.1f}", "100.0 %", style="bold")
    return table


def at_edges(left: Text, right: Text, signs: Signs) -> Table:
    """Two texts on one line, at the left and at the right edge; the left one is cut if they do not fit."""
    line = Table.grid(expand=True, padding=0)
    line.add_column(ratio=1, no_wrap=True, overflow=signs.overflow)
    line.add_column(justify="right", no_wrap=True, overflow=signs.overflow)
    line.add_row(left, right)
    return line


def budget_line(status: SweepStatus) -> str:
    """How much of the budget is spent, granted and left."""
    budget, device = status["budget_device_seconds"], status["device"] or "device"
    unit, _, size = next((unit for unit in _UNITS if budget >= 2 * unit[2]), _UNITS[-1])
    if budget >= WITHOUT_LIMIT:
        return f"{_short_time(status['spent_device_seconds'])} of {device}-time spent, without a limit"
    spent, granted, left = (
        f"{status[part] / size:,.2f}"
        for part in ("spent_device_seconds", "granted_device_seconds", "left_device_seconds")
    )
    return f"{spent} of {budget / size:,.2f} {device}-{unit}s spent, {granted} granted, {left} left"


def storage_line(status: SweepStatus) -> str:
    """What checkpoints take, and may take."""
    bound = status["max_storage_bytes"]
    rest = "" if bound is None else f" of the {format_size(bound)} that they may take"
    return f"{format_size(status['stored_bytes'])} of checkpoints{rest}"


def memory_line(status: SweepStatus) -> str | None:
    """The most memory that a trial needed; None if none has told."""
    told = [(trial["memory_bytes"], trial["step_memory_bytes"]) for trial in status["trials"] if trial["memory_bytes"]]
    if not told:
        return None
    most, of_a_step = max((whole or 0, step or 0) for whole, step in told)
    return f"{format_size(most)} a trial at most, {format_size(of_a_step)} of it for a batch"


def states_line(status: SweepStatus, slots: int | None = None) -> str:
    """How many trials are in which state; of those that run, how many could, if that is known."""
    states: Counter[str] = Counter(trial["state"] for trial in status["trials"])
    counts = {name: f"{states[name]}" for name in STATE_STYLES if name in states}
    if slots is not None:
        counts = {**counts, "running": f"{states['running']}/{slots}"}
    return ", ".join(f"{counts[name]} {name}" for name in STATE_STYLES if name in counts) or "no trial yet"


def incumbent_value(status: SweepStatus, signs: Signs) -> str:
    """The incumbent's value, with its standard error if it has one."""
    incumbent = status["incumbent"]
    assert incumbent is not None, "there is no incumbent before the first ranked report"
    error = incumbent["val_accuracy_stderr"] if status["metric"] == "val_accuracy" else None
    return metric_value(status["metric"], incumbent["value"]) + (
        f" {signs.plus_minus} {error:.3f}" if error is not None else ""
    )


def telling_settings(status: SweepStatus) -> list[str]:
    """The settings that tell trials apart: k and lambda, then the others that differ; of trainings name and seed."""
    configs = [single_values(trial["config"]) for trial in status["trials"] if trial["kind"] == "search"]
    if any("name" in config for config in configs):
        return ["name", "seed"]
    names = list(dict.fromkeys(name for config in configs for name in config if name != "seed"))
    differ = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    return list(dict.fromkeys([name for name in ("k", "lambda") if name in names] + differ))


def described_settings(config: Mapping[str, Any], names: Sequence[str], signs: Signs) -> str:
    """The settings of these names; the first few if there are none of them."""
    settings = single_values(config)
    known = [name for name in names if name in settings] or list(settings)
    return ", ".join(f"{signs.named(name)} {short_value(settings[name])}" for name in known[:8]) or "none"


def metric_value(name: str | None, value: float | None) -> str:
    """A value of the ranked metric, with the digits that mean something; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if name == "val_accuracy" else f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bare_table(signs: Signs) -> Table:
    """An empty table as all are here: a line under its head, no frame."""
    return Table(box=signs.head, show_edge=False, pad_edge=False, padding=_GAP, header_style="bold")


def accuracy_text(accuracy: float, error: float | None, signs: Signs) -> str:
    """An accuracy with its standard error, if it is known."""
    return f"{accuracy:.3f}" + ("" if error is None else f" {signs.plus_minus} {error:.3f}")


def _metric_label(status: SweepStatus) -> str:
    name = status["metric"] or "value"
    return "accuracy" if name == "val_accuracy" else name if len(name) <= _LONGEST_METRIC else "value"


def _ranked(status: SweepStatus) -> list[TrialStatus]:
    """All trials, the best one first; those without a value in the order in which they were made, at the end."""
    sign = -1.0 if status["mode"] == "max" else 1.0

    def rank(trial: TrialStatus) -> tuple[bool, float, int]:
        best = trial["best_value"]
        return best is None, 0.0 if best is None else sign * best, trial["index"]

    return sorted(status["trials"], key=rank)


def short_value(value: Any) -> str:
    """A value for people: decimal numbers to three digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short_time(seconds: float) -> str:
    _, unit, size = next((unit for unit in _UNITS if seconds >= 2 * unit[2]), _UNITS[-1])
    return f"{seconds / size:.1f} {unit}"
