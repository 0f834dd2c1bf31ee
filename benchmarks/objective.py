"""What should a sweep maximise? Candidates for the objective against the accuracy of networks trained from scratch.

    python benchmarks/objective.py digits
    python benchmarks/objective.py cifar10 --data CIFAR-10-FOLDER --jobs 2
    python benchmarks/objective.py cifar10 --print                      (only the tables, of what was run)

Two studies. "objective": searches over k, lambda and seeds, and networks drawn at random; the network of each is judged
by every candidate for the objective, and trained from scratch on all training images by several seeds, which are tested
on the test set (the truth, on images that no choice was made on). "settings": pair_scale, the place of batch norm,
alpha's optimizer and learning rate, at one k and lambda, by the same truth.

Each search appends one record to a file; what the file holds is not run again, so that a study can be interrupted.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from json_lines import read_lines
from numpy.typing import NDArray
from objective_study import SETUPS, Setup, Study, cells, run_study
from rich.console import Console
from rich.table import Table
from scipy import stats

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 2000

Record = dict[str, Any]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A candidate for the objective.

    Attributes:
        name: In words.
        value: What it says of a record; more is better.
        seconds: Device-seconds that it took, besides the search.
    """

    name: str
    value: Callable[[Record], float]
    seconds: Callable[[Record], float]


def candidates(setup: Setup, when: str) -> list[Candidate]:
    """All of them, at the "end" of a search or at the "half" of its horizon."""

    def judged(name: str, keys: Sequence[str], measure: str) -> Candidate:
        sign = 1.0 if measure == "accuracy" else -1.0

        def value(record: Record) -> float:
            return sign * statistics.fmean(record[when][key][measure] for key in keys)

        def seconds(record: Record) -> float:
            return float(sum(record[when][key]["seconds"] for key in keys))

        return Candidate(f"{name}: {measure}", value, seconds)

    def counted(control: str) -> Candidate:
        return Candidate(control.replace("_", "-"), lambda record: float(record[control]), lambda _: 0.0)

    found = [judged("shared weights", ["shared"], "accuracy")]
    for name, key in (
        ("recalibrated", "recalibrated"),
        ("fine-tuned an epoch", "finetuned"),
        ("fine-tuned softly", "finetuned softly"),
    ):
        found += [judged(name, [key], "accuracy"), judged(name, [key], "loss")]
    for epochs in setup.short_epochs:
        keys = [f"trained {epochs}, seed {seed}" for seed in range(2)]
        name = f"trained {epochs} epochs"
        found += [judged(name, keys[:1], "accuracy"), judged(name, keys[:1], "loss")]
        found.append(judged(f"{name}, 2 seeds", keys, "loss"))
    found += [counted("parameters"), counted("multiply_adds")]
    return found


