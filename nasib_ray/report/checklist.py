"""The NAS best-practice checklist, answered from what a sweep has kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nasib_ray.config import SweepConfig
from nasib_ray.results import Sweep
from nasib_ray.tables import Signs, count
from nasib_ray.trained import CONTROL, TrainedStatus

SOURCE = (
    "Lindauer & Hutter, Best Practices for Scientific Research on Neural Architecture Search, JMLR 21(243), 2020; "
    "the points are in our words"
)

Answer = Literal["yes", "partly", "no", "for you"]


@dataclass(frozen=True)
class Point:
    """A point of the checklist.

    Attributes:
        part: The part of the checklist that it belongs to.
        asked: What it asks for.
        answer: ``for you`` where only whoever publishes can answer.
        why: What the answer rests on, or where to find it.
    """

    part: str
    asked: str
    answer: Answer
    why: str


@dataclass(frozen=True)
class Evidence:
    """What the answers rest on.

    Attributes:
        sweep: The sweep.
        config: Its configuration; None if it was not begun by nasib-ray.
        networks: What was trained from scratch to the end.
        devices: Names of the devices that trials ran on.
        controls: Names of the controls that were run.
    """

    sweep: Sweep
    config: SweepConfig | None
    networks: Sequence[TrainedStatus]
    devices: Sequence[str]
    controls: Sequence[str]


def checklist(evidence: Evidence) -> list[Point]:
    """Answer every point, from the sweep where that is possible."""
    return [*_code(evidence), *_comparison(evidence), *_reporting(evidence)]


def _code(evidence: Evidence) -> list[Point]:
    part = "Code"
    own = evidence.config is not None
    version = evidence.sweep.state.settings.get("versions", {}).get("nasib-ray")
    release = f"nasib-ray {version}" if version else "nasib-ray"
    user = _user_code(evidence.config)
    ours: Answer = "yes" if own and not user else "partly" if own else "for you"
    where = f"{release}, open source" if own else "the Trainable is the user's own"
    also = f"; publish your own code besides: {', '.join(user)}" if user else ""
    seeds = sorted({len(network["test_errors"]) for network in evidence.networks})
    return [
        Point(
            part, "The code that trains the final networks is available", ours, f"nasib-ray retrain, of {where}{also}"
        ),
        Point(part, "The code of the search space is available", ours, f"{where}{also}"),
        Point(
            part,
            "Hyperparameters and seeds of the final trainings are told",
            "yes" if evidence.networks else "no",
            "section retrain of the configuration above, search's settings where it says nothing; seeds derive from "
            f"the sweep's, {' or '.join(map(str, seeds))} for each network"
            if evidence.networks
            else "no network was trained to its end: nasib-ray retrain does that",
        ),
        Point(part, "The code of the search method is available", ours, where + also),
        Point(
            part,
            "Hyperparameters and seeds of the search are told",
            "yes" if own else "partly",
            "the whole configuration, and each trial's settings and seed, are above"
            if own
            else "each trial's settings are above; what else the script sets is not known here",
        ),
    ]


def _comparison(evidence: Evidence) -> list[Point]:
    part = "Comparison"
    controls = [network["name"] for network in evidence.networks if network["name"].startswith(CONTROL)]
    found = [network for network in evidence.networks if not network["name"].startswith(CONTROL)]
    several = evidence.networks and min(len(network["test_errors"]) for network in evidence.networks) > 1
    devices, runs = evidence.devices, evidence.sweep.state.runs
    # Versions are those of the first run: a later one may have had others.
    same = len(devices) == 1 and runs <= 1
    return [
        Point(
            part,
            "What is compared shares data, splits, search space, training code and its settings",
            "yes" if controls and found else "no",
            "found and control networks were trained by the same code and settings on the same data"
            if controls and found
            else "searches within the sweep share all of these; no other method was run under them, and the published "
            "rows do not share them",
        ),
        Point(
            part,
            "Confounders are under control: hardware, versions, run time",
            "yes" if same else "partly",
            f"versions and devices are above ({', '.join(devices) or 'no device is known'}; "
            f"{count(runs, 'run')} of the sweep, versions are those of the first); the budget is device-time, so "
            "other hardware searches for more or fewer epochs",
        ),
        Point(
            part,
            "Ablations were run",
            "partly" if evidence.controls else "no",
            "best-of-n leaves out the tuning of k and lambda, uniform-supernet the exploitation by alpha; others need "
            "sweeps of their own"
            if evidence.controls
            else "a sweep varies the tuned settings only; ablations need sweeps of their own",
        ),
        Point(
            part,
            "What is compared was judged by the same protocol",
            "yes" if len(evidence.networks) > 1 else "no",
            "every network here was trained alike, and tested once, at its end"
            if len(evidence.networks) > 1
            else "there are not two trained networks to compare",
        ),
        Point(part, "Performance over time is shown", "yes", "learning curves, and the budget over time, above"),
        Point(
            part,
            "Random search was run for comparison",
            "yes" if f"{CONTROL}random-search" in controls else "partly" if evidence.controls else "no",
            f"control networks: {', '.join(controls)}"
            if controls
            else f"the controls {', '.join(evidence.controls)} were run, but their networks were not trained"
            if evidence.controls
            else "no controls were run: random networks of the space, trained alike, would show what searching adds",
        ),
        Point(
            part,
            "Everything was repeated with several seeds",
            "partly" if several else "no",
            ("final trainings were repeated; " if several else "")
            + "the sweep itself ran with one seed only, so its own spread is not known: repeat it with another seed",
        ),
        Point(
            part,
            "Tabular or surrogate benchmarks were used for closer study",
            "no",
            "none has kernels of this space; benchmarks/ of the repository has studies on the digits",
        ),
    ]


def _reporting(evidence: Evidence) -> list[Point]:
    part = "Reporting"
    own, ledger = evidence.config is not None, evidence.sweep.state.ledger
    device = (evidence.sweep.state.settings.get("device") or "device").upper()
    tuned = ", ".join(map(Signs().named, evidence.config.search.axes)) if evidence.config is not None else ""
    return [
        Point(
            part,
            "How hyperparameters were tuned is told, and what that took",
            "yes" if own else "partly",
            (f"{tuned} by Optuna ({evidence.config.sampler})" if tuned else "none was tuned")
            + " within the budget; all "
            "else is as configured, and trials before this sweep are not known here"
            if evidence.config is not None
            else "what each trial held is above; how settings were chosen is the script's",
        ),
        Point(
            part,
            "The time of the whole method is told, end to end",
            "yes",
            f"{ledger.spent:,.0f} {device}-seconds were held, set-up, losses and selection included; final trainings "
            "have an account of their own",
        ),
        Point(
            part,
            "All details of the experiment are told",
            "yes" if own else "partly",
            "configuration, versions, devices and seeds are above; the journal has every event"
            if own
            else "versions, devices and the journal's events; the script is not part of them",
        ),
    ]


def _user_code(config: SweepConfig | None) -> list[str]:
    """Import paths of the user's own code that a configuration names."""
    if config is None:
        return []
    candidates: Any = config.search.fixed.get("candidates")
    named = [name for name in candidates if ":" in name] if isinstance(candidates, (list, tuple)) else []
    return [*named, *([config.data.name] if ":" in config.data.name and "://" not in config.data.name else [])]
