"""The command ``nasib-ray report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nasib_ray.cli_options import PathArgument
from schedulers.sizes import format_size

_NAME = "report.html"


def report(
    path: PathArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=f"Where to; {_NAME} in PATH unless that is a URI.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a sweep as one HTML page that needs nothing else, while it runs and afterwards; Ray is not started.

    The page shows how the budget was spent, what the searches learnt, what k and lambda did, what the search thought of
    each kernel, the network that was found and the trained ones, and all that it takes to reproduce them.
    """
    from nasib_ray.config import is_uri
    from nasib_ray.report.page import write_report

    if output is None and is_uri(path):
        raise ValueError(f"{path} is a URI: say where the report is written to, as in -o {_NAME}")
    file = Path(path).expanduser() / _NAME if output is None else output.expanduser()
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("report") as status:
            write_report(path, file, lambda words: status.update(words))
    else:
        write_report(path, file, lambda words: print(words, file=console.file, flush=True))
    print(f"wrote {file} ({format_size(file.stat().st_size)})")
