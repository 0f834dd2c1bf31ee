"""Whole sweeps of real searches under this scheduler, and under those that Ray Tune has, at equal CPU budgets.

    python benchmarks/real_sweeps.py digits
    python benchmarks/real_sweeps.py cifar10 --data CIFAR-10-FOLDER
    python benchmarks/real_sweeps.py digits --print

Each seed is a sweep under every scheduler, with the same searches in the same order: k and lambda are drawn at random
by the sweep's seed. All have two slots of one CPU, reuse processes, and begin when these have imported what they need.
Ray's schedulers draw trials until the budget is used, that is until both slots were theirs for half of it; they are
shown the objective at their rungs, and need not pay for measuring it in between. What each sweep selects is trained
from scratch on all training images by several seeds, and tested: for Ray's the network of the best objective that was
reported, for ours what the selection at its end chose (its part of the budget), and besides the network of the best
objective and the other finalists, which benchmarks/finalists.py compares. Sweeps are appended to a file and not run
again, so that a study can be interrupted.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from json_lines import append_line, read_lines
from nasib_curves import OBJECTIVE_EPOCHS
from objective_study import SETUPS, Cell, Setup, Study, run_study
from ray.tune import Callback, RunConfig, Stopper, TuneConfig, Tuner, with_resources
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, HyperBandScheduler, TrialScheduler
from rich.console import Console
from rich.table import Table

from nasib_ray.comparison import Estimate
from nasib_ray.config import SweepConfig
from nasib_ray.quiet_ray import quiet_tune, ray_for_sweep
from nasib_ray.searcher import StudySearcher
from nasib_ray.sweep import METRIC, run_sweep, versions
from schedulers.peers import bracket_sizes
from schedulers.search_record import SearchRecord
from trainables.architecture import Architecture
from trainables.nasib import NasibTrainable
from trainables.settings import TrialSettings

RESULTS = Path(__file__).parent / "results"
BUDGETS = {"digits": 240.0, "cifar10": 1200.0}
"""CPU-seconds of a sweep."""

FULL_SEARCH = {"digits": 6.0, "cifar10": 105.0}
"""CPU-seconds of a search of the setup's horizon, about; ours is told that its budget buys as many of them."""

SLOTS = 2
OURS = "async-halving"


@dataclass(frozen=True)
class Peer:
    """A scheduler of Ray Tune's.

    Attributes:
        scheduler: Of a sweep whose full searches have so many epochs.
        rungs: The epochs at which it looks at the objective, for one trial after the other, over and over again.
    """

    scheduler: type[TrialScheduler]
    rungs: Sequence[Sequence[int]]

    @classmethod
    def named(cls, name: str, horizon: int) -> Peer:
        """ASHA and HyperBand with Ray's settings, but eta 4 for ASHA; or none."""
        if name == "fifo":
            return cls(FIFOScheduler, [[horizon]])
        if name == "asha":
            return cls(ASHAScheduler, [sorted({min(horizon, 4**power) for power in range(horizon)})])
        band = list[list[int]]()
        for trials, first, halvings in bracket_sizes(horizon, eta=3):
            band += trials * [[min(horizon, first * 3**power) for power in range(halvings + 1)]]
        return cls(HyperBandScheduler, band)

    def make(self, horizon: int) -> TrialScheduler:
        """The scheduler."""
        if self.scheduler is FIFOScheduler:
            return FIFOScheduler()
        told = {"time_attr": "training_iteration", "max_t": horizon}
        more = {"grace_period": 1, "reduction_factor": 4} if self.scheduler is ASHAScheduler else {}
        return self.scheduler(**told, **more)


PEERS = ("asha", "hyperband", "fifo")


class ComparedAtRungs(NasibTrainable):
    """A search that measures its objective at the rungs of another scheduler alone."""

    def read_settings(self, config: dict[str, Any]) -> TrialSettings:
        """Those of a search, the rungs, and whether it says that it has come to its end."""
        config = dict(config)
        self._rungs = config.pop("rungs")
        self._ends = config.pop("ends")
        return super().read_settings(config)

    def step(self) -> dict[str, Any]:
        """An epoch."""
        ahead = [rung for rung in self._rungs if rung > self.work.epochs]
        told = {"horizon": self.work.settings.horizon, "slice_seconds": None}
        self.go_on({**told, "compare_at": ahead[0] if ahead else None})
        result = super().step()
        return {**result, "done": result["done"] and self._ends}


