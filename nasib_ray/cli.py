"""The command line."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from nasib_ray.cli_report import EXAMPLE as REPORT_EXAMPLE
from nasib_ray.cli_report import report
from nasib_ray.version import __version__
from schedulers.sizes import format_size

if TYPE_CHECKING:
    from nasib_ray.config import SweepConfig
    from nasib_ray.results import Sweep
    from nasib_ray.sweep import Place

INTERRUPTED = 130
"""The exit status of a sweep that was stopped by a signal, as shells have it."""

_UNITS = (
    "Budgets are device-time that all trials together may hold: a number and a unit, such as '1.5 gpu-days', "
    "'36 gpu-hours', '20 cpu-minutes' or '900 cpu-seconds' (the space may be left out). One trial that holds half a "
    "GPU for ten seconds spends five GPU-seconds."
)

app = typer.Typer(
    name="nasib-ray",
    help=f"Budgeted neural architecture search on Ray Tune. {_UNITS}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ConfigFile = Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="The sweep's configuration.")]
BudgetOption = Annotated[str | None, typer.Option("--budget", metavar="BUDGET", help=_UNITS)]
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
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the configuration, as in --set search.layers=6."),
]
PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="The sweep: STORAGE/NAME, a folder or a URI.")]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"nasib-ray {__version__}")
        raise typer.Exit


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


@app.command(epilog=_example("nasib-ray plan examples/digits.yaml --budget '1 cpu-hour'"))
def plan(
    config: ConfigFile = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    max_storage: MaxStorageOption = None,
    settings: SetOption = None,
) -> None:
    """Measure one epoch on this machine and say what a budget would buy; nothing is spent.

    Prints the epochs of a full search, how many searches the budget buys, the rungs at which they are compared, the
    memory, the disk, the wall-clock, and the money if `price_per_hour` (of one device) is set.
    """
    from nasib_ray.plan import make_plan, plan_report

    console = Console()
    chosen = _load(config, settings, budget=budget, data=data, max_storage=max_storage)
    with console.status("measuring one epoch") if console.is_terminal else nullcontext():
        made = make_plan(chosen)
    plan_report(console, made)


@app.command(
    epilog=_example(
        "nasib-ray sweep examples/digits.yaml",
        "nasib-ray sweep --data cifar10 --budget '1.5 gpu-days' --storage s3://bucket/sweeps --name first",
    )
)
def sweep(
    config: ConfigFile = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    storage: StorageOption = None,
    name: NameOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
    settings: SetOption = None,
) -> None:
    """Run many NASIB searches over k and lambda under one budget.

    Without --name a new name is made. An existing name with the same configuration goes on where it ended; with
    another configuration it is refused. Ctrl-C ends the sweep with everything saved.
    """
    limits = {"max_storage": max_storage, "deadline": deadline}
    _run(_load(config, settings, budget=budget, data=data, storage=storage, name=name, **limits))


@app.command(epilog=_example("nasib-ray search --data digits --budget '2 cpu-minutes'"))
def search(
    config: ConfigFile = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    storage: StorageOption = None,
    name: NameOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
    settings: SetOption = None,
) -> None:
    """Run one NASIB search with the whole budget, as the papers do.

    k and lambda are those of the configuration's first point, the papers' k = 0.1 unless it says otherwise.
    """
    alone = {"allocator": "equal-share", "searches": 1, "max_concurrent": 1, "finalists": 0}
    limits = {"max_storage": max_storage, "deadline": deadline}
    _run(_load(config, settings, budget=budget, data=data, storage=storage, name=name, **limits, **alone))


@app.command(epilog=_example("nasib-ray resume ~/nasib_ray_results/first --budget '2 gpu-days'"))
def resume(
    path: PathArgument,
    budget: BudgetOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
) -> None:
    """Go on with a sweep that was interrupted, from its journal alone.

    A finished sweep changes nothing, unless --budget raises its budget: then it goes on. The bound on storage is the
    last one that was given, and so is the deadline, as long as it has not passed.
    """
    from nasib_ray.config import SweepConfig
    from nasib_ray.results import load_sweep
    from nasib_ray.sweep import Place

    known = load_sweep(path)
    plain = known.state.settings.get("config")
    if plain is None:
        raise ValueError(f"{path} was not begun by nasib-ray: run its own script again, which goes on with it")
    given, device = known.state.ledger.budget, known.state.settings["device"]
    limits = {"max_storage": max_storage or known.state.max_storage_bytes, "deadline": deadline or _ahead(known)}
    chosen = SweepConfig(**{**plain, **limits, "budget": budget or f"{given!r} {device}-seconds"})
    if chosen.budget is not None and chosen.budget.device != device:
        raise ValueError(f"{path} is paid in {device.upper()} time, so its budget cannot be {chosen.budget}")
    if known.state.end == "finished" and chosen.budget is not None and chosen.budget.device_seconds == given:
        print(f"{path} is finished: {known.state.end_why}. A larger --budget would go on with it.")
        return
    _run(chosen, Place.at(path))


@app.command(
    epilog=_example(
        "nasib-ray retrain ~/nasib_ray_results/first --top 3 --epochs 100",
        "nasib-ray retrain ~/nasib_ray_results/first --budget '2 gpu-hours' --set retrain.channels=36",
    )
)
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
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="retrain.KEY=VALUE", help="How to train, as in --set retrain.channels=36."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trained networks as JSON.")] = False,
) -> None:
    """Train found networks from scratch on all training images, and test each once, at its end.

    The trainings have an account of their own in PATH/retrain: the sweep's budget is not touched. The same command
    again goes on with what was interrupted; more --top or --seeds adds to what is there. Ctrl-C saves everything.
    """
    from nasib_ray.config_file import with_overrides
    from nasib_ray.progress import Progress
    from nasib_ray.results import load_sweep
    from nasib_ray.retraining import RetrainPlan, config_of
    from nasib_ray.retraining import retrain as run_retraining
    from schedulers.budget import Budget

    if epochs is not None and budget is not None:
        raise ValueError("--epochs and --budget are given: the epochs follow from the budget, so give one of them")
    if wrong := [text for text in settings or [] if not text.startswith("retrain.")]:
        raise ValueError(f"--set {wrong[0]}: only keys of the section retrain can be set here, as retrain.channels=36")
    known = config_of(load_sweep(path))
    changed = [*(settings or []), *([] if epochs is None else [f"retrain.epochs={epochs}"])]
    chosen = type(known)(**with_overrides(known.to_plain(), changed)).retrain
    console = Console(stderr=as_json)
    progress = Progress(console, name, choosing=False)
    progress.start()
    try:
        done = run_retraining(
            path, RetrainPlan(top, seeds, chosen, None if budget is None else Budget.parse(budget), name), progress
        )
    except KeyboardInterrupt as interrupt:
        progress.stop()
        print("interrupted before any training ran; the same command goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from interrupt
    finally:
        progress.stop()
    _tell_trained(done, as_json, console)
    if done.state.end != "finished":
        if done.state.end == "interrupted":
            console.print("interrupted; the same command goes on", style="yellow")
        else:
            console.print(f"failed: {done.state.end_why}", style="red")
        raise typer.Exit(INTERRUPTED if done.state.end == "interrupted" else 1)


def _tell_trained(done: Sweep, as_json: bool, console: Console) -> None:
    """Print the networks that were trained, with their latency here."""
    from nasib_ray.trained import trained_networks, trained_report, trained_status
    from trainables.device import device_name, find_device
    from trainables.stock import latency_seconds

    device = find_device()
    networks = trained_networks(done)
    told = [trained_status(network, latency_seconds(network.architecture, device)) for network in networks]
    if as_json:
        print(json.dumps({"device": device_name(device), "networks": told}, indent=2))
    else:
        trained_report(console, told, device_name(device))


@app.command(epilog=_example("nasib-ray export ~/nasib_ray_results/first --format onnx -o network.onnx"))
def export(
    path: PathArgument,
    file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    form: Annotated[
        str | None, typer.Option("--format", metavar="onnx|pt2|json", help="By default what FILE ends in.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the trainings' folder in PATH.")] = "retrain",
) -> None:
    """Write the trained network of a sweep to a file, and run the file on real images to check it.

    onnx and pt2 (torch.export) take float32 images [batch, channels, height, width] in [0, 1], of any batch size, and
    give logits; class names and normalisation are in the file. json describes the network, without weights.
    """
    from nasib_ray.export import FORMATS
    from nasib_ray.export import export as write_export
    from nasib_ray.networks import read_network

    chosen = form or file.suffix.removeprefix(".")
    if chosen not in FORMATS:
        raise ValueError(f"{chosen!r} is no format: give --format {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    network = read_network(path, name)
    print(f"network: {network.source}")
    check = write_export(network, file, cast(Any, chosen))
    size = format_size(file.stat().st_size)
    if check.images:
        print(f"checked: run on {check.images} real images, logits differ by at most {check.largest_difference:.1e}")
    print(f"wrote {file} ({size})")


@app.command(epilog=_example("nasib-ray status ~/nasib_ray_results/first --json"))
def status(
    path: PathArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; times are in UTC, amounts in seconds.")] = False,
) -> None:
    """Say how a sweep stands, while it runs and afterwards; Ray is not started."""
    from nasib_ray.progress import status_report
    from nasib_ray.results import load_sweep

    known = load_sweep(path)
    if as_json:
        print(json.dumps(known.status(), indent=2))
    else:
        status_report(Console(), known)


@app.command(epilog=_example("nasib-ray results ~/nasib_ray_results/first --parquet reports.parquet"))
def results(
    path: PathArgument,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write comma-separated values.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", metavar="FILE", help="Write Parquet.")] = None,
) -> None:
    """Print or write every report of a sweep, one row each."""
    from nasib_ray.results import load_sweep

    known = load_sweep(path)
    if csv is not None:
        known.to_csv(csv)
    if parquet is not None:
        known.to_parquet(parquet)
    if csv is None and parquet is None:
        known.to_csv(sys.stdout)
    else:
        print(f"wrote {' and '.join(str(file) for file in (csv, parquet) if file is not None)}")


@app.command(epilog=_example("nasib-ray ledger ~/nasib_ray_results/first --parquet accounts.parquet"))
def ledger(
    path: PathArgument,
    last: Annotated[int, typer.Option("--last", metavar="N", min=0, help="Print N rows; 0: all.")] = 20,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write comma-separated values.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", metavar="FILE", help="Write Parquet.")] = None,
) -> None:
    """Print the accounts of a sweep, and write them: every grant, charge and release as a row.

    Prints what was held by kind and by trial, and the newest rows; files get all rows. A row says when, which trial,
    which kind, how much, and the balances after it; amounts are in device-seconds.
    """
    from nasib_ray.accounts import WIDE, accounts_report
    from nasib_ray.reports import write_csv, write_parquet
    from nasib_ray.results import load_sweep

    known = load_sweep(path)
    frame = known.accounts()
    if csv is not None:
        write_csv(frame, csv)
    if parquet is not None:
        write_parquet(frame, parquet)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    accounts_report(console, frame, known.status(), last)
    if csv is not None or parquet is not None:
        print(f"wrote {' and '.join(str(file) for file in (csv, parquet) if file is not None)}")


app.command(epilog=REPORT_EXAMPLE)(report)


def _ahead(sweep: Sweep) -> datetime | None:
    """The deadline of a sweep's last run; None if it has passed, which is said: it was that run's."""
    from nasib_ray.deadline import format_deadline

    if sweep.state.deadline is None:
        return None
    deadline, now = datetime.fromtimestamp(sweep.state.deadline).astimezone(), datetime.now().astimezone()
    if deadline > now:
        return deadline
    print(f"the deadline {format_deadline(deadline)} has passed, so that this run has none; --deadline gives it one")
    return None


def _load(config: Path | None, settings: list[str] | None, **given: Any) -> SweepConfig:
    from nasib_ray.config import SweepConfig

    return SweepConfig.load(config, settings or (), **{key: value for key, value in given.items() if value is not None})


def _run(config: SweepConfig, place: Place | None = None) -> None:
    """Run a sweep with its progress shown; exits with 1 if it failed, 130 if it was interrupted."""
    from nasib_ray.progress import Progress, final_report
    from nasib_ray.sweep import Place, check_same, run_sweep

    console = Console()
    place = place or Place.of(config)
    check_same(config, place)
    progress = Progress(console, place.name)
    progress.start()
    try:
        done = run_sweep(config, place, progress)
    except KeyboardInterrupt as interrupt:
        progress.stop()
        again = f"nasib-ray resume {shlex.quote(place.path)}"
        print(f"interrupted before any trial ran; `{again}` goes on if there is a sweep already")
        raise typer.Exit(INTERRUPTED) from interrupt
    finally:
        progress.stop()
    final_report(console, done.state, place.path)
    if done.state.end != "finished":
        raise typer.Exit(INTERRUPTED if done.state.end == "interrupted" else 1)


def main() -> None:
    """The console script: users' mistakes are told in a line or two, without a traceback."""
    # What users name by import path lies where they are, also when the script lies elsewhere.
    sys.path.append("")
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"nasib-ray: {error}", file=sys.stderr)
        sys.exit(2)
