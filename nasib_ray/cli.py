"""The command line."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nasib_ray import cli_networks, cli_report, cli_simulate
from nasib_ray.cli_options import (
    INTERRUPTED,
    UNITS,
    AddressOption,
    BudgetOption,
    ConfigFile,
    ControlsOption,
    DataOption,
    DeadlineOption,
    MaxStorageOption,
    NameOption,
    PathArgument,
    SetOption,
    StorageOption,
    WarmStartOption,
    example,
    wide_console,
    working,
)
from nasib_ray.version import __version__

if TYPE_CHECKING:
    from nasib_ray.config import SweepConfig
    from nasib_ray.place import Place
    from nasib_ray.results import Sweep

app = typer.Typer(
    name="nasib-ray",
    help=f"Budgeted neural architecture search on Ray Tune. {UNITS}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"nasib-ray {__version__}")
        raise typer.Exit


@app.command(epilog=example("nasib-ray plan examples/digits.yaml --budget '1 cpu-hour'"))
def plan(
    config: ConfigFile = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
    settings: SetOption = None,
) -> None:
    """Measure one epoch on this machine and say what a budget would buy; nothing is spent.

    Prints the epochs of a full search, how many searches the budget buys, the rungs at which they are compared, the
    memory, the disk, the wall-clock, and the money if `price_per_hour` (of one device) is set.
    """
    from nasib_ray.plan import make_plan, plan_report

    chosen = _load(config, settings, budget=budget, data=data, max_storage=max_storage, deadline=deadline)
    with working("measuring one epoch") as progress:
        made = make_plan(chosen, progress)
    plan_report(Console(), made)


@app.command(
    epilog=example(
        "nasib-ray sweep examples/digits.yaml",
        "nasib-ray sweep --data cifar10 --budget '1.5 gpu-days' --storage s3://bucket/sweeps --name first",
        "nasib-ray sweep --address auto --budget '1.5 gpu-days' --storage /shared/sweeps",
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
    controls: ControlsOption = False,
    warm_start: WarmStartOption = None,
    address: AddressOption = None,
    settings: SetOption = None,
) -> None:
    """Run many NASIB searches over k and lambda under one budget.

    Without --name a new name is made. An existing name with the same configuration goes on where it ended; with
    another configuration it is refused. Ctrl-C ends the sweep with everything saved.
    """
    from nasib_ray.place import Place

    limits = {"max_storage": max_storage, "deadline": deadline}
    chosen = _load(config, settings, budget=budget, data=data, storage=storage, name=name, **limits)
    place, horizons = Place.of(chosen), dict[str, int]()
    if warm_start:
        from nasib_ray.results import load_sweep
        from nasib_ray.warm_start import earlier_horizons, warm_started

        earlier = [load_sweep(path) for path in dict.fromkeys(warm_start)]
        chosen, notes = warm_started(chosen, earlier, place.path)
        horizons = earlier_horizons(earlier)
        print("\n".join(notes), end="\n" if notes else "")
    _run_all(chosen, place, controls, horizons, address=address)


@app.command(epilog=example("nasib-ray search --data digits --budget '2 cpu-minutes'"))
def search(
    config: ConfigFile = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    storage: StorageOption = None,
    name: NameOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
    address: AddressOption = None,
    settings: SetOption = None,
) -> None:
    """Run one NASIB search with the whole budget, as the papers do.

    k and lambda are those of the configuration's first point, the papers' k = 0.1 unless it says otherwise.
    """
    alone = {"method": "nasib", "allocator": "equal-share", "searches": 1, "max_concurrent": 1, "finalists": 0}
    limits = {"max_storage": max_storage, "deadline": deadline}
    chosen = _load(config, settings, budget=budget, data=data, storage=storage, name=name, **limits, **alone)
    _run(chosen, address=address)


@app.command(epilog=example("nasib-ray resume ~/nasib_ray_results/first --budget '2 gpu-days'"))
def resume(
    path: PathArgument,
    budget: BudgetOption = None,
    max_storage: MaxStorageOption = None,
    deadline: DeadlineOption = None,
    controls: ControlsOption = False,
    address: AddressOption = None,
) -> None:
    """Go on with a sweep that was interrupted, from its journal alone.

    A finished sweep does not change, unless --budget raises its budget: then it goes on. That is refused where the
    budget was shared equally and nothing is left to train or select, as behind `nasib-ray search`. The bound on storage
    is the last one that was given, and so is the deadline, as long as it has not passed.
    """
    from nasib_ray.config import SweepConfig
    from nasib_ray.place import Place
    from nasib_ray.results import is_settled, is_shared_out, load_sweep
    from nasib_ray.status import begun_by

    known = load_sweep(path)
    if not known.state.settings:
        raise ValueError(f"{path} ended before its first trial, and knows nothing: run the command that began it again")
    plain = known.state.settings.get("config")
    if plain is None:
        again = {"retrain": "the same `nasib-ray retrain` as then"}.get(begun_by(known.state), "its own script again")
        raise ValueError(f"{path} is not a sweep of the command line: run {again}, which goes on with it")
    given, device = known.state.ledger.budget, known.state.settings["device"]
    limits = {"max_storage": max_storage or known.state.max_storage_bytes, "deadline": deadline or _ahead(known)}
    chosen = SweepConfig(**{**plain, **limits, "budget": budget or f"{given!r} {device}-seconds"})
    if chosen.budget is not None and chosen.budget.device != device:
        raise ValueError(f"{path} is paid in {device.upper()} time, so its budget cannot be {chosen.budget}")
    if is_settled(chosen, known.state):
        more = "" if is_shared_out(chosen, known.state) else " A larger --budget would go on with it."
        print(f"{path} is finished: {known.state.end_why}.{more}")
        if not controls:
            return
    _run_all(chosen, Place.at(path), controls, address=address)


app.command(
    epilog=example(
        "nasib-ray retrain ~/nasib_ray_results/first --top 3 --epochs 100",
        "nasib-ray retrain ~/nasib_ray_results/first --budget '2 gpu-hours' --set retrain.channels=36",
    )
)(cli_networks.retrain)
app.command(epilog=example("nasib-ray export ~/nasib_ray_results/first --format onnx -o network.onnx"))(
    cli_networks.export
)


app.command(epilog=example("nasib-ray compare ~/nasib_ray_results/first ~/nasib_ray_results/second"))(
    cli_networks.compare
)


@app.command(epilog=example("nasib-ray status ~/nasib_ray_results/first --json"))
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
        status_report(wide_console(), known)


@app.command(epilog=example("nasib-ray results ~/nasib_ray_results/first --parquet reports.parquet"))
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


@app.command(epilog=example("nasib-ray ledger ~/nasib_ray_results/first --parquet accounts.parquet"))
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
    from nasib_ray.accounts import accounts_report
    from nasib_ray.reports import write_csv, write_parquet
    from nasib_ray.results import load_sweep

    known = load_sweep(path)
    frame = known.accounts()
    if csv is not None:
        write_csv(frame, csv)
    if parquet is not None:
        write_parquet(frame, parquet)
    accounts_report(wide_console(), frame, known.status(), last)
    if csv is not None or parquet is not None:
        print(f"wrote {' and '.join(str(file) for file in (csv, parquet) if file is not None)}")


app.command(epilog=example("nasib-ray report ~/nasib_ray_results/first -o report.html"))(cli_report.report)
app.command(
    epilog=example("nasib-ray simulate task.parquet --full-trainings 30 --slots 4 --allocator asha --seeds 20"),
)(cli_simulate.simulate)


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


def _run_all(
    config: SweepConfig,
    place: Place,
    controls: bool,
    earlier: Mapping[str, int] | None = None,
    address: str | None = None,
) -> None:
    """Run a sweep and then, if they are wanted, its controls; what is finished is only shown."""
    from nasib_ray.controls import controls_of, whole_budget
    from nasib_ray.sweep import SharedOutError, check_same

    if not controls:
        _run(config, place, earlier, address)
        return
    _ = config.resources  # Without a budget there is nothing to announce.
    runs = controls_of(config, place)
    for run in runs:
        try:
            check_same(run.config, run.place)
        except SharedOutError as error:
            raise ValueError(
                f"the control {run.name} is finished, and had a smaller budget: raise the sweep's without --controls, "
                "or begin the sweep and its controls anew under another --name"
            ) from error
    print(f"{place.path} and its {len(runs)} controls, one after the other, may hold {whole_budget(config)} in all:")
    for run in runs:
        print(f"  {run.name}: {run.meaning}")
    _run(config, place, earlier, address)
    for run in runs:
        print(f"\ncontrol {run.name}: {run.meaning}")
        _run(run.config, run.place, address=address)


def _run(
    config: SweepConfig,
    place: Place | None = None,
    earlier: Mapping[str, int] | None = None,
    address: str | None = None,
) -> None:
    """Run a sweep with its progress shown; exits with 1 if it failed, 130 if it was interrupted."""
    from nasib_ray.place import Place
    from nasib_ray.progress import Progress, final_report
    from nasib_ray.results import config_of, is_settled
    from nasib_ray.sweep import check_same, run_sweep

    console = Console()
    place = place or Place.of(config)
    known = check_same(config, place)
    if known is not None and is_settled(config, known.state) and (anew := config.told_anew(config_of(known))):
        print(f"a sweep that is finished keeps what it was told of {', '.join(anew)}; `nasib-ray retrain` has --set")
    progress = Progress(console, place.name, earlier_horizons=earlier)
    progress.start()
    try:
        done = run_sweep(config, place, progress, address)
    except KeyboardInterrupt as interrupt:
        progress.stop()
        again = f"nasib-ray resume {shlex.quote(place.path)}"
        print(f"interrupted while no trial was running; `{again}` goes on if there is a sweep already")
        raise typer.Exit(INTERRUPTED) from interrupt
    finally:
        progress.stop()
    if not done.state.settings:
        print("interrupted before the first trial: nothing was begun, and the same command begins it")
        raise typer.Exit(INTERRUPTED)
    final_report(console, done.state, place.path)
    if done.state.end != "finished":
        raise typer.Exit(1 if done.state.end == "failed" else INTERRUPTED)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: users' mistakes are told in a line or two, without a traceback.

    Args:
        arguments: A command and its options; by default those of this process.
    """
    # What users name by import path lies where they are, also when the script lies elsewhere.
    sys.path.append("")
    try:
        app(arguments)
    except (ValueError, OSError) as error:
        print(f"nasib-ray: {error}", file=sys.stderr)
        sys.exit(2)
