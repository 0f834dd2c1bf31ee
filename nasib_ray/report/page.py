"""The page: every section from what the sweep has kept, and all of them in one file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pyarrow import fs

from nasib_ray.accounts import accounts_frame
from nasib_ray.comparison import Estimate
from nasib_ray.config import SweepConfig
from nasib_ray.place import Place
from nasib_ray.report import checklist, curves, diagram, kernels, published, spending, tuning
from nasib_ray.report.history import History, sweep_history
from nasib_ray.results import Sweep, load_sweep, sweep_exists
from nasib_ray.status import SweepStatus, single_values
from nasib_ray.tables import (
    Signs,
    budget_line,
    count,
    metric_value,
    short_value,
    states_line,
    telling_settings,
)
from nasib_ray.trained import CONTROLS, TRAININGS
from nasib_ray.version import __version__
from schedulers.search_record import SearchRecord
from trainables.candidates import candidate_names

Progress = Callable[[str], None]


def write_report(path: str | os.PathLike[str], file: str | os.PathLike[str], progress: Progress | None = None) -> None:
    """Write a sweep as one HTML page that needs nothing else, neither now nor later.

    Ray is not started, and the sweep may be at work meanwhile. The file appears whole, or not at all.

    Args:
        path: The sweep's folder (STORAGE/NAME), or its URI as in "s3://bucket/sweeps/digits".
        file: The page; one that is there is replaced.
        progress: Called with a few words before each step.

    Raises:
        ValueError: If there is no sweep, or its journal is damaged.
        OSError: If the sweep cannot be read, or the file cannot be written.

    Example:
        >>> write_report("~/nasib-ray/digits", "digits.html")  # doctest: +SKIP
    """
    told, target = progress or (lambda words: None), Path(file).expanduser()
    sweep = load_sweep(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"{target} cannot be written: give a file in a folder that is there, as in ./report.html")
    told("what happened")
    html = _page(_Material.of(sweep), told)
    told("writing the page")
    _write_whole(target, html)


@dataclass(frozen=True)
class _Material:
    """What the sections are made of."""

    sweep: Sweep
    status: SweepStatus
    records: Sequence[Mapping[str, Any]]
    history: History
    config: SweepConfig | None
    trainings: Sweep | None
    controls: Mapping[str, Sweep]

    @classmethod
    def of(cls, sweep: Sweep) -> _Material:
        records = sweep.records()
        plain = sweep.state.settings.get("config")
        config = None if plain is None else SweepConfig(**plain)
        controls = {} if config is None else _controls(sweep)
        return cls(sweep, sweep.status(), records, sweep_history(records), config, _trainings(sweep), controls)

    @property
    def device(self) -> str:
        return self.status["device"] or "device"

    @property
    def trains(self) -> bool:
        """Whether it is one of trainings, among which nothing is chosen."""
        return not self.status["chooses"]

    @property
    def searches(self) -> bool:
        """Whether its trials are searches, not trainings of random architectures."""
        return self.config is not None and self.config.method == "nasib"

    @property
    def finder(self) -> SearchRecord | None:
        """The search that found the result: what was selected, else the incumbent."""
        selected = self.sweep.state.selected
        found_by = selected.config.get("name") if selected is not None else None
        return self.sweep.state.searches.get(str(found_by), self.sweep.state.incumbent)

    @property
    def found(self) -> tuple[str, ...]:
        """The operations of the result's layers; none if it is no network."""
        selected, incumbent = self.status["selected"], self.status["incumbent"]
        if selected is not None:
            return tuple(selected["architecture"])
        return tuple((incumbent["architecture"] if incumbent is not None else None) or ())


def _trainings(sweep: Sweep) -> Sweep | None:
    """The trainings of a sweep's networks; the sweep itself if it is one of trainings; None if there are none."""
    if not sweep.status()["chooses"]:
        return sweep
    if sweep.state.settings.get("config") is None:
        return None
    folder = Place.at(sweep.path).inside(TRAININGS).path
    return load_sweep(folder) if sweep_exists(folder) else None


