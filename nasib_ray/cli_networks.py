"""The commands about networks that a sweep found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from nasib_ray.cli_options import INTERRUPTED, AddressOption, PathArgument, wide_console, working
from schedulers.sizes import format_size

if TYPE_CHECKING:
    from nasib_ray.results import Sweep


def retrain(
    path: PathArgument,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Train so many of the best networks.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", metavar="S", min=1, help="Trainings of each network.")] = 3,
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs of a training.")] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="BUDGET", help="What all trainings may hold; their epochs follow from it."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the trainings' folder in PATH.")] = "retrain",
    controls: Annotated[
        bool,
        typer.Option(
            "--controls",
            help="Beside them the best networks of the sweep's controls, and one of 3x3 convolutions, all as wide as "
            "makes their multiply-adds agree.",
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="retrain.KEY=VALUE", help="How to train, as in --set retrain.channels=36."),
    ] = None,
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trained networks as JSON.")] = False,
) -> None:
    """Train found networks from scratch on all training images, and test each once, at its end.

    The trainings have an account of their own in PATH/retrain: the sweep's budget is not touched. The same command
    again goes on with what was interrupted; more --top or --seeds adds to what is there. Ctrl-C saves everything.
    """
    from nasib_ray.compare import comparison, methods_report, read_compared
    from nasib_ray.config_file import with_overrides
    from nasib_ray.progress import Progress
    from nasib_ray.results import config_of, load_sweep
    from nasib_ray.retraining import RetrainPlan
    from nasib_ray.retraining import retrain as run_retraining
    from schedulers.budget import Budget

    if epochs is not None and budget is not None:
        raise ValueError("--epochs and --budget are given: the epochs follow from the budget, so give one of them")
    if wrong := [text for text in settings or [] if not text.startswith("retrain.")]:
        raise ValueError(f"--set {wrong[0]}: only keys of the section retrain can be set here, as retrain.channels=36")
    known = config_of(load_sweep(path))
    changed = [*(settings or []), *([] if epochs is None else [f"retrain.epochs={epochs}"])]
    chosen = type(known)(**with_overrides(known.to_plain(), changed)).retrain
    console = wide_console(stderr=as_json)
    progress = Progress(console, name, choosing=False)
    progress.start()
    try:
        limit = None if budget is None else Budget.parse(budget)
        done = run_retraining(path, RetrainPlan(top, seeds, chosen, limit, name, controls), progress, address)
    except KeyboardInterrupt as interrupt:
        progress.stop()
        print("interrupted while no training was running; the same command goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from interrupt
    finally:
        progress.stop()
    _tell_trained(done, as_json, console)
    if controls and not as_json:
        told = comparison(read_compared([path], name))
        methods_report(console, told["methods"], sweeps=1)
    if done.state.end != "finished":
        if done.state.end == "failed":
            console.print(f"failed: {done.state.end_why}", style="red")
            raise typer.Exit(1)
        console.print("interrupted; the same command goes on", style="yellow")
        raise typer.Exit(INTERRUPTED)


def _tell_trained(done: Sweep, as_json: bool, console: Console) -> None:
    """Print the networks that were trained, with their latency here."""
    from nasib_ray.trained import trained_networks, trained_report, trained_status
    from trainables.device import device_name, find_device
    from trainables.stock import latency_seconds

    device = find_device()
    networks = trained_networks(done)
    told = []
    with working("measuring latency") as progress:
        for number, network in enumerate(networks):
            progress("networks", number, len(networks))
            told.append(trained_status(network, latency_seconds(network.architecture, device)))
    if as_json:
        print(json.dumps({"device": device_name(device), "networks": told}, indent=2))
    else:
        trained_report(console, told, device_name(device))


def export(
    path: PathArgument,
    file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    form: Annotated[
        str | None, typer.Option("--format", metavar="onnx|pt2|json", help="By default what FILE ends in.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the trainings' folder in PATH.")] = "retrain",
) -> None:
    """Write the trained network of a sweep to a file, and run the file on real images to check it.

    It is the best one that was retrained, or else the one that the sweep's selection trained for a short while.

    onnx and pt2 (torch.export) take float32 images [batch, channels, height, width] in [0, 1], of any batch size, and
    give logits; class names and normalisation are in the file. json describes the network, without weights.
    """
    from nasib_ray.export import FORMATS
    from nasib_ray.export import export as write_export
    from nasib_ray.networks import read_network

    file = file.expanduser()
    chosen = form or file.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise ValueError(f"{chosen!r} is no format: give --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    network = read_network(path, name)
    print(f"network: {network.source}")
    with working(f"writing {file}, and running it on real images") as progress:
        check = write_export(network, file, cast(Any, chosen), progress)
    size = format_size(file.stat().st_size)
    if check.images:
        print(f"checked: run on {check.images} real images, logits differ by at most {check.largest_difference:.1e}")
    print(f"wrote {file} ({size})")


def compare(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="The sweeps: folders or URIs.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the trainings' folders.")] = "retrain",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put sweeps side by side: what they spent, what they selected, and the test errors of what was retrained.

    Sweeps that differ in nothing but their seed are taken together, with the controls that were retrained: mean test
    errors and relative improvements over random search, with intervals over sweeps.
    """
    from nasib_ray.compare import compare_report, comparison, read_compared

    told = comparison(read_compared(paths, name))
    if as_json:
        print(json.dumps(told, indent=2))
        return
    compare_report(wide_console(), told)
