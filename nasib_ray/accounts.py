"""The accounts of a sweep as a table: a row for every record that touches them, with the balances after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasib_ray.status import SweepStatus
from nasib_ray.tables import Signs, account_table, bare_table, count
from schedulers.ledger import KINDS, ROUNDING, Ledger

_EVENTS = ("budget", "grant", "charge", "relabel", "release")
_COLUMNS = {
    "number": "int64",
    "time": "datetime64[ns, UTC]",
    "run": "int64",
    "event": "string",
    "trial": "string",
    "grant": "string",
    "kind": "string",
    "cautious": "bool",
    "amount_device_seconds": "float64",
    "spent_device_seconds": "float64",
    "granted_device_seconds": "float64",
    "free_device_seconds": "float64",
    "device": "string",
}
_TO = " -> "
_WORDS = ("date", "UTC", "event", "trial", "grant", "kind")
_MOST_TRIALS = 20
_UNBOUNDED = 10_000


def accounts_frame(records: Iterable[Mapping[str, Any]], device: str | None) -> pd.DataFrame:
    """Every record that touches the accounts of a sweep as a row, in the order of the journal.

    What is summed over all rows of an event says how the balances came about: budget amounts sum to the budget, those
    of charges to what is spent. Relabels move what was charged from one kind to another, and change no balance.

    Args:
        records: The journal's records, from the start.
        device: What the budget counts, "gpu" or "cpu"; None if that is not known yet.

    Returns:
        Columns: ``number``, the record's in the journal; ``time``, UTC; ``run``, the driver's, from 1; ``event``;
        ``trial``, ``grant`` and ``kind``, missing where the event has none (``train -> lost`` for a relabel);
        ``cautious``, whether a charge was made for what a trial may have held unseen after its driver had died;
        ``amount_device_seconds``: budget, what was added to the budget (below zero if it was lowered); grant, what
        was promised to the trial; charge, what it held; relabel, how much of that is of another kind now; release,
        what was left of a promise and is free again; the balances after the row, also in device-seconds:
        ``spent_device_seconds``, held so far, ``granted_device_seconds``, promised beyond that,
        ``free_device_seconds``, neither (the three sum to the budget; the last is below zero only after a kill that
        came too late); ``device``, as given.
    """
    ledger = Ledger()
    rows = []
    for record in records:
        budget, before = ledger.budget, _balances(ledger)
        ledger.apply(record)
        balances = _balances(ledger)
        event, kind, amount = record["event"], record.get("kind"), float(record.get("amount", 0.0))
        if event not in _EVENTS and balances == before:
            continue
        match event:
            case "budget":
                amount = ledger.budget - budget
            case "relabel":
                kind = f"{record['from']}{_TO}{record['to']}"
        named = (record["number"], record["time"], record["run"], event, record.get("trial"), record.get("grant"))
        rows.append((*named, kind, bool(record.get("unseen", False)), amount, *balances, device))
    frame = pd.DataFrame(rows, columns=[*_COLUMNS])
    times = pd.to_datetime(frame["time"].astype("float64"), unit="s", utc=True)
    return frame.assign(time=times).astype(_COLUMNS)


def _balances(ledger: Ledger) -> tuple[float, float, float]:
    return ledger.spent, float(ledger.granted), ledger.free


def accounts_report(console: Console, frame: pd.DataFrame, status: SweepStatus, last: int) -> None:
    """Print the accounts: by kind, by trial, and the newest rows.

    Args:
        console: Where to.
        frame: What :func:`accounts_frame` gave.
        status: The sweep at the same moment.
        last: How many of the newest rows are printed; 0: all.
    """
    console.print(account_table(status, Signs.of(console)))
    if status["trials"]:
        console.print()
        # Where it is too narrow even so, the terminal breaks the lines: a number cut short would be a wrong one.
        console.print(_trials_table(console, frame, status["budget_device_seconds"]), crop=False)
    console.print()
    console.print(_rows_table(console, frame, last), crop=False)


def _trials_table(console: Console, frame: pd.DataFrame, budget: float) -> Table:
    """What each trial has held, by kind: those that have held most, the others summed up, and all together."""
    trials: dict[str, Counter[str]] = {}
    of_trials = frame[frame["trial"].notna()]
    cells = (of_trials[name] for name in ("trial", "event", "kind", "cautious", "amount_device_seconds"))
    for trial, event, kind, cautious, amount in zip(*cells, strict=True):
        sums = trials.setdefault(trial, Counter())
        match event:
            case "grant":
                sums["grants"] += 1
            case "charge":
                sums.update({kind: amount, "spent": amount, "cautious": amount * cautious})
            case "relabel":
                source, target = kind.split(_TO)
                sums.update({source: -amount, target: amount})
    lines = sorted(trials.items(), key=lambda line: line[1]["spent"], reverse=True)
    shown, others = lines[:_MOST_TRIALS], lines[_MOST_TRIALS:]
    if others:
        shown.append((f"{len(others)} more", _sum(sums for _, sums in others)))
    total = _sum(sums for _, sums in shown)
    shown.append(("all", total))
    amounts = [name for name in (*KINDS, "cautious") if total[name] > ROUNDING]
    columns = {
        "trial": [trial for trial, _ in shown],
        "grants": [f"{sums['grants']:,}" for _, sums in shown],
        **{name: [_number(sums[name], 1) for _, sums in shown] for name in (*amounts, "spent")},
        "share": [f"{100 * sums['spent'] / budget:.1f} %" if budget else "" for _, sums in shown],
    }
    table = _fitting(console, columns, optional=("grants", "share"))
    table.rows[-1].style = "bold"
    if "cautious" in amounts:
        table.caption = Text(
            "cautious: the part of lost that trials may have held unseen when their driver died", "dim"
        )
    return table


def _rows_table(console: Console, frame: pd.DataFrame, last: int) -> Table:
    """The newest rows, the newest one last."""
    shown = frame.tail(last) if last else frame
    columns = {
        "row": [f"{number}" for number in shown["number"]],
        "date": [*shown["time"].dt.strftime("%Y-%m-%d")],
        "UTC": [*shown["time"].dt.strftime("%H:%M:%S")],
        "run": [f"{run}" for run in shown["run"]],
        "event": [*shown["event"]],
        **{name: [*shown[name].fillna("")] for name in ("trial", "grant")},
        "kind": [
            f"{kind} (cautious)" if cautious else kind
            for kind, cautious in zip(shown["kind"].fillna(""), shown["cautious"], strict=True)
        ],
        "amount": [_number(amount, 3) for amount in shown["amount_device_seconds"]],
        **{name: [_number(now, 2) for now in shown[f"{name}_device_seconds"]] for name in ("spent", "granted", "free")},
    }
    table = _fitting(console, columns, optional=("run", "row", "grant", "date"))
    device = frame["device"].iloc[0] if len(frame) and pd.notna(frame["device"].iloc[0]) else "device"
    more = f"; the newest {len(shown):,} of {count(len(frame), 'row')}" if len(shown) < len(frame) else ""
    table.caption = Text(f"in {device}-seconds{more}", "dim")
    return table


def _fitting(console: Console, columns: Mapping[str, Sequence[str]], optional: Sequence[str]) -> Table:
    """A table of columns, of the optional ones without as many of the first as are too many for the console.

    It is as wide as what remains, also if the console is narrower.
    """
    signs, unbounded = Signs.of(console), console.options.update(width=_UNBOUNDED)
    for left_out in range(len(optional) + 1):
        kept = {name: cells for name, cells in columns.items() if name not in optional[:left_out]}
        table = bare_table(signs)
        table.caption_justify = "left"
        for name in kept:
            side: Literal["left", "right"] = "left" if name in _WORDS else "right"
            table.add_column(name, justify=side, no_wrap=True, overflow=signs.overflow)
        for line in zip(*kept.values(), strict=True):
            table.add_row(*map(Text, line))
        table.width = console.measure(table, options=unbounded).maximum
        if table.width <= console.width:
            break
    return table


def _sum(parts: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def _number(amount: float, digits: int) -> str:
    # Zero is added for the sign of what is rounded to zero from below.
    return f"{round(amount, digits) + 0.0:,.{digits}f}"