def _controls(sweep: Sweep) -> dict[str, Sweep]:
    """The sweeps in the folder of a sweep's controls, by name."""
    chosen = fs.FileSelector(f"{sweep.folder}/{CONTROLS}", allow_not_found=True)
    names = [info.base_name for info in sweep.filesystem.get_file_info(chosen)]
    folders = {name: Place.at(sweep.path).inside(CONTROLS).inside(name).path for name in names}
    return {name: load_sweep(folder) for name, folder in folders.items() if sweep_exists(folder)}


def _page(material: _Material, told: Progress) -> str:
    told("the budget")
    accounts = accounts_frame(material.records, material.device)
    spent = material.sweep.state.ledger.spent_by_trial
    sections: dict[str, Any] = {
        "burn_down": None if accounts.empty else spending.burn_down(accounts, material.history, material.device),
        "by_trial": spending.spent_by_trial(material.sweep.state, material.device) if spent else None,
        "timeline": spending.timeline(material.sweep.state, material.history) if material.history.holdings else None,
    }
    told("learning curves")
    settings = telling_settings(material.status)
    # Every trial has a seed, which has a column of its own.
    columns = [name for name in settings if name != "seed"]
    sections["curves"] = curves.learning_curves(
        material.sweep.state, material.history, settings, None if material.trains else material.sweep.state.incumbent
    )
    sections["finalists"] = curves.finalists(material.sweep.state, material.history)
    sections["effective"] = curves.effective_candidates(material.sweep.state, material.history, material.finder)
    told("tuned settings")
    config = material.config
    sections["tuning"] = tuning.tuning(material.sweep.state, config) if config and material.searches else None
    told("kernel maps")
    sections["kernels"] = _kernels(material)
    told("the network")
    sections["drawing"] = _drawing(material)
    told("trained networks")
    compared = _comparison(material)
    devices = _devices(material)
    evidence = checklist.Evidence(
        material.sweep, material.config, compared.networks, devices, sorted(material.controls)
    )
    told("the page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["metric"] = lambda value, name: metric_value(name, value)
    environment.filters["counted"] = count
    environment.filters["interval"] = _interval
    environment.filters["parameters"] = published.parameters_told
    room = resources.files("nasib_ray.report")
    template = environment.from_string(room.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        sections,
        plotly=Markup(get_plotlyjs()),
        style=Markup(room.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(room.joinpath("page.js").read_text(encoding="utf-8")),
        title=material.sweep.folder.rstrip("/").rpartition("/")[2],
        own=material.config is not None,
        searches=material.searches,
        chooses=not material.trains,
        status=material.status,
        facts=_facts(material),
        comparison=compared,
        published=published.PUBLISHED,
        published_source=published.SOURCE,
        settings=columns,
        rows=_trial_rows(material, columns),
        reproduce=_reproduce(material, devices),
        configuration=_configuration(material),
        checklist=checklist.checklist(evidence),
        checklist_source=checklist.SOURCE,
        happenings=material.history.happenings,
        clock=_clock,
    )


def _kernels(material: _Material) -> kernels.KernelFigures | None:
    search = material.finder
    if search is None or not material.searches:
        return None
    tables = kernels.kernel_history(material.sweep, search)
    return kernels.kernel_figures(search.id, tables, material.found) if tables else None


def _drawing(material: _Material) -> dict[str, Any] | None:
    search = material.finder
    if search is None or not material.found or material.config is None:
        return None
    training = search if "architecture" in search.config else material.sweep.state.selected
    macro = None if training is None else training.config.get("architecture", {}).get("macro")
    macro = macro or kernels.macro_shape(material.sweep, search)
    skeleton = diagram.Skeleton.of({**material.config.search.fixed, **search.config}, macro)
    svg = diagram.architecture_svg(material.found, skeleton)
    return {"svg": svg, "kinds": diagram.used_kinds(material.found), "operations": material.found}


def _comparison(material: _Material) -> published.Comparison:
    candidates, config = None, material.config
    if config is not None and {"candidates", "m", "K"} <= set(config.search.fixed):
        fixed = config.search.fixed
        candidates = len(candidate_names(fixed["candidates"], fixed["m"], fixed["K"]))
    first = next(iter(material.sweep.state.searches.values()), None)
    data = str(single_values(first.config).get("data/name", "data of its own")) if first is not None else "other data"
    searched = None if config is None else material.sweep
    if config is not None:
        reduced = config.data.image_size or config.data.subset
        data = f"{config.data.name}, smaller images or fewer of them" if reduced else config.data.name
    return published.comparison(searched, material.trainings, material.controls, candidates, data)


def _facts(material: _Material) -> list[tuple[str, str]]:
    """What the head says beside the result."""
    status, config, settings = material.status, material.config, material.sweep.state.settings
    state = status["state"] + (f": {status['why']}" if status["why"] else "")
    facts = [("state", state), ("budget", budget_line(status)), ("trials", states_line(status))]
    if config is not None:
        fixed, tuned = config.search.fixed, ", ".join(map(Signs().named, config.search.axes)) or "nothing"
        how = f"{tuned} tuned" if material.searches else "random architectures"
        space = {name: fixed[name] for name in ("layers", "candidates", "m") if name in fixed}
        facts.insert(0, ("searched", f"networks for {config.data.name}; " + _listed(space) + f"; {how}"))
    elif material.trains:
        facts.insert(0, ("trained", "networks that a sweep found, from scratch"))
    else:
        facts.insert(
            0, ("searched", f"settings of {settings.get('trainable', 'a Trainable')}, not by nasib-ray itself")
        )
    if not material.trains:
        facts.append(("ranked by", f"{status['metric']}, {status['mode']}"))
    if status["full_horizon"]:
        facts.append(("a full search", f"{status['full_horizon']} epochs"))
    if status["started"] and status["updated"]:
        facts.append(("time", f"{_clock_text(status['started'])} to {_clock_text(status['updated'])} (UTC)"))
    return facts


def _trial_rows(material: _Material, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The trials as the page's table shows them, in the order in which they were made."""
    rows = []
    for trial in material.status["trials"]:
        values = single_values(trial["config"])
        record = material.sweep.state.searches[trial["id"]]
        found = record.best_metrics.get("architecture")
        rows.append(
            {
                **trial,
                "settings": [short_value(values.get(name)) for name in settings],
                "seed": values.get("seed"),
                "why": record.why,
                "architecture": ", ".join(map(str, found)) if isinstance(found, list) else "",
            }
        )
    return rows


def _reproduce(material: _Material, devices: Sequence[str]) -> list[tuple[str, str]]:
    settings, config = material.sweep.state.settings, material.config
    hosts = {metrics.get("hostname") for curve in material.history.curves.values() for metrics in curve.metrics}
    facts = [] if config is None else [("seed of the sweep", str(config.seed))]
    facts += [(name, str(version)) for name, version in settings.get("versions", {}).items()]
    facts += [
        ("devices", ", ".join(devices) or "not reported"),
        ("machines", str(len(hosts - {None})) if hosts - {None} else "not reported"),
        (f"{material.device.upper()}s of a trial", f"{settings.get('devices_per_trial', 1):g}"),
        ("report", f"made by nasib-ray {__version__} at {_clock_text(datetime.now(timezone.utc).isoformat())} (UTC)"),
    ]
    if config is not None:
        facts.insert(0, ("to repeat it", "write the configuration to FILE.yaml, then: nasib-ray sweep FILE.yaml"))
    return facts


def _configuration(material: _Material) -> str:
    """The whole configuration as YAML; of a foreign sweep what its first record says."""
    plain = material.sweep.state.settings.get("config")
    if plain is None:
        inner = ("number", "time", "run", "event", "crc", "flushed")
        plain = {key: value for key, value in material.sweep.state.settings.items() if key not in inner}
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))


def _devices(material: _Material) -> list[str]:
    names = (metrics.get("device_name") for curve in material.history.curves.values() for metrics in curve.metrics)
    return sorted({str(name) for name in names if name is not None})


def _interval(estimate: Estimate, signed: bool) -> str:
    """A mean with its interval, if it has one."""
    sign = "+" if signed else ""
    ends = "" if math.isnan(estimate.low) else f" ({estimate.low:{sign}.2f} to {estimate.high:{sign}.2f})"
    return f"{estimate.mean:{sign}.2f}{ends}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _clock(unix_seconds: float) -> str:
    return _clock_text(datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat())


def _clock_text(iso: str) -> str:
    return iso[:19].replace("T", " ")


def _write_whole(file: Path, text: str) -> None:
    """Write a file beside its place, then put it there."""
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