class Suggestions(StudySearcher):
    """The configurations that a sweep of ours tries, one after the other.

    Args:
        config: Of that sweep.
        told: What all trials are told besides.
        rungs: At which they are looked at, for one trial after the other, over and over again.
    """

    def __init__(self, config: SweepConfig, told: Mapping[str, Any], rungs: Sequence[Sequence[int]]) -> None:
        super().__init__(config, METRIC, "max")
        self._told = told
        self._rungs = rungs
        self._made: list[SearchRecord] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next one."""
        self.see(self._made)
        suggested = super().suggest(trial_id)
        assert isinstance(suggested, dict), "there is always another one"
        number = len(self._made)
        self._made.append(SearchRecord(trial_id, number, suggested))
        return {**suggested, **self._told, "rungs": list(self._rungs[number % len(self._rungs)])}


class Watch(Callback, Stopper):  # type: ignore[misc]
    """Ends a sweep when both slots were its own for the budget, and notes what came when.

    Attributes:
        seen: (device-seconds since the first trial began, objective, architecture) of every value.
        epochs: How many were done, by all trials.
        errors: Of trials that failed; the first one ends the sweep.
    """

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._began: float | None = None
        self._trials: set[str] = set()
        self.seen: list[tuple[float, float, list[str]]] = []
        self.epochs = 0
        self.errors: list[str] = []

    @property
    def trials(self) -> int:
        """How many were begun."""
        return len(self._trials)

    @property
    def spent(self) -> float:
        """Device-seconds since the first trial began."""
        return 0.0 if self._began is None else SLOTS * (time.monotonic() - self._began)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._began = self._began or time.monotonic()
        self._trials.add(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.epochs += 1
        if result[METRIC] == result[METRIC] and self.spent <= self._budget:
            self.seen.append((self.spent, result[METRIC], list(result["architecture"])))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.errors.append(f"trial {trial.trial_id} failed: {trial.error_file}")

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self.errors) or self.spent >= self._budget


def config_of(setup: Setup, name: str, seed: int, budget: float, storage: str) -> SweepConfig:
    """Of a sweep of ours."""
    objective = {"objective": "trained-likelihood", "objective_epochs": OBJECTIVE_EPOCHS[name]}
    return SweepConfig(
        budget=f"{budget} cpu-seconds",
        data=setup.data,
        search={**setup.search, **objective},
        sampler="random",
        searches=round(budget / FULL_SEARCH[name]),
        seed=seed,
        storage=storage,
        name="sweep",
        max_concurrent=SLOTS,
    )


def run_ours(config: SweepConfig) -> dict[str, Any]:
    """A sweep under this scheduler."""
    sweep = run_sweep(config)
    state = sweep.state
    if state.end != "finished":
        raise SystemExit(f"the sweep is {state.end}: it is not recorded")
    seen, spent = [], 0.0
    for record in sweep.records():
        if record["event"] == "charge":
            spent += record["amount"]
        elif record["event"] == "report" and state.searches[record["trial"]].kind == "search":
            value = record["metrics"].get(METRIC)
            if value is not None and value == value:
                seen.append((spent, value, list(record["metrics"]["architecture"])))
    selected = state.selected
    epochs = sum(search.epochs for search in state.searches.values() if search.kind == "search")
    best = best_of(seen)
    # Where there was no time for a selection, a user gets the best search's network.
    chosen = best["best"] if selected is None else list(selected.latest["architecture"])
    searches = sum(search.kind == "search" for search in state.searches.values())
    finalists = [
        {
            "architecture": list(trial.latest["architecture"]),
            "objective": state.searches[trial.config["name"]].best_value,
            "curve": [value for _, value in trial.curve],
        }
        for trial in state.competing
    ]
    found = {"found": {"selected": chosen, **best}, "finalists": finalists}
    return {**summary(seen), **found, "trials": searches, "epochs": epochs}


def run_peer(config: SweepConfig, name: str, horizon: int, budget: float, storage: str) -> dict[str, Any]:
    """A sweep under a scheduler of Ray Tune's."""
    peer, watch = Peer.named(name, horizon), Watch(budget)
    # HyperBand itself stops what has come to the end: its brackets would never fill with trials that leave them.
    told = {"horizon": horizon, "ends": name != "hyperband"}
    with quiet_tune(), ray_for_sweep() as cluster:
        cluster.await_workers()
        Tuner(
            with_resources(ComparedAtRungs, {"CPU": 1}),
            tune_config=TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=-1,
                search_alg=Suggestions(config, told, peer.rungs),
                scheduler=peer.make(horizon),
                max_concurrent_trials=None if name == "hyperband" else SLOTS,
                reuse_actors=True,
            ),
            run_config=RunConfig(storage_path=storage, name="sweep", callbacks=[watch], stop=watch, verbose=0),
        ).fit()
    if watch.errors:
        raise SystemExit(f"{watch.errors[0]}: the sweep is not recorded")
    return {**summary(watch.seen), "found": best_of(watch.seen), "trials": watch.trials, "epochs": watch.epochs}