def truth(record: Record, measure: str = "accuracy") -> float:
    """Of the network, the mean over its trainings."""
    return statistics.fmean(training[measure] for training in record["truth"])


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's; 0 where one of both never changes."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def interval(records: Sequence[Record], measure: Callable[[Sequence[Record]], float]) -> tuple[float, float]:
    """95% of the bootstrap over records."""
    generator = np.random.default_rng(0)
    drawn = [
        measure([records[place] for place in generator.integers(len(records), size=len(records))])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def ceiling(records: Sequence[Record]) -> tuple[float, float]:
    """(One training against another, one candidate without noise against the mean of all) as rank correlations.

    The second is the root of the mean's reliability by Spearman and Brown.
    """
    count = len(records[0]["truth"])
    pairs = [
        correlation(
            [record["truth"][one]["accuracy"] for record in records],
            [record["truth"][other]["accuracy"] for record in records],
        )
        for one in range(count)
        for other in range(one)
    ]
    single = statistics.fmean(pairs)
    reliability = max(0.0, count * single / (1 + (count - 1) * single))
    return single, reliability**0.5


def share_of_noise(records: Sequence[Record]) -> float:
    """Which part of the variance of trained accuracy over networks is noise that is left in the mean of trainings."""
    within = statistics.fmean(statistics.variance([one["accuracy"] for one in record["truth"]]) for record in records)
    return within / len(records[0]["truth"]) / statistics.variance(map(truth, records))


def decile_regret(records: Sequence[Record], value: Callable[[Record], float]) -> float:
    """How far the mean truth of the best tenth by a candidate lies below that of the best tenth by the truth."""
    size = max(1, round(len(records) / 10))

    def mean_of_best(key: Callable[[Record], float]) -> float:
        return statistics.fmean(truth(record) for record in sorted(records, key=key, reverse=True)[:size])

    return mean_of_best(truth) - mean_of_best(value)


def k_and_lambda(record: Record) -> tuple[float, float]:
    """Of a search."""
    settings = record["cell"]["settings"]
    return settings["k"], settings["lambda"]


def variance_shares(records: Sequence[Record], value: Callable[[Record], float]) -> dict[str, float]:
    """How the variance over searches splits: k, lambda, both together beyond that, seeds; of a balanced design."""
    groups: dict[tuple[float, float], list[float]] = defaultdict(list)
    for record in records:
        groups[k_and_lambda(record)].append(value(record))
    size = min(map(len, groups.values()))
    values = np.array([group[:size] for _, group in sorted(groups.items())], dtype=np.float64)
    ks, lambdas = sorted({k for k, _ in groups}), sorted({lambda_ for _, lambda_ in groups})
    grid = values.reshape(len(ks), len(lambdas), size)
    total = float(((grid - grid.mean()) ** 2).sum())
    if total == 0:
        return dict.fromkeys(("k", "lambda", "k x lambda", "seed"), 0.0)

    def between(means: Vector, count: int) -> float:
        return float(((means - grid.mean()) ** 2).sum()) * count

    of_k = between(grid.mean(axis=(1, 2)), len(lambdas) * size)
    of_lambda = between(grid.mean(axis=(0, 2)), len(ks) * size)
    of_cells = between(grid.mean(axis=2).reshape(-1), size)
    return {
        "k": of_k / total,
        "lambda": of_lambda / total,
        "k x lambda": (of_cells - of_k - of_lambda) / total,
        "seed": (total - of_cells) / total,
    }


def print_objectives(console: Console, setup: Setup, records: Sequence[Record]) -> None:
    """The first study's tables."""
    searches = [record for record in records if record["cell"]["study"] == "objective"]
    drawn = [record for record in records if record["cell"]["study"] == "random"]
    each = Counter(map(k_and_lambda, searches))
    if len(each) < len(setup.ks) * len(setup.lambdas) or min(each.values()) < 2:
        console.print(f"{len(searches)} searches are too few for the study of objectives: two for each k and lambda")
        return
    single, best = ceiling(searches)
    low, high = interval(searches, lambda some: ceiling(some)[0])
    seconds = statistics.fmean(record["search_seconds"] for record in searches)
    trained = statistics.fmean(training["seconds"] for record in searches for training in record["truth"])
    console.print(
        f"{len(searches)} searches of {setup.horizon} epochs ({seconds:.0f} CPU-seconds each), {len(drawn)} random "
        f"networks; {setup.truth_seeds} trainings of {setup.truth_epochs} epochs of each ({trained:.0f} CPU-seconds)"
    )
    spread = statistics.fmean(statistics.stdev([one["accuracy"] for one in record["truth"]]) for record in searches)
    for name, some in (("searches", searches), ("random networks", drawn)):
        means = [truth(record) for record in some]
        if len(means) > 1:
            console.print(
                f"trained accuracy of {name}: {statistics.fmean(means):.4f} ({min(means):.4f} to {max(means):.4f}), "
                f"standard deviation over networks {statistics.stdev(means):.4f}, over a network's seeds {spread:.4f}"
            )
    noise, total = share_of_noise(searches), statistics.stdev(map(truth, searches))
    console.print(
        f"of the variance over searches {100 * min(1.0, noise):.0f}% is noise left in the mean of {setup.truth_seeds} "
        f"trainings: without it networks have a standard deviation of {total * max(0.0, 1 - noise) ** 0.5:.4f}"
    )
    console.print(
        f"noise ceiling: one training against another {single:+.2f} ({low:+.2f} to {high:+.2f}); a perfect candidate "
        f"against the mean of {setup.truth_seeds}: {best:.2f}"
    )
    by_chance = statistics.fmean(sorted(map(truth, searches))[-max(1, round(len(searches) / 10)) :])
    by_chance -= statistics.fmean(map(truth, searches))
    console.print(f"top-decile regret of a choice by chance: {100 * by_chance:.2f}%")
    table = Table("candidate", title=f"rank correlation with trained accuracy, {len(searches)} searches")
    heads = ("at the end", "95%", "above shared weights", "at half", "with random ones", "top-decile regret")
    for head in (*heads, "CPU-seconds"):
        table.add_column(head, justify="right")
    at_half = {candidate.name: candidate for candidate in candidates(setup, "half")}
    shared, *_ = candidates(setup, "end")
    for candidate in candidates(setup, "end"):

        def ranks(some: Sequence[Record], value: Callable[[Record], float] = candidate.value) -> float:
            return correlation([value(record) for record in some], [truth(record) for record in some])

        def above(some: Sequence[Record], ranks: Callable[[Sequence[Record]], float] = ranks) -> float:
            truths = [truth(record) for record in some]
            return ranks(some) - correlation([shared.value(record) for record in some], truths)

        low, high = interval(searches, ranks)
        least, most = interval(searches, above)
        alone = "shared" in candidate.name or "tuned" in candidate.name or "recalibrated" in candidate.name
        table.add_row(
            candidate.name,
            f"{ranks(searches):+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            "" if candidate.name == shared.name else f"{least:+.2f} to {most:+.2f}",
            f"{ranks(searches, at_half[candidate.name].value):+.2f}",
            "" if alone else f"{ranks([*searches, *drawn]):+.2f}",
            f"{100 * decile_regret(searches, candidate.value):.2f}%",
            f"{statistics.fmean(map(candidate.seconds, searches)):.2f}",
        )
    console.print(table)
    console.print(variance_table(setup, searches))
    console.print(means_table(searches))


def variance_table(setup: Setup, searches: Sequence[Record]) -> Table:
    """How the variance over searches splits, for the truth, each candidate, and pure noise.

    In brackets p of an F-test against seeds: how probable at least such a share is if there is only noise.
    """
    shares = Table("share of the variance over searches (p)", "k", "lambda", "k x lambda", "seed")
    ks, lambdas = len(setup.ks), len(setup.lambdas)
    # Of all k and lambda the same number of searches is looked at.
    count = ks * lambdas * min(Counter(map(k_and_lambda, searches)).values())
    freedom = (ks - 1, lambdas - 1, (ks - 1) * (lambdas - 1), count - ks * lambdas)
    measures: Mapping[str, Callable[[Record], float]] = {
        "trained accuracy": truth,
        **{candidate.name: candidate.value for candidate in candidates(setup, "end")},
    }
    for name, measure in measures.items():
        *parts, rest = variance_shares(searches, measure).values()
        tested = []
        for share, degrees in zip(parts, freedom[:-1], strict=True):
            ratio = (share / degrees) / max(1e-12, rest / freedom[-1])
            tested.append(f"{100 * share:.0f}% ({float(stats.f.sf(ratio, degrees, freedom[-1])):.3f})")
        shares.add_row(name, *tested, f"{100 * rest:.0f}%")
    shares.add_row("what pure noise gives", *(f"{100 * part / (count - 1):.0f}%" for part in freedom))
    return shares


def means_table(searches: Sequence[Record]) -> Table:
    """The mean trained accuracy at each value of k and of lambda, with its standard error."""
    means = Table("trained accuracy at", "value", "mean", "s.e.", "searches")
    for key in ("k", "lambda"):
        at: dict[float, list[float]] = defaultdict(list)
        for record in searches:
            at[record["cell"]["settings"][key]].append(truth(record))
        for value, found in sorted(at.items()):
            error = statistics.stdev(found) / len(found) ** 0.5
            means.add_row(key, f"{value:g}", f"{statistics.fmean(found):.4f}", f"{error:.4f}", str(len(found)))
    return means


def print_settings(console: Console, records: Sequence[Record]) -> None:
    """The second study's table."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["cell"]["study"] == "settings":
            told = {key: value for key, value in record["cell"]["settings"].items() if key != "k"}
            groups[", ".join(f"{key} {value}" for key, value in told.items())].append(record)
    table = Table("settings", "searches", "trained accuracy", "s.d.", "shared weights", "recalibrated")
    for name, some in groups.items():
        means = [truth(record) for record in some]
        table.add_row(
            name,
            str(len(some)),
            f"{statistics.fmean(means):.4f}",
            f"{statistics.stdev(means):.4f}" if len(means) > 1 else "",
            *(
                f"{statistics.fmean(record['end'][key]['accuracy'] for record in some):.3f}"
                for key in ("shared", "recalibrated")
            ),
        )
    if groups:
        console.print(table)


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setup", choices=sorted(SETUPS))
    parser.add_argument("--data", help="as data.name: where the images are; unless told, the setup's own")
    parser.add_argument("--studies", nargs="+", choices=("objective", "settings"), default=("objective", "settings"))
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--file", type=Path, help="of the records; by default one of the setup's in benchmarks/results")
    parser.add_argument("--print", action="store_true", help="run nothing")
    options = parser.parse_args()
    setup = SETUPS[options.setup]
    if options.data is not None:
        setup = replace(setup, data={**setup.data, "name": options.data})
    file = options.file or RESULTS / f"objective-{options.setup}.jsonl"
    if not options.print:
        wanted = [cell for study in options.studies for cell in cells(setup, study)]
        run_study(Study, setup, wanted, file, options.jobs)
    console = Console(width=180)
    records = read_lines(file)
    devices = sorted({record["device"] for record in records})
    console.print(f"{options.setup}: {len(records)} records of {file.name}; {', '.join(devices)}")
    print_objectives(console, setup, records)
    print_settings(console, records)


if __name__ == "__main__":
    main()
