"""Options that commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

WIDE = 120
"""Characters of a wide table."""

INTERRUPTED = 130
"""The exit status of a sweep that was stopped by a signal, as shells have it."""

UNITS = (
    "Budgets are device-time that all trials together may hold: a number and a unit, such as '1.5 gpu-days', "
    "'36 gpu-hours', '20 cpu-minutes' or '900 cpu-seconds' (the space may be left out). One trial that holds half a "
    "GPU for ten seconds spends five GPU-seconds."
)

ConfigFile = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="The sweep's configuration.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", metavar="BUDGET", help=UNITS)]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="digits, cifar10, cifar100, mnist, fashion-mnist, svhn; a folder of images per class; Parquet files; or "
        "the import path of a function, package.module:function.",
    ),
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", metavar="DIR|URI", help="Where sweeps are kept, as in s3://bucket/sweeps.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="The sweep's folder there; an unfinished one of this name goes on."),
]
MaxStorageOption = Annotated[
    str | None,
    typer.Option(
        "--max-storage",
        metavar="SIZE",
        help="What checkpoints may take, as in '20 GB'; the worst searches lose their weights first. 'none': no bound.",
    ),
]
DeadlineOption = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        help="When everything must be saved and no device held: '2030-12-01 08:00', or '12 h' from now. 'none': never.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration, as in --set search.channels=8."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="auto|local|HOST:PORT",
        help="The Ray cluster to join, which this machine is a node of; local: Ray is started on this machine alone. "
        "By default what RAY_ADDRESS names, else local.",
    ),
]
ControlsOption = Annotated[
    bool,
    typer.Option(
        "--controls",
        help="Afterwards run what the sweep must be better than, each with a budget as large: one search, searches "
        "that are all alike, random search, a uniformly sampled supernet.",
    ),
]
WarmStartOption = Annotated[
    list[str] | None,
    typer.Option(
        "--warm-start",
        metavar="PATH",
        help="Begin with the k and lambda (and what else is tuned) of the best searches of an earlier sweep, or of "
        "several if given again.",
    ),
]
PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="The sweep: STORAGE/NAME, a folder or a URI.")]


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@contextmanager
def working(on: str) -> Iterator[Callable[[str, int, int], None]]:
    """Say on standard error that something takes its time: a spinner on a terminal, else a line.

    Args:
        on: What, in words.

    Yields:
        What is told of parts of it: what they are, how much is done, of how much.
    """
    console, shown = Console(stderr=True), [on]

    def line(text: str) -> None:
        if text != shown[-1]:
            shown.append(text)
            console.print(text, soft_wrap=True, highlight=False)

    if not console.is_terminal:
        console.print(on, soft_wrap=True, highlight=False)
        yield lambda what, done, total: line(f"{what}: {100 * done // max(1, total) // 25 * 25} %")
        return
    with console.status(on) as status:
        yield lambda what, done, total: status.update(f"{on}; {what}: {done:,} of {total:,}")


def wide_console(stderr: bool = False) -> Console:
    """A console on which all columns of a wide table fit, if it is no terminal and no width is told."""
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console