def best_of(seen: Sequence[tuple[float, float, list[str]]]) -> dict[str, list[str]]:
    """The network of the best objective."""
    return {"best": max(seen, key=lambda one: one[1])[2]}


def summary(seen: Sequence[tuple[float, float, list[str]]]) -> dict[str, Any]:
    """When a better objective came, and which."""
    course, best = [], float("-inf")
    for spent, value, _ in seen:
        if value > best:
            best = value
            course.append((round(spent, 1), value))
    return {"objective": best, "course": course, "looks": len(seen)}


class Trainings(Study):
    """Trains what sweeps have found from scratch."""

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train and test a network."""
        architecture = Architecture(tuple(cell.settings["architecture"]), self.random_network(0).macro)
        truth = [self.truth(architecture, seed) for seed in range(self._setup.truth_seeds)]
        return {**self.new_record(cell), "truth": truth}


def run_sweeps(setup: Setup, name: str, schedulers: Sequence[str], seeds: int, budget: float, file: Path) -> None:
    """Run the sweeps that the file does not hold, those of one seed beside each other."""
    done = {(record["seed"], record["scheduler"]) for record in read_lines(file)}
    for seed in range(seeds):
        for scheduler in schedulers:
            if (seed, scheduler) in done:
                continue
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as storage:
                config = config_of(setup, name, seed, budget, storage)
                ours = scheduler == OURS
                result = run_ours(config) if ours else run_peer(config, scheduler, setup.horizon, budget, storage)
            record = {"seed": seed, "scheduler": scheduler, "budget": budget, "versions": versions(), **result}
            append_line(file, record)
            print(f"seed {seed}, {scheduler}: {time.monotonic() - began:.0f} s", flush=True)


def found_networks(sweeps: Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    """Each network that some sweep found, once."""
    networks = dict.fromkeys(
        tuple(network)
        for sweep in sweeps
        for network in (*sweep["found"].values(), *(one["architecture"] for one in sweep.get("finalists", ())))
    )
    yield from (Cell("found", 0, {"architecture": list(network)}) for network in networks)


def report(sweeps: Sequence[Mapping[str, Any]], trainings: Sequence[Mapping[str, Any]]) -> None:
    """Print means over seeds, and how they differ from ASHA's on the same seeds."""
    truth = {
        tuple(record["cell"]["settings"]["architecture"]): [one["accuracy"] for one in record["truth"]]
        for record in trainings
    }
    by = {(sweep["scheduler"], sweep["seed"]): sweep for sweep in sweeps}
    seeds = sorted({seed for _, seed in by if all((name, seed) in by for name in (OURS, *PEERS))})
    if not seeds:
        missing = [name for name in (OURS, *PEERS) if name not in {scheduler for scheduler, _ in by}]
        raise SystemExit(f"there is no seed of which all schedulers have a sweep: {', '.join(missing) or 'run more'}")
    rows = [(OURS, "selected"), *((name, "best") for name in (OURS, *PEERS))]
    accuracy = {
        (name, what): [statistics.fmean(truth[tuple(by[name, seed]["found"][what])]) for seed in seeds]
        for name, what in rows
    }
    objective = {name: [by[name, seed]["objective"] for seed in seeds] for name in (OURS, *PEERS)}
    console = Console(width=150)
    some = next(iter(by.values()))
    console.print(f"{len(seeds)} sweeps each of {some['budget']:.0f} CPU-seconds on {SLOTS} slots", highlight=False)
    table = Table(box=None, header_style="bold")
    table.add_column("scheduler: network")
    for heading in ("test accuracy", "above asha", "objective", "above asha", "its objective by", "trials", "epochs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, what in rows:
        cells = [f"{name}: {what}", *apart(accuracy[name, what], accuracy["asha", "best"], "{:.2%}", "{:+.2%}")]
        cells += apart(objective[name], objective["asha"], "{:.3f}", "{:+.3f}")
        reached = [reached_by(by[name, seed], by["asha", seed]["objective"]) for seed in seeds]
        never = sum(share is None for share in reached)
        shares = [share for share in reached if share is not None]
        told = f"{statistics.median(shares):.0%}" if shares else ""
        cells.append(f"{told} ({never} never)" if never else told)
        for key in ("trials", "epochs"):
            cells.append(f"{statistics.fmean(by[name, seed][key] for seed in seeds):.0f}")
        table.add_row(*cells)
    console.print(table)
    console.print("above asha: the mean and its 95% interval over seeds (Student's t); its objective by: the median")
    console.print("share of the budget after which a sweep had come to the final objective of the same seed under asha")
    _, told = apart(accuracy[OURS, "selected"], accuracy[OURS, "best"], "{:.2%}", "{:+.2%}")
    console.print(f"test accuracy of what was selected above that of the best objective: {told}", highlight=False)


def apart(ours: Sequence[float], base: Sequence[float], plain: str, signed: str) -> list[str]:
    """A mean, and how far it is above another one on the same seeds."""
    above = Estimate.of([a - b for a, b in zip(ours, base, strict=True)])
    told = "{} ({} to {})".format(*(signed.format(part) for part in (above.mean, above.low, above.high)))
    return [plain.format(statistics.fmean(ours)), "" if math.isnan(above.low) else told]


def reached_by(sweep: Mapping[str, Any], objective: float) -> float | None:
    """The share of the budget after which a sweep had come to an objective; None if it never did."""
    return next((spent / sweep["budget"] for spent, value in sweep["course"] if value >= objective), None)


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--data", help="as data.name: where the images are; unless told, the setup's own")
    parser.add_argument("--seeds", type=int, default=5, help="sweeps under each scheduler")
    parser.add_argument(
        "--schedulers", nargs="+", choices=(OURS, *PEERS), default=(OURS, *PEERS), help="default: all, compared"
    )
    parser.add_argument("--budget", type=float, help="CPU-seconds of a sweep")
    parser.add_argument("--file", type=Path, help="of the sweeps; by default one of the setup's in benchmarks/results")
    parser.add_argument("--print", action="store_true", help="run nothing: print what there is")
    options = parser.parse_args()
    setup = SETUPS[options.setup]
    if options.data:
        setup = replace(setup, data={**setup.data, "name": options.data})
    file = options.file or RESULTS / f"real-sweeps-{options.setup}.jsonl"
    trained = file.with_stem(f"{file.stem}-networks")
    if not options.print:
        budget = options.budget or BUDGETS[options.setup]
        run_sweeps(setup, options.setup, options.schedulers, options.seeds, budget, file)
        run_study(Trainings, setup, found_networks(read_lines(file)), trained, SLOTS)
    if set(options.schedulers) == {OURS, *PEERS}:
        report(read_lines(file), read_lines(trained))
    else:
        print(
            f"{file} holds {len(read_lines(file))} sweeps; sweeps of all schedulers are compared without --schedulers"
        )


if __name__ == "__main__":
    main()
